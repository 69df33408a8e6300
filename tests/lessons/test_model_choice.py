"""Comparing models: paired intervals against the kit's and a formula, equal rivals against theory."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from melanoma_lib.evaluation import Interval, bootstrap_gain, bootstrap_intervals, delong_test
from melanoma_lib.lessons import model_choice
from melanoma_lib.lessons.cross_validation_figures import performance_cost_figure
from melanoma_lib.studies.results import load_results


@pytest.fixture(scope="module")
def pair():
    """Targets, two scores that share most of their luck, and groups of three rows."""
    rng = np.random.default_rng(0)
    targets = np.repeat(rng.random(200) < 0.3, 3).astype(int)
    shared = np.repeat(rng.normal(size=200), 3) + rng.normal(targets)
    a, b = shared + 0.4 * targets + 0.3 * rng.normal(size=600), shared + 0.3 * rng.normal(size=600)
    return targets, a, b, np.repeat([f"g{i}" for i in range(200)], 3)


def test_the_comparison_repeats_the_kits_numbers(pair):
    targets, a, b, groups = pair
    table = model_choice.comparison_table(targets, a, b, groups, ("model a", "model b"), n=200)
    alone = bootstrap_intervals(targets, a, groups, n=200)["auroc"]
    test, paired = delong_test(targets, a, b), bootstrap_gain(targets, a, b, groups, 200)["auroc"]
    assert table.loc["model a", "estimate"] == f"{alone:.3f}"
    assert table.loc["difference, whole groups resampled", "estimate"] == f"{paired:+.3f}"
    low, high = norm.interval(0.95, test.difference, test.standard_error)
    assert table.loc["difference, DeLong", "estimate"] == f"{Interval(test.difference, low, high):+.3f}"
    assert table.loc["difference, DeLong", "p"] == (f"{test.p_value:.4f}" if test.p_value >= 1e-4 else "< 0.0001")


def test_resamples_draw_whole_groups():
    groups = np.array(["b", "a", "b", "c", "c", "c"])
    draws = model_choice.resampled_rows(groups, n=400)
    sizes = {name: (groups == name).sum() for name in "abc"}
    drawn = []
    for rows in draws:
        counts = {name: (groups[rows] == name).sum() for name in "abc"}
        assert all(counts[name] % size == 0 for name, size in sizes.items())
        drawn.append([counts[name] // size for name, size in sizes.items()])
        assert all(np.unique(np.bincount(rows, minlength=6)[groups == name]).size == 1 for name in "abc")
    assert set(np.sum(drawn, axis=1)) == {3}
    assert np.mean(drawn, axis=0) == pytest.approx([1, 1, 1], abs=0.15)


def test_equal_rivals_look_different_as_often_as_theory_says():
    single = model_choice.equal_rivals(1, 100, 8, repetitions=40_000)
    assert single["plain"] == single["holm"] == pytest.approx(0.05, abs=0.005)
    assert single["lead"] == pytest.approx(0, abs=5e-4)
    many = model_choice.equal_rivals(7, 100, 8, repetitions=40_000)
    assert 0.05 < many["plain"] < 1 - 0.95**7  # comparisons with one default are correlated
    assert many["holm"] <= 0.05
    assert many["lead"] > 0
    assert model_choice.equal_rivals(7, 400, 8)["lead"] == pytest.approx(many["lead"] / 2, rel=0.03)
    assert (many["auroc"], many["alike"]) == (model_choice.AUROC, model_choice.ALIKE)
    asked = model_choice.equal_rivals(7, 100, 8, auroc=0.8, alike=0.0, repetitions=10_000)
    assert (asked["auroc"], asked["alike"]) == (0.8, 0.0)
    assert asked["lead"] > many["lead"]  # less sure a ranking, and luck that is not shared


def test_three_intervals_of_one_value(tiny_run):
    test = tiny_run.predictions("test")
    found = model_choice.three_intervals(test, 0.02, "patient", n=200)
    assert list(found) == ["the formula", "images resampled", "whole patients resampled"]
    assert len({round(one.value, 12) for one in found.values()}) == 1
    assert found["the formula"].high - found["the formula"].low == pytest.approx(2 * norm.ppf(0.975) * 0.02)
    assert (
        found["whole patients resampled"]
        == bootstrap_intervals(test["target"], test["probability"], test["group_id"], n=200)["auroc"]
    )


def test_the_front_of_performance_and_cost_is_what_none_cheaper_equals():
    table = load_results("league", Path(__file__).parents[2] / "docs/results")
    figure = performance_cost_figure(table)
    networks = [row for row in table.rows if row["backbone"]]
    front = []
    for row in networks:
        others = [other for other in networks if other["macs"] <= row["macs"] and other != row]
        if all(other["auroc"]["value"] < row["auroc"]["value"] for other in others):
            front.append(row["name"])
    said = figure.alt_text.partition("the front is ")[2]
    assert sorted(re.findall(r"\d+ (\S+ \(.+?\))", said)) == sorted(front)
