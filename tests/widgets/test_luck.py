"""LuckExplorer's numbers against simulated test sets, quadrature and brute force; what it refuses; its page's values."""

import json
import math

import numpy as np
import pytest
import traitlets
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import multivariate_normal, norm

from melanoma_lib.data.sources import load_cases
from melanoma_lib.data.splits import split_cases
from melanoma_lib.widgets import LuckExplorer
from melanoma_lib.widgets.luck import (
    LIMITS,
    PLACES,
    auroc_error,
    expected_maximum,
    gap_error,
    luck_state,
    melanomas_for,
    presets_figure,
)

values = st.fixed_dictionaries(
    {
        "melanomas": st.integers(5, 5000), "ratio": st.floats(0.5, 100), "auroc": st.floats(0.6, 0.99),
        "gap": st.floats(0, 0.1), "alike": st.floats(0, 0.95), "tries": st.integers(1, 200),
    }
)  # fmt: skip


def aurocs(melanomas, others):
    """AUROC of each row by ranks: (R, P) and (R, Q) scores without ties."""
    scores = np.concatenate([melanomas, others], axis=1)
    ranks = scores.argsort(axis=1).argsort(axis=1)[:, : melanomas.shape[1]] + 1
    n = melanomas.shape[1]
    return (ranks.sum(axis=1) - n * (n + 1) / 2) / n / others.shape[1]


@pytest.mark.parametrize(("auroc", "n", "m"), [(0.7, 40, 60), (0.9, 50, 400), (0.95, 100, 100), (0.8, 300, 30)])
def test_the_error_is_that_of_simulated_tests_with_normal_scores(auroc, n, m):
    rng = np.random.default_rng(0)
    shift = math.sqrt(2) * norm.ppf(auroc)
    played = aurocs(shift + rng.normal(size=(8000, n)), rng.normal(size=(8000, m)))
    assert played.mean() == pytest.approx(auroc, abs=0.003)
    assert auroc_error(auroc, n, m) == pytest.approx(played.std(), rel=0.03)


def test_a_perfect_ranking_has_no_error_and_a_blind_one_that_of_ranks():
    assert auroc_error(1.0, 20, 30) == 0
    assert auroc_error(0.5, 20, 30) == pytest.approx(math.sqrt((20 + 30 + 1) / (12 * 20 * 30)))  # of the Mann-Whitney statistic


def test_two_alike_models_change_places_as_often_as_in_simulated_tests():
    """Scores of both models share a part; gap, alikeness and error are taken from the play, the order from the formula."""
    rng = np.random.default_rng(2)
    shifts, n, m, shared = (1.9, 1.75), 60, 300, math.sqrt(0.8)
    common = rng.normal(size=(6000, n + m))
    shown = []
    for shift in shifts:
        scores = shared * common + math.sqrt(1 - shared**2) * rng.normal(size=common.shape)
        shown.append(aurocs(shift + scores[:, :n], scores[:, n:]))
    better, worse = (float(norm.cdf(shift / math.sqrt(2))) for shift in shifts)
    alike = float(np.corrcoef(shown)[0, 1])
    assert gap_error(better, better - worse, alike, n, m) == pytest.approx(np.std(shown[0] - shown[1]), rel=0.12)
    state = luck_state(n, m / n, better, better - worse, alike, 1)
    assert state["wrong"] == pytest.approx(np.mean(shown[0] < shown[1]), abs=0.03)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 50, 200])
def test_the_mean_of_the_largest_is_that_of_quadrature(n):
    exact, _ = integrate.quad(lambda x: x * n * norm.pdf(x) * norm.cdf(x) ** (n - 1), -12, 12, epsabs=1e-12, limit=200)
    assert expected_maximum(n) == pytest.approx(exact, abs=1e-9)


@given(st.floats(0.6, 0.99), st.floats(0.5, 100), st.floats(0.005, 0.1))
def test_the_melanomas_needed_reach_the_width_and_one_fewer_does_not(auroc, ratio, half_width):
    needed = melanomas_for(half_width, auroc, ratio)

    def reached(count):
        others = count * ratio  # as the curve is continued below one case
        both = multivariate_normal.cdf([norm.ppf(auroc)] * 2, cov=[[1, 0.5], [0.5, 1]]) - auroc**2
        variance = (auroc * (1 - auroc) + (count + others - 2) * both) / (count * others)
        return norm.ppf(0.975) * math.sqrt(max(0, variance)) <= half_width * (1 + 1e-6)

    assert reached(needed)
    assert needed < 2 or not reached(needed - 1 - 1e-4 * needed)


