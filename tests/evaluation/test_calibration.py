import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from melanoma_lib.evaluation import (
    Calibrator,
    bootstrap_calibration,
    expected_calibration_error,
    reliability_bins,
    wilson_interval,
)
from tests.evaluation.cases import UNIT, clustered, predictions


def slope_and_intercept(risk, targets):
    found = bootstrap_calibration(risk, targets, np.arange(len(targets)), n=1)
    return found["slope"].value, found["intercept"].value


def test_fit_equals_scikit_learn_without_penalty():
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=3000) - 3
    targets = rng.random(3000) < expit(0.4 * logits - 1.1)
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], targets)
    fitted = Calibrator.fit(logits, targets)
    assert (fitted.slope, fitted.intercept) == pytest.approx((oracle.coef_[0, 0], oracle.intercept_[0]), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*not positive")
@pytest.mark.parametrize("logits", [[-2, -1, 1, 2], [2, 1, -1, -2], [-2, 0, 0, 2], [-1e5, -1e4, 1e4, 1e5]])
def test_separated_classes_warn_and_still_give_finite_risks(logits):
    targets = np.array([0, 0, 1, 1])
    with pytest.warns(UserWarning, match="separate 2 melanomas from 2 others"):
        fitted = Calibrator.fit(logits, targets)
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    # Platt's smoothed answers keep the mean risk at the mean of 3/4 and 1/4.
    assert fitted.risk(logits).mean() == pytest.approx(0.5)
    assert np.isnan(slope_and_intercept(expit(np.clip(logits, -9, 9)), targets)).all()


def test_risks_never_reverse_the_ranking():
    targets, logits, _ = clustered(100, 1, seed=1)
    with pytest.warns(UserWarning, match=r"not positive.*every case gets the prevalence"):
        fitted = Calibrator.fit(-logits, targets)
    np.testing.assert_allclose(fitted.risk(-logits), targets.mean())
    with pytest.warns(UserWarning, match="all equal"):
        assert Calibrator.fit(np.ones(100), targets) == fitted
    with pytest.raises(ValueError, match=r"slope of at least 0, got -0\.5"):
        Calibrator.from_dict({"slope": -0.5, "intercept": 0.0}).risk(logits)


def test_calibrator_round_trip_and_extremes():
    calibrator = Calibrator(0.7, -1.25)
    assert Calibrator.from_dict(calibrator.to_dict()) == calibrator
    np.testing.assert_array_equal(calibrator.risk(np.array([[-1e300], [1e300]])), [[0.0], [1.0]])
    for broken in ({"slope": 1.0}, {"slope": 1.0, "intercept": np.nan}, {"slope": 1.0, "intercept": 0.0, "bias": 1.0}):
        with pytest.raises(ValueError, match="expected finite 'slope' and 'intercept'"):
            Calibrator.from_dict(broken)


def test_slope_and_intercept_of_true_risks_are_one_and_zero():
    rng = np.random.default_rng(2)
    risk = expit(1.5 * rng.normal(size=200_000) - 2)
    targets = rng.random(risk.size) < risk
    assert slope_and_intercept(risk, targets) == pytest.approx((1, 0), abs=0.03)
    saturated = slope_and_intercept(np.array([0.0, 0.2, 1.0, 0.0, 0.7, 1.0]), np.array([0, 0, 0, 1, 1, 1]))
    assert np.isfinite(saturated).all()
    # The same risks made twice too extreme.
    assert slope_and_intercept(expit(2 * logit(risk)), targets)[0] == pytest.approx(0.5, abs=0.02)


def test_bootstrap_calibration_is_as_wide_as_theory_says_and_counts_what_it_left_out():
    rng = np.random.default_rng(3)
    x = 1.5 * rng.normal(size=1500) - 1
    targets = rng.random(x.size) < expit(x)
    intervals = bootstrap_calibration(expit(x), targets, np.arange(x.size), n=1000)
    design = np.stack([x, np.ones_like(x)])
    variance = np.linalg.inv(design * (expit(x) * expit(-x)) @ design.T).diagonal()  # inverse Fisher information
    for name, deviation in zip(("slope", "intercept"), np.sqrt(variance), strict=True):
        assert (intervals[name].high - intervals[name].low) / 3.92 == pytest.approx(deviation, rel=0.2)
        assert intervals[name].low < intervals[name].value < intervals[name].high
        assert intervals[name].resamples == 1000
    pairs = bootstrap_calibration(np.repeat(expit(x), 4), np.repeat(targets, 4), np.repeat(np.arange(1500), 4), n=200)
    # Four copies of each image tell no more than one, if they are resampled as one.
    assert pairs["slope"].value == pytest.approx(intervals["slope"].value)
    assert pairs["slope"].high - pairs["slope"].low > 0.8 * (intervals["slope"].high - intervals["slope"].low)
    tiny = bootstrap_calibration([0.1, 0.5, 0.4, 0.9], [0, 0, 1, 1], np.arange(4), n=200)["slope"]
    assert tiny.resamples < 100 and np.isnan(tiny.low)
    for no_fit in ([0.1, 0.2, 0.8, 0.9], [0.3] * 4):  # separated without error, all equal
        none = bootstrap_calibration(no_fit, [0, 0, 1, 1], np.arange(4), n=20)["slope"]
        assert np.isnan([none.value, none.low]).all()


@settings(max_examples=30)
@given(predictions(scores=UNIT), st.integers(1, 12))
def test_bins_hold_every_case_once_and_never_split_equal_risks(case, bins):
    targets, risk = case
    table = reliability_bins(risk, targets, bins)
    assert table["n"].sum() == targets.size and table["n_melanoma"].sum() == targets.sum() and len(table) <= bins
    assert (table["n"] > 0).all() and table["mean_risk"].is_monotonic_increasing
    # Undo the binning: consecutive runs of the sorted risks.
    order = np.argsort(risk, kind="stable")
    ends = np.cumsum(table["n"])
    assert all(risk[order][end - 1] < risk[order][end] for end in ends[:-1])
    for row in table.itertuples():
        wilson = wilson_interval(row.n_melanoma, row.n)
        assert (row.observed, row.low, row.high) == pytest.approx((wilson.value, wilson.low, wilson.high))
    ece = sum(n / targets.size * abs(m - o) for n, m, o in zip(table["n"], table["mean_risk"], table["observed"], strict=True))
    assert expected_calibration_error(risk, targets, bins) == pytest.approx(ece)


def test_bins_equal_scikit_learn_where_there_are_no_ties():
    rng = np.random.default_rng(4)
    risk = rng.beta(1, 4, size=1000)
    targets = rng.random(1000) < risk
    observed, mean_risk = calibration_curve(targets, risk, n_bins=10, strategy="quantile")
    table = reliability_bins(risk, targets, 10)
    pd.testing.assert_series_equal(table["observed"], pd.Series(observed, name="observed"))
    pd.testing.assert_series_equal(table["mean_risk"], pd.Series(mean_risk, name="mean_risk"))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Calibrator.fit([1.0, 2.0], [1, 1]), "both classes"),
        (lambda: Calibrator.fit([1.0, np.inf], [0, 1]), "logits: expected finite numbers"),
        (lambda: reliability_bins([1.2, 0.1], [0, 1]), r"risk: expected probabilities in \[0, 1\], got 0.1 to 1.2"),
        (lambda: reliability_bins([0.2, 0.1], [0, 1], bins=0), "bins: expected at least 1"),
        (lambda: bootstrap_calibration([0.2, 0.1], [0, 1], ["a"]), "groups: expected shape"),
    ],
)
def test_bad_input_is_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
