"""The instructor's guide and the glossary against the lessons: plans add up, what they name exists, links lead somewhere.

In the guide a text `in this type` is a cell's code or what a committed lesson shows, words in “ ” stand in the lesson, both in
the lesson of the plan or in one that is named in the same row, such as ``04 §8``; other digits are minutes, points and names.
"""

import ast
import html
import re
import shlex
from pathlib import Path

import pytest

from melanoma_lib.classroom.lesson import find_lessons, tags_of
from tests.command_line import parsed

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
GUIDE, GLOSSARY = ((NOTEBOOKS / name).read_text(encoding="utf-8") for name in ("INSTRUCTOR.md", "GLOSSARY.md"))
MAX_WORDS, EXERCISE_MINUTES, TERMS = 5_000, 8, 40  # the lessons' own measure of an exercise
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
REFERENCE = re.compile(r"\b(0\d) (§\d+|Exercise \d+|intro|opening)")
CODE, QUOTE = re.compile(r"`([^`]+)`"), re.compile(r"“([^”]+)”")
MADE_LATER = ("reports/class", "reports/handouts", "reports/slides")  # by the commands of the guide
COMMAND = re.compile(r"(?:(?:\.venv/bin/)?python -m melanoma_lib )?((?:notebooks|data|doctor)\b.*)")
NAMES = (
    r"\b0\d\b|§\d+|Exercise \d|ISIC \d{4}|\b(?:50|90)\b|\d+ minutes|fill in [\d, ]+|Home: [\d, ]+|(?<=\|)\d+(?=\|)"
    r"|\[[^]]+ \d{4}\]\(https://doi\.org/\S+\)|^ *\d+\. "
)
PARTS = dict(re.findall(r"^##+ (0\d|[^\n]+)[^\n]*\n(.*?)(?=^##|\Z)", GUIDE, re.MULTILINE | re.DOTALL))
LESSONS = {lesson.name[:2]: lesson for lesson in find_lessons(folder=NOTEBOOKS)}
each_lesson = pytest.mark.parametrize("number", LESSONS)


def plain(text):
    """Words as a reader sees them: no markup, blanks as one."""
    text = re.sub(r"</?[a-z][^>]*>", "", re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL).replace("</t", " </t"))
    return " ".join(html.unescape(re.sub(r"[*`]", "", text)).split())


def said(lesson):
    """Text and code of a lesson, what it printed, its tables and the descriptions of its figures."""
    parts = []
    for cell in lesson.notebook.cells:
        parts.append(cell.source)
        for output in cell.get("outputs", ()):
            shown = (value for kind, value in output.get("data", {}).items() if kind.startswith("text/"))
            parts += [output.get("text", ""), *shown]
    return " ".join(map(plain, parts))


SAID = {number: said(lesson) for number, lesson in LESSONS.items()}
PLACES = {  # what can be named in each lesson, in its order
    number: ["intro", "opening", *re.findall(r"^##+ (Exercise \d+|\d+) · ", text, re.MULTILINE)]
    for number, lesson in LESSONS.items()
    for text in ["\n".join(cell.source for cell in lesson.notebook.cells if cell.cell_type == "markdown")]
}


def parts_of_guide():
    """Rows, list items and paragraphs, each with the lessons that its plan or the part itself names."""
    plan = []
    for block in re.split(r"\n(?=\n|[|#]| *- | *\d+\. )", FENCED.sub("", GUIDE)):
        if heading := re.match(r"\n*(##+) (0\d)?", block):
            plan = [heading[2]] if heading[2] else []
        if block.strip():
            yield block.strip(), [number for number, _ in REFERENCE.findall(block)] + plan


