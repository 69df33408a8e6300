"""What every committed lesson must be: its opening cells, its rhythm, and outputs that can be trusted and read aloud.

``make test ARGS="-k committed_lesson"`` runs the first test of this file.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from melanoma_lib.classroom.handout import WIDGET_VIEW
from melanoma_lib.classroom.lesson import Lesson, find_lessons, tags_of
from melanoma_lib.classroom.papermill import digest_text
from tests.notebooks.mini import mini_lesson

LESSONS = find_lessons(folder=Path(__file__).parents[2] / "notebooks")
MAX_LINES, MAX_WIDTH = 15, 100  # of a code cell; exercises may be longer
MAX_CELLS, MAX_WORDS, MAX_DEFINITIONS = 50, 1_800, 4
FIELD_SHARE = 0.7  # of the demonstration cells, and of the figures
OPENING = ("You will be able to", "minutes", "Prerequisites", "not for diagnosis")
SECTIONS = ("^## Your own data$", "^## Key terms$", "^## References$", "[Pp]redict", "<details>")
DRAWING = re.compile(r"\b(plt|sns|ax|axes|grid|display)\b|\.plot\b|Display\.|\bshow\(")
MACHINE = re.compile(
    r"<(?:Figure|Axes|matplotlib|IPython|melanoma_lib)\b|<[\w.]+ object at 0x"
    r"|(?<![\w.:/<])/(?:home|root|Users|tmp|var|opt|mnt|usr|private|content)/[\w.-]|\b[A-Z]:\\\\?\w"
)


def breaches(lesson: Lesson) -> Iterator[str]:
    """What breaks the contract, where it can be told with the cell it is in."""
    cells = lesson.notebook.cells
    introduction, imports, parameters, settings = cells[:4]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    yield from (f"cell 0: does not say {words!r}" for words in OPENING if words not in introduction.source)
    wanted = (rf"^# {lesson.name[:2]} · ", *SECTIONS)
    yield from (f"no text has {words!r}" for words in wanted if not re.search(words, text, re.MULTILINE))
    yield from (f"no cell tagged {tag!r}" for tag in ("exercise", "digest") if not lesson.cells(tag))
    if not all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in tree_of(imports).body):
        yield "cell 1: expected imports and nothing else"
    if "parameters" not in tags_of(parameters) or not lesson.parameters:
        yield "cell 2: expected the cell tagged 'parameters'"
    if not re.search(r"\b(Settings\.for_notebook|Run)\(", settings.source):
        yield "cell 3: expected settings = Settings.for_notebook(...), or run = Run(...) where nothing is trained"
    for number, cell in enumerate(cells):
        if cell.cell_type == "code":
            lines = [] if "exercise" in tags_of(cell) else code_lines(cell)
            if len(lines) > MAX_LINES or max(map(len, lines), default=0) > MAX_WIDTH:
                yield f"cell {number}: at most {MAX_LINES} lines of {MAX_WIDTH} characters"
            yield from (f"cell {number}: {problem}" for problem in outputs(cell))
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not executed from top to bottom in a fresh kernel ({counts}); refresh the notebook"
    digests = [digest_text(cell).strip() for cell in lesson.cells("digest")]
    yield from (f"a digest says no number: {digest!r}" for digest in digests if not re.search(r"\d", digest))
    yield from shares(lesson)


def tree_of(cell: nbformat.NotebookNode) -> ast.Module:
    """The syntax of a cell without IPython's magics and questions."""
    magic = re.compile(r"\s*[%!]|.*\?\s*$")
    return ast.parse("\n".join("" if magic.match(line) else line for line in cell.source.splitlines()))


