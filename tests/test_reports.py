"""Evaluation reports and the ablation table, against predictions recomputed by hand."""

import json

import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.errors import RunError
from melanoma_lib.reports.report import bayes_ceiling, evaluate_run, predict_with_views


def test_report_holds_the_runs_numbers_and_described_figures(tiny_run):
    report = evaluate_run(tiny_run)
    test = tiny_run.predictions("test")
    auroc = roc_auc_score(test["target"], test["probability"])
    assert f"{auroc:.3f}" in report.text
    assert "not for diagnosis" in report.text.lower()
    assert json.loads((report.folder / "metrics.json").read_text()) == report.summary == tiny_run.metrics
    assert max(map(len, report.text.splitlines())) <= 100 or report.text.splitlines()[0].startswith(tiny_run.path.name)
    for name in ("roc", "precision_recall", "confusion", "reliability"):
        assert (report.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len((report.folder / f"{name}.txt").read_text()) > 40


def test_report_of_synthetic_cases_names_the_bayes_ceiling(tiny_run):
    test = tiny_run.predictions("test")
    assert f"image + metadata  {roc_auc_score(test['target'], test['true_risk']):.3f}" in evaluate_run(tiny_run).text
    assert bayes_ceiling(test)["metadata only"] == pytest.approx(roc_auc_score(test["target"], test["truth_risk_metadata"]))
    assert bayes_ceiling(test.drop(columns="true_risk")) == {}


def test_a_killed_evaluation_loses_no_report_and_leaves_nothing(tiny_run, monkeypatch):
    report = evaluate_run(tiny_run)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("melanoma_lib.reports.report.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_run(tiny_run)
    assert (report.folder / "report.txt").read_text() == report.text == evaluate_run(tiny_run).text
    assert not list(tiny_run.path.glob(".evaluation*"))


def test_eight_views_are_averaged_by_logit_and_calibrated_again(tiny_run):
    test, report = predict_with_views(tiny_run)["test"], evaluate_run(tiny_run, tta=True)
    assert report.folder.name == "evaluation-tta"
    assert report.summary["at_threshold"]["threshold"] != tiny_run.operating_point.threshold
    assert report.summary["auroc"]["value"] == pytest.approx(roc_auc_score(test["target"], test["logit"]))


def test_views_refuse_cases_the_run_does_not_know(tiny_run, monkeypatch):
    cases = DermoscopyDataModule(tiny_run.settings).cases.drop(columns="split").iloc[1:]
    monkeypatch.setattr("melanoma_lib.data.datamodule.cases_for", lambda *_: cases)
    with pytest.raises(RunError, match="other cases"):
        predict_with_views(tiny_run)
