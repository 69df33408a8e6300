"""Each executed lesson opened in a real JupyterLab, as a reader finds it: nothing sticks out, explorers are drawn."""

from pathlib import Path

import nbformat
import pytest

from melanoma_lib.classroom.lesson import find_lessons

LESSONS = find_lessons(folder=Path(__file__).parents[2] / "notebooks")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_scrolls_nowhere_sideways_and_shows_its_explorers(lab, lesson, executed_lesson):
    notebook = Path(executed_lesson(lesson)["notebook"])
    code = [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    explorers = sum("Explorer(" in cell.source for cell in code)
    with lab.open(notebook, run=False) as page:
        shown = page.locator(".mk")
        if explorers:
            shown.nth(explorers - 1).wait_for()
        assert shown.count() == explorers
        assert page.locator(".mk-problem:visible").count() == 0
        wide = page.evaluate("""() => [...document.querySelectorAll(".jp-OutputArea-output")]
            .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.innerText.slice(0, 80))""")
        assert wide == []
