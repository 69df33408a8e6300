"""What a run says of one case, and what that is worth: values that page and API put into words."""

from dataclasses import dataclass

import numpy as np

from melanoma_lib.evaluation import Interval, OperatingPoint, carry_risk, wilson_interval
from melanoma_lib.export.document import NOTE, Reading

ALIKE = (20, 100)  # fewest and most test cases that stand for those of similar risk


@dataclass(frozen=True)
class Patient:
    """What is known beside the image; None is not known.

    Attributes:
        age: years, in [0, 120].
        sex: one of the encoder's sexes.
        site: one of the encoder's sites.
    """

    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True)
class Case:
    """A picture made ready; nothing else of the upload is kept.

    Attributes:
        shown: for the page, uint8, shape ``(h, w, 3)``.
        pixels: for the network, float32, shape ``(3, S, S)``.
        notes: how it was read, where that is worth telling.
        warnings: in which respects it is unlike training.
    """

    shown: np.ndarray
    pixels: np.ndarray
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Similar:
    """Test cases whose risk is closest to the case's.

    Attributes:
        n: how many.
        n_melanoma: how many of them are melanomas.
        low: lowest of their risks.
        high: highest of their risks.
        observed: share of melanomas with its Wilson interval, which takes the images to be independent.
    """

    n: int
    n_melanoma: int
    low: float
    high: float
    observed: Interval


@dataclass(frozen=True)
class Answer:
    """What the run says of one case. Educational, not for diagnosis.

    Attributes:
        logit: the model's own output.
        probability: sigmoid of the logit, which the threshold refers to; of a focal loss it is no risk.
        risk: calibrated on validation; holds at that split's prevalence.
        flagged: ``probability >= threshold``.
        views: 1, or 8 with test-time augmentation.
        reading: calibration, operating point and test metrics in force.
        similar: what became of test cases of similar risk.
        notes: how the image was read.
        warnings: in which respects the image is unlike training; if there is one, the risk is nothing to rely on.
    """

    logit: float
    probability: float
    risk: float
    flagged: bool
    views: int
    reading: Reading
    similar: Similar
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def point(self) -> OperatingPoint:
        """Counts of the test split at the threshold."""
        counts = self.reading.test["at_threshold"]
        return OperatingPoint(self.reading.threshold, *(counts[name] for name in ("tp", "fp", "tn", "fn")))

    def rate(self, name: str) -> Interval:
        """``sensitivity`` or ``specificity`` on the test split, with its interval over patients."""
        fields = self.reading.test["at_threshold"][name]
        return Interval(**{key: np.nan if value is None else value for key, value in fields.items()})

    def risk_at(self, prevalence: float) -> float:
        """The risk carried to another prevalence, in (0, 1)."""
        return float(carry_risk(self.risk, self.reading.prevalence, prevalence))

    def to_dict(self, prevalence: float) -> dict:
        """Fit for JSON."""
        point = self.point
        return {
            "risk": self.risk,
            "risk_at_prevalence": self.risk_at(prevalence),
            "prevalence": prevalence,
            "validation_prevalence": self.reading.prevalence,
            "probability": self.probability,
            "logit": self.logit,
            "flagged": self.flagged,
            "threshold": self.reading.threshold,
            "rule": self.reading.rule,
            "sensitivity": self.rate("sensitivity").to_dict(),
            "specificity": self.rate("specificity").to_dict(),
            "ppv_at_prevalence": point.ppv_at(prevalence),
            "npv_at_prevalence": point.npv_at(prevalence),
            "similar_test_cases": {
                "n": self.similar.n,
                "melanomas": self.similar.n_melanoma,
                "risk_from": self.similar.low,
                "risk_to": self.similar.high,
                "observed": self.similar.observed.to_dict(),
            },
            "views": self.views,
            "reliable": not self.warnings,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "note": NOTE,
        }


def similar_cases(test: np.ndarray, risk: float) -> Similar:
    """The test cases whose risk is closest to a risk, an eighth of them within ``ALIKE``.

    Args:
        test: risk and target of the test cases, shape ``(n, 2)``.
        risk: in [0, 1].
    """
    n = min(len(test), int(np.clip(len(test) // 8, *ALIKE)))
    chosen = test[np.argsort(np.abs(test[:, 0] - risk), kind="stable")[:n]]
    k = int(chosen[:, 1].sum())
    return Similar(n, k, float(chosen[:, 0].min()), float(chosen[:, 0].max()), wilson_interval(k, n))