@given(values)
def test_more_melanomas_make_less_luck_and_more_splits_make_more(given_values):
    state = luck_state(**given_values)
    more = luck_state(**given_values | {"melanomas": 2 * given_values["melanomas"]})
    assert more["half_width"] < state["half_width"]
    assert more["wrong"] <= state["wrong"] <= 0.5
    assert more["power"] >= state["power"] - 1e-12 and state["power"] >= 0.05 - 1e-9
    assert (
        luck_state(**given_values | {"tries": given_values["tries"] + 1})["best"] >= state["best"] >= given_values["auroc"] - 1e-9
    )


@given(values)
def test_the_melanomas_that_find_a_gap_have_the_power(given_values):
    found = luck_state(**given_values)["found"]
    if given_values["gap"] == 0:
        assert found == math.inf
    elif 5 < found < 1e7:
        assert luck_state(**given_values | {"melanomas": found})["power"] >= 0.8 - 1e-6
        assert luck_state(**given_values | {"melanomas": found - 1})["power"] < 0.8 + 1e-6


def test_without_a_gap_the_order_is_a_coin_and_the_test_as_wrong_as_it_says():
    state = luck_state(100, 8, 0.9, 0.0, 0.7, 1)
    assert (state["wrong"], state["power"]) == (0.5, pytest.approx(0.05))
    assert state["best"] == pytest.approx(0.9, abs=1e-9)


@pytest.mark.parametrize("wrong", [(0.4, 10, 10), (1.01, 10, 10), (0.9, 0, 10), (0.9, 10, 0.5)])
def test_what_has_no_error_is_refused(wrong):
    with pytest.raises(ValueError, match=r"expected an AUROC in \[0.5, 1\] and at least 1 case"):
        auroc_error(*wrong)


def test_values_can_be_set_and_are_held_to_their_range():
    explorer = LuckExplorer(melanomas=52, ratio=4.3)
    explorer.gap = 0.02
    assert explorer.state == luck_state(52, 4.3, 0.9, 0.02, 0.7, 10)
    for name, (low, high) in LIMITS.items():
        for value in (low - 1, high + 1):
            with pytest.raises(traitlets.TraitError):
                setattr(explorer, name, value)


def test_a_page_without_a_kernel_gets_its_places_with_their_numbers():
    explorer = LuckExplorer(52, 4.3, places={"this test": (52, 4.3)})
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    described = metadata["image/png"]["alt"]
    for name, (count, ratio) in {"this test": (52, 4.3), **PLACES}.items():
        state = luck_state(count, ratio, 0.9, 0.01, 0.7, 10)
        assert f"{name}, {count:,} melanomas: ±{state['half_width']:.3f}" in described


@pytest.mark.parametrize(
    ("source", "whole"), [("ham10000", "HAM10000, every lesion once"), ("isic2020", "ISIC 2020, every patient once")]
)
def test_the_places_count_groups_of_the_published_tables(shared_data, source, whole):
    cases = load_cases(source, shared_data / source, missing_images="keep")
    splits = split_cases(cases)

    def counted(rows):
        sick = rows.groupby("group_id")["target"].max()
        return int(sick.sum()), round(float((1 - sick).sum() / sick.sum()), 1)

    assert PLACES[whole] == counted(cases)
    if source == "ham10000":
        assert PLACES["HAM10000, one split of 15%"] == counted(cases[splits == "test"])


def test_a_share_in_the_table_is_never_rounded_to_none_or_all():
    figure = presets_figure({"huge": (5000, 50.0), "small": (50, 8.0)}, 8.0, 0.9, 0.02, 0.9, 10)
    state = luck_state(5000, 50.0, 0.9, 0.02, 0.9, 10)
    assert 0 < state["wrong"] < 0.005 and state["power"] > 0.995
    cells = {cell.get_text().get_text() for cell in figure.axes[-1].tables[0].get_celld().values()}
    assert {"< 1%", "> 99%"} <= cells and not {"0%", "100%"} & cells
    assert "the worse model first in < 1%, power > 99%" in figure.alt_text
    (wish,) = figure.axes[0].get_legend().get_texts()
    assert wish.get_text() == f"±0.02: from\n{melanomas_for(0.02, 0.9, 8.0):,} melanomas on"


def test_a_saved_page_holds_its_values_and_asks_nothing_of_a_network(tmp_path):
    page = LuckExplorer(melanomas=77).save_page(tmp_path / "page.html", "Luck").read_text(encoding="utf-8")
    kept = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert kept["melanomas"] == 77
    assert set(kept) == {*LIMITS, "places", "limits", "problem"}
    assert "default-src 'none'" in page
