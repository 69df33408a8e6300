"""A run directory: whole or not at all, its files agree with each other, and a foreign threshold is refused."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, recall_score

from melanoma_lib.__main__ import main
from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.errors import ForeignThresholdError, RunError
from melanoma_lib.runs import choose_operating_point
from melanoma_lib.runs import writer as run_writer
from melanoma_lib.runs.run import (
    CHECKPOINT,
    DEMONSTRATION,
    ENVIRONMENT,
    FOLDS,
    PREDICTIONS,
    REFERENCE,
    REQUIRED,
    Run,
)
from melanoma_lib.settings import Settings
from melanoma_lib.training import train


def test_cases_come_as_the_loaders_show_them(tiny_run):
    data, cases = DermoscopyDataModule(tiny_run.settings), tiny_run.cases("test")
    with pytest.raises(RunError, match="not of 'tests'"):
        tiny_run.cases("tests")
    shown = next(iter(data.test_dataloader()))
    batch = tiny_run.batch(cases.head(len(shown["image"])).assign(mask_path=[None, *cases["mask_path"][1 : len(shown["image"])]]))
    torch.testing.assert_close(batch.images, shown["image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.metadata, shown["metadata"])
    side = tiny_run.settings.image_size
    assert batch.masks.shape == (len(batch.images), side, side) and not batch.masks[0].any() and batch.masks[1].any()
    assert batch.photographs.shape == (len(batch.images), 256, 256, 3) and batch.photographs.dtype == np.uint8


def test_risk_and_threshold_are_fitted_on_validation_alone(tiny_run):
    validation, test = tiny_run.predictions("val"), tiny_run.predictions("test")
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(validation[["logit"]], validation["target"])
    np.testing.assert_allclose(test["risk"], oracle.predict_proba(test[["logit"]])[:, 1], atol=1e-4)
    point = tiny_run.operating_point
    called = validation["probability"] >= point.threshold
    assert point.threshold == choose_operating_point(validation, tiny_run.settings)["threshold"]
    assert point.sensitivity == pytest.approx(recall_score(validation["target"], called)) and point.sensitivity >= 0.95


@pytest.mark.parametrize("rule", get_args(Settings.model_fields["threshold_rule"].annotation))
def test_each_rule_chooses_the_best_of_all_thresholds_on_validation(rule):
    rng = np.random.default_rng(1)
    targets = np.arange(120) % 4 == 0
    scores = np.round(rng.normal(0.4 + 0.2 * targets, 0.2).clip(0.01, 0.99), 2)
    settings = Settings(threshold_rule=rule, min_sensitivity=0.8, min_specificity=0.7, fn_cost=4)
    point = choose_operating_point(pd.DataFrame({"target": targets.astype(int), "probability": scores}), settings)
    tried = [*np.unique(scores), np.nextafter(scores.max(), 1)]
    rates = {t: (recall_score(targets, scores >= t), recall_score(~targets, scores < t)) for t in tried}
    best = {
        "sensitivity": lambda: max(t for t, (sensitivity, _) in rates.items() if sensitivity >= 0.8),
        "specificity": lambda: min(t for t, (_, specificity) in rates.items() if specificity >= 0.7),
        "f1": lambda: max(rates, key=lambda t: f1_score(targets, scores >= t)),
        "youden": lambda: max(rates, key=lambda t: round(sum(rates[t]), 9)),
        "cost": lambda: min(rates, key=lambda t: round(30 * (1 - rates[t][0]) * 4 + 90 * (1 - rates[t][1]), 9)),
        "0.5": lambda: 0.5,
    }[rule]()
    assert point["threshold"] == best
    expected = (recall_score(targets, scores >= best), recall_score(~targets, scores < best))
    assert (point["sensitivity"], point["specificity"]) == pytest.approx(expected)


def test_a_run_that_lacks_a_file_is_no_run(own_run):
    for name in REQUIRED:
        hidden = (own_run.path / name).rename(own_run.path / "hidden")
        with pytest.raises(RunError, match=f"it lacks {name}"):
            Run(own_run.path)
        hidden.rename(own_run.path / name)


def test_a_threshold_of_other_predictions_or_another_model_is_refused(own_run):
    checkpoint = own_run.path / CHECKPOINT
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content + b" ")
    with pytest.raises(ForeignThresholdError, match=r"best\.ckpt"):
        _ = Run(own_run.path).operating_point
    checkpoint.write_bytes(content)
    point = json.loads((stored := own_run.path / "operating_point.json").read_text())
    stored.write_text(json.dumps(point | {"threshold": 0.5}))
    with pytest.raises(ForeignThresholdError, match=r"threshold 0\.5, the metrics were counted at"):
        _ = Run(own_run.path).operating_point
    stored.write_text(json.dumps(point))
    table = pd.read_csv(own_run.path / PREDICTIONS.format("val"))
    table.assign(probability=table["probability"] * 0.5).to_csv(own_run.path / PREDICTIONS.format("val"), index=False)
    with pytest.raises(ForeignThresholdError, match="predictions_val"):
        _ = Run(own_run.path).operating_point


def test_a_damaged_or_shortened_file_is_named(own_run):
    for name, what in {"calibration.json": "calibrator", "environment.json": "environment", "splits.csv": "splits"}.items():
        (own_run.path / name).write_text('{"a' if name.endswith("json") else "")
        with pytest.raises(RunError, match=f"{name} is damaged"):
            getattr(Run(own_run.path), what)
    (file := own_run.path / PREDICTIONS.format("test")).write_text("".join(file.read_text().splitlines(True)[:9]))
    with pytest.raises(RunError, match="holds 8 cases"):
        own_run.predictions("test")


def test_a_checkpoint_that_does_not_fit_is_named(own_run):
    settings = json.loads((own_run.path / "settings.json").read_text())
    (own_run.path / "settings.json").write_text(json.dumps(settings | {"metadata_hidden": 9}))
    with pytest.raises(RunError, match=r"best\.ckpt"):
        Run(own_run.path).model()


def test_a_full_disk_at_the_end_leaves_no_run_and_resume_finishes_it(tiny_run, tiny_settings, tmp_path, monkeypatch):
    settings = tiny_settings.with_changes(runs_dir=tmp_path)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr("melanoma_lib.runs.writer._environment", full)
        with pytest.raises(OSError, match="No space"):
            train(settings)
    assert not settings.run_path.exists()
    again = run_writer.RunWriter(settings.with_changes(resume=True))
    with again.working(), pytest.raises(RunError, match="another process is training"):
        train(settings.with_changes(resume=True))
    again.path.rename(again.partial)
    finished = train(settings.with_changes(resume=True))
    pd.testing.assert_frame_equal(finished.predictions("test"), tiny_run.predictions("test"))


def test_the_default_run_is_the_latest_that_is_no_demonstration_else_the_reference(tiny_run, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    runs = tmp_path / "runs"
    for age, name in enumerate(["trapped", "folds", "new", "old", "unfinished.partial"]):
        shutil.copytree(tiny_run.path, runs / name)
        os.utime(runs / name / ENVIRONMENT, (1e9 - age, 1e9 - age))
    (runs / "trapped" / DEMONSTRATION).write_text("trained to go wrong")
    (runs / "folds" / FOLDS).write_text("[]")
    assert Run(runs / "trapped").demonstration == "trained to go wrong" and Run(runs / "new").demonstration == ""
    assert [Run.default(runs, needs_model).path.name for needs_model in (False, True)] == ["folds", "new"]
    assert "the latest finished run" in caplog.messages[-1]
    for name in ("folds", "new", "old"):
        shutil.rmtree(runs / name)
    assert Run(REFERENCE).path.parents[2] == Path(__file__).parents[1]  # of the kit's checkout, from any working directory
    with monkeypatch.context() as patch, pytest.raises(RunError, match="no finished run"):
        patch.setattr("melanoma_lib.runs.run.reference_path", lambda: None)
        Run.default(runs)
    shutil.copytree(tiny_run.path, tmp_path / REFERENCE)
    caplog.clear()
    assert Run.default(runs).path == tmp_path / REFERENCE
    assert "the reference run, as" in caplog.text and "trained on synthetic" in caplog.text


def test_runs_lists_each_run_and_tells_what_is_none(tiny_run, tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    monkeypatch.setattr("melanoma_lib.runs.writer.reference_path", lambda: runs / "good")  # listed once nevertheless
    for name in ("good", "trapped", "torn", "old.partial"):
        shutil.copytree(tiny_run.path, runs / name)
    (runs / "trapped" / DEMONSTRATION).write_text("ink goes with the label")
    (runs / "torn" / "metrics.json").write_text('{"auroc": ')
    (runs / "old.partial" / ENVIRONMENT).unlink()
    assert main(["runs", "--runs-dir", str(runs)]) == 0
    told = capsys.readouterr()
    auroc = tiny_run.metrics["auroc"]
    head, *rows = told.out.splitlines()
    assert "demonstration" in head and len(rows) == 2
    assert f"{auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}]" in rows[0] and "ink goes" not in rows[0]
    assert rows[1].endswith("ink goes with the label")
    assert all(word in rows[0] for word in ("good", "synthetic", "test_efficientnet", " 32 ", str(len(tiny_run.history))))
    assert "torn/metrics.json is damaged" in told.err and "interrupted: add --resume" in told.err
    monkeypatch.setattr("melanoma_lib.runs.writer.reference_path", lambda: None)
    assert main(["runs", "--runs-dir", "nowhere"]) == 0
    assert "no finished run in nowhere" in capsys.readouterr().out


def test_cases_of_a_split_bring_its_answers_and_are_painted_alone(tiny_run, tmp_path):
    told = tiny_run.predictions("test")
    elsewhere = tiny_run.settings.with_changes(data_dir=tmp_path, run_dir=None)
    cases = tiny_run.cases("test", elsewhere)
    pd.testing.assert_frame_equal(
        cases[["image_id", "target", "logit", "probability", "risk"]],
        told[["image_id", "target", "logit", "probability", "risk"]],
    )
    assert len(list(tmp_path.rglob("*.jpg"))) == len(told) < len(tiny_run.splits)
    everyone = tiny_run.cases()
    assert everyone["image_id"].tolist() == tiny_run.splits["image_id"].tolist()
    for one, other in zip(cases["image_path"], everyone.set_index("image_id").loc[cases["image_id"], "image_path"], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
