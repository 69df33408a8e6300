"""Move a threshold and see what it decides: counts, rates, lesions, predictive values and net benefit, exact at any size."""

from typing import Any

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from melanoma_lib.evaluation import Calibrator, OperatingCurve, OperatingPoint
from melanoma_lib.plotting import BLUE, GREEN, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.widgets.base import HERE, Explorer, Number, script

ISIC_2020_PREVALENCE = 584 / 33_126  # melanomas among the training images of the challenge
BINS = 60  # of the score histograms
CURVE_POINTS = 150  # of ROC and precision-recall, along each axis


def preset_thresholds(curve: OperatingCurve) -> dict[str, float]:
    """The usual rules and the threshold that each chooses on these cases, whatever prevalence and costs the page is set to."""
    return {
        "0.5": 0.5,
        "sensitivity ≥ 90%": curve.for_sensitivity(0.90).threshold,
        "sensitivity ≥ 95%": curve.for_sensitivity(0.95).threshold,
        "Youden": curve.max_youden().threshold,
        "best F1": curve.max_f1().threshold,
    }


class ThresholdExplorer(Explorer):
    """A threshold slider over score histograms, ROC, precision-recall, counts, lesions, predictive values and net benefit.

    The page holds every distinct score with its cumulative counts and does all arithmetic itself, so that it answers within a
    frame for hundreds of thousands of predictions, and also in a file without a kernel (:meth:`save_page`).

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``, both classes present.
        scores: the higher, the more likely melanoma; shape ``(N,)``, in [0, 1].
        calibrator: from logit to risk, as ``run.calibrator``; without one the scores are taken for risks.
        threshold: where to start.
        prevalence: where the model would be used, in (0, 1); by default that of the cases. Sensitivity and specificity are taken
            to carry over, and the odds of a risk to shift with the odds of the prevalence (Saerens et al. 2002).
        fn_cost: cost of a false negative, above 0; like the three before and after it may be set, and follows the page.
        fp_cost: cost of a false positive, above 0, in the same unit.
        simple: whether to start with slider, counts, histogram and ROC curve alone; a button of the page shows the rest.

    Attributes:
        curve: operating points of the cases.

    Raises:
        ValueError: as `OperatingCurve`, if scores lie outside [0, 1], or if the calibrator's slope is not positive.
        traitlets.TraitError: if threshold, prevalence or a cost is out of range.
    """

    _esm = script("plot.js", "threshold_numbers.js", "threshold_plots.js", "threshold.js")
    _css = Explorer._css + (HERE / "threshold.css").read_text(encoding="utf-8")
    threshold = Number(0.5, min=0.0, max=1.0).tag(sync=True)
    prevalence = Number(0.5, min=1e-4, max=0.9999).tag(sync=True)
    fn_cost = Number(20.0, min=1e-6, max=1e9).tag(sync=True)
    fp_cost = Number(1.0, min=1e-6, max=1e9).tag(sync=True)
    simple = traitlets.Bool(True).tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)
    counts = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        targets: ArrayLike,
        scores: ArrayLike,
        calibrator: Calibrator | None = None,
        threshold: float = 0.5,
        prevalence: float | None = None,
        fn_cost: float = 20.0,
        fp_cost: float = 1.0,
        simple: bool = True,
    ) -> None:
        curve = OperatingCurve(targets, scores)
        if curve.thresholds[0] < 0 or curve.thresholds[-1] > 1:
            low, high = curve.thresholds[[0, -1]]
            raise ValueError(f"scores: expected values in [0, 1], got {low:.4g} to {high:.4g}; pass the sigmoid of a logit")
        if calibrator is not None and calibrator.slope <= 0:
            raise ValueError(f"calibrator: expected a positive slope, got {calibrator.slope:.4g}; check labels and training")
        prevalence = min(max(curve.prevalence, 1e-4), 0.9999) if prevalence is None else prevalence
        super().__init__(threshold=threshold, prevalence=prevalence, fn_cost=fn_cost, fp_cost=fp_cost, simple=simple)
        self.curve = curve
        self.facts = page_facts(curve, np.asarray(targets) == 1, np.asarray(scores, dtype=np.float64), calibrator)
        self.counts = packed_counts(curve)

    @property
    def point(self) -> OperatingPoint:
        """The operating point at the page's threshold."""
        return self.curve.at(self.threshold)

    def presets_figure(self) -> DescribedFigure:
        """Histogram and ROC curve with the usual thresholds marked, and what each decides."""
        curve, rules = self.curve, {"chosen": self.threshold} | preset_thresholds(self.curve)
        described = []
        with kit_figure(12.8, 6.6) as figure:
            scores, roc = figure.subplots(1, 2, width_ratios=(1.7, 1))
            for share, sign, colour in zip(self.facts["shares"], (1, -1), (VERMILLION, BLUE), strict=True):
                scores.bar((np.arange(BINS) + 0.5) / BINS, sign * np.array(share), 1 / BINS, color=colour)
            scores.axhline(0, color="black", linewidth=0.8)
            fpr, tpr, _ = curve.roc()
            roc.plot(fpr, tpr, color=ORANGE)
            for (name, threshold), marker in zip(rules.items(), "osD^vP", strict=True):
                point = curve.at(threshold)
                rates = f"sensitivity {point.sensitivity:.1%}, specificity {point.specificity:.1%}"
                described.append(f"{name}: threshold {threshold:.3f}, {rates}, PPV {point.ppv_at(self.prevalence):.1%}")
                place = {"color": GREEN, "marker": marker, "markersize": 10}
                scores.axvline(threshold, color=GREEN, linewidth=1.4, linestyle="--")
                scores.plot(threshold, 0, **place)
                roc.plot(1 - point.specificity, point.sensitivity, **place, linestyle="", label=described[-1])
            scores.set(xlim=(0, 1), xlabel="probability", ylabel="negatives  |  melanomas", title="Scores, share of each class")
            scores.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
            roc.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false-positive rate", aspect="equal")
            roc.set_title(f"ROC: sensitivity, AUROC {curve.auroc:.3f}")
            title = f"PPV at a prevalence of {self.prevalence:.1%}"
            figure.legend(loc="outside lower center", ncols=2, fontsize=10, title=title)
        said = "; ".join(described)
        return with_alt_text(figure, f"Score histograms and ROC curve (AUROC {curve.auroc:.3f}), usual thresholds: {said}.")


