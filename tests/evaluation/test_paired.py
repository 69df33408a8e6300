import itertools

import numpy as np
import pytest
from hypothesis import given
from scipy import stats
from sklearn import metrics as sk

from melanoma_lib.evaluation import bootstrap_gain, bootstrap_mean_auroc, delong_test, rate_intervals, resample_groups
from tests.evaluation.cases import clustered, predictions


def test_gain_is_paired():
    targets, scores, groups = clustered(150, 2, seed=3)
    gain = bootstrap_gain(targets, 2 * scores + 1, scores, groups, n=200)
    for interval in gain.values():  # the same ranking: no gain, and no doubt about it
        assert (interval.value, interval.low, interval.high) == pytest.approx((0, 0, 0), abs=1e-12)
    worse = scores + np.random.default_rng(0).normal(size=scores.size)
    paired = bootstrap_gain(targets, scores, worse, groups, n=500)["auroc"]
    assert paired.value == pytest.approx(sk.roc_auc_score(targets, scores) - sk.roc_auc_score(targets, worse))
    alone = [rate_intervals(targets, s, groups, n=500)["auroc"] for s in (scores, worse)]
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


def test_delong_without_variance():
    targets, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    same = delong_test(targets, scores, scores)
    assert (same.difference, same.z, same.p_value) == (0, 0, 1)
    opposite = delong_test(targets, scores, -scores)
    assert (opposite.difference, opposite.z, opposite.p_value) == (1, np.inf, 0)


def sample(rng, n=60, lesions=25):
    targets = rng.integers(0, 2, n)
    targets[:2] = 0, 1
    groups = np.array([f"lesion {code}" for code in rng.integers(0, lesions, n)])
    return targets, np.round(targets + rng.normal(0, 1.5, n), 1), groups  # rounded: ties


def test_mean_and_interval_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    samples = [sample(rng) for _ in range(3)]
    baselines = [rng.normal(size=60) for _ in samples]
    gain = bootstrap_mean_auroc(samples, baselines, n=80, seed=5)

    names = np.unique(np.concatenate([groups for _, _, groups in samples]))

    def mean_gain(drawn):
        parts = []
        for (targets, scores, groups), baseline in zip(samples, baselines, strict=True):
            weight = drawn[names.searchsorted(groups)]
            parts.append(np.subtract(*(sk.roc_auc_score(targets, one, sample_weight=weight) for one in (scores, baseline))))
        return np.mean(parts)

    differences = [mean_gain(drawn) for drawn in np.concatenate(list(resample_groups(names.size, 80, 5, 64)))]
    assert (gain.low, gain.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
    assert gain.value == pytest.approx(mean_gain(np.ones(names.size)))


def test_a_perfect_ranking_is_no_certainty():
    targets, groups = [0, 0, 1, 1], list("abcd")
    perfect = bootstrap_mean_auroc([(targets, [1, 2, 3, 4], groups)], n=100)
    assert perfect.value == 1 and np.isnan([perfect.low, perfect.high]).all()
    equal = bootstrap_mean_auroc([(targets, [1, 2, 3, 4], groups)], [[2, 3, 4, 5]], n=100)
    assert equal.value == 0 and np.isnan([equal.low, equal.high]).all()


@pytest.mark.parametrize(
    ("targets", "groups", "baselines", "said"),
    [
        ([0, 1], ["a", "b"], [[1, 2], [1, 2]], "a baseline for each or none"),
        ([0, 1], ["a"], [], "groups: expected shape"),
    ],
)
def test_wrong_input_is_explained(targets, groups, baselines, said):
    with pytest.raises(ValueError, match=said):
        bootstrap_mean_auroc([(targets, [0.1, 0.2], groups)], baselines)
