import ast
import copy
import importlib
import re
from pathlib import Path

import nbformat
import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.classroom.checks import NotYet
from melanoma_lib.classroom.exercises import BEGIN, END, FOLDER, student_copy, write_student_copy
from melanoma_lib.classroom.lesson import Lesson, find_lessons, tags_of
from melanoma_lib.errors import LessonError

LESSONS = find_lessons(folder=Path(__file__).parents[2] / "notebooks")
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
SOLVED = f'''def double(n):
    """Twice n."""
    {BEGIN}
    result = n + n
    return result
    {END}'''


HEADING = re.compile(r"^### Exercise (\d+) · (.+)$", re.MULTILINE)


def exercises_of(lesson):
    """Heading, texts and code cells of each exercise, in order, up to the next exercise."""
    found = []
    for cell in lesson.notebook.cells:
        if cell.cell_type == "code":
            if found:
                found[-1][2].append(cell)
            continue
        parts = re.split(r"(?m)^(?=#)", cell.source)  # a cell may end one exercise and begin the next
        for part in parts:
            if heading := HEADING.match(part):
                found.append((heading, [part], []))
            elif found:
                found[-1][1].append(part)
    return found


def check_of(lesson, cells):
    """The function that an exercise's check cell calls, and how many arguments it gets beside the answer."""
    modules = {}
    for statement in ast.parse(lesson.notebook.cells[1].source).body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "melanoma_lib.classroom":
            modules |= {alias.asname or alias.name: f"{statement.module}.{alias.name}" for alias in statement.names}
    for cell in cells:
        for node in ast.walk(ast.parse(cell.source)):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id in modules:
                return getattr(importlib.import_module(modules[called.value.id]), called.attr), len(node.args) - 1
    raise AssertionError("no check follows the exercise")


def write_lesson(folder, *cells):
    path = folder / "07_made_up.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# 07", id="title"), *cells]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return Lesson(path)


def exercise(source=SOLVED, name="exercise"):
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["exercise"]}, id=name)


def check(printed="✓ twice as much\n"):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed)]
    return nbformat.v4.new_code_cell("check(double)", outputs=outputs, execution_count=3, id="check")


@each_lesson
def test_the_committed_copy_is_what_the_lesson_generates(lesson):
    copied = lesson.path.parent / FOLDER / lesson.path.name
    assert copied.read_text(encoding="utf-8") == nbformat.writes(student_copy(lesson)) + "\n"


@each_lesson
def test_every_stub_raises_and_says_what_to_write(lesson):
    student = student_copy(lesson)
    nbformat.validate(student)
    stubs = [cell.source for cell in student.cells if "exercise" in tags_of(cell)]
    assert len(stubs) == len(lesson.cells("exercise")) > 0
    assert BEGIN not in "".join(stubs)
    for stub in stubs:
        space = {}
        exec(stub, space)
        (name,) = set(space) - {"__builtins__"}
        with pytest.raises(NotImplementedError, match=f"write {name} here"):
            space[name](*[None] * space[name].__code__.co_argcount)


@each_lesson
def test_a_lesson_has_four_exercises_in_order_each_with_a_hint_and_one_is_a_bug_hunt(lesson):
    exercises = exercises_of(lesson)
    assert [int(heading[1]) for heading, *_ in exercises] == list(range(1, len(exercises) + 1))
    assert len(exercises) == len(lesson.cells("exercise")) >= 4
    for heading, texts, cells in exercises:
        assert sum("exercise" in tags_of(cell) for cell in cells) == 1, heading[0]
        assert any("<details><summary>Hint" in text for text in texts), heading[0]
    assert any("bug hunt" in heading[2].lower() for heading, *_ in exercises)


@each_lesson
def test_every_stub_fails_its_check(lesson):
    stubs = {cell.id: cell.source for cell in student_copy(lesson).cells if "exercise" in tags_of(cell)}
    for heading, _, cells in exercises_of(lesson):
        (stub,) = (cell for cell in cells if "exercise" in tags_of(cell))
        space = {}
        exec(stubs[stub.id], space)
        check, n_others = check_of(lesson, cells)
        with pytest.raises((NotImplementedError, NotYet)):
            check(space[ast.parse(stub.source).body[0].name], *[None] * n_others)
            pytest.fail(f"{heading[0]}: an empty answer passes")


@each_lesson
def test_a_copy_holds_no_output_and_shows_what_each_check_will_say(lesson):
    student = student_copy(lesson)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in student.cells)
    expected = [cell.source for cell in student.cells if cell.id.endswith("-expected")]
    assert len(expected) == len(lesson.cells("exercise"))
    assert all("✓" in text for text in expected)


def test_the_solution_goes_and_everything_else_stays(tmp_path):
    lesson = write_lesson(tmp_path, exercise(), nbformat.v4.new_markdown_cell("<details>hint</details>", id="hint"), check())
    before = copy.deepcopy(lesson.notebook)
    student = student_copy(lesson)
    assert [cell.id for cell in student.cells] == ["title", "your-copy", "exercise", "hint", "check-expected", "check"]
    stub = student.cells[2].source
    assert stub.startswith('def double(n):\n    """Twice n."""\n    # your code here\n    raise NotImplementedError(')
    assert "result" not in stub
    assert student.cells[4].source.endswith("> ✓ twice as much")
    assert lesson.notebook == before


def test_two_solutions_in_a_cell_leave_two_stubs(tmp_path):
    source = f"{SOLVED}\n\n\n{SOLVED.replace('double', 'again')}"
    student = student_copy(write_lesson(tmp_path, exercise(source), check()))
    assert student.cells[2].source.count("raise NotImplementedError") == 2


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([exercise(SOLVED.replace(END, "")), check()], "between the lines '# solution' and '# end of solution'"),
        ([exercise("x = 1"), check()], "an exercise defines something"),
        ([exercise()], "no check that prints ✓ follows the exercise 'double'"),
        ([exercise(), check("✗ not yet: thrice\n")], "no check that prints ✓"),
        ([exercise(), exercise(name="next"), check()], "no check that prints ✓"),
    ],
)
def test_a_lesson_that_cannot_become_a_copy_is_an_error(tmp_path, cells, message):
    lesson = write_lesson(tmp_path, *cells)
    with pytest.raises(LessonError, match=message):
        write_student_copy(lesson)
    assert not (tmp_path / FOLDER).exists()


def test_writing_again_leaves_the_file_alone(tmp_path):
    lesson = write_lesson(tmp_path, exercise(), check())
    path = write_student_copy(lesson)
    assert path == tmp_path / FOLDER / "07_made_up.ipynb"
    stamp = path.stat().st_mtime_ns
    write_student_copy(lesson)
    assert path.stat().st_mtime_ns == stamp
    path.write_text("spoilt", encoding="utf-8")
    write_student_copy(lesson)
    assert "your code here" in path.read_text(encoding="utf-8")


def test_the_command_writes_one_copy_a_lesson(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("melanoma_lib.classroom.lesson.notebooks_dir", lambda: tmp_path)
    write_lesson(tmp_path, exercise(), check())
    assert main(["notebooks", "exercises", "07"]) == 0
    assert (tmp_path / FOLDER / "07_made_up.ipynb").is_file()
    assert "07_made_up" in capsys.readouterr().out
