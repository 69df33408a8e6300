"""Risks on foreign ground: how wrong are they, and what do a few local cases mend?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from melanoma_lib.evaluation.calibration import RISK_FLOOR, fit_logistic
from melanoma_lib.evaluation.inputs import check_scores, check_targets
from melanoma_lib.evaluation.intervals import BLOCK, Interval, group_codes, resample_groups

AS_IT_IS, PRIOR, INTERCEPT, BOTH = "as it is", "prior", "intercept", "slope and intercept"
METHODS = (AS_IT_IS, PRIOR, INTERCEPT, BOTH)
LOCAL_THRESHOLD = "local threshold"
BISECTIONS = 60  # halve an interval of 100 log-odds down to rounding error
WIDEST = 50.0  # log-odds beyond which no intercept is sought


def observed_over_expected(risk: ArrayLike, targets: ArrayLike, groups: ArrayLike, n: int = 2000, seed: int = 0) -> Interval:
    """Melanomas observed over melanomas expected, the sum of the risks; below 1 where the risks are too high.

    Args:
        risk: in [0, 1], shape ``(N,)``, not all 0.
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        groups: patient or lesion of each row, shape ``(N,)``.
        n: resamples of whole groups behind the interval.
        seed: of the resampling.

    Raises:
        ValueError: for risks outside [0, 1], or NaN, empty or mismatched input.
    """
    answers = check_targets(targets, both_classes=False)
    values = check_scores(risk, answers.size, "risk", unit_interval=True)
    codes, n_groups = group_codes(groups, answers.size)
    observed, expected = (np.bincount(codes, weights=part, minlength=n_groups) for part in (answers, values))  # (G,)
    with np.errstate(divide="ignore", invalid="ignore"):
        blocks = resample_groups(n_groups, n, seed, max(1, BLOCK // n_groups))
        ratios = [weights @ observed / (weights @ expected) for weights in blocks]
        return Interval.from_replicates(float(observed.sum() / expected.sum()), np.concatenate(ratios))


def prior_shift(here: float, there: ArrayLike) -> NDArray[np.float64]:
    """What a change of prevalence alone adds to the log-odds of every risk: ``logit(there) - logit(here)`` (Saerens et al. 2002).

    The same correction as ``evaluation.carry_risk``, on the log-odds scale. It holds where melanomas look alike in both places
    and other lesions do too, and only their shares differ.

    Args:
        here: share of melanomas for which the risks hold, in (0, 1).
        there: shares elsewhere, in (0, 1), any shape.
    """
    return logit(np.asarray(there, dtype=np.float64)) - logit(here)


def fit_intercepts(log_odds: NDArray[np.float64], targets: NDArray, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to add to the log-odds so that expected and observed melanomas agree, the slope staying 1, for many samples at once.

    The maximum-likelihood intercept solves ``sum(w * sigmoid(log_odds + a)) = sum(w * y)``, whose left side rises with ``a``; it
    is found by bisection.

    Args:
        log_odds: shape ``(N,)``.
        targets: 0 or 1, shape ``(N,)``.
        weights: how much each case counts in each sample, shape ``(B, N)``.

    Returns:
        Shape ``(B,)``; NaN for a sample of one class, which no finite intercept fits.
    """
    weights = np.asarray(weights, dtype=np.float64)
    wanted, total = weights @ np.asarray(targets, dtype=np.float64), weights.sum(axis=1)
    low, high = np.full(len(weights), -WIDEST), np.full(len(weights), WIDEST)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        expected = (weights * expit(log_odds + middle[:, None])).sum(axis=1)
        low, high = np.where(expected < wanted, middle, low), np.where(expected < wanted, high, middle)
    return np.where((wanted > 0) & (wanted < total), (low + high) / 2, np.nan)


