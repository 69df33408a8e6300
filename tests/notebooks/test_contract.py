"""What every committed lesson must be: its opening cells, its rhythm, and outputs that can be trusted and read aloud.

``python -m melanoma_lib notebooks check`` runs the first test of this file.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from melanoma_lib.classroom.lesson import Lesson, find_lessons, tags_of
from melanoma_lib.classroom.papermill import WIDGET_VIEW, digest_text
from tests.notebooks.mini import mini_lesson

LESSONS = find_lessons(folder=Path(__file__).parents[2] / "notebooks")
MAX_LINES = 15  # of a code cell; exercises may be longer
OPENING = ("You will be able to", "minutes", "Prerequisites", "not for diagnosis")
BARE_REPR = re.compile(r"<(?:Figure|Axes|matplotlib|IPython|melanoma_lib)\b|<[\w.]+ object at 0x")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/(?:home|root|Users|tmp|var|opt|mnt|usr|private|content)/[\w.-]|\b[A-Z]:\\\\?\w")


def breaches(lesson: Lesson) -> list[str]:
    """What breaks the contract, each with the cell it is in."""
    cells, found = lesson.notebook.cells, [*opening(lesson), *rhythm(lesson)]
    for number, cell in enumerate(cells):
        problems = [*code(cell), *outputs(cell)] if cell.cell_type == "code" else []
        found += [f"cell {number}: {problem}" for problem in problems]
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"not executed from top to bottom in a fresh kernel ({counts}); refresh the notebook")
    return found + ["a digest printed nothing" for cell in lesson.cells("digest") if not digest_text(cell).strip()]


def opening(lesson: Lesson) -> Iterator[str]:
    introduction, imports, parameters, settings = lesson.notebook.cells[:4]
    if not introduction.source.startswith(f"# {lesson.name[:2]} · "):
        yield f"cell 0: expected a title '# {lesson.name[:2]} · …', got {introduction.source.splitlines()[0]!r}"
    yield from (f"cell 0: does not say {words!r}" for words in OPENING if words not in introduction.source)
    if not all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in ast.parse(imports.source).body):
        yield "cell 1: expected imports and nothing else"
    if "parameters" not in tags_of(parameters) or not lesson.parameters:
        yield "cell 2: expected the cell tagged 'parameters'"
    if "Settings.for_notebook(" not in settings.source:
        yield "cell 3: expected settings = Settings.for_notebook(...)"


def rhythm(lesson: Lesson) -> Iterator[str]:
    text = "\n".join(cell.source for cell in lesson.notebook.cells if cell.cell_type == "markdown")
    for words in (r"^#+ .*Takeaways", r"^#+ .*Where next", r"[Pp]redict", "<details>"):
        if not re.search(words, text, re.MULTILINE):
            yield f"no text has {words!r}"
    yield from (f"no cell tagged {tag!r}" for tag in ("exercise", "digest") if not lesson.cells(tag))


def code(cell: nbformat.NotebookNode) -> Iterator[str]:
    lines = cell.source.splitlines()
    if "exercise" in tags_of(cell):
        return
    if len(lines) > MAX_LINES:
        yield f"{len(lines)} lines; at most {MAX_LINES}"
    python = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)  # less IPython's magics
    if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(python))):
        yield "defines a function or class outside an exercise"


def outputs(cell: nbformat.NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "error":
            yield f"holds the error {output.ename}: {output.evalue}"
        if output.get("name") == "stderr":
            yield f"printed a warning or log: {output.text.strip().splitlines()[0]!r}"
        if WIDGET_VIEW in data:
            yield "holds a live widget view, which is dead in a committed file; refresh the notebook"
        if "image/png" in data and not output.metadata.get("image/png", {}).get("alt", "").strip():
            yield "a picture without alternative text"
        for text in (output.get("text", ""), *(data.get(f"text/{kind}", "") for kind in ("plain", "html", "markdown"))):
            if match := BARE_REPR.search(text):
                yield f"shows a bare repr: {match.group()!r}; show a figure, or assign with _ ="
            if match := ABSOLUTE_PATH.search(text):
                yield f"shows a path of this machine: {text[match.start() : match.start() + 60]!r}"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_committed_lesson_keeps_the_contract(lesson):
    assert breaches(lesson) == []


def test_an_executed_lesson_keeps_the_contract(lesson):
    assert breaches(lesson) == []


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"introduction": "# 08 · Other number"}, "title '# 07 · …'"),
        ({"introduction": "# 07 · T\n\nYou will be able to. 1 minutes. Prerequisites."}, "not for diagnosis"),
        ({"imports": "import os\nx = 1"}, "imports and nothing else"),
        ({"settings": "settings = None"}, "for_notebook"),
        ({"extra": "\n".join(f"x{i} = 1" for i in range(16))}, "16 lines; at most 15"),
        ({"extra": "%time\ndef helper():\n    return 1"}, "defines a function"),
        ({"closing": "## Takeaways\n\n## Where next"}, "<details>"),
        ({}, "printed nothing"),
    ],
)
def test_each_clause_is_held(tmp_path, replaced, words):
    assert any(words in breach for breach in breaches(Lesson(mini_lesson(tmp_path, **replaced))))


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"data": {"text/plain": "<Figure size 640x480 with 1 Axes>"}}, "bare repr"),
        ({"data": {"text/html": "saved to /home/ada/x.png"}}, "path of this machine"),
        ({"data": {"text/plain": "head/neck or </b> 3/4 https://example.org/home/x notebooks/runs"}}, ""),
        ({"data": {WIDGET_VIEW: {"model_id": "x"}}}, "live widget view"),
        ({"data": {"image/png": "x"}}, "alternative text"),
        ({"output_type": "stream", "name": "stderr", "text": "UserWarning: x\n"}, "warning"),
        ({"output_type": "error", "ename": "ValueError", "evalue": "x", "traceback": []}, "the error ValueError"),
    ],
)
def test_what_an_output_must_not_show(lesson, output, words):
    (exercise,) = lesson.cells("exercise")
    exercise.outputs = [nbformat.from_dict({"output_type": "display_data", "metadata": {}} | output)]
    found = breaches(lesson)
    assert any(words in breach for breach in found) if words else not found
