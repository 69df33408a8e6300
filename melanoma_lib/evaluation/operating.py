"""What a threshold decides: four counts and the rates that follow, at any threshold for one binary search."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array


def check_targets(targets: ArrayLike, both_classes: bool = True) -> NDArray[np.bool_]:
    """Turn 0/1 answers of shape ``(N,)`` into booleans; ValueError if they are empty, anything else, or of one class only."""
    array = np.asarray(targets)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"targets: expected a non-empty array of shape (N,), got shape {array.shape}")
    answers = array == 1
    if (wrong := ~(answers | (array == 0))).any():
        where = int(np.argmax(wrong))
        raise ValueError(f"targets: expected only 0 and 1, got {array[where]!r} at position {where}")
    if both_classes and (answers.all() or not answers.any()):
        raise ValueError(f"targets: expected both classes, got {int(answers.sum())} melanomas among {answers.size} cases")
    return answers


def check_scores(scores: ArrayLike, n: int, name: str = "scores", unit_interval: bool = False) -> NDArray[np.float64]:
    """Turn scores into float64; ValueError if they are not of shape ``(n,)``, finite and, on request, in [0, 1]."""
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},) to match targets, got {array.shape}")
    if (wrong := ~np.isfinite(array)).any():
        where = int(np.argmax(wrong))
        raise ValueError(f"{name}: expected finite numbers, got {array[where]} at position {where} ({wrong.sum()} in all)")
    if unit_interval and (array.min() < 0 or array.max() > 1):
        raise ValueError(f"{name}: expected probabilities in [0, 1], got {array.min():.4g} to {array.max():.4g}")
    return array


def require_columns(table: pd.DataFrame, columns: tuple[str, ...], name: str = "predictions") -> None:
    """Refuse what is no table (TypeError), lacks a column or has no rows (ValueError)."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{name}: expected a DataFrame, one row an image, got {type(table).__name__}")
    if missing := [column for column in columns if column not in table.columns]:
        raise ValueError(f"{name}: expected columns {list(columns)}, missing {missing}; got {list(table.columns)}")
    if table.empty:
        raise ValueError(f"{name}: expected at least one row, got an empty table")


def _fraction(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value}")
    return value


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> float | NDArray[np.float64]:
    """Quotient, NaN for 0/0 and infinite for a positive number over 0; a float for two numbers."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.true_divide(numerator, denominator)
    return ratio if ratio.ndim else float(ratio)


@dataclass(frozen=True)
class OperatingPoint:
    """Confusion counts at one threshold and every rate that follows; fields that are arrays (many thresholds) give arrays.

    A ratio 0/0 is NaN; a positive number over 0 is infinite.
    """

    threshold: float  # a case with score >= threshold is flagged
    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def sensitivity(self) -> float:
        """Share of the melanomas that are flagged (recall)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of the negatives that are not flagged."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float:
        """Share of the flagged that are melanomas (precision), at the prevalence of this sample."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> float:
        """Share of those not flagged that are negatives, at the prevalence of this sample."""
        return ratio(self.tn, self.tn + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and PPV; 0 without true positives."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of right answers; "never melanoma" scores one minus the prevalence."""
        return ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def mcc(self) -> float:
        """Matthews correlation, -1 to 1; NaN (not 0, as scikit-learn has it) where a row or column is empty."""
        # Two square roots of two factors: the product of four counts overflows int64 from 60,000 cases on.
        positive, negative = np.float64(self.tp + self.fp), np.float64(self.tn + self.fn)
        spread = np.sqrt(positive * (self.tp + self.fn)) * np.sqrt(negative * (self.tn + self.fp))
        return ratio(np.float64(self.tp) * self.tn - np.float64(self.fp) * self.fn, spread)

    @property
    def biopsies_per_melanoma(self) -> float:
        """Lesions removed for each true positive, if all flagged ones are (number needed to excise)."""
        return ratio(self.tp + self.fp, self.tp)

    def ppv_at(self, prevalence: float) -> float:
        """PPV at another prevalence in [0, 1], by Bayes' rule; sensitivity and specificity carry over."""
        true = self.sensitivity * _fraction(prevalence, "prevalence")
        return ratio(true, true + (1 - self.specificity) * (1 - prevalence))

    def npv_at(self, prevalence: float) -> float:
        """NPV, likewise."""
        true = self.specificity * (1 - _fraction(prevalence, "prevalence"))
        return ratio(true, true + (1 - self.sensitivity) * prevalence)

    def per_thousand(self, prevalence: float) -> "OperatingPoint":
        """The same rates among 1,000 lesions of this prevalence, in whole ones; both classes must be there."""
        melanomas = round(1000 * _fraction(prevalence, "prevalence"))
        tp, fp = round(melanomas * self.sensitivity), round((1000 - melanomas) * (1 - self.specificity))
        return OperatingPoint(self.threshold, tp, fp, tn=1000 - melanomas - fp, fn=melanomas - tp)


