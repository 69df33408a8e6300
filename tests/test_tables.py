"""Result tables: where they come from, and every number that a page quotes of them."""

import json
import re
import shlex

import pytest

from docs.tables import HERE, PAGES, QUOTED, quote_tables
from tests.command_line import parsed

COMMITTED = sorted((HERE / "results").glob("*.json"))
PRIVATE = {"image_id", "lesion_id", "patient_id", "group_id", "image_path", "mask_path", "target", "logit", "probability", "risk"}


def keys_of(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_table_names_code_weights_command_and_day_and_holds_no_single_case(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert raw["name"] == path.stem
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
    assert not keys_of([raw["rows"], raw["details"]]) & PRIVATE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_quoted_table_is_the_committed_one(page):
    text = page.read_text(encoding="utf-8")
    assert QUOTED.search(text)
    assert quote_tables(text) == text, "python docs/tables.py writes the tables of the pages anew"
    prose = re.sub(r"```.*?```", "", QUOTED.sub("", text), flags=re.S)
    assert re.findall(r"0\.\d{2,}", prose) == []  # a measured number stands in a table, where it is compared


def test_a_number_typed_wrong_or_a_row_left_out_is_found():
    text = PAGES[0].read_text(encoding="utf-8")
    for wrong in (text.replace("| 0.906 [", "| 0.960 [", 1), re.sub(r"\| image only .*\n", "", text, count=1)):
        assert wrong != text
        assert quote_tables(wrong) == text
