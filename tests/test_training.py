"""Training: same seed same run, killed and resumed same run, frozen head phase, imbalance, best checkpoint."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss, recall_score, roc_auc_score

from melanoma_lib.data.datamodule import UNKNOWN, DermoscopyDataModule
from melanoma_lib.errors import RunError, SettingsError, WeightsUnavailableError
from melanoma_lib.model import image_branch
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.training import quiet, train
from melanoma_lib.training.module import MelanomaModule, MovingAverage, loss_and_prior, warn_of_double_correction
from tests.command_line import words_of


def predictions(run: Run) -> np.ndarray:
    return run.predictions("test")["logit"].to_numpy()


def module_of(settings: Settings) -> MelanomaModule:
    """The untrained module, as if a trainer held it."""
    data = DermoscopyDataModule(settings)
    torch.manual_seed(0)
    module = MelanomaModule(settings, data.encoder.n_features, data.train_prevalence, len(data.diagnoses))
    module.log = lambda *_, **__: None  # a trainer's
    trainer = {"global_step": 0, "current_epoch": 0, "global_rank": 0, "estimated_stepping_batches": 30}
    module.__dict__["_trainer"] = type("Trainer", (), trainer)()
    return module


def test_a_killed_run_resumes_to_the_unbroken_end(tiny_run, tiny_settings, tmp_path, caplog, epochs_before_the_kill=1):
    settings = tiny_settings.with_changes(runs_dir=tmp_path)
    command = [sys.executable, "-m", "melanoma_lib", "train", *words_of(settings)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    partial = Path(f"{settings.run_path}.partial")
    history, last = partial / "history.csv", partial / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if last.exists() and len(pd.read_csv(history)) >= epochs_before_the_kill:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(60) == -signal.SIGKILL, process.stderr.read()
    assert not settings.run_path.exists()
    with pytest.raises(RunError, match="--resume"):
        Run(settings.run_path)
    with pytest.raises(RunError, match="--resume"):
        train(settings)

    (tmp_path / "damaged.partial").mkdir()
    (tmp_path / "damaged.partial" / "settings.json").write_text("{")
    train(settings.with_changes(resume=True, seed=5, max_epochs=1, modalities="metadata"))
    assert re.search(r"begins anew: .*\.partial has other settings \(max_epochs, modalities, seed\)", caplog.text)
    resumed = train(settings.with_changes(resume=True))

    np.testing.assert_array_equal(predictions(resumed), predictions(tiny_run))
    pd.testing.assert_frame_equal(resumed.history.drop(columns="seconds"), tiny_run.history.drop(columns="seconds"))
    assert not Path(f"{settings.run_path}.partial").exists()
    with pytest.raises(RunError, match="exists already"):
        train(settings)
    assert train(settings.with_changes(resume=True)).path == settings.run_path
    train(settings.with_changes(resume=True, run_dir=settings.run_path, seed=5, learning_rate=0.5))
    assert re.search(r"is finished and taken as it is.*\['learning_rate', 'seed'\]", caplog.text)


def test_history_has_an_epoch_a_row_and_scikit_learns_metrics_on_the_best(tiny_settings, tmp_path, caplog):
    caplog.set_level(logging.INFO, "melanoma_lib")
    balanced = {"sampler": "weighted", "sampled_prevalence": 0.5, "modalities": "metadata"}  # so that some are called melanoma
    patient = {"max_epochs": 9, "patience": 2, "progress": True}
    run = train(tiny_settings.with_changes(runs_dir=tmp_path, ema_decay=0, learning_rate=0.03, **balanced, **patient))
    history, table = run.history, run.predictions("val")
    assert history["epoch"].tolist() == list(range(1, len(history) + 1))
    assert len(history) == min(9, history["val/f1"].idxmax() + 3)  # the best, and as many as the patience
    last = [message for message in caplog.messages if message.startswith("epoch")][-1]  # there is no terminal
    assert last == "epoch {:.0f}/9, val AUROC {:.3f}, F1 {:.3f}".format(*history[["epoch", "val/auroc", "val/f1"]].iloc[-1])
    best, target, called = history.loc[history["val/f1"].idxmax()], table["target"], table["probability"] > 0.5
    oracles = {
        "auroc": roc_auc_score(target, table["probability"]), "f1": f1_score(target, called),
        "average_precision": average_precision_score(target, table["probability"]),
        "accuracy": accuracy_score(target, called), "recall": recall_score(target, called),
    }  # fmt: skip
    assert {name: best[f"val/{name}"] for name in oracles} == pytest.approx(oracles, abs=1e-5)
    assert len({round(value, 4) for value in oracles.values()}) == len(oracles)  # or one could stand in for another
    assert history[[f"train/{name}" for name in (*oracles, "loss")]].notna().all().all()


def test_learning_rates_and_weight_decay_reach_every_weight(tiny_settings):
    changes = {"learning_rate": 0.02, "backbone_lr_scale": 0.25, "weight_decay": 0.3, "optimizer": "adam"}
    module = module_of(tiny_settings.with_changes(**changes))
    optimiser = module.configure_optimizers()["optimizer"]
    assert type(optimiser) is torch.optim.Adam
    given = {
        id(weight): (group["initial_lr"], group["weight_decay"]) for group in optimiser.param_groups for weight in group["params"]
    }
    assert set(given) == {id(weight) for weight in module.parameters()}
    for name, weight in module.named_parameters():
        rate = 0.02 * (0.25 if name.startswith("model.image_branch") else 1)
        assert given[id(weight)] == pytest.approx((rate, 0.3)), name


def test_head_first_leaves_the_image_branch_as_it_was(tiny_settings, tmp_path, monkeypatch):
    seen = []
    original = MelanomaModule.training_step

    def spy(self, batch, step):
        branch = self.model.image_branch
        seen.append((self.current_epoch, branch.training, any(p.requires_grad for p in branch.parameters())))
        return original(self, batch, step)

    monkeypatch.setattr(MelanomaModule, "training_step", spy)
    train(tiny_settings.with_changes(runs_dir=tmp_path, head_epochs=1, max_epochs=2))
    assert {state[1:] for state in seen if state[0] == 0} == {(False, False)}
    assert {state[1:] for state in seen if state[0] == 1} == {(True, True)}


@pytest.mark.parametrize("sampler", ["plain", "weighted", "oversample"])
@pytest.mark.parametrize("loss", ["focal", "bce", "weighted_bce"])
def test_the_prior_minimises_the_expected_loss(sampler, loss):
    settings = Settings(sampler=sampler, loss=loss, alpha=0.7, sampled_prevalence=0.3)
    prevalence = 0.1
    criterion, prior = loss_and_prior(settings, prevalence)
    seen = {"plain": prevalence, "weighted": 0.3, "oversample": 0.5}[sampler]
    logits = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    pair = [torch.stack([criterion(x, torch.full_like(x, y)) for x in logits[::2000]]) for y in (1.0, 0.0)]
    expected = seen * pair[0] + (1 - seen) * pair[1]
    nearest = logits[::2000][expected.argmin()]
    assert float(torch.logit(torch.tensor(prior))) == pytest.approx(float(nearest), abs=0.17)


@pytest.mark.parametrize(
    ("sampler", "loss", "alpha", "warned"),
    [("plain", "weighted_bce", None, 0), ("weighted", "focal", None, 0), ("weighted", "focal", 0.75, 1)],
)
def test_correcting_twice_warns(sampler, loss, alpha, warned, caplog):
    warn_of_double_correction(Settings(sampler=sampler, loss=loss, alpha=alpha))
    assert ("corrected twice" in caplog.text) == warned


@pytest.mark.slow
def test_the_fast_profile_comes_near_the_bayes_ceiling(tmp_path):
    # The mean of three seeds: that of one moves by 0.03 with the seed, and by 0.01 with the processor.
    places, short = {name: tmp_path / name for name in ("data_dir", "runs_dir", "cache_dir")}, []
    for seed in range(3):
        test = train(Settings(profile="fast", progress=False, seed=seed, **places)).predictions("test")
        reached, ceiling = (roc_auc_score(test["target"], test[name]) for name in ("probability", "true_risk"))
        short.append(ceiling - reached)
    assert np.mean(short) < 0.07


def test_a_checkpoint_cut_short_leaves_the_one_before(tmp_path, monkeypatch):
    from melanoma_lib.training.module import AtomicCheckpointIO

    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def cut(checkpoint, file):
        Path(file).write_bytes(b"half a checkp")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_says_how_to_go_on_and_leaves_interrupts_working(tiny_settings, tmp_path, monkeypatch):
    settings = tiny_settings.with_changes(runs_dir=tmp_path)
    before = signal.getsignal(signal.SIGINT)

    def interrupt(self, batch, step):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(RunError, match="--resume"):
        patch.setattr(MelanomaModule, "training_step", interrupt)
        train(settings)
    assert signal.getsignal(signal.SIGINT) == before


def test_resume_refuses_other_cases(tiny_settings, tmp_path, monkeypatch):
    from melanoma_lib.data.datamodule import cases_for

    with pytest.raises(SettingsError, match="--run-dir"):
        train(tiny_settings.with_changes(runs_dir=tmp_path), pd.DataFrame())
    settings = tiny_settings.with_changes(run_dir=tmp_path / "run", max_epochs=1)
    cases = cases_for(settings)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("melanoma_lib.training.trainer.predict_logits", lambda *_: 1 / 0)
        train(settings, cases)
    with pytest.raises(RunError, match="other cases"):
        train(settings.with_changes(resume=True), cases.iloc[5:])
    with pytest.raises(RunError, match="other ages"):
        train(settings.with_changes(resume=True), cases.assign(age_approx=cases["age_approx"] / 2))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"backbone": "resnet18", "pretrained": True}, WeightsUnavailableError, "--pretrained false"),
        ({"backbone": "coatnet_0_224", "pretrained": True}, WeightsUnavailableError, "nobody has published weights"),
        ({"backbone": "vit_tiny_patch16_224"}, SettingsError, "--image-size 224"),
    ],
)
def test_what_cannot_begin_is_told_before_any_case_is_painted_and_blocks_nothing(
    tiny_settings, tmp_path, monkeypatch, changes, error, message
):
    monkeypatch.setattr("melanoma_lib.weights.hub_reachable", lambda: False)
    with monkeypatch.context() as patched:
        patched.setattr("melanoma_lib.training.trainer.DermoscopyDataModule", lambda *_: pytest.fail("prepared data first"))
        with pytest.raises(error, match=message):
            train(tiny_settings.with_changes(run_dir=tmp_path / "mine", **changes))
    assert not (tmp_path / "mine.partial").exists()
    (tmp_path / "mine.partial").mkdir()  # as left by a kill
    (tmp_path / "mine.partial" / "settings.json").write_text(tiny_settings.with_changes(seed=9).to_json())
    assert train(tiny_settings.with_changes(run_dir=tmp_path / "mine", max_epochs=1)).metrics


def test_naming_the_diagnosis_adds_its_cross_entropy_and_leaves_the_model_as_it_was(tiny_settings):
    settings = tiny_settings.with_changes(diagnosis_weight=0.5, dropout=0.0, metadata_dropout=0.0)
    data, module = DermoscopyDataModule(settings), module_of(settings)
    module.model.eval()  # batch statistics aside
    batch = next(iter(data.train_dataloader()))
    names = np.array(data.diagnoses)[batch["diagnosis"].numpy()]
    assert (names == data.cases["diagnosis"].to_numpy()[batch["row"].numpy()]).all()
    batch["diagnosis"][:5] = UNKNOWN

    with torch.no_grad():
        total = module.training_step(batch, 0).item()
        features = module.model.features(batch["image"], batch["metadata"])
        chances = torch.softmax(module.diagnosis_head(features), 1).numpy()
        main = module.loss(module.model(batch["image"], batch["metadata"]), batch["target"]).item()
        batch["diagnosis"][:] = UNKNOWN
        without = module.training_step(batch, 0).item()
    known = np.searchsorted(data.diagnoses, names[5:])
    expected = log_loss(known, chances[5:], labels=range(len(data.diagnoses)))
    assert total == pytest.approx(main + 0.5 * expected, rel=1e-5)
    assert without == pytest.approx(main, rel=1e-6)
    assert not any("diagnosis" in name for name in module.model.state_dict())


def test_moving_average_is_the_weighted_sum_of_the_past():
    update = MovingAverage(0.9)._kwargs["multi_avg_fn"]
    averaged, values = [torch.zeros(2)], torch.arange(1.0, 60.0)
    oracle = 0.0
    for n, value in enumerate(values):
        decay = min(0.9, (1 + n) / (5 + n))
        oracle = decay * oracle + (1 - decay) * float(value)
        update(averaged, [torch.full((2,), float(value))], torch.tensor(n))
    assert torch.allclose(averaged[0], torch.full((2,), oracle), rtol=1e-5)


def test_a_quiet_trainer_says_nothing(tmp_path, capfd, caplog, recwarn):
    class Line(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            return self.line(batch).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = torch.utils.data.DataLoader(torch.ones(2, 1))
    pl.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False, **quiet()).fit(Line(), loader)
    assert (capfd.readouterr(), caplog.text, [str(warning.message) for warning in recwarn]) == (("", ""), "", [])


def test_a_training_starts_from_weights_of_ones_own_and_holds_its_early_stages(tiny_settings, tmp_path):
    file = tmp_path / "simclr-0123456789ab.pt"
    begun = tiny_settings.with_changes(init_weights=file, max_epochs=1, runs_dir=tmp_path)
    with pytest.raises(WeightsUnavailableError, match="does not exist"):
        train(begun)
    torch.save({}, file)
    with pytest.raises(WeightsUnavailableError, match="of this backbone"):
        MelanomaModule(begun, 4, 0.2)
    expected = image_branch("test_efficientnet", pretrained=False).state_dict()
    torch.save(expected, file)
    module = MelanomaModule(begun, 4, 0.2)
    assert all(torch.equal(value, expected[name]) for name, value in module.model.image_branch.state_dict().items())
    trained = train(begun).model().image_branch.state_dict()
    assert torch.equal(trained["conv_stem.weight"], expected["conv_stem.weight"])
    assert not torch.equal(trained["conv_head.weight"], expected["conv_head.weight"])
    assert begun.fingerprint() == begun.with_changes(init_weights=f"/elsewhere/{file.name}").fingerprint()
    assert begun.fingerprint() != begun.with_changes(init_weights="/elsewhere/simclr-89abcdef.pt").fingerprint()
