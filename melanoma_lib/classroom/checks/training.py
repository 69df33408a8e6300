"""Exercises of the training lesson: a data set, a network, where to start, what to freeze, and a loop to mend."""

import functools
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2

from melanoma_lib.classroom.checks.engine import Exercise, not_yet

starting_bias = Exercise(
    reference=lambda prevalence: math.log(prevalence / (1 - prevalence)),
    inputs=[(0.018,), (0.111,), (0.3,), (0.8,)],
    returns="one number, the bias",
    success="sigmoid(bias) is the prevalence: an untrained model starts around the base rate, not around 50%",
    slips={
        "that is the prevalence, a probability; the bias stands before the sigmoid": lambda p: p,
        "these are the odds; the logit is their logarithm": lambda p: p / (1 - p),
        "the odds are upside down: the model would expect melanoma almost everywhere": lambda p: math.log((1 - p) / p),
        "that is ln(prevalence): the logarithm of the probability, not of the odds": math.log,
    },
    hint="The bias stands before the sigmoid: which number does the sigmoid turn into the prevalence?",
)


COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (120, 120, 120))  # of whole images: a mean tells them apart


class _Ages:
    """An encoder of one column."""

    @staticmethod
    def transform(cases: pd.DataFrame) -> np.ndarray:
        return cases[["age_approx"]].to_numpy(np.float32) / 100


class _Lesions(Dataset):
    """The lesson's data set, with the faults that are asked for."""

    def __init__(self, cases, encoder, transform, by_label=False, kind=torch.float32):
        self.cases, self.transform, self.by_label, self.kind = cases, transform, by_label, kind
        self.metadata = torch.tensor(encoder.transform(cases))

    def __len__(self):
        return len(self.cases)

    def __getitem__(self, i):
        case = self.cases.loc[i] if self.by_label else self.cases.iloc[i]
        image = Image.open(case["image_path"]).convert("RGB")
        return self.transform(image), self.metadata[i], torch.tensor(case["target"], dtype=self.kind)


@functools.cache
def _four_cases() -> tuple[pd.DataFrame, tempfile.TemporaryDirectory]:
    """A table whose index is in another order than its rows, as after a split; and the folder of its images, held open."""
    folder = tempfile.TemporaryDirectory()
    paths = [str(Path(folder.name, f"{number}.png")) for number in range(len(COLOURS))]
    for path, colour in zip(paths, COLOURS, strict=True):
        Image.new("RGB", (6, 4), colour).save(path)
    columns = {"image_path": paths, "age_approx": [10.0, 20.0, 30.0, 40.0], "target": [0, 1, 1, 0]}
    return pd.DataFrame(columns, index=[2, 0, 3, 1]), folder


def _item(dataset, cases, i):
    """What a data set gives for case ``i``, as numbers."""
    item = dataset(cases, _Ages, v2.ToImage())[i]
    parts = item if isinstance(item, tuple | list) else [item]
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else f"no tensor: {type(part).__name__}" for part in parts]
    if shapes != [(3, 4, 6), (1,), ()]:
        not_yet(f"expected tensors image (3, H, W), metadata (M,), target (): here [(3, 4, 6), (1,), ()]; got {shapes}")
    image, metadata, target = item
    return [*image.float().mean((1, 2)), *metadata, target, target.dtype == torch.float32]


dataset = Exercise(
    reference=_Lesions,
    inputs=lambda: [(_four_cases()[0], i) for i in range(len(COLOURS))],
    use=_item,
    returns=("red", "green", "blue", "metadata", "target", "target is a float"),
    success="image, metadata and target belong to the same case, and the target is a float",
    slips={
        "cases are asked for by position, from 0: use .iloc[i]. Labels of the index have gaps after a split": {"by_label": True},
        "the target is an integer; the loss needs a float: torch.tensor(float(...))": {"kind": torch.int64},
    },
    hint="Return the transformed image, the row of metadata and the target",
)


class _Fusion(nn.Module):
    """The lesson's network, with the faults that are asked for."""

    def __init__(
        self, image_branch, n_image, n_metadata, bias=0.0, dropout=0.2,
        order=(0, 1), squeeze=lambda logits: logits.squeeze(1), last=lambda logits: logits,
    ):  # fmt: skip
        super().__init__()
        self.order, self.squeeze, self.last = order, squeeze, last
        self.image_branch = image_branch
        self.metadata_branch = nn.Sequential(nn.Linear(n_metadata, 16), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_image + 16, 1))
        nn.init.constant_(self.head[1].bias, bias)

    def forward(self, image, metadata):
        features = self.image_branch(image), self.metadata_branch(metadata)
        return self.last(self.squeeze(self.head(torch.cat([features[place] for place in self.order], dim=1))))


def _logits(net, backbone, n_cases):
    """What a network answers with an untrained backbone of timm."""
    import timm

    torch.manual_seed(0)
    branch = timm.create_model(backbone, pretrained=False, num_classes=0)
    return net(branch, branch.num_features, 5).eval()(torch.rand(n_cases, 3, 32, 32), torch.rand(n_cases, 5))


fusion_net = Exercise(
    reference=_Fusion,
    inputs=[("test_efficientnet", 3), ("test_resnet", 2), ("test_resnet", 1)],
    use=_logits,
    returns="logits, one a case",
    success="one logit a case, from image and metadata, with two backbones of different width",
    slips={
        "the logits have the shape (B, 1), the targets (B,): end with .squeeze(1)": {"squeeze": lambda logits: logits},
        "a batch of one case loses its dimension: name the one to drop, .squeeze(1)": {"squeeze": torch.squeeze},
        "the metadata come first: put the image's features first, then those of the metadata": {"order": (1, 0)},
        "these are probabilities: return the logit, the loss takes the sigmoid itself": {"last": torch.sigmoid},
    },
    hint="Both branches, torch.cat(..., dim=1), then the head; leave __init__ as it is",
)


