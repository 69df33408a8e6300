"""Paint a whole case: the skin, a lesion whose every structure comes from one latent factor, the photograph of both.

The lesion's own frame has its centre at (0, 0) and a mean radius of 1.
"""

from types import SimpleNamespace

import numpy as np
from scipy.sparse import csr_array

from melanoma_lib.data.optics import (
    BROWN,
    PAINTS,
    TEXELS,
    TEXELS_PER_MM,
    Camera,
    Pigments,
    Textures,
    expose,
    smoothstep,
    texture_levels,
)  # fmt: skip

ANGLES = 1024  # directions in the table of a lesion's outline
THETA = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
ORDERS = np.arange(1, 22)
COSINES, SINES = np.cos(np.outer(ORDERS, THETA)), np.sin(np.outer(ORDERS, THETA))


def skin_pigments(look: SimpleNamespace, tex: Textures, rng: np.random.Generator) -> Pigments:
    """Healthy skin around a lesion."""
    # most skin is even; a fifth or so is sun-damaged and blotchy
    uneven, lines = 0.008 + 0.045 * rng.random() ** 3, rng.uniform(0.01, 0.08)
    fine = rng.uniform(0.004, 0.022) * tex["grain"]
    coarse = tex["cloud"] + tex["mottle"]
    brown = 0.9 * look.skin_tone * (1 + 1.5 * uneven * coarse) + 0.3 * uneven * coarse + fine
    brown += lines * (tex["furrow"] - 0.3)
    if look.skin_freckles > 0.15:
        brown += look.skin_freckles * 0.30 * smoothstep(tex["cloud"] + 0.5 * tex["mottle"], 0.9, 3.2)
    blood = look.skin_blood * (1 + (0.10 + 3.0 * uneven) * tex["drift"] + 3.0 * uneven * tex["mottle"]) + fine
    curls = rng.uniform(-0.22, 0.22)  # fine vessels, or the white flakes of dry skin, or neither
    blood += max(curls, 0) * tex["vessel"]
    amounts = np.stack([brown, np.full_like(brown, 0.20 * look.skin_tone), blood, np.zeros_like(brown)])
    return Pigments(amounts, [(PAINTS["scale"], -curls * tex["vessel"])] if curls < -0.07 else [])


def outline(lesion: SimpleNamespace, rng: np.random.Generator) -> np.ndarray:
    """Radius of the lesion's edge for the directions ``THETA``, mean about 1, as a Fourier series."""
    amplitude = np.zeros(len(ORDERS))
    amplitude[1] = rng.uniform(0.03, 0.17)  # ellipse: elongated, still symmetric
    amplitude[[0, 2, 4]] = lesion.asymmetry * rng.uniform(0.5, 1.0, 3) * (0.18, 0.20, 0.09)
    amplitude[3:] += (0.004 + 0.050 * lesion.border * rng.uniform(0.3, 1, len(ORDERS) - 3)) * (4 / ORDERS[3:]) ** 0.5
    phase = rng.uniform(0, 2 * np.pi, len(ORDERS))
    radius = 1 + (amplitude * np.cos(phase)) @ COSINES - (amplitude * np.sin(phase)) @ SINES
    return np.maximum(radius, 0.3).astype(np.float32)


def streak_reach(rng: np.random.Generator) -> np.ndarray:
    """How far streaks reach out for the directions ``THETA``, 0 to 1."""
    count = int(rng.integers(12, 26))
    centre = rng.uniform(-np.pi, np.pi) + rng.uniform(-1, 1, count) * rng.uniform(0.8, 2.2)  # a sector of the rim, or most of it
    gap = THETA - centre[:, None]
    gap -= 2 * np.pi * np.round(gap / (2 * np.pi))
    reach = rng.uniform(0.25, 1.0, (count, 1)) * np.exp(-((gap / rng.uniform(0.04, 0.09, (count, 1))) ** 2))
    return reach.max(axis=0).astype(np.float32)


