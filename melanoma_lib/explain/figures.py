"""Heatmaps drawn so that their sign survives, with the lesion's outline."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from scipy.ndimage import uniform_filter

from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.scores import energy_in_mask
from melanoma_lib.plotting import BLUE, VERMILLION, DescribedFigure, kit_figure, panel, with_alt_text

PANEL = 3.1  # inches wide
# Transparent where a map is zero, blue below, vermillion above: told apart under every colour blindness.
SIGNED = LinearSegmentedColormap.from_list(
    "signed",
    [to_rgba(BLUE, 0.9), to_rgba(BLUE, 0.5), to_rgba("white", 0.0), to_rgba(VERMILLION, 0.5), to_rgba(VERMILLION, 0.9)],
)


def signed_overlay(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """A signed map, shape ``(h, w)``, over the pale grey image, uint8 of shape ``(H, W, 3)``, as is what it returns."""
    colours = SIGNED((_shares(heatmap, image) + 1) / 2)  # (H, W, 4)
    grey, alpha = (image.mean(axis=2, keepdims=True) + 100) * (255 / 355), colours[..., 3:]
    return np.rint(grey * (1 - alpha) + 255 * colours[..., :3] * alpha).astype(np.uint8)


def _shares(heatmap: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The map enlarged to the image, as shares of its own largest magnitude; a map of zeros stays one."""
    return resize_heatmap(heatmap / (np.abs(heatmap).max() or 1.0), image.shape[:2])


def heatmap_figure(
    image: np.ndarray, maps: Mapping[str, np.ndarray], mask: np.ndarray | None = None, title: str = ""
) -> DescribedFigure:
    """The image, then each map over its grey version: vermillion where positive, blue where negative, nothing where zero.

    Each map is divided by its own largest magnitude, which is written above it: layers differ a hundredfold in size. Lines run
    at half of it, solid where positive, dashed where negative.

    Args:
        image: what the eye sees, uint8, shape ``(H, W, 3)``.
        maps: by layer, method or whatever tells them apart; signed, shape ``(h, w)``, enlarged bilinearly to the image.
        mask: lesion pixels, boolean, shape ``(S, T)``, to be outlined.
        title: above all.

    Raises:
        ValueError: if the image is not uint8 of three colours, or a map is not finite or of another shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected uint8 of shape (H, W, 3), got {image.dtype} of {image.shape}")
    for name, heatmap in maps.items():
        if np.ndim(heatmap) != 2 or not np.isfinite(heatmap).all():
            raise ValueError(f"map {name!r}: expected finite values of shape (h, w), one case, got {np.shape(heatmap)}")
    columns = min(4, len(maps) + 1)
    rows = math.ceil((len(maps) + 1) / columns)
    height = (PANEL * image.shape[0] / image.shape[1] + 0.7) * rows + 1.3 + 0.4 * bool(title)
    with kit_figure(PANEL * columns + 0.3, height) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.axis("off")
        panel(panels[0], image, "image", mask=mask)
        for axes, (name, heatmap) in zip(panels[1:], maps.items(), strict=False):
            _draw_map(axes, image, heatmap, f"{name}\n±{np.abs(heatmap).max():.2g}", mask)
        bar = figure.colorbar(
            ScalarMappable(Normalize(-1, 1), SIGNED), ax=panels.tolist(), location="bottom", aspect=40, shrink=0.7
        )
        lesion = "" if mask is None else "; white: the lesion"
        bar.set_label(f"share of the ± above each map;\nblack lines: half of it, dashed below zero{lesion}")
        figure.suptitle(title, fontsize=16, x=0.01, ha="left")
    said = [f"{title or 'Heatmaps'}: the image and maps drawn over it ({len(maps)})"]
    said += [] if mask is None else [f"the outlined lesion covers {mask.mean():.0%} of the image"]
    said += [f"{name}: {_told(heatmap, mask)}, lowest {heatmap.min() + 0.0:.2g}" for name, heatmap in maps.items()]
    return with_alt_text(figure, "; ".join(said) + ".")


def _told(heatmap: np.ndarray, mask: np.ndarray | None) -> str:
    """Where a map is highest, for those who do not see it, and how much of its positive energy is on the lesion."""
    if heatmap.max() <= 0:
        return "nothing positive"
    down, across = (np.array(np.unravel_index(heatmap.argmax(), heatmap.shape)) + 0.5) / heatmap.shape
    place = " and ".join([f"{across:.0%} from the left", f"{down:.0%} from the top"])
    energy = None if mask is None else energy_in_mask(resize_heatmap(heatmap, mask.shape), mask)
    on_lesion = "" if energy is None else f", {energy:.0%} of the positive energy on the lesion"
    return f"peak {heatmap.max():.2g} at {place}{on_lesion}"


def gallery_figure(
    errors: pd.DataFrame, pictures: Sequence[np.ndarray], maps: Sequence[np.ndarray] | None = None, title: str = ""
) -> DescribedFigure:
    """Wrong answers (rows of ``error``, ``image_id`` and ``risk``) as pictures, a line a kind of error; maps are drawn below."""
    kinds, lines = errors.groupby("error", sort=False).indices, 1 if maps is None else 2  # of each kind its places
    columns = max(map(len, kinds.values()))
    with kit_figure(2.1 * columns + 0.6, 2.5 * lines * len(kinds) + 0.6) as figure:
        grid = figure.subplots(lines * len(kinds), columns, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for row, (kind, places) in zip(range(0, len(grid), lines), kinds.items(), strict=True):
            for column, place in enumerate(places):
                case = errors.iloc[place]
                name = f"{kind}s, worst first" if column == 0 else ""
                panel(grid[row, column], pictures[place], f"{name}\n{case['image_id']}\nrisk {case['risk']:.0%}")
                if maps is not None:
                    _draw_map(grid[row + 1, column], pictures[place], maps[place])
        figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    told = [f"{one.error} {one.image_id} (risk {one.risk:.0%})" for one in errors.itertuples()]
    return with_alt_text(figure, f"Test images that the model got most wrong, the worst of each kind first: {', '.join(told)}.")


def _draw_map(axes: Axes, image: np.ndarray, heatmap: np.ndarray, title: str = "", mask: np.ndarray | None = None) -> None:
    panel(axes, signed_overlay(image, heatmap), title, mask=mask)
    # Lines would circle each speckle of an early layer, so they follow means over a 32nd of the image.
    shares = _shares(heatmap, image)
    means = uniform_filter(shares, [max(1, side // 32) for side in shares.shape])
    for level, style in ((-0.5, "dashed"), (0.5, "solid")):
        if means.min() < level < means.max():
            axes.contour(means, [level], colors="black", linestyles=style, linewidths=1.4, extent=(0, 1, 0, 1))
