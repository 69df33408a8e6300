"""Heatmaps of all layers at once: signed, not normalised, and the model left as it was."""

import copy
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from melanoma_lib.errors import ExplanationError
from melanoma_lib.explain.formulas import METHODS
from melanoma_lib.explain.layers import METHOD_NAMES, CamLayer, cam_layers
from melanoma_lib.inference import undisturbed
from melanoma_lib.model import MelanomaNet

CAM_METHODS = tuple(METHODS)
# Classes of pytorch-grad-cam: GradCAM, GradCAMPlusPlus, LayerCAM, …
PUBLISHED = {method: name.replace("-", "").replace("++", "PlusPlus") for method, name in METHOD_NAMES.items()}
DOUBTFUL = 0.2  # an eigen map whose correlation with what orients it is weaker than this might as well be turned round


class ImageOnly(nn.Module):
    """A :class:`MelanomaNet` whose metadata are held, so that it takes an image alone.

    Pass targets to pytorch-grad-cam: without them it takes the logits of a batch for classes. One logit is what its
    ``BinaryClassifierOutputTarget`` expects.

    Args:
        model: with an image branch.
        metadata: shape ``(1, n_metadata)``, for every image alike, or ``(B, n_metadata)`` for batches of B; None for a model
            without metadata branch.
    """

    def __init__(self, model: MelanomaNet, metadata: Tensor | None) -> None:
        super().__init__()
        self.model, self.metadata = model, metadata

    def forward(self, image: Tensor) -> Tensor:
        """Logits, shape ``(B,)``, of images, shape ``(B, 3, H, W)``."""
        return self.model(image, None if self.metadata is None else self.metadata.expand(len(image), -1))


class Heatmaps(dict[str, np.ndarray]):
    """Maps by layer, float32, shape ``(B, h, w)``."""

    def __init__(self) -> None:
        super().__init__()
        # By layer, boolean, shape (B,): is the map's sign a toss of a coin? It happens to EigenCAM and EigenGradCAM only.
        self.doubtful_sign: dict[str, np.ndarray] = {}


def heatmaps(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    layers: str | Sequence[str] | None = None,
    method: str = "eigencam",
    direction: int = 1,
    size: int | tuple[int, int] | None = None,
    as_published: bool = False,
) -> Heatmaps:
    """Where in the image the layers see what moves the logit, the metadata held fixed.

    All layers come from one forward and at most one backward pass. What the sign means is told beside each method, in
    ``formulas.py``. Values have no unit and are not normalised: compare the sizes of maps of one layer and one method, and only
    the shapes of others.

    Args:
        model: with an image branch; frozen or not, training or not. Its modes, flags, gradients and parameters are left alone.
        image: normalised images, shape ``(B, 3, H, W)``.
        metadata: encoded metadata, shape ``(B, n_metadata)``; None for a model without metadata branch.
        layers: names from :func:`cam_layers`, all of them if None.
        method: one of ``CAM_METHODS``; as published also ``scorecam``, which asks the model again, once for each channel.
        direction: 1 explains what raises the logit, the score of melanoma; -1 what lowers it. ``eigencam`` knows no direction.
        size: side, or height and width, to enlarge the maps to bilinearly; None leaves each at the resolution of its layer.
        as_published: ask pytorch-grad-cam, layer by layer: negative values cut off, each map stretched to [0, 1] and enlarged
            to the image.

    Returns:
        A dictionary from layer to map, float32, shape ``(B, h, w)``, signed unless as published, in the order asked for; its
        ``doubtful_sign`` tells which maps may be upside down.

    Raises:
        ValueError: if the model has no image branch; if a layer, method or direction is not among those that work; if a logit is
            not finite.
    """
    if not as_published:
        return heatmaps_by_method(model, image, metadata, [method], layers, direction, size)[method]
    names, found = [layer.name for layer in _chosen(model, layers, PUBLISHED, [method], direction)], Heatmaps()
    for name, maps in _published(method, model, names, image, metadata, direction).items():
        found[name] = _resized(torch.from_numpy(maps), size).numpy()
        found.doubtful_sign[name] = np.full(len(image), method.startswith("eigen"))  # as the decomposition gave it
    return found


