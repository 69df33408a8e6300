import nbformat
import pytest

from melanoma_lib.classroom.contract import breaches
from melanoma_lib.classroom.lesson import Lesson, tags_of
from tests.notebooks.mini import mini_lesson


def edited(lesson, change):
    """The breaches after a change to the notebook."""
    notebook = lesson.notebook
    change(notebook)
    nbformat.write(notebook, lesson.path)
    return breaches(Lesson(lesson.path))


def code_cell(notebook, tag):
    return next(cell for cell in notebook.cells if tag in tags_of(cell))


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_an_executed_lesson_keeps_the_contract(lesson):
    assert breaches(lesson) == []


def test_stripped_outputs_break_it(lesson):
    def strip(notebook):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None

    assert any("not executed" in breach for breach in edited(lesson, strip))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<Figure size 640x480 with 1 Axes>", "bare repr"),
        ("<melanoma_lib.widgets.cases.CaseExplorer object at 0x7f>", "bare repr"),
        ("saved to /home/ada/x.png", "path of this machine"),
        (r"C:\Users\ada", "path of this machine"),
    ],
)
def test_what_an_output_must_not_show(lesson, text, words):
    def show(notebook):
        code_cell(notebook, "exercise").outputs = [nbformat.v4.new_output("execute_result", {"text/plain": text})]

    assert any(words in breach for breach in edited(lesson, show))


def test_text_with_slashes_is_no_path(lesson):
    harmless = "head/neck and/or </b> 3/4 https://example.org/home/x palms/soles notebooks/runs"
    assert edited(lesson, lambda notebook: code_cell(notebook, "exercise").outputs.append(stream(harmless))) == []


def test_warnings_errors_and_live_views_are_breaches(lesson):
    view = nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}})
    for output, words in (
        (stream("UserWarning: x\n", "stderr"), "warning"),
        (nbformat.v4.new_output("error", ename="ValueError", evalue="x", traceback=[]), "the error ValueError"),
        (view, "live widget view"),
    ):
        found = edited(lesson, lambda notebook, output=output: setattr(code_cell(notebook, "exercise"), "outputs", [output]))
        assert any(words in breach for breach in found)


def test_a_picture_needs_words(lesson):
    def mute(notebook):
        for cell in notebook.cells:
            for output in cell.get("outputs", ()):
                output.get("metadata", {}).pop("image/png", None)

    assert any("alternative text" in breach for breach in edited(lesson, mute))


def test_a_digest_that_prints_nothing_is_no_digest(lesson):
    assert any("printed nothing" in found for found in edited(lesson, lambda n: setattr(code_cell(n, "digest"), "outputs", [])))


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"introduction": "# 08 · Other number"}, "title '# 07 · …'"),
        ({"introduction": "# 07 · T\n\nYou will be able to. 1 minutes. Prerequisites."}, "not for diagnosis"),
        ({"imports": "import os\nx = 1"}, "imports and nothing else"),
        ({"parameters": "profile = 'fast'\nbig = 2 ** 3"}, "plain scalar"),
        ({"settings": "settings = None"}, "for_notebook"),
        ({"extra": "\n".join(f"x{i} = 1" for i in range(13))}, "13 lines; at most 12"),
        ({"extra": "%time\ndef helper():\n    return 1"}, "defines a function"),
        ({"closing": "## Takeaways\n\n## Where next"}, "no folded hint"),
        ({"closing": "<details></details>\n\n## Where next"}, "no heading 'Takeaways'"),
    ],
)
def test_each_clause_is_held(tmp_path, replaced, words):
    assert any(words in breach for breach in breaches(Lesson(mini_lesson(tmp_path, **replaced))))