def _hold(module, gradients=False, training=False):
    module.requires_grad_(gradients)
    module.train(training)


def _moved(freeze, backbone):
    """What two steps change in a network whose backbone was to be frozen: 1 for changed, 0 for as before."""
    import timm

    torch.manual_seed(0)
    branch, head = timm.create_model(backbone, pretrained=False, num_classes=0), nn.LazyLinear(1)
    images = torch.rand(4, 3, 32, 32)
    head(branch(images))
    optimiser = torch.optim.SGD([*branch.parameters(), *head.parameters()], lr=0.1)
    freeze(branch)
    parts = [list(branch.parameters()), list(branch.buffers()), list(head.parameters())]
    before = [[tensor.detach().clone() for tensor in part] for part in parts]
    for _ in range(2):
        loss = head(branch(images)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pairs = [zip(part, old, strict=True) for part, old in zip(parts, before, strict=True)]
    return [any(not torch.equal(new, was) for new, was in pair) for pair in pairs]


freeze = Exercise(
    reference=_hold,
    inputs=[("test_resnet",), ("test_efficientnet",)],
    use=_moved,
    returns=("weights of the backbone change", "its batch statistics change", "the head learns"),
    success="neither weights nor batch statistics of the backbone move, and the head still learns",
    slips={
        "its weights still learn: module.requires_grad_(False)": {"gradients": True},
        "batch normalisation still updates its statistics: module.eval()": {"training": True},
    },
)


EPOCHS = 4
SIZES = {"train": 40, "val": 30, "test": 20}  # different, so that a batch shows which split it is


def _head_and_splits():
    rng, splits = np.random.default_rng(12), {}
    for name, n in SIZES.items():
        y = (np.arange(n) % 3 == 0).astype(np.float32)
        x = rng.normal(size=(n, 3)) + y[:, None] * np.array([0.3, 0.6, -0.3])
        splits[name] = torch.tensor(x, dtype=torch.float32), torch.from_numpy(y)
    head = torch.nn.Sequential(torch.nn.Dropout(0.0), torch.nn.Linear(3, 1))
    with torch.no_grad():
        head[1].weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]))
        head[1].bias.zero_()
    return head, torch.optim.SGD(head.parameters(), lr=2.0), splits, EPOCHS


def _fit(
    head, optimiser, splits, epochs,
    outputs=lambda logits: logits, zero=True, train=True, evaluate=True, grad=False, split="val", first=1,
):  # fmt: skip
    aurocs = []
    for _ in range(epochs):
        if train:
            head.train()
        x, y = splits["train"]
        loss = F.binary_cross_entropy_with_logits(outputs(head(x).squeeze(1)), y)
        if zero:
            optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if evaluate:
            head.eval()
        x, y = splits[split]
        with torch.set_grad_enabled(grad):
            aurocs.append(roc_auc_score(y, head(x).detach().squeeze(1)))
    return int(np.argmax(aurocs)) + first, aurocs


def _watched(fit, head, optimiser, splits, epochs):
    """What a loop does and returns: a hook sees the cases, mode and gradients of each pass."""
    seen = []
    head.register_forward_hook(lambda module, inputs, _: seen.append((len(inputs[0]), module.training, torch.is_grad_enabled())))
    best, aurocs = fit(head, optimiser, splits, epochs)
    learning = [mode for n, *mode in seen if n == SIZES["train"]]
    scoring = [mode for n, *mode in seen if n != SIZES["train"]]
    return [
        *head[1].weight.detach().ravel(), [False, True] in learning, any(n == SIZES["test"] for n, *_ in seen), not scoring,
        any(training for training, _ in scoring), any(gradients for _, gradients in scoring), best, *aurocs,
    ]  # fmt: skip


training_loop = Exercise(
    reference=_fit,
    inputs=lambda: [_head_and_splits()],
    use=_watched,
    returns=(
        "weight 1", "weight 2", "weight 3", "learns in evaluation mode", "looks at test", "never scores val",
        "scores in training mode", "scores with gradients", "best epoch",
        *(f"AUROC of epoch {epoch}" for epoch in range(1, EPOCHS + 1)),
    ),
    success="it learns from logits, scores without dropout or gradients, chooses on validation; the test stays closed",
    hunt=True,
    slips={
        "the loss gets probabilities: binary_cross_entropy_with_logits takes the sigmoid itself": {"outputs": torch.sigmoid},
        "gradients of earlier epochs pile up: call optimiser.zero_grad() before loss.backward()": {"zero": False},
        "it scores in training mode, with features dropped at random: call head.eval() before scoring": {"evaluate": False},
        "it learns in evaluation mode, without dropout: call head.train() at the start of every epoch": {"train": False},
        "it looks at the test split, which makes the test score too good. Choose on splits['val']": {"split": "test"},
        "it scores the training cases, which the head has learned, and never splits['val']": {"split": "train"},
        "it scores with gradients, which costs memory for nothing: put the scoring under torch.no_grad()": {"grad": True},
        "the best epoch is counted from 0; the first epoch is 1": {"first": 0},
    },
    hint="One step an epoch; return the best epoch and the list of AUROCs",
    tolerance=1e-4,
)  # fmt: skip
