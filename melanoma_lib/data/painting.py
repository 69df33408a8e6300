"""Paint dermoscopic skin and lesions from their latent factors.

Colour follows a small model of optics (Claridge et al. 2003): light passes layers of skin, each pigment absorbs by Beer-Lambert,
so a colour is ``light * exp(-sum_i amount_i * absorption_i)``. Only veil, scar and scale, which scatter, are mixed in as paint.
Lengths are millimetres on the skin; the lesion's own frame has its centre at (0, 0) and its mean radius at 1.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from melanoma_lib.data.textures import TextureBank

# Absorption of red, green, blue by one unit of pigment; shallow melanin looks brown, clumped melanin black, deep melanin blue
BROWN = np.array([0.40, 0.95, 1.18], np.float32)
BLACK = np.array([1.15, 1.20, 1.18], np.float32)
BLOOD = np.array([0.10, 0.90, 0.62], np.float32)
BLUE = np.array([1.10, 0.85, 0.62], np.float32)
PIGMENTS = np.stack([BROWN, BLACK, BLOOD, BLUE])

VEIL_PAINT = np.array([0.50, 0.58, 0.70], np.float32)
SCAR_PAINT = np.array([0.98, 0.90, 0.90], np.float32)
SCALE_PAINT = np.array([1.02, 0.99, 0.97], np.float32)
HORN_PAINT = np.array([0.95, 0.86, 0.66], np.float32)

ANGLES = 1024  # resolution of the outline's table


@dataclass(frozen=True)
class Lesion:
    """What a lesion looks like, as far as its diagnosis depends on it.

    Attributes:
        family: ``melanocytic``, ``keratosis``, ``vascular`` or ``pink``; sets the pigments it is made of.
        asymmetry: 0 concentric to 1 one-sided, in outline and in pigment.
        border: 0 smooth outline to 1 notched and ragged.
        colours: number of pigment colours, 1 to 4.
        veil: opacity of the blue-white veil, 0 (none) to 1.
        regression: opacity of white scar with grey peppering, 0 (none) to 1.
        streaks: strength of radial streaks at the edge, 0 (none) to 1.
        network: 0 fine and regular to 1 coarse, broken and dark.
        globules: 0 fine and even to 1 clumped and uneven.
    """

    family: str
    asymmetry: float
    border: float
    colours: int
    veil: float
    regression: float
    streaks: float
    network: float
    globules: float


@dataclass(frozen=True)
class Skin:
    """Patient's skin: ``tone`` is its melanin (about 0.05 pale to 1.4 dark), ``blood`` its redness, ``freckles`` 0 to 1."""

    tone: float
    blood: float
    freckles: float


@dataclass(frozen=True)
class Camera:
    """One way to take the picture.

    Attributes:
        white: colour of skin of the palest tone, RGB in [0, 255].
        spread: standard deviation of ``white`` between pictures.
        view_mm: usual width of the field of view.
        blur: Gaussian blur in pixels of a 128-pixel picture.
        contrast: exponent of the tone curve.
        falloff: loss of light from centre to corner.
        glare: density of small specular highlights.
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
    "contact_pink": Camera((232, 158, 163), 10, 11.0, 0.75, 1.0, 0.08, 0.10, 1.0),
    "polarised_cool": Camera((205, 178, 192), 14, 14.0, 0.30, 1.05, 0.25, 0.0, 1.6),
    "wide_field": Camera((212, 182, 184), 15, 12.0, 0.35, 0.95, 0.15, 0.05, 1.6),
    "scanned_slide": Camera((232, 184, 186), 14, 10.0, 0.45, 1.25, 0.10, 1.0, 2.2),
}


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between (either order)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(image: np.ndarray, paint: np.ndarray, alpha: np.ndarray) -> None:
    """Lay paint over the image in place; ``image`` ``(3, H, W)``, ``paint`` ``(3,)``, ``alpha`` ``(H, W)``."""
    image += alpha * (paint[:, None, None] - image)


def outline(lesion: Lesion, rng: np.random.Generator) -> np.ndarray:
    """Radius of the lesion's edge for ``ANGLES`` directions, mean about 1."""
    theta = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    order = np.arange(1, 22)
    amplitude = np.zeros(len(order))
    amplitude[1] = rng.uniform(0.04, 0.16)  # ellipse: elongated, still symmetric
    amplitude[[0, 2, 4]] += lesion.asymmetry * rng.uniform(0.5, 1.0, 3) * (0.16, 0.16, 0.08)
    amplitude[3:] += (0.006 + 0.055 * lesion.border * rng.uniform(0.3, 1, len(order) - 3)) * (4 / order[3:]) ** 0.45
    phase = rng.uniform(0, 2 * np.pi, len(order))
    return np.maximum(1 + (amplitude[:, None] * np.cos(np.outer(order, theta) + phase[:, None])).sum(0), 0.3)


