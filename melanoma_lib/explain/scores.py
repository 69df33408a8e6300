"""How good is a heatmap? Scores against the outline of the lesion, and against the model itself.

A score means little alone: large and central lesions are easy to hit. Compare it with that of a spot in the middle.
A map on the lesion is not yet a faithful one: does the logit fall when the marked pixels go?
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from melanoma_lib.inference.predictor import undisturbed
from melanoma_lib.model import MelanomaNet

BLUR = 1 / 16  # of the side: wide enough to dissolve pigment network, hair and rulers, while the lesion stays a shadow
ROUNDING = 1e-9  # of sums of shares


def score_heatmap(heatmap: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Scores of one map, signed relevance of shape ``(H, W)``, against the lesion's pixels, boolean, shape ``(H, W)``.

    Returns:
        By name, all in [0, 1] but for ``energy_beyond_centred``, and all but ``rank_accuracy`` NaN where nothing is positive:

        - ``energy_in_mask``: share of the positive energy on the lesion; a uniform map scores ``mask.mean()`` (Wang et al. 2020,
          "Score-CAM").
        - ``energy_beyond_centred``: that share less what the map's own values would put on the lesion if they were arranged
          around the middle of the image, in [-1, 1]; a spot of any width in the middle and a uniform map score 0. Energy alone
          rewards narrow maps.
        - ``pointing_game``: 1 where the peak lies on the lesion, else 0; among several pixels of equal height the share of hits
          (Zhang et al. 2016, "Excitation backprop", without its tolerance in pixels).
        - ``rank_accuracy``: share of the lesion among as many of the highest pixels as it has; only their order counts (Arras et
          al. 2022, "CLEVR-XAI").
        - ``overlap``: intersection over union of the lesion and the region where the map reaches half of its maximum.

    Raises:
        ValueError: if the shapes differ, the mask is empty or not boolean, or the map is not finite.
    """
    values, inside, shares = _read(heatmap, mask)  # (P,) each
    size, peak = int(inside.sum()), values.max()
    last = np.partition(values, -size)[-size]  # the lowest value that has a place; those that share it count by their mean
    above, tied = values > last, values == last
    ranked = (above[inside].sum() + (size - above.sum()) * tied[inside].sum() / tied.sum()) / size
    scores = {"energy_in_mask": np.nan, "energy_beyond_centred": np.nan, "pointing_game": np.nan}
    scores |= {"rank_accuracy": float(ranked), "overlap": np.nan}
    if peak > 0:
        energy, hot = shares[inside].sum(), values >= peak / 2
        gain = energy - np.sort(shares)[::-1] @ _lesion_outwards(mask)
        scores["energy_in_mask"] = float(energy)
        # Over many cases even a rounding error would look like a difference.
        scores["energy_beyond_centred"] = 0.0 if abs(gain) < ROUNDING else float(gain)
        scores["pointing_game"] = float(inside[values == peak].mean())
        scores["overlap"] = float((hot & inside).sum() / (hot | inside).sum())
    return scores


