"""LayerExplorer as a labelled picture: a case's maps of an early and a late layer, and its risk by age, sex and site."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from melanoma_lib.data.images import read_square
from melanoma_lib.explain.figures import SIGNED, draw_outline, draw_overlay
from melanoma_lib.explain.layers import METHOD_NAMES
from melanoma_lib.plotting import GREEN, GREY, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.widgets.layer_states import recorded_metadata

if TYPE_CHECKING:
    from melanoma_lib.widgets.layers import LayerExplorer


def layers_figure(explorer: "LayerExplorer") -> DescribedFigure:
    """The image, Grad-CAM and EigenCAM of the explorer's two layers, each to its own scale; below, the risks.

    Args:
        explorer: whose case in view, layers, direction and metadata are drawn.
    """
    from melanoma_lib.widgets.layers import SIDE

    shown, row = explorer.shown, explorer.table.set_index("image_id").loc[explorer.shown["case"]]
    maps, mask = explorer.maps_of(shown["case"]), explorer.mask(row, SIDE)
    pixels = read_square(row["image_path"], SIDE)
    layers = dict.fromkeys([shown["layer_a"], shown["layer_b"]])
    keys = [(method, layer, shown["direction"]) for method in ("gradcam", "eigencam") for layer in layers]
    truth, words = "melanoma" if row["target"] else "other lesion", []
    with kit_figure(max(12.0, 3.0 * (len(keys) + 1)), 8.6) as figure:
        above, below, note = figure.subfigures(3, 1, height_ratios=(1.12, 1, 0.05))
        note.text(0.99, 0.5, "Educational, not for diagnosis", color=GREY, fontsize=11, ha="right", va="center")
        panels = above.subplots(1, len(keys) + 1)
        panels[0].imshow(pixels)
        panels[0].set_title(f"{shown['case']}\n{truth}")
        for axes, key in zip(panels[1:], keys, strict=True):
            heatmap, doubtful = maps[key]
            size, name = float(np.abs(heatmap).max()), f"{METHOD_NAMES[key[0]]}, {key[1]}"
            draw_overlay(axes, pixels, heatmap / (size or 1.0))
            axes.set_title(f"{name}\n±{size:.2g}{', sign doubtful' * doubtful}")
            words.append(f"{name}: largest magnitude {size:.2g}{', its sign doubtful' * doubtful}")
        for axes in panels:
            axes.axis("off")
            draw_outline(axes, mask)
        scale = ScalarMappable(Normalize(-1, 1), SIGNED)
        bar = above.colorbar(scale, ax=panels.tolist(), location="bottom", aspect=50, shrink=0.6, ticks=[-1, -0.5, 0, 0.5, 1])
        side = "for" if shown["direction"] > 0 else "against"
        bar.set_label(f"share of the ± above each map; Grad-CAM: orange speaks {side} melanoma")
        words.append(_draw_risks(below, explorer))
    text = f"Case {shown['case']} ({truth}), the image and its maps. {'; '.join(words)}. Educational, not for diagnosis."
    return with_alt_text(figure, text)


def _draw_risks(figure: Any, explorer: "LayerExplorer") -> str:
    """Risk by age, by sex and by site, the rest as recorded, with the run's threshold; its numbers for the alt text."""
    row = explorer.table.set_index("image_id").loc[explorer.shown["case"]]
    own, choices, risk = recorded_metadata(row), explorer.choices, explorer.risk
    flag = explorer.facts["threshold"]["risk"]
    curve, dots = figure.subplots(1, 2, width_ratios=(1.25, 1))
    years = [age for age in choices.ages if age is not None]
    by_age = [risk(**own | {"age": age}) for age in years]
    curve.plot(years, by_age, color=ORANGE)
    curve.axhline(flag, color=GREEN, linestyle="--", linewidth=1.6, label=f"flagged from {flag:.1%}")
    if own["age"] is not None:
        label = f"recorded: {own['age']:g} years, {risk(**own):.1%}"
        curve.plot(own["age"], risk(**own), "o", color=VERMILLION, markersize=10, label=label)
    curve.set(xlabel="age, years, all else as recorded", title="calibrated risk by age", xlim=(0, years[-1]))
    curve.legend(loc="best", frameon=True, framealpha=0.95, edgecolor="white")
    rows = [(sex or "sex unknown", risk(**own | {"sex": sex}), sex == own["sex"]) for sex in choices.sexes]
    rows += [(site or "site unknown", risk(**own | {"site": site}), site == own["site"]) for site in choices.sites]
    places = [i + (i >= len(choices.sexes)) * 0.7 for i in range(len(rows))]
    for place, (_, value, recorded) in zip(places, rows, strict=True):
        dots.plot([0, value], [place, place], color=ORANGE, linewidth=1.6)
        dots.plot(value, place, "o", color=VERMILLION if recorded else ORANGE, markersize=10 if recorded else 7)
    dots.axvline(flag, color=GREEN, linestyle="--", linewidth=1.6)
    dots.set_yticks(places, labels=[name for name, _, _ in rows])
    dots.invert_yaxis()
    dots.grid(axis="y", visible=False)
    dots.set(title="by sex and by site (large: recorded)", xlabel="risk, all else as recorded")
    top = 1.08 * max([flag, *(value for _, value, _ in rows), *by_age])
    curve.set_ylim(0, top)
    dots.set_xlim(0, top)
    for axis in (curve.yaxis, dots.xaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}" if top > 0.1 else f"{value:.1%}")
    named = ", ".join(f"{name} {value:.1%}" for name, value, _ in rows)
    return f"Calibrated risk {risk(**own):.1%} as recorded, flagged from {flag:.1%}; {named}"