def is_command(words):
    if target := re.fullmatch(r"make (\w+)", words):
        return re.search(rf"^{target[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    if command := COMMAND.fullmatch(words):
        parsed(shlex.split(command[1]))  # exits where the kit would not take it
    return bool(command)


def is_path(words):
    return words.rstrip("/") in MADE_LATER or ("/" in words and (ROOT / words).exists())


def rows(text, columns):
    """Cells of a table's rows, without its head."""
    found = [[cell.strip() for cell in line.split("|")] for line in re.findall(r"^\|(.*)\|$", text, re.MULTILINE)]
    return [row for row in found if len(row) == columns][2:]


@each_lesson
def test_a_plan_adds_up_names_what_exists_and_leaves_no_stub_in_the_way(number):
    table = rows(PARTS[number], 4)
    steps = [row[0].removeprefix("§") for row in table]
    assert steps == [*(place for place in PLACES[number] if place in steps), "exit", "total"] and steps[0] == "opening"
    exercises = {int(place.split()[1]) for place in PLACES[number] if place.startswith("Exercise")}
    lists = re.search(r"^50: fill in ([\w, ]+)\. 90: fill in ([\w, ]+)\. Home: ([\w, ]+)", PARTS[number], re.MULTILINE)
    *filled, home = [set(map(int, re.findall(r"\d", named))) for named in lists.groups()]
    for column, (whole, ready) in enumerate(zip((50, 90), filled, strict=True), 1):
        *times, total = [(row[0], int(row[column])) for row in table if row[column] != "–"]
        assert sum(time for _, time in times) == total[1] == whole
        written = {int(where.split()[1]): time for where, time in times if where.startswith("Exercise")}
        assert all(time >= EXERCISE_MINUTES for time in written.values())
        assert sorted([*written, *ready, *home]) == sorted(exercises)
    assert all(n == max(exercises) or n not in needed(LESSONS[number]) for n in home)


def needed(lesson):
    """Numbers of the exercises whose answer a later cell calls."""
    names, found = {}, set()
    for cell in lesson.notebook.cells:
        if cell.cell_type == "code" and "remove-cell" not in tags_of(cell):
            source = re.sub(r"^.*\?$|^[%!].*$", "", cell.source, flags=re.MULTILINE)
            if "exercise" in tags_of(cell):
                names[re.search(r"^(?:def|class) (\w+)", source, re.MULTILINE)[1]] = len(names) + 1
            else:
                used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
                found |= {names[name] for name in used & set(names)}
    return found


def test_the_guide_is_short_and_its_other_plans_and_points_add_up():
    assert len(GUIDE.split()) <= MAX_WORDS
    for title in ("One class only, 50 minutes, no laptops", "Half-day workshop, 240 minutes"):
        assert sum(int(time) for time, _ in rows(PARTS[title], 2)) == int(re.search(r"\d+", title)[0])
    assert sum(int(row[1]) for row in rows(PARTS["Project and rubric"], 5)) == 100
    links = re.findall(r"doi\.org/(\S+)\)", PARTS["Semester: seven classes and a project"])
    papers = [link.replace("10.48550/arXiv.", "arXiv:") for link in links]
    assert len(papers) == len(LESSONS) + 1 and all(any(paper in text for text in SAID.values()) for paper in papers)
    assert {place for place in REFERENCE.findall(GUIDE) if place[1].removeprefix("§") not in PLACES[place[0]]} == set()
    marked = {(row[0][:2], row[0][3:]) for row in rows(PARTS["Marking the exercises"], 3)}
    assert marked == {(n, place) for n, places in PLACES.items() for place in places if place.startswith("Exercise")}


@pytest.mark.parametrize(("block", "references"), [part for part in parts_of_guide() if part[1]])
def test_what_a_step_or_row_quotes_stands_in_the_lessons_it_names(block, references):
    text = " ".join(SAID[number] for number in references)
    quoted = [*QUOTE.findall(block), *(words for words in CODE.findall(block) if not (is_command(words) or is_path(words)))]
    assert [words for words in quoted if not re.search(rf"(?<![\d.,]){re.escape(plain(words))}(?!\d)", text)] == []


def test_every_number_is_quoted_or_a_time_or_a_name():
    for block, references in parts_of_guide():
        rest = QUOTE.sub("", CODE.sub("", block)) if references else re.sub(r"`[^`\d]*`", "", block)
        rest = CODE.sub(lambda found: "" if is_command(found[1]) or is_path(found[1]) else found[0], rest)
        assert not re.search(r"\d", re.sub(NAMES, "", rest, flags=re.MULTILINE)), block


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("text", [GUIDE, GLOSSARY], ids=["guide", "glossary"])
def test_links_lead_somewhere(text):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")]
    assert links and [link for link in links if link not in anchors(text) and not (NOTEBOOKS / link).exists()] == []


def test_the_commands_are_taken():
    lines = [line.strip() for language, text in FENCED.findall(GUIDE) if not language for line in text.splitlines()]
    others = ("git clone", "cp -r notebooks/exercises", "cp notebooks/GLOSSARY.md", ".venv/bin/jupyter lab")
    assert lines and [line for line in lines if not (is_command(line) or line.startswith(others))] == []


def test_the_glossary_has_sourced_terms_of_two_sentences_and_every_lesson_links_it():
    entries = re.findall(r"^## (.+)\n\n(.+)\n\nSource: \[[^]]+\]\(https://\S+\)\. Lesson: (.+)\.$", GLOSSARY, re.MULTILINE)
    assert len(entries) == GLOSSARY.count("\n## ") >= TERMS
    assert [term for term, text, _ in entries if len(re.findall(r"[.!?](?= [A-Z]|$)", text)) != 2] == []
    terms = [term.lower() for term, _, _ in entries]
    assert terms == sorted(terms) and set(re.findall(r"\]\((#[^)]+)\)", GLOSSARY)) == anchors(GLOSSARY) - {"#glossary"}
    named = [place for _, _, places in entries for place in re.findall(r"(0\d) §(\d+)", places)]
    assert all(section in PLACES[number] for number, section in named)
    link = "[GLOSSARY.md](GLOSSARY.md)"
    for lesson in LESSONS.values():
        assert link in " ".join(cell.source for cell in lesson.notebook.cells if "## Key terms" in cell.source), lesson.name
    assert (NOTEBOOKS / "exercises" / "GLOSSARY.md").read_text(encoding="utf-8") == GLOSSARY  # where the copies' link leads
