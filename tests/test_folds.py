"""Cross-validation: who is tested, validates and trains; what is gathered; and how it goes on after a failure."""

import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.data.splits import fold_cases
from melanoma_lib.errors import DataError, RunError, SettingsError
from melanoma_lib.evaluation import summary_table
from melanoma_lib.export import card_text
from melanoma_lib.runs.run import Run
from melanoma_lib.settings import Settings
from melanoma_lib.training import trainer
from melanoma_lib.training.trainer import cross_validate, fold_settings
from melanoma_lib.utils import workers
from tests.command_line import words_of

FOLD_COUNT = 3


def table(n_groups, seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    ill = rng.random(n_groups) < 0.4
    ill[:20], ill[20:40] = True, False
    return pd.DataFrame({"group_id": [f"L{number}" for number in groups], "target": ill[groups].astype(int)})


@given(n_groups=st.integers(60, 200), folds=st.integers(2, 8), seed=st.integers(0, 5))
def test_every_case_is_tested_once_and_no_group_straddles(n_groups, folds, seed):
    cases = table(n_groups, seed)
    splits = pd.DataFrame({fold: fold_cases(cases, folds, fold, seed) for fold in range(1, folds + 1)})
    assert ((splits == "test").sum(axis=1) == 1).all()
    assert ((splits == "val").sum(axis=1) <= 1).all()
    for fold in splits:
        assert (splits[fold].groupby(cases["group_id"]).nunique() == 1).all()
        shares = splits[fold].value_counts(normalize=True)
        assert abs(shares["test"] - 1 / folds) < 0.05
        assert abs(shares["val"] - 0.5 / folds) < 0.05
        for part in ("train", "val", "test"):
            assert abs(cases["target"][splits[fold] == part].mean() - cases["target"].mean()) < 0.12


def test_too_few_groups_for_the_folds_are_told():
    with pytest.raises(DataError, match="halves of 8 folds"):
        fold_cases(table(60, 0).query("target == 0 or group_id < 'L13'"), 8, 1)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({}, "got folds=0"), ({"folds": 3, "fold": 1}, "fold=1"), ({"folds": 3, "devices": 2}, "without --devices")],
)
def test_what_is_no_cross_validation_is_refused(wrong, told):
    with pytest.raises(SettingsError, match=told):
        cross_validate(Settings(**wrong))
    with pytest.raises(SettingsError, match="--backend dask"), workers("loky", scheduler="tcp://nowhere:8786"):
        pytest.fail("the body ran")
    with pytest.raises(ValueError, match="one of them"):
        fold_cases(table(60, 0), 5, 6)


@pytest.fixture(scope="module")
def folded(tiny_settings, tmp_path_factory):
    """A finished cross-validation of the tiny settings."""
    runs = tmp_path_factory.mktemp("folds")
    return cross_validate(tiny_settings.with_changes(folds=FOLD_COUNT, max_epochs=2, runs_dir=runs))


def test_the_gathered_run_holds_every_case_once_scored_by_the_model_that_did_not_see_it(folded):
    test = folded.predictions("test")
    assert sorted(test["image_id"]) == sorted(folded.cases()["image_id"])
    for number, fold in enumerate(folded.folds, start=1):
        mine = test[test["fold"] == number].set_index("image_id")
        theirs = fold.predictions("test").set_index("image_id")
        assert mine.index.equals(theirs.index)
        assert np.array_equal(mine["risk"], theirs["risk"])
        splits = fold.splits.set_index("image_id")["split"]
        assert (splits[mine.index] == "test").all()
    assert not folded.predictions("val")["image_id"].duplicated().any()
    assert (folded.splits["split"] == "test").all()


def test_one_threshold_repeats_the_decisions_of_each_fold_and_auroc_is_their_mean(folded):
    by_fold = [
        roc_auc_score(table["target"], table["probability"]) for table in (fold.predictions("test") for fold in folded.folds)
    ]
    assert folded.metrics["auroc"]["value"] == pytest.approx(np.mean(by_fold), abs=1e-12)
    assert [fold["value"] for fold in folded.metrics["auroc_by_fold"]] == pytest.approx(by_fold)
    point = folded.operating_point
    for split in ("val", "test"):
        gathered = folded.predictions(split)
        for number, fold in enumerate(folded.folds, start=1):
            mine = gathered[gathered["fold"] == number]["probability"] >= point.threshold
            theirs = fold.predictions(split)["probability"] >= fold.operating_point.threshold
            assert mine.tolist() == theirs.tolist()


