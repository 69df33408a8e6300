"""Pages: an executed lesson as one HTML file whose explorers move without a kernel or network, and as a PDF to print."""

import html
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import nbformat

from melanoma_lib.classroom.lesson import without_tests
from melanoma_lib.errors import LessonError
from melanoma_lib.utils import project_dir, replacing, write_text
from melanoma_lib.widgets.base import embedded

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PATIENCE = 300  # seconds
# Nothing may be fetched, and lines stay short enough to read. On paper an explorer is its picture, and nothing scrolls.
HEAD = """<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; font-src data:">
<style>
main { max-width: 66rem; margin: 0 auto; }
.jp-RenderedMarkdown > div { max-width: 80ch; }
.jp-OutputArea-output, .highlight { overflow-x: auto; }
img { max-width: 100%; height: auto; }
.still { display: none; }
@media print {
  .live { display: none; } .still { display: block; } @page { size: A4; margin: 14mm 12mm; }
  .highlight pre, .jp-OutputArea-output pre { white-space: pre-wrap !important; overflow-wrap: anywhere; word-break: normal; }
  img, table, blockquote, .jp-CodeCell .jp-InputArea, .jp-RenderedMarkdown div { break-inside: avoid; }
  h1, h2, h3, .jp-CodeCell .jp-InputArea { break-after: avoid; }
}
</style>
"""


def handout_page(executed: nbformat.NotebookNode, title: str) -> str:
    """One self-contained page less cells that only test; an explorer moves, or stays a picture if it needs Python."""
    from nbconvert import HTMLExporter

    states = executed.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    notebook = without_tests(executed)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](GLOSSARY.md", "](GLOSSARY.html")  # beside the page; see write_index
    styles: list[str] = []  # of the explorers that move
    for output in pictures(notebook.cells):
        alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""), quote=True)  # which nbconvert leaves out
        shown = f'<img alt="{alt}" src="data:image/png;base64,{output.data["image/png"].strip()}">'
        model = states.get(output.data.get(WIDGET_VIEW, {}).get("model_id"), {"state": {}})
        script, alone = model["state"].get("_esm"), model["state"].get("alone")
        if script is not None and alone is not None:
            styles.append(model["state"]["_css"])
            explorer = embedded(script, _values(model) | alone, f"explorer-{len(styles)}")
            shown = f'<div class="live">{explorer}</div><div class="still">{shown}</div>'
        output.data["text/html"] = shown
    no_scripts = dict.fromkeys(("require_js_url", "mathjax_url", "jquery_url", "mermaid_js_url"), "")
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True, **no_scripts)
    body, _ = exporter.from_notebook_node(still(notebook), resources={"metadata": {"name": title}})
    return body.replace("</head>", f"{HEAD}<style>\n{''.join(dict.fromkeys(styles))}\n</style>\n</head>", 1)


def write_index(out: Path) -> Path:
    """``index.html`` of a folder of pages: each lesson with what is there of PDF, notebook and slides, and the glossary."""
    rows = []
    for page in sorted(out.glob("[0-9][0-9]_*.html")):
        title = re.search(r"<h1[^>]*>(.*?)<", page.read_text(encoding="utf-8"))
        files = {"PDF": page.with_suffix(".pdf"), "notebook": page.with_suffix(".ipynb")}
        files |= {"exercises": out / "exercises" / f"{page.stem}.ipynb", "slides": out / "slides" / f"{page.stem}.pdf"}
        links = [f"[{name}]({file.relative_to(out).as_posix()})" for name, file in files.items() if file.is_file()]
        rows.append(f"| [{title[1] if title else page.stem}]({page.name}) | {' · '.join(links)} |")
    text = "\n".join(["# Lessons", "", "> Educational, not for diagnosis.", "", "| lesson | files |", "|---|---|", *rows])
    if (glossary := project_dir() / "notebooks" / "GLOSSARY.md").is_file():
        write_text(out / "GLOSSARY.html", _text_page(glossary.read_text(encoding="utf-8"), "Glossary"))
    for title, file in (("Glossary", "GLOSSARY.html"), ("Slides of the overview", "slides/00_overview.pdf")):
        text += f"\n\n[{title}]({file})" if (out / file).is_file() else ""
    write_text(out / "index.html", _text_page(text, "Lessons"))
    return out / "index.html"


def _text_page(text: str, title: str) -> str:
    """A page of Markdown alone."""
    return handout_page(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]), title)


def _values(model: Mapping[str, Any]) -> dict[str, Any]:
    """What the explorer's script reads, from its saved state; bytes are base64 already."""
    values = {name: value for name, value in model["state"].items() if not name.startswith("_")}
    for buffer in model.get("buffers", ()):
        *parents, last = buffer["path"]
        reduce(getitem, parents, values)[last] = {"bytes": buffer["data"]}
    return values


def pictures(cells: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs that hold a picture, explorers' among them."""
    outputs = (output for cell in cells for output in cell.get("outputs", ()))
    return [output for output in outputs if "image/png" in output.get("data", {})]


def still(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook itself, less live widgets: an explorer stays as the picture and the description it brings along."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_remains(output)]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
    return notebook


def is_remains(output: nbformat.NotebookNode) -> bool:
    """Whether an output is what a finished progress bar leaves: a widget without a picture, or an empty frame."""
    data = output.get("data", {"image/png": ""})  # a stream has none
    words = re.sub(r"<[^>]*>", "", data.get("text/html", "")) + data.get("text/plain", "")
    return "image/png" not in data and (WIDGET_VIEW in data or not words.strip())


def find_browser() -> str | None:
    """A Chromium or its kin on the path, to print with."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def print_page(page: Path, browser: str) -> Path:
    """Print an HTML file to a PDF beside it; a LessonError with the browser's last words if it fails."""
    # Run as root, as in a container, a browser refuses its sandbox; the page is the kit's own and may fetch nothing.
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    pdf = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile, replacing(pdf) as temporary:
        command = [browser, *options, f"--user-data-dir={profile}", f"--print-to-pdf={temporary}", page.resolve().as_uri()]
        run_program(command, failure := f"{browser} could not print {page}")
        if not temporary.is_file():
            raise LessonError(failure)
    return pdf


def run_program(command: Sequence[str], failure: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a program; a LessonError that begins with ``failure`` and ends with its last words if it fails or takes for ever."""
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "env": environment}
    try:
        subprocess.run(command, timeout=PATIENCE, check=True, **options)
    except subprocess.SubprocessError as error:
        raise LessonError(f"{failure}: {error}\n{str(error.stderr or error.stdout or '')[-600:]}") from error
