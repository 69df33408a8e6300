"""Worth against cost: which networks no other beats in both."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation.canvas import BLACK, BLUE, GREEN, GREY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.studies.backbones_words import IMAGENET, METADATA, OWN, SCRATCH, Row
from melanoma_lib.studies.results import ResultTable, interval_text

KINDS = {
    "trained, from ImageNet": (BLUE, "o"),
    "trained from scratch": (VERMILLION, "s"),
    "trained, from own weights": (BLACK, "^"),
    "frozen features": (GREEN, "D"),
}
LABEL_GAP = 0.05  # of the panel's height between two names


def kind_of(row: Row) -> str:
    """Under which of the figure's kinds a row falls."""
    *trained, frozen = KINDS
    return frozen if row["epochs"] is None else trained[(IMAGENET, SCRATCH, OWN).index(row["weights"])]


def front(costs: Sequence[float], worths: Sequence[float]) -> list[int]:
    """Positions of those that nobody beats, none being cheaper and as good, or as cheap and better; by rising cost."""
    kept: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -worths[i])):
        if not kept or worths[i] > worths[kept[-1]] or (worths[i], costs[i]) == (worths[kept[-1]], costs[kept[-1]]):
            kept.append(i)
    return kept


def pareto_figure(table: ResultTable) -> DescribedFigure:
    """AUROC of each model against its MACs and its time an image, with intervals and the front.

    Args:
        table: of the league.

    Raises:
        StudyError: if no row has an inference rate.
    """
    models = [row for row in table.rows if row["inference_rate"]]
    if not models:
        raise StudyError(f"result table {table.name}: expected rows with an inference rate, got none")
    floor = next((row["auroc"]["value"] for row in table.rows if row["name"] == METADATA), None)
    panels = (
        ("million MACs an image", [row["macs"] / 1e6 for row in models]),
        ("milliseconds an image", [1000 / row["inference_rate"]["value"] for row in models]),
    )
    said = []
    with kit_figure(14, 7) as figure:
        for axes, (unit, costs) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
            kept = _draw(axes, models, costs, floor)
            axes.set(xscale="log", xlabel=f"{unit} (log scale)")
            axes.margins(x=0.08)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            _name(axes, models, costs)
            on_front = ", ".join(f"{models[i]['name']} ({costs[i]:.3g})" for i in kept)
            said.append(f"By {unit} the front is {on_front}")
        figure.axes[0].set_ylabel("AUROC on the test cases")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, columnspacing=1.2, handletextpad=0.5)
    worth = "; ".join(f"{row['name']} {interval_text(row['auroc'])}" for row in table.rows)
    return describe(figure, f"AUROC against cost of {len(models)} models, with 95% intervals. {'. '.join(said)}. AUROC: {worth}.")


def _draw(axes: Axes, models: Sequence[Row], costs: Sequence[float], floor: float | None) -> list[int]:
    """One panel without names; returns the positions on the front."""
    worths = [row["auroc"]["value"] for row in models]
    kept = front(costs, worths)
    if floor is not None:
        axes.axhline(floor, color=GREY, linestyle=(0, (4, 3)), linewidth=1.5, label=f"metadata alone {floor:.3f}")
    steps = np.array([(costs[i], worths[i]) for i in kept]).T
    axes.step(*steps, where="post", color=GREY, linewidth=1.5, zorder=1, label="front: none cheaper and as good")
    for kind, (color, marker) in KINDS.items():
        chosen = [i for i, row in enumerate(models) if kind_of(row) == kind]
        if not chosen:
            continue
        known = [models[i]["auroc"] for i in chosen]
        ends = [[0 if one[end] is None else abs(one[end] - one["value"]) for one in known] for end in ("low", "high")]
        axes.errorbar(
            [costs[i] for i in chosen], [worths[i] for i in chosen], ends, fmt=marker, color=color, markersize=11,
            markeredgecolor="white", elinewidth=1.5, capsize=3, label=kind, zorder=3,
        )  # fmt: skip
    return kept


def _name(axes: Axes, models: Sequence[Row], costs: Sequence[float]) -> None:
    """Names in a column at the right, in the order of the points and apart from each other, each tied to its point."""
    low, high = axes.get_ylim()
    order = sorted(range(len(models)), key=lambda i: models[i]["auroc"]["value"])
    heights = [(models[i]["auroc"]["value"] - low) / (high - low) for i in order]
    for i, height in zip(order, apart(heights, LABEL_GAP), strict=True):
        row, (color, _) = models[i], KINDS[kind_of(models[i])]
        axes.annotate(
            _short(row), (costs[i], row["auroc"]["value"]), (1.02, height), textcoords="axes fraction", color=color, fontsize=11,
            va="center", ha="left", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "alpha": 0.6, "relpos": (0, 0.5), "shrinkB": 6},
        )  # fmt: skip


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights in [0, 1], moved as little as a pass up and a pass down need to be ``gap`` apart and inside."""
    moved = list(heights)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    highest = 1.0
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], highest)
        highest = moved[i] - gap
    return moved


def _short(row: Row) -> str:
    if row["epochs"] is None:
        return f"frozen features, {row['image_size']} px"
    return f"{row['name'].partition(' (')[0]}, {row['image_size']} px"
