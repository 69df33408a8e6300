"""Does a heatmap depend on what it claims to explain? Three questions that need no mask.

Similarity is Spearman's correlation of the signed maps at the resolution of their layer: it asks which points stand above which
others, and takes a map turned upside down, evidence for as evidence against, for its opposite (-1). Enlarging a map first would
only repeat its points.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from melanoma_lib.explain.cam import Heatmaps, heatmaps_by_method
from melanoma_lib.explain.layers import cam_layers
from melanoma_lib.model import MelanomaNet

Similarities = dict[str, dict[str, NDArray[np.float64]]]  # by method, then by layer
METHODS = ("gradcam", "eigencam")
# How an image is moved, and its map back; rows and columns are the last two axes of both.
MOVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[np.ndarray], np.ndarray]]] = {
    "mirror": (lambda image: image.flip(-1), lambda maps: np.flip(maps, -1)),
    "upside_down": (lambda image: image.flip(-2), lambda maps: np.flip(maps, -2)),
    "quarter_turn": (lambda image: image.rot90(1, (-2, -1)), lambda maps: np.rot90(maps, -1, (-2, -1))),
}


def class_swap(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    layers: str | Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
) -> Similarities:
    """Similarity of the map for melanoma and the map for benign: 1 where a method draws the same whatever it is asked.

    Args:
        model: as for :func:`~melanoma_lib.explain.heatmaps`, which also tells the errors.
        image: normalised images, shape ``(B, 3, H, W)``.
        metadata: encoded metadata, shape ``(B, n_metadata)``; None for a model without metadata branch.
        layers: names from :func:`cam_layers`, all of them if None.
        methods: some of ``CAM_METHODS``.

    Returns:
        By method and layer, shape ``(B,)``, in [-1, 1]; NaN where a map is constant. With one logit, linear methods such as
        Grad-CAM have -1 by construction: the evidence against is the evidence for, turned round.
    """
    first, second = (heatmaps_by_method(model, image, metadata, methods, layers, direction) for direction in (1, -1))
    return _similarities(first, second)


def flip_repeatability(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    layers: str | Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    direction: int = 1,
    moves: Sequence[str] = tuple(MOVES),
) -> Similarities:
    """Similarity of a map with that of the image mirrored or turned, moved back: a lesion has no upside.

    What is lost is partly the model's: its answer may change as well, and layers that take every other point start to count at
    another edge.

    Args:
        model: as for :func:`class_swap`.
        image: shape ``(B, 3, H, W)``; square for a quarter turn.
        metadata: shape ``(B, n_metadata)`` or None.
        layers: names, all of them if None.
        methods: some of ``CAM_METHODS``.
        direction: 1 or -1.
        moves: some of ``MOVES``.

    Returns:
        By method and layer the mean over the moves, shape ``(B,)``, in [-1, 1]; NaN where a map is constant.

    Raises:
        ValueError: if a move is not known, or an image to be turned is not square.
    """
    unknown = [move for move in moves if move not in MOVES]
    if unknown or not moves:
        raise ValueError(f"moves: expected some of {list(MOVES)}, got {unknown or list(moves)}")
    if "quarter_turn" in moves and image.shape[-1] != image.shape[-2]:
        raise ValueError(f"image: a quarter turn needs square images, got {tuple(image.shape[-2:])}; leave it out of moves")
    original = heatmaps_by_method(model, image, metadata, methods, layers, direction)
    found = []
    for there, back in (MOVES[move] for move in moves):
        moved = heatmaps_by_method(model, there(image), metadata, methods, layers, direction)
        found.append(_similarities(original, moved, back))
    return {
        method: {layer: np.mean([each[method][layer] for each in found], axis=0) for layer in by_layer}
        for method, by_layer in original.items()
    }


@dataclass(frozen=True)
class Cascade:
    """How much of a map outlives the loss of what the model has learnt.

    Attributes:
        stages: what was randomised last, the head first, then the stages by the layer each ends with, the stem at
            the end (of a DenseNet within the first stage); all before it stay random.
        similarity: with the original map by method and layer, shape ``(len(stages), B)``, in [-1, 1]; NaN where a map is
            constant.
    """

    stages: tuple[str, ...]
    similarity: Similarities


def cascade(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    layers: str | Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    direction: int = 1,
    seed: int = 0,
) -> Cascade:
    """Similarity of the map with those after the weights are randomised, from the head down to the stem.

    A map that stays the same does not show what the model has learnt. A layer below the last randomised stage is itself intact:
    only what comes after it, and so the gradient, is random. Random means that the numbers of each weight tensor are shuffled,
    which keeps their distribution, so that signals neither fade nor explode as they do in a fresh deep network. The metadata
    branch stays: it does not reach into the image's maps. The model itself is not touched; a copy is.

    Args:
        model: as for :func:`class_swap`.
        image: shape ``(B, 3, H, W)``.
        metadata: shape ``(B, n_metadata)`` or None.
        layers: names, all of them if None.
        methods: some of ``CAM_METHODS``.
        direction: 1 or -1.
        seed: of the shuffling; the same for all cases, so average over some seeds before you speak of a method.

    Returns:
        Stages and similarities.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", cascading randomisation, which draws weights anew.
    """
    original = heatmaps_by_method(model, image, metadata, methods, layers, direction)
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    stages, found = _stages(twin), []
    for tensors in stages.values():
        for tensor in tensors:
            _shuffle(tensor, generator)
        found.append(_similarities(original, heatmaps_by_method(twin, image, metadata, methods, layers, direction)))
    similarity = {
        method: {layer: np.stack([each[method][layer] for each in found]) for layer in by_layer}
        for method, by_layer in original.items()
    }
    return Cascade(tuple(stages), similarity)


def spearman(first: np.ndarray, second: np.ndarray) -> NDArray[np.float64]:
    """Rank correlation along the last axis; equal values share the mean of their ranks.

    Args:
        first: finite values, shape ``(..., P)``.
        second: the same shape.

    Returns:
        Shape ``(...)``, in [-1, 1]; NaN where one of the two is constant.

    Source: Spearman 1904.
    """
    from scipy.stats import rankdata

    ranks = [
        rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (first, second)
    ]  # multiples of a quarter: exact
    lengths = [(each**2).sum(-1) for each in ranks]
    product = lengths[0] * lengths[1]
    empty = np.full(product.shape, np.nan)
    correlation = np.divide((ranks[0] * ranks[1]).sum(-1), np.sqrt(product), out=empty, where=product > 0)
    return np.clip(correlation, -1, 1)


def _similarities(
    first: dict[str, Heatmaps], second: dict[str, Heatmaps], back: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> Similarities:
    """Correlation of the maps of each case, by method and layer."""
    return {
        method: {
            layer: spearman(maps.reshape(len(maps), -1), back(second[method][layer]).reshape(len(maps), -1))
            for layer, maps in by_layer.items()
        }
        for method, by_layer in first.items()
    }


def _stages(model: MelanomaNet) -> dict[str, list[Tensor]]:
    """Weights and running statistics of the head and of each stage of the image branch, in the order from late to early."""
    names = list(cam_layers(model))
    branch = model.image_branch
    first_part = names[0].split(".")[0]
    order = [name for name, _ in branch.named_modules()]
    ends = {name: max(i for i, each in enumerate(order) if f"{each}.".startswith(f"{name}.")) for name in names}
    found: dict[str, list[Tensor]] = {stage: [] for stage in ("stem", *names, "top")}
    past_stem = False
    for i, (name, module) in enumerate(branch.named_modules()):
        past_stem = past_stem or name.split(".")[0] == first_part
        stage = next((stage for stage in names if i <= ends[stage]), "top") if past_stem else "stem"
        found[stage] += _own_tensors(module)
    late_to_early = {stage: found[stage] for stage in reversed(found) if found[stage]}
    return {"head": [tensor for module in model.head.modules() for tensor in _own_tensors(module)], **late_to_early}


def _own_tensors(module: nn.Module) -> list[Tensor]:
    """What a module itself has learnt, without its parts; other buffers, such as an attention mask, are no weights."""
    statistics = [getattr(module, name, None) for name in ("running_mean", "running_var")]
    return [*module.parameters(recurse=False), *(each for each in statistics if each is not None)]


@torch.no_grad()
def _shuffle(tensor: Tensor, generator: torch.Generator) -> None:
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    tensor.copy_(tensor.flatten()[order].view_as(tensor))
