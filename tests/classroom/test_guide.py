"""The instructor's guide against the lessons: what it quotes stands there, its commands are taken, its links lead somewhere.

In the guide a text `in this type` is a cell's code or what a committed lesson shows, words in “ ” stand in the lesson, both in
one that is named in the same row or step, such as ``04 §8``; other digits are times and names of lessons, sections and exercises.
"""

import html
import re
import shlex
from pathlib import Path

import pytest

from melanoma_lib.classroom.lesson import find_lessons
from tests.command_line import parsed

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "notebooks" / "INSTRUCTOR.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
REFERENCE = re.compile(r"\b(0\d) (?:§\d+|Exercise \d+|intro)")
CODE, QUOTE = re.compile(r"`([^`]+)`"), re.compile(r"“([^”]+)”")
MADE_LATER = ("reports/class", "reports/handouts", "04_threshold_tuning.html")  # by the commands of the guide
COMMAND = re.compile(r"(?:(?:\.venv/bin/)?python -m melanoma_lib )?((?:notebooks|data|doctor)\b.*)")
NAMES = r"\b0\d\b|§\d+|ISIC \d{4}|Exercise \d+|\b\d+–\d+\b|\b\d+ minutes|^ *\d+\. |^\| (?:§|Exercise|total).*\|$"


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
            parts += [
                output.get("text", ""),
                *(value for kind, value in output.get("data", {}).items() if kind.startswith("text/")),
            ]
    return " ".join(map(plain, parts))


SAID = {lesson.name[:2]: said(lesson) for lesson in find_lessons(folder=ROOT / "notebooks")}


def parts_of_guide():
    """Steps of plans, rows, list items and paragraphs, each with the lessons that it or its step's heading names."""
    step = []
    for block in re.split(r"\n(?=\n|[|#]| *- | *\d+\. )", FENCED.sub("", GUIDE)):
        references = REFERENCE.findall(block)
        step = references if block.strip().startswith("#") else step
        if block.strip():
            yield block.strip(), references + ([] if block.strip().startswith("|") else step)


def is_command(words):
    if target := re.fullmatch(r"make (\w+)", words):
        return re.search(rf"^{target[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    if command := COMMAND.fullmatch(words):
        parsed(shlex.split(command[1]))  # exits where the kit would not take it
    return bool(command)


def is_path(words):
    return words.rstrip("/") in MADE_LATER or ("/" in words and (ROOT / words).exists())


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


def test_the_commands_are_taken_and_links_lead_somewhere():
    lines = [line.strip() for language, text in FENCED.findall(GUIDE) if not language for line in text.splitlines()]
    others = ("git clone", "cp -r notebooks/exercises", ".venv/bin/jupyter lab")
    assert lines and [line for line in lines if not (is_command(line) or line.startswith(others))] == []
    titles = re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(([^)]+)\)", GUIDE)
    assert [link for link in links if link not in anchors and not (ROOT / "notebooks" / link).exists()] == []
