"""Running lessons without a reader: executed notebook, HTML page and summary of each, and the committed outputs renewed."""

import base64
import copy
import html
import io
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from melanoma_lib.classroom.lesson import Lesson, Scalar, tags_of, without_tests
from melanoma_lib.errors import LessonError
from melanoma_lib.utils import write_text

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
LARGE_PICTURE = 100_000  # bytes; charts are below it, sheets of photographs above
COMPARED = "nbval-check-output"  # nbval's own tag: it compares the outputs of these cells
# On paper nothing scrolls: what is wider than the page would be cut off.
PRINT_STYLE = """<style>
@media print {
  .highlight pre, .jp-OutputArea-output pre { white-space: pre-wrap !important; overflow-wrap: anywhere; word-break: normal; }
  img, table, blockquote, .jp-CodeCell .jp-InputArea, .jp-RenderedMarkdown div { break-inside: avoid; }
  h1, h2, h3, .jp-CodeCell .jp-InputArea { break-after: avoid; }
}
</style>
"""
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Outcome:
    """One executed lesson.

    Attributes:
        status: ``ok``, or what went wrong.
        digests: what the digest cells say.
        as_committed: how many of them say what the committed notebook shows; None where parameters differ from its own.
        page: its HTML.
    """

    name: str
    status: str
    seconds: float
    digests: tuple[str, ...]
    as_committed: int | None
    notebook: Path
    page: Path

    @property
    def ok(self) -> bool:
        """Whether every cell ran and no explorer failed."""
        return self.status == "ok"


def run_lessons(lessons: Sequence[Lesson], out: Path, parameters: Mapping[str, Any], show_progress: bool = True) -> list[Outcome]:
    """Execute lessons with papermill, and write ``summary.md`` beside what they leave.

    Raises:
        LessonError: before the first kernel starts, if a parameter is unknown to one of the lessons or does not fit it.
    """
    prepared = [(lesson, lesson.with_defaults(parameters)) for lesson in lessons]
    outcomes = [run_lesson(lesson, out, values, show_progress) for lesson, values in prepared]
    write_text(out / "summary.md", summary(outcomes) + "\n")
    return outcomes


def run_lesson(lesson: Lesson, out: Path, values: Mapping[str, Scalar], show_progress: bool = True) -> Outcome:
    """Execute one lesson with the values of all its parameters; a failing cell or explorer is told in ``status``."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    from melanoma_lib.classroom.kernels import AsyncOwnSocketsManager

    logging.getLogger("papermill").setLevel(logging.WARNING)  # it tells where its files lie, each time
    out.mkdir(parents=True, exist_ok=True)
    target, page = out / f"{lesson.name}.ipynb", out / f"{lesson.name}.html"
    started, status = time.perf_counter(), "ok"
    unfinished = target.with_suffix(".unfinished.ipynb")  # papermill knows a notebook by its ending
    try:
        papermill.execute_notebook(
            str(lesson.path),
            str(unfinished),
            parameters={name: value for name, value in values.items() if value != lesson.parameters[name]},
            cwd=str(lesson.path.parent),
            kernel_name=KERNEL["name"],
            language=KERNEL["language"],
            progress_bar={"desc": lesson.name} if show_progress else False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # where it needs TCP it warns of that, each time
            kernel_manager_class=AsyncOwnSocketsManager,
        )
    except papermill.PapermillExecutionError as error:
        status = f"cell {error.cell_index}: {error.ename}: {error.evalue}".splitlines()[0]
    except DeadKernelError:
        status = "the kernel died, most often for want of memory: run fewer lessons at once, or with fewer cases"
    unfinished.replace(target)
    executed = nbformat.read(target, as_version=4)
    if status == "ok" and (failures := widget_failures(executed)):
        status = f"explorer: {failures[0]}"
    write_text(page, as_html(executed, lesson.name))
    digests = tuple(digest_text(cell) for cell in executed.cells if "digest" in tags_of(cell))
    committed = [digest_text(cell) for cell in lesson.cells("digest")]
    same = sum(mine == theirs for mine, theirs in zip(digests, committed, strict=True)) if values == lesson.parameters else None
    return Outcome(lesson.name, status, time.perf_counter() - started, digests, same, target, page)


def digest_text(cell: nbformat.NotebookNode) -> str:
    """What a digest cell printed, and the text of the tables it shows; a progress bar of the first time is neither."""
    outputs = [output for output in cell.outputs if not _is_remains(output)]
    printed = [output.text for output in outputs if output.get("name") == "stdout"]
    shown = [output.data for output in outputs if output.output_type in ("execute_result", "display_data")]
    return "".join([*printed, *(data.get("text/plain", "") for data in shown if "image/png" not in data)])


def summary(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table of what ran: seconds, digests, status."""
    lines = ["| lesson | seconds | digests | status |", "|---|---|---|---|"]
    for one in outcomes:
        n = len(one.digests)
        digests = f"{n}, other parameters" if one.as_committed is None else f"{one.as_committed} of {n} as committed"
        lines.append(f"| {one.name} | {one.seconds:.0f} | {digests} | {one.status.replace('|', '/')} |")
    return "\n".join(lines)


