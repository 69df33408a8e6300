"""How good is a heatmap? Scores against the outline of the lesion.

A score means little alone: large and central lesions are easy to hit. Compare it with that of a spot in the middle.
A map on the lesion is not yet a faithful one.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
ROUNDING = 1e-9  # of sums of shares


def score_heatmap(heatmap: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Scores of one map against one mask.

    Args:
        heatmap: signed relevance, shape ``(H, W)``.
        mask: lesion pixels, boolean, shape ``(H, W)``.

    Returns:
        By name, all in [0, 1] but for ``energy_beyond_centred``, and all but ``rank_accuracy`` NaN where nothing is positive:

        - ``energy_in_mask``: share of the positive energy on the lesion; a uniform map scores ``mask.mean()``.
        - ``energy_beyond_centred``: that share less what the map's own values would put on the lesion if they were arranged
          around the middle of the image, in [-1, 1]; a spot of any width in the middle and a uniform map score 0.
        - ``pointing_game``: 1 where the peak lies on the lesion, else 0; among several pixels of equal height the share of hits.
        - ``rank_accuracy``: share of the lesion among as many of the highest pixels as it has; only their order counts.
        - ``overlap``: intersection over union of the lesion and the region where the map reaches half of its maximum.

    Raises:
        ValueError: if the shapes differ, the mask is empty or not boolean, or the map is not finite.
    """
    _check_shape(heatmap)
    return {name: float(score) for name, score in score_heatmaps(heatmap, mask).items()}


def score_heatmaps(maps: np.ndarray, mask: np.ndarray) -> dict[str, Floats]:
    """What :func:`score_heatmap` gives, for many maps of one case at once, shape ``(..., H, W)``; each score has ``(...)``."""
    values = _pixels(maps, mask)
    return {name: score(values, mask) for name, score in _SCORES.items()}


def energy_in_mask(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """The share of the positive energy on the lesion alone, as of :func:`score_heatmap`, which tells the arguments.

    Source: Wang et al. 2020, "Score-CAM", energy-based pointing game.
    """
    _check_shape(heatmap)
    return float(_energy(_pixels(heatmap, mask), mask))


def energy_beyond_centred(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Energy on the lesion, less what the map's own values would put there if they were arranged around the middle.

    Energy rewards narrow maps: the narrower a spot in the middle, the more of it lies on a lesion in the middle, whatever the
    model does. Against its own values, the highest in the middle and the lowest at the rim, a map gains by *where* it is high
    and by nothing else. Pixels equally far from the middle share their values. Distances count in units of each side.
    Arguments and errors are those of :func:`score_heatmap`.
    """
    _check_shape(heatmap)
    return float(_beyond_centred(_pixels(heatmap, mask), mask))


def _energy(values: Floats, mask: Mask) -> Floats:
    return _shares(values)[..., mask.ravel()].sum(-1)


def _beyond_centred(values: Floats, mask: Mask) -> Floats:
    highest_first = -np.sort(-_shares(values), axis=-1)
    gain = _energy(values, mask) - highest_first @ _lesion_outwards(mask)
    return np.where(np.abs(gain) < ROUNDING, 0.0, gain)  # over many cases even a rounding error would look like a difference


def _lesion_outwards(mask: Mask) -> Floats:
    """How much of each place is lesion, shape ``(P,)``, from the middle to the rim; places equally far share their mean."""
    height, width = mask.shape
    down, across = (2 * np.arange(side) + 1 - side for side in mask.shape)
    distance = (down[:, None] * width) ** 2 + (across * height) ** 2  # squared, and whole numbers: equals are equal
    _, ring, size = np.unique(distance.ravel(), return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(ring, weights=mask.ravel()) / size, size)


def _pointing(values: Floats, mask: Mask) -> Floats:
    """Zhang et al. 2016, "Top-down neural attention by excitation backprop", without its tolerance in pixels."""
    at_peak = values == _positive_peak(values)
    return _ratio(at_peak[..., mask.ravel()].sum(-1), at_peak.sum(-1))


def _rank_accuracy(values: Floats, mask: Mask) -> Floats:
    """Arras et al. 2022, "CLEVR-XAI"; where the last place is shared by equals, the mean over all orders of these."""
    inside, size = mask.ravel(), int(mask.sum())
    last = np.partition(values, values.shape[-1] - size, axis=-1)[..., -size, None]  # the lowest value that still has a place
    above, tied = values > last, values == last
    places = size - above.sum(-1)  # left for those that share the last value
    return (above[..., inside].sum(-1) + places * tied[..., inside].sum(-1) / tied.sum(-1)) / size


def _overlap(values: Floats, mask: Mask) -> Floats:
    """Jaccard's index; half of the maximum is where the eye draws the edge of a hot spot, and needs no look at the mask."""
    inside, peak = mask.ravel(), _positive_peak(values)
    hot = values >= peak / 2
    union = np.where(np.isnan(peak[..., 0]), 0, (hot | inside).sum(-1))
    return _ratio((hot & inside).sum(-1), union)


def _shares(values: Floats) -> Floats:
    """Each pixel's share of the positive energy, shape ``(..., P)``; NaN where nothing is positive."""
    energy = np.maximum(values, 0) / _positive_peak(values)  # so that the sum of huge values stays finite
    return energy / energy.sum(-1, keepdims=True)


def _positive_peak(values: Floats) -> Floats:
    """Height of the highest pixel, shape ``(..., 1)``; NaN where it is not positive."""
    peak = values.max(-1, keepdims=True)
    return np.where(peak > 0, peak, np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> Floats:
    """Their quotient, NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _check_shape(heatmap: np.ndarray) -> None:
    if heatmap.ndim != 2:
        raise ValueError(
            f"heatmap: expected the shape (H, W), got {heatmap.shape}; score_heatmaps takes several maps of one case"
        )


def _pixels(maps: np.ndarray, mask: np.ndarray) -> Floats:
    """Maps that fit their mask, in double precision, shape ``(..., P)``."""
    if mask.ndim != 2 or maps.shape[-2:] != mask.shape:
        raise ValueError(
            f"heatmap and mask: expected the same shape (H, W), got {maps.shape} and {mask.shape}; "
            "ask heatmaps for size=mask.shape"
        )
    if mask.dtype != bool or not mask.any():
        raise ValueError(f"mask: expected booleans, some of them True, got {mask.dtype} with {np.count_nonzero(mask)} not zero")
    if not np.isfinite(maps).all():
        raise ValueError(f"heatmap: expected finite values, got {np.count_nonzero(~np.isfinite(maps))} that are not")
    return maps.reshape(*maps.shape[:-2], -1).astype(np.float64)


_SCORES: dict[str, Callable[[Floats, Mask], Floats]] = {
    "energy_in_mask": _energy,
    "energy_beyond_centred": _beyond_centred,
    "pointing_game": _pointing,
    "rank_accuracy": _rank_accuracy,
    "overlap": _overlap,
}
SCORES = tuple(_SCORES)
