"""The explain command: figures and tables as files, and errors a person can mend."""

import json

import pytest

from melanoma_lib.__main__ import main


def test_a_case_is_drawn_with_its_description(tiny_run, tmp_path, capsys):
    wanted = tiny_run.predictions("test")["image_id"].iloc[0]
    words = [
        "explain",
        str(tiny_run.path),
        "--image-id",
        wanted,
        "--method",
        "gradcam",
        "eigencam",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        f"{wanted}-{method}.{kind}" for method in ("eigencam", "gradcam") for kind in ("png", "txt")
    ]
    assert (tmp_path / "out" / f"{wanted}-gradcam.png").read_bytes().startswith(b"\x89PNG")
    assert wanted in (tmp_path / "out" / f"{wanted}-gradcam.txt").read_text()
    assert str(tmp_path / "out") in capsys.readouterr().out


def test_a_league_leaves_table_json_and_figures(tiny_run, tmp_path, capsys):
    words = ["explain", str(tiny_run.path), "--league", "6", "--method", "gradcam", "--layers", "blocks.1", "--progress", "no"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "league.md").read_text() in printed
    kept = json.loads((tmp_path / "league.json").read_text())
    assert kept["facts"]["n"] == 6
    for name in ("energy_in_mask", "energy_in_mask-intervals", "deletion_insertion", "deletion_insertion-intervals", "sanity"):
        assert (tmp_path / f"league-{name}.png").read_bytes().startswith(b"\x89PNG")
        assert tiny_run.path.name in (tmp_path / f"league-{name}.txt").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--image-id", "NOBODY"], "NOBODY"),
        (["--method", "smoothgrad"], "smoothgrad"),
        (["--league", "4", "--layers", "conv9"], "conv9"),
        (["--league", "-3"], "at least 1 case"),
    ],
)
def test_errors_are_explained_without_a_traceback(tiny_run, words, expected, capsys):
    assert main(["explain", str(tiny_run.path), *words]) == 1
    printed = capsys.readouterr().err
    assert expected in printed
    assert "Traceback" not in printed
