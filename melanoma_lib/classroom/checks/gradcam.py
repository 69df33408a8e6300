"""Exercises of the heatmap lesson: Grad-CAM by hand, two directions compared, the centre prior, a report to mend."""

import operator

import numpy as np
import pandas as pd
import torch

from melanoma_lib.classroom.checks.engine import Exercise, NotYet
from melanoma_lib.model import MelanomaNet

RNG = np.random.default_rng(5)


def _small_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MelanomaNet("test_efficientnet", 4, pretrained=False, metadata_hidden=8).eval()
        image, metadata = torch.randn(3, 3, 48, 48), torch.randn(3, 4)
        torch.nn.init.uniform_(model.head[-1].weight, -5, 5)
    return model, model.image_branch.get_submodule("blocks.2"), image, metadata


def _maps(model, layer, image, metadata, weigh=lambda g: g.mean((2, 3), keepdim=True), of=torch.sum, last=torch.sum):
    """A map of the layer's activations and gradients ``(B, C, h, w)``, those of a number ``of`` the logits ``(B,)``."""
    kept = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logit = model(image, metadata)
    hook.remove()
    return last(weigh(torch.autograd.grad(of(logit), kept[0])[0]) * kept[0], 1).detach()


def _mapped(compute, model, layer, image, metadata):
    maps = compute(model, layer, image, metadata)
    if layer._forward_hooks or layer._backward_hooks:
        raise NotYet("your hook is still on the layer: it runs at every later forward pass. Remove its handle")
    return maps


def _correlations(melanoma, other, pairs=zip, last=np.positive):
    return last([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs(melanoma, other)])


def _share(heatmap, mask):
    energy = np.maximum(heatmap, 0)
    return energy[mask].sum() / energy.sum()


def _report(pairs, threshold, flagged=operator.ge, cancels=False, of_all=False, signed=False):
    before, after = flagged(pairs["risk_without"], threshold), flagged(pairs["risk_with"], threshold)
    flips = after.mean() - before.mean() if cancels else (before != after).mean()
    raised = (after & ~before).sum() / (len(pairs) if of_all else (~before).sum())
    change = pairs["risk_with"] - pairs["risk_without"]
    return flips, raised, change.mean() if signed else change.abs().mean()


grad_cam = Exercise(
    reference=_maps,
    inputs=lambda: [_small_model()],
    use=_mapped,
    success="signed Grad-CAM of 3 cases, each with weights of its own; the layer is left as it was",
    slips={
        "the ReLU at the end hides what speaks against melanoma": {"last": lambda each, axis: each.sum(axis).relu()},
        "each point keeps its own gradient: give a channel one weight, the mean": {"weigh": lambda g: g},
        "that is the gradient of the probability: differentiate the logit": {"of": lambda z: torch.sigmoid(z).sum()},
    },
)

swap_correlation = Exercise(
    reference=_correlations,
    inputs=[tuple(RNG.normal(0.5, size=(2, 4, 5, 6)))],
    success="1: the same map whatever is asked; -1: the one is the other turned round",
    slips={
        "all cases are thrown into one: correlate case by case": {"pairs": lambda *both: [both], "last": np.squeeze},
        "that is the mean over the cases; return one number a case": {"last": np.mean},
    },
)

beyond_centre = Exercise(
    reference=lambda heatmap, centre, mask, of=_share, less=_share: of(heatmap, mask) - less(centre, mask),
    inputs=[(RNG.normal(0.2, size=(24, 24)), RNG.random((24, 24)), RNG.random((24, 24)) < 0.3)],
    success="above 0: better placed than a map that has seen neither model nor image",
    slips={
        "negative values were counted: set them to 0 first": {"of": lambda h, mask: h[mask].sum() / h.sum()},
        "the area of the lesion was subtracted; the centre scores more": {"less": lambda c, mask: mask.mean()},
    },
)

artefact_report = Exercise(
    reference=_report,
    inputs=[(pd.DataFrame(RNG.integers(20, size=(40, 2)) / 20, columns=["risk_without", "risk_with"]), 0.4)],
    names="flips, raised, size of the change",
    success="flips in both directions, each rate out of those it can happen to, changes that do not cancel",
    slips={
        "a risk that equals the threshold is flagged: use >=, not >": {"flagged": operator.gt},
        "flips up and down cancel: both are changed decisions": {"cancels": True},
        "'raised' is out of those not flagged before, not of all": {"of_all": True},
        "changes up and down cancel in their mean: average their size": {"signed": True},
    },
)
