"""Cached features against the model itself, retrained heads against scikit-learn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from melanoma_lib import heads
from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.errors import SettingsError
from melanoma_lib.heads import FeatureTable, HeadSettings, cached_features, train_head
from melanoma_lib.losses import focal_loss


def random_table(n: int = 4000, width: int = 6, n_image: int = 4, signal: float = 1.0, seed: int = 0) -> FeatureTable:
    """Gaussian features whose log-odds are linear in the features, so that a logistic regression is the right model."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width))
    target = rng.random(n) < 1 / (1 + np.exp(1.5 - signal * features @ np.linspace(1, -1, width)))
    split = np.array(["train", "train", "val", "test"])[np.arange(n) % 4]
    names = [f"c{i}" for i in range(n)]
    cases = pd.DataFrame({"image_id": names, "group_id": names, "split": split, "target": target.astype(int)})
    return FeatureTable(cases, features.astype(np.float32), n_image)


@pytest.fixture
def data(tiny_run, tmp_path):
    return DermoscopyDataModule(tiny_run.settings.with_changes(cache_dir=tmp_path))


def test_features_are_what_the_model_hands_to_its_head(tiny_run, data):
    model = tiny_run.model()
    table = cached_features(model, data)
    pd.testing.assert_frame_equal(table.cases, data.cases[["image_id", "group_id", "split", "target"]])
    with torch.inference_mode():
        for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
            expected = torch.cat([model.features(batch["image"], batch["metadata"]) for batch in loader])
            np.testing.assert_allclose(table.tensors(split)[0], expected, atol=1e-5)
    assert table.n_image + tiny_run.settings.metadata_hidden == table.features.shape[1] == model.n_features


def test_features_are_computed_once_and_again_for_other_weights_or_metadata(tiny_run, data, monkeypatch):
    model, computed = tiny_run.model(), []
    compute = heads._features
    monkeypatch.setattr(heads, "_features", lambda *inputs: computed.append(1) or compute(*inputs))
    first = cached_features(model, data)
    assert np.array_equal(cached_features(tiny_run.model(), data).features, first.features)
    assert len(computed) == 1
    with torch.no_grad():
        model.metadata_branch[0].bias += 1
    assert not np.array_equal(cached_features(model, data).features, first.features)
    assert len(computed) == 2
    data.encoder = replace(data.encoder, age_mean=data.encoder.age_mean + 5)
    cached_features(model, data)
    assert len(computed) == 3


@pytest.mark.parametrize("modalities", ["image+metadata", "image", "metadata"])
def test_without_focus_or_dropout_it_is_logistic_regression(modalities):
    table = random_table()
    result = train_head(table, HeadSettings(gamma=0, dropout=0, learning_rate=0.05, epochs=60, modalities=modalities))
    (x, y), (held_out, _) = table.tensors("train", modalities), table.tensors("test", modalities)
    expected = LogisticRegression(C=1e6).fit(x.numpy(), y.numpy()).predict_proba(held_out.numpy())[:, 1]
    np.testing.assert_allclose(result.of("test")["probability"], expected, atol=0.02)


def test_history_and_predictions_agree_with_scikit_learn():
    settings = HeadSettings(gamma=0.0, epochs=3)
    result = train_head(random_table(), settings)
    last = result.history.iloc[-1]
    assert list(result.history["epoch"]) == [1, 2, 3]
    for split in ("train", "val"):
        scores = result.of(split)
        assert last[f"{split}/loss"] == pytest.approx(log_loss(scores["target"], scores["probability"]), abs=1e-5)
        assert last[f"{split}/auroc"] == pytest.approx(roc_auc_score(scores["target"], scores["probability"]))
        assert result.curve(split).auroc == pytest.approx(last[f"{split}/auroc"])


def test_only_the_training_split_teaches():
    table = random_table(800)
    hidden = table.cases["split"] != "train"
    wrong = replace(table, cases=table.cases.assign(target=np.where(hidden, 1 - table.cases["target"], table.cases["target"])))
    settings = HeadSettings(epochs=2)
    np.testing.assert_array_equal(
        train_head(table, settings).predictions["probability"], train_head(wrong, settings).predictions["probability"]
    )


def test_drawing_more_melanomas_shifts_the_log_odds_by_the_known_amount():
    """Prior shift: the odds it learns are the true ones times the ratio of the odds of the two prevalences."""
    table = random_table(20_000)
    common = {"gamma": 0.0, "dropout": 0, "learning_rate": 0.05, "epochs": 30}
    plain, balanced = (
        train_head(table, HeadSettings(**common, sampled_prevalence=share)).of("test")["probability"] for share in (None, 0.5)
    )
    train = table.cases["split"] == "train"
    prevalence = table.cases.loc[train, "target"].mean()
    shift = np.log(balanced / (1 - balanced)) - np.log(plain / (1 - plain))
    assert shift.mean() == pytest.approx(np.log((1 - prevalence) / prevalence), abs=0.1)
    assert np.corrcoef(plain, balanced)[0, 1] > 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0}, {"alpha": 1.0}, {"gamma": -0.1}, {"gamma": float("nan")}, {"dropout": 1.0}, {"dropout": -0.1},
        {"learning_rate": 0.0}, {"learning_rate": 2.0}, {"epochs": 0}, {"modalities": "sound"},
        {"sampled_prevalence": 0.0}, {"sampled_prevalence": 1.0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))}="):
        HeadSettings(**wrong)


def test_extreme_features_stay_finite():
    table = random_table(400)
    result = train_head(replace(table, features=table.features * 1e4), HeadSettings(epochs=2, learning_rate=1.0))
    assert np.isfinite(result.predictions["probability"]).all()
    assert np.isfinite(result.history.to_numpy()).all()


@pytest.mark.parametrize(("alpha", "gamma"), [(None, 0.0), (0.25, 2.0)])
def test_it_starts_where_the_base_rate_is_the_best_answer(alpha, gamma):
    table = random_table(800)
    blank = replace(table, features=np.zeros_like(table.features))
    settings = HeadSettings(alpha=alpha, gamma=gamma, learning_rate=1e-9, epochs=1)
    start = train_head(blank, settings).of("train")["probability"].iloc[0]
    target = torch.tensor(table.cases.loc[table.cases["split"] == "train", "target"].to_numpy())
    answers = torch.linspace(0.001, 0.999, 2000, dtype=torch.float64)
    losses = [focal_loss(torch.logit(answer).expand(len(target)), target, alpha, gamma) for answer in answers]
    assert start == pytest.approx(float(answers[int(np.argmin(losses))]), abs=1e-3)
