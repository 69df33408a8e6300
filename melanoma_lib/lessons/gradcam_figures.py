"""Figures of the heatmap lesson: the recipe in pictures, what layers resolve, what stretching hides, directions, grades."""

from collections.abc import Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from melanoma_lib.evaluation.canvas import BLACK, BLUE, ORANGE, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.explain import cam_layers, heatmap_figure
from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.capture import activations_and_gradients, undisturbed
from melanoma_lib.explain.exam import energy_in_mask
from melanoma_lib.explain.figures import SIGNED
from melanoma_lib.lessons.gradcam import DIRECTIONS, NAMES, Subject
from melanoma_lib.lessons.training import displayable

WIDTH = 12.0
ACTIVE = "PRGn"  # activations have a sign, too, which is not that of evidence
OUTLINED = [patheffects.withStroke(linewidth=4.4, foreground=BLACK)]


def subject_figure(one: Subject) -> DescribedFigure:
    """The case as it was photographed, and as the model is shown it, pixel by pixel."""
    size = one.image.shape[-1]
    shown = displayable(one.image, one.run.settings.backbone)[0]
    with kit_figure(9.0, 4.7) as figure:
        left, right = figure.subplots(1, 2)
        left.imshow(one.pixels)
        left.set_title("the picture" + (", lesion outlined" if one.mask is not None else ""))
        _outline(left, one.mask)
        right.imshow(shown, interpolation="nearest")
        right.set_title(f"what the model is shown: {size} × {size} pixels")
        for axes in (left, right):
            axes.axis("off")
    area = "" if one.mask is None else f" The lesion covers {one.mask.mean():.0%} of the picture."
    return describe(figure, f"Case {one.case['image_id']} as photographed and at the model's {size} by {size} pixels.{area}")


