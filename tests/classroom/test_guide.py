"""The instructor's guide against the lessons: titles, times, commands, quotations, numbers, and its class run as written.

In the guide a text `in this type` is a cell's code or what a committed lesson shows, words in “ ” stand in the lesson, both in a
section named in the same row or step, such as ``04 §8``; other digits are times and names of lessons, sections and exercises.
"""

import html
import itertools
import re
import shlex
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest

from melanoma_lib.classroom.exercises import BEGIN, student_copy
from melanoma_lib.classroom.lesson import find_lessons, tags_of
from melanoma_lib.classroom.papermill import summary
from tests.command_line import parsed

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "notebooks" / "INSTRUCTOR.md").read_text(encoding="utf-8")
LESSONS = {lesson.name[:2]: lesson for lesson in find_lessons(folder=ROOT / "notebooks")}
each_lesson = pytest.mark.parametrize("number", LESSONS)

FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"(#{2,3}) (?:(\d+) · (.*)|Exercise (\d+) · (.*)|(.*))")
REFERENCE = re.compile(r"\b(0\d) (§\d+|Exercise \d+|intro)")
CODE, QUOTE = re.compile(r"`([^`]+)`"), re.compile(r"“([^”]+)”")
MADE_LATER = ("reports/class", "reports/handouts", "04_threshold_tuning.html")  # by the commands of the guide
COMMAND = re.compile(r"(?:(?:\.venv/bin/)?python -m melanoma_lib )?((?:notebooks|data|doctor)\b.*)")


def plain(text):
    """Words as a reader sees them: no markup, blanks as one."""
    text = re.sub(r"</?[a-z][^>]*>", "", text)
    return " ".join(html.unescape(re.sub(r"[*`]", "", text)).split())


def shown(cell):
    """What a code cell says: its source, what it printed, its tables and the descriptions of its figures."""
    parts = [cell.source]
    for output in cell.outputs:
        parts.append(output.get("text", ""))
        parts += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return " ".join(plain(re.sub(r"<style.*?</style>", "", part, flags=re.DOTALL).replace("</t", " </t")) for part in parts)


def sections(notebook):
    """Title, text and code cells by ``§n``, ``Exercise n`` and ``intro``; an exercise also belongs to the section it is in."""
    found = defaultdict(lambda: {"title": "", "text": "", "cells": []})
    section = part = "intro"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for key in {section, part}:
                found[key]["text"] += " " + shown(cell)
                found[key]["cells"].append(cell)
            continue
        for line in cell.source.splitlines():
            if heading := HEADING.fullmatch(line):
                depth, number, title, exercise, task, other = heading.groups()
                part = f"§{number}" if number else f"Exercise {exercise}" if exercise else "" if depth == "##" else section
                section = part if depth == "##" else section
                found[part]["title"] = title or task or found[part]["title"] or other
            for key in {section, part}:
                found[key]["text"] += " " + line
    for each in found.values():
        each["text"] = plain(each["text"])
    return found


SECTIONS = {number: sections(lesson.notebook) for number, lesson in LESSONS.items()}


def parts_of_guide():
    """Steps of plans, rows, list items and paragraphs, each with the sections that it or its step's heading names."""
    step, text = [], FENCED.sub("", GUIDE)
    for block in re.split(r"\n(?=\n|[|#]| *- | *\d+\. )", text):
        references = REFERENCE.findall(block)
        if block.strip().startswith("#"):
            step = references
        if block.strip():
            yield block.strip(), references + ([] if block.strip().startswith("|") else step)


