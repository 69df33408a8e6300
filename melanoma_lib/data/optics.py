"""What skin and lesions are painted with: textures, pigments and cameras.

Textures: seeded periodic noise of mean 0 and unit spread (or in [0, 1] where it is a pattern), drawn once per process.

Colours: light passes the skin and each pigment absorbs its share (Beer-Lambert law, as in Claridge et al. 2003), so a colour is
``light * exp(-sum_i amount_i * absorption_i)``. Only what scatters (veil, scar, scale, horn) is mixed in as paint.
Pictures are planar, ``(3, H, W)``.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

TEXELS = 512  # side of the square bank
BANK_SEED = 2026
TEXELS_PER_MM = 10.0  # so that a 12.8 mm view at 128 px reads about one texel a pixel

# Absorption of red, green, blue by one unit of brown (shallow melanin), black (clumped melanin), blood and blue (deep melanin)
BROWN = 0
ABSORPTION = np.array([[0.33, 0.93, 1.22], [1.15, 1.22, 1.15], [0.12, 0.90, 0.62], [1.05, 0.80, 0.55]], np.float32)
PALE_SKIN = np.array([0.06, 0.0, 0.20, 0.0], np.float32)  # pigment of the skin that cameras are balanced on

Textures = dict[str, np.ndarray]  # float32 (H, W) by channel
PAINTS = {
    "veil": np.array([0.48, 0.60, 0.73], np.float32),
    "scar": np.array([1.02, 0.96, 0.98], np.float32),
    "scale": np.array([1.10, 1.08, 1.06], np.float32),
    "horn": np.array([1.00, 0.92, 0.74], np.float32),
}


@dataclass(frozen=True)
class Camera:
    """One way to take the picture."""

    white: tuple[float, float, float]  # colour of pale skin, RGB in [0, 255]
    spread: float  # relative standard deviation of that colour between pictures
    view_mm: float  # usual width of the field of view
    blur: float  # Gaussian blur in pixels of a 128-pixel picture
    contrast: float  # exponent of the tone curve
    falloff: float  # loss of light from centre to corner
    glare: float  # density of specular highlights, 0 to 1
    noise: float  # standard deviation of sensor noise, grey levels


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


def expose(pigments: Pigments, tex: Textures, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Photograph the skin: float32 ``(3, H, W)``, nominally in [0, 255], without sensor noise; ``tex`` is for glare."""
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


def spectral_noise(rng: np.random.Generator, low: float, high: float, slope: float) -> np.ndarray:
    """Periodic noise ``(TEXELS, TEXELS)`` of ``low`` to ``high`` cycles; amplitude falls with ``frequency ** -slope``."""
    spectrum = np.fft.rfft2(rng.standard_normal((TEXELS, TEXELS)))
    fy = np.fft.fftfreq(TEXELS)[:, None] * TEXELS
    fx = np.fft.rfftfreq(TEXELS)[None, :] * TEXELS
    radius = np.hypot(fy, fx)
    # Gaussian flanks instead of a hard cut, which would ring
    gain = np.maximum(radius, 1.0) ** -slope * np.exp(-((radius / high) ** 2)) * (1 - np.exp(-((radius / low) ** 2)))
    field = np.fft.irfft2(spectrum * gain, s=(TEXELS, TEXELS))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def jittered_points(rng: np.random.Generator, spacing: float, jitter: float) -> np.ndarray:
    """Points of a hexagonal lattice, each moved at random; shape ``(N, 2)`` in texels, periodic."""
    n = max(2, 2 * round(TEXELS / spacing / 2))
    rows, cols = np.mgrid[0:n, 0:n].astype(float)
    points = np.stack([rows, cols + 0.5 * (rows % 2)], axis=-1).reshape(-1, 2)
    points += rng.uniform(-jitter, jitter, points.shape)
    return points * (TEXELS / n) % TEXELS


def cell_distances(points: np.ndarray, warp: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of every texel, moved by ``warp``, to its nearest and second nearest point, and the nearest one's number."""
    grid = (np.stack(np.mgrid[0:TEXELS, 0:TEXELS]) + warp) % TEXELS
    distance, nearest = cKDTree(points, boxsize=TEXELS).query(grid.reshape(2, -1).T, k=2)
    f1, f2 = distance.T.reshape(2, TEXELS, TEXELS)
    return f1, f2, nearest[:, 0].reshape(TEXELS, TEXELS)


def mesh(rng: np.random.Generator, spacing: float, jitter: float, width: float, stretch: int = 1) -> np.ndarray:
    """A net of lines around cells: 1 on a line, 0 in a hole; ``width`` in texels, cells ``stretch`` times as long as wide."""
    warp = np.stack([spectral_noise(rng, 4, 40, 1.0) for _ in range(2)]) * spacing * 0.25
    f1, f2, _ = cell_distances(jittered_points(rng, spacing, jitter), warp)
    net = np.exp(-(((f2 - f1) / width) ** 2))
    # every stretch-th row, repeated: squeezes the pattern and keeps it periodic
    return np.tile(net[::stretch], (stretch, 1)).astype(np.float32)


def blobs(rng: np.random.Generator, spacing: float, jitter: float, radius: tuple[float, float], share: float) -> np.ndarray:
    """Round spots, 1 inside and 0 outside, of radii drawn from ``radius`` (texels) at a ``share`` of the lattice points."""
    points = jittered_points(rng, spacing, jitter)
    radii = rng.uniform(*radius, len(points)) * (rng.random(len(points)) < share)
    warp = np.stack([spectral_noise(rng, 10, 80, 0.5) for _ in range(2)]) * radius[0] * 0.3
    f1, _, nearest = cell_distances(points, warp)
    return (1 / (1 + np.exp(np.clip((f1 - radii[nearest]) / 0.6, -30, 30))) * (radii[nearest] > 0)).astype(np.float32)


@lru_cache(maxsize=1)
def texture_levels() -> tuple[list[str], list[np.ndarray]]:
    """Names of the channels, and all of them at several resolutions, ``(TEXELS * TEXELS, C)`` each: two seconds a process."""
    rng = np.random.default_rng(BANK_SEED)
    fields = {
        "cloud": spectral_noise(rng, 4, 60, 1.5),
        "drift": spectral_noise(rng, 3, 16, 1.0),
        "mottle": spectral_noise(rng, 12, 120, 0.9),
        "grain": spectral_noise(rng, 60, 220, 0.4),
        "vessel": np.exp(-((spectral_noise(rng, 8, 40, 0.6) / 0.07) ** 2)) * (spectral_noise(rng, 4, 16, 0.5) > 0.2),
        "furrow": mesh(rng, 9.0, 0.5, 2.2, stretch=2),
        "mesh": mesh(rng, 4.6, 0.30, 1.2),
        "coarse_mesh": mesh(rng, 8.5, 0.6, 1.9),
        "dots": blobs(rng, 6.0, 0.25, (1.3, 1.8), 0.9),
        "clods": blobs(rng, 8.0, 0.6, (1.0, 3.2), 0.5),
        "cobble": np.clip(1 - cell_distances(jittered_points(rng, 8.0, 0.5))[0] / 5.0, 0, 1),
    }
    finest = np.stack(list(fields.values()), axis=-1).astype(np.float32)  # (T, T, C)
    # coarser levels are only blurred, not shrunk, so that one set of coordinates serves all of them
    blurred = [ndimage.gaussian_filter(finest, (sigma, sigma, 0), mode="wrap") for sigma in (0.8, 1.7, 3.5)]
    return [*fields], [level.reshape(TEXELS * TEXELS, -1) for level in (finest, *blurred)]
