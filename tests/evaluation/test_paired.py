import itertools

import numpy as np
import pytest
from hypothesis import given
from scipy import stats
from sklearn import metrics as sk

from melanoma_lib.evaluation import bootstrap_gain, bootstrap_intervals, delong_test
from tests.evaluation.cases import clustered, predictions


def test_gain_is_paired():
    targets, scores, groups = clustered(150, 2, seed=3)
    gain = bootstrap_gain(targets, 2 * scores + 1, scores, groups, n=200)
    for interval in gain.values():  # the same ranking: no gain, and no doubt about it
        assert (interval.value, interval.low, interval.high) == pytest.approx((0, 0, 0), abs=1e-12)
    worse = scores + np.random.default_rng(0).normal(size=scores.size)
    paired = bootstrap_gain(targets, scores, worse, groups, n=500)["auroc"]
    assert paired.value == pytest.approx(sk.roc_auc_score(targets, scores) - sk.roc_auc_score(targets, worse))
    alone = [bootstrap_intervals(targets, s, groups, n=500)["auroc"] for s in (scores, worse)]
    unpaired_width = np.hypot(*(i.high - i.low for i in alone))
    assert paired.high - paired.low < 0.9 * unpaired_width


def brute_delong(targets, a, b):
    """Structural components by comparing every pair (DeLong et al. 1988, equations 4 to 6)."""
    melanoma, other = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    psi = np.zeros((2, melanoma.size, other.size))
    for k, scores in enumerate((a, b)):
        for (i, m), (j, o) in itertools.product(enumerate(melanoma), enumerate(other)):
            psi[k, i, j] = 1.0 if scores[m] > scores[o] else 0.5 if scores[m] == scores[o] else 0.0
    covariance = np.cov(psi.mean(axis=2)) / melanoma.size + np.cov(psi.mean(axis=1)) / other.size
    areas = psi.mean(axis=(1, 2))
    return areas, np.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))


@given(predictions(n_scores=2))
def test_delong_equals_all_pairs(case):
    targets, a, b = case
    if min(targets.sum(), (1 - targets).sum()) < 2:
        with pytest.raises(ValueError, match="at least 2 cases of each class"):
            delong_test(targets, a, b)
        return
    areas, error = brute_delong(targets, a, b)
    result = delong_test(targets, a, b)
    assert (result.auroc_a, result.auroc_b) == pytest.approx(tuple(areas))
    assert result.standard_error == pytest.approx(error, abs=1e-7)
    if error > 1e-6:
        assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(areas[0] - areas[1]) / error), abs=1e-6)


def test_delong_p_values_are_uniform_when_nothing_differs():
    p_values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        targets = np.arange(200) % 4 == 0
        shared = rng.normal(size=200) + targets
        p_values.append(delong_test(targets, shared + rng.normal(size=200), shared + rng.normal(size=200)).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_delong_without_variance():
    targets, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    same = delong_test(targets, scores, scores)
    assert (same.difference, same.z, same.p_value) == (0, 0, 1)
    opposite = delong_test(targets, scores, -scores)
    assert (opposite.difference, opposite.z, opposite.p_value) == (1, np.inf, 0)
