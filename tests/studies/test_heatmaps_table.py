"""The heatmap study says what the league says, from what its table keeps."""

from dataclasses import replace

import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.errors import StudyError
from melanoma_lib.explain.league import League
from melanoma_lib.explain.league_figures import league_exam_figure
from melanoma_lib.explain.league_words import in_sum
from melanoma_lib.studies.heatmaps_table import ASKED, heatmaps_headline, league_of
from melanoma_lib.studies.results import load_results


@pytest.fixture(scope="module")
def studied(tiny_run, tmp_path_factory):
    """Folder in which the command has played a league of a few cases."""
    folder = tmp_path_factory.mktemp("heatmaps")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["study", "heatmaps", str(tiny_run.path), "--cases", "12", "--out", "results"]) == 0
    return folder


@pytest.fixture
def played(studied, tiny_run):
    return League.from_json((studied / "reports" / "explain" / tiny_run.path.name / "league.json").read_text())


@pytest.fixture
def table(studied):
    return load_results("heatmaps", studied / "results")


def test_the_table_keeps_what_figure_and_words_need(studied, table, played):
    again = league_of(table)
    assert league_exam_figure(again).alt_text == league_exam_figure(played).alt_text
    assert (studied / "results" / "heatmaps.png").read_bytes().startswith(b"\x89PNG")
    for name in ASKED:
        kept, whole = again.score(name), played.score(name)
        assert kept["value"].to_dict() == pytest.approx(whole["value"].to_dict(), abs=5e-5, nan_ok=True)
        assert kept["verdict"].to_dict() == whole["verdict"].to_dict()


def test_the_headline_counts_as_the_league_does(table, played):
    text = heatmaps_headline(table)
    assert text.count("\n| ") == len(ASKED) + 1
    for name in ASKED:
        maps = played.score(name).query("layer != ''")
        line = next(line for line in text.splitlines() if f", {maps['value'].max():.2f}" in line and line.startswith("| "))
        assert f"| {(maps['verdict'] == 'better').sum()} of {len(maps)} | {(maps['verdict'] == 'worse').sum()} |" in line
    ignoring = (played.score("class_swap").query("layer != ''")["verdict"] == "ignores the class").sum()
    assert f"{ignoring} of {len(maps)} maps draw the same" in text
    assert (whole := in_sum(played.scores)) and whole in text and whole in played.conclusion
    assert "12 test images" in text


def test_another_studys_table_is_refused(table):
    with pytest.raises(StudyError, match="not as study heatmaps writes it"):
        league_of(replace(table, details={}))
    with pytest.raises(StudyError, match="not as study heatmaps writes it"):
        league_of(replace(table, rows=[{"name": "one view"}]))
