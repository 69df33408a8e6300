"""Student copies of the lessons: solutions, lists of faults and cells that only test cut out, nothing executed yet."""

import re
import shutil
from pathlib import Path

import nbformat

from melanoma_lib.classroom.lesson import Lesson, tags_of, without_tests
from melanoma_lib.errors import LessonError
from melanoma_lib.utils import write_text

BEGIN, END = "# solution", "# end of solution"
SOLUTION = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}\n.*?^(?P=indent){END}$", re.MULTILINE | re.DOTALL)
FAULTS = re.compile(r"<details>\s*<summary>[^<]*\bfaults\b[^<]*</summary>.*?</details>\s*", re.DOTALL)  # of a bug hunt
NAME = re.compile(r"^(?:def|class) (\w+)", re.MULTILINE)
FOLDER, GLOSSARY = "exercises", "GLOSSARY.md"  # beside the lessons


def write_student_copy(lesson: Lesson) -> Path:
    """Write :func:`student_copy` into the folder ``exercises`` beside a lesson, where it changes, and the glossary."""
    path = lesson.path.parent / FOLDER / lesson.path.name
    text = nbformat.writes(student_copy(lesson)) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    if (glossary := lesson.path.parent / GLOSSARY).is_file():  # JupyterLab opens no link that leaves its folder
        shutil.copyfile(glossary, path.with_name(GLOSSARY))
    return path


def student_copy(lesson: Lesson) -> nbformat.NotebookNode:
    """A lesson to work on; a LessonError if an exercise holds no solution between its two marks."""
    student = without_tests(lesson.notebook)
    for cell in student.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = FAULTS.sub("", cell.source).rstrip()
        if "exercise" in tags_of(cell):
            names = NAME.findall(cell.source)
            if not names or not SOLUTION.search(cell.source):
                marks = f"an exercise defines something, its solution between the lines {BEGIN!r} and {END!r}"
                raise LessonError(f"{lesson.name}: expected {marks}, got:\n{cell.source}")
            message = f"Exercise: write {names[0]} here, then run this cell and the check below."
            stub = rf"\g<indent># your code here\n\g<indent>raise NotImplementedError({message!r})"
            cell.source = SOLUTION.sub(stub, cell.source)
    student.cells = [cell for cell in student.cells if cell.source]
    student.cells.insert(1, _instructions(lesson))
    return student


def _instructions(lesson: Lesson) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(
        "> **Your copy.** Run the cells from top to bottom. Where a cell says *your code here*, replace that line and the next\n"
        "> by your answer; until you do, the cells that need it stop with a reminder. A check says ✓, or what went wrong.\n>\n"
        f"> The solutions are in the lesson `notebooks/{lesson.path.name}`, from which this file is generated: the command\n"
        "> `python -m melanoma_lib notebooks exercises` overwrites it, so keep your work under another name.",
        id="your-copy",
    )
