"""Exercises of the training lesson: a data set, a network, where to start, what to freeze, and a loop to mend."""

import functools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2

from melanoma_lib.classroom.checks.engine import Exercise, not_yet
from melanoma_lib.classroom.checks.threshold import auroc

LOGIT = "The bias stands before the sigmoid: which number does the sigmoid turn into the prevalence?"
starting_bias = Exercise(
    reference=lambda prevalence: math.log(prevalence / (1 - prevalence)),
    inputs=[(0.018,), (0.111,), (0.3,), (0.8,)],
    returns="one number, the bias",
    success="sigmoid(bias) is the prevalence: an untrained model starts around the base rate, not around 50%",
    slips={
        f"that is the prevalence itself, a probability. {LOGIT}": lambda p: p,
        "these are the odds; the logit is their logarithm": lambda p: p / (1 - p),
        "the odds are upside down: the model would start by expecting melanoma almost everywhere": lambda p: math.log(
            (1 - p) / p
        ),
        "that is ln(prevalence): the logarithm of the probability, not of the odds": math.log,
        "take the natural logarithm, not that of base 10": lambda p: math.log10(p / (1 - p)),
    },
    hint=LOGIT,
)


COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (120, 120, 120))  # of whole images: a mean tells them apart


class _Ages:
    """An encoder of one column."""

    @staticmethod
    def transform(cases: pd.DataFrame) -> np.ndarray:
        return cases[["age_approx"]].to_numpy(np.float32) / 100


class _Lesions(Dataset):
    """The lesson's data set, with the faults that are asked for."""

    def __init__(self, cases, encoder, transform, **faults):
        self.cases, self.transform, self.faults = cases, transform, faults
        self.metadata = torch.tensor(encoder.transform(cases))

    def __len__(self):
        return len(self.cases)

    def __getitem__(self, i):
        case = self.cases.loc[i] if self.faults.get("label") else self.cases.iloc[i]
        image = Image.open(case["image_path"]).convert("RGB")
        kind = torch.int64 if self.faults.get("integer") else torch.float32
        return self.transform(image), self.metadata[i], torch.tensor(case["target"], dtype=kind)


@functools.cache
def _four_cases() -> tuple[pd.DataFrame, tempfile.TemporaryDirectory]:
    """A table whose index is in another order than its rows, as after a split; and the folder of its images, held open."""
    folder = tempfile.TemporaryDirectory()
    paths = [str(Path(folder.name, f"{number}.png")) for number in range(len(COLOURS))]
    for path, colour in zip(paths, COLOURS, strict=True):
        Image.new("RGB", (6, 4), colour).save(path)
    columns = {"image_path": paths, "age_approx": [10.0, 20.0, 30.0, 40.0], "target": [0, 1, 1, 0]}
    return pd.DataFrame(columns, index=[2, 0, 3, 1]), folder


def _item(cases, i, dataset=_Lesions, **faults):
    """What a data set gives for case ``i``, as numbers."""
    item = dataset(cases, _Ages, v2.ToImage(), **faults)[i]
    parts = item if isinstance(item, tuple | list) else [item]
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else f"no tensor: {type(part).__name__}" for part in parts]
    if shapes != [(3, 4, 6), (1,), ()]:
        not_yet(f"expected three tensors: image (3, H, W), metadata (M,) and target (), here [(3, 4, 6), (1,), ()]; got {shapes}")
    image, metadata, target = item
    return [*image.float().mean((1, 2)), *metadata, target, target.dtype == torch.float32]


_dataset = Exercise(
    reference=_item,
    inputs=lambda: [(_four_cases()[0], i) for i in range(len(COLOURS))],
    returns=("red", "green", "blue", "metadata", "target", "target is a float"),
    success="image, metadata and target belong to the same case, and the target is a float",
    slips={
        "cases are asked for by position, from 0: use .iloc[i]. Labels of the index have gaps after a split": {"label": True},
        "the target is an integer; the loss needs a float: torch.tensor(float(...))": {"integer": True},
    },
)


