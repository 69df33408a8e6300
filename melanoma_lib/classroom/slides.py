"""Slides: decks filled in by jinja2, with numbers of a run and figures of the lessons, rendered offline by Marp and a browser.

A deck is Marp Markdown with fields of jinja2. ``{{ metrics.n_melanoma }}`` writes a value of the run, ``number(x, 2)`` rounds,
``percent(x)`` writes a share, ``interval(x)`` a number with its interval; each takes what to write where a run leaves a number
undefined, such as ``undefined="–"``, else that is an error. ``figure("06", "splits")`` shows, alone on its line, the picture of
the cell tagged ``figure:splits`` in the committed lesson 06. A PDF has the digest of its sources as keyword.
"""

import base64
import hashlib
import html
import math
import os
import shutil
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from melanoma_lib.classroom.handout import find_browser, pictures, run_program
from melanoma_lib.classroom.lesson import find_lessons, numbered
from melanoma_lib.errors import LessonError
from melanoma_lib.evaluation import OperatingCurve
from melanoma_lib.runs import Run
from melanoma_lib.settings import project_dir
from melanoma_lib.utils import replacing, write_text

MARP = Path("build/marp/node_modules/.bin/marp")  # where `make slides` installs it
THEME = Path("slides/theme.css")
ISIC_2020 = 0.0176  # its share of melanomas
REPORTED = Path("docs/results/reported.csv")  # what another project's slides report; nobody has reproduced it here


def run_values(run: Run) -> dict[str, Any]:
    """What decks may ask of a run, by the first word of a field."""
    history, monitor, test = run.history.astype({"epoch": object}), run.settings.monitor, run.predictions("test")
    kept = history[monitor].idxmin() if monitor.endswith("loss") else history[monitor].idxmax()
    point = OperatingCurve(test["target"], test["probability"]).at(run.operating_point.threshold)
    counts = {"images": ("target", "size"), "groups": ("group_id", "nunique"), "melanomas": ("target", "sum")}
    return {
        "run": {"name": run.path.name, "source": run.settings.source, "epochs": len(history)},
        "setting": {name: str(value) for name, value in run.settings.model_dump(mode="json").items()},
        "metrics": run.metrics,
        "operating_point": asdict(run.operating_point),
        "calibration": run.calibrator.to_dict(),
        "history": {"kept": dict(history.loc[kept]), "seconds": history["seconds"].mean()},
        "split": run.splits.groupby("split").agg(**counts, share=("target", "mean")).to_dict("index"),
        "environment": run.environment,
        "unit": str(run.splits["group_id"].str.partition(":")[0].mode()[0]),  # patient, lesion or image
        "elsewhere": {"prevalence": ISIC_2020, "ppv": point.ppv_at(ISIC_2020)},
        "reported": pd.read_csv(project_dir() / REPORTED, index_col="backbone").to_dict("index"),
    }


def find_decks(names: Iterable[str] = (), folder: Path | None = None) -> list[Path]:
    """Decks of the project, or of another folder, as :func:`melanoma_lib.classroom.lesson.find_lessons` finds lessons."""
    return numbered(names, project_dir() / "slides" if folder is None else folder, "00_overview.md")


