"""Slides: decks filled in by jinja2, with numbers of a run and figures of the lessons, rendered offline by Marp and a browser.

A deck is Marp Markdown with fields of jinja2. ``{{ metrics.n_melanoma }}`` writes a value of the run, by default a whole number
with separators of thousands and any other with three digits. ``number(x, 2)`` rounds, ``percent(x)`` writes a share,
``interval(x)`` a number with its interval, and ``undefined="nobody is flagged"`` says what to write where a run leaves a number
undefined; without it that is an error. ``figure("06", "splits")`` shows, alone on its line, the picture that the committed lesson
06 holds in its cell tagged ``figure:splits``, with its alternative text. ``as_reported("97.24%")`` marks somebody else's number.
"""

import base64
import html
import math
import os
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import pandas as pd

from melanoma_lib.classroom.handout import find_browser
from melanoma_lib.classroom.lesson import NUMBERED, chosen, find_lessons, tags_of
from melanoma_lib.errors import DeckError, LessonError
from melanoma_lib.evaluation import OperatingCurve, OperatingPoint
from melanoma_lib.runs import Run
from melanoma_lib.settings import project_dir
from melanoma_lib.utils import replacing, write_text

FIGURES = "figures"  # folder beside the filled decks
MARP = Path("build/marp/node_modules/.bin/marp")  # where `make slides` installs it
RENDERING_SECONDS = 300
FIGURE_TAG = "figure:"  # before the name, on the lesson's cell that draws it
ISIC_2020 = 0.0176  # its share of melanomas
REPORTED = Path("docs/results/reported.csv")  # what another project's slides report; nobody has reproduced it here


def run_values(run: Run) -> dict[str, Callable[[], Any]]:
    """What decks may ask of a run, by the first word of a field; nothing is computed before somebody asks."""
    return {
        "run": lambda: {"name": run.path.name, "source": run.settings.source, "epochs": len(run.history)},
        "setting": lambda: {name: str(value) for name, value in run.settings.model_dump(mode="json").items()},
        "metrics": lambda: run.metrics,
        "operating_point": lambda: asdict(run.operating_point),
        "calibration": lambda: run.calibrator.to_dict(),
        "history": lambda: _history(run),
        "split": lambda: _split(run),
        "environment": lambda: run.environment,
        "unit": lambda: str(run.splits["group_id"].str.partition(":")[0].mode()[0]),  # patient, lesion or image
        "elsewhere": lambda: {"prevalence": ISIC_2020, "ppv": _test_point(run).ppv_at(ISIC_2020)},
        "reported": lambda: pd.read_csv(project_dir() / REPORTED, index_col="backbone").to_dict("index"),
    }


def _history(run: Run) -> dict[str, Any]:
    """The ``last`` and the ``kept`` epoch, each with its columns, such as ``train/auroc``; mean seconds."""
    history, monitor = run.history.astype({"epoch": object}), run.settings.monitor
    kept = history[monitor].idxmin() if monitor.endswith("loss") else history[monitor].idxmax()
    return {"last": dict(history.iloc[-1]), "kept": dict(history.loc[kept]), "seconds": float(history["seconds"].mean())}


def _split(run: Run) -> dict[str, Any]:
    parts = run.splits.groupby("split")
    columns = {"images": ("target", "size"), "groups": ("group_id", "nunique"), "melanomas": ("target", "sum")}
    return parts.agg(**columns, share=("target", "mean")).to_dict("index")


def _test_point(run: Run) -> OperatingPoint:
    test = run.predictions("test")
    return OperatingCurve(test["target"], test["probability"]).at(run.operating_point.threshold)


def find_decks(names: Iterable[str] = (), folder: Path | None = None) -> list[Path]:
    """Decks in the order of their numbers.

    Args:
        names: names such as ``03_training``, their numbers where only one deck has it, or paths; none for all.
        folder: where to look; by default the project's ``slides``.

    Raises:
        DeckError: if a name fits no deck or more than one, or the folder holds none.
    """
    folder = project_dir() / "slides" if folder is None else folder
    decks = [path for path in sorted(folder.glob("*.md")) if NUMBERED.fullmatch(path.stem)]
    if not decks:
        raise DeckError(f"no deck in {folder}: expected files such as 00_overview.md; run from the project's folder")
    try:
        return chosen(names, decks) or decks
    except LessonError as error:
        raise DeckError(str(error)) from error


