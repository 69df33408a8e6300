import ast
import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from melanoma_lib.__main__ import main
from melanoma_lib.classroom.checks import NotYet
from melanoma_lib.classroom.exercises import BEGIN, END, FOLDER, student_copy, write_student_copy
from melanoma_lib.classroom.lesson import Lesson, find_lessons, tags_of
from melanoma_lib.data import SyntheticDermoscopy
from melanoma_lib.errors import LessonError

LESSONS = find_lessons(folder=Path(__file__).parents[2] / "notebooks")
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
SOLVED = f'def double(n):\n    """Twice n."""\n    {BEGIN}\n    result = n + n\n    return result\n    {END}'
HUNT = "Find them.\n\n<details><summary>The three faults</summary>\n\nThe result is thrice.\n\n</details>\n\n### Next"


def made_up(folder, source=SOLVED, call="checks.twice(double)"):
    outputs = [new_output("stream", name="stdout", text="✓ twice as much\n")]
    cells = [
        new_markdown_cell("# 07", id="title"),
        new_code_cell(source, metadata={"tags": ["exercise"]}, id="exercise"),
        new_markdown_cell("<details><summary>Hint</summary>\nadd\n</details>", id="hint"),
        new_code_cell(call, outputs=outputs, execution_count=3, id="check"),
        new_code_cell("assert double(1) == 2", metadata={"tags": ["remove-cell"]}, id="tested"),
        new_markdown_cell(HUNT, id="hunt"),
    ]
    nbformat.write(new_notebook(cells=cells), folder / "07_made_up.ipynb")
    return Lesson(folder / "07_made_up.ipynb")


@each_lesson
def test_the_committed_copy_is_what_the_lesson_generates_and_gives_nothing_away(lesson):
    student = student_copy(lesson)
    nbformat.validate(student)
    committed = lesson.path.parent / FOLDER / lesson.path.name
    assert committed.read_text(encoding="utf-8") == nbformat.writes(student) + "\n"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in student.cells)
    text = "\n".join(cell.source for cell in student.cells)
    assert "✓ " not in text.replace("says ✓,", "")
    assert BEGIN not in text
    assert not re.search(r"<summary>[^<]*\bfaults\b", text)


@each_lesson
def test_each_solution_passes_its_check_and_stubs_and_colleagues_are_told_what_is_missing(lesson, capsys):
    stubs = {cell.id: cell.source for cell in student_copy(lesson).cells if "exercise" in tags_of(cell)}
    text = "\n".join(cell.source for cell in lesson.notebook.cells)
    space = {"cases": SyntheticDermoscopy(n_patients=100, seed=2).cases}
    exec(next(cell.source for cell in lesson.notebook.cells if cell.cell_type == "code"), space)
    for cell in lesson.cells("exercise"):
        name = ast.parse(cell.source).body[0].name
        call = re.search(rf"^checks\.\w+\({name}\b.*$", text, re.MULTILINE)[0]
        exec(stubs[cell.id].replace(call, ""), space)  # a check may be the last line of its exercise
        with pytest.raises(NotYet, match="nothing is written"):
            exec(call, space)
        exec(cell.source.replace(call, ""), space)
        exec(call, space)
        assert capsys.readouterr().out.startswith("✓"), call
        for colleagues in re.findall(rf"```python\n(def {name}\(.*?)```", text, re.DOTALL):
            exec(colleagues, space)
            with pytest.raises(NotYet, match=r"\(and [1-3] more\)"):
                exec(call, space)


def test_solutions_and_faults_go_and_everything_else_stays(tmp_path):
    lesson = made_up(tmp_path, f"{SOLVED}\n\n\n{SOLVED.replace('double', 'again')}")
    before = copy.deepcopy(lesson.notebook)
    cells = {cell.id: cell.source for cell in student_copy(lesson).cells}
    assert list(cells) == ["title", "your-copy", "exercise", "hint", "check", "hunt"]
    stub = 'def double(n):\n    """Twice n."""\n    # your code here\n    raise NotImplementedError('
    assert cells["exercise"].startswith(stub)
    assert cells["exercise"].count("raise NotImplementedError") == 2
    assert "result" not in cells["exercise"]
    assert "add" in cells["hint"]
    assert cells["hunt"] == "Find them.\n\n### Next"
    assert lesson.notebook == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source": SOLVED.replace(END, "")}, "between the lines '# solution' and '# end of solution'"),
        ({"source": "x = 1"}, "an exercise defines something"),
    ],
)
def test_a_lesson_that_cannot_become_a_copy_is_an_error(tmp_path, changed, message):
    with pytest.raises(LessonError, match=message):
        write_student_copy(made_up(tmp_path, **changed))
    assert not (tmp_path / FOLDER).exists()


def test_the_command_writes_a_copy_and_leaves_it_alone_until_the_lesson_changes(monkeypatch, tmp_path):
    monkeypatch.setattr("melanoma_lib.classroom.lesson.project_dir", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    made_up(tmp_path / "notebooks")
    path, stamps = tmp_path / "notebooks" / FOLDER / "07_made_up.ipynb", []
    for _ in range(2):
        assert main(["notebooks", "exercises", "07"]) == 0
        stamps.append(path.stat().st_mtime_ns)
    assert stamps[0] == stamps[1]
    path.write_text("spoilt", encoding="utf-8")
    assert main(["notebooks", "exercises", "07"]) == 0
    assert "your code here" in path.read_text(encoding="utf-8")
