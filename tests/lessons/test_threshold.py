"""The threshold lesson's decisions and costs against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from melanoma_lib.evaluation import Calibrator, OperatingCurve
from melanoma_lib.lessons import threshold


def predictions(seed, n=120, digits=2, prevalence=0.2):
    """Targets of both classes and scores in [0, 1] with many ties."""
    rng = np.random.default_rng(seed)
    targets = rng.random(n) < prevalence
    targets[:2] = True, False
    return targets.astype(int), np.clip(rng.normal(0.35 + 0.2 * targets, 0.15), 0, 1).round(digits)


# --- decisions ---


@pytest.mark.parametrize("seed", range(4))
def test_a_decision_table_says_what_scikit_learn_counts(seed):
    targets, scores = predictions(seed)
    calibrator = Calibrator(slope=1.7, intercept=-0.4)
    cuts = {"low": 0.2, "a score": scores[5], "high": 0.6}
    table = threshold.decision_table(OperatingCurve(targets, scores), cuts, calibrator, costs=(20, 3))
    assert list(table.index) == list(cuts)
    for name, cut in cuts.items():
        tn, fp, fn, tp = confusion_matrix(targets, scores >= cut).ravel()
        row = table.loc[name]
        assert row["sensitivity"] == pytest.approx(tp / (tp + fn))
        assert row["specificity"] == pytest.approx(tn / (tn + fp))
        assert row["PPV"] == pytest.approx(tp / (tp + fp))
        assert row["false alarms per melanoma found"] == pytest.approx(fp / tp)
        assert row["cost of 1,000 lesions"] == pytest.approx(1000 * (20 * fn + 3 * fp) / len(targets))
        risk = 1 / (1 + np.exp(-(1.7 * np.log(cut / (1 - cut)) - 0.4)))
        assert row["calibrated risk"] == pytest.approx(risk)
        assert row["implied price"] == pytest.approx((1 - risk) / risk)
