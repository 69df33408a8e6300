"""The trap of the shortcut lesson, set once among runs of its own: tests elsewhere ask for the latest run."""

import shutil

import pytest

from melanoma_lib.lessons.shortcut import set_trap


@pytest.fixture(scope="session")
def trap_settings(tiny_settings, tiny_run, tmp_path_factory):
    """The tiny settings with a folder of runs that holds a copy of the tiny run."""
    settings = tiny_settings.with_changes(runs_dir=tmp_path_factory.mktemp("trap") / "runs")
    shutil.copytree(tiny_run.path, settings.run_path)
    return settings


@pytest.fixture(scope="session")
def trap(trap_settings):
    """Both runs of the trap; the honest one is found, not trained again."""
    return set_trap(trap_settings, "patch", 1.0)