def code_lines(cell: nbformat.NotebookNode) -> list[str]:
    """The lines of a code cell that are no import and not blank."""
    imports = [node for node in tree_of(cell).body if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {line for node in imports for line in range(node.lineno, node.end_lineno + 1)}
    return [line for number, line in enumerate(cell.source.splitlines(), 1) if number not in imported and line.strip()]


def outputs(cell: nbformat.NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "error" or output.get("name") == "stderr":
            yield f"holds an error or warning: {output}"
        if WIDGET_VIEW in data:
            yield "holds a live widget view, which is dead in a committed file; refresh the notebook"
        if "image/png" in data and not output.metadata.get("image/png", {}).get("alt", "").strip():
            yield "a picture without alternative text"
        for text in (output.get("text", ""), *(data.get(f"text/{kind}", "") for kind in ("plain", "html", "markdown"))):
            yield from (f"shows a bare repr or a path of this machine: {found.group()!r}" for found in MACHINE.finditer(text))


def shares(lesson: Lesson) -> Iterator[str]:
    """Length, and whose code a reader sees: that of the field or ours."""
    cells = [cell for cell in lesson.notebook.cells if "remove-cell" not in tags_of(cell)]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(r"^## (Key terms|References)$.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    if len(cells) > MAX_CELLS or len(text.split()) > MAX_WORDS:
        yield f"{len(cells)} cells and {len(text.split())} words; at most {MAX_CELLS} and {MAX_WORDS}"
    code_cells = [cell for cell in cells[4:] if cell.cell_type == "code" and "exercise" not in tags_of(cell)]
    demonstrations = [cell for cell in code_cells if code_lines(cell)]
    ours = ours_in(lesson)
    mostly_ours = [cell for cell in demonstrations if is_mostly_ours(cell, ours)]
    if len(mostly_ours) > (1 - FIELD_SHARE) * len(demonstrations):
        firsts = "; ".join(code_lines(cell)[0] for cell in mostly_ours)
        yield f"{len(mostly_ours)} of {len(demonstrations)} demonstration cells mostly call the library: {firsts}"
    figures = [cell for cell in demonstrations if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    drawn = [cell for cell in figures if DRAWING.search(cell.source)]
    if len(drawn) < FIELD_SHARE * len(figures):
        yield f"{len(drawn)} of {len(figures)} figures are drawn in the cell"
    defined = [node for cell in demonstrations for node in ast.walk(tree_of(cell)) if isinstance(node, ast.ClassDef)]
    defined += [node for cell in demonstrations for node in tree_of(cell).body if isinstance(node, ast.FunctionDef)]
    names = [node.name for node in defined if not node.name.startswith("show")]
    if len(names) > MAX_DEFINITIONS:
        yield f"defines {', '.join(names)} outside exercises; at most {MAX_DEFINITIONS}, but for those that a control shows"


def ours_in(lesson: Lesson) -> set[str]:
    """Names that the lesson imports from the library, and those it gives to objects of the library's classes."""
    names = set()
    for node in (node for cell in lesson.notebook.cells if cell.cell_type == "code" for node in ast.walk(tree_of(cell))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("melanoma_lib"):
            names |= {alias.asname or alias.name for alias in node.names}
        made = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name)
        if made and (called := root_of(node.value.func)) in names and called[:1].isupper():
            names.add(node.targets[0].id)
    return names - {"describe", "panel", "use_theme"}


def root_of(node: ast.AST) -> str:
    """The name that an attribute or call hangs on, such as ``sns`` of ``sns.set(x).y``; empty if there is none."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def is_mostly_ours(cell: nbformat.NotebookNode, ours: set[str]) -> bool:
    """Whether a cell calls the library's names more often than all others but Python's own."""
    roots = [root_of(node.func) for node in ast.walk(tree_of(cell)) if isinstance(node, ast.Call)]
    return sum(root in ours for root in roots) > sum(root not in ours and not hasattr(builtins, root) for root in roots)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_committed_lesson_keeps_the_contract(lesson):
    assert list(breaches(lesson)) == []


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"introduction": "# 07 · T\n\nYou will be able to. 1 minutes. Prerequisites."}, "not for diagnosis"),
        ({"extra": "\n".join(f"x{i} = 1" for i in range(16))}, "at most 15 lines"),
        ({"extra": "describe(NotYet('x'), Exercise('y'))\nNotYet('z')"}, "1 of 3 demonstration"),
        ({"closing": "word " * 1_801}, "words; at most 50 and 1800"),
        ({"digest": "print(True)"}, "a digest says no number"),
    ],
)
def test_a_breach_is_found(tmp_path, replaced, words):
    assert any(words in breach for breach in breaches(Lesson(mini_lesson(tmp_path, **replaced))))


def test_an_output_shows_no_bare_repr(lesson):
    assert list(breaches(lesson)) == []
    (exercise,) = lesson.cells("exercise")
    exercise.outputs = [nbformat.v4.new_output("display_data", {"text/plain": "<Figure size 640x480 with 1 Axes>"})]
    assert ["bare repr" in breach for breach in breaches(lesson)] == [True]
