"""Simulated worlds against brute force, closed forms and the kit's own functions."""

import numpy as np
import pytest
from scipy.stats import norm

from melanoma_lib.evaluation import Interval, resample_groups, wilson_interval
from melanoma_lib.lessons import threshold_worlds as worlds

# --- how often an interval holds the truth ---


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


def test_alike_images_cost_coverage_only_where_they_are_taken_for_independent():
    alone = worlds.coverage(60, images=1, alike=0.5)
    twins = worlds.coverage(60, images=4, alike=1.0)
    assert twins.by_group == pytest.approx(alone.by_group, abs=0.03)
    # Four copies of each image: an interval of half the width, which the normal curve covers with 67%.
    assert twins.by_image == pytest.approx(2 * norm.cdf(1.96 / 2) - 1, abs=0.05)


# --- the optimism of choosing on test ---


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


@pytest.mark.parametrize("rule", ["sensitivity", "cost"])
def test_chosen_on_validation_a_report_is_right_on_average_and_on_test_too_good(rule):
    table = worlds.choose_and_report(rule)
    means = worlds.optimism_table(table, "cost")
    honest, cheat = (means.loc[way] for way in worlds.WAYS)
    assert abs(honest["difference"]) < 4 * honest["spread"] / np.sqrt(4000)
    assert cheat["difference"] < -0.05
    assert cheat["true"] == pytest.approx(honest["true"], rel=0.05)  # the threshold is no worse, the report is
    assert f"on test {1000 * cheat['difference']:+.1f}" in worlds.optimism_figure(table, table).alt_text


def test_a_seed_gives_the_same_studies_and_bad_worlds_are_refused():
    one, same, other = (worlds.choose_and_report(repetitions=20, seed=seed) for seed in (3, 3, 4))
    assert one.equals(same)
    assert not one.equals(other)
    for wrong in ({"rule": "f1"}, {"auroc": 0.5}, {"n_melanoma": 0}, {"target": 0.0}):
        with pytest.raises(ValueError, match="expected"):
            worlds.choose_and_report(**wrong)