def fill(deck: Path, values: Mapping[str, Any], folder: Path, lessons: Path | None = None) -> str:
    """The deck as Marp Markdown, its figures in ``folder / "figures"``; a LessonError names the line that cannot be filled."""

    def figure(lesson: str, name: str) -> str:
        (found,) = find_lessons([lesson], lessons)
        shown = pictures(found.cells(f"figure:{name}"))
        if not shown:
            raise LessonError(f"no cell of {found.name} is tagged figure:{name} and holds a picture; see notebooks refresh")
        png, alt = base64.b64decode(shown[0].data["image/png"]), shown[0].metadata.get("image/png", {}).get("alt", "")
        file = f"figures/{lesson}-{name}-{hashlib.sha256(png).hexdigest()[:8]}.png"  # tells pictures apart
        with replacing(folder / file) as temporary:
            temporary.write_bytes(png)
        # HTML, as Marp reads directions such as "blur" out of a Markdown picture's description.
        return f'<div class="figure"><img src="{file}" alt="{html.escape(alt)}"></div>'

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, finalize=number, keep_trailing_newline=True)
    environment.globals = {"number": number, "percent": percent, "interval": interval, "figure": figure}
    try:
        return environment.from_string(deck.read_text(encoding="utf-8")).render(values)
    except (jinja2.TemplateError, LessonError, KeyError, TypeError, ValueError) as error:  # the last: other values
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename in ("<template>", "<unknown>")]  # jinja2's names of a deck
        raise LessonError(f"deck {deck.stem}, line {lines[-1] if lines else '?'}: {error}") from error


def number(value: Any, digits: int = 3, undefined: str | None = None, form: str = "f") -> str:
    """A number as slides write it, a text as it is; a LessonError where it is undefined and nothing was said of that."""
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        if undefined is None:
            raise LessonError('this run leaves the number undefined; say what to write then, such as undefined="–"')
        return undefined
    return f"{value:,}" if isinstance(value, int) and form == "f" else f"{value:.{digits}{form}}"


def percent(value: float | None, digits: int = 1, undefined: str | None = None) -> str:
    """A share in percent."""
    return number(value, digits, undefined, "%")


def interval(value: Any, digits: int = 3, percent: bool = False, undefined: str | None = None) -> str:
    """A number with its interval in brackets, from a mapping of ``value``, ``low`` and ``high``."""
    keys = ["value"] if value["value"] is None or value["low"] is None else ["value", "low", "high"]
    middle, *ends = (number(value[key], digits, undefined, "%" if percent else "f") for key in keys)
    return f"{middle} [{', '.join(ends)}]" if ends else middle


def build(decks: Sequence[Path], values: Mapping[str, Any], out: Path, formats: Sequence[str] = ("html", "pdf")) -> list[Path]:
    """Fill decks and render them as ``html``, ``pdf``, or a LessonError; no format leaves the filled Markdown alone."""
    if any(out.resolve() == deck.parent.resolve() for deck in decks):
        raise LessonError(f"--out {out} is where the decks lie, and would replace them by what is filled in; name another folder")
    filled = [out / deck.name for deck in decks]
    for deck, target in zip(decks, filled, strict=True):
        write_text(target, fill(deck, values, out))
    return filled + [render(target, form) for target in filled for form in formats]


def digest(deck: Path) -> str:
    """What a filled deck, its figures and the theme come to, such as ``sha256-9f86d081``."""
    return f"sha256-{hashlib.sha256(deck.read_bytes() + (project_dir() / THEME).read_bytes()).hexdigest()}"


def render(deck: Path, form: str) -> Path:
    """Render a filled deck as ``html`` or ``pdf`` beside itself; nothing is fetched."""
    marp = project_dir() / MARP if (project_dir() / MARP).is_file() else shutil.which("marp")
    if not marp or not (browser := find_browser()):
        raise LessonError("slides need Marp, which make slides installs (by npm), and Chromium or Chrome; or add --markdown")
    page = deck.with_suffix(f".{form}")
    pdf = ["--pdf", "--pdf-notes", "--pdf-outlines", "--keywords", digest(deck)] if form == "pdf" else []
    command = [
        str(Path(marp).absolute()), str(deck), "--output", str(page), *pdf,
        "--html", "--allow-local-files", "--no-config-file",
        "--theme-set", str(project_dir() / THEME), "--browser", "chrome", "--browser-path", browser,
    ]  # fmt: skip
    # Run as root, as in a container, a browser refuses its sandbox; the page is the kit's own.
    run_program(command, f"Marp could not render {deck} to {form}", os.environ | {"CHROME_NO_SANDBOX": "1"})
    return page