def energy_in_mask(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """That of :func:`score_heatmap` alone."""
    _, inside, shares = _read(heatmap, mask)
    return float(shares[inside].sum())


def deletion_insertion(
    model: MelanomaNet, image: Tensor, metadata: Tensor | None, maps: ArrayLike | Tensor, steps: int = 10, seed: int = 0
) -> NDArray[np.float64]:
    """How much more the logit falls when the pixels that a map marks are blurred first than when they are blurred last.

    It is the area between the curves of deletion and insertion (Petsiuk et al. 2018, "RISE"), from the image to its blur, in
    logits: one curve alone rewards whoever breaks the image fastest (Bluecher et al. 2024). Pixels of equal relevance go in one
    random order, the same in both, so that a constant map scores exactly 0. The model has seen no such images.

    Args:
        model: as of :func:`heatmaps`, like ``image`` and ``metadata``.
        image: shape ``(B, 3, H, W)``.
        metadata: shape ``(B, n_metadata)``, or None.
        maps: relevance for melanoma, one map a case, shape ``(B, h, w)``, or several, ``(B, K, h, w)``; enlarged bilinearly.
        steps: from the whole image to none of it; a map costs ``2 * (steps + 1)`` images.
        seed: of the order among equals.

    Returns:
        Shape ``(B,)`` or ``(B, K)``: 0 by chance, high is good, below 0 is worse than no map.

    Raises:
        ValueError: if maps do not fit the images, or a map or logit is not finite.
    """
    maps = torch.as_tensor(maps, dtype=torch.float64, device="cpu")  # or rounding would order pixels of equal relevance
    if maps.ndim not in (3, 4) or len(maps) != len(image) or not maps.numel() or not torch.isfinite(maps).all():
        raise ValueError(
            f"maps: expected finite ones, (B, h, w) or (B, K, h, w), for {len(image)} images, got {tuple(maps.shape)}"
        )
    stacked, size, device = maps.unsqueeze(1) if maps.ndim == 3 else maps, image.shape[-2:], next(model.parameters()).device
    enlarged = functional.interpolate(stacked, size, mode="bilinear", align_corners=False).float().flatten(2)  # (B, K, P)
    equals = torch.randperm(size.numel(), generator=torch.Generator().manual_seed(seed))  # the order of equals
    sigma = (0, 0, *(BLUR * side for side in size))
    blurred = torch.from_numpy(gaussian_filter(image.cpu().numpy(), sigma, mode="reflect")).to(image.device)
    counts = torch.from_numpy(np.round(np.linspace(0, size.numel(), steps + 1)))[:, None]  # (S, 1)
    curves = np.empty((2, *stacked.shape[:2], steps + 1))  # marked pixels first, marked pixels last
    with undisturbed(model):
        for end, case, one in np.ndindex(curves.shape[:3]):
            sequence = equals[enlarged[case, one, equals].argsort(descending=end == 0, stable=True)]  # stable: equals as they are
            rank = torch.empty_like(sequence).scatter_(0, sequence, torch.arange(len(sequence)))  # when each pixel goes
            removed = (rank < counts).view(-1, 1, *size).to(image.device)  # (S, 1, H, W)
            altered = torch.where(removed, blurred[case], image[case]).to(device)  # (S, 3, H, W)
            held = None if metadata is None else metadata[case : case + 1].expand(len(altered), -1).to(device)
            curves[end, case, one] = model(altered, held).double().cpu().numpy()
    if not np.isfinite(curves).all():
        raise ValueError("expected finite logits; look for NaN in image, metadata and weights")
    first, last = np.trapezoid(curves, dx=1 / steps, axis=-1)  # (B, K) each
    return (last - first) if maps.ndim == 4 else (last - first)[:, 0]


def _lesion_outwards(mask: np.ndarray) -> NDArray[np.float64]:
    """How much of each place is lesion, from the middle to the rim; places equally far share their mean."""
    height, width = mask.shape
    down, across = (2 * np.arange(side) + 1 - side for side in mask.shape)
    distance = (down[:, None] * width) ** 2 + (across * height) ** 2  # squared, and whole numbers: equals are equal
    _, ring, size = np.unique(distance.ravel(), return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(ring, weights=mask.ravel()) / size, size)


def _read(heatmap: np.ndarray, mask: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Values, mask and shares of the positive energy; shares are NaN where nothing is positive."""
    if mask.ndim != 2 or heatmap.shape != mask.shape:
        raise ValueError(f"expected one shape (H, W), got {heatmap.shape} and {mask.shape}; ask heatmaps for size=mask.shape")
    if mask.dtype != bool or not mask.any() or not np.isfinite(heatmap).all():
        raise ValueError(f"expected a finite heatmap and a boolean mask with a lesion, got {mask.dtype}, {mask.sum()} pixels")
    values = heatmap.ravel().astype(np.float64)
    energy = np.maximum(values, 0) / (values.max() if values.max() > 0 else np.nan)  # so that a sum of huge values stays finite
    return values, mask.ravel(), energy / energy.sum()