def dataset(answer: Callable) -> None:
    """Ask ``answer(cases, encoder, transform)[i]`` for four cases."""
    _dataset(_asked(answer, "__getitem__", _item, "dataset"))


class _Fusion(nn.Module):
    """The lesson's network, with the faults that are asked for."""

    def __init__(self, image_branch, n_image, n_metadata, bias=0.0, dropout=0.2, **faults):
        super().__init__()
        self.faults, self.image_branch = faults, image_branch
        self.metadata_branch = nn.Sequential(nn.Linear(n_metadata, 16), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_image + 16, 1))
        nn.init.constant_(self.head[1].bias, bias)

    def forward(self, image, metadata):
        features = [self.image_branch(image), self.metadata_branch(metadata)]
        if self.faults.get("swap"):
            features.reverse()
        logits = self.head(torch.cat(features, dim=1))
        logits = logits if self.faults.get("column") else logits.squeeze() if self.faults.get("all") else logits.squeeze(1)
        return logits.sigmoid() if self.faults.get("sigmoid") else logits


def _logits(backbone, n_cases, net=_Fusion, **faults):
    """What a network answers with an untrained backbone of timm."""
    import timm

    torch.manual_seed(0)
    branch = timm.create_model(backbone, pretrained=False, num_classes=0)
    return net(branch, branch.num_features, 5, **faults).eval()(torch.rand(n_cases, 3, 32, 32), torch.rand(n_cases, 5))


_fusion_net = Exercise(
    reference=_logits,
    inputs=[("test_efficientnet", 3), ("test_resnet", 2), ("test_resnet", 1)],
    returns="logits, one a case",
    success="one logit a case, from image and metadata, with two backbones of different width",
    slips={
        "the logits have the shape (B, 1), the targets (B,): end with .squeeze(1)": {"column": True},
        "a batch of one case loses its dimension: name the one to drop, .squeeze(1)": {"all": True},
        "the metadata come first: put the image's features first, then those of the metadata": {"swap": True},
        "these are probabilities: return the logit, the loss takes the sigmoid itself": {"sigmoid": True},
    },
    hint="Both branches, torch.cat(..., dim=1), then the head; leave __init__ as it is",
)


def fusion_net(answer: Callable) -> None:
    """Compare ``answer(image_branch, n_image, n_metadata)(image, metadata)`` with two small backbones of timm."""
    _fusion_net(_asked(answer, "forward", _logits, "net"))


def _hold(module, gradients=False, training=False):
    module.requires_grad_(gradients)
    module.train(training)


def _moved(backbone, freeze=_hold, **faults):
    """What two steps change in a network whose backbone was to be frozen: 1 for changed, 0 for as before."""
    import timm

    torch.manual_seed(0)
    branch, head = timm.create_model(backbone, pretrained=False, num_classes=0), nn.LazyLinear(1)
    images = torch.rand(4, 3, 32, 32)
    head(branch(images))
    optimiser = torch.optim.SGD([*branch.parameters(), *head.parameters()], lr=0.1)
    freeze(branch, **faults)
    parts = [list(branch.parameters()), list(branch.buffers()), list(head.parameters())]
    before = [[tensor.detach().clone() for tensor in part] for part in parts]
    for _ in range(2):
        loss = head(branch(images)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pairs = [zip(part, old, strict=True) for part, old in zip(parts, before, strict=True)]
    return [any(not torch.equal(new, was) for new, was in pair) for pair in pairs]


_freeze = Exercise(
    reference=_moved,
    inputs=[("test_resnet",), ("test_efficientnet",)],
    returns=("weights of the backbone change", "its batch statistics change", "the head learns"),
    success="neither weights nor batch statistics of the backbone move, and the head still learns",
    slips={
        "its weights still learn: module.requires_grad_(False)": {"gradients": True},
        "batch normalisation still updates its statistics: module.eval()": {"training": True},
    },
)


def freeze(answer: Callable) -> None:
    """Train two steps with a small backbone of timm that ``answer(module)`` was to freeze."""
    _freeze(_asked(answer, "", _moved, "freeze"))


def _asked(answer: Callable, method: str, ask: Callable, name: str) -> Callable:
    """``ask`` with the student's answer; an error is then shown with the line of the method it is in."""
    if not callable(answer):
        return answer

    def asked(*inputs):
        return ask(*inputs, **{name: answer})

    asked.__wrapped__ = getattr(answer, method, answer)
    return asked


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
    twice=False, zero=True, learn=True, train=True, evaluate=True, grad=False, split="val", first=1,
):  # fmt: skip
    aurocs = []
    for _ in range(epochs):
        if train:
            head.train()
        x, y = splits["train"]
        logits = head(x).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(torch.sigmoid(logits) if twice else logits, y)
        if zero:
            optimiser.zero_grad()
        if learn:
            loss.backward()
            optimiser.step()
        if evaluate:
            head.eval()
        x, y = splits[split]
        with torch.set_grad_enabled(grad):
            aurocs.append(auroc(y.numpy(), head(x).detach().squeeze(1).numpy()))
    return int(np.argmax(aurocs)) + first, aurocs


