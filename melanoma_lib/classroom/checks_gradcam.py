"""Check of the heatmap lesson's first exercise: Grad-CAM by hand."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from melanoma_lib.classroom.checks import not_yet, passed

LAYER = "blocks.2"
CASES, SIDE = 3, 48
Maps = np.ndarray


def grad_cam(compute: Callable) -> None:
    """Hold ``compute(model, layer, image, metadata)`` to the signed Grad-CAM of the logit, shape ``(B, h, w)``.

    Args:
        compute: gets a small untrained model, a module of its image branch, images ``(B, 3, H, W)`` and metadata ``(B, M)``.

    Raises:
        NotYet: with the mistake that gives the maps seen.
    """
    model, image, metadata = _small_model()
    layer = model.image_branch.get_submodule(LAYER)
    answer = compute(model, layer, image, metadata)
    left = len(layer._forward_hooks) + len(layer._backward_hooks) + len(layer._forward_pre_hooks)
    facts = _facts(*_small_model())
    right = _gradcam(facts)
    maps = _as_maps(answer, right.shape, facts["activations"].shape, SIDE)
    if not _alike(maps, right):
        not_yet(_named(maps, _gradcam_mistakes(facts)) or _no_idea(maps, right))
    if left:
        not_yet("the map is right, but the hook is still on the layer: it runs at every later forward pass. Remove its handle")
    passed(f"signed Grad-CAM of {CASES} cases, each with weights of its own; the layer is left as it was")


def _small_model():
    """An untrained network whose logits lie apart, and three cases."""
    import torch

    from melanoma_lib.model import MelanomaNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MelanomaNet("test_efficientnet", 4, pretrained=False, metadata_hidden=8).eval()
        image, metadata = torch.randn(CASES, 3, SIDE, SIDE), torch.randn(CASES, 4)
    with torch.no_grad():
        model.head[-1].weight.mul_(20)
        model.head[-1].bias.fill_(1.0)
    return model, image, metadata


def _facts(model, image, metadata) -> dict[str, np.ndarray]:
    """Activations and gradients of the layer, shape ``(B, C, h, w)``, and the slope of the sigmoid, shape ``(B, 1, 1)``."""
    import torch

    from melanoma_lib.explain import cam_layers
    from melanoma_lib.explain.cam import activations_and_gradients, undisturbed

    with undisturbed(model):
        caught = activations_and_gradients(model, [cam_layers(model)[LAYER]], image, metadata, 1)
        p = torch.sigmoid(model(image, metadata)).double().numpy()
    activations, gradients = (part[0].double().numpy() for part in caught)
    return {"activations": activations, "gradients": gradients, "slope": (p * (1 - p))[:, None, None]}


def _gradcam(facts: dict[str, np.ndarray]) -> Maps:
    return (facts["gradients"].mean((2, 3), keepdims=True) * facts["activations"]).sum(1)


def _gradcam_mistakes(facts: dict[str, np.ndarray]) -> Iterable[tuple[str, Maps]]:
    """Each plausible mistake alone, then together with what is often done to a map afterwards."""
    a, g = facts["activations"], facts["gradients"]
    n_points = a.shape[2] * a.shape[3]
    right = _gradcam(facts)
    made = {
        "": right,
        "the mean over the grid is forgotten: each point keeps its own gradient. That is HiResCAM; Grad-CAM gives a channel one "
        "weight, the mean of its gradients": (g * a).sum(1),
        f"the gradients are summed over the grid, not averaged: all values are {n_points} times too large": n_points * right,
        f"the channels are averaged; Grad-CAM adds them up: all values are {a.shape[1]} times too small": right / a.shape[1],
        "that is the gradient of the probability: the sigmoid flattens it, the more the surer the model is. Differentiate the "
        "logit": facts["slope"] * right,
        "the weights are averaged over the cases too: a case's map then depends on who else is in the batch. Keep one weight a "
        "case and channel": (g.mean((0, 2, 3), keepdims=True) * a).sum(1),
        f"that is the gradient of the mean logit: divided by the {CASES} cases of the batch. Take the sum": right / CASES,
        "the activations are missing: these are gradients only, and say what would matter, not what is there": g.sum(1),
        "the weights are missing: these are activations added up. They say where something is, not what it speaks for": a.sum(1),
        "the ReLU came before the sum over the channels: channels that speak against must be subtracted first": np.maximum(
            g.mean((2, 3), keepdims=True) * a, 0
        ).sum(1),
        "the weights went through a ReLU: channels that speak against melanoma are left out": (
            np.maximum(g.mean((2, 3), keepdims=True), 0) * a
        ).sum(1),
        "the gradients went through a ReLU before their mean; that belongs to other methods": (
            np.maximum(g, 0).mean((2, 3), keepdims=True) * a
        ).sum(1),
    }
    finished: dict[str, Callable[[Maps], Maps]] = {
        "": lambda maps: maps,
        "the direction is wrong: this map shows what lowers the logit": lambda maps: -maps,
        "the ReLU at the end hides the sign: what speaks against melanoma has become 0. Leave it to whoever draws": (
            lambda maps: np.maximum(maps, 0)
        ),
        "the map is stretched to 0 … 1: sign and size are lost": _stretched,
        "the map went through a ReLU and was divided by its largest value: sign and size are lost": _relu_over_max,
        "the map is divided by its largest magnitude: how much it matters is lost": (
            lambda maps: maps / np.abs(maps).max((1, 2), keepdims=True)
        ),
        "the absolute value hides the sign: for and against look the same": np.abs,
    }
    for mistake, maps in made.items():
        for after, finish in finished.items():
            if mistake or after:
                yield "; and ".join(text for text in (mistake, after) if text), finish(maps)


def _stretched(maps: Maps) -> Maps:
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)


def _relu_over_max(maps: Maps) -> Maps:
    maps = np.maximum(maps, 0)
    return maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12)


def _as_maps(answer: Any, wanted: tuple[int, ...], full: tuple[int, ...], side: int) -> Maps:
    """The answer as numbers of the shape asked for."""
    if answer is None:
        not_yet("it returns nothing: end with a return")
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().numpy()
    try:
        maps = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        not_yet(f"expected maps as a tensor or array of shape {wanted}, got {type(answer).__name__}")
    if maps.shape == full:
        not_yet(f"it returns shape {maps.shape}, a map for each channel: weigh the channels, then add them up (axis 1)")
    if maps.shape == full[:2] or maps.shape == (*full[:2], 1, 1):
        not_yet(f"it returns shape {maps.shape}, one number a channel: those are the weights. Multiply the activations by them")
    if maps.shape[-2:] == (side, side):
        not_yet(f"it returns shape {maps.shape}: leave the map at the resolution of its layer, {wanted[-2:]}")
    if maps.shape != wanted:
        not_yet(f"it returns shape {maps.shape}; expected {wanted}: cases, rows, columns")
    if not np.isfinite(maps).all():
        not_yet("some of its values are not finite")
    return maps


def _alike(one: Maps, other: Maps, tolerance: float = 1e-4) -> bool:
    return bool(np.abs(one - other).max() <= tolerance * np.abs(other).max())


def _named(maps: Maps, mistakes: Iterable[tuple[str, Maps]]) -> str:
    """The diagnosis of the first mistake that gives these maps, or nothing."""
    return next((diagnosis for diagnosis, wrong in mistakes if _alike(maps, wrong)), "")


def _no_idea(maps: Maps, right: Maps) -> str:
    off = np.abs(maps - right).max() / np.abs(right).max()
    return f"the map differs from Grad-CAM by up to {off:.1%} of its largest value; the check knows no mistake that gives it"
