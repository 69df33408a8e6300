"""A pooled AUROC taken apart is what counting pairs one by one gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from melanoma_lib.evaluation.intervals import bootstrap_replicates, resample_groups
from melanoma_lib.evaluation.strata import stratified_auroc


def by_pairs(targets, scores, strata):
    """Pooled, within, between AUROC and share of pairs between, pair by pair."""
    wins = {True: [], False: []}
    for i in np.flatnonzero(targets):
        for j in np.flatnonzero(1 - targets):
            wins[bool(strata[i] == strata[j])].append((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    both = wins[True] + wins[False]
    return np.mean(both), np.mean(wins[True]), np.mean(wins[False] or [np.nan]), len(wins[False]) / len(both)


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_parts_are_those_of_counting_pairs(seed, n_strata):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 40))
    strata = rng.integers(0, n_strata, n)
    targets, scores = rng.integers(0, 2, n), rng.integers(0, 6, n).astype(float)
    targets[:2], strata[:2] = [0, 1], 0
    found = stratified_auroc([(targets, scores, np.arange(n), strata)], n=10)
    expected = by_pairs(targets, scores, strata)
    values = [found.pooled.value, found.within.value, found.between.value, found.share_between]
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert found.pooled.value == pytest.approx(roc_auc_score(targets, scores))
    assert found.excess.value == pytest.approx(expected[0] - expected[1])


def test_strata_that_differ_in_prevalence_lend_a_score_that_knows_only_them():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], 400)
    targets = (rng.random(800) < np.where(strata == 1, 0.4, 0.02)).astype(int)
    found = stratified_auroc([(targets, strata.astype(float), np.arange(800), strata)], n=200)
    assert found.within.value == 0.5
    assert found.pooled.value > 0.7
    assert found.excess.low > 0.15


def test_resamples_are_whole_groups_drawn_alike_in_every_sample():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(30), 3)
    targets, strata = (rng.random(90) < 0.4).astype(int), rng.integers(0, 2, 90)
    scores = [rng.random(90) + targets * k for k in (0.2, 0.6)]
    names = np.array([f"{g:02d}" for g in groups])
    found = stratified_auroc([(targets, one, names, strata) for one in scores], n=100, seed=3)
    replicates = []
    for weights in np.concatenate(list(resample_groups(30, 100, 3, 50))):
        rows = np.repeat(np.arange(90), weights[groups])
        replicates.append(np.mean([by_pairs(targets[rows], one[rows], strata[rows])[1] for one in scores]))
    np.testing.assert_allclose((found.within.low, found.within.high), np.quantile(replicates, [0.025, 0.975]))
    pooled = [bootstrap_replicates(targets, one, names, n=100, seed=3)[1]["auroc"] for one in scores]
    np.testing.assert_allclose((found.pooled.low, found.pooled.high), np.quantile(np.mean(pooled, axis=0), [0.025, 0.975]))


def test_what_has_no_pair_within_is_refused():
    with pytest.raises(ValueError, match="strata: expected one with both classes"):
        stratified_auroc([([0, 1], [0.1, 0.2], ["a", "b"], ["x", "y"])], n=10)
    with pytest.raises(ValueError, match="at least one"):
        stratified_auroc([])
    with pytest.raises(ValueError, match="one a case"):
        stratified_auroc([([0, 1], [0.1, 0.2], ["a", "b"], ["x"])])
