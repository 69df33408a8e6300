import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from melanoma_lib.evaluation import bootstrap_intervals, cluster_bootstrap, rate_intervals, resample_groups, wilson_interval
from melanoma_lib.evaluation.intervals import bootstrap_replicates
from tests.evaluation.cases import UNIT, clustered, predictions

ORACLES = {
    "auroc": lambda y, s, t: sk.roc_auc_score(y, s) if 0 < y.mean() < 1 else np.nan,
    "average_precision": lambda y, s, t: sk.average_precision_score(y, s) if 0 < y.mean() < 1 else np.nan,
    "brier": lambda y, s, t: np.mean((s - y) ** 2),
    "accuracy": lambda y, s, t: np.mean((s >= t) == y),
    "sensitivity": lambda y, s, t: np.mean(s[y == 1] >= t) if y.any() else np.nan,
    "specificity": lambda y, s, t: np.mean(s[y == 0] < t) if not y.all() else np.nan,
    "ppv": lambda y, s, t: np.mean(y[s >= t]) if (s >= t).any() else np.nan,
    "npv": lambda y, s, t: 1 - np.mean(y[s < t]) if (s < t).any() else np.nan,
    "f1": lambda y, s, t: sk.f1_score(y, s >= t, zero_division=np.nan) if (y.any() or (s >= t).any()) else np.nan,
    "mcc": lambda y, s, t: sk.matthews_corrcoef(y, s >= t) if 0 < y.mean() < 1 and 0 < np.mean(s >= t) < 1 else np.nan,
}


@settings(max_examples=15)
@given(predictions(scores=UNIT), UNIT, st.data())
def test_every_replicate_equals_scikit_learn_on_the_rows_of_the_drawn_groups(case, threshold, data):
    targets, scores = case
    groups = np.array(data.draw(st.lists(st.sampled_from("abcde"), min_size=targets.size, max_size=targets.size)))
    names = np.unique(groups)
    value, replicates = bootstrap_replicates(targets, scores, groups, threshold, n=8, seed=3)
    (weights,) = resample_groups(names.size, n=8, seed=3, block=8)
    assert set(replicates) == set(ORACLES)
    for name, oracle in ORACLES.items():
        assert value[name] == pytest.approx(oracle(targets, scores, threshold), abs=1e-9, nan_ok=True)
        for b in range(8):
            rows = np.concatenate([np.repeat(np.flatnonzero(groups == g), w) for g, w in zip(names, weights[b], strict=True)])
            expected = oracle(targets[rows], scores[rows], threshold)
            assert replicates[name][b] == pytest.approx(expected, abs=1e-9, nan_ok=True), name


def test_resampling_draws_as_many_groups_with_replacement_whatever_the_block():
    whole, blocks = (np.concatenate(list(resample_groups(50, n=400, seed=1, block=block))) for block in (400, 7))
    np.testing.assert_array_equal(blocks, whole)
    assert (whole.sum(axis=1) == 50).all()
    # Each group is drawn Binomial(50, 1/50) times.
    expected = stats.binom.pmf(np.arange(4), 50, 1 / 50) * whole.size
    seen = np.bincount(whole.ravel())[:4]
    assert np.abs(seen - expected).max() < 5 * np.sqrt(expected.max())


def test_grouped_intervals_cover_while_image_level_ones_fall_short():
    rng = np.random.default_rng(5)
    # The truth of the population: melanomas N(1, 1.04), others N(0, 1.04).
    truth = stats.norm.cdf(1 / np.sqrt(2 * 1.04))
    covered = {"grouped": 0, "images": 0}
    trials = 300
    for seed in rng.integers(0, 2**31, trials):
        targets, scores, groups = clustered(120, 5, seed)
        for name, units in (("grouped", groups), ("images", np.arange(groups.size))):
            interval = rate_intervals(targets, scores, units, n=300, seed=int(seed))["auroc"]
            covered[name] += interval.low <= truth <= interval.high
    # A standard error of .013 at 300 trials: .91 is three below .95.
    assert covered["grouped"] / trials > 0.91
    assert covered["images"] / trials < 0.75


