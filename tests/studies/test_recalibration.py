"""What recalibration finds is what closed forms, a general optimiser, scikit-learn and plain loops find."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from melanoma_lib.evaluation.calibration import carry_risk
from melanoma_lib.evaluation.intervals import resample_groups
from melanoma_lib.studies.recalibration import (
    AS_IT_IS,
    BOTH,
    INTERCEPT,
    LOCAL_THRESHOLD,
    METHODS,
    PRIOR,
    LocalCases,
    _local_cuts,
    draw_local,
    fit_intercepts,
    fit_maps,
    local_recalibration,
    observed_over_expected,
    prior_shift,
)


def people(n_patients=60, images=4, shift=0.0, slope=1.0, base=-2.0, seed=0):
    """Cases whose true log-odds are known; the model claims ``slope * truth + shift``."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_patients), images)
    truth = base + rng.normal(0, 1.5, groups.size)
    return LocalCases(slope * truth + shift, (rng.random(groups.size) < expit(truth)).astype(int), groups, 0.3, 0.0)


def likeliest_shift(x, y, weights):
    """The intercept of greatest likelihood, as a general optimiser finds it."""
    return minimize_scalar(lambda a: weights @ (np.logaddexp(0, x + a) - y * (x + a)), bounds=(-30, 30), method="bounded").x


def test_observed_over_expected_is_a_ratio_of_sums_over_resampled_patients():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), rng.integers(1, 5, 20))
    risk, targets = rng.random(groups.size), rng.integers(0, 2, groups.size)
    found = observed_over_expected(risk, targets, groups, n=200, seed=5)
    assert found.value == pytest.approx(targets.sum() / risk.sum())
    ratios = []
    for weights in np.concatenate(list(resample_groups(20, 200, 5, 50))):
        rows = np.repeat(np.arange(groups.size), weights[groups])
        ratios.append(targets[rows].sum() / risk[rows].sum())
    np.testing.assert_allclose((found.low, found.high), np.quantile(ratios, [0.025, 0.975]))


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.001, 0.999))
def test_the_priors_shift_is_bayes_rule(here, there, risk):
    assert expit(logit(risk) + prior_shift(here, there)) == pytest.approx(float(carry_risk(risk, here, there)))


def test_intercept_of_equal_risks_has_a_closed_form():
    targets = np.array([1, 0, 0, 0, 0])
    (found,) = fit_intercepts(np.full(5, 0.7), targets, np.ones((1, 5)))
    assert found == pytest.approx(logit(0.2) - 0.7, abs=1e-9)


@given(st.integers(0, 10_000))
def test_intercepts_are_those_of_a_general_optimiser(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 4, 30), rng.integers(0, 2, 30)
    weights = rng.integers(0, 3, (3, 30)).astype(float)
    for found, w in zip(fit_intercepts(x, y, weights), weights, strict=True):
        if 0 < w @ y < w.sum():
            assert found == pytest.approx(likeliest_shift(x, y, w), abs=1e-3)
            assert w @ expit(x + found) == pytest.approx(w @ y)  # as many expected as observed
        else:
            assert np.isnan(found)


def test_slope_and_intercept_are_scikit_learns():
    cases = people(shift=1.0, slope=0.5)
    drawn = draw_local(cases.groups, 30, 4, seed=1)
    slopes, intercepts = fit_maps(BOTH, cases.log_odds, cases.targets, drawn, cases.here)
    for slope, intercept, rows in zip(slopes, intercepts, drawn > 0, strict=True):
        model = LogisticRegression(C=np.inf, tol=1e-10).fit(cases.log_odds[rows, None], cases.targets[rows])
        assert (slope, intercept) == (pytest.approx(model.coef_[0, 0], abs=1e-4), pytest.approx(model.intercept_[0], abs=1e-4))


def test_the_prior_takes_the_share_of_melanomas_alone():
    cases = people()
    drawn = draw_local(cases.groups, 20, 5)
    slopes, intercepts = fit_maps(PRIOR, cases.log_odds, cases.targets, drawn, cases.here)
    shares = drawn @ cases.targets / drawn.sum(axis=1)
    np.testing.assert_allclose(intercepts, logit(shares) - logit(0.3))
    assert (slopes == 1).all()


