import re

import nbformat
import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.classroom.lesson import Lesson
from melanoma_lib.classroom.papermill import refresh, run_lessons
from melanoma_lib.errors import LessonError
from tests.notebooks.mini import IMPORTS, mini_lesson
from tests.notebooks.nbval_run import ROOT, run_nbval
from tests.notebooks.test_contract import breaches

EXPLORER = f"{IMPORTS}\nfrom melanoma_lib.widgets.base import Explorer, answering\n"
EXERCISE = """class Lens(Explorer):
    def state(self, x):
        return 1 / x

    @answering
    def answer(self, x):
        return self.state(x)

    def presets_figure(self):
        from melanoma_lib.plotting import kit_figure, with_alt_text
        with kit_figure(2, 2) as figure:
            figure.subplots().bar([1, 2], [self.state(x) for x in ({first}, 2)])
        return with_alt_text(figure, "Two presets.")"""
BAR = "from melanoma_lib.utils import progress_bar\nwith progress_bar('counting', 2) as advance:\n    advance()"


def test_a_run_leaves_notebook_page_and_summary(lesson, tmp_path):
    (outcome,) = run_lessons([lesson], tmp_path / "out", {}, show_progress=False)
    assert (outcome.status, outcome.digests, outcome.as_committed) == ("ok", ("sum 45\n",), 1)
    page = outcome.page.read_text()
    assert re.search(r"<details>(?:(?!</details>).)*add", page, re.DOTALL), "a hint stays inside its fold"
    assert 'alt="A line from 0 to 0."' in page
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page), "an offline page fetches nothing"
    assert "| 1 | 1 | ok |" in (tmp_path / "out" / "summary.md").read_text()
    assert 'href="07_mini.html"' in (tmp_path / "out" / "index.html").read_text()


def test_a_cell_that_only_tests_is_run_and_not_shown(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path, extra="print('asserted', 40 + 2)"))
    lesson.notebook.cells[-2].metadata["tags"] = ["remove-cell"]
    nbformat.write(lesson.notebook, lesson.path)
    (outcome,) = run_lessons([Lesson(lesson.path)], tmp_path / "out", {}, show_progress=False)
    assert "asserted 42" in outcome.notebook.read_text(encoding="utf-8")
    assert "asserted" not in outcome.page.read_text(encoding="utf-8")


def test_a_failing_cell_fails_the_run_and_keeps_what_was_executed(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path, extra="1 / 0"))
    (outcome,) = run_lessons([lesson], tmp_path / "out", {}, show_progress=False)
    assert "ZeroDivisionError" in outcome.status and "ZeroDivisionError" in outcome.page.read_text()
    assert outcome.digests == ("sum 45\n",)
    before = lesson.path.read_bytes()
    with pytest.raises(LessonError, match="does not run"):
        refresh(lesson)
    assert lesson.path.read_bytes() == before


def test_a_kernel_that_dies_fails_its_lesson_alone(lesson, tmp_path):
    dying = Lesson(mini_lesson(tmp_path / "dying", extra="import os\nos._exit(9)"))
    first, second = run_lessons([dying, lesson], tmp_path / "out", {}, show_progress=False)
    assert first.status.startswith("the kernel died") and first.digests == ("sum 45\n",)
    assert second.ok and not list((tmp_path / "out").glob("*unfinished*"))


@pytest.mark.slow
def test_refresh_twice_leaves_no_difference_no_live_widget_and_no_progress_bar(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path, imports=EXPLORER, exercise=EXERCISE.format(first=1), extra=f"{BAR}\nLens()"))
    assert refresh(lesson)
    first = lesson.path.read_bytes()
    assert not refresh(Lesson(lesson.path))
    assert lesson.path.read_bytes() == first
    assert list(breaches(Lesson(lesson.path))) == ["1 of 2 figures are drawn in the cell"]  # the explorer draws the other
    assert b"widget-view" not in first and b'"alt": "Two presets."' in first and b"counting\\u" not in first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "extra"),
    [
        (0, "Lens()"),  # the callback's function fails on a preset
        (1, "from contextlib import suppress\nlens = Lens()\nwith suppress(ZeroDivisionError):\n    lens.answer(0)\nlens"),
        (1, "import ipywidgets\nipywidgets.interactive_output(lambda x: 1 / x, {'x': ipywidgets.IntSlider(0, 0, 1)})"),
    ],
)
def test_an_explorer_that_fails_fails_the_run(tmp_path, first, extra):
    lesson = Lesson(mini_lesson(tmp_path, imports=EXPLORER, exercise=EXERCISE.format(first=first), extra=extra))
    (outcome,) = run_lessons([lesson], tmp_path / "out", {}, show_progress=False)
    assert "ZeroDivisionError" in outcome.status


@pytest.mark.slow
def test_nbval_is_green_on_the_committed_lesson_and_red_on_one_changed_number(lesson):
    green = run_nbval(lesson.path)
    assert green.returncode == 0 and " passed" in green.stdout, green.stdout
    text = lesson.path.read_text()
    lesson.path.write_text(text.replace("sum 45", "sum 46"))
    red = run_nbval(lesson.path)
    assert red.returncode == 1 and "sum 46" in red.stdout, red.stdout


def test_the_command_line_runs(lesson, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    lesson.path.rename(tmp_path / "notebooks" / "07_mini.ipynb")
    (tmp_path / "notebooks" / "00_start_here.ipynb").write_bytes((tmp_path / "notebooks" / "07_mini.ipynb").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["notebooks", "run", "07", "-p", "seed", "2", "--out", "out"]) == 0
    assert "sum 47" in (tmp_path / "out" / "07_mini.html").read_text()
    assert main(["notebooks", "run", "07", "--out", "notebooks"]) == 1  # where the lessons lie
