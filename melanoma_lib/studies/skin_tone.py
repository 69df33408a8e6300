"""A skin-tone proxy from the skin around a lesion, and how far it can be trusted.

The individual typology angle (ITA) was made for a colorimeter pressed on the skin. A photograph has been through a lamp, a lens,
a camera's white balance and perhaps a film; what is measured here is the picture's colour, of which the skin is one cause among
several. The functions below measure that too.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation

from melanoma_lib.data.images import read_square
from melanoma_lib.utils import progress_bar

# Lower ends in degrees; Chardon et al. 1991 and Del Bino and Bernerd 2013, as Kinyanjui et al. 2019 used them on HAM10000.
TONES = {"very light": 55.0, "light": 41.0, "intermediate": 28.0, "tan": 10.0, "brown": -30.0, "dark": -np.inf}
SIDE = 64  # pixels at which skin is measured: colour needs no detail
MARGIN = 0.04  # of the side, left free around the lesion, whose pigment fades outward
FRAME = 0.12  # of the side, the border that stands for skin where nobody outlined the lesion
BLACK, WHITE = 40, 250  # grey levels: the dermoscope's dark rim and hairs; specular light
MIN_SHARE = 0.02  # of the picture that must be skin for a measurement
LIGHTS = {  # factors on linear light: red, green, blue
    "10% darker": (0.9, 0.9, 0.9), "10% brighter": (1.1, 1.1, 1.1),
    "5% warmer": (1.05, 1.0, 0.95), "5% cooler": (0.95, 1.0, 1.05),
}  # fmt: skip
WHITE_D65 = np.array([0.95047, 1.0, 1.08883])
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


def srgb_to_lab(pixels: ArrayLike) -> NDArray[np.float64]:
    """CIE 1976 L*a*b* of sRGB pixels under daylight (D65).

    Args:
        pixels: in [0, 255], shape ``(..., 3)``.

    Returns:
        L in [0, 100], a and b, shape ``(..., 3)``.

    Source: IEC 61966-2-1 for sRGB, CIE 15:2004 for L*a*b*.
    """
    return _lab(linear_light(pixels))


def linear_light(pixels: ArrayLike) -> NDArray[np.float64]:
    """Light that sRGB pixels stand for, which a lamp multiplies; their code bends it.

    Args:
        pixels: in [0, 255], any shape.

    Returns:
        In [0, 1], the same shape.

    Source: IEC 61966-2-1.
    """
    coded = np.asarray(pixels, dtype=np.float64) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def _lab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    share = linear @ TO_XYZ.T / WHITE_D65
    f = np.where(share > (6 / 29) ** 3, np.cbrt(share), share * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def typology_angle(lightness: ArrayLike, yellow: ArrayLike) -> NDArray[np.float64]:
    """Individual typology angle ``arctan((L - 50) / b)`` in degrees; the lighter the skin the higher.

    Args:
        lightness: L*, any shape.
        yellow: b*, the same shape.

    Returns:
        In (-90, 90); NaN where b is not positive: that is no colour of skin but a cast of the light.

    Source: Chardon et al. 1991, "Skin colour typology and suntanning pathways".
    """
    lightness, yellow = np.asarray(lightness, dtype=np.float64), np.asarray(yellow, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(yellow > 0, np.degrees(np.arctan((lightness - 50) / yellow)), np.nan)


def tone_of(angles: ArrayLike) -> pd.Series:
    """Name of each angle's group, a text categorical from very light to dark; NaN where the angle is unknown."""
    edges = [-np.inf, *list(TONES.values())[-2::-1], np.inf]
    named = pd.cut(np.asarray(angles, dtype=np.float64), edges, labels=list(TONES)[::-1])  # (low, high]
    return pd.Series(named).cat.reorder_categories(list(TONES))


