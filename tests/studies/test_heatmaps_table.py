"""The heatmap study says what the league says, from what its table keeps."""

from dataclasses import replace

import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.errors import StudyError
from melanoma_lib.explain.exam_figure import league_exam_figure
from melanoma_lib.explain.league import League
from melanoma_lib.explain.league_words import in_sum
from melanoma_lib.studies.heatmaps_table import heatmaps_headline, heatmaps_table, league_of
from melanoma_lib.studies.results import load_results, save_results
from tests.explain.graded import LEVELS, graded_league


def kept(run, league, folder):
    """The table as it comes back from its file."""
    save_results(heatmaps_table(run, league), folder)
    return load_results("heatmaps", folder)


@pytest.fixture
def table(tiny_run, tmp_path):
    return kept(tiny_run, graded_league(), tmp_path)


def line(text, label):
    (found,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_table_keeps_what_figure_and_words_need(table):
    again, league = league_of(table), graded_league()
    assert league_exam_figure(again).alt_text == league_exam_figure(league).alt_text
    assert in_sum(again.scores) == in_sum(league.scores)
    for name in set(LEVELS) - {"cascade:head", "stranger"}:
        rows, whole = again.score(name), league.score(name)
        assert rows["value"].to_dict() == pytest.approx(whole["value"].to_dict(), abs=5e-5, nan_ok=True)
        assert rows["verdict"].to_dict() == whole["verdict"].to_dict()


def test_the_headline_says_who_wins_against_what(table):
    text = heatmaps_headline(table)
    scores = graded_league().score
    _, against, cases, controls, better, worse, highest = line(text, "energy on the lesion")
    assert (against, cases, better, worse) == ("the centre prior", "60", "1 of 4", "1")
    level = {name: scores("energy_in_mask").loc[("", name), "value"] for name in ("random", "edges", "centre", "outline")}
    assert controls == ", ".join(f"{name} {value:.2f}" for name, value in level.items())
    best = scores("energy_in_mask").loc[("late", "gradcam")]
    assert highest == f"gradcam of late, {best['value']:.2f} [{best['low']:.2f}, {best['high']:.2f}]"
    _, against, _, _, better, worse, _ = line(text, "energy beyond the same values centred")
    assert (against, better, worse) == ("their own values around the middle", "0 of 4", "3")
    _, _, cases, _, better, worse, _ = line(text, "deletion/insertion gain")
    assert (cases, better, worse) == ("30", "2 of 4", "1")
    assert "2 of 4 maps draw the same for melanoma and for benign (eigencam of early, late)." in text
    assert "1 of 4 maps stay much the same when all weights are shuffled (eigencam of late)." in text
    assert "2 of 4 maps beat the centre prior by deletion/insertion, know the class and change with the model: gradcam of" in text
    assert "win by the other scores: energy on the lesion 1, energy beyond the same values centred 0." in text
    assert "- deletion/insertion gain: Plain edges, which have seen no model, beat the centre prior as well" in text
    assert "Not even the random map" in text
    assert "no evidence that it follows the lesion" in text


def test_nothing_is_concluded_from_the_middle_where_lesions_do_not_lie_there_or_a_map_does_better(tiny_run, tmp_path):
    league = graded_league()
    energy = (league.scores["score"] == "energy_in_mask") & (league.scores["method"] == "centre")
    league.scores.loc[energy, ["value", "low", "high"]] = [0.3, 0.28, 0.32]
    assert "no evidence" not in heatmaps_headline(kept(tiny_run, league, tmp_path))
    league = graded_league()
    own = (league.scores["score"] == "energy_beyond_centred") & (league.scores["layer"] == "late")
    league.scores.loc[own, "verdict"] = "better"
    assert "no evidence" not in heatmaps_headline(kept(tiny_run, league, tmp_path))


def test_too_few_groups_are_no_result(tiny_run, tmp_path):
    text = heatmaps_headline(kept(tiny_run, graded_league(groups=6), tmp_path))
    assert line(text, "energy on the lesion")[4:6] == ["fewer than 10 groups", "–"]


def test_another_studys_table_is_refused(table):
    with pytest.raises(StudyError, match="not as study heatmaps writes it"):
        league_of(replace(table, details={}))
    with pytest.raises(StudyError, match="not as study heatmaps writes it"):
        league_of(replace(table, rows=[{"name": "one view"}]))


def test_the_command_plays_the_league_once_and_leaves_table_and_figure(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["study", "heatmaps", str(tiny_run.path), "--out", "results", "--cases"]
    assert main([*command, "0"]) == 1
    assert "--cases: n: expected at least 1 case, got 0" in capsys.readouterr().err
    assert main([*command, "12"]) == 0
    played = League.from_json((tmp_path / "reports" / "explain" / tiny_run.path.name / "league.json").read_text())
    assert (tmp_path / "results" / "heatmaps.png").read_bytes().startswith(b"\x89PNG")
    table = load_results("heatmaps", tmp_path / "results")
    assert heatmaps_headline(table) in capsys.readouterr().out
    assert league_of(table).facts["n"] == played.facts["n"] == 12
    monkeypatch.setattr("melanoma_lib.explain.league.grade_cases", lambda *_: pytest.fail("graded again"))
    assert main([*command, "12"]) == 0
