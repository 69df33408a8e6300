"""Figures of the cross-validation lesson: widths, splits, a leak, folds, two models, and what backbones cost."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from melanoma_lib.evaluation import Interval, bootstrap_gain, delong_test, rate_intervals
from melanoma_lib.lessons.cross_validation import Leak, best_of
from melanoma_lib.lessons.eda import WIDTH, Row, forest, height_of
from melanoma_lib.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.studies.results import ResultTable
from melanoma_lib.studies.views import interval_of
from melanoma_lib.widgets.luck import Z

ROLES = {"train": ("training", "#CFE3F1", ""), "val": ("validation", ORANGE, "//"), "test": ("test", VERMILLION, "xx")}


def width_figure(intervals: dict[str, Interval], guess: float | None = None) -> DescribedFigure:
    """The same AUROC with the intervals of several ways to get one, and the reader's guess of the half width.

    Args:
        intervals: by the way it was made.
        guess: half width that the reader expected.
    """
    rows = [
        Row(name, ((one, colour, "o"),), f"± {(one.high - one.low) / 2:.3f}")
        for (name, one), colour in zip(intervals.items(), (ORANGE, GREY, BLUE), strict=False)
    ]
    with kit_figure(WIDTH, 0.8 + height_of(rows)) as figure:
        axes = figure.add_subplot()
        forest(axes, rows, "AUROC, 95% interval")
        value = next(iter(intervals.values())).value
        if guess is not None:
            for end in (value - guess, value + guess):
                axes.axvline(end, color=BLACK, linestyle=":", linewidth=1.8)
            axes.annotate("your guess", (value + guess, -0.5), xytext=(6, 0), textcoords="offset points", va="top")
    said = "; ".join(f"{name} {one:.3f}" for name, one in intervals.items())
    return with_alt_text(figure, f"AUROC with 95% intervals: {said}.")


def splits_figure(splits: pd.DataFrame, first: Interval, marks: Sequence[int] = (5, 20)) -> DescribedFigure:
    """AUROC of every split as a histogram, the first one's own interval, and what the best of several would report.

    Args:
        splits: from `single_splits`.
        first: from `first_split`.
        marks: numbers of splits of which somebody reports the best.
    """
    values = splits["auroc"]
    with kit_figure(WIDTH, 5.0) as figure:
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        top.hist(values, bins=max(8, round(len(values) ** 0.5 * 1.6)), color=BLUE, alpha=0.8, edgecolor="white")
        top.axvline(values.mean(), color=BLACK, linewidth=2.4, label=f"mean {values.mean():.3f}")
        for n, style in zip(marks, ("--", ":"), strict=False):
            top.axvline(best_of(values, n), color=VERMILLION, linestyle=style, label=f"best of {n}: {best_of(values, n):.3f}")
        top.set(ylabel="splits")
        top.set_title(f"{len(values)} random splits, one model, nothing else changed")
        top.legend(loc="upper left")
        below.plot([first.low, first.high], [0, 0], color=GREEN, linewidth=6, alpha=0.45, solid_capstyle="butt")
        below.plot(first.value, 0, "o", color=GREEN, markersize=12, markeredgecolor="white")
        below.set(ylim=(-1, 1), yticks=[], xlabel="AUROC of the split's test")
        below.set_ylabel("split 1,\nits interval", rotation=0, ha="right", va="center")
        below.spines["left"].set_visible(False)
    best = ", ".join(f"best of {n} {best_of(values, n):.3f}" for n in marks)
    return with_alt_text(
        figure,
        f"""Histogram of the AUROC of {len(values)} random splits: {values.min():.3f} to {values.max():.3f}, mean
        {values.mean():.3f}, standard deviation {values.std():.3f}; on average the {best}. The first split alone reports
        {first:.3f}.""",
    )


def leak_figure(found: Leak, unit: str) -> DescribedFigure:
    """Both AUROCs of each repetition, joined, and their mean difference with its interval.

    Args:
        found: from `leak`.
        unit: what the groups are.
    """
    both = np.stack([found.by_group, found.by_image])  # (2, R)
    with kit_figure(WIDTH, 4.4) as figure:
        axes, gain = figure.subplots(1, 2, width_ratios=(2.2, 1))
        axes.plot([0, 1], both, color=GREY, linewidth=1.5, alpha=0.7)
        for x, colour in ((0, BLUE), (1, VERMILLION)):
            axes.plot(np.full(both.shape[1], x), both[x], "o", color=colour, markersize=10, markeredgecolor="white")
            place, side = (x + 0.09 * (2 * x - 1), both[x].mean()), "left" if x else "right"
            axes.annotate(f"mean\n{both[x].mean():.3f}", place, ha=side, va="center", color=colour)
        axes.set(xlim=(-0.6, 1.6), ylabel="AUROC of all cases")
        axes.set_xticks([0, 1], [f"whole {unit}s\nin a fold", "images dealt\none by one"])
        axes.grid(visible=False, axis="x")
        gain.axhline(0, color=BLACK, linewidth=1)
        gain.plot(
            [0, 0], [found.difference.low, found.difference.high], color=VERMILLION, linewidth=7, alpha=0.4, solid_capstyle="butt"
        )
        gain.plot(0, found.difference.value, "o", color=VERMILLION, markersize=12, markeredgecolor="white")
        reach = 1.25 * max(abs(found.difference.low), abs(found.difference.high))
        gain.set(xticks=[], xlim=(-1, 1), ylim=(-reach, reach), title=f"difference\n{found.difference:+.3f}")
    return with_alt_text(
        figure,
        f"""AUROC of the same cases over {both.shape[1]} repetitions of cross-validation: whole {unit}s in a fold, mean
        {both[0].mean():.3f}; images dealt one by one, mean {both[1].mean():.3f}; mean difference {found.difference:+.3f}.
        {found.known:.3f} of the test melanomas had a sibling in training.""",
    )


def folds_figure(roles: Sequence[pd.Series]) -> DescribedFigure:
    """Which part of the cases trains, validates and tests in each fold; the width of a part is its share of the images.

    Args:
        roles: from ``roles_of``.
    """
    table = pd.concat(roles, axis=1, ignore_index=True)
    tested = (table == "test").to_numpy().argmax(axis=1)
    validates = (table == "val").to_numpy()
    place = 2 * tested + np.where(validates.any(axis=1), 0, 1)  # the half that validates comes first
    sizes = np.bincount(place, minlength=2 * len(roles))
    edges = np.concatenate([[0], np.cumsum(sizes)]) / len(table)
    with kit_figure(WIDTH, 0.62 * len(roles) + 1.7) as figure:
        axes = figure.add_subplot()
        for fold, role in enumerate(roles):
            for part in range(2 * len(roles)):
                name = role.to_numpy()[place == part][0]
                _, colour, hatch = ROLES[name]
                box = (edges[part] + 0.0015, fold - 0.38), edges[part + 1] - edges[part] - 0.003, 0.76
                axes.add_patch(Rectangle(*box, facecolor=colour, hatch=hatch, edgecolor="white"))
        for words, colour, hatch in ROLES.values():
            axes.add_patch(Rectangle((0, 0), 0, 0, facecolor=colour, hatch=hatch, edgecolor="white", label=words))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handlelength=2.2)
        axes.set(xlim=(0, 1), ylim=(len(roles) - 0.5, -0.5), xlabel="all cases, whole patients or lesions side by side")
        axes.set_yticks(range(len(roles)), [f"fold {fold + 1}" for fold in range(len(roles))])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
    shares = roles[0].value_counts(normalize=True)
    return with_alt_text(
        figure,
        f"""{len(roles)} folds as rows, the cases as columns: each case tests in one fold, validates in at most one, trains in the
        others. In fold 1 {shares["train"]:.0%} of the images train, {shares["val"]:.0%} validate, {shares["test"]:.0%} test.""",
    )


def two_models_figure(
    targets: ArrayLike, a: ArrayLike, b: ArrayLike, groups: ArrayLike, names: tuple[str, str], n: int = 500
) -> DescribedFigure:
    """Two AUROCs with their intervals, as an eye compares them, and the difference as a test does.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        a: scores of the first model, shape ``(N,)``.
        b: scores of the second, shape ``(N,)``.
        groups: patient or lesion of each row, shape ``(N,)``.
        names: of both models.
        n: resamples.
    """
    alone = [rate_intervals(targets, one, groups, n=n)["auroc"] for one in (a, b)]
    test, paired = delong_test(targets, a, b), bootstrap_gain(targets, a, b, groups, n)["auroc"]
    reach = Z * test.standard_error
    by_image = Interval(test.difference, test.difference - reach, test.difference + reach, method="delong")
    left = [
        Row(name, ((one, colour, "o"),), f"{one.value:.3f}")
        for name, one, colour in zip(names, alone, (GREEN, BLUE), strict=True)
    ]
    right = [
        Row(name, ((one, colour, marker),), f"{one.value:+.3f}")
        for name, one, colour, marker in (
            ("DeLong, by image", by_image, GREY, "s"),
            ("groups resampled", paired, VERMILLION, "o"),
        )
    ]
    with kit_figure(WIDTH, 3.4) as figure:
        by_eye, difference = figure.subplots(1, 2)
        forest(by_eye, left, "AUROC, 95% interval")
        by_eye.set_title("by eye")
        forest(difference, right, "difference in AUROC")
        difference.axvline(0, color=BLACK, linewidth=1.4)
        difference.set_title("paired")
        for axes in (by_eye, difference):
            axes.xaxis.set_major_locator(MaxNLocator(4))
    overlap = "overlap" if alone[0].low <= alone[1].high and alone[1].low <= alone[0].high else "do not overlap"
    return with_alt_text(
        figure,
        f"""AUROC of {names[0]} {alone[0]:.3f}, of {names[1]} {alone[1]:.3f}: the intervals {overlap}. Their difference on the
        same cases is {by_image:+.3f} by DeLong and {paired:+.3f} where whole groups are resampled.""",
    )


def performance_cost_figure(table: ResultTable) -> DescribedFigure:
    """AUROC with its interval against multiply-adds an image; the line joins models that none cheaper equals.

    Args:
        table: of the backbones table; rows without a network are left out.
    """
    rows = sorted((row for row in table.rows if row["backbone"]), key=lambda row: (row["macs"], -row["auroc"]["value"]))
    costs, values = [row["macs"] / 1e6 for row in rows], [row["auroc"]["value"] for row in rows]
    best = np.maximum.accumulate(values)
    front = [i for i in range(len(rows)) if i == 0 or values[i] > best[i - 1]]
    intervals = [interval_of(row["auroc"]) for row in rows]
    with kit_figure(WIDTH, 5.4) as figure:
        axes = figure.add_subplot()
        reach = [[one.value - one.low for one in intervals], [one.high - one.value for one in intervals]]
        axes.errorbar(costs, values, reach, fmt="o", color=BLUE, ecolor=GREY, markersize=10, capsize=3, elinewidth=1.5)
        axes.step([costs[i] for i in front], [values[i] for i in front], where="post", color=VERMILLION, linewidth=1.5)
        for number, (cost, value) in enumerate(zip(costs, values, strict=True), 1):
            axes.annotate(str(number), (cost, value), xytext=(9, 6), textcoords="offset points")
        axes.set(xscale="log", xlabel="million multiply-adds an image", ylabel="AUROC, 95% interval")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        names = [f"{number} {row['name']}" for number, row in enumerate(rows, 1)]
        axes.annotate("\n".join(names), (1.03, 0.5), xycoords="axes fraction", va="center", fontsize=11, annotation_clip=False)
    return with_alt_text(
        figure, f"AUROC against multiply-adds an image of {len(rows)} models; the front is {', '.join(names[i] for i in front)}."
    )
