"""Exercises of the heatmap lesson: Grad-CAM by hand, two directions compared, the centre prior, a report to mend."""

import operator
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from melanoma_lib.classroom.checks.engine import Exercise, ask, not_yet

CASES, SIDE = 3, 48


def _small_model():
    """An untrained network whose logits lie apart, a layer of its image branch, and three cases."""
    from melanoma_lib.model import MelanomaNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MelanomaNet("test_efficientnet", 4, pretrained=False, metadata_hidden=8).eval()
        image, metadata = torch.randn(CASES, 3, SIDE, SIDE), torch.randn(CASES, 4)
    with torch.no_grad():
        model.head[-1].weight.mul_(20)
        model.head[-1].bias.fill_(1.0)
    return model, model.image_branch.get_submodule("blocks.2"), image, metadata


def _mean(gradients):
    return gradients.mean((2, 3), keepdim=True)


def _maps(
    model, layer, image, metadata, make=lambda a, g: (_mean(g) * a).sum(1), of=torch.sum, last=lambda maps: maps,
):  # fmt: skip
    """A map made of the layer's activations and gradients ``(B, C, h, w)``, those of a number ``of`` the logits ``(B,)``."""
    kept = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logit = model(image, metadata)
    hook.remove()
    return last(make(kept[0], torch.autograd.grad(of(logit), kept[0])[0]).detach())


def _stretched(maps):
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low)


def _relative(maps):
    return maps / maps.abs().amax((-2, -1), keepdim=True)


def _look_for_hooks(compute: Callable) -> None:
    model, layer, image, metadata = _small_model()
    ask(compute, model, layer, image, metadata, copies=False)
    if len(layer._forward_hooks) + len(layer._backward_hooks) + len(layer._forward_pre_hooks):
        not_yet("the map is right, but the hook is still on the layer: it runs at every later forward pass. Remove its handle")


grad_cam = Exercise(
    reference=_maps,
    inputs=lambda: [_small_model()],
    returns="maps (cases, rows, columns) at the resolution of the layer",
    success=f"signed Grad-CAM of {CASES} cases, each with weights of its own; the layer is left as it was",
    slips={
        "each point keeps its own gradient, as in HiResCAM: give a channel one weight, the mean":
            {"make": lambda a, g: (g * a).sum(1)},
        "the gradients are summed over the grid, not averaged":
            {"make": lambda a, g: (g.sum((2, 3), keepdim=True) * a).sum(1)},
        "that is the gradient of the probability: differentiate the logit": {"of": lambda z: torch.sigmoid(z).sum()},
        "that is the gradient of the mean logit, divided by the cases of the batch. Take the sum": {"of": torch.mean},
        "the weights are averaged over the cases too": {"make": lambda a, g: (_mean(g).mean(0, keepdim=True) * a).sum(1)},
        "the ReLU came before the sum over the channels": {"make": lambda a, g: (_mean(g) * a).relu().sum(1)},
        "that is the mean over the channels: take the sum": {"make": lambda a, g: (_mean(g) * a).mean(1)},
        "the direction is wrong: this map shows what lowers the logit": {"last": torch.neg},
        "the ReLU at the end hides what speaks against melanoma. Leave it to whoever draws": {"last": torch.relu},
        "the map is stretched to 0 … 1: sign and size are lost": {"last": _stretched},
        "the map went through a ReLU and was divided by its largest value": {"last": lambda maps: _relative(maps.relu())},
        "the map is divided by its largest magnitude: how much it matters is lost": {"last": _relative},
    },
    after=_look_for_hooks,
    tolerance=1e-4,
)  # fmt: skip


def _two_stacks():
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(4, 5, 6))
    first = shared + 0.5 * rng.normal(size=shared.shape) + np.array([0.0, 2.0, -1.0, 0.5])[:, None, None]
    return first, np.array([1.0, -0.7, 0.4, 3.0])[:, None, None] * shared + 0.5 * rng.normal(size=shared.shape)


def _correlations(melanoma, other, seen=lambda values: values, centred=True, last=lambda values: values):
    pairs = [(seen(a.ravel()), seen(b.ravel())) for a, b in zip(melanoma, other, strict=True)]
    pairs = [(a - a.mean() * centred, b - b.mean() * centred) for a, b in pairs]
    return last(np.array([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]))


