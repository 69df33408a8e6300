"""Exercises of the training lesson: a data set, a network, where to start, what to freeze, and a loop to mend."""

import tempfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from torchvision.transforms import v2

from melanoma_lib.classroom.checks.engine import Exercise

SIZES = {"train": 40, "val": 30, "test": 20}  # different, so that a batch shows which split it is


def _lesions(cases, encoder, transform, by_label=False, kind=torch.float32):
    rows, metadata = cases.sort_index() if by_label else cases, torch.tensor(encoder.transform(cases))
    images = [transform(Image.open(path).convert("RGB")) for path in rows["image_path"]]
    return list(zip(images, metadata, torch.tensor(rows["target"].to_numpy(), dtype=kind), strict=True))


def _item(dataset, i):
    """What a data set gives for case ``i`` of four, whose labels are in another order than the rows."""
    cases = pd.DataFrame({"age_approx": [0.1, 0.2, 0.3, 0.4], "target": [0, 1, 1, 0]}, index=[2, 0, 3, 1])
    encoder = SimpleNamespace(transform=lambda cases: cases[["age_approx"]].to_numpy(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        cases["image_path"] = [f"{folder}/{row}.png" for row in range(4)]
        for row, path in enumerate(cases["image_path"]):
            Image.new("RGB", (6, 4), (50 * row, 20, 90)).save(path)
        image, metadata, target = dataset(cases, encoder, v2.ToImage())[i]
    return image.float().mean(), *metadata, target, target.dtype == torch.float32


def _fusion(image_branch, n_image, n_metadata, bias, dropout, squeeze=lambda z: z.squeeze(1), last=torch.clone):
    metadata_branch, head = nn.Sequential(nn.Linear(n_metadata, 16), nn.ReLU()), nn.Linear(n_image + 16, 1)
    nn.init.constant_(head.bias, bias)
    return lambda image, cases: last(squeeze(head(torch.cat([image_branch(image), metadata_branch(cases)], dim=1))))


def _logits(net, backbone, n_cases):
    torch.manual_seed(0)
    branch = timm.create_model(backbone, pretrained=False, num_classes=0).eval()
    return net(branch, branch.num_features, 5, -1.0, 0.0)(torch.rand(n_cases, 3, 32, 32), torch.rand(n_cases, 5))


def _learns(freeze, backbone):
    branch = timm.create_model(backbone, pretrained=False, num_classes=0)
    before = [*map(torch.clone, branch.buffers())]
    freeze(branch)
    nn.Linear(branch.num_features, 1)(branch(torch.rand(4, 3, 32, 32))).sum().backward()
    moved = not all(map(torch.equal, branch.buffers(), before))
    return any(parameter.grad is not None for parameter in branch.parameters()), moved


def _head_and_splits():
    torch.manual_seed(12)
    features = {name: torch.randn(n, 3) for name, n in SIZES.items()}
    splits = {name: (x, (x.sum(1) + torch.randn(len(x)) > 1).float()) for name, x in features.items()}
    head = nn.Sequential(nn.Dropout(0.0), nn.Linear(3, 1))
    return head, torch.optim.SGD(head.parameters(), lr=2.0), splits, 4


def _fit(head, optimiser, splits, epochs, outputs=torch.clone, train=True, evaluate=True, grad=False, split="val"):
    aurocs = []
    for _ in range(epochs):
        head.train(train or head.training)
        x, y = splits["train"]
        loss = nn.functional.binary_cross_entropy_with_logits(outputs(head(x).squeeze(1)), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        head.train(not evaluate)
        x, y = splits[split]
        with torch.set_grad_enabled(grad):
            aurocs.append(roc_auc_score(y, head(x).detach().squeeze(1)))
    return int(np.argmax(aurocs)) + 1, aurocs


def _watched(fit, head, optimiser, splits, epochs):
    """What a loop does and returns: a hook sees the cases, mode and gradients of each pass."""
    seen = []
    head.register_forward_hook(lambda module, x, _: seen.append((len(x[0]), module.training, torch.is_grad_enabled())))
    best, aurocs = fit(head, optimiser, splits, epochs)
    learns_badly, looks = (SIZES["train"], False, True) in seen, any(n == SIZES["test"] for n, *_ in seen)
    scoring = np.array([mode for n, *mode in seen if n != SIZES["train"]]).reshape(-1, 2)
    return head[1].weight.norm(), learns_badly, looks, *scoring.any(axis=0), best, aurocs[-1]


starting_bias = Exercise(
    reference=lambda prevalence, of=lambda p: np.log(p / (1 - p)): of(prevalence),
    inputs=[(0.018,), (0.111,), (0.3,), (0.8,)],
    success="sigmoid(bias) is the prevalence: an untrained model starts around the base rate, not around 50%",
    slips={
        "that is the prevalence, a probability; the bias stands before the sigmoid": {"of": lambda p: p},
        "these are the odds; the logit is their logarithm": {"of": lambda p: p / (1 - p)},
        "the odds are upside down: it would expect melanoma almost everywhere": {"of": lambda p: np.log((1 - p) / p)},
    },
)

dataset = Exercise(
    reference=_lesions,
    inputs=[(i,) for i in range(4)],
    use=_item,
    names="mean of the image, metadata, target, target is a float",
    success="image, metadata and target belong to the same case, and the target is a float",
    slips={
        "cases are asked for by position: use .iloc[i]. After a split labels have gaps": {"by_label": True},
        "the target is an integer; the loss needs a float: torch.tensor(float(...))": {"kind": torch.int64},
    },
    hint="Return three tensors: the transformed image (3, H, W), the row of metadata (M,) and the target ()",
)

fusion_net = Exercise(
    reference=_fusion,
    inputs=[("test_efficientnet", 3), ("test_resnet", 2), ("test_resnet", 1)],
    use=_logits,
    success="one logit a case, from image and metadata, with two backbones of different width",
    slips={
        "the logits have the shape (B, 1), the targets (B,): end with .squeeze(1)": {"squeeze": lambda logits: logits},
        "a batch of one case loses its dimension: name the one to drop, .squeeze(1)": {"squeeze": torch.squeeze},
        "these are probabilities: return the logit, the loss takes the sigmoid itself": {"last": torch.sigmoid},
    },
)

freeze = Exercise(
    reference=lambda module, gradients=False, training=False: module.requires_grad_(gradients).train(training),
    inputs=[("test_resnet",), ("test_efficientnet",)],
    use=_learns,
    names="weights of the backbone learn, its batch statistics change",
    success="neither weights nor batch statistics of the backbone move, and the head still learns",
    slips={
        "its weights still learn: module.requires_grad_(False)": {"gradients": True},
        "batch normalisation still updates its statistics: module.eval()": {"training": True},
    },
)

training_loop = Exercise(
    reference=_fit,
    inputs=lambda: [_head_and_splits()],
    use=_watched,
    names="weight norm, learns in evaluation mode, tests, scores in training mode, gradients, best epoch, last AUROC",
    success="it learns from logits, scores without dropout or gradients, chooses on validation; the test stays closed",
    slips={
        "the loss gets probabilities: with_logits means that it takes the sigmoid itself": {"outputs": torch.sigmoid},
        "it scores in training mode, with random dropout: call head.eval() before scoring": {"evaluate": False},
        "it learns in evaluation mode, without dropout: call head.train() in every epoch": {"train": False},
        "it looks at the test split, which makes the test score too good. Choose on splits['val']": {"split": "test"},
        "it scores with gradients, which costs memory: put the scoring under torch.no_grad()": {"grad": True},
    },
)
