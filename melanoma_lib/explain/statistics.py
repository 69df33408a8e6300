"""Means over cases with intervals that resample groups, and paired differences that hold for all maps of a benchmark at once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.evaluation.intervals import group_codes, resample_groups

MIN_GROUPS = 10  # with fewer groups than this to resample, a percentile is an accident: the ends are NaN
BLOCK = 500  # resamples held at once
LEVEL = 0.95  # coverage


class Means(NamedTuple):
    """Means of K maps over their cases, shape ``(K,)`` each.

    Attributes:
        value: mean over the graded cases; NaN if there are none.
        low: lower end of the interval; NaN where fewer than ``MIN_GROUPS`` groups are graded.
        high: upper end.
        cases: how many cases are graded.
    """

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    cases: NDArray[np.int64]


def group_means(values: ArrayLike, groups: ArrayLike, n: int = 2000, seed: int = 0) -> Means:
    """Mean of each column with a percentile interval of its own, from resampling whole groups.

    Args:
        values: one row a case, one column a map, shape ``(N, K)``; NaN where a map is not graded on a case.
        groups: patient, lesion or image id of each row, shape ``(N,)``.
        n: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: for other shapes, or a missing group.
    """
    sample, replicates, enough, cases = _resampled(values, groups, n, seed)
    low, high = _quantiles(replicates, (1 - LEVEL) / 2, (1 + LEVEL) / 2)
    return Means(sample, np.where(enough, low, np.nan), np.where(enough, high, np.nan), cases)


def simultaneous_means(values: ArrayLike, groups: ArrayLike, n: int = 2000, seed: int = 0) -> Means:
    """Mean of each column with intervals that hold all at once: in 95% of repetitions none of the K means lies outside its own.

    With dozens of maps some single intervals miss by chance. These are the mean plus and minus q standard errors, where q is the
    quantile of the largest deviation of any map, in its own standard errors, over the resamples. So maps that rise and fall
    together cost less than Bonferroni would charge. With a few dozen groups or less the standard errors are themselves
    uncertain, and the intervals too short.

    Arguments and errors are those of :func:`group_means`; a column that never varies has an interval of no width.

    Source: single-step max-T of Westfall and Young 1993, "Resampling-based multiple testing", turned into intervals.
    """
    sample, replicates, enough, cases = _resampled(values, groups, n, seed)
    error = np.full(sample.shape, np.nan)
    error[enough] = np.nanstd(replicates[:, enough], axis=0)
    varies = error > 1e-12 * np.maximum(1, np.abs(sample))  # False where NaN
    width = np.where(enough, 0.0, np.nan)
    if varies.any():
        deviations = np.abs(replicates[:, varies] - sample[varies]) / error[varies]  # (n, K')
        width[varies] = np.quantile(np.nanmax(deviations, axis=1), LEVEL) * error[varies]
    return Means(sample, sample - width, sample + width, cases)


def _resampled(values: ArrayLike, groups: ArrayLike, n: int, seed: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Sample means (K,), those of the resamples (n, K), whether groups suffice (K,), and the number of cases (K,)."""
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"values: expected shape (N, K), one row a case, got {table.shape}")
    codes, n_groups = group_codes(groups, len(table))
    graded = np.isfinite(table)
    sums, counts = np.zeros((n_groups, table.shape[1])), np.zeros((n_groups, table.shape[1]))
    np.add.at(sums, codes, np.where(graded, table, 0.0))
    np.add.at(counts, codes, graded)
    with np.errstate(invalid="ignore"):
        sample = sums.sum(0) / counts.sum(0)
        blocks = [weights @ sums / (weights @ counts) for weights in resample_groups(n_groups, n, seed, BLOCK)]
    enough = (counts > 0).sum(0) >= MIN_GROUPS
    return sample, np.concatenate(blocks), enough, graded.sum(0)


def _quantiles(replicates: NDArray, *shares: float) -> NDArray:
    """Quantiles of each column, shape ``(len(shares), K)``, over the resamples in which it is defined; NaN if in none."""
    found = np.full((len(shares), replicates.shape[1]), np.nan)
    defined = np.isfinite(replicates).any(0)
    found[:, defined] = np.nanquantile(replicates[:, defined], shares, axis=0)
    return found
