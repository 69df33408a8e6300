"""From scores to risks one can act on, and how far a risk can be believed."""

import logging
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from melanoma_lib.evaluation.intervals import Interval, group_bootstrap, group_codes, wilson_interval
from melanoma_lib.evaluation.operating import check_scores, check_targets

RISK_FLOOR = 1e-7  # risks are kept this far from 0 and 1 before their logit is taken: float32 sigmoids reach both
OVERLAP = 1e-6  # standard deviations by which two classes must overlap; less would give a slope of rounding errors

log = logging.getLogger(__name__)


def fit_logistic(x: NDArray[np.float64], ones: NDArray, zeros: NDArray) -> NDArray[np.float64]:
    """Slopes and intercepts of many logistic regressions on one variable, by maximum likelihood.

    Each of the N values of ``x`` counts ``ones[b, n]`` times as a melanoma and ``zeros[b, n]`` times as a negative, also in part.
    Gives shape ``(2, B)``; NaN where ``x`` is constant, or a threshold on it separates the classes, because the likelihood then
    has no maximum (Albert and Anderson 1984).
    """
    from sklearn.linear_model import LogisticRegression

    centre, scale = x.mean(), x.std() or 1.0
    scaled, answers = np.tile((x - centre) / scale, 2), np.repeat([1, 0], x.size)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    fits = np.full((2, len(ones)), np.nan)
    for number, weights in enumerate(np.concatenate([ones, zeros], axis=1)):
        z, y, w = (values[weights > 0] for values in (scaled, answers, weights))
        melanomas, negatives = z[y == 1], z[y == 0]
        gap = min(melanomas.size, negatives.size) and min(negatives.max() - melanomas.min(), melanomas.max() - negatives.min())
        if gap > OVERLAP:
            model.fit(z[:, None], y, w)
            slope = model.coef_.item() / scale
            fits[:, number] = slope, model.intercept_.item() - slope * centre
    return fits


@dataclass(frozen=True)
class Calibrator:
    """Logistic recalibration: ``risk = sigmoid(slope * logit + intercept)`` (Cox 1958, Platt 1999).

    Both numbers are needed: a focal loss or a weighted sampler shifts the logits, and a temperature cannot undo a shift.
    """

    slope: float  # below 1 where the model is too sure of itself; 0 gives every case one risk
    intercept: float  # on the log-odds scale

    @classmethod
    def fit(cls, logits: ArrayLike, targets: ArrayLike) -> "Calibrator":
        """Fit on validation predictions by maximum likelihood, among slopes of at least 0.

        Where a threshold on the logits separates the classes, no maximum exists; the answers are then smoothed after Platt
        (1999), to (P + 1) / (P + 2) for P melanomas and 1 / (Q + 2) for Q negatives. Where higher logits go with fewer melanomas,
        or all are equal, the best slope is 0: every case gets the prevalence as its risk. The log warns of either.
        ``logits`` and ``targets`` have shape ``(N,)``; both classes must be present.
        """
        answers = check_targets(targets)
        x = check_scores(logits, answers.size, "logits")

        def fitted(share: NDArray) -> list[float]:
            return fit_logistic(x, share[None], 1 - share[None])[:, 0].tolist()

        slope, intercept = fitted(answers.astype(float))
        if np.isnan(slope) and x.min() < x.max():
            n_melanomas, n_negatives = int(answers.sum()), int((~answers).sum())
            told = "calibration: the logits separate %d melanomas from %d negatives: no slope is best, smoothed answers do"
            log.warning(told, n_melanomas, n_negatives)
            slope, intercept = fitted(np.where(answers, (n_melanomas + 1) / (n_melanomas + 2), 1 / (n_negatives + 2)))
        if slope > 0:
            return cls(slope, intercept)
        reason = f"the slope {slope:.3g} is not positive (melanomas score lower)" if slope <= 0 else "the logits are all equal"
        log.warning("calibration: %s, so every case gets the prevalence as its risk. Check labels and training.", reason)
        return cls(0.0, float(logit(answers.mean())))

    def risk(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Calibrated risk in [0, 1] of logits of any shape; ValueError if the slope is negative, as in some old runs."""
        if self.slope < 0:
            told = "its risks would reverse the model's ranking. Check the labels, and train this run again"
            raise ValueError(f"calibrator: expected a slope of at least 0, got {self.slope:.4g}: {told}")
        return expit(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept)

    def to_dict(self) -> dict[str, float]:
        """Fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: dict[str, float]) -> "Calibrator":
        """Undo `to_dict`; ValueError if the keys are not slope and intercept, or a value is not finite."""
        if set(numbers) != {"slope", "intercept"} or not np.isfinite(list(numbers.values())).all():
            raise ValueError(f"calibrator: expected finite 'slope' and 'intercept', got {numbers}")
        return cls(float(numbers["slope"]), float(numbers["intercept"]))