def test_the_prior_mends_a_change_of_prevalence_and_nothing_else():
    rng = np.random.default_rng(0)
    targets = (rng.random(60_000) < 0.02).astype(int)
    evidence = rng.normal(2.0 * targets - 1.0, np.sqrt(2))  # likelihood ratio 2 for both classes' normals: log = evidence
    mended = evidence * 2 / 2 + logit(0.3) + prior_shift(0.3, 0.02)  # log-odds at home, carried
    assert observed_over_expected(expit(mended), targets, np.arange(60_000), n=10).value == pytest.approx(1, abs=0.07)
    biased = mended + 1.0  # the camera makes every lesion look worse: no prior knows of that
    assert observed_over_expected(expit(biased), targets, np.arange(60_000), n=10).value < 0.6
    (shift,) = fit_intercepts(biased, targets, np.ones((1, 60_000)))
    assert shift == pytest.approx(-1.0, abs=0.1)


def test_unfit_samples_are_said_to_be():
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1])
    weights = np.array([[1.0, 1, 0, 0], [1, 1, 1, 1]])  # one class; separated
    for method in (PRIOR, INTERCEPT):
        assert np.isnan(fit_maps(method, x, y, weights, 0.2)[1]).tolist() == [True, False]
    assert np.isnan(fit_maps(BOTH, x, y, weights, 0.2)[0]).all()
    with pytest.raises(ValueError, match="method: expected one of"):
        fit_maps("isotonic", x, y, weights, 0.2)


def test_draws_take_whole_patients():
    groups = np.array(["b", "a", "b", "c", "a", "d"])
    drawn = draw_local(groups, 2, 200)
    for row in drawn:
        assert len(set(groups[row > 0])) == 2 and not set(groups[row > 0]) & set(groups[row == 0])
    assert drawn.mean() == pytest.approx(0.5, abs=0.06)
    with pytest.raises(ValueError, match="patients: expected 1 to 3"):
        draw_local(groups, 4, 5)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_threshold_that_finds_all_k_local_melanomas_finds_k_of_k_plus_1_others(count):
    rng = np.random.default_rng(2)
    scores = rng.normal(size=30)
    cases = LocalCases(scores, np.ones(30, int), np.arange(30), 0.3, 0.0)
    drawn = draw_local(cases.groups, count, 4000)
    cuts = _local_cuts(cases, drawn, aim=1.0)
    np.testing.assert_array_equal(cuts[:50], [scores[row > 0].min() for row in drawn[:50]])
    found = ((1 - drawn) * (scores >= cuts[:, None])).sum(axis=1) / (30 - count)
    assert found.mean() == pytest.approx(count / (count + 1), abs=0.02)  # exchangeability: a new one is lowest with 1 / (k + 1)


def test_the_table_is_what_plain_loops_give():
    cases, repeats = people(shift=1.5), 30
    table = local_recalibration(cases, [8, 30], repeats, seed=4)
    assert table["method"].tolist() == [*METHODS, LOCAL_THRESHOLD] * 2
    row = table[(table["patients"] == 30) & (table["method"] == INTERCEPT)].iloc[0]
    found = {"brier": [], "observed_over_expected": [], "sensitivity": [], "specificity": []}
    for drawn in draw_local(cases.groups, 30, repeats, seed=4) > 0:
        y, x = cases.targets, cases.log_odds
        shift = likeliest_shift(x, y, drawn.astype(float))
        left, risk = ~drawn, expit(x + shift)
        found["brier"].append(((risk - y)[left] ** 2).mean())
        found["observed_over_expected"].append(y[left].sum() / risk[left].sum())
        found["sensitivity"].append((x + shift >= 0)[left & (y == 1)].mean())
        found["specificity"].append((x + shift < 0)[left & (y == 0)].mean())
    for name, values in found.items():
        assert row[name] == pytest.approx(np.median(values), abs=1e-3)
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-3)
    untouched = table[(table["patients"] == 30) & (table["method"] == AS_IT_IS)].iloc[0]
    assert abs(np.log(row["observed_over_expected"])) < abs(np.log(untouched["observed_over_expected"]))


def test_risks_of_0_and_1_are_kept_finite():
    cases = LocalCases.of_risks([0.0, 1.0, 0.5], [0, 1, 0], ["a", "b", "c"], 0.2, 0.5)
    assert np.isfinite(cases.log_odds).all() and cases.cut == 0
