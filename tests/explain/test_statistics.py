"""Intervals of a benchmark against numpy, resample by resample, and against their own promise."""

import numpy as np
import pytest

from melanoma_lib.evaluation.intervals import resample_groups
from melanoma_lib.explain.statistics import MIN_GROUPS, group_means, simultaneous_means

RNG = np.random.default_rng(5)
GROUPS = np.sort(RNG.integers(0, 30, 80))
VALUES = RNG.normal(0.3, 1, (80, 6)) + RNG.normal(0, 1, 30)[GROUPS, None]
VALUES[RNG.random(VALUES.shape) < 0.2] = np.nan


def test_means_percentiles_and_max_t_are_those_of_resampled_rows():
    codes = np.unique(GROUPS, return_inverse=True)[1]
    drawn = np.concatenate(list(resample_groups(codes.max() + 1, 300, 2, 7)))
    own = np.stack([np.nanmean(np.repeat(VALUES, weights[codes], axis=0), axis=0) for weights in drawn])
    found, together = group_means(VALUES, GROUPS, 300, seed=2), simultaneous_means(VALUES, GROUPS, 300, seed=2)
    mean, error = np.nanmean(VALUES, axis=0), own.std(axis=0)
    np.testing.assert_allclose([found.value, together.value], [mean, mean])
    np.testing.assert_allclose([found.low, found.high], np.quantile(own, [0.025, 0.975], axis=0))
    assert found.cases.tolist() == np.isfinite(VALUES).sum(0).tolist()
    q = np.quantile((np.abs(own - mean) / error).max(axis=1), 0.95)
    np.testing.assert_allclose([together.low, together.high], [mean - q * error, mean + q * error])


@pytest.mark.parametrize("interval", [group_means, simultaneous_means])
def test_what_never_varies_has_no_width_and_few_groups_no_ends(interval):
    values = np.column_stack([np.zeros(40), np.full(40, 0.25), RNG.normal(size=40), np.full(40, np.nan)])
    found = interval(values, np.arange(40), 100)
    assert (found.low[0], found.value[0], found.high[0]) == (0, 0, 0)
    np.testing.assert_allclose([found.low[1], found.high[1]], 0.25, rtol=0, atol=1e-15)
    assert np.isnan([found.value[3], found.low[3]]).all() and found.cases[3] == 0
    few = interval(values, np.arange(40) % (MIN_GROUPS - 1), 100)
    assert np.isnan([few.low, few.high]).all() and few.value[2] == pytest.approx(found.value[2])
    with pytest.raises(ValueError, match=r"expected shape \(N, K\)"):
        interval(np.zeros(3), np.arange(3))
    with pytest.raises(ValueError, match=r"groups: expected shape \(3,\) to match targets, got \(4,\)"):
        interval(np.zeros((3, 2)), np.arange(4))
