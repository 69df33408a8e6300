"""Simulated worlds against brute force, closed forms and the kit's own functions."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from melanoma_lib.evaluation import Interval, OperatingCurve, resample_groups, wilson_interval
from melanoma_lib.lessons import threshold_worlds as worlds

# --- how often an interval holds the truth ---


@pytest.mark.parametrize("alike", [0.0, 0.3, 1.0])
def test_images_are_found_as_often_and_as_much_alike_as_asked(alike):
    found = worlds.found_images(np.random.default_rng(0), 400, 100, 2, 0.8, alike).astype(float)
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    assert np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1] == pytest.approx(alike, abs=0.015)


@pytest.mark.parametrize(("n_groups", "sensitivity"), [(6, 0.9), (15, 0.7), (5, 0.1)])
def test_coverage_counts_the_kits_own_intervals(n_groups, sensitivity):
    found = worlds.found_images(np.random.default_rng(5), 30, n_groups, 3, sensitivity, 0.5)

    def covers(shares):
        n = len(shares)
        if shares.mean() in (0, 1):
            interval = wilson_interval(shares.mean() * n, n)
        else:
            weights = np.concatenate(list(resample_groups(n, 200, 5, block=7)))
            interval = Interval.from_replicates(shares.mean(), (weights @ shares) / n)
        return interval.low <= sensitivity + 1e-12 and interval.high >= sensitivity - 1e-12

    assert worlds.coverage(n_groups, 3, 0.5, sensitivity, repetitions=30, resamples=200, seed=5) == (
        n_groups,
        np.mean([covers(one.ravel().astype(float)) for one in found]),
        np.mean([covers(one.mean(axis=1)) for one in found]),
    )


def test_without_likeness_both_ways_cover_as_the_binomial_does():
    n, truth = 120, 0.85
    k = np.arange(n + 1)
    low, high = binom.ppf(0.025, n, k / n) / n, binom.ppf(0.975, n, k / n) / n
    exact = binom.pmf(k, n, truth)[(low <= truth) & (truth <= high)].sum()
    one = worlds.coverage(n, images=1, alike=0.0, sensitivity=truth, repetitions=3000, resamples=1000)
    assert one.by_image == one.by_group == pytest.approx(exact, abs=0.02)


def test_alike_images_cost_coverage_only_where_they_are_taken_for_independent():
    alone = worlds.coverage(60, images=1, alike=0.5)
    twins = worlds.coverage(60, images=4, alike=1.0)
    assert twins.by_group == pytest.approx(alone.by_group, abs=0.03)
    # Four copies of each image: an interval of half the width, which the normal curve covers with 67%.
    assert twins.by_image == pytest.approx(2 * norm.cdf(1.96 / 2) - 1, abs=0.05)


@pytest.mark.parametrize("wrong", [{"alike": 1.2}, {"sensitivity": 1.0}, {"images": 0}, {"repetitions": 0}])
def test_impossible_studies_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        worlds.coverage(**({"n_groups": 5} | wrong))


# --- the optimism of choosing on test ---


@pytest.mark.parametrize("rule", ["sensitivity", "youden", "cost"])
def test_each_row_chooses_what_the_operating_curve_chooses(rule):
    rng = np.random.default_rng(1)
    melanomas, others = rng.normal(1, 1, (40, 12)), rng.normal(0, 1, (40, 31))
    found = worlds._chosen(rule, melanomas, others, 0.8, (7.0, 2.0))
    for threshold, positive, negative in zip(found, melanomas, others, strict=True):
        curve = OperatingCurve(np.repeat([1, 0], [12, 31]), np.concatenate([positive, negative]))
        choices = {"sensitivity": lambda c: c.for_sensitivity(0.8), "youden": OperatingCurve.max_youden}
        wanted = choices.get(rule, lambda c: c.min_cost(7.0, 2.0))(curve)
        if rule == "cost":  # equal costs may differ in their last digit
            at = curve.at(threshold)
            assert 7 * at.fn + 2 * at.fp == 7 * wanted.fn + 2 * wanted.fp
        else:
            assert threshold == wanted.threshold


@pytest.mark.parametrize("n", [1, 7, 20, 50])
@pytest.mark.parametrize("auroc", [0.6, 0.95])
def test_the_sensitivity_rule_finds_what_order_statistics_say_whatever_the_model(n, auroc):
    reported, expected = worlds.expected_true_sensitivity(n)
    table = worlds.choose_and_report("sensitivity", n, 40, auroc, repetitions=3000)
    cheat, honest = (table[table["chosen"] == way] for way in ("on test", "on validation"))
    np.testing.assert_allclose(cheat["sensitivity"], reported)
    for part in (cheat, honest):
        error = part["true_sensitivity"].std() / np.sqrt(len(part))
        assert abs(part["true_sensitivity"].mean() - expected) < 4 * error + 1e-9


def test_order_statistics_of_known_samples():
    assert worlds.expected_true_sensitivity(20) == (19 / 20, 19 / 21)
    assert worlds.expected_true_sensitivity(50) == (48 / 50, 48 / 51)
    assert worlds.expected_true_sensitivity(10, 1.0) == (1.0, 10 / 11)
    for wrong in ((0, 0.9), (5, 0.0)):
        with pytest.raises(ValueError, match="expected"):
            worlds.expected_true_sensitivity(*wrong)


@pytest.mark.parametrize("rule", ["sensitivity", "youden", "cost"])
def test_chosen_on_validation_a_report_is_right_on_average_and_on_test_too_good(rule):
    table = worlds.optimism_table({"world": worlds.choose_and_report(rule)}, "cost")
    honest, cheat = (table.loc[("world", way)] for way in worlds.WAYS)
    assert abs(honest["difference"]) < 4 * honest["spread"] / np.sqrt(4000)
    assert cheat["difference"] < -0.05
    assert cheat["true"] == pytest.approx(honest["true"], rel=0.05)  # the threshold is no worse, the report is


def test_the_truth_is_that_of_the_binormal_world():
    table = worlds.choose_and_report("youden", 30, 50, auroc=0.85, repetitions=50, costs=(9.0, 2.0))
    shift = np.sqrt(2) * norm.ppf(0.85)
    rng = np.random.default_rng(7)
    melanomas, others = rng.normal(shift, 1, 200_000), rng.normal(0, 1, 200_000)
    assert OperatingCurve(np.repeat([1, 0], 200_000), np.concatenate([melanomas, others])).auroc == pytest.approx(0.85, abs=0.003)
    for row in table.head(5).itertuples():
        assert row.true_sensitivity == pytest.approx((melanomas >= row.threshold).mean(), abs=0.005)
        assert row.true_specificity == pytest.approx((others < row.threshold).mean(), abs=0.005)
    for kind in ("", "true_"):
        missed, alarmed = (1 - table[f"{kind}{rate}"] for rate in ("sensitivity", "specificity"))
        np.testing.assert_allclose(table[f"{kind}cost"], 30 / 80 * missed * 9 + 50 / 80 * alarmed * 2)
    assert set(np.round(table["sensitivity"] * 30, 9)) <= set(map(float, range(31)))


def test_a_seed_gives_the_same_studies_and_bad_worlds_are_refused():
    one, same, other = (worlds.choose_and_report(repetitions=20, seed=seed) for seed in (3, 3, 4))
    assert one.equals(same)
    assert not one.equals(other)
    for wrong in ({"rule": "f1"}, {"auroc": 0.5}, {"n_melanoma": 0}, {"target": 0.0}):
        with pytest.raises(ValueError, match="expected"):
            worlds.choose_and_report(**wrong)
