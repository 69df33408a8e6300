"""What gets between lens and skin: hairs, ruler, pen ink, gel bubbles, colour patches, the dark rim of the dermoscope.

Every painter takes the picture as float32 ``(3, S, S)`` in [0, 255] and a generator, and changes the picture in place.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from melanoma_lib.data.optics import mix

OVERSAMPLE = 4  # strokes are drawn this much larger, then averaged, so that thin ones are smooth
VISIBLE = 2.0  # grey levels; a pixel that changed less does not belong to an artefact's mask
PEN_ABSORPTION = np.array([[1.05, 1.25, 0.35], [1.3, 1.0, 0.25], [1.2, 1.1, 0.7]], np.float32)  # violet, blue, grey-blue
PATCH_COLOURS = np.array([[232, 190, 60], [60, 130, 190], [70, 160, 110], [205, 75, 60], [235, 235, 230]], np.float32)


def _strokes(size: int, draw: Callable[[ImageDraw.ImageDraw, float], None]) -> np.ndarray:
    """Anti-aliased coverage ``(size, size)`` in [0, 1] of what ``draw`` paints in a unit square of ``scale`` pixels."""
    scale = size * OVERSAMPLE
    canvas = Image.new("L", (scale, scale))
    draw(ImageDraw.Draw(canvas), float(scale))
    return np.asarray(canvas.reduce(OVERSAMPLE), np.float32) / 255


def _coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return axis[None, :], axis[:, None]


def paint_hair(image: np.ndarray, rng: np.random.Generator) -> None:
    """Curved, tapered hairs that roughly share a direction, or the stubble of a shaved site, each with a faint shadow."""
    size = image.shape[-1]
    stubble = rng.random() < 0.3
    count = int(np.clip(rng.lognormal(np.log(14 if stubble else 7), 0.7), 1, 45))
    direction, thickness = rng.uniform(0, 2 * np.pi), rng.uniform(0.004, 0.011)
    t = np.linspace(0, 1, 4 if stubble else 14)[:, None]

    def draw(pen: ImageDraw.ImageDraw, scale: float) -> None:
        for _ in range(count):
            heading = direction + rng.normal(0, 0.5)
            length = rng.uniform(0.05, 0.13) if stubble else rng.uniform(0.35, 1.2)
            along = np.array([np.cos(heading), np.sin(heading)])
            across = np.array([-along[1], along[0]])
            middle = rng.uniform(0, 1, 2)
            bend, hook = rng.normal(0, 0.16, 2) * length
            path = middle + (t - 0.5) * length * along + ((t - 0.5) ** 2 * 4 * bend + (t - 0.5) ** 3 * 8 * hook) * across
            widths = np.maximum(1, thickness * rng.uniform(0.6, 1.3) * scale * (1 - 0.75 * t[:-1, 0])).round().astype(int)
            points = [tuple(p) for p in (path * scale).tolist()]
            for start, stop, width in zip(points[:-1], points[1:], widths.tolist(), strict=True):
                pen.line([start, stop], fill=255, width=width)

    cover = _strokes(size, draw)
    light = rng.random() < 0.15
    colour = np.array([205, 190, 180] if light else [52, 34, 30]) + rng.normal(0, 10, 3)
    offset = max(1, round(size / 90))
    mix(image, colour * 0.3, 0.22 * np.roll(cover, (offset, offset), (0, 1)))
    mix(image, colour, rng.uniform(0.6, 0.92) * cover)


def paint_ruler(image: np.ndarray, rng: np.random.Generator) -> None:
    """A millimetre scale along one side."""
    size = image.shape[-1]
    step, margin, tilt = rng.uniform(0.035, 0.08), rng.uniform(0.02, 0.10), rng.normal(0, 0.02)
    start, short = rng.uniform(-0.05, 0.15), rng.uniform(0.018, 0.03)
    stop = start + rng.uniform(0.6, 1.1)
    width = rng.uniform(0.004, 0.008)
    side, baseline = int(rng.integers(4)), rng.random() < 0.5

    def draw(pen: ImageDraw.ImageDraw, scale: float) -> None:
        for k, at in enumerate(np.arange(start, stop, step)):
            reach = short * (2.2 if k % 10 == 0 else 1.6 if k % 5 == 0 else 1.0)
            inset = margin + tilt * at
            pen.line([(inset * scale, at * scale), ((inset + reach) * scale, at * scale)], 255, max(1, round(width * scale)))
        if baseline:
            ends = [((margin + tilt * at) * scale, at * scale) for at in (start, stop)]
            pen.line(ends, 255, max(1, round(width * scale)))

    cover = np.rot90(_strokes(size, draw), side)
    mix(image, rng.uniform(15, 70) + rng.normal(0, 4, 3), rng.uniform(0.65, 0.95) * cover)


def paint_ink(image: np.ndarray, rng: np.random.Generator) -> None:
    """Strokes and dots of a surgical marking pen near the edge; ink absorbs light, so the skin shows through."""
    size = image.shape[-1]
    width = rng.uniform(0.02, 0.05)
    t = np.linspace(0, 1, 16)[:, None]

    def draw(pen: ImageDraw.ImageDraw, scale: float) -> None:
        for _ in range(int(rng.integers(1, 4))):
            heading = rng.uniform(0, 2 * np.pi)
            outward = np.array([np.cos(heading), np.sin(heading)])
            middle = 0.5 + rng.uniform(0.40, 0.52) * outward
            if rng.random() < 0.25:
                r = rng.uniform(0.012, 0.03)
                pen.ellipse([*((middle - r) * scale), *((middle + r) * scale)], fill=255)
                continue
            along = np.array([-outward[1], outward[0]]) + rng.normal(0, 0.35, 2)
            path = middle + (t - 0.5) * rng.uniform(0.2, 0.7) * along + (t - 0.5) ** 2 * rng.normal(0, 0.6) * outward
            points = [tuple(p) for p in (path * scale).tolist()]
            pen.line(points, 255, max(2, round(width * scale)), joint="curve")
            for x, y in points:  # round nib
                r = width * scale / 2
                pen.ellipse([x - r, y - r, x + r, y + r], fill=255)

    cover = _strokes(size, draw)
    coarse = rng.random((9, 9), dtype=np.float32)
    dryness = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    cover *= np.clip(0.35 + 0.9 * dryness + rng.normal(0, 0.08, (size, size)), 0.1, 1.2).astype(np.float32)
    absorption = PEN_ABSORPTION[int(rng.integers(len(PEN_ABSORPTION)))] * np.float32(rng.uniform(0.5, 1.1))
    image *= np.exp(-cover * absorption[:, None, None])


def paint_bubbles(image: np.ndarray, rng: np.random.Generator) -> None:
    """Air in the contact gel: rings with a bright rim, a dark inner line and a specular spot."""
    size = image.shape[-1]
    x, y = _coordinates(size)
    pixel = 1 / size
    corner = rng.uniform(0.1, 0.9, 2)
    for _ in range(int(rng.integers(1, 9))):
        radius = float(np.clip(rng.lognormal(np.log(0.022), 0.6), 0.010, 0.09))
        cx, cy = np.clip(corner + rng.normal(0, 0.22, 2), 0.0, 1.0).tolist()
        rows, cols = (slice(max(0, int((c - 2 * radius) * size) - 2), int((c + 2 * radius) * size) + 3) for c in (cy, cx))
        near, dx, dy = image[:, rows, cols], x[:, cols] - cx, y[rows] - cy  # a bubble changes nothing further away
        distance = np.hypot(dx, dy)
        line = max(0.8 * pixel, 0.10 * radius)
        shine = 0.55 + 0.45 * np.clip(-(dx + dy) / (1.4 * radius), -1, 1)  # lit from the upper left
        mix(near, [70, 50, 50], 0.35 * np.exp(-(((distance - radius + 1.8 * line) / line) ** 2)))
        mix(near, [250, 240, 240], 0.65 * shine * np.exp(-(((distance - radius) / line) ** 2)))
        mix(near, [250, 240, 238], 0.07 * (distance < radius))
        spot = np.hypot(dx + 0.42 * radius, dy + 0.42 * radius)
        mix(near, [255, 255, 255], 0.85 * np.exp(-((spot / max(0.9 * pixel, 0.13 * radius)) ** 2)))


def paint_patch(image: np.ndarray, rng: np.random.Generator) -> None:
    """One or two round coloured stickers that reach into the picture from its border, as on photographs of children."""
    size = image.shape[-1]
    x, y = _coordinates(size)
    for colour in rng.permutation(PATCH_COLOURS)[: rng.choice([1, 2], p=[0.75, 0.25])]:
        heading, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.12, 0.30)
        reach = 0.42 + radius * rng.uniform(0.55, 0.95)
        distance = np.hypot(x - 0.5 - reach * np.cos(heading), (y - 0.5 - reach * np.sin(heading)) * rng.uniform(0.85, 1.15))
        alpha = np.clip((radius - distance) * size / 1.5 + 0.5, 0, 1)
        shade = 1 + 0.12 * (x - 0.5) + 0.10 * (y - 0.5) + rng.normal(0, 0.015, (size, size))
        mix(image, shade * (colour + rng.normal(0, 12, 3))[:, None, None], 0.94 * alpha)
        halo = np.exp(-((np.maximum(distance - radius, 0) * size / 2.5) ** 2)) * (1 - alpha)
        image *= (1 - 0.20 * halo).astype(np.float32)  # its edge casts a shadow


def paint_vignette(image: np.ndarray, rng: np.random.Generator) -> None:
    """The dark rim of the dermoscope's round window."""
    x, y = _coordinates(image.shape[-1])
    cx, cy = 0.5 + rng.normal(0, 0.025, 2)
    distance = np.hypot(x - cx, y - cy)
    soft = rng.uniform(0.006, 0.03)
    alpha = 1 / (1 + np.exp(-np.clip((distance - rng.uniform(0.50, 0.62)) / soft, -30, 30)))
    mix(image, rng.uniform(4, 24) + rng.normal(0, 2, 3), alpha.astype(np.float32) * np.float32(rng.uniform(0.93, 1.0)))


# In the order in which they lie on the skin: what comes later covers what came before.
PAINTERS: dict[str, Callable[[np.ndarray, np.random.Generator], None]] = {
    "ink": paint_ink,
    "hair": paint_hair,
    "bubbles": paint_bubbles,
    "ruler": paint_ruler,
    "patch": paint_patch,
    "vignette": paint_vignette,
}
ARTEFACTS = tuple(PAINTERS)


def paint_artefact(name: str, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add one artefact to a picture in place; returns which pixels it changed by more than ``VISIBLE``, boolean ``(S, S)``."""
    before = image.copy()
    PAINTERS[name](image, rng)
    return np.abs(image - before).max(axis=0) > VISIBLE