def test_the_card_of_a_cross_validation_tells_of_its_folds(folded):
    text, first = card_text(folded), folded.folds[0].splits
    training, melanomas = first["split"] == "train", first[first["target"] == 1]
    siblings = first.groupby("group_id")["image_id"].size()[melanomas["group_id"]] - 1
    assert f"{100 * np.mean(1 - (1 - training.mean()) ** siblings):.1f}% of the test melanomas would" in text
    assert "| epochs run | 2, 2, 2 |" in text and "fitted in each fold" in text and "score, folds aligned" in text
    assert f"{folded.metrics['auroc_pooled']['value']:.3f}" in text and "mean of the folds" in summary_table(folded.metrics)


def test_a_gathered_run_has_no_single_model_and_notices_a_fold_trained_again(folded, tmp_path):
    with pytest.raises(RunError, match=r"take the run of one fold, such as .*fold1of3"):
        folded.model()
    with pytest.raises(RunError, match="no cross-validation"):
        _ = folded.folds[0].folds
    shutil.copytree(folded.path.parent, tmp_path / "runs")
    moved = Run(tmp_path / "runs" / folded.path.name)
    assert len(moved.folds) == FOLD_COUNT
    checkpoint = tmp_path / "runs" / moved.folds[1].path.name / "checkpoints" / "best.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes() + b" ")
    with pytest.raises(RunError, match="trained again"):
        _ = Run(moved.path).folds


def test_an_interrupted_cross_validation_goes_on_where_it_stopped(folded, tiny_settings, tmp_path, monkeypatch):
    settings = tiny_settings.with_changes(folds=FOLD_COUNT, max_epochs=2, runs_dir=tmp_path / "runs")
    trained, train = [], trainer.train

    def failing(settings, **given):
        if settings.fold == 2 and settings.fold not in trained:
            trained.append(settings.fold)
            raise RunError("the machine went away")
        trained.append(settings.fold)
        return train(settings, **given)

    monkeypatch.setattr(trainer, "train", failing)
    with pytest.raises(RunError, match="went away"):
        cross_validate(settings)
    assert trained == [1, 2]
    with pytest.raises(RunError, match="--resume"):
        cross_validate(settings)
    assert trained == [1, 2], "what is in the way is told before anything is trained"
    run = cross_validate(settings.with_changes(resume=True))
    assert trained[2:] == [1, 2, 3], "finished folds are asked for again and found"
    # same seed, same machine: interrupted or not, the same predictions
    pd.testing.assert_frame_equal(run.predictions("test"), folded.predictions("test"))
    assert cross_validate(settings.with_changes(resume=True)).path == run.path
    assert len(trained) == 5, "a gathered run is taken as it is"


def test_folds_in_threads_of_one_process_take_turns_and_tell_each_epoch(folded, tiny_settings, tmp_path, caplog):
    caplog.set_level("INFO", "melanoma_lib")
    settings = tiny_settings.with_changes(folds=FOLD_COUNT, max_epochs=2, runs_dir=tmp_path, progress=True)
    with workers("threading"):
        run = cross_validate(settings, jobs=2)
    pd.testing.assert_frame_equal(run.predictions("test"), folded.predictions("test"))
    told = {message.partition(", val AUROC")[0] for message in caplog.messages}
    assert told >= {f"fold {fold} of 3, epoch {epoch}/2" for fold in (1, 2, 3) for epoch in (1, 2)}
    assert sum("is trained: " in message for message in caplog.messages) == FOLD_COUNT


@pytest.mark.parametrize(("fault", "said"), [("absent", "expected each case once"), ("twice", "not folds of one table")])
def test_folds_that_are_not_of_one_table_are_not_gathered(fault, said, folded, tmp_path):
    settings = folded.settings.with_changes(run_dir=tmp_path / "mine", resume=True)
    for number, fold in enumerate(fold_settings(settings)):
        shutil.copytree(folded.folds[0 if fault == "twice" else number].path, fold.run_path)
        (fold.run_path / "settings.json").write_text(fold.to_json())
    if fault == "absent":
        splits = pd.read_csv(fold.run_path / "splits.csv")
        splits.iloc[5:].to_csv(fold.run_path / "splits.csv", index=False)
    with pytest.raises(RunError, match=said):
        cross_validate(settings)
    assert not settings.run_path.exists()


@pytest.mark.slow
def test_a_dask_cluster_takes_the_folds(folded, tiny_settings, tmp_path, capsys):
    from dask.distributed import Client, LocalCluster

    settings = tiny_settings.with_changes(folds=FOLD_COUNT, max_epochs=2, runs_dir=tmp_path / "runs")
    words = ["train", *words_of(settings), "--jobs", "2"]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert main([*words, "--backend", "dask", "--scheduler", cluster.scheduler_address]) == 0
        with Client(cluster) as client:
            tasks = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert sum(tasks.values()) >= FOLD_COUNT
    assert "finished" in capsys.readouterr().out
    pd.testing.assert_frame_equal(Run.default(tmp_path / "runs").predictions("test"), folded.predictions("test"))
