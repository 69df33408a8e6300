import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from melanoma_lib.cli import settings_of
from melanoma_lib.errors import SettingsError
from melanoma_lib.settings import PROFILES, Settings
from tests.command_line import parsed

FIELDS = Settings.model_fields

# Another valid value for every field; a field added without one fails the test of the fingerprint.
OTHER = {
    "profile": "fast", "source": "ham10000", "data_dir": "/data", "image_dirs": ("/a", "/b"), "missing_images": "drop",
    "n_patients": 50, "data_seed": 3, "val_fraction": 0.2, "test_fraction": 0.25, "backbone": "resnet50", "pretrained": False,
    "modalities": "image", "image_size": 96, "metadata_hidden": (32, 8), "metadata_dropout": 0.3, "dropout": 0.4,
    "drop_path": 0.3, "frozen_stride": 8, "augmentation": "strong", "small_epochs": 0.25,
    "loss": "bce", "alpha": 0.25, "gamma": 1.5, "diagnosis_weight": 1.5, "sampler": "weighted",
    "sampled_prevalence": 0.4, "batch_size": 8, "max_epochs": 3, "learning_rate": 1e-4, "backbone_lr_scale": 0.1,
    "weight_decay": 0.2, "head_epochs": 1, "reduction": "sum", "optimizer": "adam",
    "warmup_epochs": 1.5, "ema_decay": 0.5, "monitor": "val/auroc", "patience": 2, "seed": 7, "deterministic": False,
    "precision": "bf16", "num_workers": 2, "threads": 1, "progress": False, "wandb": True, "wandb_project": "mine",
    "devices": 2, "nodes": 2, "folds": 5, "fold": 2, "init_weights": "/w/simclr-0123456789ab.pt",
    "min_sensitivity": 0.9, "min_specificity": 0.7, "fn_cost": 3.0, "threshold_rule": "f1",
    "n_resamples": 100, "tta": True, "runs_dir": "/runs", "run_dir": "/runs/mine",
    "cache_dir": "/cache", "resume": True,
}  # fmt: skip
NEEDED = {"fold": {"folds": 5}}  # what must be set with a field for its other value to make sense


def as_text(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("MELANOMA_SEAD=1", "MELANOMA_SEAD; did you mean MELANOMA_SEED?"),
        ("MELANOMA_SEAD", "MELANOMA_SEAD; did you mean"),
        ("NAME=1", "NAME; known: .*MELANOMA_SEED"),
        ("MELANOMA_SEED", "expected NAME=value, got .MELANOMA_SEED"),
        ("MELANOMA_RUNS_DIR='my runs\nMELANOMA_SEED=3", "expected NAME=value, got .*my runs"),  # a quote without end
        ("MELANOMA_RUNS_DIR=\xff", "UTF-8"),
    ],
)
def test_a_line_of_the_env_file_that_means_nothing_is_an_error(text, named, tmp_path):
    (tmp_path / ".env").write_bytes(f"MELANOMA_TTA=yes\n\n{text}\n".encode("latin-1"))
    with pytest.raises(SettingsError, match=rf"\.env.*{named}"):
        Settings()


def test_keys_of_weights_and_biases_in_the_env_file_are_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")  # so that what is set here goes again
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".env").write_text("MELANOMA_SEED=3\nWANDB_API_KEY=abc\n")
    assert (Settings().seed, os.environ["WANDB_API_KEY"]) == (3, "abc")


def test_each_source_of_values_overrides_the_ones_below(monkeypatch, tmp_path):
    fast = PROFILES["fast"]["max_epochs"]
    assert Settings().max_epochs == FIELDS["max_epochs"].default != fast
    assert Settings(profile="fast").max_epochs == fast
    (tmp_path / ".env").write_text("MELANOMA_PROFILE=fast\n")
    assert Settings().max_epochs == fast
    (tmp_path / ".env").write_text("MELANOMA_PROFILE=fast\nMELANOMA_MAX_EPOCHS=31\n")
    assert Settings().max_epochs == 31
    monkeypatch.setenv("MELANOMA_MAX_EPOCHS", "32")
    assert Settings().max_epochs == 32
    assert Settings(max_epochs=33).max_epochs == 33
    assert Settings().image_size == PROFILES["fast"]["image_size"]  # what nobody overrides stays the profile's


@pytest.mark.parametrize("name", FIELDS)
def test_text_from_command_line_variable_and_file_means_the_same(name, monkeypatch, tmp_path):
    for needed, value in NEEDED.get(name, {}).items():
        monkeypatch.setenv(f"MELANOMA_{needed.upper()}", str(value))
    expected = getattr(Settings(**{name: OTHER[name]}), name)
    text = as_text(OTHER[name])
    flag = ["train", f"--{name.replace('_', '-')}", text]
    assert getattr(settings_of(parsed(flag)), name) == expected
    (tmp_path / ".env").write_text(f"MELANOMA_{name.upper()}={text}\n")
    assert getattr(Settings(), name) == expected
    (tmp_path / ".env").unlink()
    monkeypatch.setenv(f"MELANOMA_{name.upper()}", text)
    assert getattr(Settings(), name) == expected


def test_the_word_none_clears_what_may_be_empty(monkeypatch, word="None"):
    monkeypatch.setenv("MELANOMA_ALPHA", "0.3")
    assert Settings(alpha=word).alpha is None
    monkeypatch.setenv("MELANOMA_ALPHA", word)
    assert Settings().alpha is None
    with pytest.raises(SettingsError, match=rf"gamma: .*got '{word}'"):
        Settings(gamma=word)