def adjust_for_prevalence(risk: ArrayLike, here: float, there: float) -> NDArray[np.float64]:
    """A risk among cases of one prevalence, carried to cases of another: the prior changes, the evidence does not.

    ``odds there = odds here * [there / (1 - there)] / [here / (1 - here)]`` (Saerens et al. 2002).
    """
    risk = np.asarray(risk, dtype=np.float64)
    melanoma, other = risk * there / here, (1 - risk) * (1 - there) / (1 - here)
    return melanoma / (melanoma + other)


carry_risk = adjust_for_prevalence  # its former name


def bootstrap_calibration(
    risk: ArrayLike, targets: ArrayLike, groups: ArrayLike, n: int = 500, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of "slope" and "intercept" of the answers on the logit of the risk, resampling whole groups.

    A slope of 1 and an intercept of 0 mean calibrated; a slope below 1 means risks too extreme. Both come from one joint fit
    (Cox 1958), so ``sigmoid(slope * logit(risk) + intercept)`` is the better risk. NaN where risks separate the classes without
    error or are all equal. Every resample is a fit of its own, hence fewer of them than in `rate_intervals`.
    """
    answers = check_targets(targets)
    values = check_scores(risk, answers.size, "risk", unit_interval=True)
    codes, n_groups = group_codes(groups, answers.size)
    x = logit(np.clip(values, RISK_FLOOR, 1 - RISK_FLOOR))

    def fits(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        weights = drawn[:, codes]  # (B, N)
        return fit_logistic(x, weights * answers, weights * ~answers)

    sample, replicates = group_bootstrap(fits, n_groups, n, seed)
    return {name: Interval.from_replicates(sample[k], replicates[k]) for k, name in enumerate(("slope", "intercept"))}


def reliability_bins(risk: ArrayLike, targets: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Observed share of melanomas where the risk, shape ``(N,)`` in [0, 1], says so much, in bins of about as many cases each.

    Returns:
        One row a bin by rising risk: n, n_melanoma, mean_risk, observed, and the Wilson interval low, high, which takes
        the images to be independent. Equal risks are never split, so there may be fewer bins.
    """
    answers = check_targets(targets, both_classes=False)
    values = check_scores(risk, answers.size, "risk", unit_interval=True)
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    cases = pd.DataFrame({"bin": np.searchsorted(edges, values, side="right"), "risk": values, "target": answers})
    table = cases.groupby("bin").agg(
        n=("target", "size"), n_melanoma=("target", "sum"), mean_risk=("risk", "mean"), observed=("target", "mean")
    )
    intervals = [wilson_interval(k, n) for k, n in zip(table["n_melanoma"], table["n"], strict=True)]
    return table.assign(low=[i.low for i in intervals], high=[i.high for i in intervals]).reset_index(drop=True)


def expected_calibration_error(risk: ArrayLike, targets: ArrayLike, bins: int = 10) -> float:
    """Mean distance between risk and observed share over the bins of `reliability_bins`, weighted by their cases.

    It depends on the binning, and is above 0 even for a perfectly calibrated model of a finite sample (Naeini et al. 2015, who
    use equal widths; equal counts keep rare high risks from ruling it).
    """
    table = reliability_bins(risk, targets, bins)
    return float((table["n"] * (table["mean_risk"] - table["observed"]).abs()).sum() / table["n"].sum())
