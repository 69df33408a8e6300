"""Result tables: saved and found again, where they come from, and every number that a page quotes of them."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from melanoma_lib.errors import StudyError
from melanoma_lib.studies import results
from melanoma_lib.studies.results import ResultTable, load_results, provenance, save_results, weights_of
from melanoma_lib.studies.views import QUOTED, quote_tables
from tests.command_line import parsed

ROOT = Path(__file__).parents[2]
COMMITTED = sorted(path.stem for path in (ROOT / "docs/results").glob("*.json"))
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md", "docs/launch.md")}


@pytest.fixture(autouse=True)
def _committed(monkeypatch):
    """Tests run in a folder of their own; the committed tables are the repository's."""
    monkeypatch.setattr(results, "results_dir", lambda: ROOT / "docs/results")


def table(**changes):
    values = {"name": "trial", "title": "A trial", "command": "python -m melanoma_lib study trial", "rows": [{"auroc": 0.9}]}
    return ResultTable(**(values | changes))


def test_a_table_comes_back_as_it_was_saved(tmp_path):
    saved = table(
        rows=[{"auroc": np.float32(0.5), "n": np.int64(7), "undefined": float("nan"), "deep": {"low": [np.float64(1)]}}]
    )
    path = save_results(saved, tmp_path)
    assert load_results("trial", tmp_path).rows == [{"auroc": 0.5, "n": 7, "undefined": None, "deep": {"low": [1.0]}}]
    assert json.loads(path.read_text())["command"] == saved.command
    assert {file.name for file in tmp_path.iterdir()} == {"trial.json"}


@pytest.mark.parametrize(
    "changes",
    [{"rows": [{"folds": [{"risk": 0.1}]}]}, {"rows": [{"n": float("inf")}]}, {"details": {"a": {"group_id": "HAM_1"}}}],
)
def test_numbers_of_single_cases_and_infinite_ones_are_refused(changes, tmp_path):
    with pytest.raises(StudyError, match=r"leave out|finite"):
        save_results(table(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_goes_before_the_committed_tables_and_what_is_nowhere_is_told(tmp_path):
    save_results(table(name="league", title="mine"), tmp_path)
    assert load_results("league", tmp_path).title == "mine" != load_results("league").title
    assert load_results("travel", str(tmp_path)) == load_results("travel")
    with pytest.raises(StudyError, match=r"no table trial.*league"):
        load_results("trial", tmp_path)
    with pytest.raises(StudyError, match="expected a folder"):
        load_results("league", tmp_path / "nowhere")
    (tmp_path / "league.json").write_text('{"rows": 1}')
    with pytest.raises(StudyError, match="no result table"):
        load_results("league", tmp_path)


# --- where a table comes from -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_table_names_code_weights_command_and_day(name):
    raw = json.loads((ROOT / f"docs/results/{name}.json").read_text())
    assert raw["name"] == name
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", raw["commit"])
    digests = raw["weights_sha256"]
    assert digests == "unknown" or all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests.values())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", raw["made"]) and raw["machine"]
    words = shlex.split(raw["command"])
    assert words[:3] == ["python", "-m", "melanoma_lib"]
    if raw["command_of"] == "this kit":
        parsed(words[3:])
    else:
        assert raw["command_of"] == "its commit" and raw["commit"] != "unknown"


def test_a_new_table_names_the_commit_and_the_weights_of_its_runs(tiny_run, monkeypatch):
    made = table(weights_sha256=weights_of([tiny_run]))
    stored = json.loads((tiny_run.path / "operating_point.json").read_text())
    assert made.weights_sha256 == {tiny_run.path.name: stored["checkpoint_sha256"]}
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", made.commit)
    assert made.commit in provenance(made) and stored["checkpoint_sha256"][:12] in provenance(made)
    monkeypatch.setattr(results.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("git")))
    assert table().commit == "unknown"


# --- what pages quote ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_quoted_table_is_the_committed_one(page):
    text = PAGES[page]
    assert QUOTED.search(text)
    assert quote_tables(text) == text, "python docs/pictures.py writes the tables of the pages anew"
    prose = re.sub(r"```.*?```", "", QUOTED.sub("", text), flags=re.S)
    assert re.findall(r"0\.\d{2,}", prose) == []  # a measured number stands in a table, where it is compared


def test_a_number_typed_wrong_or_a_row_left_out_is_found():
    text = PAGES["README.md"]
    for wrong in (text.replace("| 0.906 [", "| 0.960 [", 1), re.sub(r"\| image only .*\n", "", text, count=1)):
        assert wrong != text
        assert quote_tables(wrong) == text
