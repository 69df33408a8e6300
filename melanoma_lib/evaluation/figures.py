"""Figures of an evaluation: ranking, decisions, calibration, net benefit and comparisons, each described in words."""

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from melanoma_lib.evaluation.calibration import expected_calibration_error, reliability_bins
from melanoma_lib.evaluation.inputs import check_fraction, check_scores, check_targets
from melanoma_lib.evaluation.intervals import Interval
from melanoma_lib.evaluation.operating import OperatingCurve, OperatingPoint
from melanoma_lib.plotting import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    DescribedFigure,
    kit_figure,
    with_alt_text,
)


def _square(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=xlabel, ylabel=ylabel, aspect="equal")


def _legend_above(axes: Axes, columns: int = 2) -> None:
    """Outside the frame, where no curve can run through it."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.3, columnspacing=1.4)


def _mark(axes: Axes, x: float, y: float, threshold: float) -> str:
    label = f"threshold {threshold:.3g}"
    axes.plot(x, y, "o", color=VERMILLION, markersize=11, markeredgecolor="white", markeredgewidth=1.5, label=label, zorder=5)
    return label


def roc_figure(
    curves: Mapping[str, OperatingCurve],
    point: OperatingPoint | None = None,
    intervals: Mapping[str, Interval] | None = None,
) -> DescribedFigure:
    """Sensitivity against false-positive rate.

    Args:
        curves: by name, the main one first; up to four.
        point: operating point of the first curve to mark.
        intervals: AUROC with its interval by the same names, for the legend.

    Raises:
        ValueError: if there is no curve, or more than four.
    """
    if not 1 <= len(curves) <= 4:
        raise ValueError(f"curves: expected one to four, got {len(curves)}")
    with kit_figure() as figure:
        axes = figure.add_subplot()
        said = []
        for (name, curve), color, style in zip(curves.items(), (BLUE, ORANGE, GREEN, GREY), ("-", "--", "-.", ":"), strict=False):
            fpr, tpr, _ = curve.roc()
            interval = (intervals or {}).get(name)
            area = f"{interval:.3f}" if interval else f"{curve.auroc:.3f}"
            axes.plot(fpr, tpr, style, color=color, label=f"{name}\nAUROC {area}")
            said.append(f"{name}: AUROC {area}")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (2, 3)), label="chance")
        text = f"ROC curves. {'; '.join(said)}."
        if point:
            label = _mark(axes, 1 - point.specificity, point.sensitivity, point.threshold)
            text += f" The marked {label} has sensitivity {point.sensitivity:.3f} and specificity {point.specificity:.3f}."
        _square(axes, "false-positive rate (1 - specificity)", "sensitivity")
        axes.legend(loc="lower right")
    return with_alt_text(figure, text)


def precision_recall_figure(curve: OperatingCurve, point: OperatingPoint | None = None) -> DescribedFigure:
    """Precision (PPV) against recall (sensitivity), with the prevalence that chance reaches."""
    with kit_figure() as figure:
        axes = figure.add_subplot()
        precision, recall, _ = curve.precision_recall()
        # Steps, as average precision counts the area; a straight line between points would promise too much.
        axes.step(recall, precision, where="pre", color=BLUE, label=f"average precision {curve.average_precision:.3f}")
        axes.axhline(
            curve.prevalence, color=GREY, linewidth=1.5, linestyle="--", label=f"chance: prevalence {curve.prevalence:.1%}"
        )
        marked = ""
        if point:
            label = _mark(axes, point.sensitivity, point.ppv, point.threshold)
            marked = f"; the marked {label} has sensitivity {point.sensitivity:.3f} and PPV {point.ppv:.3f}"
        _square(axes, "sensitivity (recall)", "PPV (precision)")
        _legend_above(axes, columns=1)
    return with_alt_text(
        figure,
        f"Precision-recall curve with average precision {curve.average_precision:.3f}; chance would reach the prevalence, "
        f"{curve.prevalence:.3f}{marked}.",
    )


def confusion_figure(point: OperatingPoint, prevalence: float | None = None) -> DescribedFigure:
    """The four cells as counts, and as 1,000 lesions drawn one by one.

    Args:
        point: with both classes present.
        prevalence: share of melanomas among the 1,000; that of the counts if None.

    Raises:
        ValueError: if a class is empty or the prevalence lies outside (0, 1).
    """
    lesions, counts = point.per_thousand(prevalence), np.array([[point.tp, point.fn], [point.fp, point.tn]])
    of_row, n = counts / counts.sum(axis=1, keepdims=True), counts.sum()
    share = f"{100 * (counts[0].sum() / n if prevalence is None else prevalence):.3g}%"
    with kit_figure(12.5, 5.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        left.imshow(of_row, cmap="cividis", vmin=0, vmax=1)
        names = (("true positive", "false negative"), ("false positive", "true negative"))
        for row, column in np.ndindex(2, 2):
            cell = f"{counts[row, column]:,}\n{names[row][column]}\n{of_row[row, column]:.1%}"
            colour = "white" if of_row[row, column] < 0.55 else "black"
            left.text(column, row, cell, ha="center", va="center", fontsize=16, color=colour)
        left.set_xticks([0, 1], ["flagged", "not flagged"])
        left.set_yticks([0, 1], ["melanoma", "other lesion"], rotation=90, va="center")
        left.tick_params(length=0)
        left.set_title(f"{n:,} images at threshold {point.threshold:.3g}")
        start, kinds = 0, (("tp", BLUE, "o"), ("fn", BLACK, "X"), ("fp", ORANGE, "o"), ("tn", "#BDBDBD", "o"))
        for (kind, colour, marker), name in zip(kinds, np.ravel(names), strict=True):
            count = getattr(lesions, kind)
            # Columns of 25 from the left, so that each kind is one block.
            x, y = np.divmod(np.arange(start, start + count), 25)
            label = f"{count:,} {name}{'' if count == 1 else 's'}"
            right.plot(x, -y, marker, color=colour, markersize=6.5, markeredgewidth=0, label=label)
            start += count
        right.set(title=f"the same for 1,000 lesions, {share} of them melanomas", xticks=[], yticks=[], aspect="equal")
        right.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, handletextpad=0.3, columnspacing=1.2)
        for axes in (left, right):
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
    cells = ", ".join(f"{name} {count:,}" for name, count in zip(np.ravel(names), counts.ravel(), strict=True))
    rates = ", ".join(f"{name} {getattr(lesions, k)}" for name, (k, *_) in zip(np.ravel(names), kinds, strict=True))
    return with_alt_text(
        figure,
        f"Confusion matrix at threshold {point.threshold:.3g}: {cells}; of 1,000 lesions, {share} of them melanomas: {rates}.",
    )


def reliability_figure(risks: Mapping[str, ArrayLike], targets: ArrayLike, bins: int = 10) -> DescribedFigure:
    """Observed share of melanomas against risk in bins of equal count, with the histogram of the risks below.

    Args:
        risks: by name, say before and after calibration; up to three, each ``(N,)`` in [0, 1].
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        bins: quantile bins of `reliability_bins`; bars are its Wilson intervals.

    Raises:
        ValueError: if there is none or more than three, or as `reliability_bins`.
    """
    if not 1 <= len(risks) <= 3:
        raise ValueError(f"risks: expected one to three, got {len(risks)}")
    n = check_targets(targets, both_classes=False).size
    with kit_figure(7.0, 7.2) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle="--", label="perfect")
        said = []
        for (name, values), color, marker in zip(risks.items(), (VERMILLION, BLUE, GREEN), "so^", strict=False):
            risk = check_scores(values, n, name, unit_interval=True)
            table = reliability_bins(risk, targets, bins)
            error = expected_calibration_error(risk, targets, bins)
            bars = np.abs(table[["low", "high"]].to_numpy().T - table["observed"].to_numpy())
            label = f"{name}, ECE {error:.3f}"
            axes.errorbar(
                table["mean_risk"], table["observed"], bars, fmt=f"-{marker}", color=color, capsize=3, label=label,
                markersize=7, elinewidth=1.3, linewidth=1.6,
            )  # fmt: skip
            below.hist(risk, np.linspace(0, 1, 41), histtype="step", color=color, linewidth=1.8)
            spread = "; ".join(f"{m:.2f} to {o:.2f}" for m, o in zip(table["mean_risk"], table["observed"], strict=True))
            said.append(f"{name} (expected calibration error {error:.3f}): {spread}")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="observed share of melanomas")
        axes.legend(loc="upper left")
        below.set(xlabel="risk", ylabel="images", yscale="log")
    return with_alt_text(figure, f"Reliability in {bins} bins of equal count, mean risk to observed share. {'. '.join(said)}.")


def decision_curve_figure(
    curves: Mapping[str, OperatingCurve], highest: float = 0.5, point: float | None = None
) -> DescribedFigure:
    """Net benefit against the risk at which one would act, beside removing every lesion and none.

    Args:
        curves: of calibrated risks in [0, 1] on the same cases, by name; up to three.
        highest: largest risk threshold drawn.
        point: risk threshold to mark on the first curve.

    Raises:
        ValueError: if there is none or more than three, ``highest`` lies outside (0, 1), or scores are no risks.
    """
    if not 1 <= len(curves) <= 3:
        raise ValueError(f"curves: expected one to three, got {len(curves)}")
    thresholds = np.linspace(0, check_fraction(highest, "highest"), 301)
    prevalence = next(iter(curves.values())).prevalence
    everyone = prevalence - (1 - prevalence) * thresholds / (1 - thresholds)
    with kit_figure(7.6, 5.6) as figure:
        axes = figure.add_subplot()
        axes.plot(thresholds, everyone, color=GREY, linestyle="--", label="remove every lesion")
        axes.axhline(0, color=BLACK, linewidth=1.5, label="remove none")
        for (name, curve), color, style in zip(curves.items(), (BLUE, ORANGE, GREEN), ("-", "-.", ":"), strict=False):
            axes.plot(thresholds, curve.net_benefit(thresholds), style, color=color, label=name)
        if point is not None:
            _mark(axes, point, float(next(iter(curves.values())).net_benefit([point])[0]), point)
        axes.set(
            xlim=(0, highest),
            ylim=(-0.15 * prevalence, 1.08 * prevalence),
            xlabel="risk at which one would act",
            ylabel="net benefit a case\n(melanomas found less weighted false alarms)",
        )
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _legend_above(axes)
    at = np.array([0.1, 0.25, 0.5, 1]) * highest
    lines = {name: curve.net_benefit(at) for name, curve in curves.items()}
    lines["removing every lesion"] = prevalence - (1 - prevalence) * at / (1 - at)
    numbers = "; ".join(f"{name} {', '.join(f'{value:.3f}' for value in values)}" for name, values in lines.items())
    return with_alt_text(
        figure,
        f"""Decision curve for risk thresholds up to {highest:.2f} at prevalence {prevalence:.3f}, removing no lesion having
        0; net benefit at thresholds {", ".join(f"{risk:.3g}" for risk in at)}: {numbers}.""",
    )


def comparison_figure(rows: Mapping[str, Interval], quantity: str = "AUROC", reference: float | None = None) -> DescribedFigure:
    """Models or ablations as dots with intervals, the first on top.

    Args:
        rows: `Interval` by name; NaN ends draw the dot alone.
        quantity: what the values are.
        reference: value to draw a line at (0 for a gain, 0.5 for AUROC by chance).

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("rows: expected at least one interval, got none")
    with kit_figure(8.6, 1.6 + 0.62 * len(rows)) as figure:
        axes = figure.add_subplot()
        place = np.arange(len(rows))[::-1]
        for y, interval in zip(place, rows.values(), strict=True):
            axes.plot([interval.low, interval.high], [y, y], color=SKY, linewidth=6, solid_capstyle="butt")
            axes.plot(interval.value, y, "o", color=BLUE, markersize=10, markeredgecolor="white")
            # In axes coordinates to the right of the frame, where no dot can hide it.
            axes.annotate(f"{interval:.3f}", (1.02, y), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
        if reference is not None:
            axes.axvline(reference, color=GREY, linestyle="--", linewidth=1.5)
        names = [textwrap.fill(name, 28) for name in rows]
        axes.set_yticks(place, names)
        axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel=f"{quantity} with 95% interval")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    said = "; ".join(f"{name} {interval:.3f}" for name, interval in rows.items())
    return with_alt_text(figure, f"{quantity} with 95% intervals: {said}.")
