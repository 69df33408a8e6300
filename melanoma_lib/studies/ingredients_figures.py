"""Figures of the recipe: what each ingredient gives beside the noise of seeds, and what a warm start is worth by labels."""

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from melanoma_lib.evaluation.canvas import BLUE, GREEN, GREY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.studies.ingredients_table import CHANGE, DEFAULT, PREDICTION, SEED
from melanoma_lib.studies.label_efficiency import IMAGENET, PROBE, RANDOM, SIMCLR, TUNED
from melanoma_lib.studies.results import ResultTable, interval_text

KINDS = {  # colour, marker and meaning of each kind of row
    DEFAULT: (GREY, "o", ""),
    SEED: (GREY, "o", "the default recipe, by seeds"),
    CHANGE: (BLUE, "s", "one change, one training"),
    PREDICTION: (GREEN, "D", "the same trainings, predicted otherwise"),
}
STARTS = {RANDOM: (GREY, "^", ":"), IMAGENET: (BLUE, "o", "-"), SIMCLR: (VERMILLION, "s", "--")}
APART = 1.05  # factor between marks of one share of labels, which would hide each other


def ingredients_figure(table: ResultTable) -> DescribedFigure:
    """Fair gain of each row in AUROC with its interval; the band is as far as another seed alone may move a training.

    Args:
        table: of ``study ingredients``.
    """
    rows = [row for row in table.rows if row["fair_gain"] is not None]
    rows.sort(key=lambda row: list(KINDS).index(row["kind"]))  # kinds together, else as in the table
    limit = table.details["noise"]["limit"]
    with kit_figure(12.5, 2.2 + 0.52 * len(rows)) as figure:
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1.5)
        if limit is not None:
            axes.axvspan(-limit, limit, color=GREY, alpha=0.13, linewidth=0, label="what another seed may change")
        for kind, (colour, marker, meaning) in KINDS.items():
            if meaning and any(row["kind"] == kind for row in rows):
                axes.plot([], [], marker, color=colour, markersize=10, label=meaning)
        for y, row in enumerate(rows):
            colour, marker, _ = KINDS[row["kind"]]
            _interval(axes, row["fair_gain"], y, colour, marker)
            for place, note in (
                (1.015, f"{row['fair_gain']['value']:+.3f}"),
                (1.12, f"{row['training_seconds'] / 60:.0f}"),
                (1.21, row["passes"]),
            ):
                axes.annotate(note, (place, y), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
        for place, heading in ((1.015, "gain"), (1.12, "min"), (1.21, "passes")):
            axes.annotate(heading, (place, 1.01), xycoords="axes fraction", va="bottom", fontweight="bold", annotation_clip=False)
        axes.set_yticks(range(len(rows)), [textwrap.fill(row["name"], 30) for row in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="gain in test AUROC over what it is fairly compared with, 95% interval")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.3, columnspacing=1.4)
    said = "; ".join(
        f"{row['name']} {interval_text(row['fair_gain'], 3, '+')} ({row['conclusion']}; over {row['compared_with']})"
        for row in rows
    )
    band = f"Another seed alone may move a training by {limit:.3f} either way. " if limit is not None else ""
    return describe(figure, f"Gains in test AUROC with 95% intervals. {band}{said}.")


def label_efficiency_figure(table: ResultTable) -> DescribedFigure:
    """Test AUROC by the share of labels: linear probe on frozen features on the left, fine-tuning on the right.

    Args:
        table: of ``study selfsupervised``.
    """
    said, alone = [], ", image alone"
    whole = ", image and metadata" if table.details["modalities"] == "image+metadata" else ""
    with kit_figure(12.5, 6) as figure:
        panels = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
        for axes, method in zip(panels, (PROBE, TUNED), strict=True):
            rows = [row for row in table.rows if row["method"] == method]
            starts = [start for start in STARTS if any(row["start"] == start for row in rows)]
            for place, start in enumerate(starts):
                of_start = [row for row in rows if row["start"] == start]
                _curve(axes, of_start, start, APART ** (place - (len(starts) - 1) / 2))
                values = ", ".join(f"{interval_text(row['auroc'])} at {row['share']:.0%}" for row in of_start)
                said.append(f"{method}, {start}: {values}")
            shares = sorted({row["share"] for row in rows})
            axes.set(xscale="log", xlabel="share of the training labels", title=method + (whole if method == TUNED else alone))
            axes.xaxis.set_major_locator(FixedLocator(shares))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
            axes.margins(x=0.12)
        panels[0].set_ylabel("test AUROC, 95% interval")
        panels[0].legend(title="start of the image branch", loc="best")
    return describe(figure, f"Test AUROC by the share of labels, with 95% intervals. {'; '.join(said)}.")


def _interval(axes: Axes, value: dict[str, Any], y: float, colour: str, marker: str) -> None:
    if value["low"] is not None:
        axes.plot([value["low"], value["high"]], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
    axes.plot(value["value"], y, marker, color=colour, markersize=10, markeredgecolor="white", zorder=3)


def _curve(axes: Axes, rows: list[dict[str, Any]], start: str, shift: float) -> None:
    colour, marker, style = STARTS[start]
    rows = sorted(rows, key=lambda row: row["share"])
    places, values = [row["share"] * shift for row in rows], [row["auroc"]["value"] for row in rows]
    for place, row in zip(places, rows, strict=True):
        if row["auroc"]["low"] is not None:
            axes.plot([place] * 2, [row["auroc"]["low"], row["auroc"]["high"]], color=colour, linewidth=5, alpha=0.3)
    axes.plot(places, values, style, marker=marker, color=colour, markersize=9, markeredgecolor="white", label=start)
