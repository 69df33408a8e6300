"""Several processes train what one would: same split, every case once, same metrics, one run; and all end when one fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from melanoma_lib.data import datamodule
from melanoma_lib.data.sampling import EpochSampler
from melanoma_lib.errors import SettingsError
from melanoma_lib.model import MelanomaNet
from melanoma_lib.processes import ALONE, Team, check_fits, started_team
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.training import synchronise_statistics
from tests.team import train_plainly

ROOT = Path(__file__).parents[1]


def torchrun(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def recipe(tiny_settings) -> Settings:
    """A training whose steps do not depend on how a batch is shared out: no batch statistics, dropout or augmentation."""
    return tiny_settings.with_changes(
        backbone="test_convnext", modalities="image", dropout=0.0, drop_path=0.0, sampler="weighted", diagnosis_weight=0.5,
        head_epochs=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    folder, original = tmp_path_factory.mktemp("alone"), datamodule.training_transform
    try:
        run = train_plainly(recipe.with_changes(runs_dir=folder / "runs"), folder)
    finally:
        datamodule.training_transform = original
    return run, folder


@pytest.fixture(scope="module")
def together(recipe, tmp_path_factory):
    """The same in two processes; the image cache is theirs to build."""
    folder = tmp_path_factory.mktemp("together")
    settings = recipe.with_changes(runs_dir=folder / "runs", cache_dir=folder / "cache", devices=2)
    (folder / "settings.json").write_text(settings.to_json())
    ended = torchrun("tests.team", folder / "settings.json", folder)
    assert ended.returncode == 0, ended.stderr
    return Run(settings.run_path), folder


@pytest.mark.xdist_group("team")
def test_two_processes_leave_the_one_run_that_one_would(alone, together):
    (one, _), (two, folder) = alone, together
    assert [path.name for path in (folder / "runs").iterdir() if not path.name.startswith(".")] == [one.path.name]
    pd.testing.assert_frame_equal(two.splits, one.splits)
    said = [json.loads((folder / f"run-{rank}.json").read_text()) for rank in (0, 1)]
    assert said == [[str(two.path), two.metrics["auroc"]["value"]]] * 2
    assert len(list((folder / "cache").glob("images-*.npy"))) == 1


@pytest.mark.xdist_group("team")
def test_two_processes_share_every_batch_out(alone, together):
    alone_rows = json.loads((alone[1] / "rows-0.json").read_text())
    shares = [json.loads((together[1] / f"rows-{rank}.json").read_text()) for rank in (0, 1)]
    assert len(alone_rows) == 3
    assert [[a + b for a, b in zip(*epoch, strict=True)] for epoch in zip(*shares, strict=True)] == alone_rows
    assert {len(batch) for share in shares for epoch in share for batch in epoch} == {8}


@pytest.mark.xdist_group("team")
def test_two_processes_predict_and_score_as_one(alone, together):
    one, two = alone[0], together[0]
    for split in ("val", "test"):
        mine, theirs = two.predictions(split), one.predictions(split)
        np.testing.assert_allclose(mine["logit"], theirs["logit"], atol=1e-3)
        assert mine["image_id"].tolist() == theirs["image_id"].tolist()
    assert np.ptp(one.predictions("test")["logit"]) > 0.02  # a tolerance that a constant would not meet by luck
    columns = [name for name in one.history if name != "seconds"]
    np.testing.assert_allclose(two.history[columns], one.history[columns], atol=2e-3)


@pytest.mark.xdist_group("team")
def test_gathered_validation_metrics_count_every_case_once(together):
    run = together[0]
    table, best = run.predictions("val"), run.history.loc[run.history["val/f1"].idxmax()]
    assert len(table) % 2 == 1 or len(table) % 16  # shares of uneven length
    assert best["val/auroc"] == pytest.approx(roc_auc_score(table["target"], table["probability"]), abs=1e-5)
    prediction, target = torch.tensor(table["logit"]), torch.tensor(table["target"], dtype=torch.float64)
    from melanoma_lib.losses import focal_loss

    loss = focal_loss(prediction, target, run.settings.alpha, run.settings.gamma)
    assert best["val/loss"] == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.xdist_group("team")
def test_when_one_process_fails_all_end_and_resume_reaches_the_unbroken_end(recipe, together, tmp_path):
    settings = recipe.with_changes(runs_dir=tmp_path / "runs", cache_dir=together[1] / "cache")
    (tmp_path / "settings.json").write_text(settings.to_json())
    ended = torchrun("tests.team", tmp_path / "settings.json", tmp_path, 1)
    assert ended.returncode != 0
    assert "the second process breaks off" in ended.stderr
    assert not settings.run_path.exists()
    assert len(pd.read_csv(f"{settings.run_path}.partial/history.csv")) == 1
    (tmp_path / "settings.json").write_text(settings.with_changes(resume=True).to_json())
    ended = torchrun("tests.team", tmp_path / "settings.json", tmp_path)
    assert ended.returncode == 0, ended.stderr
    unbroken, resumed = together[0], Run(settings.run_path)
    np.testing.assert_allclose(resumed.predictions("test")["logit"], unbroken.predictions("test")["logit"], atol=1e-5)
    assert len(resumed.history) == len(unbroken.history)


@pytest.mark.xdist_group("team")
def test_devices_on_the_command_line_start_the_processes(tiny_settings, tmp_path):
    """The usual recipe: augmentation, batch statistics, both branches; said once, by the first process."""
    settings = tiny_settings.with_changes(run_dir=tmp_path / "run", devices=2, max_epochs=1)
    words = [
        word
        for name, value in settings.model_dump(mode="json", exclude={"image_dirs"}).items()
        if value is not None or name == "alpha"
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    command = [sys.executable, "-m", "melanoma_lib", "train", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("finished") == 1
    run = Run(settings.run_dir)
    assert run.settings.devices == 2
    assert np.isfinite(run.predictions("test")["logit"]).all()
    again = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert again.returncode == 1
    assert "exists already" in again.stderr


# --- shares ----------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 1), min_size=8, max_size=150),
    st.sampled_from(["plain", "weighted", "oversample", "ordered"]),
    st.sampled_from([(1, 3), (2, 4), (3, 6), (4, 4), (4, 12)]),
    st.integers(0, 3),
)
def test_shares_are_disjoint_and_complete(targets, mode, sizes, epoch):
    size, batch = sizes
    targets = np.array([0, 1, *targets])
    samplers = [EpochSampler(targets, np.arange(len(targets)), mode, batch, 5, 0.4, rank, size) for rank in range(size)]
    single = EpochSampler(targets, np.arange(len(targets)), mode, batch, 5, 0.4)
    for sampler in (*samplers, single):
        sampler.set_epoch(epoch)
    shares, whole = [list(sampler) for sampler in samplers], list(single)
    assert {len(share) for share in shares} == {len(samplers[0])}  # or one would wait for the others for ever
    assert all(draw.rows for share in shares for draw in share)
    joined = [[row for draw in step for row in draw.rows] for step in zip(*shares, strict=True)]
    if mode == "ordered":
        assert [row for rows in joined for row in rows] == list(range(len(targets)))
    else:
        assert joined == [draw.rows for draw in whole]
        assert [draw.seed for draw in shares[0]] == [draw.seed for draw in whole]
        assert all(len({draw.seed for draw in step}) == size for step in zip(*shares, strict=True))


def test_fewer_cases_than_processes_are_refused():
    with pytest.raises(ValueError, match="each of 4 processes, got 3"):
        EpochSampler(np.zeros(3), np.arange(3), "ordered", 8, 0, 0.5, 0, 4)


# --- settings --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "team", "match"),
    [
        ({"devices": 2}, ALONE, "--nproc-per-node 2"),
        ({"nodes": 3}, Team(0, 4, 2), "--nnodes 3"),
        ({"devices": 4}, Team(1, 4, 2), "started are 2 on 2"),
        ({"batch_size": 30}, Team(0, 4, 1), "multiple of 4"),
    ],
)
def test_settings_that_do_not_fit_the_processes_are_refused(changes, team, match):
    with pytest.raises(SettingsError, match=match):
        check_fits(Settings(**changes), team)


def test_settings_that_fit_are_taken():
    check_fits(Settings(), ALONE)
    check_fits(Settings(devices=2, nodes=2, batch_size=32), Team(3, 4, 2))
    check_fits(Settings(), Team(3, 4, 2))


def test_torchruns_environment_is_recognised(monkeypatch):
    assert started_team() == ALONE
    for name, value in {"RANK": "5", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert started_team() == ALONE  # somebody else's variables
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert started_team() == Team(rank=5, size=8, nodes=2)
    assert not started_team().leads
    assert started_team().devices == 4


# --- batch statistics ------------------------------------------------------------------------------------------------------


def test_synchronised_statistics_keep_the_activations_and_the_names():
    torch.manual_seed(0)
    model = MelanomaNet("test_efficientnet", 5, pretrained=False).eval()
    image, metadata = torch.rand(2, 3, 32, 32), torch.rand(2, 5)
    before, names = model(image, metadata), list(model.state_dict())
    model = synchronise_statistics(model)
    assert any("SyncBatchNorm" in type(module).__name__ for module in model.modules())
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model.eval()(image, metadata), before)