swap_correlation = Exercise(
    reference=_correlations,
    inputs=[_two_stacks()],
    returns="one number a case",
    success="1: the same map whatever is asked; -1: the one is the other turned round",
    slips={
        "all cases are thrown into one: correlate case by case": lambda a, b: np.corrcoef(a.ravel(), b.ravel())[0, 1],
        "the ReLU came first: what speaks against is gone": {"seen": lambda values: np.maximum(values, 0)},
        "absolute values came first: a map and its opposite then look alike": {"seen": np.abs},
        "that is the cosine: take the means off first": {"centred": False},
        "that is the mean over the cases; return one number a case, so that a rare exception shows": {"last": np.mean},
        "that is the size of the correlation: its sign is the point here": {"last": np.abs},
    },
)


def _share(heatmap, mask):
    energy = np.maximum(heatmap, 0)
    return energy[mask].sum() / energy.sum()


def _lesion(seed: int):
    """A signed map, the centre prior and a lesion off the centre."""
    rows, columns = np.mgrid[-1:1:24j, -1:1:24j]
    mask = (rows - 0.2) ** 2 + (columns + 0.1) ** 2 < 0.25
    return np.random.default_rng(seed).normal(0.2, 1, mask.shape) + mask, np.exp(-2 * (rows**2 + columns**2)), mask


beyond_centre = Exercise(
    reference=lambda heatmap, centre, mask: _share(heatmap, mask) - _share(centre, mask),
    inputs=[_lesion(seed) for seed in (1, 2, 3)],
    returns="one number, the difference of two shares",
    success="above 0: better placed than a map that has seen neither model nor image",
    slips={
        "that is the share of the map alone: subtract what the centre scores": lambda h, c, m: _share(h, m),
        "negative values were counted: set them to 0 first": lambda h, c, m: h[m].sum() / h.sum() - _share(c, m),
        "absolute values were counted: evidence against became evidence for": lambda h, c, m: _share(abs(h), m) - _share(c, m),
        "the map was stretched to 0 … 1 first: all became evidence for": lambda h, c, m: _share(h - h.min(), m) - _share(c, m),
        "the sums on the lesion are compared: divide each by that of its whole map": lambda h, c, m: (
            np.maximum(h, 0)[m].sum() - c[m].sum()
        ),
        "the area of the lesion was subtracted; the centre scores more": lambda h, c, m: _share(h, m) - m.mean(),
        "the order is wrong: this is the centre less the map": lambda h, c, m: _share(c, m) - _share(h, m),
    },
)


def _pairs():
    """Thirteen pairs: flips both ways, risks that equal the threshold, changes that nearly cancel."""
    without = [0.1, 0.2, 0.3, 0.35, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.05, 0.45, 0.95]
    with_artefact = [0.15, 0.5, 0.4, 0.45, 0.2, 0.6, 0.3, 0.35, 0.8, 0.7, 0.1, 0.4, 0.6]
    return pd.DataFrame({"risk_without": without, "risk_with": with_artefact})


def _report(
    pairs, threshold, flagged=operator.ge, flips=lambda before, after: (before != after).mean(),
    raised=lambda before, after: after[~before].mean(), size=lambda change: abs(change).mean(),
):  # fmt: skip
    before, after = (flagged(pairs[name].to_numpy(), threshold) for name in ("risk_without", "risk_with"))
    return flips(before, after), raised(before, after), size((pairs["risk_with"] - pairs["risk_without"]).to_numpy())


_OUT_OF = "divide by those not flagged without the artefact"
artefact_report = Exercise(
    reference=_report,
    inputs=[(_pairs(), 0.4)],
    returns=("flips", "raised", "size of the change"),
    success="flips in both directions, each rate out of those it can happen to, changes that do not cancel",
    hunt=True,
    slips={
        "a risk that equals the threshold is flagged: use >=, not >": {"flagged": operator.gt},
        "flips cancel: one raised and one lowered are two changed decisions":
            {"flips": lambda before, after: after.mean() - before.mean()},
        "those no longer flagged are changed decisions too": {"flips": lambda before, after: (after & ~before).mean()},
        f"'raised' is out of all cases: {_OUT_OF}": {"raised": lambda before, after: (after & ~before).mean()},
        f"'raised' is out of the flagged: {_OUT_OF}": {"raised": lambda before, after: (after & ~before).sum() / before.sum()},
        "'raised' counts also those flagged without the artefact": {"raised": lambda before, after: after.mean()},
        "changes up and down cancel in their mean: average their size": {"size": np.mean},
        "the size is taken of the mean, where changes have cancelled already": {"size": lambda change: abs(change.mean())},
    },
)  # fmt: skip
