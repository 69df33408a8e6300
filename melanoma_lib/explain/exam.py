"""How good is a heatmap? Scores against the outline of the lesion; a map on the lesion is not yet a faithful one."""

import numpy as np


def score_heatmap(heatmap: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Scores of one map against one mask, by name; arguments and errors as in :func:`energy_in_mask`."""
    return {"energy_in_mask": energy_in_mask(heatmap, mask), "pointing_game": pointing_game(heatmap, mask)}


def energy_in_mask(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Share of the positive heatmap energy that falls on the lesion.

    Args:
        heatmap: signed relevance, shape ``(H, W)``; only its positive part counts.
        mask: lesion pixels, boolean, shape ``(H, W)``.

    Returns:
        A fraction in [0, 1]; compare it with ``mask.mean()``, which a uniform map scores. NaN where nothing is positive.

    Raises:
        ValueError: if the shapes differ, the mask is empty or not boolean, or the map is not finite.

    Source: Wang et al. 2020, "Score-CAM", energy-based pointing game.
    """
    energy = _positive(heatmap, mask)
    return float(energy[mask].sum() / energy.sum()) if energy.any() else float("nan")


def pointing_game(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Whether the map's peak lies on the lesion.

    Args:
        heatmap: signed relevance, shape ``(H, W)``.
        mask: lesion pixels, boolean, shape ``(H, W)``.

    Returns:
        1 for a hit, 0 for a miss, the share of hits among several pixels of equal height; NaN where nothing is positive.

    Raises:
        ValueError: as in :func:`energy_in_mask`.

    Source: Zhang et al. 2016, "Top-down neural attention by excitation backprop", without its tolerance in pixels.
    """
    energy = _positive(heatmap, mask)
    return float(mask[energy == energy.max()].mean()) if energy.any() else float("nan")


def _positive(heatmap: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Positive part of a map that fits its mask, in double precision."""
    if heatmap.ndim != 2 or heatmap.shape != mask.shape:
        raise ValueError(
            f"heatmap and mask: expected the same shape (H, W), got {heatmap.shape} and {mask.shape}; "
            "ask heatmaps for size=mask.shape"
        )
    if mask.dtype != bool or not mask.any():
        raise ValueError(f"mask: expected booleans, some of them True, got {mask.dtype} with {np.count_nonzero(mask)} not zero")
    if not np.isfinite(heatmap).all():
        raise ValueError(f"heatmap: expected finite values, got {np.count_nonzero(~np.isfinite(heatmap))} that are not")
    return np.maximum(heatmap, 0, dtype=np.float64)
