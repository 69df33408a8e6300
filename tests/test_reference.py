"""The reference runs: whole, small, of the weights they name, and true to the trainings they were packed from."""

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.data import SyntheticDermoscopy
from melanoma_lib.data.images import stored_side
from melanoma_lib.data.synthetic import painted_jpeg
from melanoma_lib.inference import Predictor
from melanoma_lib.runs.run import CHECKPOINT, Run, finished_runs, sha256

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
NAMES = ("ham10000", "synthetic", "synthetic_ink")
MOST_MOVED = 0.002  # of a risk, by keeping large tensors with 16 bits


@pytest.fixture(scope="module")
def out_of_fold():
    return pd.read_csv(REFERENCE / "ham10000" / "out_of_fold.csv.gz")


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_run_loads_and_is_what_its_digests_say(name):
    run = Run(REFERENCE / name)
    sums = dict(reversed(line.split("  ")) for line in (run.path / "SHA256SUMS").read_text().splitlines())
    assert {file: sha256(run.path / file) for file in sums} == sums
    assert CHECKPOINT in sums and (run.path / CHECKPOINT).stat().st_size <= 8_000_000
    assert run.operating_point.checkpoint_sha256 == sums[CHECKPOINT]
    weights = run.model().state_dict().values()
    assert all(np.isfinite(value.numpy()).all() for value in weights)
    test = run.predictions("test")
    np.testing.assert_allclose(run.calibrator.risk(test["logit"].to_numpy()), test["risk"], atol=1e-9)
    assert run.metrics["auroc"]["value"] == pytest.approx(roc_auc_score(test["target"], test["probability"]))
    assert not set(test["group_id"]) & set(run.splits.loc[run.splits["split"] != "test", "group_id"])


def test_only_runs_that_went_right_are_taken_unasked():
    assert {folder.name for folder in finished_runs(REFERENCE)} == {"ham10000", "synthetic"}


def test_each_image_is_answered_once_by_models_that_never_saw_its_lesion(out_of_fold):
    assert len(out_of_fold) == out_of_fold["image_id"].nunique() == 10_015 and out_of_fold["target"].sum() == 1_113
    assert (out_of_fold.groupby("group_id")["fold"].nunique() == 1).all() and sorted(set(out_of_fold["fold"])) == [1, 2, 3, 4, 5]
    answers = out_of_fold.filter(regex="probability|risk")
    assert answers.shape[1] == 6 and answers.notna().all().all() and answers.stack().between(0, 1).all()
    fusion, image, metadata = (roc_auc_score(out_of_fold["target"], out_of_fold[f"risk{e}"]) for e in ("", "_image", "_metadata"))
    assert fusion > 0.9 and image > 0.88 and 0.6 < metadata < 0.75


def test_the_reference_answers_photographs_as_it_did_when_it_was_packed(ham10000_root):
    run = Run(REFERENCE / "ham10000")
    known = run.predictions("test").groupby("target").head(6)
    images = [next(ham10000_root.glob(f"HAM10000_images_part_*/{name}.jpg")) for name in known["image_id"]]
    answers = Predictor(run).predict(images, known)
    np.testing.assert_allclose(answers["risk"], known["risk"], atol=MOST_MOVED)


def test_the_synthetic_reference_answers_paintings_as_it_did_when_it_was_packed():
    run = Run(REFERENCE / "synthetic")
    settings, known = run.settings, run.predictions("test").groupby("target").head(3)
    generator = SyntheticDermoscopy(settings.n_patients, settings.data_seed, stored_side(settings.image_size))
    rows = pd.Series(generator.cases.index, generator.cases["image_id"])
    images = [painted_jpeg(generator.render(rows[name]).image) for name in known["image_id"]]
    np.testing.assert_allclose(Predictor(run).predict(images, known)["risk"], known["risk"], atol=MOST_MOVED)


def test_no_large_file_is_tracked():
    root = REFERENCE.parents[1]
    tracked = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0")
    sizes = {name: (root / name).stat().st_size for name in tracked if name and (root / name).is_file()}
    assert max(sizes.values()) < 16_000_000
    pictures = [name for name in sizes if name.startswith("data/") and name.lower().endswith((".jpg", ".jpeg", ".png"))]
    assert not pictures
