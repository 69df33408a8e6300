"""The gallery of a run's worst errors: the right cases, each told, and a clear word where there is nothing to show."""

import pandas as pd
from PIL import Image

from melanoma_lib.__main__ import main
from melanoma_lib.explain.report import errors_report, worst_errors
from melanoma_lib.runs.run import SETTINGS


def test_the_worst_errors_by_plain_loops(tiny_run):
    threshold, rows = tiny_run.operating_point.threshold, list(tiny_run.predictions("test").itertuples())
    missed = sorted((one.probability, one.image_id) for one in rows if one.target and one.probability < threshold)
    raised = sorted((-one.probability, one.image_id) for one in rows if not one.target and one.probability >= threshold)
    table = worst_errors(tiny_run, 3)
    assert table["image_id"].tolist() == [name for _, name in [*missed[:3], *raised[:3]]]
    assert (table["error"] == "false negative").sum() == len(missed[:3])


def test_the_gallery_tells_every_case_and_maps_come_below(tiny_run, tmp_path):
    table = errors_report(tiny_run, 3, tmp_path / "plain")
    text = (tmp_path / "plain" / "errors.txt").read_text()
    assert [name in text for name in table["image_id"]] == [True] * len(table) and len(table) > 2
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "plain" / "errors.csv"), table, check_dtype=False)
    errors_report(tiny_run, 3, tmp_path / "maps", maps=True)
    heights = [Image.open(tmp_path / name / "errors.png").height for name in ("plain", "maps")]
    assert heights[1] > 1.6 * heights[0]


def test_without_images_nothing_is_written_and_data_dir_says_where_they_are(own_run, tmp_path, capsys):
    here = own_run.settings.data_root
    settings = own_run.settings.with_changes(source="isic2020", data_dir=tmp_path / "nowhere")
    (own_run.path / SETTINGS).write_text(settings.to_json())
    words = ["errors", str(own_run.path), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "nowhere" in told and "--data-dir" in told and not (tmp_path / "out").exists()
    assert main([*words, "--data-dir", str(here)]) == 1 and str(here) in capsys.readouterr().err  # it looked there


def test_the_command_draws_cases_and_explains_errors_without_a_traceback(tiny_run, tmp_path, capsys):
    wanted = tiny_run.predictions("test")["image_id"].iloc[0]
    words = ["explain", str(tiny_run.path), "--image-id", wanted, "--method", "gradcam", "scorecam", "--layers", "blocks.1"]
    assert main([*words, "--out", str(tmp_path / "cases")]) == 0
    assert main([*words[:-3], "--layers", "blocks.0", "--out", str(tmp_path / "cases")]) == 0  # beside the other
    written = {file.name for file in (tmp_path / "cases").iterdir()}
    drawn = ("gradcam-blocks.0", "gradcam-blocks.1", "scorecam-blocks.1")
    assert written == {f"{wanted}-{name}.{kind}" for name in drawn for kind in ("png", "txt")}
    for flag in ("--image-id", "--method"):
        assert main(["explain", str(tiny_run.path), flag, "NOBODY"]) == 1
        printed = capsys.readouterr().err
        assert "NOBODY" in printed and "Traceback" not in printed and "--debug" not in printed