def fit_maps(
    method: str, log_odds: NDArray[np.float64], targets: NDArray, weights: NDArray[np.float64], here: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and intercept that a method puts on the log-odds, learned on each of many samples.

    Args:
        method: one of ``METHODS``. The prior takes from the sample its share of melanomas alone, the intercept also how high
            their risks are, slope and intercept also how the risks order them.
        log_odds: of the risks as they came, shape ``(N,)``.
        targets: 0 or 1, shape ``(N,)``.
        weights: how often each case is in each sample, shape ``(B, N)``.
        here: share of melanomas for which the risks hold.

    Returns:
        Slopes and intercepts, shape ``(B,)`` each; NaN where the sample does not determine them: it is of one class or, for
        slope and intercept, a cut on the risks separates the classes.

    Raises:
        ValueError: for an unknown method.
    """
    ones, y = np.ones(len(weights)), np.asarray(targets, dtype=np.float64)
    if method == AS_IT_IS:
        return ones, np.zeros(len(weights))
    if method == PRIOR:
        share = weights @ y / weights.sum(axis=1)
        known = (share > 0) & (share < 1)
        return ones, np.where(known, prior_shift(here, np.where(known, share, 0.5)), np.nan)
    if method == INTERCEPT:
        return ones, fit_intercepts(log_odds, y, weights)
    if method == BOTH:
        slopes, intercepts = np.full((2, len(weights)), np.nan)
        mixed = (weights @ y > 0) & (weights @ (1 - y) > 0)
        if mixed.any():
            slopes[mixed], intercepts[mixed] = fit_logistic(log_odds, y, weights[mixed])
        return slopes, intercepts
    raise ValueError(f"method: expected one of {list(METHODS)}, got {method!r}")


@dataclass(frozen=True)
class LocalCases:
    """Cases of another place, with the risks that a model brought along.

    Attributes:
        log_odds: of the risks, shape ``(N,)``.
        targets: 0 or 1, shape ``(N,)``.
        groups: patient of each case, shape ``(N,)``.
        here: share of melanomas for which the risks hold.
        cut: log-odds of the risk at or above which a case is called melanoma.
    """

    log_odds: NDArray[np.float64]
    targets: NDArray[np.int64]
    groups: NDArray
    here: float
    cut: float

    @classmethod
    def of_risks(cls, risk: ArrayLike, targets: ArrayLike, groups: ArrayLike, here: float, cut_risk: float) -> "LocalCases":
        """From risks in [0, 1], kept a little away from both ends.

        Raises:
            ValueError: for risks outside [0, 1], or NaN, empty, one-class or mismatched input.
        """
        answers = check_targets(targets)
        values = check_scores(risk, answers.size, "risk", unit_interval=True)
        group_codes(groups, answers.size)
        clipped = np.clip([*values, cut_risk], RISK_FLOOR, 1 - RISK_FLOOR)
        *log_odds, cut = logit(clipped)
        return cls(np.array(log_odds), answers.astype(np.int64), np.asarray(groups), here, float(cut))


def draw_local(groups: ArrayLike, patients: int, repeats: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw so many patients, without replacement, again and again: 1 for each case of a drawn patient, shape ``(repeats, N)``.

    Raises:
        ValueError: if there are not more patients than that.
    """
    codes, n_groups = group_codes(groups, len(np.asarray(groups)))
    if not 0 < patients < n_groups:
        raise ValueError(f"patients: expected 1 to {n_groups - 1}, so that some are left to be tested, got {patients}")
    rng = np.random.default_rng(seed)
    chosen = rng.random((repeats, n_groups)).argpartition(patients - 1, axis=1)[:, :patients]  # (R, patients)
    drawn = np.zeros((repeats, n_groups))
    np.put_along_axis(drawn, chosen, 1.0, axis=1)
    return drawn[:, codes]


def local_recalibration(
    cases: LocalCases, sizes: Sequence[int], repeats: int = 500, seed: int = 0, aim: float = 0.95
) -> pd.DataFrame:
    """Learn from a few local patients, test on all others; again and again, to see what luck does.

    Args:
        cases: of the other place.
        sizes: numbers of patients to learn from, each below the number there is.
        repeats: random draws of patients a size.
        seed: of the draws; methods see the same ones.
        aim: sensitivity for which the local threshold is chosen.

    Returns:
        One row a size and method: ``patients``, ``method``, ``melanomas`` (mean number learned from), ``fitted`` (share of draws
        that determine the method; the others do not count below), ``reversed`` (share of those whose slope is not positive), and
        as median, 2.5% and 97.5% point over the draws (``NAME``, ``NAME_low``, ``NAME_high``) of the patients not drawn:
        ``brier``, ``observed_over_expected``, ``sensitivity`` and ``specificity`` with the cut kept at the same risk. A last row
        a size, ``local threshold``, keeps the risks and takes the highest cut that finds the share ``aim`` of the local
        melanomas.
    """
    rows = []
    for patients in sizes:
        drawn = draw_local(cases.groups, patients, repeats, seed)
        learned = float((drawn @ cases.targets).mean())
        for method in METHODS:
            slopes, intercepts = fit_maps(method, cases.log_odds, cases.targets, drawn, cases.here)
            fits = np.isfinite(slopes) & np.isfinite(intercepts)
            facts = {"patients": patients, "method": method, "melanomas": learned, "fitted": fits.mean()}
            facts["reversed"] = (slopes[fits] <= 0).mean() if fits.any() else np.nan
            mapped = slopes[fits, None] * cases.log_odds + intercepts[fits, None]  # (R', N)
            rows.append(facts | _spread(_tested(mapped, mapped >= cases.cut, cases.targets, 1 - drawn[fits])))
        cuts = _local_cuts(cases, drawn, aim)
        fits = np.isfinite(cuts)
        facts = {"patients": patients, "method": LOCAL_THRESHOLD, "melanomas": learned, "fitted": fits.mean(), "reversed": 0.0}
        scores = np.broadcast_to(cases.log_odds, (int(fits.sum()), cases.log_odds.size))
        rows.append(facts | _spread(_tested(scores, scores >= cuts[fits, None], cases.targets, 1 - drawn[fits])))
    return pd.DataFrame(rows)


def _local_cuts(cases: LocalCases, drawn: NDArray[np.float64], aim: float) -> NDArray[np.float64]:
    """The highest log-odds in each sample that find the share ``aim`` of its melanomas, shape ``(R,)``; NaN without any."""
    melanomas = np.sort(np.where(drawn * cases.targets > 0, cases.log_odds, -np.inf), axis=1)[:, ::-1]  # (R, N) the drawn first
    count = (drawn @ cases.targets).astype(int)
    place = np.ceil(aim * count - 1e-9).astype(int) - 1
    return np.where(count > 0, melanomas[np.arange(len(drawn)), np.maximum(place, 0)], np.nan)


def _tested(
    log_odds: NDArray[np.float64], called: NDArray[np.bool_], targets: NDArray[np.int64], left: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """What the cases left say of each draw's risks and decisions: ``(R, N)`` each to ``(R,)``; NaN where undefined."""
    risk, melanoma = expit(log_odds), left * targets
    other = left - melanoma
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "brier": (left * (risk - targets) ** 2).sum(axis=1) / left.sum(axis=1),
            "observed_over_expected": melanoma.sum(axis=1) / (left * risk).sum(axis=1),
            "sensitivity": (melanoma * called).sum(axis=1) / melanoma.sum(axis=1),
            "specificity": (other * ~called).sum(axis=1) / other.sum(axis=1),
        }


def _spread(found: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Median, 2.5% and 97.5% point of the defined values of each; NaN where there is none."""
    spread = {}
    for name, values in found.items():
        defined = values[np.isfinite(values)]
        points = np.quantile(defined, [0.5, 0.025, 0.975]) if defined.size else np.full(3, np.nan)
        spread |= {f"{name}{end}": float(point) for end, point in zip(("", "_low", "_high"), points, strict=True)}
    return spread
