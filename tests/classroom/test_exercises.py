import ast
import copy
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
HUNT = "Find them.\n\n<details><summary>The three faults</summary>\n\nThe result is thrice.\n\n</details>\n\n### Next"


def write_lesson(folder, *cells):
    path = folder / "07_made_up.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# 07", id="title"), *cells]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return Lesson(path)


def exercise(source=SOLVED, name="exercise"):
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["exercise"]}, id=name)


def check(source="checks.twice(double)"):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text="✓ twice as much\n")]
    return nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=3, id="check")


def parts(lesson):
    """Imports of a lesson, and of each exercise its cell's source and the call of its check."""
    code = [cell for cell in lesson.notebook.cells if cell.cell_type == "code"]
    found = []
    for cell in code:
        if "exercise" in tags_of(cell):
            name = ast.parse(cell.source).body[0].name
            found.append((cell, re.search(rf"^checks\.\w+\({name}\b.*$", "\n".join(c.source for c in code), re.MULTILINE)[0]))
    return code[0].source, found


@each_lesson
def test_the_committed_copy_is_what_the_lesson_generates(lesson):
    copied = lesson.path.parent / FOLDER / lesson.path.name
    assert copied.read_text(encoding="utf-8") == nbformat.writes(student_copy(lesson)) + "\n"


@each_lesson
def test_each_solution_passes_its_check_and_each_stub_says_that_nothing_is_written(lesson, capsys):
    student = student_copy(lesson)
    nbformat.validate(student)
    stubs = {cell.id: cell.source for cell in student.cells if "exercise" in tags_of(cell)}
    imports, exercises = parts(lesson)
    assert len(exercises) == len(stubs) >= 3
    space = {}
    exec(imports, space)
    if "cases)" in "".join(call for _, call in exercises):
        space["cases"] = space["checks"].made_up_cases()
    for cell, call in exercises:
        exec(stubs[cell.id].replace(call, ""), space)  # a check may be the last line of its exercise
        with pytest.raises(NotYet, match="nothing is written"):
            exec(call, space)
        exec(cell.source.replace(call, ""), space)
        exec(call, space)
        assert capsys.readouterr().out.startswith("✓"), call


@each_lesson
def test_exercises_are_numbered_each_has_a_hint_and_one_is_a_bug_hunt(lesson):
    text = "\n".join(cell.source for cell in lesson.notebook.cells if cell.cell_type == "markdown")
    _, *tasks = re.split(r"(?m)^### Exercise (?=\d+ · )", text)
    assert [int(task.split()[0]) for task in tasks] == list(range(1, len(lesson.cells("exercise")) + 1))
    assert all("<details><summary>Hint" in task for task in tasks)
    assert any("bug hunt" in task.splitlines()[0].lower() for task in tasks)


@each_lesson
def test_a_copy_gives_nothing_away(lesson):
    cells = student_copy(lesson).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    text = "\n".join(cell.source for cell in cells)
    assert "✓ " not in text.replace("says ✓,", "")
    assert BEGIN not in text
    assert not re.search(r"<summary>[^<]*\bfaults\b", text)


def test_solution_and_faults_go_and_everything_else_stays(tmp_path):
    hint = nbformat.v4.new_markdown_cell("<details><summary>Hint</summary>\nadd\n</details>", id="hint")
    tested = nbformat.v4.new_code_cell("assert double(1) == 2", metadata={"tags": ["remove-cell"]}, id="tested")
    lesson = write_lesson(tmp_path, exercise(), hint, check(), tested, nbformat.v4.new_markdown_cell(HUNT, id="hunt"))
    before = copy.deepcopy(lesson.notebook)
    student = student_copy(lesson)
    assert [cell.id for cell in student.cells] == ["title", "your-copy", "exercise", "hint", "check", "hunt"]
    stub = student.cells[2].source
    assert stub.startswith('def double(n):\n    """Twice n."""\n    # your code here\n    raise NotImplementedError(')
    assert "result" not in stub
    assert student.cells[3].source == hint.source
    assert student.cells[5].source == "Find them.\n\n### Next"
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
        ([exercise()], "no check is called with the exercise 'double'"),
        ([exercise(), check("checks.twice(doubled)")], "no check is called"),
    ],
)
def test_a_lesson_that_cannot_become_a_copy_is_an_error(tmp_path, cells, message):
    lesson = write_lesson(tmp_path, *cells)
    with pytest.raises(LessonError, match=message):
        write_student_copy(lesson)
    assert not (tmp_path / FOLDER).exists()


def test_the_command_writes_a_copy_and_leaves_it_alone_until_the_lesson_changes(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("melanoma_lib.classroom.lesson.project_dir", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    write_lesson(tmp_path / "notebooks", exercise(), check())
    path = tmp_path / "notebooks" / FOLDER / "07_made_up.ipynb"
    assert main(["notebooks", "exercises", "07"]) == 0
    assert "07_made_up" in capsys.readouterr().out
    stamp = path.stat().st_mtime_ns
    assert main(["notebooks", "exercises", "07"]) == 0
    assert path.stat().st_mtime_ns == stamp
    path.write_text("spoilt", encoding="utf-8")
    assert main(["notebooks", "exercises", "07"]) == 0
    assert "your code here" in path.read_text(encoding="utf-8")
