"""How pigment and paint become the colours of a photograph.

Light passes the skin and each pigment absorbs its share (Beer-Lambert law, as in Claridge et al. 2003), so a colour is
``light * exp(-sum_i amount_i * absorption_i)``. Only what scatters (veil, scar, scale, horn) is mixed in as paint.
Pictures are planar, ``(3, H, W)``.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

# Absorption of red, green, blue by one unit of pigment; shallow melanin looks brown, clumped melanin black, deep melanin blue
BROWN, BLACK, BLOOD, BLUE = range(4)
ABSORPTION = np.array([[0.33, 0.93, 1.22], [1.15, 1.22, 1.15], [0.12, 0.90, 0.62], [1.05, 0.80, 0.55]], np.float32)
PALE_SKIN = np.array([0.06, 0.0, 0.20, 0.0], np.float32)  # pigment of the skin that cameras are balanced on

PAINTS = {
    "veil": np.array([0.48, 0.60, 0.73], np.float32),
    "scar": np.array([1.02, 0.96, 0.98], np.float32),
    "scale": np.array([1.10, 1.08, 1.06], np.float32),
    "horn": np.array([1.00, 0.92, 0.74], np.float32),
}

Fields = dict[str, np.ndarray]  # texture channels at the pixels, each (H, W)


@dataclass(frozen=True)
class Camera:
    """One way to take the picture.

    Attributes:
        white: colour of pale skin, RGB in [0, 255].
        spread: relative standard deviation of that colour between pictures.
        view_mm: usual width of the field of view.
        blur: Gaussian blur in pixels of a 128-pixel picture.
        contrast: exponent of the tone curve.
        falloff: loss of light from centre to corner.
        glare: density of specular highlights, 0 to 1.
        noise: standard deviation of sensor noise, grey levels.
    """

    white: tuple[float, float, float]
    spread: float
    view_mm: float
    blur: float
    contrast: float
    falloff: float
    glare: float
    noise: float


CAMERAS = {
    "contact_pink": Camera((231, 156, 164), 0.05, 11.0, 0.70, 1.00, 0.06, 0.15, 1.0),
    "polarised_cool": Camera((203, 177, 194), 0.08, 13.0, 0.30, 1.05, 0.25, 0.00, 1.6),
    "wide_field": Camera((208, 182, 189), 0.09, 12.0, 0.30, 1.00, 0.12, 0.05, 1.6),
    "scanned_slide": Camera((228, 180, 188), 0.07, 10.0, 0.40, 1.20, 0.08, 0.90, 2.0),
}


@dataclass
class Pigments:
    """Amounts per pixel: ``amounts`` ``(4, H, W)`` in the order of ``ABSORPTION``, and ``(paint, opacity)`` laid on top."""

    amounts: np.ndarray
    paints: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at ``low``, 1 at ``high`` (which may be the smaller one), smooth between and constant beyond."""
    t = np.clip((x - low) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def mix(image: np.ndarray, paint: np.ndarray, opacity: np.ndarray) -> None:
    """Lay paint over a picture in place: ``image`` ``(3, H, W)``, ``paint`` ``(3,)`` or ``(3, H, W)``, ``opacity`` ``(H, W)``."""
    paint = np.asarray(paint, np.float32)
    image += opacity.astype(np.float32, copy=False) * ((paint if paint.ndim == 3 else paint[:, None, None]) - image)


def expose(pigments: Pigments, tex: Fields, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Photograph the skin.

    Args:
        pigments: what is there.
        tex: textures at the pixels, for glare.
        camera: acquisition style.
        rng: the photograph's generator.

    Returns:
        float32 ``(3, H, W)``, nominally in [0, 255], without sensor noise.
    """
    size = pigments.amounts.shape[-1]
    contrast = camera.contrast * np.exp(rng.normal(0, 0.08))
    amounts = pigments.amounts.reshape(len(ABSORPTION), -1) - PALE_SKIN[:, None]
    image = np.exp((-contrast * ABSORPTION.T).astype(np.float32) @ amounts).reshape(3, size, size)
    for paint, opacity in pigments.paints:
        mix(image, paint, opacity)
    if camera.glare > 0:
        mix(image, PAINTS["scale"], camera.glare * 0.8 * smoothstep(tex["grain"] + 0.5 * tex["drift"], 2.7, 3.3))
    image *= (0.95 / image.mean()) ** 0.3  # automatic exposure
    warmth, tint = rng.normal(0, camera.spread, 2)
    cast = rng.normal(0, camera.spread) + warmth * np.array([0.4, 0.0, -0.6]) + tint * np.array([0.0, 0.5, 0.0])
    white = (np.array(camera.white) * np.exp(cast)).astype(np.float32)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    tilt = rng.normal(0, 0.05, 2)
    across, down = (t * axis - 0.5 * camera.falloff * axis**2 for t in tilt.astype(np.float32))
    haze = np.float32(rng.uniform(0.01, 0.06))  # light scattered in the lens keeps black from being black
    image *= 1 - haze
    image += haze
    image *= (1 + across[None, :] + down[:, None]) * white[:, None, None]
    sigma = camera.blur * size / 128 * np.exp(rng.normal(0, 0.3))
    return ndimage.gaussian_filter(image, (0, sigma, sigma), truncate=2.5)
