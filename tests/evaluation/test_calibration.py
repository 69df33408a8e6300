import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve

from melanoma_lib import evaluation
from melanoma_lib.evaluation import Calibrator, bootstrap_calibration, reliability_bins
from tests.evaluation.cases import UNIT, clustered, predictions


def slope_and_intercept(risk, targets):
    found = bootstrap_calibration(risk, targets, np.arange(len(targets)), n=1)
    return found["slope"].value, found["intercept"].value


@pytest.mark.parametrize(("scale", "shift"), [(4, -3), (1e-3, 0), (1e4, 1e6)])
def test_fit_equals_statsmodels(scale, shift):
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    targets = rng.random(3000) < expit(1.6 * x - 1.1)
    oracle = sm.GLM(targets.astype(float), sm.add_constant(x), family=sm.families.Binomial()).fit()
    fitted, slope = Calibrator.fit(scale * x + shift, targets), oracle.params[1] / scale
    assert (fitted.slope, fitted.intercept) == pytest.approx((slope, oracle.params[0] - slope * shift), rel=1e-5)
    if scale == 4:  # Wald's interval, of independent images; and four copies of each image, which tell no more than one
        risk, groups = fitted.risk(scale * x + shift), np.arange(3000)
        once = bootstrap_calibration(expit(x), targets, groups, n=1000)
        for interval, wald in zip(once.values(), oracle.conf_int()[::-1], strict=True):
            assert (interval.low, interval.high) == pytest.approx(tuple(wald), abs=0.2 * (wald[1] - wald[0]))
        again = bootstrap_calibration(*(np.repeat(one, 4) for one in (risk, targets, groups)), n=200)["slope"]
        assert again.value == pytest.approx(1) and again.low < 0.95 and again.high > 1.05


@pytest.mark.parametrize("logits", [[-2, -1, 1, 2], [2, 1, -1, -2], [-2, 0, 0, 2], [-1e5, -1e4, 1e4, 1e5]])
def test_separated_classes_are_told_of_and_still_give_finite_risks(logits, caplog):
    targets = np.array([0, 0, 1, 1])
    fitted = Calibrator.fit(logits, targets)
    assert "separate 2 melanomas from 2 negatives" in caplog.text
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    # Platt's smoothed answers keep the mean risk at the mean of 3/4 and 1/4.
    assert fitted.risk(logits).mean() == pytest.approx(0.5)
    assert np.isnan(slope_and_intercept(expit(np.clip(logits, -9, 9)), targets)).all()


def test_risks_never_reverse_the_ranking(caplog):
    targets, logits, _ = clustered(100, 1, seed=1)
    fitted = Calibrator.fit(-logits, targets)
    np.testing.assert_allclose(fitted.risk(-logits), targets.mean())
    assert Calibrator.fit(np.ones(100), targets) == fitted
    (reversed_, equal) = caplog.messages
    assert "not positive" in reversed_ and "every case gets the prevalence" in reversed_ and "all equal" in equal
    with pytest.raises(ValueError, match=r"slope of at least 0, got -0\.5"):
        Calibrator.from_dict({"slope": -0.5, "intercept": 0.0}).risk(logits)


def test_calibrator_round_trip_and_extremes():
    calibrator = Calibrator(0.7, -1.25)
    assert Calibrator.from_dict(calibrator.to_dict()) == calibrator
    np.testing.assert_array_equal(calibrator.risk(np.array([[-1e300], [1e300]])), [[0.0], [1.0]])
    with pytest.raises(ValueError, match="expected finite 'slope' and 'intercept'"):
        Calibrator.from_dict({"slope": 1.0, "intercept": np.nan})


def test_slope_and_intercept_of_true_risks_are_one_and_zero():
    rng = np.random.default_rng(2)
    risk = expit(1.5 * rng.normal(size=200_000) - 2)
    targets = rng.random(risk.size) < risk
    assert slope_and_intercept(risk, targets) == pytest.approx((1, 0), abs=0.03)
    saturated = slope_and_intercept(np.array([0.0, 0.2, 1.0, 0.0, 0.7, 1.0]), np.array([0, 0, 0, 1, 1, 1]))
    assert np.isfinite(saturated).all()
    # The same risks made twice too extreme.
    assert slope_and_intercept(expit(2 * logit(risk)), targets)[0] == pytest.approx(0.5, abs=0.02)


def test_resamples_without_a_fit_are_left_out_and_counted():
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
    ends, ordered = np.cumsum(table["n"]), np.sort(risk)
    assert all(ordered[end - 1] < ordered[end] for end in ends[:-1])
    wilson = [evaluation.wilson_interval(row.n_melanoma, row.n) for row in table.itertuples()]
    assert table["low"].tolist() == [one.low for one in wilson] and table["high"].tolist() == [one.high for one in wilson]
    ece = np.average(np.abs(table["mean_risk"] - table["observed"]), weights=table["n"])
    assert evaluation.expected_calibration_error(risk, targets, bins) == pytest.approx(ece)


def test_bins_equal_scikit_learn_where_there_are_no_ties():
    rng = np.random.default_rng(4)
    risk = rng.beta(1, 4, size=1000)
    targets = rng.random(1000) < risk
    observed, mean_risk = calibration_curve(targets, risk, n_bins=10, strategy="quantile")
    found = reliability_bins(risk, targets, 10)[["observed", "mean_risk"]]
    pd.testing.assert_frame_equal(found, pd.DataFrame({"observed": observed, "mean_risk": mean_risk}))
