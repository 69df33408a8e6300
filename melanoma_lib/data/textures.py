"""Seeded, tileable texture banks: the noise from which synthetic skin and lesions are painted.

Every field is periodic, has mean 0 and unit spread (or lies in [0, 1] where it is a pattern), and is drawn once per process, so
that painting a case costs one bilinear lookup instead of many filters.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

TEXELS = 512  # side of the square bank
BANK_SEED = 2026
TEXELS_PER_MM = 10.0  # so that a 12.8 mm view at 128 px reads about one texel a pixel
CHANNELS = ("cloud", "drift", "mottle", "grain", "vessel", "furrow", "mesh", "coarse_mesh", "dots", "clods", "cobble")


def spectral_noise(rng: np.random.Generator, low: float, high: float, slope: float) -> np.ndarray:
    """Band-limited periodic noise with a power-law spectrum.

    Args:
        rng: source of the phases.
        low: longest wavelength kept, in cycles per tile.
        high: shortest wavelength kept, in cycles per tile.
        slope: amplitude falls with ``frequency ** -slope``.

    Returns:
        float32 ``(TEXELS, TEXELS)``, mean 0, standard deviation 1.
    """
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
    """Distance of every texel to its nearest and second nearest point, and the nearest one's number (Worley 1996).

    Args:
        points: ``(N, 2)`` in texels.
        warp: ``(2, TEXELS, TEXELS)`` displacement in texels, so that no line is straight.

    Returns:
        ``(f1, f2, nearest)``, each ``(TEXELS, TEXELS)``.
    """
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


class TextureBank:
    """All channels at several resolutions, looked up together."""

    def __init__(self) -> None:
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
        finest = np.stack([fields[name] for name in CHANNELS], axis=-1).astype(np.float32)  # (T, T, C)
        # coarser levels are only blurred, not shrunk, so that one set of coordinates serves all of them
        blurred = [ndimage.gaussian_filter(finest, (sigma, sigma, 0), mode="wrap") for sigma in (0.8, 1.7, 3.5)]
        self.levels = [level.reshape(TEXELS * TEXELS, -1) for level in (finest, *blurred)]

    def sample(self, x_mm: np.ndarray, y_mm: np.ndarray, mm_per_pixel: float) -> dict[str, np.ndarray]:
        """Look every channel up at points on the skin.

        Args:
            x_mm: first coordinate, millimetres, shape ``(H, W)``.
            y_mm: second coordinate, same shape.
            mm_per_pixel: distance of neighbouring points, which picks the resolution and so avoids aliasing.

        Returns:
            One float32 ``(H, W)`` field per name in ``CHANNELS``.
        """
        level = int(np.clip(np.floor(np.log2(mm_per_pixel * TEXELS_PER_MM) + 0.5), 0, len(self.levels) - 1))
        x, y = (c.ravel().astype(np.float32) * np.float32(TEXELS_PER_MM) for c in (x_mm, y_mm))
        left, above = np.floor(x), np.floor(y)
        fx, fy = x - left, y - above
        col, row = left.astype(np.int32) % TEXELS, above.astype(np.int32) % TEXELS
        right, below = (col + 1) % TEXELS, (row + 1) % TEXELS * TEXELS
        row *= TEXELS
        corners = np.stack([row + col, row + right, below + col, below + right], axis=1)  # (H*W, 4)
        weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], axis=1)
        # bilinear interpolation as a sparse matrix: one pass over all channels, twice as fast as fancy indexing
        starts = np.arange(0, 4 * len(x) + 1, 4, dtype=np.int32)
        lookup = csr_array((weights.ravel(), corners.ravel(), starts), shape=(len(x), TEXELS * TEXELS))
        fields = np.ascontiguousarray((lookup @ self.levels[level]).T).reshape(len(CHANNELS), *x_mm.shape)
        return dict(zip(CHANNELS, fields, strict=True))


@lru_cache(maxsize=1)
def texture_bank() -> TextureBank:
    """The bank, drawn once per process (about two seconds); every data set cuts its own pieces from it."""
    return TextureBank()