def _watched(fit: Callable) -> Callable:
    """A loop that returns, beside its answer, what was seen of it at work."""

    @functools.wraps(fit)
    def run(head, optimiser, splits, epochs):
        seen = []

        def watch(module, inputs, output):
            seen.append((len(inputs[0]), module.training, torch.is_grad_enabled()))

        head.register_forward_hook(watch)
        answer = fit(head, optimiser, splits, epochs)
        try:
            best, aurocs = answer
        except (TypeError, ValueError):
            return answer
        learning = [mode for n, *mode in seen if n == SIZES["train"]]
        scoring = [mode for n, *mode in seen if n != SIZES["train"]]
        return [
            *head[1].weight.detach().ravel(),
            [False, True] in learning,
            any(n == SIZES["test"] for n, *_ in seen),
            not scoring,
            any(training for training, _ in scoring),
            any(gradients for _, gradients in scoring),
            best,
            *aurocs,
        ]

    return run


def _watched_fit(head, optimiser, splits, epochs, **faults):
    return _watched(functools.partial(_fit, **faults))(head, optimiser, splits, epochs)


_loop = Exercise(
    reference=_watched_fit,
    inputs=lambda: [_head_and_splits()],
    returns=(
        "weight 1", "weight 2", "weight 3", "learns in evaluation mode", "looks at test", "never scores val",
        "scores in training mode", "scores with gradients", "best epoch",
        *(f"AUROC of epoch {epoch}" for epoch in range(1, EPOCHS + 1)),
    ),
    success="it learns from logits, scores without dropout or gradients, chooses on validation; the test stays closed",
    hunt=True,
    slips={
        "the loss gets probabilities: binary_cross_entropy_with_logits takes the sigmoid itself": {"twice": True},
        "gradients of earlier epochs pile up: call optimiser.zero_grad() before loss.backward()": {"zero": False},
        "the head does not learn: is there a loss.backward() and an optimiser.step()?": {"learn": False},
        "it scores in training mode, with features dropped at random: call head.eval() before scoring": {"evaluate": False},
        "it learns in evaluation mode, without dropout: call head.train() at the start of every epoch": {"train": False},
        "it looks at the test split, which makes the test score too good. Choose on splits['val']": {"split": "test"},
        "it scores the training cases, which the head has learned, and never splits['val']": {"split": "train"},
        "it scores with gradients, which costs memory for nothing: put the scoring under torch.no_grad()": {"grad": True},
        "the best epoch is counted from 0; the first epoch is 1": {"first": 0},
    },
    tolerance=1e-4,
)  # fmt: skip


def training_loop(fit: Callable) -> None:
    """Watch ``fit(head, optimiser, splits, epochs)`` at work and name the first fault that is left.

    It takes one step an epoch on the mean cross-entropy of all training logits, and returns the best epoch, counted from 1, and
    the validation AUROC of each.
    """
    _loop(_watched(fit) if callable(fit) else fit)
