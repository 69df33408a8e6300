"""External validation: a run answers elsewhere as it does on its own cases, and the table says what counting by hand says."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from melanoma_lib.comparison import predict_cases
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import Calibrator
from melanoma_lib.studies.external import (
    ExternalTest,
    averaged,
    external_rows,
    with_margin,
)


def test_a_run_answers_its_own_test_cases_as_it_did(tiny_run):
    cases = tiny_run.cases()
    cases = cases[cases["split"] == "test"].reset_index(drop=True)
    stored = tiny_run.predictions("test")
    found = with_margin(predict_cases(tiny_run, cases, tiny_run.settings.cache_dir), tiny_run)
    np.testing.assert_allclose(found["logit"], stored["logit"], atol=1e-5)
    np.testing.assert_allclose(expit(found["log_odds"]), stored["risk"], atol=1e-6)
    if tiny_run.calibrator.slope > 0:
        clear = found["margin"].abs() > 1e-5
        decided = (stored["probability"] >= tiny_run.operating_point.threshold)[clear]
        assert ((found["margin"] >= 0)[clear] == decided).all()


def made_up(seed, slope=2.0, threshold=0.3, n=240):
    """A model whose logits are drawn; all models are asked about the same external cases."""
    rng = np.random.default_rng(seed)

    def table(prefix, targets, per_group):
        names = {"image_id": [f"{prefix}{i}" for i in range(n)], "group_id": [f"{prefix}g{i // per_group}" for i in range(n)]}
        return pd.DataFrame(names | {"target": targets, "logit": rng.normal(targets - 0.5, 0.6)})

    calibrator = Calibrator(slope, -0.5)
    run = SimpleNamespace(
        calibrator=calibrator, operating_point=SimpleNamespace(threshold=threshold), path=Path("fake"),
        settings=SimpleNamespace(seed=seed, fold=0, shaping=lambda: {"seed": seed, "image_size": 96}), is_cross_validation=False,
    )  # fmt: skip
    shared = np.random.default_rng(9)
    own, other = table("h", shared.random(n) < 0.3, 1), table("a", shared.random(n) < 0.15, 4)
    return ExternalTest(run, *(with_margin(part.assign(risk=calibrator.risk(part["logit"])), run) for part in (own, other)))


def test_a_margin_is_the_models_own_decision_whatever_its_scale():
    one = made_up(1, slope=3.0, threshold=0.2)
    assert ((one.internal["margin"] >= 0) == (expit(one.internal["logit"]) >= 0.2)).all()
    np.testing.assert_allclose(expit(one.internal["log_odds"]), one.internal["risk"])
    upside_down = SimpleNamespace(calibrator=Calibrator(-1, 0), operating_point=SimpleNamespace(threshold=0.5), path="x")
    with pytest.raises(StudyError, match="ranks or decides nothing"):
        with_margin(one.internal, upside_down)


def test_rows_hold_the_models_and_their_average():
    two = [made_up(1), made_up(2, slope=1.5)]
    rows = external_rows(two, n=60)
    assert [row["model"] for row in rows] == ["mean of 2 models", "2 models averaged", "seed 1", "seed 2"]
    aurocs = [roc_auc_score(one.external["target"], one.external["margin"]) for one in two]
    assert rows[0]["auroc_abroad"]["value"] == pytest.approx(np.mean(aurocs))
    found = np.mean([(one.internal["margin"] >= 0)[one.internal["target"] == 1].mean() for one in two])  # as many cases in each
    assert rows[0]["sensitivity_home"]["value"] == pytest.approx(found)
    flagged = (two[0].external["margin"] + two[1].external["margin"]) / 2 >= 0
    melanoma = averaged(two)["target"] == 1
    assert rows[1]["sensitivity_abroad"]["value"] == pytest.approx(flagged[melanoma].mean())
    assert rows[1]["specificity_abroad"]["value"] == pytest.approx((~flagged)[~melanoma].mean())
    assert rows[1]["ppv_abroad"]["value"] == pytest.approx(melanoma[flagged].mean())
    assert len(external_rows(two[:1], n=20)) == 2  # one model needs no average
