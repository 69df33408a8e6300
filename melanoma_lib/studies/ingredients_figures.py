"""Figures of the recipe: what each ingredient gives beside the noise of seeds, and what a warm start is worth by labels."""

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from melanoma_lib.evaluation.canvas import BLUE, GREEN, GREY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.studies.ingredients_table import CHANGE, DEFAULT, PREDICTION, SEED
from melanoma_lib.studies.label_efficiency import IMAGENET, PROBE, RANDOM, SIMCLR, TUNED
from melanoma_lib.studies.results import ResultTable, interval_text

KINDS = {  # colour, marker and meaning of each kind of row
    DEFAULT: (GREY, "o", ""),
    SEED: (GREY, "o", "the default recipe, by seeds"),
    CHANGE: (BLUE, "s", "one change, one training"),
    PREDICTION: (GREEN, "D", "the same trainings, predicted otherwise: the band does not apply to them"),
}
COLUMNS = {"gain": 8, "minutes\nof training": 66, "passes\nan image": 150}  # heading and place, points right of the axes
BESIDE = {"textcoords": "offset points", "annotation_clip": False}
STARTS = {RANDOM: (GREY, "^", ":"), IMAGENET: (BLUE, "o", "-"), SIMCLR: (VERMILLION, "s", "--")}
BAR, WHISKER = {"linewidth": 5, "alpha": 0.3}, {"linestyle": "none", "elinewidth": 1.3, "capsize": 4}
BAR_WORDS = "95% interval of the mean, test cases resampled"
WHISKER_WORDS = "± standard deviation over draws of the labels"
APART = 1.09  # factor between marks of one share of labels, which would hide each other


def ingredients_figure(table: ResultTable) -> DescribedFigure:
    """Fair gain of each row in AUROC with its interval; the band is as far as another seed alone may move a training.

    The band does not apply to rows that predict otherwise with the same trainings: no seed differs.

    Args:
        table: of ``study ingredients``.
    """
    rows = [row for row in table.rows if row["fair_gain"] is not None]
    rows.sort(key=lambda row: list(KINDS).index(row["kind"]))  # kinds together, else as in the table
    limit, n = table.details["noise"]["limit"], len(table.details["auroc_by_seed"])
    with kit_figure(12.5, 2.2 + 0.52 * len(rows)) as figure:
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1.5)
        if limit is not None:
            axes.axvspan(
                -limit, limit, color=GREY, alpha=0.13, linewidth=0, label=f"what another seed may change, from {n} seeds"
            )
        for kind, (colour, marker, meaning) in KINDS.items():
            if meaning and any(row["kind"] == kind for row in rows):
                axes.plot([], [], marker, color=colour, markersize=10, label=meaning)
        for y, row in enumerate(rows):
            colour, marker, _ = KINDS[row["kind"]]
            _interval(axes, row["fair_gain"], y, colour, marker)
            notes = (f"{row['fair_gain']['value']:+.3f}", f"{row['training_seconds'] / 60:.0f}", row["passes"])
            for place, note in zip(COLUMNS.values(), notes, strict=True):
                axes.annotate(note, (1, y), (place, 0), xycoords=("axes fraction", "data"), va="center", **BESIDE)
        for heading, place in COLUMNS.items():
            axes.annotate(heading, (1, 1), (place, 4), xycoords="axes fraction", va="bottom", fontweight="bold", **BESIDE)
        axes.set_yticks(range(len(rows)), [textwrap.fill(row["name"], 30) for row in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="gain in test AUROC over its comparison, 95% interval")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3, columnspacing=1.4)
    said = "; ".join(
        f"{row['name']} {interval_text(row['fair_gain'], 3, '+')} ({row['conclusion']}; over {row['compared_with']})"
        for row in rows
    )
    return describe(figure, f"Gains in test AUROC with 95% intervals. {_band_words(table.details)}{said}.")


def label_efficiency_figure(table: ResultTable) -> DescribedFigure:
    """Test AUROC by the share of labels: linear probe on frozen features on the left, fine-tuning on the right.

    Args:
        table: of ``study selfsupervised``.
    """
    said, alone, tried = [], ", image alone", {row["share"] for row in table.rows}
    whole = ", image and metadata" if table.details["modalities"] == "image+metadata" else ""
    with kit_figure(12.5, 6) as figure:
        panels = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
        for axes, method in zip(panels, (PROBE, TUNED), strict=True):
            rows = [row for row in table.rows if row["method"] == method]
            starts = [start for start in STARTS if any(row["start"] == start for row in rows)]
            for place, start in enumerate(starts):
                of_start = [row for row in rows if row["start"] == start]
                _curve(axes, of_start, start, APART ** (place - (len(starts) - 1) / 2))
                values = ", ".join(f"{interval_text(row['auroc'])}{_draws(row)} at {row['share']:.0%}" for row in of_start)
                said.append(f"{method}, {start}: {values}")
            shares = sorted({row["share"] for row in rows})
            missing = ", ".join(f"{share:.0%}" for share in sorted(tried.difference(shares)))
            if missing:
                said.append(f"{method}: not tried at {missing}")
            xlabel = "share of the training labels" + (f" (not tried: {missing})" if missing else "")
            axes.set(xscale="log", xlabel=xlabel, title=method + (whole if method == TUNED else alone))
            axes.xaxis.set_major_locator(FixedLocator(shares))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
            axes.margins(x=0.12)
        panels[0].set_ylabel("test AUROC")
        panels[0].legend(title="start of the image branch", loc="lower right")  # curves that rise leave this corner free
        bars = [Line2D([], [], color=GREY, **BAR), panels[0].errorbar([], [], [], color=GREY, **WHISKER)]
        figure.legend(bars, [f"bar: {BAR_WORDS}", f"whisker: {WHISKER_WORDS}"], loc="outside upper left", ncols=2)
    return describe(
        figure, f"Test AUROC by the share of labels; bars: {BAR_WORDS}; whiskers: {WHISKER_WORDS}. {'; '.join(said)}."
    )


def _band_words(details: dict[str, Any]) -> str:
    """What the band is, from how many seeds and by which rule."""
    from scipy.stats import t

    noise, n = details["noise"], len(details["auroc_by_seed"])
    if noise["limit"] is None:
        return "One seed alone: no band of what another may change. "
    return (
        f"The band: another seed alone may move a training by {noise['limit']:.3f} either way, in 95 of 100 cases. It rests on "
        f"{n} seeds: their standard deviation, {noise['deviation']:.4f}, times the t quantile for {n - 1} "
        f"degree{'s' if n > 2 else ''} of freedom, {t.ppf(0.975, n - 1):.2f}, times the root of 1 + 1/{n}. It does not apply to "
        "rows of the same trainings, predicted otherwise. "
    )


def _draws(row: dict[str, Any]) -> str:
    """Luck of the labels drawn, where they were drawn more than once."""
    return "" if row["deviation"] is None else f" (± {row['deviation']:.3f} over {row['draws']} draws of labels)"


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
            axes.plot([place] * 2, [row["auroc"]["low"], row["auroc"]["high"]], color=colour, **BAR)
        if row["deviation"] is not None:
            axes.errorbar(place, row["auroc"]["value"], row["deviation"], color=colour, zorder=1, **WHISKER)
    axes.plot(places, values, style, marker=marker, color=colour, markersize=9, markeredgecolor="white", label=start)
