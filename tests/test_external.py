"""External validation, against scikit-learn and counting by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.data import load_cases
from melanoma_lib.errors import DataError
from melanoma_lib.evaluation import Calibrator, evaluate_predictions
from melanoma_lib.reports.external import evaluate_external, external_table, predict_cases, seen_cases
from melanoma_lib.training import train
from tests.data.builders import case_table, write_isic2020
from tests.evaluation.cases import prediction_table


def test_internal_stands_beside_external_at_either_prevalence():
    tables = {"internal": prediction_table(900, seed=1), "external": prediction_table(400, seed=2)}
    tables["external"] = tables["external"].query("target == 0 or index % 3 == 0")  # fewer melanomas
    found = external_table({place: evaluate_predictions(t, 0.4, n=100) for place, t in tables.items()}, tables, n=100)
    share = {place: t["target"].mean() for place, t in tables.items()}
    for place, t in tables.items():
        flagged, melanoma = t["probability"] >= 0.4, t["target"] == 1
        assert found.loc["melanomas", place] == melanoma.sum() and found.loc["groups", place] == t["group_id"].nunique()
        assert found.loc["auroc", place] == pytest.approx(roc_auc_score(melanoma, t["probability"]))
        assert found.loc["brier", place] == pytest.approx(brier_score_loss(melanoma, t["risk"]))
        assert found.loc["ppv", place] == pytest.approx(melanoma[flagged].mean())
        assert found.loc[f"ppv_at_{place}_prevalence", place] == pytest.approx(melanoma[flagged].mean())
        assert found.loc[f"npv_at_{place}_prevalence", place] == pytest.approx(1 - melanoma[~flagged].mean())
        assert found.loc["observed_over_expected", place] == pytest.approx(melanoma.sum() / t["risk"].sum())
        # Weighting cases to the other prevalence is what Bayes' rule does.
        other = "external" if place == "internal" else "internal"
        weights = np.where(melanoma, share[other] / share[place], (1 - share[other]) / (1 - share[place]))
        expected = np.average(melanoma[flagged], weights=weights[flagged])
        assert found.loc[f"ppv_at_{other}_prevalence", place] == pytest.approx(expected)
    assert found.loc["auroc", "external_low"] < found.loc["auroc", "external"] < found.loc["auroc", "external_high"]
    evidence = {"sensitivity": "too few to say", "auroc": "too few to say", "specificity": "enough", "images": ""}
    assert found.loc[[*evidence], "evidence"].tolist() == [*evidence.values()]


def test_observed_over_expected_resamples_groups():
    once = prediction_table(300)
    tables = {"internal": once, "external": pd.concat([once, once.assign(image_id=once["image_id"] + "_again")])}
    summaries = {place: evaluate_predictions(one, 0.4, n=10) for place, one in tables.items()}
    row = external_table(summaries, tables, n=200).loc["observed_over_expected"]
    assert (row["external_low"], row["external_high"]) == pytest.approx((row["internal_low"], row["internal_high"]))
    assert row["internal_low"] < row["internal"] < row["internal_high"]


@pytest.fixture(scope="module")
def isic2020(tmp_path_factory):
    return write_isic2020(tmp_path_factory.mktemp("isic2020"))


def test_a_run_answers_as_it_did_and_a_cross_validation_as_the_mean_of_its_folds(tiny_run, monkeypatch):
    cases, stored = tiny_run.cases(), tiny_run.predictions("test")
    tested = predict_cases(tiny_run, cases[cases["split"] == "test"])
    np.testing.assert_allclose(tested[["logit", "risk"]], stored[["logit", "risk"]], atol=1e-5)
    monkeypatch.setattr(type(tiny_run), "calibrator", Calibrator(2.0, -1.0))
    kept = {"operating_point": SimpleNamespace(threshold=0.3), "settings": tiny_run.settings}
    both = SimpleNamespace(is_cross_validation=True, folds=[tiny_run, tiny_run], **kept)
    one, mean = predict_cases(tiny_run, cases), predict_cases(both, cases)
    np.testing.assert_allclose(mean["risk"], one["risk"])
    clear = (one["probability"] - tiny_run.operating_point.threshold).abs() > 1e-6
    decided = one["probability"] >= tiny_run.operating_point.threshold
    assert ((mean["probability"] >= 0.3) == decided)[clear].all() and decided.nunique() == 2


def test_a_run_is_evaluated_on_another_collection_in_one_command(tiny_run, isic2020, tmp_path, capsys):
    words = ["evaluate", str(tiny_run.path), "--source", "isic2020", "--data-dir", str(isic2020), "--cache-dir", str(tmp_path)]
    assert main(words) == 1
    assert "--missing-images drop" in capsys.readouterr().err
    assert main([*words, "--missing-images", "drop"]) == 0
    folder, printed = tiny_run.path / "evaluation-isic2020", capsys.readouterr().out
    found = pd.read_csv(folder / "comparison.csv", index_col="measure")
    cases = load_cases("isic2020", isic2020, missing_images="drop")
    asked = predict_cases(tiny_run, cases, tmp_path)
    assert found.loc["auroc", "external"] == pytest.approx(roc_auc_score(asked["target"], asked["probability"]))
    assert found.loc["auroc", "internal"] == pytest.approx(tiny_run.metrics["auroc"]["value"])
    assert found.loc[["images", "groups", "melanomas"], "external"].tolist() == [90, 30, 15]
    assert set(found["evidence"].dropna()) == {"too few to say"}
    assert f"{found.loc['auroc', 'external']:.3f}" in printed and "too few to say" in printed
    assert pd.read_csv(folder / "predictions.csv")["risk"].tolist() == pytest.approx(asked["risk"].tolist(), abs=1e-6)
    assert (folder / "roc.png").is_file()
    assert main(["evaluate", str(tiny_run.path), "--data-dir", str(isic2020)]) == 1
    assert "--data-dir tells of another collection: name it with --source" in capsys.readouterr().err


def test_a_model_of_metadata_alone_needs_no_image(tiny_settings, isic2020, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "train.csv").write_bytes((isic2020 / "train.csv").read_bytes())
    changes = {"source": "isic2020", "data_dir": bare, "modalities": "metadata", "max_epochs": 1, "runs_dir": tmp_path / "runs"}
    assert len(train(tiny_settings.with_changes(**changes, run_dir=tmp_path / "own")).splits) == 120
    run = train(tiny_settings.with_changes(modalities="metadata", max_epochs=1, runs_dir=tmp_path / "runs"))
    assert main(["evaluate", str(run.path), "--source", "isic2020", "--data-dir", str(bare)]) == 0
    found = pd.read_csv(run.path / "evaluation-isic2020" / "comparison.csv", index_col="measure")
    assert found.loc["images", "external"] == 120
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--tta"]) == 1
    assert "metadata alone, of which there is one view" in capsys.readouterr().err


def test_what_the_run_has_seen_is_left_out_and_counted(tiny_run):
    own = tiny_run.cases()
    with pytest.raises(DataError, match=f"of {len(own)} cases of synthetic {len(own)} are in the run's own table"):
        evaluate_external(tiny_run, own.drop(columns="split"))
    splits = pd.DataFrame({"image_id": ["image_0", "x", "y"], "group_id": ["lesion:L0", "lesion:L2", "patient:P3"]})
    cases = case_table([0, 1, 0, 1, 0, 1], lesions=[None, "L1", "L2", "L3", None, "L5"], patients=[None] * 3 + ["P3", None, "P5"])
    assert seen_cases(splits, cases).tolist() == [True, False, True, True, False, False]
    again = cases.assign(image_id="image_0_downsampled").iloc[[4]]
    assert seen_cases(splits, again).all()
