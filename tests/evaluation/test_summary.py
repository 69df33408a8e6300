import json

import numpy as np
import pytest
from scipy.special import logit
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from melanoma_lib.evaluation import Calibrator, evaluate_predictions, summary_table
from tests.evaluation.cases import prediction_table


@pytest.fixture(scope="module")
def table():
    return prediction_table()


@pytest.fixture(scope="module")
def summary(table):
    return evaluate_predictions(table, threshold=0.7, n=100)


def test_values_equal_scikit_learn(table, summary):
    targets, probability = table["target"], table["probability"]
    assert summary["auroc"]["value"] == pytest.approx(sk.roc_auc_score(targets, probability))
    assert summary["average_precision"]["value"] == pytest.approx(sk.average_precision_score(targets, probability))
    for key, cut in (("at_half", 0.5), ("at_threshold", 0.7)):
        tn, fp, fn, tp = sk.confusion_matrix(targets, probability >= cut).ravel()
        assert [summary[key][k] for k in ("threshold", "tp", "fp", "tn", "fn")] == [cut, tp, fp, tn, fn]
        assert summary[key]["mcc"]["value"] == pytest.approx(sk.matthews_corrcoef(targets, probability >= cut))
    for name in ("probability", "risk"):
        numbers, fit = summary["calibration"][name], LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        fit.fit(logit(table[[name]].to_numpy()), targets)
        assert numbers["brier"]["value"] == pytest.approx(sk.brier_score_loss(targets, table[name]))
        found = numbers["slope"]["value"], numbers["intercept"]["value"]
        assert found == pytest.approx((fit.coef_.item(), fit.intercept_.item()), rel=1e-4)


def test_summary_is_strict_json_and_repeatable(table, summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert evaluate_predictions(table.sample(frac=1, random_state=1), 0.7, n=100)["auroc"] == pytest.approx(summary["auroc"])


def test_one_risk_for_all_is_reported_as_that_of_a_model_that_could_not_be_calibrated(table):
    with pytest.warns(UserWarning, match="every case gets the prevalence"):
        calibrator = Calibrator.fit(-table["logit"], table["target"])
    summary = evaluate_predictions(table.assign(risk=calibrator.risk(-table["logit"])), threshold=0.5, n=50)
    share = table["target"].mean()
    assert summary["calibration"]["risk"]["brier"]["value"] == pytest.approx(share * (1 - share))
    assert summary["calibration"]["risk"]["slope"]["value"] is None
    assert summary["calibration"]["risk"]["ece"] == pytest.approx(0)


def test_perfect_predictions_are_reported_with_dashes_not_crashes(table):
    perfect = table.assign(probability=table["target"].astype(float), risk=np.where(table["target"] == 1, 0.9, 0.1))
    summary = evaluate_predictions(perfect, threshold=0.5, n=50)
    assert summary["auroc"]["value"] == 1
    assert summary["calibration"]["risk"]["slope"]["value"] is None
    assert "Slope" in summary_table(json.loads(json.dumps(summary, allow_nan=False)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="risk"), r"missing \['risk'\]"),
        (lambda t: t.head(0), "at least one row"),
        (lambda t: t.assign(image_id="same"), "each image once, got 'same' again"),
        (lambda t: t.assign(target=0), "both classes"),
        (lambda t: t.assign(probability=t["logit"]), r"probability: expected probabilities in \[0, 1\]"),
        (lambda t: t.assign(risk=2.0), r"risk: expected probabilities in \[0, 1\], got 2 to 2"),
    ],
)
def test_bad_predictions_are_refused(table, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(change(table), threshold=0.5, n=10)
