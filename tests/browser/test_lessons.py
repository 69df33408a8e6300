"""Each executed lesson opened in a real JupyterLab: no output is wider than the page."""

from pathlib import Path

import pytest

from melanoma_lib.classroom.lesson import find_lessons

LESSONS = find_lessons(folder=Path(__file__).parents[2] / "notebooks")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_scrolls_nowhere_sideways(lab, lesson, executed_lesson):
    with lab.open(Path(executed_lesson(lesson)["notebook"]), run=False) as page:
        outputs = ".jp-OutputArea-output"
        page.locator(outputs).nth(sum(cell.cell_type == "code" for cell in lesson.notebook.cells) // 3).wait_for()
        wide = page.evaluate(f"""() => [...document.querySelectorAll("{outputs}")]
            .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.innerText.slice(0, 80))""")
        assert wide == []
