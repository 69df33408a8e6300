"""Comparing models: paired intervals against the kit's and a formula, equal rivals against theory, and tables of studies."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import Interval, bootstrap_gain, bootstrap_intervals, delong_test
from melanoma_lib.lessons import model_choice
from melanoma_lib.lessons.cross_validation_figures import two_models_figure
from melanoma_lib.studies.results import save_results
from tests.studies.leagues import made_up


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
    assert f"{paired:+.3f}" in two_models_figure(*pair, ("one", "two"), n=200).alt_text


def test_overlap_is_said_as_it_is(pair):
    targets, a, _, groups = pair
    worthless = np.random.default_rng(1).normal(size=len(targets))
    assert "the intervals do not overlap" in two_models_figure(targets, a, worthless, groups, ("a", "b"), n=100).alt_text
    assert "the intervals overlap" in two_models_figure(targets, a, a + 1e-9, groups, ("a", "b"), n=100).alt_text


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


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (Interval(0.02, 0.01, 0.03), "one ranks better than two by +0.020 [+0.010, +0.030]"),
        (Interval(-0.02, -0.03, -0.01), "one ranks worse than two: -0.020 [-0.030, -0.010]"),
        (Interval(0.02, -0.01, 0.03), "do not tell one from two: +0.020 [-0.010, +0.030]"),
    ],
)
def test_a_difference_is_said_whichever_way_it_falls(gain, said):
    assert said in model_choice.difference_words(gain, "one", "two")


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


# --- tables -------------------------------------------------------------------------------------------------------------------


def test_a_table_is_read_from_the_folder_given_and_a_missing_one_says_so(tmp_path):
    save_results(made_up(), tmp_path)
    table = model_choice.table_of("league", str(tmp_path))
    assert table.rows == json.loads((tmp_path / "league.json").read_text())["rows"]
    assert "made by   python -m melanoma_lib study league" in model_choice.made_by(table)
    with pytest.raises(StudyError, match=r"travel\.json does not exist; tables there: league"):
        model_choice.table_of("travel", str(tmp_path))


def test_the_notes_of_a_table_unfold_and_none_leave_nothing():
    league = made_up()
    text = model_choice.notes_of(league)
    assert text.startswith("<details><summary>What to know about this table</summary>\n\n- ") and text.endswith("</details>")
    assert [line[2:] for line in text.splitlines() if line.startswith("- ")] == [
        *league.notes,
        "Educational, not for diagnosis.",
    ]
    assert model_choice.notes_of(replace(league, notes=[])) == ""
    assert model_choice.notes_of(replace(league, notes=["Educational, not for diagnosis."])).count("Educational") == 1


def test_scores_are_labelled_as_readers_know_them():
    assert model_choice.score_label(made_up(), "auroc") == "AUROC"
    for wanted in (0.9, 0.95):
        label = model_choice.score_label(made_up(min_sensitivity=wanted), "specificity_at")
        assert label == f"specificity at {wanted:.0%} sensitivity"
    with pytest.raises(ValueError, match="'brier'; expected one of auroc, specificity_at"):
        model_choice.score_label(made_up(), "brier")


def test_models_to_choose_from_are_those_of_the_league():
    league = made_up()
    for score in ("auroc", "specificity_at"):
        models = model_choice.to_choose_from(league, score)
        by_name = {row["name"]: row for row in league.rows}
        assert models["score"].is_monotonic_decreasing and set(models["name"]) == set(by_name)
        for row in models.itertuples():
            assert row.score == by_name[row.name][score]["value"]
            assert row.cost == pytest.approx(by_name[row.name]["macs"] / 1e6)
            assert row.interval.startswith(f"{row.score:.3f} [")


@pytest.mark.parametrize(
    ("costs", "wanted"), [([13e-6, 129.4, 131, 930, 1340], [130, 140, 1400]), ([5, 5, 5], [5]), ([0.123], [0.13])]
)
def test_budgets_afford_a_quarter_a_half_and_all(costs, wanted):
    models = pd.DataFrame({"cost": costs})
    found = model_choice.budgets(models)
    assert found == pytest.approx(wanted)
    assert all((models["cost"] <= budget).mean() >= share for budget, share in zip(found, (0.25, 0.5, 1), strict=False))
    assert models["cost"].max() <= found[-1]
