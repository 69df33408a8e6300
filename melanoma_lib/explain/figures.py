"""Heatmaps drawn so that their sign survives, with the lesion's outline, and described in words."""

import math
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from torch.nn import functional

from melanoma_lib.evaluation.canvas import BLACK, BLUE, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.exam import energy_in_mask

MOST_MAPS = 11
PANEL = 3.1  # inches wide
LETTERS_PER_INCH = 9.5  # of the colour bar's label, on average
LEVELS = (0.25, 0.5, 0.75)  # of the scale, above and below zero, at which lines run
# Transparent where a map is zero, blue below, vermillion above: told apart under every colour blindness.
SIGNED = LinearSegmentedColormap.from_list(
    "signed",
    [to_rgba(BLUE, 0.9), to_rgba(BLUE, 0.5), to_rgba("white", 0.0), to_rgba(VERMILLION, 0.5), to_rgba(VERMILLION, 0.9)],
)


def heatmap_figure(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    mask: np.ndarray | None = None,
    title: str = "",
    raw: bool = False,
    contours: bool = False,
) -> DescribedFigure:
    """The image, then each map over its grey version: vermillion where positive, blue where negative, nothing where zero.

    Lines run at half the height of the scale, solid where positive, dashed where negative; they follow means over a
    32nd of the image. All maps share one scale of colours.

    Args:
        image: what the eye sees, uint8, shape ``(H, W, 3)``.
        maps: by layer, method or whatever tells them apart; signed, shape ``(h, w)``, enlarged bilinearly to the image.
        mask: lesion pixels, boolean, shape ``(H, W)``, to be outlined.
        title: above all.
        raw: draw the values as they are, all on one scale, which suits maps of one layer and method. Otherwise each map is
            divided by its own largest magnitude, which is written above it: layers differ a hundredfold in size.
        contours: draw each map a second time, as lines alone over the image in its colours: what lies beneath stays visible.

    Raises:
        ValueError: if there is no map or more than eleven; if an array is not of the type or shape it should be.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}")
    if not 1 <= len(maps) <= MOST_MAPS:
        raise ValueError(f"maps: expected one to {MOST_MAPS}, got {len(maps)}")
    for name, heatmap in maps.items():
        if np.ndim(heatmap) != 2 or not np.isfinite(heatmap).all():
            raise ValueError(f"map {name!r}: expected finite values of shape (h, w), one case, got {np.shape(heatmap)}")
    if mask is not None and (mask.dtype != bool or mask.shape != image.shape[:2] or not mask.any()):
        raise ValueError(
            f"mask: expected booleans of shape {image.shape[:2]}, some of them True, got {mask.dtype} of shape {mask.shape}"
        )
    sizes = {name: float(np.abs(heatmap).max()) for name, heatmap in maps.items()}
    largest = max(sizes.values())
    scales = {name: (largest if raw else size) or 1.0 for name, size in sizes.items()}  # a map of zeros stays one
    with _panels(image, len(maps), contours, bool(title)) as (figure, first, over, lines):
        first.imshow(image)
        first.set_title("image")
        for i, (name, heatmap) in enumerate(maps.items()):
            draw_overlay(over[i], image, heatmap / scales[name])
            over[i].set_title(name if raw else f"{name}\n±{scales[name]:.2g}")
            if contours:
                _lines(lines[i], image, heatmap / scales[name])
                lines[i].set_title(f"{name}, lines")
        for axes in [first, *over, *lines]:
            if mask is not None:
                outline = axes.contour(mask, levels=[0.5], colors="white", linewidths=2.4)
                outline.set_path_effects([patheffects.withStroke(linewidth=4.4, foreground=BLACK)])
        _legend(figure, largest if raw else None, mask is not None, contours)
        figure.suptitle(title, fontsize=16, x=0.01, ha="left")
    return describe(figure, _words(title, maps, mask, contours))


@contextmanager
def _panels(
    image: np.ndarray, n: int, contours: bool, titled: bool
) -> Iterator[tuple[DescribedFigure, Axes, list[Axes], list[Axes]]]:
    """A figure with a panel for the image and one for each map, with or without another one for its lines.

    The lines of several maps stand below the maps, those of a single one beside it.
    """
    beside = contours and n == 1
    columns = 3 if beside else min(4, n + 1)
    storeys = 2 if contours and not beside else 1
    rows = math.ceil((n + 1) / columns) * storeys
    height = PANEL * image.shape[0] / image.shape[1] + 0.7
    with kit_figure(PANEL * columns + 0.3, height * rows + 1.3 + 0.3 * contours + 0.4 * titled) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        over = [grid[i // columns * storeys, i % columns] for i in range(n + 1)]
        below = [grid[0, 2]] if beside else [grid[i // columns * storeys + 1, i % columns] for i in range(1, n + 1) if contours]
        yield figure, over[0], over[1:], below


def draw_overlay(axes: Axes, image: np.ndarray, heatmap: np.ndarray) -> None:
    """The map, within -1 and 1, over the grey image, which is paler than the colours."""
    heatmap = resize_heatmap(heatmap, image.shape[:2])
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=-100, vmax=255)
    axes.imshow(heatmap, cmap=SIGNED, vmin=-1, vmax=1)
    heatmap = _even(heatmap)
    for level, style in ((-0.5, "dashed"), (0.5, "solid")):
        if heatmap.min() < level < heatmap.max():
            axes.contour(heatmap, levels=[level], colors=BLACK, linestyles=style, linewidths=1.4)


def _lines(axes: Axes, image: np.ndarray, heatmap: np.ndarray) -> None:
    """The map, within -1 and 1, as lines over the image in its colours; the stronger, the thicker."""
    heatmap = _even(resize_heatmap(heatmap, image.shape[:2]))
    axes.imshow(image)
    for level, width in zip(LEVELS, (1.4, 2.2, 3.0), strict=True):
        for sign, color, style in ((-1, BLUE, "dashed"), (1, VERMILLION, "solid")):
            if heatmap.min() < sign * level < heatmap.max():
                drawn = axes.contour(heatmap, levels=[sign * level], colors=color, linestyles=style, linewidths=width)
                drawn.set_path_effects([patheffects.withStroke(linewidth=width + 1.8, foreground="white")])  # tells it from skin


def _even(heatmap: np.ndarray) -> np.ndarray:
    """The map evened out for lines, which would circle each speckle of an early layer, at most 32 means across."""
    height, width = (max(1, side // 32) for side in heatmap.shape)
    means = functional.avg_pool2d(torch.from_numpy(heatmap)[None], (height, width))[0].numpy()
    return resize_heatmap(means, heatmap.shape)


def _legend(figure: DescribedFigure, limit: float | None, outlined: bool, contours: bool) -> None:
    """The colour bar, in the maps' own values up to a limit or as shares of each map's own, and what the lines mean."""
    top = limit or 1.0
    scale = ScalarMappable(Normalize(-top, top), SIGNED)
    bar = figure.colorbar(scale, ax=figure.axes, location="bottom", aspect=40, shrink=0.7)
    shares = (-1, -0.5, 0, 0.5, 1)
    bar.set_ticks([share * top for share in shares], labels=[f"{share * top:.2g}" if limit else f"{share:g}" for share in shares])
    unit = "value" if limit else "value, as a share of the ± above each map"
    lesion = "; white: outline of the lesion" if outlined else ""
    levels = ", ".join(f"{level:.0%}" for level in LEVELS)
    also = [f"lines alone: {levels} of the scale, blue and dashed below zero"] if contours else []
    said = [unit, f"black lines: half of the scale, dashed below zero{lesion}", *also]
    room = int(figure.get_figwidth() * LETTERS_PER_INCH)  # a narrow figure would cut a long line off at both ends
    bar.set_label("\n".join(line for each in said for line in textwrap.wrap(each, room)))


def _words(title: str, maps: Mapping[str, np.ndarray], mask: np.ndarray | None, contours: bool) -> str:
    """What the figure shows, map by map."""
    drawn = "drawn over it in colour and again as lines" if contours else "drawn over it"
    said = [f"{title or 'Heatmaps'}: the image and {len(maps)} map{'s' * (len(maps) > 1)} {drawn}."]
    if mask is not None:
        said.append(f"The outlined lesion covers {mask.mean():.0%} of the image.")
    for name, heatmap in maps.items():
        if heatmap.max() <= 0:
            lowest = heatmap.min()
            said.append(f"{name}: nothing positive, lowest {lowest:.2g}." if lowest else f"{name}: zero everywhere.")
            continue
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        across, down = (column + 0.5) / heatmap.shape[1], (row + 0.5) / heatmap.shape[0]
        text = f"{name}: peak {heatmap.max():.2g} at {across:.0%} from the left and {down:.0%} from the top"
        if mask is not None:
            text += f", {energy_in_mask(resize_heatmap(heatmap, mask.shape), mask):.0%} of the positive energy on the lesion"
        said.append(f"{text}; lowest {heatmap.min():.2g}.")
    return " ".join(said)
