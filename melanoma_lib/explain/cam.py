"""Heatmaps of all layers at once: signed, not normalised, and the model left as it was."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from melanoma_lib.explain.capture import activations_and_gradients, undisturbed
from melanoma_lib.explain.layers import CamLayer, cam_layers
from melanoma_lib.explain.methods import GRADIENT_METHODS, eigencam, eigengradcam
from melanoma_lib.explain.perturbation import WEIGHTS, Case
from melanoma_lib.model import MelanomaNet

CAM_METHODS = (*GRADIENT_METHODS, "eigencam", "eigengradcam", *WEIGHTS)
DOUBTFUL = 0.2  # an eigen map whose correlation with what orients it is weaker than this might as well be turned round


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

    All layers come from one forward and at most one backward pass; only ``scorecam`` and ``ablationcam`` ask the model again,
    once for each channel. What the sign means is told beside each method, in ``methods.py`` and ``perturbation.py``. Values have
    no unit and are not normalised: compare the sizes of maps of one layer and one method, and only the shapes of others.

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
    """What :func:`heatmaps` gives for each of several methods, all from the same forward and backward pass.

    Args:
        model: as for :func:`heatmaps`, which also tells the errors.
        image: shape ``(B, 3, H, W)``.
        metadata: shape ``(B, n_metadata)``; None for a model without metadata branch.
        methods: some of ``CAM_METHODS``.
        layers: names, all if None.
        direction: 1 or -1.
        size: of the maps; None leaves each at the resolution of its layer.

    Returns:
        Maps by method, in the order asked for.
    """
    for method in methods:
        if method not in CAM_METHODS:
            raise ValueError(f"method: expected one of {list(CAM_METHODS)}, got {method!r}")
    if direction not in (1, -1):
        raise ValueError(f"direction: expected 1 (melanoma) or -1 (benign), got {direction!r}")
    chosen = _chosen(model, layers)
    device = next(model.parameters()).device
    with undisturbed(model):
        image = image.to(device)
        metadata = None if metadata is None else metadata.to(device).clone()  # an inference tensor would stop the backward pass
        needs_gradients = any(method in GRADIENT_METHODS or method == "eigengradcam" for method in methods)
        caught = activations_and_gradients(model, chosen, image, metadata, direction if needs_gradients else None)
        cases = [
            Case(model, image[i : i + 1], None if metadata is None else metadata[i : i + 1], direction) for i in range(len(image))
        ]
        found = {method: Heatmaps() for method in methods}
        for layer, activations, gradients in zip(chosen, *caught, strict=True):
            for method, own in found.items():
                maps, alignment = _maps(method, layer, activations, gradients, cases)
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


def _maps(
    method: str, layer: CamLayer, activations: Tensor, gradients: Tensor | None, cases: Sequence[Case]
) -> tuple[Tensor, Tensor]:
    """Maps of one layer, shape ``(B, h, w)``, and how well their sign is settled, shape ``(B,)``."""
    if method == "eigencam":
        return eigencam(activations)
    if method == "eigengradcam":
        return eigengradcam(activations, gradients)
    if method in GRADIENT_METHODS:
        maps = GRADIENT_METHODS[method](activations, gradients)
    else:
        weights = torch.stack([WEIGHTS[method](case, layer, own) for case, own in zip(cases, activations, strict=True)])
        maps = (weights[:, :, None, None] * activations).sum(1)  # (B, C, 1, 1) * (B, C, h, w) -> (B, h, w)
    return maps, maps.new_ones(len(maps))


def resize_heatmap(heatmap: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """A map, shape ``(h, w)``, at another resolution, bilinearly as :func:`heatmaps` does for its ``size``."""
    return _resized(torch.from_numpy(np.array(heatmap, np.float32))[None], size)[0].numpy()


def _resized(maps: Tensor, size: int | tuple[int, int] | None) -> Tensor:
    if size is None:
        return maps
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]  # (B, h, w) -> (B, *size)