def lesson_figure(lesson: str, name: str, folder: Path | None = None) -> tuple[bytes, str]:
    """The picture that a committed lesson shows in its cell tagged ``figure:NAME``: PNG and alternative text.

    Args:
        lesson: its name or number.
        name: of the figure.
        folder: of the lessons; by default the project's ``notebooks``.

    Raises:
        DeckError: if the lesson has no such cell, with the figures it has, or the cell holds no picture.
        LessonError: if there is no such lesson.
    """
    (found,) = find_lessons([lesson], folder)
    cells = found.notebook.cells
    tagged = {tag.removeprefix(FIGURE_TAG): cell for cell in cells for tag in tags_of(cell) if tag.startswith(FIGURE_TAG)}
    if name not in tagged:
        raise DeckError(f"{found.name} has no cell tagged {FIGURE_TAG}{name}; its figures are: {', '.join(tagged) or 'none'}")
    for output in tagged[name].get("outputs", ()):
        if png := output.get("data", {}).get("image/png"):
            return base64.b64decode(png), output.metadata.get("image/png", {}).get("alt", "")
    raise DeckError(f"the cell {FIGURE_TAG}{name} of {found.name} holds no picture: run notebooks refresh {found.name}")


def fill(deck: Path, values: Mapping[str, Callable[[], Any]], folder: Path, lessons: Path | None = None) -> str:
    """The deck as Marp Markdown, its figures written into ``folder / "figures"``.

    Args:
        deck: its source.
        values: from :func:`run_values`.
        folder: of the filled deck.
        lessons: folder of the lessons whose figures it shows; by default the project's ``notebooks``.

    Raises:
        DeckError: naming deck and line, if a field cannot be read, names what does not exist (with what does), or a number is
            undefined and the field does not say what to write then.
    """

    def figure(lesson: str, name: str) -> str:
        png, description = lesson_figure(lesson, name, lessons)
        file = f"{FIGURES}/{lesson}-{name}.png"
        with replacing(folder / file) as temporary:
            temporary.write_bytes(png)
        # HTML, as Marp reads directions such as "blur" out of a Markdown picture's description.
        return f'<div class="figure"><img src="{file}" alt="{html.escape(description)}"></div>'

    environment = jinja2.Environment(undefined=_Missing, finalize=number, keep_trailing_newline=True)
    environment.globals = {
        "number": number, "percent": percent, "interval": interval, "figure": figure, "as_reported": as_reported,
    }  # fmt: skip
    text = deck.read_text(encoding="utf-8")
    try:
        asked = jinja2.meta.find_undeclared_variables(environment.parse(text)) - set(environment.globals)
        if unknown := sorted(asked - set(values)):
            environment.globals |= {name: _Missing(obj=values, name=name) for name in unknown}
        return environment.from_string(text).render({name: values[name]() for name in asked & set(values)})
    except jinja2.TemplateSyntaxError as error:
        raise DeckError(f"deck {deck.stem}, line {error.lineno}: {error.message}") from error
    except (jinja2.UndefinedError, DeckError, LessonError, TypeError) as error:  # the last: arguments that a field does not take
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
        raise DeckError(f"deck {deck.stem}, line {lines[-1] if lines else '?'}: {error}") from error


class _Missing(jinja2.StrictUndefined):
    """What a run does not have; the error says what it has."""

    def __init__(self, hint: str | None = None, obj: Any = jinja2.utils.missing, name: str | None = None, *rest: Any) -> None:
        known = f"there are: {', '.join(map(str, obj))}" if isinstance(obj, Mapping) else f"it is below {obj!r}"
        super().__init__(hint or f"a run has no {name} there; {known}", obj, name, *rest)


