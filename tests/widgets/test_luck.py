"""LuckExplorer's numbers against simulated test sets, quadrature and brute force; what it refuses; its page's values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import multivariate_normal, norm

from melanoma_lib.widgets import LuckExplorer
from melanoma_lib.widgets.luck import (
    PLACES,
    auroc_error,
    expected_maximum,
    gap_error,
    luck_state,
    melanomas_for,
)


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


@pytest.mark.parametrize("gap", [0.005, 0.03])
def test_the_melanomas_that_find_a_gap_have_the_power(gap):
    given_values = {"ratio": 4.0, "auroc": 0.9, "gap": gap, "alike": 0.7, "tries": 10}
    found = luck_state(melanomas=50, **given_values)["found"]
    assert luck_state(melanomas=found, **given_values)["power"] >= 0.8 - 1e-6
    assert luck_state(melanomas=found - 1, **given_values)["power"] < 0.8 + 1e-6
    assert luck_state(melanomas=50, **given_values | {"gap": 0.0})["found"] == math.inf


def test_a_page_without_a_kernel_gets_its_places_with_their_numbers():
    explorer = LuckExplorer(52, 4.3, places={"this test": (52, 4.3)})
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    described = metadata["image/png"]["alt"]
    for name, (count, ratio) in {"this test": (52, 4.3), **PLACES}.items():
        state = luck_state(count, ratio, 0.9, 0.01, 0.7, 10)
        assert f"{name}, {count:,} melanomas: ±{state['half_width']:.3f}" in described
