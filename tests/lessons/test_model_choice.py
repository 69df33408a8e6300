"""Equal models against theory."""

import pytest

from melanoma_lib.lessons import model_choice


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
