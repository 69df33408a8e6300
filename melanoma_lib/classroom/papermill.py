"""Running lessons without a reader: executed notebook, HTML page and summary of each, and the committed outputs renewed."""

import base64
import io
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from PIL import Image

from melanoma_lib.classroom.handout import WIDGET_STATE, handout_page, is_remains, pictures, still, write_index
from melanoma_lib.classroom.lesson import Lesson, Scalar, tags_of
from melanoma_lib.errors import LessonError
from melanoma_lib.utils import write_text

LARGE_PICTURE = 100_000  # bytes; charts are below it, sheets of photographs above
COMPARED = "nbval-check-output"  # nbval's own tag: it compares the outputs of these cells
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class Outcome(NamedTuple):
    """One executed lesson."""

    name: str
    status: str  # ok, or what went wrong
    seconds: float
    digests: tuple[str, ...]  # what the digest cells say
    as_committed: int | None  # digests that the committed notebook shows, too; None where parameters differ from its own
    notebook: Path
    page: Path  # its HTML

    @property
    def ok(self) -> bool:
        """Whether every cell ran and no explorer failed."""
        return self.status == "ok"


def run_lessons(lessons: Sequence[Lesson], out: Path, parameters: Mapping[str, Any], show_progress: bool = True) -> list[Outcome]:
    """Execute lessons into notebooks, pages, summary and index; first, a LessonError if a parameter does not fit one of them."""
    if any(out.resolve() == lesson.path.parent.resolve() for lesson in lessons):
        raise LessonError(
            f"--out {out} is where the lessons lie, and would replace them by what was executed; name another folder"
        )
    prepared = [(lesson, lesson.with_defaults(parameters)) for lesson in lessons]
    outcomes = [run_lesson(lesson, out, values, show_progress) for lesson, values in prepared]
    write_text(out / "summary.md", summary(outcomes) + "\n")
    write_index(out)
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
    try:
        papermill.execute_notebook(
            str(lesson.path),
            str(target),
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
    executed = nbformat.read(target, as_version=4)
    if status == "ok" and (failures := widget_failures(executed)):
        status = f"explorer: {failures[0]}"
    write_text(page, handout_page(executed, lesson.name))
    digests = tuple(digest_text(cell) for cell in executed.cells if "digest" in tags_of(cell))
    committed = [digest_text(cell) for cell in lesson.cells("digest")]
    same = sum(mine == theirs for mine, theirs in zip(digests, committed, strict=True)) if values == lesson.parameters else None
    return Outcome(lesson.name, status, time.perf_counter() - started, digests, same, target, page)


def digest_text(cell: nbformat.NotebookNode) -> str:
    """What a digest cell printed, and the text of the tables it shows; a progress bar of the first time is neither."""
    printed = [output.text for output in cell.outputs if output.get("name") == "stdout"]
    tables = [output.data for output in cell.outputs if "data" in output and not is_remains(output)]
    return "".join([*printed, *(data.get("text/plain", "") for data in tables if "image/png" not in data)])


def summary(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table of what ran: seconds, digests, status."""
    lines = ["| lesson | seconds | digests | as committed | status |", "|---|---|---|---|---|"]
    for one in outcomes:
        same = "other parameters" if one.as_committed is None else one.as_committed
        lines.append(f"| {one.name} | {one.seconds:.0f} | {len(one.digests)} | {same} | {one.status.replace('|', '/')} |")
    return "\n".join(lines)


def widget_failures(notebook: nbformat.NotebookNode) -> list[str]:
    """What explorers failed with: their ``problem``, or an error caught in an Output widget, where no cell turns red."""
    models = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    states = [model.get("state", {}) for model in models.values()]
    caught = [output for state in states for output in state.get("outputs") or () if output.get("output_type") == "error"]
    problems = [state["problem"] for state in states if state.get("problem")]
    return problems + [f"{error['ename']}: {error['evalue']}" for error in caught]


def write_handout(lesson: Lesson, out: Path, parameters: Mapping[str, Any], show_progress: bool = True) -> Path:
    """Execute a lesson and leave its page in ``out``; if it does not run, a LessonError, and an older page stays."""
    page = handout_page(_executed(lesson, lesson.with_defaults(parameters), show_progress), lesson.name)
    write_text(out / f"{lesson.name}.html", page)
    write_index(out)
    return out / f"{lesson.name}.html"


def _executed(lesson: Lesson, values: Mapping[str, Scalar], show_progress: bool) -> nbformat.NotebookNode:
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_lesson(lesson, Path(folder), values, show_progress)
        if not outcome.ok:
            raise LessonError(f"{lesson.name} does not run, so all is left as it was: {outcome.status}")
        return nbformat.read(outcome.notebook, as_version=4)


def refresh(lesson: Lesson) -> bool:
    """Store a lesson's outputs in its file, so that running again changes nothing; whether it changed, or a LessonError."""
    text = nbformat.writes(_normalised(_executed(lesson, lesson.parameters, show_progress=False))) + "\n"
    if changed := lesson.path.read_text(encoding="utf-8") != text:
        write_text(lesson.path, text)
    return changed


def _normalised(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook less everything that differs from run to run without meaning anything: times, widget ids, versions."""
    notebook = still(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        tags = [tag for tag in tags_of(cell) if tag != COMPARED] + [COMPARED] * ("digest" in tags_of(cell))
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        cell.id = f"cell-{number:02d}"
    for output in pictures(notebook.cells):
        output.data["image/png"] = _smaller(output.data["image/png"])
    return notebook


def _smaller(png: str) -> str:
    """A large picture, base64 of a PNG, in 256 colours: each refresh stays in the repository for good."""
    data, buffer = base64.b64decode(png), io.BytesIO()
    if len(data) < LARGE_PICTURE:
        return png
    # Rare colours, such as the ends of a colour bar, keep an entry of their own: a median cut would mix them with others.
    few = Image.open(io.BytesIO(data)).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    few.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
