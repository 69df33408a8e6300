"""The comparison of backbones: trained once, scored as evaluation scores, on the same cases, and repeated by its command."""

import shlex

import numpy as np
import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import bootstrap_gain, delong_test
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.studies.backbones import Entry, command_of, compare_backbones, plan, score_runs

TINY = (Entry("Tiny", "test_efficientnet", pretrained=False), Entry("Residual", "test_resnet", pretrained=False))
NAMES = ["Tiny (from scratch, 32 px)", "Residual (from scratch, 32 px)"]


@pytest.fixture(scope="module")
def base(tiny_settings):
    return tiny_settings.with_changes(folds=3, fold=2, max_epochs=1, frozen_stride=0)


@pytest.fixture(scope="module")
def compared(base):
    return compare_backbones(base, TINY)


@pytest.fixture(scope="module")
def runs(compared, base):
    return {name: Run(settings.run_path) for name, settings in plan(base, TINY).items()}


def test_rows_are_what_evaluation_says_of_each_run(compared, runs):
    assert list(runs) == NAMES and {row["name"] for row in compared.rows} == set(NAMES)
    for row in compared.rows:
        metrics, test = runs[row["name"]].metrics, runs[row["name"]].predictions("test")
        assert row["auroc"]["value"] == pytest.approx(metrics["auroc"]["value"])
        assert row["brier"]["value"] == pytest.approx(metrics["calibration"]["risk"]["brier"]["value"])
        assert row["sensitivity"]["value"] == pytest.approx(metrics["at_threshold"]["sensitivity"]["value"])
        model = runs[row["name"]].model()
        assert row["parameters"] == sum(parameter.numel() for parameter in model.parameters()) and row["macs"] > 0
    assert compared.details["n_cases"] == len(test) and compared.details["n_melanomas"] == test["target"].sum()
    assert set(compared.weights_sha256) == {run.path.name for run in runs.values()}


def test_differences_are_paired(runs):
    first, second = (run.predictions("test").sort_values("image_id") for run in runs.values())
    rows = {row["name"]: row for row in score_runs({name: [run] for name, run in runs.items()}, NAMES[0], 0.9, n=200)}
    gain = bootstrap_gain(first["target"], second["probability"], first["probability"], first["group_id"].to_numpy(str), n=200)
    assert rows[NAMES[1]]["gain_auroc"] == gain["auroc"].to_dict()
    p_value = delong_test(first["target"], second["probability"], first["probability"]).p_value
    assert rows[NAMES[1]]["delong_p"] == pytest.approx(p_value)
    assert rows[NAMES[1]]["delong_p_holm"] == pytest.approx(p_value)  # of one comparison
    assert rows[NAMES[0]]["gain_auroc"] is None
    twice = score_runs({name: [run, run] for name, run in runs.items()}, NAMES[0], 0.9, n=50)  # the mean of equal folds
    assert [row["auroc"]["value"] for row in twice] == [rows[name]["auroc"]["value"] for name in NAMES]
    assert np.diff([twice[1]["delong_p"], p_value])[0] > 0 or p_value == 1  # two folds say it surer than one


def test_the_command_of_settings_gives_these_settings_back(base, tmp_path, monkeypatch):
    given = []

    def stop(settings):
        given.append(settings)
        raise StudyError("seen")

    monkeypatch.setattr("melanoma_lib.run_writer.RunWriter", stop)
    spaced = base.with_changes(runs_dir=tmp_path / "two words", alpha=0.25, tta=True, image_dirs=(tmp_path, tmp_path / "b"))
    for settings in (spaced, Settings(), *plan(base, TINY).values()):
        words = shlex.split(command_of(settings))
        assert words[:4] == ["python", "-m", "melanoma_lib", "train"]
        assert main(words[3:]) == 1 and given[-1] == settings