def packed_counts(curve: OperatingCurve) -> bytes:
    """The curve as bytes, little-endian: K thresholds as float64, then K + 1 true and K + 1 false positives as uint32."""
    parts = (curve.thresholds.astype("<f8"), curve.tp.astype("<u4"), curve.fp.astype("<u4"))
    return b"".join(part.tobytes() for part in parts)


def page_facts(curve: OperatingCurve, melanoma: np.ndarray, scores: np.ndarray, calibrator: Calibrator | None) -> dict[str, Any]:
    """What the page needs besides the counts: histograms, drawn curves, presets; all of it small."""
    shares = [np.histogram(scores[part], BINS, (0, 1))[0] / part.sum() for part in (melanoma, ~melanoma)]
    fpr, tpr, _ = curve.roc()
    precision, recall, _ = curve.precision_recall()
    roc, pr = _few(fpr, tpr), _few(recall[::-1], precision[::-1])
    return {
        "shares": [part.round(5).tolist() for part in shares],
        "roc": [fpr[roc].round(5).tolist(), tpr[roc].round(5).tolist()],
        "pr": [recall[::-1][pr].round(5).tolist(), precision[::-1][pr].round(5).tolist()],
        "auroc": curve.auroc,
        "average_precision": curve.average_precision,
        "presets": preset_thresholds(curve),
        "prevalences": {"these cases": curve.prevalence, "ISIC 2020": ISIC_2020_PREVALENCE},
        "calibration": None if calibrator is None else calibrator.to_dict(),
    }


def _few(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Positions of points that draw a curve as all of them would: spread over its length in both directions."""
    if len(x) <= 2 * CURVE_POINTS:
        return np.arange(len(x))
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    places = np.searchsorted(length, np.linspace(0, length[-1], 2 * CURVE_POINTS))
    return np.unique(np.concatenate([[0], places.clip(max=len(x) - 1), [len(x) - 1]]))