def skin_mask(image: NDArray[np.uint8], lesion: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Pixels that are skin, as far as one can tell.

    Args:
        image: RGB, shape ``(S, S, 3)``.
        lesion: its mask, boolean, shape ``(S, S)``; None takes the border of the picture.

    Returns:
        Boolean, shape ``(S, S)``: off the lesion by ``MARGIN``, neither black nor blown out.
    """
    side = len(image)
    if lesion is None:
        place, width = np.ones((side, side), bool), round(FRAME * side)
        place[width:-width, width:-width] = False
    else:
        place = ~binary_dilation(lesion, iterations=max(1, round(MARGIN * side))) if lesion.any() else np.ones((side, side), bool)
    return place & (image.max(axis=-1) >= BLACK) & (image.min(axis=-1) <= WHITE)


def skin_colour(image: NDArray[np.uint8], lesion: NDArray[np.bool_] | None, gain: Sequence[float] = (1, 1, 1)) -> tuple:
    """Median L* and b* of the skin; NaN where less than ``MIN_SHARE`` of the picture is skin.

    Args:
        image: as for :func:`skin_mask`.
        lesion: as for :func:`skin_mask`.
        gain: factor on the linear light of red, green, blue: another lamp or white balance in front of the same skin. What then
            exceeds white is cut off, as a sensor does.
    """
    skin = skin_mask(image, lesion)
    if skin.mean() < MIN_SHARE:
        return np.nan, np.nan
    lab = _lab(np.clip(linear_light(image[skin]) * np.asarray(gain, dtype=np.float64), 0, 1))  # (K, 3)
    return float(np.median(lab[:, 0])), float(np.median(lab[:, 2]))


def measure_tones(
    cases: pd.DataFrame, lights: Mapping[str, Sequence[float]] = MappingProxyType({}), show_progress: bool = False
) -> pd.DataFrame:
    """Typology angle of every case.

    Args:
        cases: case table with image files; ``mask_path`` where there is one.
        lights: factors on the linear light of red, green and blue by name, such as ``LIGHTS``.
        show_progress: draw a bar.

    Returns:
        On the index of ``cases``, degrees: ``ita``, off the outlined lesion, or from the border where there is no outline;
        ``frame``, always from the border; and for each light what ``ita`` would be under it. NaN where it cannot be told.

    Raises:
        CorruptImageError: if a file cannot be read.
    """
    columns = ["ita", "frame", *lights]

    def measure(files: tuple) -> list[tuple]:
        image = read_square(files[0], SIDE)
        lesion = read_square(files[1], SIDE)[..., 0] > 127 if isinstance(files[1], str) else None
        lit = [skin_colour(image, lesion, gain) for gain in lights.values()]
        return [skin_colour(image, lesion), skin_colour(image, None), *lit]

    files = list(zip(cases["image_path"], cases["mask_path"], strict=True))
    with ThreadPoolExecutor(cpu_count()) as pool, progress_bar("measuring skin", len(files), show_progress) as advance:
        colours = [_then(found, advance) for found in pool.map(measure, files)]
    lab = np.array(colours, dtype=np.float64).reshape(len(files), len(columns), 2)
    return pd.DataFrame(typology_angle(lab[..., 0], lab[..., 1]), index=cases.index, columns=columns)


def _then(value: list, advance: Callable[[], None]) -> list:
    advance()
    return value


def repeatability(angles: ArrayLike, lesions: ArrayLike) -> dict[str, float]:
    """How well photographs of one lesion, hence of one person's skin, agree.

    Args:
        angles: degrees, shape ``(N,)``; NaN is left out.
        lesions: of each photograph, shape ``(N,)``; a lesion photographed once says nothing here.

    Returns:
        ``lesions`` and ``photographs`` that count; ``sd_within`` and ``sd_total`` in degrees; ``icc``, the intraclass correlation
        (1,1) of Shrout and Fleiss (1979) for groups of unequal size, 1 where photographs of a lesion agree, 0 where they agree no
        more than any two; ``other_tone``, the share of photographs whose tone group is not that of another, random photograph of
        the same lesion. NaN where no lesion was photographed twice.
    """
    table = pd.DataFrame({"angle": np.asarray(angles, dtype=np.float64), "lesion": np.asarray(lesions)}).dropna()
    table = table[table.groupby("lesion")["angle"].transform("size") > 1].reset_index(drop=True)
    if table.empty:
        return {"lesions": 0, "photographs": 0} | dict.fromkeys(("sd_within", "sd_total", "icc", "other_tone"), np.nan)
    grouped = table.groupby("lesion")["angle"]
    sizes, n, k = grouped.size(), len(table), table["lesion"].nunique()
    within = ((table["angle"] - grouped.transform("mean")) ** 2).sum() / (n - k)
    between = (sizes * (grouped.mean() - table["angle"].mean()) ** 2).sum() / (k - 1) if k > 1 else np.nan
    size = (n - (sizes**2).sum() / n) / (k - 1) if k > 1 else np.nan
    tones = tone_of(table["angle"])
    alike = table.assign(tone=tones).groupby(["lesion", "tone"], observed=True)["angle"].transform("size")
    other = 1 - (alike - 1) / (grouped.transform("size") - 1)
    return {
        "lesions": k,
        "photographs": n,
        "sd_within": float(np.sqrt(within)),
        "sd_total": float(table["angle"].std()),
        "icc": float((between - within) / (between + (size - 1) * within)),
        "other_tone": float(other.mean()),
    }


def tone_by_source(angles: ArrayLike, sources: ArrayLike) -> tuple[list[dict], float]:
    """Angles of each source: how many images in all and with an angle, median, quartiles, tone shares; and eta squared.

    Eta squared is the share of the variance of the angle that lies between sources: what the camera and its patients explain
    together, which no photograph can tell apart.
    """
    table = pd.DataFrame({"angle": np.asarray(angles, dtype=np.float64), "source": np.asarray(sources)})
    everybody, table, rows = table["source"].value_counts(), table.dropna(), []
    for source, own in table.groupby("source")["angle"]:
        low, median, high = np.quantile(own, [0.25, 0.5, 0.75])
        shares = tone_of(own).value_counts(normalize=True)
        facts = {
            "source": source,
            "all": int(everybody[source]),
            "images": len(own),
            "median": median,
            "quartile_1": low,
            "quartile_3": high,
        }
        rows.append(facts | {"tones": {tone: float(shares[tone]) for tone in TONES}})
    spread = ((table["angle"] - table["angle"].mean()) ** 2).sum()
    explained = ((table.groupby("source")["angle"].transform("mean") - table["angle"].mean()) ** 2).sum()
    return rows, float(explained / spread) if spread > 0 else np.nan


def light_changes(tones: pd.DataFrame) -> list[dict]:
    """What another lamp or white balance does to the measurement: median shift in degrees and share of cases that change group.

    Args:
        tones: from :func:`measure_tones`, with lights.
    """
    before, rows = tone_of(tones["ita"]), []
    for light in tones.columns.drop(["ita", "frame"]):
        known = (tones["ita"].notna() & tones[light].notna()).to_numpy()
        moved = tone_of(tones[light])[known].astype(str) != before[known].astype(str)
        shift = (tones[light] - tones["ita"])[known]
        rows.append({"light": light, "images": int(known.sum()), "shift": shift.median(), "other_tone": moved.mean()})
    return rows