@pytest.mark.parametrize("make", [Settings, Settings.for_notebook, Settings().with_changes])
def test_an_unknown_argument_is_an_error(make, value=""):
    with pytest.raises(SettingsError, match=r"sead; did you mean seed\?"):
        make(sead=value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "seven"), ("seed", 1.5), ("seed", None), ("seed", ""), ("image_size", 16), ("pretrained", "maybe"),
        ("alpha", 1.5), ("alpha", float("nan")), ("weight_decay", float("inf")),
        ("profile", ["fast"]), ("profile", "quick"), ("modalities", "metadata+image"), ("data_dir", 3), ("run_dir", " "),
    ],
)  # fmt: skip
def test_an_ill_typed_value_is_an_error_that_names_setting_and_value(name, value):
    with pytest.raises(SettingsError, match=rf"{name}: .*got {re.escape(repr(value))}"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    "contradiction",
    [
        {"val_fraction": 0.45, "test_fraction": 0.45},
        {"head_epochs": 6, "max_epochs": 6},
        {"folds": 3, "fold": 4},
        {"init_weights": "/a/weights.pt"},
        {"run_dir": "runs", "runs_dir": "./runs"},
    ],
)
def test_settings_that_contradict_each_other_are_an_error(contradiction):
    with pytest.raises(SettingsError) as caught:
        Settings(**contradiction)
    assert all(name in str(caught.value) for name in contradiction)


def test_fingerprint_changes_with_every_setting_that_shapes_the_result_and_no_other():
    assert set(OTHER) == set(FIELDS)
    places = {"profile", "data_dir", "image_dirs", "runs_dir", "run_dir", "cache_dir"}
    comforts = {"resume", "progress", "num_workers", "threads", "devices", "nodes", "wandb", "wandb_project"}
    changing = set()
    for name in FIELDS:
        before = Settings(**NEEDED.get(name, {}))
        if before.with_changes(**{name: OTHER[name]}).fingerprint() != before.fingerprint():
            changing.add(name)
    assert changing == set(FIELDS) - places - comforts


def test_fingerprints_are_those_of_stored_runs():
    assert Settings(image_size=224).fingerprint() == "02718e09"
    assert Settings().fingerprint() == "8445ac52"
    assert Settings(profile="fast", source="ham10000", folds=5, fold=2).fingerprint() == "ea4c564c"
    assert Settings(image_size=224, augmentation="strong", init_weights="/w/simclr-0123456789ab.pt").fingerprint() == "29a418b9"


def test_settings_of_runs_stored_before_some_settings_existed_are_read():
    old = json.loads(Settings(seed=3).to_json())
    for name in ("devices", "nodes", "folds", "fold", "init_weights", "augmentation"):
        del old[name]
    assert Settings.from_json(json.dumps(old)) == Settings(seed=3)


def test_stored_settings_and_changes_ignore_environment_file_and_profile(monkeypatch, tmp_path):
    settings = Settings(seed=1, alpha=None)
    monkeypatch.setenv("MELANOMA_SEED", "2")
    monkeypatch.setenv("MELANOMA_ALPHA", "0.9")
    monkeypatch.setenv("MELANOMA_SEAD", "1")  # a run stays readable whatever is wrong today
    (tmp_path / ".env").write_text("MELANOMA_GAMA=1\n")
    assert Settings.from_json(settings.to_json()) == settings
    changed = settings.with_changes(profile="fast", tta="yes")
    assert changed.model_dump() == settings.model_dump() | {"profile": "fast", "tta": True}
    assert settings.profile == "full"
    with pytest.raises(SettingsError, match=r"seed: .*got 'x'"):
        settings.with_changes(seed="x")
    with pytest.raises(ValueError, match="Instance is frozen"):
        settings.seed = 2


def test_json_round_trip():
    extreme = {"data_dir": "x ~/,äß漢", "seed": 2**64, "learning_rate": 1e-300, "wandb_project": '"\n\\'}
    settings = Settings(**OTHER | extreme)
    read = Settings.from_json(settings.to_json())
    assert read == settings
    assert read.to_json() == settings.to_json()
    assert read.fingerprint() == settings.fingerprint()
    json.loads(settings.to_json(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@hypothesis_settings(max_examples=50)
@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps) | st.just('{"gama": 1}'))
def test_what_is_no_stored_settings_is_a_clear_error(text):
    with pytest.raises(SettingsError, match=r"mine\.json: expected the settings of a run"):
        Settings.from_json(text, "mine.json")


def test_a_notebook_reads_env_file_and_folders_of_the_project_it_lies_in(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "00_start_here.ipynb").touch()
    (tmp_path / ".env").write_text("MELANOMA_BATCH_SIZE=24\n")
    monkeypatch.chdir(notebooks)
    settings = Settings.for_notebook(profile="fast", backbone="", data_dir="", seed="", max_epochs=1)  # empty: derive it
    assert (settings.batch_size, settings.data_dir, settings.seed, settings.max_epochs) == (24, None, 0, 1)
    assert settings.backbone == "tf_efficientnet_lite0"
    assert settings.runs_dir.resolve() == tmp_path / "runs"


def test_constants_read_the_settings(monkeypatch):
    monkeypatch.setenv("MELANOMA_LEARNING_RATE", "0.005")
    from melanoma_lib.config import FOCAL_ALPHA, IMAGE_SIZE, LR

    assert (FIELDS["image_size"].default, 0.005, None) == (IMAGE_SIZE, LR, FOCAL_ALPHA)
    with pytest.raises(ImportError, match="LEARNING_RAT"):
        from melanoma_lib.config import LEARNING_RAT  # noqa: F401
