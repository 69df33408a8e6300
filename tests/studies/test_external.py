"""External validation: a run answers elsewhere as it does on its own cases, and the table says what counting by hand says."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.comparison import predict_cases
from melanoma_lib.data import load_cases
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import Calibrator
from melanoma_lib.studies import external
from melanoma_lib.studies.external import (
    ExternalTest,
    averaged,
    external_rows,
    external_validation,
    gain_over,
    single_runs,
    with_margin,
)
from melanoma_lib.studies.results import load_results
from tests.data.builders import write_isic2020


@pytest.fixture(scope="module")
def isic2020(tmp_path_factory):
    return write_isic2020(tmp_path_factory.mktemp("isic2020"))


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


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_the_gain_over_a_baseline_is_a_difference_of_means(seeds):
    tests, baseline = [made_up(1), made_up(2)], [made_up(seed) for seed in seeds]
    found, targets = gain_over(tests, baseline, n=50), tests[0].external["target"]
    base = np.mean([roc_auc_score(targets, one.external["log_odds"]) for one in baseline])
    assert found["auroc"]["value"] == pytest.approx(base)
    mean = np.mean([roc_auc_score(targets, one.external["margin"]) for one in tests])
    assert found["gain"]["value"] == pytest.approx(mean - base)


def test_runs_of_several_recipes_are_refused(tiny_run):
    other = SimpleNamespace(
        is_cross_validation=False, path="other", settings=tiny_run.settings.with_changes(image_size=96, seed=5)
    )
    with pytest.raises(StudyError, match=r"other differs from .* in image_size;"):
        single_runs([tiny_run, other])
    with pytest.raises(StudyError, match="at least one"):
        single_runs([])


def test_one_command_leaves_a_table(tiny_run, isic2020, tmp_path, capsys, monkeypatch):
    steady = Calibrator(1.0, 0.0)  # a model of seconds may rank upside down, which the study refuses
    monkeypatch.setattr(type(tiny_run), "calibrator", property(lambda _: steady))
    words = ["study", "travel", str(tiny_run.path), "--data-dir-2020", str(isic2020), "--out", str(tmp_path)]
    words += ["--metadata", str(tiny_run.path), "--n-resamples", "100", "--cache-dir", str(tmp_path / "cache")]
    assert main(words) == 0
    table = load_results("travel", tmp_path)
    cases = load_cases("isic2020", isic2020, missing_images="drop")
    assert table.details["images"] == len(cases) == 90 and table.details["patients"] == 30
    asked = predict_cases(tiny_run, cases, tmp_path / "cache")
    assert table.rows[0]["auroc_abroad"]["value"] == pytest.approx(roc_auc_score(asked["target"], asked["logit"]))
    assert table.details["metadata_alone"]["gain"]["value"] == 0  # the same model
    assert f"runs/{tiny_run.path.name}" in table.command and str(isic2020) not in table.command
    assert "mean of 1 models" in capsys.readouterr().out


def test_runs_trained_on_the_external_cases_or_without_pictures_are_refused(tiny_run, isic2020, monkeypatch):
    for change in ({"source": "isic2020"}, {"modalities": "metadata"}):
        settings = tiny_run.settings.with_changes(**change)
        monkeypatch.setattr(external, "single_runs", lambda _, settings=settings: [SimpleNamespace(settings=settings)])
        with pytest.raises(StudyError, match="expected runs with an image branch"):
            external_validation([tiny_run], isic2020)
