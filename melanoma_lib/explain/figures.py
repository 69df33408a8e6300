"""Heatmaps drawn so that their sign survives, with the lesion's outline."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from torch.nn import functional

from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.scores import energy_in_mask
from melanoma_lib.plotting import BLACK, BLUE, VERMILLION, DescribedFigure, kit_figure, with_alt_text

MOST_MAPS = 11
PANEL = 3.1  # inches wide
LETTERS_PER_INCH = 9.5  # of the colour bar's label, on average
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
    columns = min(4, len(maps) + 1)
    rows = math.ceil((len(maps) + 1) / columns)
    height = (PANEL * image.shape[0] / image.shape[1] + 0.7) * rows + 1.3 + 0.4 * bool(title)
    with kit_figure(PANEL * columns + 0.3, height) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.axis("off")
        panels[0].imshow(image)
        panels[0].set_title("image")
        for axes, (name, heatmap) in zip(panels[1:], maps.items(), strict=False):
            draw_overlay(axes, image, heatmap / scales[name])
            axes.set_title(name if raw else f"{name}\n±{scales[name]:.2g}")
        for axes in panels[: len(maps) + 1]:
            draw_outline(axes, mask)
        _legend(figure, largest if raw else None, mask is not None)
        figure.suptitle(title, fontsize=16, x=0.01, ha="left")
    peaks = peak_table(maps, mask)
    return with_alt_text(
        figure,
        f"{title or 'Heatmaps'}: the image and {len(maps)} map{'s' * (len(maps) > 1)} drawn over it"
        + ("" if mask is None else f"; the outlined lesion covers {mask.mean():.0%} of the image")
        + "".join(
            f"; {name}: nothing positive, lowest {row.lowest:.2g}" if row.highest <= 0 else
            f"; {name}: peak {row.highest:.2g} at {row.across:.0%} from the left and {row.down:.0%} from the top"
            + ("" if mask is None else f", {row.on_lesion:.0%} of the positive energy on the lesion")
            + f", lowest {row.lowest:.2g}"
            for name, row in peaks.iterrows()
        ) + ".",
    )  # fmt: skip


def gallery_figure(
    errors: pd.DataFrame, pictures: Sequence[np.ndarray], maps: Sequence[np.ndarray] | None = None, title: str = ""
) -> DescribedFigure:
    """Wrong answers as pictures, a line a kind of ``error``, the worst first.

    Args:
        errors: ``error``, ``image_id`` and ``risk``, a row a picture.
        pictures: uint8, shape ``(H, W, 3)`` each.
        maps: signed, within -1 and 1, shape ``(h, w)`` each, drawn below the pictures.
        title: above all.
    """
    parts, lines = errors.groupby("error", sort=False).indices, 1 if maps is None else 2  # of each kind its places
    columns = max(map(len, parts.values()))
    with kit_figure(2.1 * columns + 0.6, 2.5 * lines * len(parts) + 0.6) as figure:
        grid = figure.subplots(lines * len(parts), columns, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for row, (kind, places) in enumerate(parts.items()):
            for column, place in enumerate(places):
                axes, case = grid[lines * row, column], errors.iloc[place]
                axes.imshow(pictures[place])
                name = f"{kind}s, worst first" if column == 0 else ""
                axes.set_title(f"{name}\n{case['image_id']}\nrisk {case['risk']:.0%}", fontsize=9)
                if maps is not None:
                    draw_overlay(grid[lines * row + 1, column], pictures[place], maps[place])
        figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    told = [f"{one.error} {one.image_id} (risk {one.risk:.0%})" for one in errors.itertuples()]
    return with_alt_text(figure, f"Test images that the model got most wrong, the worst of each kind first: {', '.join(told)}.")


def draw_overlay(axes: Axes, image: np.ndarray, heatmap: np.ndarray) -> None:
    """The map, within -1 and 1, over the grey image, which is paler than the colours."""
    heatmap = resize_heatmap(heatmap, image.shape[:2])
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=-100, vmax=255)
    axes.imshow(heatmap, cmap=SIGNED, vmin=-1, vmax=1)
    # Lines would circle each speckle of an early layer, so they follow means, at most 32 across.
    height, width = (max(1, side // 32) for side in heatmap.shape)
    means = functional.avg_pool2d(torch.from_numpy(heatmap)[None], (height, width))[0].numpy()
    means = resize_heatmap(means, heatmap.shape)
    for level, style in ((-0.5, "dashed"), (0.5, "solid")):
        if means.min() < level < means.max():
            axes.contour(means, levels=[level], colors=BLACK, linestyles=style, linewidths=1.4)


def draw_outline(axes: Axes, mask: np.ndarray | None) -> None:
    """The lesion's outline in white, where there is one."""
    if mask is not None and mask.any() and not mask.all():
        outline = axes.contour(mask, levels=[0.5], colors="white", linewidths=2.4)
        outline.set_path_effects([patheffects.withStroke(linewidth=4.4, foreground=BLACK)])


def _legend(figure: DescribedFigure, limit: float | None, outlined: bool) -> None:
    """The colour bar, in the maps' own values up to a limit or as shares of each map's own, and what the lines mean."""
    top = limit or 1.0
    scale = ScalarMappable(Normalize(-top, top), SIGNED)
    bar = figure.colorbar(scale, ax=figure.axes, location="bottom", aspect=40, shrink=0.7)
    shares = (-1, -0.5, 0, 0.5, 1)
    bar.set_ticks([share * top for share in shares], labels=[f"{share * top:.2g}" if limit else f"{share:g}" for share in shares])
    unit = "value" if limit else "value, as a share of the ± above each map"
    lesion = "; white: outline of the lesion" if outlined else ""
    room = int(figure.get_figwidth() * LETTERS_PER_INCH)  # a narrow figure would cut a long line off at both ends
    lines = [unit, f"black lines: half of the scale, dashed below zero{lesion}"]
    bar.set_label("\n".join(line for each in lines for line in textwrap.wrap(each, room)))


def peak_table(maps: Mapping[str, np.ndarray], mask: np.ndarray | None = None) -> pd.DataFrame:
    """Where each map peaks: a row a map.

    Args:
        maps: by name, shape ``(h, w)`` each.
        mask: lesion pixels, boolean, shape ``(H, W)``, if known.

    Returns:
        Columns ``highest`` and ``lowest`` value, ``across`` and ``down`` (of the peak, as shares of width and height), and
        ``on_lesion`` (share of the positive energy in the mask; NaN without a mask).
    """
    rows = {}
    for name, heatmap in maps.items():
        down, across = (np.array(np.unravel_index(heatmap.argmax(), heatmap.shape)) + 0.5) / heatmap.shape
        inside = np.nan if mask is None else energy_in_mask(resize_heatmap(heatmap, mask.shape), mask)
        rows[name] = {
            "highest": heatmap.max(), "lowest": heatmap.min() + 0.0, "across": across, "down": down, "on_lesion": inside,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")
