"""Handouts: an executed lesson as one HTML file whose explorers move without a kernel or network, and as a PDF to print."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from melanoma_lib.classroom.lesson import Lesson
from melanoma_lib.classroom.papermill import PRINT_STYLE, WIDGET_STATE, WIDGET_VIEW, as_html, run_lesson
from melanoma_lib.errors import LessonError
from melanoma_lib.utils import replacing, write_text
from melanoma_lib.widgets.base import embedded

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PATIENCE = 300  # seconds
# Nothing may be fetched, on paper an explorer is its picture, and the page keeps the lessons' width on a wide screen.
HANDOUT_HEAD = """<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; font-src data:">
<style>
.still { display: none; }
@media print { .live { display: none; } .still { display: block; } @page { size: A4; margin: 14mm 12mm; } }
</style>
"""


def write_handout(
    lesson: Lesson, out: Path, parameters: Mapping[str, Any], show_progress: bool = True
) -> tuple[Path, Path | None, int]:
    """Execute a lesson and write its handout.

    Returns:
        The page, complete in itself; the same as PDF, None where no browser was there to print it; explorers that move.

    Raises:
        LessonError: if a parameter does not fit or the lesson does not run; an older handout is then left as it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_lesson(lesson, Path(folder), lesson.with_defaults(parameters), show_progress)
        if not outcome.ok:
            raise LessonError(f"{lesson.name} does not run, so there is nothing to hand out: {outcome.status}")
        executed = nbformat.read(outcome.notebook, as_version=4)
    page = out / f"{lesson.name}.html"
    text, n_live = handout_page(executed, lesson.name)
    write_text(page, text)
    browser = find_browser()
    return page, print_page(page, page.with_suffix(".pdf"), browser) if browser else None, n_live


def handout_page(executed: nbformat.NotebookNode, title: str) -> tuple[str, int]:
    """The page of an executed lesson, and how many explorers move in it.

    An explorer whose answers are computed in Python stays the labelled picture that it brings along.
    """
    states = executed.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    styles: dict[str, None] = {}  # of the explorers, each once, in order
    fragments: list[str] = []

    def live(output: nbformat.NotebookNode) -> str:
        model = states.get(output.data.get(WIDGET_VIEW, {}).get("model_id"), {"state": {}})
        script, alone = model["state"].get("_esm"), model["state"].get("alone")
        if script is None or alone is None:
            return ""
        styles[model["state"]["_css"]] = None
        fragments.append(embedded(script, _values(model) | alone, f"explorer-{len(fragments) + 1}"))
        return fragments[-1]

    page = as_html(executed, title, live, HANDOUT_HEAD + PRINT_STYLE)
    return page.replace("</head>", f"<style>\n{''.join(styles)}\n</style>\n</head>", 1), len(fragments)


def _values(model: Mapping[str, Any]) -> dict[str, Any]:
    """What the explorer's script reads, from its saved state; bytes are base64 already."""
    values = {name: value for name, value in model["state"].items() if not name.startswith("_")}
    for buffer in model.get("buffers", ()):
        place = values
        *parents, last = buffer["path"]
        for step in parents:
            place = place[step]
        place[last] = {"bytes": buffer["data"]}
    return values


def find_browser() -> str | None:
    """A Chromium or its kin on the path, to print with."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def print_page(page: Path, pdf: Path, browser: str) -> Path:
    """Print an HTML file to PDF; a LessonError with the browser's last words if it fails."""
    # Run as root, as in a container, a browser refuses its sandbox; the page is the kit's own and may fetch nothing.
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    with tempfile.TemporaryDirectory() as profile, replacing(pdf) as temporary:
        command = [browser, *options, f"--user-data-dir={profile}", f"--print-to-pdf={temporary}", page.resolve().as_uri()]
        said = run_program(command, f"{browser} could not print {page}")
        if not temporary.is_file() or not temporary.stat().st_size:
            raise LessonError(f"{browser} could not print {page}: {said}")
    return pdf


def run_program(command: Sequence[str], failure: str, environment: Mapping[str, str] | None = None) -> str:
    """The last words of a program; a LessonError that begins with ``failure`` if it fails or takes for ever."""
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "env": environment}
    try:
        done = subprocess.run(command, timeout=PATIENCE, **options)
    except subprocess.TimeoutExpired as error:
        raise LessonError(f"{failure} within {PATIENCE} s") from error
    said = (done.stderr or done.stdout).strip()[-600:]
    if done.returncode:
        raise LessonError(f"{failure}: {said}")
    return said
