"""Heatmaps of all layers at once: signed, not normalised, and the model left as it was."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from melanoma_lib.explain.image_only import asked_map
from melanoma_lib.explain.layers import CamLayer, cam_layers
from melanoma_lib.explain.methods import GRADIENT_METHODS, eigencam, eigengradcam
from melanoma_lib.model import MelanomaNet

ONE_PASS_METHODS = (*GRADIENT_METHODS, "eigencam", "eigengradcam")
CAM_METHODS = (*ONE_PASS_METHODS, "scorecam", "ablationcam")  # the last two ask the model again, once for each channel
DOUBTFUL = 0.2  # an eigen map whose correlation with what orients it is weaker than this might as well be turned round
FIELD_LEVEL = 0.0455  # of the largest gradient: two standard deviations of a Gaussian


class Heatmaps(dict[str, np.ndarray]):
    """Maps by layer, float32, shape ``(B, h, w)``.

    Attributes:
        doubtful_sign: by layer, boolean, shape ``(B,)``: whether the sign of the case's map is little better than a toss of a
            coin, which happens to EigenCAM and EigenGradCAM only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.doubtful_sign: dict[str, np.ndarray] = {}


def heatmaps(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    layers: str | Sequence[str] | None = None,
    method: str = "eigencam",
    direction: int = 1,
    size: int | tuple[int, int] | None = None,
) -> Heatmaps:
    """Where in the image the layers see what moves the logit, the metadata held fixed.

    All layers come from one forward and at most one backward pass; only ``scorecam`` and ``ablationcam``, which come from
    pytorch-grad-cam, ask the model again, once for each channel. What the sign means is told beside each method, in
    ``methods.py`` and ``image_only.py``. Values have no unit and are not normalised: compare the sizes of maps of one layer and
    one method, and only the shapes of others.

    Args:
        model: with an image branch; frozen or not, training or not. Its modes, flags, gradients and parameters are left alone.
        image: normalised images, shape ``(B, 3, H, W)``.
        metadata: encoded metadata, shape ``(B, n_metadata)``; None for a model without metadata branch.
        layers: names from :func:`cam_layers`, all of them if None.
        method: one of ``CAM_METHODS``.
        direction: 1 explains what raises the logit, the score of melanoma; -1 what lowers it. ``eigencam`` knows no direction.
        size: side, or height and width, to enlarge the maps to bilinearly; None leaves each at the resolution of its layer.

    Returns:
        A dictionary from layer to map, signed float32, shape ``(B, h, w)``, in the order asked for; its ``doubtful_sign`` tells
        which maps may be upside down.

    Raises:
        ValueError: if the model has no image branch; if a layer, method or direction is not among those that work; if a logit is
            not finite.
    """
    return heatmaps_by_method(model, image, metadata, [method], layers, direction, size)[method]


def heatmaps_by_method(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    methods: Sequence[str],
    layers: str | Sequence[str] | None = None,
    direction: int = 1,
    size: int | tuple[int, int] | None = None,
) -> dict[str, Heatmaps]:
    """What :func:`heatmaps` gives for each of several methods, in the order asked for, all from the same pass.

    Arguments and errors are those of :func:`heatmaps`; ``methods`` are some of ``CAM_METHODS``.
    """
    for method in methods:
        if method not in CAM_METHODS:
            raise ValueError(f"method: expected one of {list(CAM_METHODS)}, got {method!r}")
    if direction not in (1, -1):
        raise ValueError(f"direction: expected 1 (melanoma) or -1 (other lesion), got {direction!r}")
    chosen = _chosen(model, layers)
    device = next(model.parameters()).device
    with undisturbed(model):
        image = image.to(device)
        metadata = None if metadata is None else metadata.to(device).clone()  # an inference tensor would stop the backward pass
        needs_gradients = any(method in GRADIENT_METHODS or method == "eigengradcam" for method in methods)
        caught = activations_and_gradients(model, chosen, image, metadata, direction if needs_gradients else None)
        found = {method: Heatmaps() for method in methods}
        for layer, activations, gradients in zip(chosen, *caught, strict=True):
            for method, own in found.items():
                alignment = torch.ones(len(image))
                if method == "eigencam":
                    maps, alignment = eigencam(activations)
                elif method == "eigengradcam":
                    maps, alignment = eigengradcam(activations, gradients)
                elif method in GRADIENT_METHODS:
                    maps = GRADIENT_METHODS[method](activations, gradients)
                else:
                    maps = asked_map(method, model, layer, activations, image, metadata, direction)
                own[layer.name] = _resized(maps.float(), size).cpu().numpy()
                own.doubtful_sign[layer.name] = (alignment < DOUBTFUL).cpu().numpy()
    return found


