"""Mean AUROC over seeds: brute force with scikit-learn's weighted AUROC on the very same draws of groups."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.evaluation import bootstrap_mean_auroc, resample_groups


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
    differences = []
    for drawn in np.concatenate(list(resample_groups(names.size, 80, 5, 64))):
        parts = []
        for (targets, scores, groups), baseline in zip(samples, baselines, strict=True):
            weight = drawn[names.searchsorted(groups)]
            aurocs = [roc_auc_score(targets, values, sample_weight=weight) for values in (scores, baseline)]
            parts.append(aurocs[0] - aurocs[1])
        differences.append(np.mean(parts))
    assert (gain.low, gain.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
    plain = [roc_auc_score(t, s) - roc_auc_score(t, b) for (t, s, _), b in zip(samples, baselines, strict=True)]
    assert gain.value == pytest.approx(np.mean(plain))


def test_the_same_cases_twice_do_not_narrow_the_interval():
    one = sample(np.random.default_rng(1))
    single, double = bootstrap_mean_auroc([one], n=200), bootstrap_mean_auroc([one, one], n=200)
    assert (single.low, single.value, single.high) == pytest.approx((double.low, double.value, double.high))


def test_a_perfect_ranking_is_no_certainty():
    targets, groups = [0, 0, 1, 1], list("abcd")
    perfect = bootstrap_mean_auroc([(targets, [1, 2, 3, 4], groups)], n=100)
    assert perfect.value == 1 and np.isnan([perfect.low, perfect.high]).all()
    equal = bootstrap_mean_auroc([(targets, [1, 2, 3, 4], groups)], [[2, 3, 4, 5]], n=100)
    assert equal.value == 0 and np.isnan([equal.low, equal.high]).all()


@pytest.mark.parametrize(
    ("samples", "baselines", "said"),
    [
        ([], None, "at least one"),
        ([([0, 1], [0.1, 0.2], ["a", "b"])], [], "as many baselines"),
        ([([0, 1], [0.1, 0.2], ["a"])], None, "one name a case"),
        ([([1, 1], [0.1, 0.2], ["a", "b"])], None, "class"),
    ],
)
def test_wrong_input_is_explained(samples, baselines, said):
    with pytest.raises(ValueError, match=said):
        bootstrap_mean_auroc(samples, baselines)
