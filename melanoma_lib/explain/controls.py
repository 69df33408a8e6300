"""Maps that know nothing of the model: what a heatmap must beat before its score says anything."""

from collections.abc import Callable

import numpy as np


def random_map(image: np.ndarray, rng: np.random.Generator, stride: int = 32) -> np.ndarray:
    """Chance as smooth as a heatmap: normal values on the grid of a layer, enlarged as :func:`heatmaps` enlarges.

    Noise pixel by pixel would be an unfair rival, because no layer can draw it. Values between the points of a grid are means and
    so less extreme, and the border repeats the outermost points: the middle of the image is hottest less often than its share, in
    this map as in every heatmap that means nothing.

    Args:
        image: RGB, uint8, shape ``(H, W, 3)``; only its size is looked at.
        rng: source of the chance.
        stride: pixels between two points of the layer that is imitated; 32 is the last of most backbones.

    Returns:
        A signed map, float32, shape ``(H, W)``.
    """
    from melanoma_lib.explain.cam import resize_heatmap

    height, width = _size(image)
    grid = (-(-height // stride), -(-width // stride))  # rounded up, as strided layers do
    return resize_heatmap(rng.standard_normal(grid, np.float32), (height, width))


def edges(image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Where the image's brightness changes: the length of the Sobel gradient, a map that looks like an explanation.

    Args:
        image: RGB, uint8, shape ``(H, W, 3)``.
        rng: not needed, accepted so that all controls are called alike.

    Returns:
        A map that is nowhere negative, float32, shape ``(H, W)``, in grey levels a pixel.

    Source: as the control of Adebayo et al. 2018, "Sanity checks for saliency maps"; brightness by Rec. 601.
    """
    from scipy import ndimage

    _size(image)
    brightness = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # (H, W, 3) -> (H, W)
    down, across = (ndimage.sobel(brightness, axis=axis, mode="nearest") / 8 for axis in (0, 1))
    return np.hypot(down, across)


def centre(image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """The photographer's habit: a Gaussian in the middle, because that is where lesions are put.

    Its standard deviation is a quarter of each side, so that it falls to half its height along an ellipse that covers
    ``pi * ln(4) / 16``, 27% of the image.

    Args:
        image: RGB, uint8, shape ``(H, W, 3)``; only its size is looked at.
        rng: not needed, accepted so that all controls are called alike.

    Returns:
        A positive map with values up to 1, float32, shape ``(H, W)``.

    Source: the centre baseline of Choe et al. 2020, "Evaluating weakly supervised object localization methods right".
    """
    down, across = (np.exp(-8 * ((np.arange(side) + 0.5) / side - 0.5) ** 2) for side in _size(image))
    return np.outer(down, across).astype(np.float32)


def _size(image: np.ndarray) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected RGB as uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}")
    return image.shape[:2]


CONTROLS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "random": random_map,
    "edges": edges,
    "centre": centre,
}
