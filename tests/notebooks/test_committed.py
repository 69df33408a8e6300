"""The lessons as they are committed: their contract, and digests that a fresh kernel prints again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from melanoma_lib.classroom.contract import breaches
from melanoma_lib.classroom.lesson import find_lessons

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
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=1500", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {f"MELANOMA_{name.upper()}": str(folder) for name, folder in lesson_folders.items()}
    done = subprocess.run([*command, lesson.path], capture_output=True, text=True, env=environment, cwd=lesson.path.parent)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
