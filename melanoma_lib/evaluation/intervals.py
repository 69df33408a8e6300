"""How sure are we? Intervals that resample whole patients or lesions, never single images."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.evaluation.operating import OperatingPoint, Ranking, check_scores, check_targets, require_columns

RATES = ("sensitivity", "specificity", "ppv", "npv", "f1", "mcc", "accuracy")
LEVEL = 0.95  # of every interval
BLOCK = 2_000_000  # weights held at once: 16 MB as int64, small enough to stay near the processor


@dataclass(frozen=True)
class Interval:
    """A value with its interval; ``format(interval, ".3f")`` writes ``0.930 [0.912, 0.947]``, unknown ends not at all."""

    value: float  # on the sample itself; formatted as - if NaN
    low: float  # NaN if unknown; so is high
    high: float
    resamples: int = 0  # those in which the quantity is defined
    method: str = "bootstrap"  # percentile, whole groups; or wilson: closed form, one observation a group

    def __format__(self, spec: str) -> str:
        ends = f" [{self.low:{spec}}, {self.high:{spec}}]" if np.isfinite([self.low, self.high]).all() else ""
        return "-" if np.isnan(self.value) else f"{self.value:{spec}}{ends}"

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Fields fit for JSON: what is NaN or infinite becomes None."""
        fields = asdict(self).items()
        return {name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in fields}

    @classmethod
    def from_dict(cls, fields: dict[str, float | int | str | None]) -> "Interval":
        """Undo `to_dict`: what is None becomes NaN."""
        return cls(**{name: np.nan if value is None else value for name, value in fields.items()})

    def columns(self, name: str) -> dict[str, float]:
        """Value and ends as in a row of a table: ``name``, ``name_low`` and ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    @classmethod
    def from_replicates(cls, value: float, replicates: NDArray[np.float64]) -> "Interval":
        """Percentile interval (Efron 1979); NaN ends where fewer than half of the replicates are finite."""
        finite = replicates[np.isfinite(replicates)]
        known = finite.size >= replicates.size / 2
        low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if known else (np.nan, np.nan)
        return cls(float(value), float(low), float(high), int(finite.size))


def wilson_interval(successes: float, n: float) -> Interval:
    """Interval of a proportion of independent observations, sound at 0 and 1 (Wilson 1927); all NaN if ``n`` is 0.

    ``successes`` need not be whole, so that ``n`` may be an effective sample size.
    """
    from statsmodels.stats.proportion import proportion_confint  # scipy's takes whole numbers only

    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, got {successes} of {n}")
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, method="wilson")
    share = successes / n
    low, high = proportion_confint(successes, n, 1 - LEVEL, method="wilson")
    return Interval(share, float(min(low, share)), float(max(high, share)), method="wilson")  # rounding left .99… at 1


def group_codes(groups: ArrayLike, n: int) -> tuple[NDArray[np.intp], int]:
    """Each row's group as a number, by the order of the names, and how many there are; ValueError if one is missing."""
    array = np.asarray(groups)
    if array.shape != (n,):
        raise ValueError(f"groups: expected shape ({n},) to match targets, got {array.shape}")
    codes, names = pd.factorize(array, sort=True)
    if codes.min() < 0:
        raise ValueError(f"groups: expected an id in every row, got a missing one at position {codes.argmin()}")
    return codes, len(names)


def resample_groups(n_groups: int, n: int, seed: int, block: int) -> Iterator[NDArray[np.int64]]:
    """Draw ``n_groups`` groups with replacement, ``n`` times: yields how often each came, ``(B, G)``, B at most ``block``."""
    if n < 1:
        raise ValueError(f"n: expected at least 1 resample, got {n}")
    rng = np.random.default_rng(seed)
    for start in range(0, n, block):
        size = min(block, n - start)
        drawn = rng.integers(n_groups, size=(size, n_groups)) + n_groups * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n_groups).reshape(size, n_groups)


