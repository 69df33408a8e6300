import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from melanoma_lib.evaluation import OperatingCurve, OperatingPoint
from melanoma_lib.evaluation.intervals import RATES
from tests.evaluation.cases import ANY, GRID, predictions


def brute_points(targets, scores):
    """Every observed score as threshold, counted case by case."""
    for threshold in np.unique(scores):
        tn, fp, fn, tp = map(int, sk.confusion_matrix(targets, scores >= threshold).ravel())
        yield OperatingPoint(float(threshold), tp=tp, fp=fp, tn=tn, fn=fn)


@given(predictions(), GRID | ANY)
def test_rates_equal_scikit_learn(case, threshold):
    targets, scores = case
    point, called = OperatingCurve(targets, scores).at(threshold), scores >= threshold
    assert point.sensitivity == pytest.approx(sk.recall_score(targets, called))
    assert point.specificity == pytest.approx(sk.recall_score(targets, called, pos_label=0))
    assert point.accuracy == pytest.approx(sk.accuracy_score(targets, called))
    assert point.f1 == pytest.approx(sk.f1_score(targets, called, zero_division=np.nan))
    assert point.ppv == pytest.approx(sk.precision_score(targets, called, zero_division=np.nan), nan_ok=True)
    assert point.npv == pytest.approx(sk.precision_score(targets, called, pos_label=0, zero_division=np.nan), nan_ok=True)
    mcc = sk.matthews_corrcoef(targets, called) if 0 < called.mean() < 1 else np.nan
    assert point.mcc == pytest.approx(mcc, nan_ok=True)


@given(predictions())
def test_areas_and_curves_equal_scikit_learn(case):
    targets, scores = case
    curve = OperatingCurve(targets, scores)
    assert curve.auroc == pytest.approx(sk.roc_auc_score(targets, scores), abs=1e-12)
    assert curve.average_precision == pytest.approx(sk.average_precision_score(targets, scores), abs=1e-12)
    for ours, theirs in zip(curve.roc(), sk.roc_curve(targets, scores, drop_intermediate=False), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-15)
    for ours, theirs in zip(curve.precision_recall(), sk.precision_recall_curve(targets, scores), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-15)


@given(predictions(), st.floats(0.001, 1.0))
def test_for_sensitivity_is_the_highest_observed_score_that_reaches_it(case, target):
    targets, scores = case
    reaching = [p for p in brute_points(targets, scores) if p.sensitivity >= target]
    assert OperatingCurve(targets, scores).for_sensitivity(target) == reaching[-1]


@given(predictions())
def test_maxima_are_the_best_observed_scores_and_the_lowest_among_equals(case):
    curve, points = OperatingCurve(*case), list(brute_points(*case))
    assert curve.max_f1() == max(points, key=lambda p: p.f1)
    youden = [p.sensitivity + p.specificity for p in points]
    assert curve.max_youden() == points[youden.index(pytest.approx(max(youden), abs=1e-12))]


def test_ppv_carries_over_to_the_prevalence_of_isic_2020_and_of_a_tumour_board():
    # Per 1,000 of each class: sensitivity .95, specificity .641.
    point = OperatingPoint(threshold=0.5, tp=950, fp=359, tn=641, fn=50)
    assert [round(100 * point.ppv_at(p), 1) for p in (0.0176, 0.10, 0.45)] == [4.5, 22.7, 68.4]
    assert all(np.isnan(getattr(OperatingPoint(0.5, tp=0, fp=0, tn=0, fn=0), name)) for name in RATES)


def test_mcc_survives_counts_whose_product_overflows_64_bits():
    point = OperatingPoint(threshold=0.5, tp=90_000, fp=110_000, tn=190_000, fn=10_000)
    # phi = (ad - bc) / sqrt of the product of the margins, in Python's unbounded integers.
    product = 200_000 * 100_000 * 200_000 * 300_000
    assert point.mcc == pytest.approx((90_000 * 190_000 - 110_000 * 10_000) / product**0.5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: OperatingCurve([], []), r"targets: expected a non-empty array of shape \(N,\), got shape \(0,\)"),
        (lambda: OperatingCurve([0, 0], [0.1, 0.2]), "expected both classes, got 0 melanomas among 2 cases"),
        (lambda: OperatingCurve([0, 2], [0.1, 0.2]), "expected only 0 and 1, got .*2.* at position 1"),
        (lambda: OperatingCurve([0, 1], [0.1, np.nan]), r"scores: expected finite numbers, got nan at position 1 \(1 in all\)"),
        (lambda: OperatingCurve([0, 1], [0.1, 0.2, 0.3]), r"scores: expected shape \(2,\) to match targets, got \(3,\)"),
        (lambda: OperatingCurve([0, 1], [0.1, 0.2]).at(np.nan), "threshold: expected a number, got NaN"),
        (lambda: OperatingCurve([0, 1], [0.1, 0.2]).for_sensitivity(1.1), r"target sensitivity.*got 1.1"),
    ],
)
def test_bad_input_is_refused_with_what_came(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
