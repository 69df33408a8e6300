"""How good is a heatmap? Scores against the outline of the lesion.

A score means little alone: large and central lesions are easy to hit. Compare it with that of a spot in the middle.
A map on the lesion is not yet a faithful one.
"""

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9  # of sums of shares


def score_heatmap(heatmap: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Scores of one map against one mask.

    Args:
        heatmap: signed relevance, shape ``(H, W)``.
        mask: lesion pixels, boolean, shape ``(H, W)``.

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
    """The share of the positive energy on the lesion alone, as of :func:`score_heatmap`, which tells arguments and errors."""
    _, inside, shares = _read(heatmap, mask)
    return float(shares[inside].sum())


def _lesion_outwards(mask: np.ndarray) -> NDArray[np.float64]:
    """How much of each place is lesion, shape ``(P,)``, from the middle to the rim; places equally far share their mean."""
    height, width = mask.shape
    down, across = (2 * np.arange(side) + 1 - side for side in mask.shape)
    distance = (down[:, None] * width) ** 2 + (across * height) ** 2  # squared, and whole numbers: equals are equal
    _, ring, size = np.unique(distance.ravel(), return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(ring, weights=mask.ravel()) / size, size)


def _read(heatmap: np.ndarray, mask: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Values, mask and shares of the positive energy of a map that fits its mask; shares are NaN where nothing is positive."""
    if mask.ndim != 2 or heatmap.shape != mask.shape:
        raise ValueError(
            f"heatmap and mask: expected the same shape (H, W), got {heatmap.shape} and {mask.shape}; "
            "ask heatmaps for size=mask.shape"
        )
    if mask.dtype != bool or not mask.any():
        raise ValueError(f"mask: expected booleans, some of them True, got {mask.dtype} with {np.count_nonzero(mask)} not zero")
    if not np.isfinite(heatmap).all():
        raise ValueError(f"heatmap: expected finite values, got {np.count_nonzero(~np.isfinite(heatmap))} that are not")
    values = heatmap.ravel().astype(np.float64)
    energy = np.maximum(values, 0) / (values.max() if values.max() > 0 else np.nan)  # so that a sum of huge values stays finite
    return values, mask.ravel(), energy / energy.sum()
