"""Figures of an evaluation: ranking, decisions and calibration, each described in words."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from melanoma_lib.evaluation.calibration import expected_calibration_error, reliability_bins
from melanoma_lib.evaluation.inputs import check_scores, check_targets
from melanoma_lib.evaluation.intervals import Interval
from melanoma_lib.evaluation.operating import OperatingCurve, OperatingPoint
from melanoma_lib.plotting import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
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
