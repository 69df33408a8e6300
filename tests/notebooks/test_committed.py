"""The lessons as they are committed: their contract, and digests that a fresh kernel prints again."""

from pathlib import Path

import pytest

from melanoma_lib.classroom.contract import breaches
from melanoma_lib.classroom.lesson import find_lessons
from tests.notebooks.nbval_run import nbval

LESSONS = find_lessons(folder=Path(__file__).parents[2] / "notebooks")
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


def test_the_first_lessons_are_there():
    assert {
        "00_start_here",
        "01_eda",
        "02_focal_loss",
        "03_training",
        "04_threshold_tuning",
        "05_gradcam_layers",
        "06_cross_validation",
    } <= {lesson.name for lesson in LESSONS}


@each_lesson
def test_a_committed_lesson_keeps_the_contract(lesson):
    assert breaches(lesson) == []


@pytest.mark.xdist_group("lessons")  # they share runs: one process, one after the other
@each_lesson
def test_a_fresh_kernel_prints_the_committed_digests(lesson, lesson_folders):
    folders = {f"MELANOMA_{name.upper()}": str(folder) for name, folder in lesson_folders.items()}
    done = nbval(lesson.path, "--nbval-cell-timeout=1500", settings=folders)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
