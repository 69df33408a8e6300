"""From scores to risks one can act on, and how far a risk can be believed."""

import warnings
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from melanoma_lib.evaluation.inputs import check_scores, check_targets
from melanoma_lib.evaluation.intervals import BLOCK, Interval, group_bootstrap, group_codes, wilson_interval

RISK_FLOOR = 1e-7  # risks are kept this far from 0 and 1 before their logit is taken: float32 sigmoids reach both


def fit_logistic(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slopes and intercepts of many weighted logistic regressions on one variable, by damped Newton steps.

    Own code because a bootstrap fits a thousand of them: on 2,000 cases 1.3 ms each, scikit-learn's best solver takes 4 ms.

    Args:
        x: the variable, shape ``(N,)``.
        y: answers in [0, 1], shape ``(N,)``; fractions are allowed.
        weights: how much each case counts in each regression, shape ``(B, N)``, at least 0.

    Returns:
        Slopes and intercepts, shape ``(B,)`` each; NaN where ``x`` is constant, or a threshold on it separates the classes,
        because the likelihood then has no maximum (Albert and Anderson 1984).

    Raises:
        ValueError: if 100 steps do not converge.
    """
    centre, scale = x.mean(), x.std() or 1.0
    design = np.stack([(x - centre) / scale, np.ones_like(x)])  # (2, N)
    products = (design[:, None] * design[None]).reshape(4, -1).T  # (N, 4) for the curvature
    slopes, intercepts = np.full((2, len(weights)), np.nan)
    fits = _overlap(x, weights * y, weights * (1 - y))
    w = weights[fits] / weights[fits].sum(axis=1, keepdims=True)

    def loss(beta: NDArray[np.float64]) -> NDArray[np.float64]:
        eta = beta @ design  # (B, N)
        return (w * (np.logaddexp(0, eta) - y * eta)).sum(axis=1)

    beta = np.stack([np.zeros(len(w)), logit(w @ y)], axis=1)  # (B, 2), the prevalence as start
    current = loss(beta)
    for _ in range(100):
        p = expit(beta @ design)
        # The tiny ridge keeps the solve regular where risks saturate; it slows the step but does not move the goal.
        curvature = (w * p * (1 - p) @ products).reshape(-1, 2, 2) + 1e-18 * np.eye(2)
        step = np.linalg.solve(curvature, ((w * (p - y)) @ design.T)[:, :, None])[:, :, 0]
        after = loss(beta - step)
        while (worse := after > current + 1e-12).any():  # Newton overshoots where the loss is flat
            step[worse] /= 2
            after = loss(beta - step)
        beta, current = beta - step, after
        if (np.abs(step) < 1e-8 * (1 + np.abs(beta))).all():  # the error left is of the order of its square
            slopes[fits] = beta[:, 0] / scale
            intercepts[fits] = beta[:, 1] - slopes[fits] * centre
            return slopes, intercepts
    raise ValueError(f"logistic regression did not converge in 100 steps; last step {np.abs(step).max():.3g}")


def _overlap(x: NDArray[np.float64], ones: NDArray[np.float64], zeros: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether no threshold on ``x`` separates what counts as one from what counts as zero; weights ``(B, N)`` to ``(B,)``.

    An overlap below a millionth of the standard deviation counts as none: its slope would be rounding error.
    """
    (lowest_one, highest_one), (lowest_zero, highest_zero) = (
        (np.where(kind > 0, x, np.inf).min(axis=1), np.where(kind > 0, x, -np.inf).max(axis=1)) for kind in (ones, zeros)
    )
    margin = 1e-6 * x.std()
    return (lowest_one + margin < highest_zero) & (lowest_zero + margin < highest_one)


@dataclass(frozen=True)
class Calibrator:
    """Logistic recalibration: ``risk = sigmoid(slope * logit + intercept)`` (Cox 1958, Platt 1999).

    Both numbers are needed: a focal loss or a weighted sampler shifts the logits, and a temperature cannot undo a shift.

    Args:
        slope: below 1 where the model is too sure of itself; 0 gives every case one risk.
        intercept: on the log-odds scale.

    Example:
        >>> float(Calibrator(slope=0.5, intercept=0.0).risk(np.array([0.0]))[0])
        0.5
    """

    slope: float
    intercept: float

    @classmethod
    def fit(cls, logits: ArrayLike, targets: ArrayLike) -> "Calibrator":
        """Fit on validation predictions by maximum likelihood in float64, among slopes of at least 0.

        Where a threshold on the logits separates the classes, no maximum exists; the answers are then smoothed after Platt
        (1999), to (P + 1) / (P + 2) for P melanomas and 1 / (Q + 2) for Q others, and a UserWarning says so. Where higher
        logits go with fewer melanomas, or all are equal, the best slope of at least 0 is 0: every case gets the prevalence
        as its risk, and a UserWarning says so. A risk that reverses the model's ranking is never fitted.

        Args:
            logits: shape ``(N,)``, finite.
            targets: 1 melanoma, 0 not; shape ``(N,)``, both classes present.

        Raises:
            ValueError: for NaN, infinite, empty, one-class or mismatched input.
        """
        answers = check_targets(targets)
        x = check_scores(logits, answers.size, "logits")
        y, once = answers.astype(np.float64), np.ones((1, x.size))
        if x.min() < x.max() and not _overlap(x, once * y, once * (1 - y))[0]:
            n_melanomas, n_others = int(answers.sum()), int((~answers).sum())
            y = np.where(answers, (n_melanomas + 1) / (n_melanomas + 2), 1 / (n_others + 2))
            warnings.warn(
                f"the logits separate {n_melanomas} melanomas from {n_others} others without error, so the slope has no "
                "maximum-likelihood value; calibrated on Platt's smoothed answers instead. Risks rest on that choice: "
                "get more validation cases.",
                stacklevel=2,
            )
        slope, intercept = (float(values[0]) for values in fit_logistic(x, y, once))  # NaN if all are equal
        if slope > 0:
            return cls(slope, intercept)
        equal = "the logits are all equal" if x.min() == x.max() else "no slope can be fitted to such logits"
        reason = f"the slope {slope:.3g} is not positive (melanomas score lower)" if slope <= 0 else equal
        warnings.warn(
            f"calibration: {reason}, so every case gets the prevalence, {answers.mean():.3g}, as its risk. "
            "Check labels and training.",
            stacklevel=2,
        )
        return cls(0.0, float(logit(answers.mean())))

    def risk(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Calibrated risk in [0, 1] of logits of any shape.

        Raises:
            ValueError: if the slope is negative, as that of a run made before such fits were refused may be.
        """
        if self.slope < 0:
            raise ValueError(
                f"calibrator: expected a slope of at least 0, got {self.slope:.4g}: its risks would reverse the model's ranking. "
                "Check the labels and the training of this run, and train it again"
            )
        return expit(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept)

    def to_dict(self) -> dict[str, float]:
        """Fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: dict[str, float]) -> "Calibrator":
        """Undo `to_dict`.

        Raises:
            ValueError: if the keys are not slope and intercept, or a value is not finite.
        """
        if set(numbers) != {"slope", "intercept"} or not np.isfinite(list(numbers.values())).all():
            raise ValueError(f"calibrator: expected finite 'slope' and 'intercept', got {numbers}")
        return cls(float(numbers["slope"]), float(numbers["intercept"]))


def carry_risk(risk: ArrayLike, here: float, there: float) -> NDArray[np.float64]:
    """A risk among cases of one prevalence, carried to cases of another: the prior changes, the evidence does not.

    ``odds there = odds here * [there / (1 - there)] / [here / (1 - here)]`` (Saerens et al. 2002).

    Args:
        risk: in [0, 1], any shape.
        here: share of melanomas among the cases for which the risk holds, in (0, 1).
        there: share of melanomas among the others, in (0, 1).
    """
    risk = np.asarray(risk, dtype=np.float64)
    melanoma, other = risk * there / here, (1 - risk) * (1 - there) / (1 - here)
    return melanoma / (melanoma + other)


def bootstrap_calibration(
    risk: ArrayLike, targets: ArrayLike, groups: ArrayLike, n: int = 500, seed: int = 0
) -> dict[str, Interval]:
    """Slope and intercept of the answers on the logit of the risk, with intervals that resample whole groups.

    A slope of 1 and an intercept of 0 mean calibrated; a slope below 1 means risks too extreme. Both come from one joint fit
    (Cox 1958), so ``sigmoid(slope * logit(risk) + intercept)`` is the better risk. Risks are first kept 1e-7 away from 0 and 1.
    Every resample is a fit of its own, hence fewer of them than in `rate_intervals`.

    Returns:
        Intervals of "slope" and "intercept"; NaN where risks separate the classes without error or are all equal (no finite fit).

    Raises:
        ValueError: for risks outside [0, 1], or NaN, empty, one-class or mismatched input.
    """
    answers = check_targets(targets)
    values = check_scores(risk, answers.size, "risk", unit_interval=True)
    codes, n_groups = group_codes(groups, answers.size)
    x, y = logit(np.clip(values, RISK_FLOOR, 1 - RISK_FLOOR)), answers.astype(np.float64)
    sample, replicates = group_bootstrap(
        lambda weights: np.stack(fit_logistic(x, y, weights[:, codes].astype(np.float64))),
        n_groups, n, seed, block=max(1, BLOCK // 4 // answers.size),
    )  # fmt: skip
    fits = zip(("slope", "intercept"), sample, replicates, strict=True)
    return {name: Interval.from_replicates(value, drawn) for name, value, drawn in fits}


def reliability_bins(risk: ArrayLike, targets: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Observed share of melanomas where the risk says so much.

    Args:
        risk: shape ``(N,)``, in [0, 1].
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        bins: number of bins asked for, about as many cases in each; empty ones are dropped and equal risks never split, so
            fewer may return.

    Returns:
        One row a bin by rising risk: n, n_melanoma, mean_risk, observed, and the Wilson interval low, high, which takes
        the images to be independent.

    Raises:
        ValueError: for risks outside [0, 1], NaN, empty or mismatched input, or ``bins`` below 1.
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

    The value depends on the binning and is above 0 even for a perfectly calibrated model of finite sample (Naeini et
    al. 2015 use equal widths; equal counts keep rare high risks from ruling it).

    Raises:
        ValueError: as `reliability_bins`.
    """
    table = reliability_bins(risk, targets, bins)
    return float((table["n"] * (table["mean_risk"] - table["observed"]).abs()).sum() / table["n"].sum())
