"""The semester project: its rubric names the sections of the worked example, which keeps the rules that lessons keep.

After a change to the example, renew its outputs with ``papermill.refresh(Lesson(path))``; ``test_lessons`` runs it.
"""

import re
import shlex
from pathlib import Path

from melanoma_lib.classroom.lesson import Lesson
from tests.command_line import parsed
from tests.notebooks.test_contract import MAX_LINES, MAX_WIDTH, code_lines, outputs, shares

FOLDER = Path(__file__).parents[2] / "notebooks/project"
BRIEF = (FOLDER / "README.md").read_text(encoding="utf-8")
EXAMPLE = Lesson(FOLDER / "example.ipynb")
CELLS = EXAMPLE.notebook.cells
TEXT = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")


def test_the_rubric_sums_to_100_and_names_the_sections_of_the_example():
    rubric = dict(re.findall(r"^\| ([\w ]+) \| (\d+) \|", BRIEF, re.MULTILINE))
    assert sum(map(int, rubric.values())) == 100
    assert re.findall(r"^## (.+)$", TEXT, re.MULTILINE)[: len(rubric)] == list(rubric)


def test_the_example_is_what_the_brief_asks_for():
    assert len(CELLS) <= int(re.search(r"at most (\d+) cells", BRIEF)[1]) and "not for diagnosis" in CELLS[0].source
    for cell in (cell for cell in CELLS if cell.cell_type == "code"):
        assert list(outputs(cell)) == [] and len(lines := code_lines(cell)) <= MAX_LINES, cell.source
        assert max(map(len, lines), default=0) <= MAX_WIDTH, cell.source
    assert list(shares(EXAMPLE)) == []


def test_links_lead_somewhere_and_commands_are_taken():
    links = re.findall(r"\]\(([^)]+)\)", BRIEF + TEXT)
    assert links and [link for link in links if not (FOLDER / link).exists()] == []
    for command in re.findall(r"python -m melanoma_lib ([^`\n]+)", BRIEF):
        parsed(shlex.split(command))  # exits where the kit would not take it