def streak_table(lesion: Lesion, rng: np.random.Generator) -> np.ndarray:
    """How far streaks reach beyond the edge for ``ANGLES`` directions, in radii."""
    theta = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    count = int(rng.integers(16, 26))
    centre = rng.uniform(-np.pi, np.pi) + np.linspace(-1, 1, count) * rng.uniform(1.2, 3.0)  # a sector or the whole rim
    gap = np.angle(np.exp(1j * (theta - centre[:, None] - rng.normal(0, 0.05, (count, 1)))))
    length = rng.uniform(0.4, 1.0, (count, 1)) * lesion.streaks
    return (length * np.exp(-((gap / rng.uniform(0.03, 0.06, (count, 1))) ** 2))).max(0)


def paint_skin(skin: Skin, tex: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Pigment amounts of healthy skin, ``(4, H, W)`` in the order of ``PIGMENTS``."""
    amounts = np.zeros((len(PIGMENTS), *tex["cloud"].shape), np.float32)
    patchy = rng.uniform(0.02, 0.09)
    amounts[0] = skin.tone * (1 + 0.10 * tex["cloud"] + 0.08 * tex["mottle"] + 0.10 * tex["furrow"])
    amounts[0] += 0.02 * tex["mottle"] + rng.uniform(0.0, 0.05) * tex["furrow"] + 0.012 * tex["grain"]
    amounts[0] += skin.freckles * 0.45 * smoothstep(tex["cloud"] + 0.6 * tex["mottle"], 1.3, 2.6)
    amounts[2] = skin.blood * (1 + 2.2 * patchy * tex["drift"] + 2.0 * patchy * tex["mottle"])
    amounts[2] += rng.uniform(0.0, 0.25) * tex["vessel"] + 0.02 * tex["grain"]
    return amounts


def paint_lesion(
    lesion: Lesion, amounts: np.ndarray, tex: dict[str, np.ndarray], u: np.ndarray, v: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Add a lesion's pigment to the skin's.

    Args:
        lesion: its latent factors.
        amounts: pigment amounts of the skin, ``(4, H, W)``; changed in place.
        tex: texture fields at the same points.
        u: first lesion coordinate, ``(H, W)``.
        v: second lesion coordinate, ``(H, W)``.
        rng: the lesion's generator (the same for all its photographs).

    Returns:
        The lesion mask, boolean ``(H, W)``, and ``(paint, alpha)`` layers to mix in after absorption.
    """
    cloud, drift, mottle, grain = tex["cloud"], tex["drift"], tex["mottle"], tex["grain"]
    radius = np.sqrt(u * u + v * v)
    sector = ((np.arctan2(v, u) * (ANGLES / (2 * np.pi))).astype(np.int32)) % ANGLES
    edge = outline(lesion, rng).astype(np.float32)
    reach = streak_table(lesion, rng).astype(np.float32)
    depth = 1 - radius / edge[sector]  # 1 in the centre, 0 on the edge, negative outside
    depth += (0.035 + 0.09 * lesion.border) * cloud + (0.012 + 0.045 * lesion.border) * mottle

    softness = rng.uniform(0.06, 0.20)
    body = smoothstep(depth, -softness, softness)
    inside = smoothstep(depth, -0.05, 0.25)

    # one-sidedness: pigment leans towards a direction, colour zones leave the centre
    lean = rng.uniform(0, 2 * np.pi)
    gradient = np.cos(lean) * u + np.sin(lean) * v
    strength = rng.uniform(0.45, 1.0) * body
    profile = 1 + rng.uniform(-0.15, 0.35) * depth + 0.75 * lesion.asymmetry * gradient
    brown = np.clip(strength * profile * (1 + 0.16 * cloud + 0.12 * mottle), 0, None)
    black, blood, blue = np.zeros_like(brown), rng.uniform(0.0, 0.25) * body, np.zeros_like(brown)
    layers: list[tuple[np.ndarray, np.ndarray]] = []

    def zone(size: float, spread: float) -> np.ndarray:
        angle, distance = rng.uniform(0, 2 * np.pi), spread * rng.uniform(0.6, 1.0)
        gap = np.hypot(u - distance * np.cos(angle), v - distance * np.sin(angle))
        return smoothstep(gap / size - 0.22 * cloud - 0.12 * mottle, 1.15, 0.75) * inside

    spread = 0.12 + 0.60 * lesion.asymmetry
    for tone in rng.permutation(3)[: lesion.colours - 1]:
        where = zone(rng.uniform(0.40, 0.60), spread)
        if tone == 0:
            black += where * rng.uniform(0.9, 1.5)
        elif tone == 1:
            blood += where * rng.uniform(0.6, 0.9)
            brown *= 1 - 0.45 * where
        else:
            brown *= 1 - 0.65 * where

    if lesion.family == "melanocytic":
        net = (1 - lesion.network) * (tex["mesh"] - 0.35) + lesion.network * 1.5 * (tex["coarse_mesh"] - 0.35)
        patches = smoothstep(drift, -1.2 + 1.4 * lesion.network, 0.3 + 0.8 * lesion.network)
        brown *= np.clip(1 + rng.uniform(0.5, 1.0) * net * patches, 0.1, None)
        black += 0.45 * lesion.network * tex["coarse_mesh"] * patches * body
        black += inside * ((1 - lesion.globules) * 0.15 * tex["dots"] + lesion.globules * 0.8 * tex["clods"])
    elif lesion.family == "keratosis":
        brown *= 0.55 + 0.9 * tex["cobble"] + 0.10 * mottle
        black += inside * (0.25 + 0.75 * lesion.globules) * tex["clods"] * (drift > 0)
        layers.append((HORN_PAINT, 0.65 * inside * tex["dots"] * smoothstep(drift, 0.1, -0.6)))
    elif lesion.family == "vascular":
        blood += body * (0.6 + 1.2 * tex["cobble"])
        blue += body * rng.uniform(0.0, 0.5) * tex["cobble"]
        brown *= 0.12
    else:
        blood += body * (0.35 + 0.15 * mottle) + inside * 0.8 * tex["vessel"]
        brown *= rng.uniform(0.15, 0.45)
        layers.append((SCALE_PAINT, 0.5 * inside * smoothstep(mottle + 0.5 * grain, 1.2, 2.2)))

    if lesion.streaks > 0:
        ray = smoothstep(radius - edge[sector] - 0.38 * reach[sector], 0.05, -0.05) * smoothstep(radius, 0.55, 0.85)
        black += ray * reach[sector] * 0.9
        brown += ray * reach[sector] * 0.8
    if lesion.regression > 0:
        where = zone(rng.uniform(0.45, 0.65), 0.35 + 0.3 * lesion.asymmetry) * lesion.regression
        brown *= 1 - 0.85 * where
        black *= 1 - 0.9 * where
        blue += where * 0.9 * tex["dots"] * (cloud > -0.3)
        layers.append((SCAR_PAINT, 0.55 * where))
    if lesion.veil > 0:
        where = zone(rng.uniform(0.45, 0.65), 0.4 * spread) * lesion.veil
        blue += where * 0.8
        layers.append((VEIL_PAINT, 0.62 * where * (0.85 + 0.15 * mottle)))

    amounts[0] += brown * (1 + 0.10 * grain)
    amounts[1] += black
    amounts[2] += blood
    amounts[3] += blue
    return depth > 0, layers


def expose(
    amounts: np.ndarray,
    layers: list[tuple[np.ndarray, np.ndarray]],
    tex: dict[str, np.ndarray],
    camera: Camera,
    rng: np.random.Generator,
) -> np.ndarray:
    """Photograph pigment amounts with a camera.

    Args:
        amounts: ``(4, H, W)``.
        layers: ``(paint, alpha)`` pairs laid over the absorbed light.
        tex: texture fields, for glare.
        camera: acquisition style.
        rng: the photograph's generator.

    Returns:
        float32 ``(H, W, 3)``, nominally in [0, 255], without sensor noise.
    """
    n, size = amounts.shape[0], amounts.shape[1]
    image = np.exp(-(PIGMENTS.T @ amounts.reshape(n, -1))).reshape(3, size, -1)  # (3, H, W)
    for paint, alpha in layers:
        mix(image, paint, alpha)
    if camera.glare > 0:
        mix(image, SCALE_PAINT, camera.glare * 0.9 * smoothstep(tex["grain"] + 0.5 * tex["drift"], 2.7, 3.2))
    white = np.array(camera.white, np.float32) * np.exp(rng.normal(0, camera.spread / 230)) + rng.normal(0, camera.spread / 2, 3)
    x = np.linspace(-1, 1, size, dtype=np.float32)
    tilt = rng.normal(0, 0.05, 2)
    light = 1 + tilt[0] * x[None, :] + tilt[1] * x[:, None] - camera.falloff * (x[None, :] ** 2 + x[:, None] ** 2) * 0.5
    image = np.maximum(image, 1e-4) ** np.float32(camera.contrast * np.exp(rng.normal(0, 0.08)))
    haze = rng.uniform(0.02, 0.07)  # light scattered in the lens keeps black from being black
    image = (haze + (1 - haze) * image) * light * white.astype(np.float32)[:, None, None] * np.float32(1.12)
    sigma = camera.blur * size / 128 * np.exp(rng.normal(0, 0.3))
    return np.ascontiguousarray(ndimage.gaussian_filter(image, (0, sigma, sigma), truncate=2.5).transpose(1, 2, 0))


def paint_case(
    lesion: Lesion,
    skin: Skin,
    camera: Camera,
    bank: TextureBank,
    lesion_rng: np.random.Generator,
    photo_rng: np.random.Generator,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One photograph of one lesion, before artefacts and sensor noise.

    Args:
        lesion: latent factors.
        skin: the patient's skin.
        camera: acquisition style.
        bank: textures.
        lesion_rng: generator of all that the lesion's photographs share.
        photo_rng: generator of rotation, zoom, offset and light.
        size: side of the square picture in pixels.

    Returns:
        The picture, float32 ``(size, size, 3)`` nominally in [0, 255], and the lesion mask, boolean ``(size, size)``.
    """
    radius_mm = np.clip(lesion_rng.lognormal(np.log(3.0), 0.3), 1.5, 6.0)
    origin = lesion_rng.uniform(0, 51.2, 2)
    view = np.clip(camera.view_mm * photo_rng.lognormal(0, 0.15), radius_mm / 0.48, radius_mm / 0.17)
    turn = photo_rng.uniform(0, 2 * np.pi)
    shift = photo_rng.normal(0, 0.045, 2) * view
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * view
    x, y = axis[None, :] - shift[0], axis[:, None] - shift[1]
    along, across = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    along, across = along.astype(np.float32), across.astype(np.float32)
    tex = bank.sample(along + origin[0], across + origin[1], view / size)
    amounts = paint_skin(skin, tex, lesion_rng)
    mask, layers = paint_lesion(lesion, amounts, tex, along / radius_mm, across / radius_mm, lesion_rng)
    return expose(amounts, layers, tex, camera, photo_rng), mask
