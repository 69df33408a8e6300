"""The figures of a report: ranking, decisions and calibration, each described in words."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from melanoma_lib.evaluation.calibration import expected_calibration_error, reliability_bins
from melanoma_lib.evaluation.intervals import Interval
from melanoma_lib.evaluation.operating import OperatingCurve, OperatingPoint
from melanoma_lib.plotting import BLUE, GREEN, GREY, VERMILLION, DescribedFigure, kit_figure, with_alt_text


def _finish(axes: Axes, xlabel: str, ylabel: str, x: float, y: float, threshold: float) -> str:
    """Mark the operating point, label the axes, and return what the point is called."""
    label = f"threshold {threshold:.3g}"
    axes.plot(x, y, "o", color=VERMILLION, markersize=11, markeredgecolor="white", markeredgewidth=1.5, label=label, zorder=5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=xlabel, ylabel=ylabel, aspect="equal")
    # Above the frame, where no curve can run through it.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3)
    return label


def roc_figure(curve: OperatingCurve, point: OperatingPoint, auroc: Interval) -> DescribedFigure:
    """Sensitivity against false-positive rate, with the operating point marked and the AUROC in the legend."""
    with kit_figure() as figure:
        axes = figure.add_subplot()
        fpr, tpr, _ = curve.roc()
        axes.plot(fpr, tpr, color=BLUE, label=f"AUROC {auroc:.3f}")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (2, 3)), label="chance")
        names = ("false-positive rate (1 - specificity)", "sensitivity")
        label = _finish(axes, *names, 1 - point.specificity, point.sensitivity, point.threshold)
    return with_alt_text(
        figure,
        f"ROC curve with AUROC {auroc:.3f}; the marked {label} has sensitivity {point.sensitivity:.3f} and specificity "
        f"{point.specificity:.3f}.",
    )


def precision_recall_figure(curve: OperatingCurve, point: OperatingPoint) -> DescribedFigure:
    """Precision (PPV) against recall (sensitivity), with the prevalence that chance reaches."""
    ppv = "an undefined PPV, as it flags nobody" if np.isnan(point.ppv) else f"PPV {point.ppv:.3f}"
    with kit_figure() as figure:
        axes = figure.add_subplot()
        precision, recall, _ = curve.precision_recall()
        # Steps down from high recall, as average precision counts the area; a straight line would promise too much.
        axes.step(recall, precision, where="post", color=BLUE, label=f"average precision {curve.average_precision:.3f}")
        chance = f"chance: prevalence {curve.prevalence:.1%}"
        axes.axhline(curve.prevalence, color=GREY, linewidth=1.5, linestyle="--", label=chance)
        label = _finish(axes, "sensitivity (recall)", "PPV (precision)", point.sensitivity, point.ppv, point.threshold)
    return with_alt_text(
        figure,
        f"Precision-recall curve with average precision {curve.average_precision:.3f}; chance would reach the prevalence, "
        f"{curve.prevalence:.3f}; the marked {label} has sensitivity {point.sensitivity:.3f} and {ppv}.",
    )


def confusion_figure(point: OperatingPoint) -> DescribedFigure:
    """The four cells as counts and shares of their row; both classes must be present."""
    counts = np.array([[point.tp, point.fn], [point.fp, point.tn]])
    if not counts.sum(axis=1).all():
        raise ValueError(f"expected both classes, got {counts[0].sum()} melanomas and {counts[1].sum()} other lesions")
    shares = counts / counts.sum(axis=1, keepdims=True)
    names = (("true positive", "false negative"), ("false positive", "true negative"))
    with kit_figure(6.4, 5.6) as figure:
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
        for row, column in np.ndindex(2, 2):
            cell = f"{counts[row, column]:,}\n{names[row][column]}\n{shares[row, column]:.1%}"
            colour = "white" if shares[row, column] < 0.55 else "black"
            axes.text(column, row, cell, ha="center", va="center", fontsize=16, color=colour)
        axes.set_xticks([0, 1], ["flagged", "not flagged"])
        axes.set_yticks([0, 1], ["melanoma", "other lesion"], rotation=90, va="center")
        axes.tick_params(length=0)
        axes.set_title(f"{counts.sum():,} images at threshold {point.threshold:.3g}")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    cells = ", ".join(f"{name} {count:,}" for name, count in zip(np.ravel(names), counts.ravel(), strict=True))
    return with_alt_text(figure, f"Confusion matrix at threshold {point.threshold:.3g}: {cells}.")


def reliability_figure(risks: Mapping[str, ArrayLike], targets: ArrayLike, bins: int = 10) -> DescribedFigure:
    """Observed share of melanomas against risk in bins of equal count, with the histogram of the risks below.

    Args:
        risks: by name, say before and after calibration; up to three, each ``(N,)`` in [0, 1].
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        bins: quantile bins of `reliability_bins`; bars are its Wilson intervals.
    """
    styles = ((VERMILLION, "s"), (BLUE, "o"), (GREEN, "^"))[: len(risks)]
    with kit_figure(7.0, 7.2) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle="--", label="perfect")
        said = []
        for (name, risk), (color, marker) in zip(risks.items(), styles, strict=True):
            table, error = reliability_bins(risk, targets, bins), expected_calibration_error(risk, targets, bins)
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