def is_command(words):
    if target := re.fullmatch(r"make (\w+)", words):
        assert re.search(rf"^{target[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), words
        return True
    if command := COMMAND.fullmatch(words):
        parsed(shlex.split(command[1]))  # exits where the kit would not take it
        return True
    return False


def is_path(words):
    return words.rstrip("/") in MADE_LATER or ("/" in words and (ROOT / words).exists())


@pytest.mark.parametrize(("block", "references"), [part for part in parts_of_guide() if part[1]])
def test_what_a_step_or_row_quotes_stands_in_the_sections_it_names(block, references):
    unknown = [f"{number} {key}" for number, key in references if key not in SECTIONS.get(number, ())]
    assert unknown == []
    said = " ".join(SECTIONS[number][key]["text"] for number, key in references)
    quoted = [*QUOTE.findall(block), *(words for words in CODE.findall(block) if not (is_command(words) or is_path(words)))]
    assert [words for words in quoted if not re.search(rf"(?<![\d.,]){re.escape(plain(words))}(?!\d)", said)] == []


def test_every_number_is_quoted_or_a_time_or_a_name():
    allowed = re.compile(
        r"\b0\d\b|§\d+|ISIC \d{4}|Exercise \d+|\b\d+–\d+\b|\b\d+ minutes|^ *\d+\. |^\| (?:§|Exercise|total).*\|$", re.MULTILINE
    )
    left = []
    for block, references in parts_of_guide():
        rest = QUOTE.sub("", CODE.sub("", block)) if references else re.sub(r"`[^`\d]*`", "", block)
        rest = CODE.sub(lambda found: "" if is_command(found[1]) or is_path(found[1]) else found[0], rest)
        left += [block for _ in re.findall(r"\d", allowed.sub("", rest))]
    assert left == []


def test_titles_are_those_of_the_lessons():
    named = re.findall(r"(0\d) (§\d+) \*([^*]+)\*", GUIDE)
    assert len(named) > 30
    wrong = [(number, key, title) for number, key, title in named if SECTIONS[number].get(key, {}).get("title") != title]
    assert wrong == []
    assert not re.search(r"^#### \d.*§\d+\b(?! \*)", GUIDE, flags=re.MULTILINE), "a step names a section without its title"


@each_lesson
def test_the_timing_names_every_section_and_adds_up_to_what_the_lesson_promises(number):
    table = re.search(rf"^#### {number}\n\n\| section \| alone \| in class \|\n\|[-|]+\n((?:\|.*\n)+)", GUIDE, flags=re.MULTILINE)
    assert table, f"the guide has no timing of lesson {number}"
    *rows, total = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]
    lesson = SECTIONS[number]
    wanted = [f"{key} {each['title']}" for key, each in lesson.items() if key.startswith("§")]
    assert [name for name, *_ in rows] == wanted
    assert [int(minutes) for minutes in total[1:]] == [sum(int(row[column]) for row in rows) for column in (1, 2)]
    promised = re.findall(r"(\d+) (?:minutes|more for the exercises)", plain(LESSONS[number].notebook.cells[0].source))
    assert int(total[1]) == sum(map(int, promised))
    assert all(int(alone) <= int(in_class) for _, alone, in_class in rows)


def test_the_minutes_of_each_plan_follow_on_and_fill_its_time():
    plans = re.findall(r"^## Plan: .*?(\d+) minutes.*?\n(.*?)(?=^## )", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert [int(minutes) for minutes, _ in plans] == [50, 90, 240]
    for minutes, text in plans:
        times = [(int(start), int(end)) for start, end in re.findall(r"^#### (\d+)–(\d+) · ", text, flags=re.MULTILINE)]
        assert times[0][0] == 0 and times[-1][1] == int(minutes)
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(times))
        assert all(start < end for start, end in times)


@each_lesson
def test_every_prediction_and_question_of_a_lesson_has_an_answer_in_its_order(number):
    asked = []
    section = "intro"
    for cell in LESSONS[number].notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if heading := HEADING.fullmatch(line):
                depth, numeral, _, exercise, *_ = heading.groups()
                section = section if depth == "###" else f"§{numeral}" if numeral else f"Exercise {exercise}"
            asked += [section] * len(re.findall(r"\*\*(?:Predict|Think)\b", line))
    discussion = GUIDE.split("\n## Discussion\n")[1].split("\n## ")[0]
    answered = re.findall(
        rf"^\| {number} (§\d+|Exercise \d+) \| “[^”]+”[^|]* \| [^|]+ \| [^|]+ \|$", discussion, flags=re.MULTILINE
    )
    assert answered == asked


def test_every_exercise_can_be_marked():
    wanted = [f"{number} {key}" for number, lesson in SECTIONS.items() for key in lesson if key.startswith("Exercise")]
    marking = GUIDE.split("\n## Marking the exercises\n")[1].split("\n### ")[0]
    assert re.findall(r"^\| (0\d Exercise \d+) \|", marking, flags=re.MULTILINE) == wanted