def widget_failures(notebook: nbformat.NotebookNode) -> list[str]:
    """What explorers failed with: their ``problem``, or an error caught in an Output widget, where no cell turns red."""
    states = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    found = []
    for model in states.values():
        state = model.get("state", {})
        if state.get("problem"):
            found.append(state["problem"])
        captured = (output for output in state.get("outputs") or () if output.get("output_type") == "error")
        found += [f"{error['ename']}: {error['evalue']}" for error in captured]
    return found


def as_html(
    notebook: nbformat.NotebookNode,
    title: str,
    live: Callable[[nbformat.NotebookNode], str] | None = None,
    style: str = PRINT_STYLE,
) -> str:
    """One self-contained page: pictures inside, explorers as their labelled pictures, nothing fetched, no cell that only tests.

    Args:
        notebook: executed.
        title: of the page.
        live: given an explorer's output, HTML to put beside its picture; empty for none.
        style: for the head of the page.
    """
    from nbconvert import HTMLExporter

    no_scripts = dict.fromkeys(("require_js_url", "mathjax_url", "jquery_url", "mermaid_js_url"), "")
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True, **no_scripts)
    notebook = without_tests(notebook)
    fragments = [live(output) if live else "" for output in pictures(notebook.cells)]
    notebook = still(notebook)
    for output, fragment in zip(pictures(notebook.cells), fragments, strict=True):  # nbconvert leaves the alternative text out
        alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""), quote=True)
        picture = f'<img alt="{alt}" src="data:image/png;base64,{output.data["image/png"].strip()}">'
        output.data["text/html"] = (
            f'<div class="live">{fragment}</div><div class="still">{picture}</div>' if fragment else picture
        )
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return body.replace("</head>", f"{style}</head>", 1)


def pictures(cells: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs that hold a picture, explorers' among them."""
    outputs = (output for cell in cells for output in cell.get("outputs", ()))
    return [output for output in outputs if "image/png" in output.get("data", {})]


def still(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without live widgets: an explorer stays as the picture and the description it brings along."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_remains(output)]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
    return notebook


def _is_remains(output: nbformat.NotebookNode) -> bool:
    """Whether an output is what a finished progress bar leaves: a widget without a picture, or an empty frame."""
    data = output.get("data")
    if data is None or "image/png" in data:
        return False
    words = re.sub(r"<[^>]*>", "", data.get("text/html", "")) + data.get("text/plain", "")
    return WIDGET_VIEW in data or not (words.strip() or set(data) - {"text/html", "text/plain"})


def refresh(lesson: Lesson) -> bool:
    """Execute a lesson in a fresh kernel and store its outputs in the file, in a form that running again does not change.

    Returns:
        Whether the file changed; if a cell or an explorer fails, it is untouched and a LessonError says so.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_lesson(lesson, Path(folder), lesson.parameters, show_progress=False)
        if not outcome.ok:
            raise LessonError(f"{lesson.name} does not run, its file is left as it was: {outcome.status}")
        executed = nbformat.read(outcome.notebook, as_version=4)
    text = nbformat.writes(normalised(executed)) + "\n"
    changed = lesson.path.read_text(encoding="utf-8") != text
    if changed:
        write_text(lesson.path, text)
    return changed


def normalised(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook less everything that differs from run to run without meaning anything: times, widget ids, versions."""
    notebook = still(notebook)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in tags_of(cell)]
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    count = 0
    for number, cell in enumerate(notebook.cells):
        tags = [tag for tag in tags_of(cell) if tag != COMPARED]
        tags += [COMPARED] if "digest" in tags else []
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        cell.id = f"cell-{number:02d}"
        if cell.cell_type == "code":  # counted anew, as papermill's own cell of parameters is gone
            count += bool(cell.source.strip())
            cell.execution_count = count if cell.source.strip() else None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = cell.execution_count
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    return notebook


def smaller(png: str) -> str:
    """A picture, base64 of a PNG, in 256 colours where that saves space: each refresh stays in the repository for good."""
    data, buffer = base64.b64decode(png), io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode == "P" or len(data) < LARGE_PICTURE:
            return png
        # Rare colours, such as the ends of a colour bar, keep an entry of their own: a median cut would mix them with others.
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    few.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode() if buffer.tell() < len(data) else png
