"""Does a heatmap depend on what it claims to explain? Two questions that need no mask.

Similarity is Spearman's correlation of the signed maps at the resolution of their layer: it asks which points stand above which
others, and takes a map turned upside down, evidence for as evidence against, for its opposite (-1). Enlarging a map first would
only repeat its points.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from melanoma_lib.explain.cam import Heatmaps, heatmaps_by_method
from melanoma_lib.explain.layers import cam_layers
from melanoma_lib.model import MelanomaNet

Similarities = dict[str, dict[str, NDArray[np.float64]]]  # by method, then by layer
METHODS = ("gradcam", "eigencam")


def class_swap(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    layers: str | Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
) -> Similarities:
    """Similarity of the map for melanoma and the map for other lesions: 1 where a method draws the same whatever it is asked.

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


def cascade(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    layers: str | Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    direction: int = 1,
    seed: int = 0,
) -> dict[str, Similarities]:
    """Similarity of the map with those after the weights are randomised, from the head down to the stem.

    A map that stays the same does not show what the model has learnt. A layer below the last randomised stage is itself intact:
    only what comes after it, and so the gradient, is random. Random means that the numbers of each weight tensor are shuffled,
    which keeps their distribution, so that signals neither fade nor explode as they do in a fresh deep network. The metadata
    branch stays: it does not reach into the image's maps. The model itself is not touched; a copy is.

    Args:
        model: as for :func:`class_swap`, like image, metadata, layers and methods.
        image: shape ``(B, 3, H, W)``.
        metadata: shape ``(B, n_metadata)`` or None.
        layers: names.
        methods: of ``CAM_METHODS``.
        direction: 1 or -1.
        seed: of the shuffling; the same for all cases, so average over some seeds before you speak of a method.

    Returns:
        Similarities by what was randomised last, all before it staying random: the head first, then the stages by the layer each
        ends with, the stem at the end (of a DenseNet within the first stage). NaN where a map is constant.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", cascading randomisation, which draws weights anew.
    """
    original = heatmaps_by_method(model, image, metadata, methods, layers, direction)
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for stage, tensors in _stages(twin).items():
        for tensor in tensors:
            _shuffle(tensor, generator)
        found[stage] = _similarities(original, heatmaps_by_method(twin, image, metadata, methods, layers, direction))
    return found


def spearman(first: np.ndarray, second: np.ndarray) -> NDArray[np.float64]:
    """Spearman's rank correlation along the last axis, ``(..., P)`` to ``(...)``; NaN where one of the two is constant."""
    from scipy.stats import rankdata

    ranks = [
        rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (first, second)
    ]  # multiples of a quarter: exact
    lengths = [(each**2).sum(-1) for each in ranks]
    product = lengths[0] * lengths[1]
    empty = np.full(product.shape, np.nan)
    correlation = np.divide((ranks[0] * ranks[1]).sum(-1), np.sqrt(product), out=empty, where=product > 0)
    return np.clip(correlation, -1, 1)


def _similarities(first: dict[str, Heatmaps], second: dict[str, Heatmaps]) -> Similarities:
    """Correlation of the maps of each case, by method and layer."""
    return {
        method: {
            layer: spearman(maps.reshape(len(maps), -1), second[method][layer].reshape(len(maps), -1))
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
