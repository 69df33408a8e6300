"""What every committed lesson must be: its opening cells, its rhythm, and outputs that can be trusted and read aloud."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from melanoma_lib.classroom.lesson import Lesson, tags_of
from melanoma_lib.errors import LessonError

MAX_LINES = 12  # of a code cell; exercises may be longer
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
OPENING = ("You will be able to", "minutes", "Prerequisites", "not for diagnosis")
SECTIONS = ("Takeaways", "Where next")
BARE_REPR = re.compile(r"<(?:Figure|Axes|matplotlib|IPython|melanoma_lib)\b|<[\w.]+ object at 0x")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/(?:home|root|Users|tmp|var|opt|mnt|usr|private|content)/[\w.-]|\b[A-Z]:\\\\?\w")


def breaches(lesson: Lesson) -> list[str]:
    """What breaks the contract, each with the cell it is in; an empty list for a lesson that keeps it.

    Args:
        lesson: a committed notebook with its outputs.
    """
    try:
        cells = lesson.notebook.cells
        found = [*_opening(lesson), *_sections(lesson)]
        for number, cell in enumerate(cells):
            problems = [*_code(cell), *_outputs(cell)] if cell.cell_type == "code" else []
            found += [f"cell {number}: {problem}" for problem in problems]
        return [*found, *_execution(lesson)]
    except LessonError as error:
        return [str(error)]


def digest_text(cell: nbformat.NotebookNode) -> str:
    """What a digest cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def _opening(lesson: Lesson) -> Iterator[str]:
    cells = lesson.notebook.cells
    if len(cells) < 4 or [cell.cell_type for cell in cells[:4]] != ["markdown", "code", "code", "code"]:
        yield "cells 0-3: expected the introduction, imports, parameters and settings, in this order"
        return
    number = lesson.name[:2]
    if not cells[0].source.startswith(f"# {number} · "):
        yield f"cell 0: expected a title '# {number} · …', got {cells[0].source.splitlines()[0]!r}"
    yield from (f"cell 0: does not say {words!r}" for words in OPENING if words not in cells[0].source)
    statements = ast.parse(cells[1].source).body
    if not all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in statements):
        yield "cell 1: expected imports and nothing else"
    if "parameters" not in tags_of(cells[2]) or not lesson.parameters:
        yield "cell 2: expected the cell tagged 'parameters'"
    if "Settings.for_notebook(" not in cells[3].source:
        yield "cell 3: expected settings = Settings.for_notebook(...)"


def _sections(lesson: Lesson) -> Iterator[str]:
    text = "\n".join(cell.source for cell in lesson.notebook.cells if cell.cell_type == "markdown")
    yield from (f"no heading {title!r}" for title in SECTIONS if not re.search(rf"^#+ .*{title}", text, re.MULTILINE))
    if not re.search(r"predict", text, re.IGNORECASE):
        yield "no question that asks the reader to predict before running"
    if "<details>" not in text:
        yield "no folded hint (<details>)"
    yield from (f"no cell tagged {tag!r}" for tag in ("exercise", "digest") if not lesson.cells(tag))


def _code(cell: nbformat.NotebookNode) -> Iterator[str]:
    if "exercise" in tags_of(cell):
        return
    n_lines = len(cell.source.splitlines())
    if n_lines > MAX_LINES:
        yield f"{n_lines} lines; at most {MAX_LINES}"
    if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(_plain(cell.source)))):
        yield "defines a function or class outside an exercise; move it into the library"


def _plain(source: str) -> str:
    """Python without IPython's magics, which ``ast`` does not know."""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())


def _outputs(cell: nbformat.NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"holds the error {output.ename}: {output.evalue}"
        elif output.output_type == "stream":
            if output.name == "stderr":
                yield f"printed a warning or log: {output.text.strip().splitlines()[0]!r}"
            yield from _text(output.text)
        else:
            if WIDGET_VIEW in output.data:
                yield "holds a live widget view, which is dead in a committed file; refresh the notebook"
            if "image/png" in output.data and not output.metadata.get("image/png", {}).get("alt", "").strip():
                yield "a picture without alternative text"
            for kind in ("text/plain", "text/html", "text/markdown"):
                yield from _text(output.data.get(kind, ""))


def _text(text: str) -> Iterator[str]:
    if match := BARE_REPR.search(text):
        yield f"shows a bare repr: {match.group()!r}; show a figure, or assign with _ ="
    roots = "|".join(re.escape(str(root)) for root in {Path.cwd(), Path.home()} if len(root.parts) > 1)
    if match := ABSOLUTE_PATH.search(text) or (roots and re.search(rf"(?:{roots})\b", text)):
        yield f"shows a path of this machine: {text[match.start() : match.start() + 60]!r}"


def _execution(lesson: Lesson) -> Iterator[str]:
    code = [cell for cell in lesson.notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"not executed from top to bottom in a fresh kernel (execution counts {counts}); refresh the notebook"
    for number, cell in enumerate(lesson.cells("digest")):
        if not digest_text(cell).strip():
            yield f"digest {number + 1} printed nothing, so that there is nothing to compare"
