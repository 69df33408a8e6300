"""The README quotes the committed tables.

To write its block anew: MELANOMA_TEST_WRITE=1 python -m pytest tests/studies/test_headlines.py
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_lib.errors import StudyError
from melanoma_lib.studies.headlines import headlines, travel_headline
from melanoma_lib.studies.results import ResultTable, interval_text, load_results

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


def interval(value, low, high):
    return {"value": value, "low": low, "high": high}


def travelled(home=(0.8, 0.7, 0.9), abroad=(0.8, 0.7, 0.9), gain=(0.1, 0.05, 0.15), excess=(0.05, 0.04, 0.06)):
    """The travel table with these numbers and no other use."""
    mean = {f"{name}_{place}": interval(0.5, 0.4, 0.6) for name in ("sensitivity", "specificity") for place in ("home", "abroad")}
    mean |= {"auroc_home": interval(*home), "auroc_abroad": interval(*abroad)}
    within = {"within": interval(0.7, 0.6, 0.8), "excess": interval(*excess), "source_alone": interval(0.6, 0.5, 0.7)}
    details = {
        "sample": {"here": {"images": 1135, "patients": 60, "melanomas": 20}},
        "within_sources": within | {"share_between": 0.74},
        "metadata_alone": {"auroc": interval(0.66, 0.41, 0.82), "gain": interval(*gain)},
    }
    return ResultTable("travel", "", "", [mean], details=details)


LOWER, HIGHER, ALIKE, UNKNOWN = (
    "did not hold there",
    "higher there than at home",
    "do not tell home from abroad",
    "cannot be compared",
)


@pytest.mark.parametrize(
    ("home", "abroad", "verdict"),
    [
        ((0.9, 0.88, 0.92), (0.7, 0.6, 0.8), LOWER),
        ((0.7, 0.65, 0.75), (0.85, 0.8, 0.9), HIGHER),
        ((0.8, 0.7, 0.9), (0.7, 0.6, 0.8), ALIKE),
        ((0.8, 0.7, 0.9), (0.6, 0.5, 0.7), ALIKE),  # they touch
        ((0.8, None, None), (0.7, 0.6, 0.8), UNKNOWN),
        ((0.8, 0.7, 0.9), (1.0, None, None), UNKNOWN),
        ((0.8, 0.7, 0.9), (None, None, None), UNKNOWN),
    ],
)
def test_the_verdict_on_travelling_follows_from_the_intervals(home, abroad, verdict):
    text = travel_headline(travelled(home, abroad))
    assert [words for words in (LOWER, HIGHER, ALIKE, UNKNOWN) if words in text] == [verdict]
    assert interval_text(interval(*abroad)) in text
    assert "model did not travel" not in text, "a harder mix of cases lowers the AUROC of a model that has lost nothing"


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ((0.1, 0.05, 0.15), "the pictures gain +0.100 [+0.050, +0.150] AUROC"),
        ((-0.1, -0.15, -0.05), "rank worse there than metadata alone: -0.100 [-0.150, -0.050]"),
        ((-0.025, -0.169, 0.179), "do not show that the pictures add to metadata alone: -0.025 [-0.169, +0.179]"),
        ((0.025, 0.0, 0.05), "do not show that the pictures add"),
        ((0.025, None, None), "do not show that the pictures add to metadata alone: +0.025 AUROC"),
    ],
)
def test_what_the_pictures_give_is_called_a_gain_only_where_it_is_one(gain, said):
    text = travel_headline(travelled(gain=gain))
    assert said in text
    assert ("pictures gain" in text) == (gain[1] is not None and gain[1] > 0)


@pytest.mark.parametrize(("excess", "verb"), [((0.05, 0.04, 0.06), "lifts"), ((-0.01, -0.03, 0.01), "changes")])
def test_sources_lift_the_auroc_only_where_they_do(excess, verb):
    assert f"which {verb} it by" in travel_headline(travelled(excess=excess))


def test_what_the_study_left_out_is_left_out_here():
    table = travelled()
    del table.details["metadata_alone"]
    table.details["within_sources"] = {}
    text = travel_headline(table)
    assert text.count("\n|") == 3 and "metadata" not in text.lower() and "source" not in text
    assert interval_text(table.rows[0]["auroc_abroad"]) in text


@pytest.mark.parametrize("broken", [{"rows": []}, {"rows": [{}]}, {"details": {}}])
def test_another_studys_table_is_refused(broken):
    with pytest.raises(StudyError, match="not as study travel writes it"):
        travel_headline(replace(travelled(), **broken))