def test_the_commands_are_taken_and_print_what_the_guide_says():
    fenced = FENCED.findall(GUIDE)
    lines = [line.strip() for language, text in fenced if not language for line in text.splitlines()]
    assert [
        line
        for line in lines
        if not (is_command(line) or line.startswith(("git clone", "cp -r notebooks/exercises", ".venv/bin/jupyter lab")))
    ] == []
    (printed,) = [[line.strip() for line in text.splitlines()] for language, text in fenced if language == "text"]
    assert printed[:2] == summary([]).splitlines()
    assert len(printed) == 2 + len(LESSONS)
    for line in printed[2:]:
        name, digests = re.fullmatch(r"\| (\w+) \| … \| (\d+ of \d+) as committed \| ok \|", line).groups()
        n = len(LESSONS[name[:2]].cells("digest"))
        assert (name, digests) == (LESSONS[name[:2]].name, f"{n} of {n}")


def test_links_lead_somewhere():
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", GUIDE)
    assert [link for link in links if link.startswith("#") and link[1:] not in anchors] == []
    assert [link for link in links if not link.startswith("#") and not (ROOT / "notebooks" / link).exists()] == []


# --- the class of 90 minutes -----------------------------------------------------------------------------------------------


def class_cells(number):
    """Cells of a student copy that the guide has run in the class of 90 minutes: the opening ones, then those of the plan."""
    student, lesson = student_copy(LESSONS[number]), LESSONS[number].notebook
    by_section, code = sections(student), [cell for cell in student.cells if cell.cell_type == "code"]
    chosen, dictated = code[:3], []
    opening = re.search(rf"^\| ({number} .*)$", GUIDE.split("| run these cells")[1], flags=re.MULTILINE)[1]
    plan = re.search(r"^## Plan: 90 minutes.*?\n(.*?)^\*\*Late", GUIDE, flags=re.MULTILINE | re.DOTALL)[1]
    for step in [opening, *plan.split("\n#### ")[1:]]:
        keys = [key for lesson_number, key in REFERENCE.findall(step) if lesson_number == number]
        cells = {cell.id: cell for key in keys for cell in by_section[key]["cells"]}
        solutions = [cell.source for cell in lesson.cells if cell.id in cells and BEGIN in cell.source]
        done = step if step == opening else "\n".join(re.findall(r"^- (?:Show|Ask).*", step, flags=re.MULTILINE))
        for words in CODE.findall(done):
            if fitting := [cell for cell in cells.values() if words in cell.source]:
                assert len(fitting) == 1, f"{number}: {words!r} is in {len(fitting)} cells of {keys}"
                chosen += fitting if fitting[0] not in chosen else []
            elif any(words in solution for solution in solutions):
                dictated.append(words)
    for cell in chosen:
        if "exercise" in tags_of(cell):
            cell.source = re.sub(
                r"^( *)# your code here\n.*$",
                lambda found: "\n".join(found[1] + line for line in dictated),
                cell.source,
                flags=re.MULTILINE,
            )
    return chosen


def test_the_plan_names_cells_of_all_three_lessons():
    assert {number: len(class_cells(number)) > 5 for number in ("00", "01", "04")} == {"00": True, "01": True, "04": True}
    assert "NotImplementedError" not in "".join(cell.source for number in ("00", "01", "04") for cell in class_cells(number))


@pytest.mark.xdist_group("lessons")  # they share runs
@pytest.mark.parametrize("number", ["00", "01", "04"])
def test_the_class_of_90_minutes_runs_cell_by_cell_as_written(number, lesson_folders, monkeypatch):
    from nbclient import NotebookClient

    from melanoma_lib.classroom.kernels import AsyncOwnSocketsManager

    for name, folder in lesson_folders.items():
        monkeypatch.setenv(f"MELANOMA_{name.upper()}", str(folder))
    notebook = nbformat.v4.new_notebook(cells=class_cells(number))
    NotebookClient(
        notebook,
        timeout=1500,
        kernel_name="python3",
        kernel_manager_class=AsyncOwnSocketsManager,
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    ).execute()
    assert all(cell.execution_count for cell in notebook.cells)