class OperatingCurve:
    """All operating points of one set of predictions.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``, both classes present.
        scores: the higher, the more likely melanoma; shape ``(N,)``, finite. Compared as float64.

    Attributes:
        thresholds: distinct scores, ascending, shape ``(K,)``.
        tp, fp: melanomas, and negatives, that ``thresholds[k]`` flags, shape ``(K + 1,)``; the last entry flags nobody.
        n_positive, n_negative: numbers of melanomas and negatives.

    Example:
        >>> curve = OperatingCurve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> curve.auroc, curve.at(0.4).sensitivity, curve.for_sensitivity(1.0).threshold
        (0.75, 0.5, 0.35)
    """

    def __init__(self, targets: ArrayLike, scores: ArrayLike) -> None:
        answers = check_targets(targets)
        values = check_scores(scores, answers.size)
        melanomas = np.sort(values[answers])
        values = np.sort(values)
        self.thresholds, starts = np.unique(values, return_index=True)  # (K,); first row of each tie
        at_each = np.bincount(self.thresholds.searchsorted(melanomas), minlength=starts.size)  # (K,)
        self.n_positive, self.n_negative = melanomas.size, values.size - melanomas.size
        self.tp: NDArray[np.int64] = self.n_positive - np.append(0, np.cumsum(at_each))
        self.fp: NDArray[np.int64] = values.size - np.append(starts, values.size) - self.tp

    @property
    def prevalence(self) -> float:
        """Share of melanomas in this sample."""
        return self.n_positive / (self.n_positive + self.n_negative)

    def at(self, threshold: float) -> OperatingPoint:
        """The operating point at any threshold but NaN; a score equal to it is flagged."""
        if np.isnan(threshold):
            raise ValueError("threshold: expected a number, got NaN")
        rank = self.thresholds.searchsorted(threshold)
        tp, fp = int(self.tp[rank]), int(self.fp[rank])
        return OperatingPoint(float(threshold), tp=tp, fp=fp, tn=self.n_negative - fp, fn=self.n_positive - tp)

    def for_sensitivity(self, target: float) -> OperatingPoint:
        """The highest observed score that flags the share ``target`` of the melanomas: the fewest false positives."""
        reached = np.flatnonzero(self.tp[:-1] / self.n_positive >= _fraction(target, "target sensitivity"))
        return self.at(self.thresholds[reached[-1]])

    def for_specificity(self, target: float) -> OperatingPoint:
        """The lowest observed score at which specificity reaches ``target``; just above the highest where none does."""
        specificity = (self.n_negative - self.fp[:-1]) / self.n_negative
        reached = np.flatnonzero(specificity >= _fraction(target, "target specificity"))
        return self.at(self.thresholds[reached[0]] if len(reached) else np.nextafter(self.thresholds.max(), np.inf))

    def max_f1(self) -> OperatingPoint:
        """The observed score with the highest F1; among equals the lowest, which flags the most melanomas."""
        return self.at(self.thresholds[np.argmax((2 * self.tp / (self.tp + self.fp + self.n_positive))[:-1])])

    def max_youden(self) -> OperatingPoint:
        """The observed score with the highest Youden index; among equals the lowest, which flags the most melanomas."""
        # Integers, so that equal indices compare as equal.
        return self.at(self.thresholds[np.argmax(self.tp[:-1] * self.n_negative - self.fp[:-1] * self.n_positive)])

    @cached_property
    def auroc(self) -> float:
        """Chance that a melanoma scores above another case, ties counting half (Mann-Whitney)."""
        from sklearn.metrics import auc

        fpr, sensitivity, _ = self.roc()
        return float(auc(fpr, sensitivity))

    @cached_property
    def average_precision(self) -> float:
        """Sum of precision times gain in recall over the distinct scores, without interpolation (as scikit-learn)."""
        return float((-np.diff(self.tp) * (self.tp[:-1] / (self.tp[:-1] + self.fp[:-1]))).sum() / self.n_positive)

    def roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """False-positive rate, sensitivity and threshold, each ``(K + 1,)``, from nobody flagged to everybody."""
        return self.fp[::-1] / self.n_negative, self.tp[::-1] / self.n_positive, np.append(self.thresholds, np.inf)[::-1]

    def precision_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Precision and recall, each ``(K + 1,)``, closed by (1, 0), and their thresholds ``(K,)``, ascending."""
        tp, fp = self.tp[:-1], self.fp[:-1]
        return np.append(tp / (tp + fp), 1.0), self.tp / self.n_positive, self.thresholds


class Ranking:
    """AUROC and average precision of many resamples at once: per group, how many negatives lie between the melanomas' scores.

    Counts are float64, exact to 2**53, because that is what matrices multiply fast.
    """

    def __init__(self, answers: NDArray[np.bool_], scores: NDArray[np.float64], codes: NDArray[np.intp]) -> None:
        levels, melanomas = np.unique(scores[answers], return_inverse=True)  # (K,), (P,)
        negatives = scores[~answers]
        # Even: below level k and above the one before; odd: equal to it.
        places = levels.searchsorted(negatives, side="left") + levels.searchsorted(negatives, side="right")  # (Q,) 0 to 2K
        self.n_groups = int(codes.max()) + 1

        def counted(rows: NDArray, groups: NDArray, n_rows: int) -> csr_array:
            return csr_array((np.ones(rows.size), (rows, groups)), shape=(n_rows, self.n_groups))

        self.melanomas = counted(melanomas, codes[answers], levels.size)
        self.negatives = counted(places, codes[~answers], 2 * levels.size + 1)

    def metrics(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """AUROC and average precision with group g counted ``weights[b, g]`` times: ``(B, G)`` to ``(2, B)``."""
        drawn = np.ascontiguousarray(weights[:, : self.n_groups].T, dtype=np.float64)  # (G, B)
        melanomas = self.melanomas @ drawn  # (K, B)
        negatives = np.cumsum(self.negatives @ drawn, axis=0)  # (2K+1, B)
        below, through, n_negatives = negatives[:-1:2], negatives[1::2], negatives[-1]
        wins = (melanomas * (below + through)).sum(axis=0) / 2
        found = np.cumsum(melanomas[::-1], axis=0)[::-1]  # (K, B) at this score or above
        n_melanomas = found[0]
        # A melanoma that was not drawn may stand where nobody is flagged: its precision is 0/0 but its weight 0.
        precision = found / np.maximum(found + n_negatives - below, 1)
        with np.errstate(invalid="ignore"):
            average_precision = np.where(n_negatives > 0, (melanomas * precision).sum(axis=0) / n_melanomas, np.nan)
            return np.stack([wins / (n_melanomas * n_negatives), average_precision])