def test_a_resample_with_one_class_is_left_out_and_counted():
    targets, scores = np.array([1, 0, 0, 0]), np.array([0.9, 0.1, 0.2, 0.3])
    interval, backwards = (rate_intervals(targets, sign * scores, np.arange(4), n=4000)["auroc"] for sign in (1, -1))
    # The one melanoma is missed with chance (3/4)^4, drawn every time with (1/4)^4.
    defined = 1 - 0.75**4 - 0.25**4
    assert interval.resamples / 4000 == pytest.approx(defined, abs=0.03)
    for one in (interval, backwards):  # the same ranking in every resample is no certainty
        assert one.value in (0, 1) and np.isnan([one.low, one.high]).all()


def test_a_rate_of_exactly_one_gets_a_wilson_interval_over_groups():
    targets = np.array([1] * 30 + [0] * 30)
    scores = np.array([0.9] * 30 + [0.1] * 25 + [0.8] * 5)
    intervals = rate_intervals(targets, scores, np.arange(60) // 3, threshold=0.5, n=200)
    wilson = stats.binomtest(10, 10).proportion_ci(method="wilson")  # 30 images, but 10 lesions
    assert intervals["sensitivity"].method == "wilson"
    assert (intervals["sensitivity"].low, intervals["sensitivity"].high) == pytest.approx((wilson.low, 1.0))
    assert intervals["specificity"].method == "bootstrap"
    assert intervals["specificity"].low < 25 / 30 < intervals["specificity"].high


def test_an_f1_without_hits_is_as_uncertain_as_the_few_cases_it_rests_on():
    targets, scores, groups = np.repeat([1, 0], [6, 60]), np.repeat([0.2, 0.9, 0.1], [6, 4, 56]), np.arange(66)
    interval = rate_intervals(targets, scores, groups, threshold=0.5, n=200)["f1"]
    jaccard = stats.binomtest(0, 10).proportion_ci(method="wilson").high  # none found among 6 melanomas and 4 false alarms
    assert (interval.value, interval.low, interval.high) == pytest.approx((0, 0, 2 * jaccard / (1 + jaccard)))
    perfect = rate_intervals(targets, targets, groups, threshold=0.5, n=200)["f1"]
    assert 0.5 < perfect.low < perfect.value == perfect.high == 1


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_equals_scipy(successes, failures):
    ours = wilson_interval(successes, n := successes + failures)
    theirs = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def a_table(n_groups=40, seed=3):
    targets, scores, groups = clustered(n_groups, 3, seed)
    return pd.DataFrame({"target": targets, "probability": 1 / (1 + np.exp(-scores)), "group_id": groups})


def test_a_statistic_of_a_table_gets_the_interval_that_the_quick_way_gives():
    cases, threshold = a_table(), 0.6
    quick = bootstrap_intervals(cases, threshold, n=150, seed=4)
    by_hand = cluster_bootstrap(
        cases,
        lambda part: pd.Series({
            "auroc": sk.roc_auc_score(part["target"], part["probability"]),
            "sensitivity": sk.recall_score(part["target"], part["probability"] >= threshold),
            "ppv": sk.precision_score(part["target"], part["probability"] >= threshold),
        }),
        n=150, seed=4,
    )  # fmt: skip
    assert list(quick) == list(by_hand) == ["value", "low", "high"]
    pd.testing.assert_frame_equal(quick.loc[by_hand.index], by_hand)
    one = cluster_bootstrap(cases, lambda part: part["target"].mean(), n=150)
    cases["sex"] = np.random.default_rng(0).choice(["male", "female"], len(cases))  # nearly as many: their order changes
    cases.loc[0, "sex"] = "unknown"  # in some resamples absent
    shares = cluster_bootstrap(cases, lambda part: part["sex"].value_counts(normalize=True), n=150)
    sure = cluster_bootstrap(cases, lambda part: (part["sex"] == "male").mean(), n=150)
    np.testing.assert_allclose(shares.loc["male"], sure.loc[0])
    assert one.shape == (1, 3) and one["low"].item() < cases["target"].mean() < one["high"].item()


@pytest.mark.parametrize(
    ("cases", "error", "message"),
    [
        ([0, 1], TypeError, "expected a DataFrame, one row an image, got list"),
        (a_table().drop(columns="group_id"), ValueError, r"missing \['group_id'\]; got \['target', 'probability'"),
        (a_table().replace({"group_id": {0: np.nan}}), ValueError, "groups: expected an id in every row"),
    ],
)
def test_a_table_that_lacks_something_is_refused(cases, error, message):
    for interval in (lambda: bootstrap_intervals(cases, 0.5), lambda: cluster_bootstrap(cases, len)):
        with pytest.raises(error, match=message):
            interval()
