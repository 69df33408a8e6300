"""The committed lessons, run by papermill at their own parameters: nothing fails, and the digests are those that are committed.

nbval holds a lesson's digests in the same way, in a kernel of its own; that it does is tested with a small one.
"""

from pathlib import Path

import pytest

from melanoma_lib.classroom.lesson import Lesson, find_lessons
from melanoma_lib.classroom.papermill import digest_text

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = [*find_lessons(folder=NOTEBOOKS), Lesson(NOTEBOOKS / "project/example.ipynb")]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_runs_and_says_what_is_committed(lesson, executed_lesson):
    outcome = executed_lesson(lesson)
    assert outcome["status"] == "ok"
    committed = [digest_text(cell) for cell in lesson.cells("digest")]
    assert outcome["digests"] == committed and all(text.strip() for text in committed)
