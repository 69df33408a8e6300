"""The command line as a person meets it: help, commands, results, and errors without a traceback."""

import re
from pathlib import Path

import pytest

from melanoma_lib import commands
from melanoma_lib.__main__ import main
from melanoma_lib.cli import settings_of
from melanoma_lib.settings import Settings
from tests.command_line import parsed

FIELDS = Settings.model_fields


def test_help_of_train_describes_every_setting_and_its_choices(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["train", "--help"]) == 0
    told = capsys.readouterr().out
    absent = [
        name for name, field in FIELDS.items() if f"--{name.replace('_', '-')} " not in told or field.description not in told
    ]
    assert absent == []
    assert "image+metadata|image|metadata" in told
    assert "(default 256)" in told and "(default yes)" in told


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trian"], "'train'"),
        (["train", "--learning-rat", "3"], "--learning-rate"),
        (["data", "audti", "synthetic"], "'audit'"),
        (["export", "--format", "pt3"], "torchscript"),
        (["notebooks", "sweep", "03"], "--over"),
    ],
)
def test_wrong_usage_ends_in_two_and_names_what_was_meant(words, named, capsys):
    assert main(words) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tta", "resume", "progress"])
def test_a_switch_works_with_and_without_a_value(name):
    def read(*words):
        return getattr(settings_of(parsed(["train", *words])), name)

    flag = f"--{name.replace('_', '-')}"
    assert [read(flag), read(flag, "yes"), read(flag, "--seed", "1")] == [True] * 3
    assert [read(flag, "no"), read(flag, "false"), read(f"{flag}=0")] == [False] * 3
    assert read() is FIELDS[name].default


def test_an_option_takes_several_values_until_the_next_option():
    given = parsed(["notebooks", "sweep", "03", "--over", "seed=0,1", "epochs=2", "-p", "a", "b", "-p", "c=d", "--jobs", "2"])
    assert (given["name"], given["over"], given["parameters"], given["jobs"]) == (
        "03",
        ["seed=0,1", "epochs=2"],
        ["a=b", "c=d"],
        2,
    )
    given = parsed(["explain", "somewhere", "--layers", "a", "b", "--image-id", "x", "y"])
    assert (str(given["run"]), given["layers"], given["image_id"]) == ("somewhere", ["a", "b"], ["x", "y"])


def test_the_settings_of_a_finished_run_are_defaults_that_flags_override(tiny_run, monkeypatch, capsys):
    monkeypatch.setenv("MELANOMA_BATCH_SIZE", "64")
    words = ["train", "--config", str(tiny_run.path / "settings.json")]
    assert settings_of(parsed(words)) == tiny_run.settings
    assert settings_of(parsed([*words, "--seed", "5", "--tta"])) == tiny_run.settings.with_changes(seed=5, tta=True)
    assert main(words) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--profile", "fast"]) == 1
    assert "--profile would change none" in capsys.readouterr().err
    assert settings_of(parsed(["train", "--config", str(tiny_run.path)])) == tiny_run.settings  # its folder
    for wrong, told in (
        ("metrics.json", "expected the settings of a run"),
        ("", "No such file"),
        ("checkpoints", "No such file"),
    ):
        assert main(["train", "--config", str(tiny_run.path / wrong) if wrong else "."]) == 1
        assert re.search(f"^error: .*{told}", printed := capsys.readouterr().err) and printed.count("\n") == 1
    assert main(["train", "--run-dir", str(tiny_run.path), "--resume", "--seed", "5", "--source", "synthetic"]) == 1
    assert re.search(r"was begun with other settings \(.*seed", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluate", "nowhere"], "nowhere is not a finished run"),
        (["train", "--source", "ham10000", "--data-dir", "empty", "--pretrained", "no"], "HAM10000_metadata"),
        (["train", "--alpha", "2"], "alpha.*'2'"),
        (["train", "--loss", "focl"], "loss: .*'focal'.*'focl'"),
        (["train", "--run-dir", ""], "run_dir: .*expected a path"),
        (["export", "data/reference/ham10000", "--out", "a_file/model.onnx"], "a_file"),
        (["export", "data/reference/ham10000", "--out", "a_file.csv"], r"a_file\.csv: .*ends in \.onnx"),
        (["train", "--head-epochs", "9"], "head_epochs=9.*max_epochs"),
        (["train", "--backbone", "resnet5000", "--progress", "no", "--n-patients", "20", "--image-size", "32"], "resnet5000"),
        (["train", "--config", "nowhere.json"], "nowhere.json"),
        (["data", "audit", "isic2016"], "source.*ham10000.*isic2016"),
    ],
)
def test_errors_are_explained_without_a_traceback(words, expected, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a_file").touch()
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert re.search(expected, printed)
    assert "Traceback" not in printed


def test_any_other_error_is_one_sentence_and_debug_shows_the_rest(monkeypatch, capsys):
    def compare(runs: list[Path]) -> None:
        """Fail."""
        raise ValueError("broken on purpose")

    monkeypatch.setattr(commands, "compare", compare)
    assert main(["compare", "x"]) == 1
    assert capsys.readouterr().err == "error: ValueError: broken on purpose (--debug shows where)\n"
    with pytest.raises(ValueError, match="on purpose"):
        main(["compare", "x", "--debug"])


def test_audit_reads_tables_whose_images_are_absent(shared_data, capsys):
    assert main(["data", "audit", "isic2019", "--data-dir", str(shared_data / "isic2019"), "--progress", "no"]) == 0
    printed = capsys.readouterr().out
    assert "25331" in printed
    assert "4522" in printed