def _chosen(model: MelanomaNet, layers: str | Sequence[str] | None) -> list[CamLayer]:
    """The layers of these names, all of them if None."""
    known = cam_layers(model)
    names = list(known) if layers is None else [layers] if isinstance(layers, str) else list(layers)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"layers of {model.backbone!r}: expected some of {list(known)}, got {unknown or names}")
    return [known[name] for name in names]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards, whatever happened, each part is in the mode it was in."""
    training = [module for module in model.modules() if module.training]  # a frozen branch may not be among them
    model.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _caught(layers: Iterable[CamLayer], start: Callable[[Tensor], Tensor] = lambda output: output) -> Iterator[dict[str, Tensor]]:
    """By layer what it puts out inside the block, which ``start`` may replace, as where a graph is to begin."""
    kept: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        kept[name] = start(output)
        return kept[name].clone()  # an activation that works in place further on alters the copy, not what was caught

    handles = [layer.module.register_forward_hook(partial(keep, layer.name)) for layer in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def activations_and_gradients(
    model: MelanomaNet,
    layers: Sequence[CamLayer],
    image: Tensor,
    metadata: Tensor | None,
    direction: int | None,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Activations of the layers and gradients of the score towards them, from one forward and at most one backward pass.

    Args:
        model: inside :func:`undisturbed`.
        layers: at least one.
        image: shape ``(B, 3, H, W)``.
        metadata: shape ``(B, M)`` or None.
        direction: sign of the logit in the score, or None for no gradients and no backward pass.

    Returns:
        For each layer a tensor of shape ``(B, C, h, w)``, and again; the second is None without direction.

    Raises:
        ValueError: if a logit is not finite.
    """

    def start(output: Tensor) -> Tensor:
        if direction is None or output.requires_grad:
            return output
        # The graph starts at the earliest of the layers, be parameters frozen or not, and needs no memory before it.
        torch.set_grad_enabled(True)
        return output.detach().requires_grad_()

    with _caught(layers, start) as caught, torch.no_grad():  # on leaving, grad mode is as before, although switched on inside
        logit = model(image, metadata)  # (B,)
    if not torch.isfinite(logit).all():
        raise ValueError(f"expected finite logits, got {logit.tolist()}; look for NaN in image, metadata and weights")
    outputs = [caught[layer.name] for layer in layers]
    activations = [layer.as_maps(output.detach(), image.shape[-2:]) for layer, output in zip(layers, outputs, strict=True)]
    if direction is None:
        return activations, [None] * len(layers)
    # In evaluation mode cases do not mix, so one backward pass holds each case's own gradient.
    gradients = torch.autograd.grad(logit, outputs, torch.full_like(logit, direction))
    return activations, [layer.as_maps(each, image.shape[-2:]) for layer, each in zip(layers, gradients, strict=True)]


def receptive_fields(model: MelanomaNet, image_size: int, n: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """How much each pixel moves the middle point of each layer: the effective receptive field, measured on noise.

    Args:
        model: with an image branch; left as it was.
        image_size: side of the images in pixels.
        n: images of noise over which gradients are added up.
        seed: of the noise.

    Returns:
        By layer, early to late, the magnitude of the gradient as a share of its largest, float32, shape ``(S, S)``.

    Source: Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural networks".
    """
    layers, found = cam_layers(model), {}
    device = next(model.parameters()).device
    noise = torch.randn(n, 3, image_size, image_size, generator=torch.Generator().manual_seed(seed)).to(device)
    with undisturbed(model), _caught(layers.values()) as caught, torch.enable_grad():
        model.image_branch(noise.requires_grad_())
        for name, layer in layers.items():
            maps = layer.as_maps(caught[name], (image_size, image_size))
            point = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]  # (n, C)
            (gradient,) = torch.autograd.grad(point.square().sum(), noise, retain_graph=True)
            strength = gradient.abs().sum((0, 1))  # (S, S)
            found[name] = (strength / strength.max().clamp_min(1e-30)).cpu().numpy()
    return found


def field_side(field: np.ndarray) -> int:
    """Side in pixels of a square as large as all pixels that count in a receptive field, of :func:`receptive_fields`."""
    return round(math.sqrt((field >= FIELD_LEVEL).sum()))


def resize_heatmap(heatmap: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """A map, shape ``(h, w)``, at another resolution, bilinearly as :func:`heatmaps` does for its ``size``."""
    return _resized(torch.from_numpy(np.array(heatmap, np.float32))[None], size)[0].numpy()


def _resized(maps: Tensor, size: int | tuple[int, int] | None) -> Tensor:
    if size is None:
        return maps
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]  # (B, h, w) -> (B, *size)