class LesionPainter:
    """Adds one lesion to the pigments of the skin, in place; ``u`` and ``v`` are its coordinates, float32 ``(H, W)``."""

    def __init__(
        self, lesion: SimpleNamespace, skin: Pigments, tex: Textures, u: np.ndarray, v: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.lesion, self.skin, self.tex, self.u, self.v, self.rng = lesion, skin, tex, u, v, rng
        self.radius = np.sqrt(u * u + v * v)
        # index into the table of directions; arctan2 = pi would fall off its end
        self.sector = np.minimum(((np.arctan2(v, u) + np.pi) * (ANGLES / (2 * np.pi))).astype(np.int32), ANGLES - 1)
        self.edge = outline(lesion, rng)[self.sector]
        ragged = 0.025 + 0.085 * lesion.border
        self.depth = 1 - self.radius / self.edge + ragged * tex["cloud"] + 0.4 * ragged * tex["mottle"]  # 0 on the edge
        softness = 0.08 + 0.50 * rng.random()
        self.body = smoothstep(self.depth, -softness, softness)
        self.inside = smoothstep(self.depth, -0.05, 0.25)
        self.spread = 0.22 + 0.48 * lesion.asymmetry  # how far colour zones lie off the centre

    def paint(self) -> np.ndarray:
        """Lay everything down; returns the lesion mask, boolean ``(H, W)``."""
        self._base()
        self._colours()
        getattr(self, f"_{self.lesion.family}")()
        if self.lesion.streaks > 0:
            self._streaks()
        if self.lesion.regression > 0:
            self._regression()
        if self.lesion.veil > 0:
            self._veil()
        self.brown *= 1 + 0.10 * self.tex["grain"]
        self.skin.amounts += np.stack([self.brown, self.black, self.blood, self.blue])
        return self.depth > 0

    def _zone(self, angle: float, distance: float, size: float, soft: float) -> np.ndarray:
        """A soft-edged, uneven disc inside the lesion, 0 to 1."""
        distance *= self.rng.uniform(0.6, 1.0)
        du, dv = self.u - np.float32(distance * np.cos(angle)), self.v - np.float32(distance * np.sin(angle))
        gap = np.sqrt(du * du + dv * dv) / np.float32(size) - 0.20 * self.tex["cloud"] - 0.12 * self.tex["mottle"]
        return smoothstep(gap, 1 + soft, 1 - soft) * self.inside

    def _lay(self, paint: str, opacity: np.ndarray) -> None:
        # pigment of dark skin lies above what scatters, and dims it
        self.skin.paints.append((PAINTS[paint], opacity / (1 + 1.5 * self.skin.amounts[BROWN])))

    def _base(self) -> None:
        rng, tex = self.rng, self.tex
        lean = rng.uniform(0, 2 * np.pi)
        gradient = np.float32(np.cos(lean)) * self.u + np.float32(np.sin(lean)) * self.v
        profile = 1 + rng.uniform(-0.30, 0.80) * self.depth + 1.0 * self.lesion.asymmetry * gradient
        strength = rng.uniform(0.25, 0.90)
        self.brown = np.maximum(strength * profile * (1 + 0.16 * tex["cloud"] + 0.11 * tex["mottle"]), 0) * self.body
        self.black = np.zeros_like(self.brown)
        self.blue = rng.uniform(-0.08, 0.10) * self.brown  # greyish or golden brown
        self.blood = rng.uniform(-0.25, 0.30) * self.brown

    def _colours(self) -> None:
        rng, start = self.rng, self.rng.uniform(0, 2 * np.pi)
        tones = rng.choice(("black", "red", "tan"), self.lesion.colours - 1, replace=False, p=(0.6, 0.3, 0.1))
        for k, tone in enumerate(tones):  # a third of the circle each, or they would hide each other
            angle = start + k * 2.1 + rng.normal(0, 0.25)
            where = self._zone(angle, self.spread, size=rng.uniform(0.45, 0.65), soft=rng.uniform(0.25, 0.50))
            if tone == "black":
                self.black += where * (rng.uniform(1.0, 1.5) + 0.12 * self.tex["mottle"])
            elif tone == "red":
                self.blood += where * rng.uniform(0.6, 0.9)
                self.brown *= 1 - 0.6 * where
            else:
                self.brown *= 1 - 0.7 * where

    def _melanocytic(self) -> None:
        lesion, tex = self.lesion, self.tex
        fine, coarse = tex["mesh"] - 0.35, tex["coarse_mesh"] - 0.35
        patches = smoothstep(tex["drift"], -1.2 + 1.4 * lesion.network, 0.3 + 0.8 * lesion.network)
        net = (1 - lesion.network) * fine + 1.6 * lesion.network * coarse
        self.brown *= np.maximum(1 + self.rng.uniform(0.35, 0.85) * net * patches, 0.1)
        self.black += 0.30 * lesion.network * tex["coarse_mesh"] * patches * self.body
        self.black += self.inside * (0.08 * (1 - lesion.globules) * tex["dots"] + 0.60 * lesion.globules * tex["clods"])

    def _keratosis(self) -> None:
        tex = self.tex
        self.brown *= 0.60 + 0.8 * tex["cobble"] + 0.10 * tex["mottle"]
        self.black += self.inside * (0.15 + 0.6 * self.lesion.globules) * tex["clods"]
        self.blood -= 0.30 * self.brown  # waxy, yellowish
        pearls = tex["dots"] * smoothstep(tex["drift"] + 0.5 * tex["mottle"], 0.0, -1.2)
        self._lay("horn", 0.40 * self.inside * pearls)

    def _vascular(self) -> None:
        lacunae = self.tex["cobble"]
        self.blood += self.body * (0.9 + 0.6 * lacunae + 0.15 * self.tex["cloud"])
        self.blue += self.body * self.rng.uniform(0.0, 0.3) * lacunae
        self.brown *= 0.12

    def _pink(self) -> None:
        tex = self.tex
        self.blood += self.body * (0.30 + 0.12 * tex["mottle"]) + self.inside * 0.6 * tex["vessel"]
        self.brown *= self.rng.uniform(0.15, 0.5)
        scales = smoothstep(tex["mottle"] + 0.6 * tex["grain"], 1.0, 2.6)
        self._lay("scale", 0.35 * self.inside * scales)

    def _streaks(self) -> None:
        reach = streak_reach(self.rng)[self.sector] * self.lesion.streaks
        outer = self.edge + 0.22 * reach + 0.05 * self.tex["mottle"]
        ray = smoothstep(self.radius - outer, 0.06, -0.06) * smoothstep(self.radius / self.edge, 0.60, 0.95) * reach
        self.black += 0.5 * ray
        self.brown += 0.9 * ray

    def _regression(self) -> None:
        distance = 0.35 + 0.3 * self.lesion.asymmetry
        where = self._zone(self.rng.uniform(0, 2 * np.pi), distance, size=self.rng.uniform(0.45, 0.65), soft=0.6)
        where *= self.lesion.regression
        for pigment in (self.brown, self.black):
            pigment *= 1 - 0.85 * where
        pepper = smoothstep(self.tex["mottle"] - 0.6 * self.tex["grain"], 0.6, 1.8)
        self.blue += 0.6 * where * pepper
        self._lay("scar", 0.55 * where * (1 - 0.75 * pepper))

    def _veil(self) -> None:
        where = self._zone(self.rng.uniform(0, 2 * np.pi), 0.5 * self.spread, size=self.rng.uniform(0.50, 0.75), soft=0.7)
        where *= self.lesion.veil
        self.blue += 0.8 * where
        haze = where * (0.45 + 0.12 * self.tex["mottle"] + 0.12 * self.tex["cloud"])
        self._lay("veil", np.clip(haze, 0, 1))


def paint_case(
    look: SimpleNamespace, camera: Camera, lesion_rng: np.random.Generator, photo_rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """One photograph of one lesion, before artefacts and noise: float32 ``(3, size, size)``, and its mask ``(size, size)``.

    ``look`` has the image factors of ``population`` and ``skin_tone`` (its melanin, 0.04 pale to 1.24 dark), ``skin_blood`` (its
    redness) and ``skin_freckles`` (0 to 1). ``lesion_rng`` draws all that the lesion's photographs share, ``photo_rng`` the rest.
    """
    radius_mm = np.clip(lesion_rng.lognormal(np.log(3.3), 0.3), 1.5, 6.0)
    origin = lesion_rng.uniform(0, 51.2, 2)
    view_mm = np.clip(camera.view_mm * photo_rng.lognormal(0, 0.15), radius_mm / 0.48, radius_mm / 0.20)
    turn = photo_rng.uniform(0, 2 * np.pi)
    shift = photo_rng.normal(0, 0.045, 2) * view_mm
    axis = ((np.arange(size) + 0.5) / size - 0.5) * view_mm
    x, y = axis[None, :] - shift[0], axis[:, None] - shift[1]
    along = (np.cos(turn) * x - np.sin(turn) * y).astype(np.float32)
    across = (np.sin(turn) * x + np.cos(turn) * y).astype(np.float32)
    tex = sample_textures(along + np.float32(origin[0]), across + np.float32(origin[1]), view_mm / size)
    pigments = skin_pigments(look, tex, lesion_rng)
    scale = np.float32(1 / radius_mm)
    mask = LesionPainter(look, pigments, tex, along * scale, across * scale, lesion_rng).paint()
    return expose(pigments, tex, camera, photo_rng), mask


def sample_textures(x_mm: np.ndarray, y_mm: np.ndarray, mm_per_pixel: float) -> Textures:
    """Every channel at points on the skin, in millimetres, float32 ``(H, W)`` each; ``mm_per_pixel`` picks the resolution."""
    channels, levels = texture_levels()
    level = int(np.clip(np.floor(np.log2(mm_per_pixel * TEXELS_PER_MM) + 0.5), 0, len(levels) - 1))
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
    fields = np.ascontiguousarray((lookup @ levels[level]).T).reshape(len(channels), *x_mm.shape)
    return dict(zip(channels, fields, strict=True))
