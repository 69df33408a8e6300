"""The threshold lesson's figures say what they draw, also where groups are empty or places crowd."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from melanoma_lib.evaluation import Calibrator, OperatingCurve, subgroup_table
from melanoma_lib.evaluation.canvas import BLUE, GREY
from melanoma_lib.lessons import threshold, threshold_figures, threshold_worlds


@pytest.fixture
def curve():
    rng = np.random.default_rng(0)
    targets = np.repeat([1, 0], [40, 160])
    return OperatingCurve(targets, np.clip(rng.normal(0.3 + 0.25 * targets, 0.12), 0, 1))


def test_every_score_is_in_a_bar_and_the_text_counts_at_each_cut():
    targets, scores = np.array([1, 1, 0, 0, 0]), np.array([1.0, 0.5, 0.5, 0.0, 0.2])
    figure = threshold_figures.score_figure(targets, scores, {"half": 0.5, "high": 0.9})
    assert [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes] == [2, 3]
    assert "half finds 2 of 2 melanomas and flags 1 of 3 others; high finds 1 of 2 melanomas and flags 0" in figure.alt_text


@pytest.mark.parametrize(("fn_cost", "fp_cost"), [(20, 1), (1, 20), (1, 1)])
def test_the_cost_figure_marks_the_costs_it_names(curve, fn_cost, fp_cost):
    calibrator = Calibrator(2.0, -0.5)
    figure = threshold_figures.cost_figure(curve, calibrator, fn_cost, fp_cost)
    formula = fp_cost / (fp_cost + fn_cost)
    for cut in (threshold.output_for_risk(calibrator, formula), formula, threshold.cheapest_threshold(curve, fn_cost, fp_cost)):
        cost = 1000 * float(threshold.expected_cost(curve, cut, fn_cost, fp_cost))
        assert f"a cut at output {cut:.3f}, costs {cost:,.0f}" in figure.alt_text
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    top = figure.axes[0].get_ylim()[1]
    for name, cut in (("flag everybody", -np.inf), ("flag nobody", np.inf)):
        cost = 1000 * float(threshold.expected_cost(curve, cut, fn_cost, fp_cost))
        assert f"{name}: {cost:,.0f}{', above the frame' if cost > top else ''}" in labels


@pytest.mark.parametrize("slope", [0.0, -1.3])
def test_a_calibrator_that_does_not_rise_is_refused_with_what_to_do(curve, slope):
    with pytest.raises(ValueError, match=r"expected a positive slope, got .*Check the labels and the training"):
        threshold_figures.cost_figure(curve, Calibrator(slope, 0.2), 20, 1)


def test_the_prevalence_figure_carries_the_point_to_each_place(curve):
    point = curve.at(0.4)
    figure = threshold_figures.prevalence_figure(point, {"rare": 0.0176, "nearly as rare": 0.018, "common": 0.45})
    for prevalence in (0.0176, 0.018, 0.45):
        assert f"PPV {point.ppv_at(prevalence):.1%}, NPV {point.npv_at(prevalence):.1%}" in figure.alt_text
    written = [text.get_text() for text in figure.axes[0].texts]
    assert sum(text.startswith("PPV") for text in written) == 2  # the crowded place has a dot, and no number over its neighbour's


def test_subgroups_with_few_cases_are_grey_and_counted(tiny_run):
    cases = tiny_run.predictions("val")
    table = subgroup_table(cases, 0.3, n=50)
    figure = threshold_figures.subgroup_figure(table, 0.3)
    left, right = figure.axes
    colours = [line.get_color() for line in left.lines if line.get_marker() in ("o", "D") and len(line.get_xdata()) == 1]
    assert [to_hex(colour) for colour in colours] == [(GREY if note else BLUE).lower() for note in table["note"]]
    for axes, counts in ((left, table["n_melanoma"]), (right, table["n"] - table["n_melanoma"])):
        assert [text.get_text() for text in axes.texts if text.get_text().isdigit()] == [str(n) for n in counts]
    assert figure.alt_text.count("(few cases)") == (table["note"] != "").sum()
    assert "nan" not in figure.alt_text
    undefined = table[["sensitivity", "specificity"]].isna().to_numpy().sum()
    assert figure.alt_text.count("undefined") == undefined > 0


def test_figures_of_intervals_and_worlds_tell_their_numbers(tiny_run):
    intervals = threshold.intervals_by_unit(tiny_run.predictions("val"), 0.3, n=50)
    assert f"PPV {intervals['ppv'][0]:.3f} by image" in threshold_figures.unit_figure(intervals, "patient").alt_text
    coverages = [threshold_worlds.coverage(n, repetitions=50, resamples=50) for n in (10, 20)]
    assert f"20: {coverages[1].by_group:.1%} by patient" in threshold_figures.coverage_figure(coverages, 50).alt_text
    tables = [threshold_worlds.choose_and_report(rule, repetitions=60) for rule in ("sensitivity", "cost")]
    figure = threshold_figures.optimism_figure(*tables)
    cheat = tables[1][tables[1]["chosen"] == "on test"]
    assert f"on test {1000 * (cheat['cost'] - cheat['true_cost']).mean():+.1f}" in figure.alt_text
    assert "60 simulated studies" in figure.alt_text