def recipe_figure(one: Subject, layer: str, n: int = 3) -> DescribedFigure:
    """Grad-CAM in pictures: a few channels and their weights, all channels weighed and added up.

    Args:
        one: the case.
        layer: of the model.
        n: channels shown: those that add most to the map, for or against.
    """
    with undisturbed(one.model):
        caught = activations_and_gradients(one.model, [cam_layers(one.model)[layer]], one.image, one.metadata, 1)
    activations, gradients = (part[0][0].numpy() for part in caught)  # (C, h, w)
    weights = gradients.mean((1, 2))  # (C,)
    parts = weights[:, None, None] * activations
    strongest = np.argsort(-np.abs(parts).max((1, 2)), kind="stable")[:n]
    total, said = parts.sum(0), []
    with kit_figure(WIDTH, 6.4) as figure:
        grid = figure.subplots(2, n + 1)
        for column, channel in enumerate(strongest):
            above, below = grid[:, column]
            top = np.abs(activations[channel]).max()
            _grid_map(above, activations[channel], ACTIVE, top)
            above.set_title(f"channel {channel}\nactivation ± {top:.2g}")
            _grid_map(below, parts[channel], SIGNED, np.abs(parts[strongest]).max())
            below.set_title(f"× weight {weights[channel]:+.2g}", color=VERMILLION if weights[channel] > 0 else BLUE)
            said.append(f"channel {channel} weighs {weights[channel]:+.2g}")
        _overlay(grid[0, n], one.pixels, total)
        _outline(grid[0, n], one.mask)
        grid[0, n].set_title("over the picture\n(enlarged)")
        _grid_map(grid[1, n], total, SIGNED, np.abs(total).max())
        grid[1, n].set_title(f"sum of all {len(weights)}: the map")
        for axes, text in zip(grid[1, : n - 1], ("+", "+"), strict=False):
            axes.annotate(text, (1.09, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=24)
        grid[1, n - 1].annotate("+ … =", (1.04, 0.5), xycoords="axes fraction", ha="left", va="center", fontsize=17)
        bar = figure.colorbar(
            ScalarMappable(Normalize(-1, 1), SIGNED), ax=grid.ravel().tolist(), location="bottom", aspect=45, shrink=0.6
        )
        bar.set_ticks([-1, 0, 1], labels=["speaks against melanoma", "0", "speaks for it"])
        figure.supxlabel("activations, above: green over 0, purple below 0, each on a scale of its own", fontsize=14)
    against = int((weights < 0).sum())
    return describe(
        figure,
        f"""Grad-CAM of {layer}: the {n} channels that add most ({"; ".join(said)}), each multiplied by the mean of its
        gradients, and the sum over all {len(weights)} channels, {against} of which have a negative weight. The map runs from
        {total.min():.2g} to {total.max():.2g}.""",
    )


def reach_figure(one: Subject) -> DescribedFigure:
    """The grid of each layer on the picture, and how far one of its points sees."""
    size, layers, said = one.image.shape[-1], cam_layers(one.model), []
    scale = len(one.pixels) / size
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    with kit_figure(3.7 * columns, 4.1 * rows + 0.5) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.axis("off")
        for axes, (name, layer) in zip(panels, layers.items(), strict=False):
            points = -(-size // layer.stride)
            fine = {"color": "white", "alpha": 0.8, "linewidth": min(0.7, 16 / points)}  # a dense grid must not hide the picture
            axes.imshow(one.pixels.mean(axis=2), cmap="gray", vmin=-100, vmax=255)
            for k in range(1, points):
                line = k * layer.stride * scale - 0.5
                axes.axhline(line, **fine)
                axes.axvline(line, **fine)
            corner = (points // 2) * layer.stride * scale - 0.5
            side = layer.stride * scale
            axes.add_patch(Rectangle((corner, corner), side, side, facecolor=ORANGE, edgecolor=BLACK, linewidth=1.2))
            sees = layer.receptive_field
            if sees is not None:
                start = corner + side / 2 - sees * scale / 2
                axes.add_patch(Rectangle((start, start), sees * scale, sees * scale, fill=False, edgecolor=ORANGE, linewidth=3.2))
            beyond = sees is not None and start <= -0.5 and start + sees * scale >= len(one.pixels) - 0.5
            axes.set(xlim=(-0.5, len(one.pixels) - 0.5), ylim=(len(one.pixels) - 0.5, -0.5))
            reach = "all of it" if beyond else "unknown" if sees is None else f"{sees} × {sees} pixels"
            axes.set_title(f"{name}: {points} × {points} points\none can see {reach}")
            said.append(f"{name} has {points} by {points} points, of which one can see {reach}")
        figure.supxlabel(
            "white: the grid; filled: one point; frame: the pixels that can reach it (none drawn: beyond the picture)",
            fontsize=14,
        )
    return describe(figure, f"Layers of {one.model.backbone} on a picture of {size} by {size} pixels: {'; '.join(said)}.")


def stretched_figure(subjects: Sequence[Subject], layer: str) -> DescribedFigure:
    """The same maps twice: as often published, each without negatives and stretched to 0 … 1; and signed, on one scale.

    Args:
        subjects: two to four cases of one model.
        layer: whose Grad-CAM is drawn.
    """
    maps = [one.maps("gradcam", layer)[layer] for one in subjects]
    top, said = max(np.abs(heatmap).max() for heatmap in maps), []
    with kit_figure(WIDTH, 3.9 * len(subjects) + 0.8) as figure:
        grid = figure.subplots(len(subjects) + 1, 3, height_ratios=[1] * len(subjects) + [0.05])
        for row, one, heatmap in zip(grid, subjects, maps, strict=False):
            row[0].imshow(one.pixels)
            row[0].set_title(f"risk {one.risk:.0%}")
            positive = resize_heatmap(np.maximum(heatmap, 0), one.pixels.shape[:2])
            row[1].imshow(positive, cmap="cividis", vmin=positive.min(), vmax=max(positive.max(), 1e-12))
            row[1].set_title("no negatives, stretched to 0 … 1")
            _overlay(row[2], one.pixels, heatmap, top)
            row[2].set_title(f"signed, one scale: {heatmap.min():+.2g} to {heatmap.max():+.2g}")
            for axes in row:
                _outline(axes, one.mask)
                axes.axis("off")
            said.append(f"risk {one.risk:.0%}: from {heatmap.min():+.2g} to {heatmap.max():+.2g}")
        grid[-1, 0].axis("off")
        published, signed = ScalarMappable(Normalize(0, 1), "cividis"), ScalarMappable(Normalize(-top, top), SIGNED)
        figure.colorbar(published, cax=grid[-1, 1], orientation="horizontal").set_ticks(
            [0, 1], labels=["0", "each map's own maximum"]
        )
        bar = figure.colorbar(signed, cax=grid[-1, 2], orientation="horizontal")
        bar.set_ticks([-top, 0, top], labels=[f"{-top:.2g}", "0", f"{top:.2g}"])
    return describe(
        figure,
        f"""Grad-CAM of {layer} of {len(subjects)} cases. Stretched to 0 … 1, each that has anything positive has a spot of the
        brightest colour. Signed and on one scale they differ: {"; ".join(said)}.""",
    )


def swap_figure(one: Subject, layer: str, methods: Sequence[str] = ("gradcam", "eigencam")) -> DescribedFigure:
    """The same question asked both ways: what speaks for melanoma, what for benign; a row a method.

    Args:
        one: the case.
        layer: of the model.
        methods: of ``CAM_METHODS``.
    """
    said = []
    with kit_figure(WIDTH, 4.0 * len(methods) + 0.7) as figure:
        grid = figure.subplots(len(methods), 3, squeeze=False)
        for row, method in zip(grid, methods, strict=True):
            pair = [one.maps(method, layer, direction)[layer] for direction in DIRECTIONS]
            top = max(np.abs(heatmap).max() for heatmap in pair)
            row[0].imshow(one.pixels)
            row[0].set_title(NAMES[method], fontweight="bold", fontsize=17)
            for axes, heatmap, words in zip(row[1:], pair, DIRECTIONS.values(), strict=True):
                _overlay(axes, one.pixels, heatmap, top)
                axes.set_title(f"what speaks {words}?")
            for axes in row:
                _outline(axes, one.mask)
                axes.axis("off")
            off = np.abs(pair[0] - pair[1]).max() / (top or 1.0)
            turned = np.abs(pair[0] + pair[1]).max() / (top or 1.0)
            said.append(
                f"{NAMES[method]}: both maps differ by up to {off:.0%} of the largest value, one and the other turned round by "
                f"up to {turned:.0%}"
            )
        scale = figure.colorbar(
            ScalarMappable(Normalize(-1, 1), SIGNED), ax=grid.ravel().tolist(), location="bottom", aspect=45, shrink=0.6
        )
        scale.set_ticks([-1, 0, 1], labels=["negative", "0", "positive"])
    return describe(figure, f"Maps of {layer} asked in both directions. {'. '.join(said)}.")


def graded_figure(one: Subject, maps: dict[str, np.ndarray], title: str = "") -> DescribedFigure:
    """Maps with the share of their positive energy on the lesion above each; names may be maps or controls.

    Args:
        one: a case with a mask.
        maps: by name, shape ``(h, w)``.
        title: above all.
    """
    named = {
        f"{name}: {energy_in_mask(resize_heatmap(heatmap, one.mask.shape), one.mask):.0%} on it": heatmap
        for name, heatmap in maps.items()
    }
    return heatmap_figure(one.pixels, named, one.mask, title)


def _overlay(axes: Axes, pixels: np.ndarray, heatmap: np.ndarray, top: float | None = None) -> None:
    top = top or float(np.abs(heatmap).max()) or 1.0
    axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=-100, vmax=255)
    axes.imshow(resize_heatmap(heatmap, pixels.shape[:2]), cmap=SIGNED, vmin=-top, vmax=top)
    axes.axis("off")


def _outline(axes: Axes, mask: np.ndarray | None) -> None:
    if mask is not None and mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors="white", linewidths=2.4).set_path_effects(OUTLINED)


def _grid_map(axes: Axes, values: np.ndarray, cmap: object, top: float | None = None) -> None:
    """A map point by point, as the layer has it."""
    limits = {} if top is None else {"vmin": -(top or 1.0), "vmax": top or 1.0}
    axes.imshow(values, cmap=cmap, interpolation="nearest", **limits)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
