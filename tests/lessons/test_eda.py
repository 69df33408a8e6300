import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.text import Text

from melanoma_lib.data import SyntheticDermoscopy, audit_cases
from melanoma_lib.evaluation import resample_groups, wilson_interval
from melanoma_lib.evaluation.canvas import BLUE, VERMILLION
from melanoma_lib.lessons import eda
from tests.data.builders import case_table

CASES = SyntheticDermoscopy(n_patients=150).cases
SITE = "anatom_site_general_challenge"


def clustered(n_groups, seed=0, spread=1.5):
    """Flags that groups share in part, and the groups."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    chance = 1 / (1 + np.exp(1.5 - spread * rng.normal(size=n_groups)))
    return rng.random(groups.size) < chance[groups], groups


def test_independent_rows_get_wilsons_interval_but_for_one_degree_of_freedom():
    flags = np.arange(200) < 30
    interval = eda.grouped_share(flags, np.arange(200))
    wilson = wilson_interval(0.15 * 199, 199)
    assert (interval.value, interval.low, interval.high) == pytest.approx((wilson.value, wilson.low, wilson.high), abs=1e-12)


@given(copies=st.integers(1, 9), seed=st.integers(0, 99))
def test_copies_of_an_image_add_no_certainty(copies, seed):
    flags = np.random.default_rng(seed).random(40) < 0.3
    once = eda.grouped_share(flags, np.arange(40))
    often = eda.grouped_share(np.repeat(flags, copies), np.repeat(np.arange(40), copies))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-9)


@pytest.mark.parametrize("spread", [0.0, 1.5, 4.0])
def test_the_interval_is_as_wide_as_resampling_groups_makes_it(spread):
    flags, groups = clustered(300, spread=spread)
    interval = eda.grouped_share(flags, groups)
    hits, sizes = np.bincount(groups, flags), np.bincount(groups)
    weights = np.concatenate(list(resample_groups(300, 4000, 0, 500)))
    low, high = np.quantile(weights @ hits / (weights @ sizes), [0.025, 0.975])
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.08)
    assert interval.low == pytest.approx(low, abs=0.008)
    assert interval.high == pytest.approx(high, abs=0.008)


def test_the_interval_covers_the_truth_where_a_naive_one_does_not():
    rng = np.random.default_rng(1)
    truth = np.mean(1 / (1 + np.exp(1.5 - 2.5 * rng.normal(size=1_000_000))))  # sizes know nothing of chances
    covered, naive = [], []
    for seed in range(400):
        flags, groups = clustered(60, seed, spread=2.5)
        for kept, interval in ((covered, eda.grouped_share(flags, groups)), (naive, wilson_interval(flags.sum(), flags.size))):
            kept.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) > 0.91
    assert np.mean(naive) < 0.85


def test_unanimous_rows_count_their_groups_once():
    none, everyone = (eda.grouped_share([flag] * 60, np.repeat(np.arange(12), 5)) for flag in (False, True))
    wilson = wilson_interval(0, 12)
    assert (none.low, none.high) == (wilson.low, wilson.high)
    assert (everyone.low, everyone.high) == pytest.approx((1 - wilson.high, 1.0))


def test_one_group_is_one_observation_and_wholly_split_groups_are_no_more_than_rows():
    one = eda.grouped_share([1, 0, 0], ["a"] * 3)
    assert one.high - one.low > 0.7
    same = eda.grouped_share([1, 0] * 20, np.repeat(np.arange(20), 2))  # each group exactly half: no variance at all
    wilson = wilson_interval(20, 40)
    assert (same.low, same.high) == pytest.approx((wilson.low, wilson.high))


@pytest.mark.parametrize(("flags", "groups"), [([], []), ([1, 0], ["a"]), ([1, 0], ["a", None])])
def test_what_has_no_share_is_refused(flags, groups):
    with pytest.raises(ValueError, match="expected"):
        eda.grouped_share(flags, np.array(groups, dtype=object))


def test_the_rows_of_a_variable_count_every_image_once():
    for variable, column in (("sex", "sex"), ("site", SITE), ("acquisition", "acquisition"), ("age", None)):
        rows = eda.share_rows(CASES, variable)
        counts = np.array([[int(n.replace(",", "")) for n in row.note.split(" of ")] for row in rows])
        assert counts.sum(axis=0).tolist() == [CASES["target"].sum(), len(CASES)]
        if column:
            expected = CASES.groupby(CASES[column].fillna(eda.MISSING))["target"].mean()
            assert {row.label: row.marks[0][0].value for row in rows} == pytest.approx(expected.to_dict())
    assert [row.label for row in eda.share_rows(CASES, "age")][-1] == eda.MISSING


def test_small_clinics_are_drawn_together():
    clinics = [f"clinic {i % 14}" for i in range(140)] + ["clinic 0"] * 5
    rows = eda.share_rows(case_table([0, 1] * 70 + [0] * 5, acquisition=clinics), "acquisition")
    assert rows[0].label == "clinic 0"
    assert len(rows) == eda.LARGEST + 1
    assert (rows[-1].label, rows[-1].note.split(" of ")[1]) == ("others", "40")


def test_two_classes_are_compared_with_their_own_sizes():
    cases = case_table([1, 1, 0, 0, 0], lesions=list("abcde"))
    row = eda.two_classes("hair", pd.Series([True, False, True, True, False]), cases)
    assert [(mark[0].value, mark[1]) for mark in row.marks] == [(0.5, VERMILLION), (pytest.approx(2 / 3), BLUE)]
    assert row.note == "1 of 2\n2 of 3"
    alone = eda.two_classes("hair", pd.Series([True, False]), case_table([0, 0]))
    assert len(alone.marks) == 1


def test_class_figure_draws_the_counts_and_picks_melanoma_out():
    (axes,) = eda.class_figure(CASES).axes
    counts = CASES["diagnosis"].value_counts()
    assert [bar.get_width() for bar in axes.patches] == counts.tolist()
    red = [bar.get_facecolor()[:3] for bar, name in zip(axes.patches, counts.index, strict=True) if name == "melanoma"]
    assert len(set(red)) == 1
    assert sum(bar.get_facecolor()[:3] == red[0] for bar in axes.patches) == 1
    many = CASES.assign(diagnosis=[f"diagnosis {i % 30}" for i in range(len(CASES))])
    assert "20 rarer diagnoses" in eda.class_figure(many).alt_text


def test_missing_figure_says_which_fields_are_never_or_always_empty():
    text = eda.missing_figure(CASES).alt_text
    shares = [CASES.loc[CASES["target"] == k, "age_approx"].isna().mean() for k in (1, 0)]
    assert f"age {shares[0]:.3f}" in text
    assert f"{shares[1]:.3f} [" in text
    assert "filled in every row: patient_id" in text
    whole = case_table([0, 1] * 4)
    assert "No field is empty in some rows only; empty in every row: patient_id" in eda.missing_figure(whole).alt_text


def test_repeats_figure_draws_what_the_audit_counted():
    figure = eda.repeats_figure(audit_cases(CASES, images=False, n_splits=1))
    for axes, unit in zip(figure.axes, ("lesion_id", "patient_id"), strict=True):
        assert sum(bar.get_height() for bar in axes.patches) == CASES[unit].nunique()
    assert "names neither" in eda.repeats_figure(audit_cases(case_table([0, 1] * 4), images=False)).alt_text


def test_a_band_that_leaves_the_scale_gets_an_arrow():
    lesions = [f"common {i}" for i in range(300)] + ["rare"] * 6
    cases = case_table([1] * 30 + [0] * 276, lesions=lesions, sex=["female"] * 300 + ["male"] * 6)
    (axes,) = eda.share_figure(cases, ["sex"]).axes
    assert axes.get_xlim()[1] < eda.share_rows(cases, "sex")[1].marks[0][0].high
    assert [line.get_marker() for line in axes.lines].count(">") == 1


def test_the_unit_is_what_most_groups_are():
    assert eda.unit_of(CASES) == "patient"
    assert eda.unit_of(case_table([0, 1, 0], lesions=["a", "b", None])) == "lesion"
    assert eda.unit_of(case_table([0, 1])) == "image"


FIGURES = {
    "classes": lambda: eda.class_figure(CASES),
    "shares": lambda: eda.share_figure(CASES),
    "acquisition": lambda: eda.share_figure(CASES, ["acquisition"]),
    "missing": lambda: eda.missing_figure(CASES),
    "repeats": lambda: eda.repeats_figure(audit_cases(CASES, images=False, n_splits=1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_described_and_legible_when_projected(name):
    legible(FIGURES[name]())


def legible(figure, words=5):
    """Assert what every figure of a lesson must be."""
    data, metadata = figure._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == figure.alt_text
    assert len(figure.alt_text) > 50
    assert any(c.isdigit() for c in figure.alt_text)
    assert "nan" not in figure.alt_text.split()
    written = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert len(written) >= words
    assert min(text.get_fontsize() for text in written) >= 12
    assert figure.get_figwidth() <= eda.WIDTH  # wider ones scroll sideways or shrink in a notebook
    assert plt.get_fignums() == []
