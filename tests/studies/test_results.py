"""Result tables: found, where they come from, and every number that a page quotes of them."""

import json
import re
import shlex
from pathlib import Path

import pytest

from melanoma_lib.errors import StudyError
from melanoma_lib.studies import results
from melanoma_lib.studies.results import load_results, provenance
from melanoma_lib.studies.views import QUOTED, quote_tables
from tests.command_line import parsed

ROOT = Path(__file__).parents[2]
COMMITTED = sorted(path.stem for path in (ROOT / "docs/results").glob("*.json"))
PRIVATE = {"image_id", "lesion_id", "patient_id", "group_id", "image_path", "mask_path", "target", "logit", "probability", "risk"}
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md", "docs/launch.md")}


@pytest.fixture(autouse=True)
def _committed(monkeypatch):
    """Tests run in a folder of their own; the committed tables are the repository's."""
    monkeypatch.setattr(results, "results_dir", lambda: ROOT / "docs/results")


def test_a_folder_goes_before_the_committed_tables_and_what_is_nowhere_is_told(tmp_path):
    mine = json.loads((ROOT / "docs/results/league.json").read_text()) | {"title": "mine"}
    (tmp_path / "league.json").write_text(json.dumps(mine))
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


def keys_of(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_table_holds_no_single_case_and_is_shown_with_its_origin(name):
    found = load_results(name)
    assert not keys_of([found.rows, found.details]) & PRIVATE
    assert found.commit in provenance(found) and found.made in provenance(found)


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
