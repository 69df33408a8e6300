"""The committed lessons, run by papermill at their own parameters: nothing fails, and the digests are those that are committed.

nbval holds a lesson's digests in the same way, in a kernel of its own; that it does is tested with a small one.
"""

from pathlib import Path

import pytest

from melanoma_lib.classroom.lesson import Lesson, find_lessons
from melanoma_lib.classroom.papermill import digest_text, run_lesson
from melanoma_lib.settings import ENV_PREFIX, Settings
from melanoma_lib.training import train

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = [*find_lessons(folder=NOTEBOOKS), Lesson(NOTEBOOKS / "project/example.ipynb")]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_runs_and_says_what_is_committed(lesson, built_once, lesson_folders, tmp_path, monkeypatch):
    for name, folder in lesson_folders.items():
        monkeypatch.setenv(f"{ENV_PREFIX}{name.upper()}", str(folder))
    # Lessons that two workers run at once look at the same run; it is trained before, as only one may train it.
    built_once("lesson_run", lambda _: train(Settings(profile="fast", source="synthetic", seed=0, resume=True)))
    outcome = run_lesson(lesson, tmp_path, lesson.parameters, show_progress=False)
    assert outcome.ok, outcome.status
    committed = tuple(digest_text(cell) for cell in lesson.cells("digest"))
    assert outcome.digests == committed and all(text.strip() for text in committed)
