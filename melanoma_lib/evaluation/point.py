"""What one threshold decides: the four counts, and every rate that follows from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.evaluation.inputs import check_fraction

METRICS = (
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "youden",
    "lr_positive",
    "lr_negative",
    "biopsies_per_melanoma",
)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> float | NDArray[np.float64]:
    """Quotient, NaN for 0/0 and infinite for a positive number over 0; a float for two numbers."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.true_divide(numerator, denominator)
    return ratio if ratio.ndim else float(ratio)


@dataclass(frozen=True)
class OperatingPoint:
    """Confusion counts at one threshold and every rate that follows from them.

    The fields may also be arrays of one shape (many thresholds, or many resamples): every rate is then an array.
    A ratio 0/0 is NaN; a positive number over 0 is infinite (`lr_positive` without false alarms,
    `biopsies_per_melanoma` when none is found).

    Args:
        threshold: a case with ``score >= threshold`` is called melanoma.
        tp: melanomas called melanoma.
        fp: others called melanoma.
        tn: others let go.
        fn: melanomas let go.

    Raises:
        ValueError: if a count is negative.

    Example:
        >>> OperatingPoint(threshold=0.5, tp=9, fp=3, tn=87, fn=1).sensitivity
        0.9
    """

    threshold: float
    tp: int
    fp: int
    tn: int
    fn: int

    def __post_init__(self) -> None:
        if min(np.min(self.tp), np.min(self.fp), np.min(self.tn), np.min(self.fn)) < 0:
            raise ValueError(f"counts: expected none below 0, got tp={self.tp} fp={self.fp} tn={self.tn} fn={self.fn}")

    @property
    def sensitivity(self) -> float:
        """Share of melanomas found (recall)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of the others let go."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float:
        """Share of alarms that are melanoma, at the prevalence of this sample (precision)."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> float:
        """Share of all-clears that are right, at the prevalence of this sample."""
        return ratio(self.tn, self.tn + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and PPV; 0 where no melanoma is found."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of right answers; "all benign" scores one minus the prevalence."""
        return ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def mcc(self) -> float:
        """Matthews correlation, -1 to 1; NaN (not 0, as scikit-learn has it) where a row or column is empty."""
        # Two square roots of two factors: the product of four counts overflows int64 from 60,000 cases on.
        called, let_go = np.float64(self.tp + self.fp), np.float64(self.tn + self.fn)
        spread = np.sqrt(called * (self.tp + self.fn)) * np.sqrt(let_go * (self.tn + self.fp))
        return ratio(np.float64(self.tp) * self.tn - np.float64(self.fp) * self.fn, spread)

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1 (Youden 1950)."""
        return self.sensitivity + self.specificity - 1

    @property
    def lr_positive(self) -> float:
        """Factor by which an alarm multiplies the odds of melanoma."""
        return ratio(self.sensitivity, ratio(self.fp, self.tn + self.fp))

    @property
    def lr_negative(self) -> float:
        """Factor by which an all-clear multiplies the odds of melanoma."""
        return ratio(ratio(self.fn, self.tp + self.fn), self.specificity)

    @property
    def biopsies_per_melanoma(self) -> float:
        """Lesions removed for each melanoma found, if every alarm is removed (number needed to excise)."""
        return ratio(self.tp + self.fp, self.tp)

    def ppv_at(self, prevalence: float) -> float:
        """PPV where melanoma has another prevalence, by Bayes' rule; sensitivity and specificity are taken to carry over.

        Raises:
            ValueError: if ``prevalence`` lies outside [0, 1].
        """
        prevalence = check_fraction(prevalence, "prevalence", zero=True, one=True)
        found = self.sensitivity * prevalence
        return ratio(found, found + (1 - self.specificity) * (1 - prevalence))

    def npv_at(self, prevalence: float) -> float:
        """NPV where melanoma has another prevalence, by Bayes' rule; sensitivity and specificity are taken to carry over.

        Raises:
            ValueError: if ``prevalence`` lies outside [0, 1].
        """
        prevalence = check_fraction(prevalence, "prevalence", zero=True, one=True)
        cleared = self.specificity * (1 - prevalence)
        return ratio(cleared, cleared + (1 - self.sensitivity) * prevalence)

    def per_thousand(self, prevalence: float | None = None) -> "OperatingPoint":
        """The same rates among 1,000 lesions, in whole lesions (or images, or people: whatever was counted).

        Args:
            prevalence: share of melanomas among them; that of these counts if None.

        Raises:
            ValueError: if a class is empty or ``prevalence`` lies outside (0, 1).
        """
        if self.tp + self.fn == 0 or self.tn + self.fp == 0:
            raise ValueError(f"expected both classes, got tp={self.tp} fp={self.fp} tn={self.tn} fn={self.fn}")
        own = (self.tp + self.fn) / (self.tp + self.fp + self.tn + self.fn)
        prevalence = own if prevalence is None else check_fraction(prevalence, "prevalence")
        melanomas = round(1000 * prevalence)
        tp, fp = round(melanomas * self.sensitivity), round((1000 - melanomas) * (1 - self.specificity))
        return OperatingPoint(self.threshold, tp, fp, tn=1000 - melanomas - fp, fn=melanomas - tp)

    def to_dict(self) -> dict[str, float | int | None]:
        """Threshold, counts and rates, fit for JSON: what is NaN or infinite becomes None."""
        numbers = {"threshold": self.threshold} | {name: getattr(self, name) for name in METRICS}
        counts = {name: int(getattr(self, name)) for name in ("tp", "fp", "tn", "fn")}
        return counts | {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}
