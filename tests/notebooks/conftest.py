import shutil
from pathlib import Path

import pytest

from melanoma_lib.classroom.lesson import Lesson
from melanoma_lib.classroom.papermill import refresh
from tests.notebooks.mini import mini_lesson


@pytest.fixture(scope="session")
def _executed(tmp_path_factory):
    lesson = Lesson(mini_lesson(tmp_path_factory.mktemp("executed")))
    assert refresh(lesson)
    return lesson.path


@pytest.fixture
def lesson(_executed, tmp_path):
    """The mini lesson with its outputs, a copy for each test."""
    return Lesson(Path(shutil.copy(_executed, tmp_path)))