def group_bootstrap(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], n_groups: int, n: int = 2000, seed: int = 0, block: int = 64
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A statistic on the sample and on each resample of whole groups: what every interval of the kit rests on.

    Args:
        statistic: from how often each group counts, shape ``(B, G)``, to values of shape ``(..., B)``.
        n_groups: number of groups, G.
        n: number of resamples.
        seed: the same seed and number of groups give paired resamples.
        block: resamples at once, at most.

    Returns the values on the sample, shape ``(...)``, and on the resamples, shape ``(..., n)``.
    """
    sample = statistic(np.ones((1, n_groups), dtype=np.int64))[..., 0]
    return sample, np.concatenate([statistic(weights) for weights in resample_groups(n_groups, n, seed, block)], axis=-1)


def bootstrap_replicates(
    targets: ArrayLike, scores: ArrayLike, groups: ArrayLike, threshold: float | None, n: int, seed: int
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Every metric of `rate_intervals` on the sample, and on the resamples, shape ``(n,)`` each; NaN where undefined."""
    answers = check_targets(targets)
    values = check_scores(scores, answers.size)
    codes, n_groups = group_codes(groups, answers.size)
    if threshold is not None and np.isnan(threshold):
        raise ValueError("threshold: expected a number or None, got NaN")
    ranking, names = Ranking(answers, values, codes), ["auroc", "average_precision"]

    def by_group(of_cases: NDArray) -> NDArray[np.float64]:
        return np.bincount(codes, weights=of_cases, minlength=n_groups)

    probabilities = values.min() >= 0 and values.max() <= 1
    if probabilities:
        names.append("brier")
        size, squared_error = by_group(np.ones(codes.size)), by_group((values - answers) ** 2)
    if threshold is not None:
        names += RATES
        called = values >= threshold
        cells = np.stack([by_group(c) for c in (called & answers, called & ~answers, ~called & ~answers, ~called & answers)])

    def metrics(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = [*ranking.metrics(weights)]
        if probabilities:
            rows.append(weights @ squared_error / (weights @ size))
        if threshold is not None:
            point = OperatingPoint(threshold, *(cells @ weights.T))  # each count (B,)
            rows += [getattr(point, name) for name in RATES]
        return np.stack(rows)  # (M, B)

    sample, replicates = group_bootstrap(metrics, n_groups, n, seed, max(1, BLOCK // answers.size))
    return dict(zip(names, sample.tolist(), strict=True)), dict(zip(names, replicates, strict=True))


def rate_intervals(
    targets: ArrayLike, scores: ArrayLike, groups: ArrayLike, threshold: float | None = None, n: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Percentile intervals from resampling whole groups: images of one patient or lesion stay together.

    Resampling images as if they were independent gives intervals that are too short (Field and Welsh 2007). A resample in which
    a metric is undefined is left out of its interval. A proportion of exactly 0 or 1 never varies under resampling: its interval
    is Wilson's, with each group that bears on it as one observation. So is that of an F1 of 0 or 1, as F1 = 2 J / (1 + J), J
    being the share of true positives among melanomas and flagged. The ends of an AUROC, average precision or MCC are NaN where
    every resample gives the same, as of a perfect ranking.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``, both classes present.
        scores: the higher, the more likely melanoma; shape ``(N,)``, finite.
        groups: patient, lesion or image id of each row, shape ``(N,)``.
        threshold: with one, also the ``RATES`` at ``score >= threshold``.
        n: number of resamples.
        seed: the same seed and groups give paired resamples for different scores.

    Returns `Interval` by name: auroc, average_precision, brier (scores in [0, 1] only), and the rates.
    """
    sample, replicates = bootstrap_replicates(targets, scores, groups, threshold, n, seed)
    intervals = {name: Interval.from_replicates(value, replicates[name]) for name, value in sample.items()}
    bearing = {}  # which cases a proportion is one of
    if threshold is not None:
        answers, flagged = np.asarray(targets) == 1, np.asarray(scores, dtype=np.float64) >= threshold
        bearing = {
            "sensitivity": answers, "specificity": ~answers, "ppv": flagged, "npv": ~flagged,
            "f1": answers | flagged, "accuracy": np.ones_like(flagged),
        }  # fmt: skip
    for name, one in intervals.items():
        if name in bearing and one.value in (0, 1):
            n_groups = len(pd.unique(np.asarray(groups)[bearing[name]]))
            wilson = wilson_interval(one.value * n_groups, n_groups)
            low, high = (2 * end / (1 + end) if name == "f1" else end for end in (wilson.low, wilson.high))
            intervals[name] = replace(wilson, low=low, high=high)
        elif name != "brier" and one.value == one.low == one.high:  # as of a perfect ranking, which is perfect in every resample
            intervals[name] = replace(one, low=np.nan, high=np.nan)
    return intervals


def cluster_bootstrap(
    cases: pd.DataFrame, statistic: Callable[[pd.DataFrame], Any], unit: str = "group_id", n: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Any statistic of a table of cases with its percentile interval, resampling whole patients or lesions.

    Args:
        cases: one row an image.
        statistic: from such a table to a number, or to a Series of them, matched by its index; it is called ``n + 2`` times.
        unit: column of the patient or lesion that each row shows.
        n: number of resamples.
        seed: `bootstrap_intervals` with the same one draws the same units.

    Returns:
        Columns value, low, high; a row a number that all cases give. Ends are NaN where most resamples have none.
    """
    require_columns(cases, (unit,), "cases")
    codes, n_units = group_codes(cases[unit], len(cases))
    rows, value = np.arange(len(cases)), pd.Series(statistic(cases), dtype=float)

    def on_drawn(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        drawn = (pd.Series(statistic(cases.iloc[np.repeat(rows, counts[codes])]), dtype=float) for counts in weights)
        return np.array([values.reindex(value.index) for values in drawn]).T

    _, replicates = group_bootstrap(on_drawn, n_units, n, seed)
    pairs = zip(value, replicates, strict=True)
    return _as_table(dict(zip(value.index, (Interval.from_replicates(*pair) for pair in pairs), strict=True)))


def bootstrap_intervals(
    cases: pd.DataFrame, threshold: float | None = None, score: str = "probability", n: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """`rate_intervals` of a table of cases with ``target``, ``group_id`` and the column ``score``: columns value, low, high."""
    require_columns(cases, ("target", score, "group_id"), "cases")
    return _as_table(rate_intervals(cases["target"], cases[score], cases["group_id"], threshold, n, seed))


def with_intervals(table: pd.DataFrame, spec: str = ".3f") -> pd.DataFrame:
    """The table with each column that has ``_low`` and ``_high`` as `Interval` formats it; gains and differences signed."""
    shown = {}
    for name in table:
        if f"{name}_low" in table:
            signed = "+" if name.startswith(("gain", "difference")) else ""
            rows = table[[name, f"{name}_low", f"{name}_high"]].astype(float).itertuples(index=False)
            shown[name] = [format(Interval(*row), signed + spec) for row in rows]
        elif not name.endswith(("_low", "_high")):
            shown[name] = table[name]
    return pd.DataFrame(shown, table.index)


def _as_table(intervals: dict[str, Interval]) -> pd.DataFrame:
    rows = {name: (one.value, one.low, one.high) for name, one in intervals.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
