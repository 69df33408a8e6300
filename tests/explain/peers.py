"""pytorch-grad-cam beside the kit's maps: signed maps finished as it finishes its own, and how far two lie apart."""

import numpy as np
from pytorch_grad_cam.utils.image import scale_cam_image

NAMELESS_SIGN = ("eigencam", "eigengradcam")  # of which pytorch-grad-cam leaves the sign to the decomposition


def stretched(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What pytorch-grad-cam makes of signed maps: no negatives, stretched to [0, 1], enlarged, stretched again.

    Args:
        maps: shape ``(B, h, w)``.
        size: width and height wanted.

    Returns:
        Shape ``(B, height, width)``.
    """
    return scale_cam_image(np.maximum(scale_cam_image(np.maximum(maps, 0), size), 0))


def largest_difference(ours: np.ndarray, theirs: np.ndarray, method: str) -> np.ndarray:
    """How far maps lie apart at most, case by case, shape ``(B,)``, up to the sign of the maps where a component has none.

    Args:
        ours: signed maps, shape ``(B, h, w)``.
        theirs: finished maps of pytorch-grad-cam, shape ``(B, H, W)``.
        method: of both.
    """
    size = theirs.shape[:0:-1]
    found = np.abs(stretched(ours, size) - theirs).max((1, 2))
    return np.minimum(found, np.abs(stretched(-ours, size) - theirs).max((1, 2))) if method in NAMELESS_SIGN else found