def number(value: Any, digits: int = 3, undefined: str | None = None, form: str = "f") -> str:
    """A number as slides write it; a text stays as it is.

    Args:
        value: finite, or None or NaN where the run leaves it undefined.
        digits: behind the point; of numbers that are not whole.
        undefined: what to write for such a value.
        form: ``f``, or ``%`` for a share.

    Raises:
        DeckError: if the value is undefined and nothing was said of that, or is a group of several.
    """
    if isinstance(value, str | jinja2.Undefined):
        return str(value)  # of what is undefined it raises
    if isinstance(value, Mapping | list):
        raise DeckError(f"expected one value, got a group of {len(value)}; name one of {', '.join(map(str, value))}")
    if value is None or not math.isfinite(value):
        if undefined is None:
            raise DeckError('this run leaves the number undefined; say what to write then, such as undefined="–"')
        return undefined
    return f"{value:,}" if isinstance(value, int) and form == "f" else f"{value:.{digits}{form}}"


def percent(value: Any, digits: int = 1, undefined: str | None = None) -> str:
    """A share in percent."""
    if isinstance(value, str | bool):
        raise DeckError(f"expected a share, got {value!r}")
    return number(value, digits, undefined, "%")


def interval(value: Any, digits: int | None = None, percent: bool = False, undefined: str | None = None) -> str:
    """A number with its interval in brackets, from a mapping of ``value``, ``low`` and ``high``."""
    if not (isinstance(value, Mapping) and {"value", "low", "high"} <= set(value)):
        raise DeckError(f"expected a number with its interval, got {value!r}")
    options = (1 if percent else 3) if digits is None else digits, undefined, "%" if percent else "f"
    middle = number(value["value"], *options)
    if value["value"] is None or value["low"] is None:
        return middle
    return f"{middle} [{number(value['low'], *options)}, {number(value['high'], *options)}]"


def as_reported(text: str) -> str:
    """Somebody else's number, shown as such."""
    return f'<span class="reported">{text}</span>'


def build(
    decks: Sequence[Path], values: Mapping[str, Callable[[], Any]], out: Path, formats: Sequence[str] = ("html", "pdf")
) -> list[Path]:
    """Fill decks and render them.

    Args:
        decks: from :func:`find_decks`.
        values: from :func:`run_values`.
        out: folder of the filled decks, their figures and pages.
        formats: of ``html``, ``pdf``; none leaves the filled Markdown alone.

    Raises:
        DeckError: if a field cannot be filled, or Marp or a browser is missing or fails.
    """
    marp = find_marp() if formats else None
    filled = [out / deck.name for deck in decks]
    for deck, target in zip(decks, filled, strict=True):
        write_text(target, fill(deck, values, out))
    return filled + [render(target, form, marp) for target in filled for form in formats]


def find_marp() -> Path:
    """The installed Marp; a DeckError if there is none."""
    found = project_dir() / MARP if (project_dir() / MARP).is_file() else shutil.which("marp")
    if not found:
        raise DeckError(f"no Marp in {MARP} nor on the path: make slides installs it (needs npm), or add --markdown")
    return Path(found).absolute()


def render(deck: Path, form: str, marp: Path) -> Path:
    """Render a filled deck beside itself; nothing is fetched.

    Args:
        deck: filled Markdown.
        form: ``html``, ``pdf``, or ``png`` for one picture a slide.
        marp: the program.

    Raises:
        DeckError: if no browser is there, or Marp fails, with its last words.
    """
    theme = project_dir() / "slides" / "theme.css"
    if not theme.is_file():  # Marp would go on with another theme, whose slides run over
        raise DeckError(f"no theme in {theme}: run from the project's folder")
    browser = find_browser()
    if browser is None:
        raise DeckError("no Chromium or Chrome was found to render slides with: install one, or add --markdown")
    page = deck.with_suffix(f".{form}")
    kinds = {"pdf": ["--pdf", "--pdf-notes", "--pdf-outlines"], "png": ["--images", "png"], "html": []}
    command = [
        str(marp), str(deck), "--output", str(page), *kinds[form], "--html", "--allow-local-files", "--no-config-file",
        "--theme-set", str(theme), "--browser", "chrome", "--browser-path", browser,
    ]  # fmt: skip
    # Run as root, as in a container, a browser refuses its sandbox; the page is the kit's own.
    environment = os.environ | {"CHROME_NO_SANDBOX": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RENDERING_SECONDS, env=environment, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise DeckError(f"Marp did not render {deck} within {RENDERING_SECONDS} s") from error
    if done.returncode:
        raise DeckError(f"Marp could not render {deck} to {form}: {(done.stderr or done.stdout).strip()[-600:]}")
    return page
