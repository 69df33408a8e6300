import base64
import io
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

from melanoma_lib.__main__ import main
from melanoma_lib.classroom.contract import breaches
from melanoma_lib.classroom.lesson import Lesson, tags_of
from melanoma_lib.classroom.papermill import refresh, run_lessons, smaller, summary, widget_failures
from melanoma_lib.errors import LessonError
from tests.notebooks.mini import IMPORTS, mini_lesson
from tests.notebooks.nbval_run import nbval

EXPLORER = f"""{IMPORTS}
from melanoma_lib.widgets.base import Explorer, answering
"""
EXERCISE = """class Lens(Explorer):
    def state(self, x):
        return 1 / x

    @answering
    def answer(self, x):
        return self.state(x)

    def presets_figure(self):
        with kit_figure(2, 2) as figure:
            figure.subplots().bar([1, 2], [self.state(x) for x in ({first}, 2)])
        return describe(figure, "Two presets.")"""


def test_a_run_leaves_notebook_page_and_summary(lesson, tmp_path):
    (outcome,) = run_lessons([lesson], tmp_path / "out", {}, show_progress=False)
    assert (outcome.status, outcome.digests, outcome.as_committed) == ("ok", ("sum 45\n",), 1)
    page = outcome.page.read_text()
    assert re.search(r"<details>(?:(?!</details>).)*add", page, re.DOTALL), "a hint stays inside its fold"
    assert 'alt="A line from 0 to 0."' in page
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page), "an offline page fetches nothing"
    assert "1 of 1 as committed" in (tmp_path / "out" / "summary.md").read_text()


def test_parameters_reach_the_kernel(lesson, tmp_path):
    (outcome,) = run_lessons([lesson], tmp_path / "out", {"seed": "5"}, show_progress=False)
    assert (outcome.digests, outcome.as_committed) == (("sum 50\n",), None)
    assert "other parameters" in summary([outcome])


def test_a_misspelt_parameter_is_refused_before_a_kernel_starts(lesson, tmp_path):
    with pytest.raises(LessonError, match="no parameter sed"):
        run_lessons([lesson], tmp_path / "out", {"sed": "5"})
    assert not (tmp_path / "out").exists()


def test_a_failing_cell_fails_the_run_and_keeps_what_was_executed(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path, extra="1 / 0"))
    (outcome,) = run_lessons([lesson], tmp_path / "out", {}, show_progress=False)
    assert "ZeroDivisionError" in outcome.status
    assert outcome.digests == ("sum 45\n",)
    assert "ZeroDivisionError" in outcome.page.read_text()
    before = lesson.path.read_bytes()
    with pytest.raises(LessonError, match="does not run"):
        refresh(lesson)
    assert lesson.path.read_bytes() == before


def test_refresh_twice_leaves_no_difference_and_no_live_widget(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path, imports=EXPLORER, exercise=EXERCISE.format(first=1), extra="Lens()"))
    assert refresh(lesson)
    first = lesson.path.read_bytes()
    assert not refresh(Lesson(lesson.path))
    assert lesson.path.read_bytes() == first
    assert breaches(Lesson(lesson.path)) == []
    assert b"widget-view" not in first
    assert b'"alt": "Two presets."' in first


def test_a_progress_bar_leaves_nothing_in_the_committed_file(tmp_path):
    bar = "from melanoma_lib.utils import progress_bar\nwith progress_bar('counting', 2) as advance:\n    advance()"
    lesson = Lesson(mini_lesson(tmp_path, extra=bar))
    refresh(lesson)
    lesson = Lesson(lesson.path)
    assert breaches(lesson) == []
    (cell,) = [cell for cell in lesson.notebook.cells if "progress_bar" in cell.source]
    assert cell.outputs == []


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


def test_an_explorer_without_a_problem_is_no_failure():
    assert widget_failures(nbformat.v4.new_notebook()) == []


def test_nbval_is_green_on_the_committed_lesson_and_red_on_one_changed_number(lesson):
    green = nbval(lesson.path)
    assert green.returncode == 0, green.stdout
    notebook = lesson.notebook
    (digest,) = [cell for cell in notebook.cells if "digest" in tags_of(cell)]
    digest.outputs[0].text = digest.outputs[0].text.replace("45", "46")
    nbformat.write(notebook, lesson.path)
    red = nbval(lesson.path)
    assert red.returncode == 1, red.stdout
    assert "sum 46" in red.stdout


def test_the_command_line_runs_checks_and_refuses(lesson, tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    lesson.path.rename(tmp_path / "notebooks" / "07_mini.ipynb")
    (tmp_path / "notebooks" / "00_start_here.ipynb").write_bytes((tmp_path / "notebooks" / "07_mini.ipynb").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["notebooks", "check", "07"]) == 0
    assert main(["notebooks", "run", "07", "-p", "seed", "2", "--out", "out"]) == 0
    assert (tmp_path / "out" / "07_mini.html").is_file()
    assert main(["notebooks", "run", "07", "-p", "seed", "2", "-p", "seed", "3"]) == 1
    assert main(["notebooks", "check"]) == 1  # 00 carries the title of 07
    assert "given more than once" in capsys.readouterr().err


def test_a_photograph_is_kept_in_fewer_bytes_and_looks_the_same():
    y, x = np.mgrid[:400, :400]
    waves = np.stack([120 + 60 * np.sin(x / 90), 90 + 50 * np.cos(y / 70), 100 + 40 * np.sin((x + y) / 80)], axis=2)
    pixels = (waves + np.random.default_rng(0).normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8)
    before = as_png(pixels)
    after = smaller(before)
    assert len(after) < 0.6 * len(before)
    assert smaller(after) == after
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(after))).convert("RGB"))
    assert np.abs(seen.astype(int) - pixels).mean() < 8
    pixels[-20:, :40] = blue = (0, 114, 178)  # the end of a colour bar below a picture of other colours
    kept = np.asarray(Image.open(io.BytesIO(base64.b64decode(smaller(as_png(pixels))))).convert("RGB"))
    assert np.abs(kept[-16:, 4:36].astype(int) - blue).max() < 20
    small = as_png(pixels[:50, :50])
    assert smaller(small) == small


def as_png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