def _published(
    method: str, model: MelanomaNet, layers: Sequence[str], image: Tensor, metadata: Tensor | None, direction: int
) -> dict[str, np.ndarray]:
    """Maps of pytorch-grad-cam by layer, from a copy of the model: an interrupted call would leave its hooks behind."""
    import pytorch_grad_cam  # seven seconds

    target, maps, silent = lambda logit: direction * logit, {layer: [] for layer in layers}, SimpleNamespace(tqdm=iter)
    with torch.inference_mode(False), torch.enable_grad(), mock.patch.object(pytorch_grad_cam.score_cam, "tqdm", silent):
        copied = copy.deepcopy(model).eval().requires_grad_(True)  # the package refuses frozen models
        for case in range(len(image)):
            one = image[case : case + 1].clone()  # an inference tensor would stop the backward pass
            alone = ImageOnly(copied, None if metadata is None else metadata[case : case + 1].clone())
            if not torch.isfinite(logit := alone(one)).all():
                raise ValueError(f"expected finite logits, got {logit.item()}; look for NaN in image, metadata and weights")
            for layer, found in maps.items():
                grid = cam_layers(copied)[layer]
                as_maps = partial(grid.as_maps, image_size=image.shape[2:])
                with getattr(pytorch_grad_cam, PUBLISHED[method])(alone, [grid.module], as_maps) as cam:
                    found.append(cam(one, [target])[0])
    return {layer: np.stack(found) for layer, found in maps.items()}


def heatmaps_by_method(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    methods: Sequence[str],
    layers: str | Sequence[str] | None = None,
    direction: int = 1,
    size: int | tuple[int, int] | None = None,
) -> dict[str, Heatmaps]:
    """What :func:`heatmaps` gives for each of several methods, from the same pass; arguments and errors as there."""
    chosen = _chosen(model, layers, METHODS, methods, direction)
    device = next(model.parameters()).device
    with undisturbed(model):
        metadata = None if metadata is None else metadata.to(device).clone()  # an inference tensor would stop the backward pass
        asked = direction if set(methods) - {"eigencam"} else None
        caught = _activations_and_gradients(model, chosen, image.to(device), metadata, asked)
        found = {method: Heatmaps() for method in methods}
        for layer, activations, gradients in zip(chosen, *caught, strict=True):
            for method, own in found.items():
                maps = METHODS[method](activations, gradients)
                maps, alignment = maps if isinstance(maps, tuple) else (maps, torch.ones(len(image)))
                own[layer.name] = _resized(maps.float(), size).cpu().numpy()
                own.doubtful_sign[layer.name] = (alignment < DOUBTFUL).cpu().numpy()
    return found


def _chosen(
    model: MelanomaNet, layers: str | Sequence[str] | None, offered: dict, methods: Sequence[str], direction: int
) -> list[CamLayer]:
    """The layers of these names, all of them if None, once methods and direction are known to work."""
    for method in methods:
        if method not in offered:
            raise ExplanationError(f"method: expected one of {list(offered)}, got {method!r}")
    if direction not in (1, -1):
        raise ExplanationError(f"direction: expected 1 (melanoma) or -1 (other lesion), got {direction!r}")
    known = cam_layers(model)
    names = list(known) if layers is None else [layers] if isinstance(layers, str) else list(layers)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ExplanationError(f"layers of {model.backbone!r}: expected some of {list(known)}, got {unknown or names}")
    return [known[name] for name in names]


def _activations_and_gradients(
    model: MelanomaNet, layers: Sequence[CamLayer], image: Tensor, metadata: Tensor | None, direction: int | None
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Activations of the layers and gradients of the score, ``(B, C, h, w)`` each; without direction gradients are None."""
    caught: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        if direction is not None and not output.requires_grad:
            # The graph starts at the earliest of the layers, be parameters frozen or not, and needs no memory before it.
            torch.set_grad_enabled(True)
            output = output.detach().requires_grad_()
        caught[name] = output
        return output.clone()  # an activation that works in place further on alters the copy, not what was caught

    handles = [layer.module.register_forward_hook(partial(keep, layer.name)) for layer in layers]
    try:
        with torch.no_grad():  # on leaving, grad mode is as before, although switched on inside
            logit = model(image, metadata)  # (B,)
    finally:
        for handle in handles:
            handle.remove()
    if not torch.isfinite(logit).all():
        raise ValueError(f"expected finite logits, got {logit.tolist()}; look for NaN in image, metadata and weights")
    outputs = [caught[layer.name] for layer in layers]
    activations = [layer.as_maps(output.detach(), image.shape[-2:]) for layer, output in zip(layers, outputs, strict=True)]
    if direction is None:
        return activations, [None] * len(layers)
    # In evaluation mode cases do not mix, so one backward pass holds each case's own gradient.
    gradients = torch.autograd.grad(logit, outputs, torch.full_like(logit, direction))
    return activations, [layer.as_maps(each, image.shape[-2:]) for layer, each in zip(layers, gradients, strict=True)]


def resize_heatmap(heatmap: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """A map, shape ``(h, w)``, at another resolution, bilinearly as :func:`heatmaps` does for its ``size``."""
    return _resized(torch.from_numpy(np.array(heatmap, np.float32))[None], size)[0].numpy()


def _resized(maps: Tensor, size: int | tuple[int, int] | None) -> Tensor:
    if size is None:
        return maps
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]  # (B, h, w) -> (B, *size)
