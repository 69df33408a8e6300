"""Tables of cases in, tables of intervals out: what a notebook asks first, on top of the resampling of whole groups."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lib.evaluation.intervals import Interval, group_bootstrap, group_codes, rate_intervals
from melanoma_lib.evaluation.subgroups import require_columns


def cluster_bootstrap(
    cases: pd.DataFrame,
    statistic: Callable[[pd.DataFrame], float | pd.Series],
    unit: str = "group_id",
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Any statistic of a table of cases with its percentile interval, resampling whole patients or lesions.

    Args:
        cases: one row an image.
        statistic: from such a table to a number, or to a Series of them; it is called ``n + 1`` times.
        unit: column of the patient or lesion that each row shows.
        n: number of resamples.
        seed: of the resampling; `bootstrap_intervals` with the same seed draws the same units.
        level: coverage aimed at.

    Returns:
        Columns value, low, high; a row a number that the statistic gives. Ends are NaN where most resamples have none.

    Raises:
        TypeError: if the cases are no DataFrame.
        ValueError: if the table is empty, the column is missing, or an id in it.
    """
    require_columns(cases, (unit,), "cases")
    codes, n_units = group_codes(cases[unit], len(cases))
    rows = np.arange(len(cases))
    value = pd.Series(statistic(cases), dtype=float)

    def on_drawn(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        drawn = [statistic(cases.iloc[np.repeat(rows, counts[codes])]) for counts in weights]
        return np.array([np.atleast_1d(values) for values in drawn], dtype=float).T

    _, replicates = group_bootstrap(on_drawn, n_units, n, seed)
    intervals = [Interval.from_replicates(*both, level) for both in zip(value, replicates, strict=True)]
    return _as_table(dict(zip(value.index, intervals, strict=True)))


def bootstrap_intervals(
    cases: pd.DataFrame,
    threshold: float | None = None,
    score: str = "probability",
    unit: str = "group_id",
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """The usual metrics of a table of cases, each with its interval, resampling whole patients or lesions: `rate_intervals`.

    Args:
        cases: one row an image, with ``target`` (1 melanoma, 0 not), ``score`` and ``unit``.
        threshold: with one, also the rates at ``score >= threshold``.
        score: column of the scores.
        unit: column of the patient or lesion that each row shows.
        n: number of resamples.
        seed: of the resampling.
        level: coverage aimed at.

    Returns:
        Columns value, low, high; rows auroc, average_precision, brier (scores in [0, 1] only), and with a threshold sensitivity,
        specificity, ppv, npv, f1, mcc, accuracy.

    Raises:
        TypeError: if the cases are no DataFrame.
        ValueError: if a column is missing, or for NaN, infinite, empty or one-class input.
    """
    require_columns(cases, ("target", score, unit), "cases")
    return _as_table(rate_intervals(cases["target"], cases[score], cases[unit], threshold, n, seed, level))


def _as_table(intervals: dict[str, Interval]) -> pd.DataFrame:
    rows = {name: (one.value, one.low, one.high) for name, one in intervals.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
