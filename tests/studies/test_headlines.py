"""The README quotes the committed tables.

To write its block anew: MELANOMA_TEST_WRITE=1 python -m pytest tests/studies/test_headlines.py
"""

import os
import re
from pathlib import Path

import pytest

from melanoma_lib.studies.headlines import headlines, travel_headline
from melanoma_lib.studies.results import interval_text, load_results

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "docs" / "results"
BLOCK = re.compile(r"(<!-- tables of docs/results -->\n).*?(\n<!-- end of tables -->)", flags=re.S)


def test_the_readme_says_what_the_tables_say():
    readme, text = (ROOT / "README.md").read_text(), headlines(TABLES)
    if os.environ.get("MELANOMA_TEST_WRITE"):
        readme = BLOCK.sub(lambda found: f"{found[1]}{text}{found[2]}", readme)
        (ROOT / "README.md").write_text(readme)
    assert BLOCK.search(readme), "the README's block of results has lost its marks"
    assert text in readme


@pytest.mark.parametrize("name", sorted(path.stem for path in TABLES.glob("*.json")))
def test_every_committed_table_names_its_command_and_no_single_case(name):
    table = load_results(name, TABLES)
    assert table.name == name
    assert table.command.startswith("python -m melanoma_lib ")
    text = (TABLES / f"{name}.json").read_text()
    assert not re.search(r"ISIC_\d|HAM_\d|IP_\d", text), "no image, lesion or patient has a place in it"
    assert not re.search(r"(?<![\w.])/(?:\w+/)+", text), "no path of a machine"


def test_the_verdict_on_travelling_follows_from_the_intervals():
    table = load_results("travel", TABLES)
    home, abroad = table.rows[0]["auroc_home"], table.rows[0]["auroc_abroad"]
    assert interval_text(abroad) in travel_headline(table)
    assert ("did not travel" in travel_headline(table)) == (abroad["high"] < home["low"])
    table.rows[0]["auroc_abroad"] = dict(home)
    assert "do not tell home from abroad" in travel_headline(table)
