"""The command line as a person meets it: commands, results, and errors without a traceback."""

import pytest

from melanoma_lib.__main__ import main


def test_evaluate_prints_the_report_of_the_latest_run(tiny_run, monkeypatch, capsys):
    monkeypatch.setenv("MELANOMA_RUNS_DIR", str(tiny_run.path.parent))
    assert main(["evaluate"]) == 0
    printed = capsys.readouterr().out
    assert f"{tiny_run.metrics['auroc']['value']:.3f}" in printed
    assert tiny_run.path.name in printed


def test_train_does_not_take_a_named_run_of_other_settings_for_what_it_was_asked_for(tiny_run, capsys):
    words = ["train", "--run-dir", str(tiny_run.path), "--resume", "yes", "--seed", "5", "--source", "synthetic"]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "was begun with other settings (" in told and "seed" in told


def test_compare_prints_a_table(tiny_run, capsys):
    assert main(["compare", str(tiny_run.path)]) == 0
    assert "| image + metadata | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluate", "nowhere"], "nowhere is not a finished run"),
        (["train", "--source", "ham10000", "--data-dir", "empty", "--pretrained", "no"], "HAM10000_metadata"),
        (["train", "--image-size", "large"], "image_size"),
        (["train", "--backbone", "resnet5000", "--progress", "no", "--n-patients", "20", "--image-size", "32"], "resnet5000"),
        (["data", "audit", "isic2021"], "isic2021"),
    ],
)
def test_errors_are_explained_without_a_traceback(words, expected, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert expected in printed
    assert "Traceback" not in printed


def test_an_unknown_flag_is_wrong_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--learning-speed", "3"])
    assert "--learning-speed" in capsys.readouterr().err


def test_audit_reads_tables_whose_images_are_absent(shared_data, capsys):
    assert main(["data", "audit", "isic2019", "--data-dir", str(shared_data / "isic2019"), "--progress", "no"]) == 0
    printed = capsys.readouterr().out
    assert "25,331" in printed
    assert "4,522" in printed


def test_audit_of_synthetic_cases(tiny_settings, capsys):
    flags = ["--data-dir", str(tiny_settings.data_dir), "--n-patients", "80", "--image-size", "32", "--progress", "no"]
    assert main(["data", "audit", "synthetic", *flags]) == 0
    assert "leak" in capsys.readouterr().out.lower()


def test_export_writes_a_file_that_answers(tiny_run, tmp_path, capsys):
    from melanoma_lib.export import Predictor

    path = tmp_path / "model.pt"
    assert main(["export", str(tiny_run.path), "--format", "torchscript", "--out", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    assert Predictor(path).reading.threshold == tiny_run.operating_point.threshold
