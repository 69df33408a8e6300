"""Student copies of the lessons: the solutions cut out, what a right answer prints shown beside each check."""

import copy
import re
from pathlib import Path

import nbformat

from melanoma_lib.classroom.lesson import Lesson, tags_of
from melanoma_lib.errors import LessonError
from melanoma_lib.utils import write_text

BEGIN, END = "# solution", "# end of solution"
SOLUTION = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}\n.*?^(?P=indent){END}$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^(?:def|class) (\w+)", re.MULTILINE)
FOLDER = "exercises"  # beside the lessons
SUCCESS = "✓"


def write_student_copy(lesson: Lesson) -> Path:
    """Write ``exercises/<lesson>.ipynb`` beside a lesson; the file is touched only if it changes.

    Returns:
        The copy.

    Raises:
        LessonError: as :func:`student_copy`.
    """
    path = lesson.path.parent / FOLDER / lesson.path.name
    text = nbformat.writes(student_copy(lesson)) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def student_copy(lesson: Lesson) -> nbformat.NotebookNode:
    """A lesson to work on: stubs that raise for solutions, expected outputs in words, nothing executed yet.

    The same lesson always gives the same copy, byte by byte.

    Args:
        lesson: with its outputs, from which the expected ones are taken.

    Raises:
        LessonError: if an exercise holds no solution between its two marks, or no check that passes follows it.
    """
    student = copy.deepcopy(lesson.notebook)
    student.cells = []
    awaiting = None  # name of the exercise whose check is still to come
    for cell in copy.deepcopy(lesson.notebook.cells):
        expected = _success(cell)
        if "exercise" in tags_of(cell):
            if awaiting:
                raise LessonError(f"{lesson.name}: no check that prints {SUCCESS} follows the exercise {awaiting!r}")
            cell.source, awaiting = _stub(lesson, cell.source)
        elif awaiting and expected:
            student.cells.append(_expected_output(cell, expected))
            awaiting = None
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        student.cells.append(cell)
    if awaiting:
        raise LessonError(f"{lesson.name}: no check that prints {SUCCESS} follows the exercise {awaiting!r}")
    student.cells.insert(1, _instructions(lesson))
    return student


def _stub(lesson: Lesson, source: str) -> tuple[str, str]:
    """The exercise without its solution, and the name of what is to be written."""
    names, solutions = NAME.findall(source), SOLUTION.findall(source)
    if not names or not solutions:
        raise LessonError(
            f"{lesson.name}: an exercise defines something and holds its solution between the lines {BEGIN!r} and {END!r}, "
            f"got:\n{source}"
        )
    message = f"Exercise: write {names[0]} here, then run this cell and the check below."

    def replaced(match: re.Match) -> str:
        return f"{match['indent']}# your code here\n{match['indent']}raise NotImplementedError({message!r})"

    return SOLUTION.sub(replaced, source), names[0]


def _success(cell: nbformat.NotebookNode) -> str:
    """What a check that passes printed; empty for every other cell."""
    printed = "".join(output.get("text", "") for output in cell.get("outputs", ()) if output.get("name") == "stdout")
    return printed.strip() if printed.startswith(SUCCESS) else ""


def _expected_output(check: nbformat.NotebookNode, text: str) -> nbformat.NotebookNode:
    lines = "\n".join(f"> {line}" for line in text.splitlines())
    return nbformat.v4.new_markdown_cell(f"**Expected output** of the check below:\n\n{lines}", id=f"{check.id}-expected")


def _instructions(lesson: Lesson) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(
        "> **Your copy.** Run the cells from top to bottom. Where a cell says *your code here*, replace that line and the next\n"
        "> by your answer; until you do, the cells that need it stop with a reminder. A check says ✓, or what went wrong.\n>\n"
        f"> The solutions are in the lesson `notebooks/{lesson.path.name}`, from which this file is generated: the command\n"
        "> `python -m melanoma_lib notebooks exercises` overwrites it, so keep your work under another name.",
        id="your-copy",
    )
