"""Every decision a threshold makes: sort the scores once, then any threshold costs one binary search."""

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.evaluation.inputs import check_fraction, check_scores, check_targets
from melanoma_lib.evaluation.point import OperatingPoint


class OperatingCurve:
    """All operating points of one set of predictions.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``, both classes present.
        scores: the higher, the more likely melanoma; shape ``(N,)``, finite. Compared as float64.

    Attributes:
        thresholds: distinct scores, ascending, shape ``(K,)``.
        tp: melanomas with a score of at least ``thresholds[k]``, shape ``(K + 1,)``; the last entry flags nobody.
        fp: others with a score of at least ``thresholds[k]``, shape ``(K + 1,)``.
        n_positive: number of melanomas.
        n_negative: number of others.

    Raises:
        ValueError: for NaN, infinite, empty or mismatched input, targets other than 0 and 1, or one class only.

    Example:
        >>> curve = OperatingCurve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> curve.auroc, curve.at(0.4).sensitivity, curve.for_sensitivity(1.0).threshold
        (0.75, 0.5, 0.35)
    """

    def __init__(self, targets: ArrayLike, scores: ArrayLike) -> None:
        answers = check_targets(targets)
        values = check_scores(scores, answers.size)
        melanomas = np.sort(values[answers])
        values = np.sort(values)  # without the answers: an argsort that moves them along takes twice as long
        starts = np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)  # (K,) first row of each tie
        self.thresholds: NDArray[np.float64] = values[starts]
        at_each = np.bincount(self.thresholds.searchsorted(melanomas), minlength=starts.size)  # (K,)
        self.n_positive, self.n_negative = melanomas.size, values.size - melanomas.size
        self.tp: NDArray[np.int64] = self.n_positive - np.append(0, np.cumsum(at_each))
        self.fp: NDArray[np.int64] = values.size - np.append(starts, values.size) - self.tp

    @property
    def prevalence(self) -> float:
        """Share of melanomas in this sample."""
        return self.n_positive / (self.n_positive + self.n_negative)

    def at(self, threshold: float | NDArray[np.float64]) -> OperatingPoint:
        """The operating point at any threshold, or at an array of them (its rates are then arrays).

        Args:
            threshold: a score equal to it counts as positive; infinite ones flag nobody or everybody.

        Raises:
            ValueError: if a threshold is NaN.
        """
        if np.isnan(threshold).any():
            raise ValueError("threshold: expected a number, got NaN")
        rank = self.thresholds.searchsorted(threshold)
        tp, fp = self.tp[rank], self.fp[rank]
        if np.ndim(threshold) == 0:
            threshold, tp, fp = float(threshold), int(tp), int(fp)
        return OperatingPoint(threshold, tp=tp, fp=fp, tn=self.n_negative - fp, fn=self.n_positive - tp)

    def for_sensitivity(self, target: float) -> OperatingPoint:
        """The highest observed score that still finds the share ``target`` of melanomas: the fewest false alarms.

        Raises:
            ValueError: if ``target`` lies outside (0, 1].
        """
        check_fraction(target, "target sensitivity (the lowest score as threshold reaches 1)", one=True)
        return self.at(self.thresholds[np.flatnonzero(self.tp[:-1] / self.n_positive >= target)[-1]])

    def for_specificity(self, target: float) -> OperatingPoint:
        """The lowest observed score that still lets go the share ``target`` of the others: the most melanomas found.

        Raises:
            ValueError: if ``target`` lies outside (0, 1], or even the highest score as threshold misses it.
        """
        check_fraction(target, "target specificity", one=True)
        # Counts are compared as (n - fp) / n, the correctly rounded ratio, so that a target of 0.9 accepts 9 of 10.
        specificity = (self.n_negative - self.fp[:-1]) / self.n_negative
        if specificity[-1] < target:
            raise ValueError(
                f"target specificity: {target} is out of reach; the highest score as threshold, {self.thresholds[-1]:.6g}, "
                f"reaches {specificity[-1]:.6g} because {self.fp[-2]} of {self.n_negative} negatives share it"
            )
        return self.at(self.thresholds[np.flatnonzero(specificity >= target)[0]])

    def max_f1(self) -> OperatingPoint:
        """The observed score with the highest F1; among equals the lowest, which finds the most melanomas."""
        tp, fp = self.tp[:-1], self.fp[:-1]
        return self.at(self.thresholds[np.argmax(2 * tp / (tp + fp + self.n_positive))])

    def max_youden(self) -> OperatingPoint:
        """The observed score with the highest Youden index; among equals the lowest, which finds the most melanomas."""
        # Integers, so that equal indices compare as equal.
        return self.at(self.thresholds[np.argmax(self.tp[:-1] * self.n_negative - self.fp[:-1] * self.n_positive)])

    def min_cost(self, fn_cost: float, fp_cost: float, prevalence: float | None = None) -> OperatingPoint:
        """The observed score with the lowest expected cost a case; among equals the lowest.

        Expected cost = prevalence x (1 - sensitivity) x fn_cost + (1 - prevalence) x (1 - specificity) x fp_cost.

        Args:
            fn_cost: cost of a missed melanoma, above 0, in any unit.
            fp_cost: cost of a false alarm, above 0, in the same unit.
            prevalence: share of melanomas where the rule will be used; that of this sample if None.

        Raises:
            ValueError: if a cost is not a positive number, the prevalence not in (0, 1), or if flagging nobody costs
                less than any threshold does.
        """
        if not (0 < fn_cost < np.inf and 0 < fp_cost < np.inf):
            raise ValueError(f"costs: expected two positive numbers, got fn_cost={fn_cost}, fp_cost={fp_cost}")
        prevalence = self.prevalence if prevalence is None else check_fraction(prevalence, "prevalence")
        missed, alarmed = 1 - self.tp / self.n_positive, self.fp / self.n_negative
        cost = prevalence * missed * fn_cost + (1 - prevalence) * alarmed * fp_cost
        best = int(np.argmin(cost[:-1]))
        if cost[-1] < cost[best]:
            raise ValueError(
                f"no threshold earns its false alarms: flagging nobody costs {cost[-1]:.4g} a case, the best threshold "
                f"({self.thresholds[best]:.6g}) {cost[best]:.4g}; raise fn_cost or prevalence, or lower fp_cost"
            )
        return self.at(self.thresholds[best])

    @cached_property
    def auroc(self) -> float:
        """Chance that a melanoma scores above another case, ties counting half (Mann-Whitney)."""
        melanomas, others = -np.diff(self.tp), -np.diff(self.fp)  # (K,) at each distinct score
        wins = melanomas * (2 * (self.n_negative - self.fp[:-1]) + others)
        return float(wins.sum() / (2 * self.n_positive * self.n_negative))

    @cached_property
    def average_precision(self) -> float:
        """Sum of precision times gain in recall over the distinct scores, without interpolation (as scikit-learn)."""
        return float((-np.diff(self.tp) * (self.tp[:-1] / (self.tp[:-1] + self.fp[:-1]))).sum() / self.n_positive)

    def partial_auroc(self, min_sensitivity: float = 0.8, standardised: bool = False) -> float:
        """Area under the ROC curve and above a sensitivity.

        The raw area lies in [0, 1 - min_sensitivity], half of (1 - min_sensitivity) squared by chance; this is the
        convention of the ISIC 2024 challenge. ``standardised=True`` rescales it after McClish (1989), chance 0.5 and
        perfect 1: what scikit-learn's ``roc_auc_score(1 - targets, -scores, max_fpr=1 - min_sensitivity)`` returns.
        Scikit-learn's plain ``max_fpr`` bounds the false-positive rate instead and is another quantity.

        Raises:
            ValueError: if ``min_sensitivity`` lies outside [0, 1).
        """
        width = 1 - check_fraction(min_sensitivity, "min_sensitivity", zero=True)
        missed, specificity = 1 - self.tp / self.n_positive, 1 - self.fp / self.n_negative  # (K+1,) ascending
        inside = int(np.searchsorted(missed, width, side="right"))
        if inside < missed.size:
            step = (width - missed[inside - 1]) / (missed[inside] - missed[inside - 1])
            edge = specificity[inside - 1] + step * (specificity[inside] - specificity[inside - 1])
            missed, specificity = np.append(missed[:inside], width), np.append(specificity[:inside], edge)
        area = float(np.trapezoid(specificity, missed))
        return 0.5 * (1 + (area - width**2 / 2) / (width - width**2 / 2)) if standardised else area

    def net_benefit(self, thresholds: ArrayLike) -> NDArray[np.float64]:
        """Melanomas found a case, less false alarms at the exchange rate that the threshold implies.

        Net benefit = tp / n - fp / n x t / (1 - t) (Vickers and Elkin 2006). It means something only if the scores are
        risks, so calibrate first. Removing every lesion has ``prevalence - (1 - prevalence) * t / (1 - t)``, none 0.

        Args:
            thresholds: risks in [0, 1), shape ``(T,)``.

        Returns:
            Net benefit a case, shape ``(T,)``, at most the prevalence.

        Raises:
            ValueError: if a score lies outside [0, 1] or a threshold outside [0, 1).
        """
        risks = np.asarray(thresholds, dtype=np.float64)
        if not ((risks >= 0) & (risks < 1)).all():
            raise ValueError(f"thresholds: expected risks in [0, 1), got {risks.min():.4g} to {risks.max():.4g}")
        if self.thresholds[0] < 0 or self.thresholds[-1] > 1:
            raise ValueError(
                f"net benefit: expected scores that are risks in [0, 1], got {self.thresholds[0]:.4g} to "
                f"{self.thresholds[-1]:.4g}; calibrate the logits first"
            )
        points = self.at(risks)
        return (points.tp - points.fp * risks / (1 - risks)) / (self.n_positive + self.n_negative)

    def roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """False-positive rate, sensitivity and threshold, each ``(K + 1,)``, from nobody flagged to everybody."""
        return (
            self.fp[::-1] / self.n_negative,
            self.tp[::-1] / self.n_positive,
            np.append(self.thresholds, np.inf)[::-1],
        )

    def precision_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Precision and recall, each ``(K + 1,)``, closed by (1, 0), and their thresholds ``(K,)``, ascending."""
        tp, fp = self.tp[:-1], self.fp[:-1]
        return np.append(tp / (tp + fp), 1.0), self.tp / self.n_positive, self.thresholds
