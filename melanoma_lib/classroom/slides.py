"""Slides: a deck's fields filled in from a run, its figures drawn, and the whole rendered offline by Marp and a browser."""

import html
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melanoma_lib.classroom.deck import FIELD, Deck, Field, breaches, read_field
from melanoma_lib.classroom.handout import find_browser
from melanoma_lib.errors import DeckError
from melanoma_lib.evaluation.canvas import DescribedFigure
from melanoma_lib.runs import Run
from melanoma_lib.settings import project_dir
from melanoma_lib.utils import replacing, write_text

FIGURES = "figures"  # folder beside the filled decks
MARP = Path("build/marp/node_modules/.bin/marp")  # where `make slides` installs it
RENDERING_SECONDS = 300
# Pixels of the slide's 1280 x 720 that a figure gets.
SLOTS = {"full": (1160, 530), "upper": (1160, 400), "lower": (1160, 270), "half": (560, 530)}
PIXELS_PER_INCH = 110  # on the slide; the figures' 13 points are then 20 pixels high, which carries to the last row
SHRINK = 0.72  # of its own sides a figure keeps, unless its field says otherwise: in less room its labels would collide


@dataclass(frozen=True)
class Content:
    """What decks may ask for; nothing is computed before somebody asks.

    Attributes:
        values: by the first word of a path: a number, a text, or a mapping of further ones.
        figures: by name.
    """

    values: Mapping[str, Callable[[], Any]]
    figures: Mapping[str, Callable[[], DescribedFigure]]


def run_values(run: Run) -> dict[str, Callable[[], Any]]:
    """What a run directory says of itself: run, setting, metrics, operating_point, calibration, history, split, environment."""
    return {
        "run": lambda: {"name": run.path.name, "source": run.settings.source, "epochs": len(run.history)},
        "setting": lambda: run.settings.model_dump(mode="json"),
        "metrics": lambda: run.metrics,
        "operating_point": lambda: asdict(run.operating_point),
        "calibration": lambda: run.calibrator.to_dict(),
        "history": lambda: _history(run),
        "split": lambda: _split(run),
        "environment": lambda: run.environment,
    }


def _history(run: Run) -> dict[str, Any]:
    """``first``, ``last`` and ``kept`` epoch, each with its columns, ``train/auroc`` as ``train.auroc``; mean seconds."""
    history, monitor = run.history, run.settings.monitor
    kept = history[monitor].idxmin() if monitor.endswith("loss") else history[monitor].idxmax()
    rows: dict[str, Any] = {}
    for name, row in (("first", history.iloc[0]), ("last", history.iloc[-1]), ("kept", history.loc[kept])):
        rows[name] = {"epoch": int(row["epoch"]), "train": {}, "val": {}}
        for column, value in row.items():
            part, _, score = str(column).partition("/")
            if score:
                rows[name][part][score] = float(value)
    return rows | {"seconds": float(history["seconds"].mean())}


def _split(run: Run) -> dict[str, Any]:
    parts = dict(list(run.splits.groupby("split"))) | {"all": run.splits}
    return {
        name: {
            "images": len(part), "groups": int(part["group_id"].nunique()), "melanomas": int(part["target"].sum()),
            "share": float(part["target"].mean()),
        }
        for name, part in parts.items()
    }  # fmt: skip


def fill(deck: Deck, content: Content, folder: Path) -> str:
    """The deck as Marp Markdown, its figures written into ``folder / "figures"``.

    Args:
        deck: with fields.
        content: to fill them from.
        folder: where the filled deck will lie.

    Raises:
        DeckError: naming deck and line, if a field cannot be read, names what does not exist (with what does), or a number is
            undefined and the field does not say what to write then.
    """
    return FIELD.sub(lambda match: _filled(read_field(match, deck), deck, content, folder), deck.text)


def _filled(field: Field, deck: Deck, content: Content, folder: Path) -> str:
    place = f"deck {deck.name}, line {field.line}"
    if field.verb == "fact":
        return field.argument
    if field.verb == "figure":
        return _figure(field, place, content, folder)
    if field.verb == "reported":
        text = field.argument if field.quoted else _look_up(f"reported.{field.argument}", place, content.values)
        return f'<span class="reported">{text}</span>'
    path = f"setting.{field.argument}" if field.verb == "setting" else field.argument
    value = _look_up(path, place, content.values)
    if field.verb == "interval" and not (isinstance(value, Mapping) and {"value", "low", "high"} <= set(value)):
        raise DeckError(f"{place}: {path} has no interval; it is {_kind(value)}")
    number = value["value"] if field.verb == "interval" else value
    if (number is None and field.verb != "setting") or (isinstance(number, float) and not math.isfinite(number)):
        if "undefined" in field.options:
            return field.options["undefined"]
        raise DeckError(f'{place}: this run leaves {path} undefined; say what to write then, such as undefined="–"')
    return _written(field, value, path, place)


def _written(field: Field, value: Any, path: str, place: str) -> str:
    percent = field.verb == "percent" or field.options.get("as") == "percent"
    try:
        digits = int(field.options.get("digits", 1 if percent else 3))
    except ValueError:
        raise DeckError(f"{place}: digits expects a whole number, got {field.options['digits']!r}") from None
    form = f".{digits}%" if percent else f".{digits}f"
    if field.verb == "interval":
        whole = f"{value['value']:{form}}"
        return whole if value["low"] is None else f"{whole} [{value['low']:{form}}, {value['high']:{form}}]"
    if isinstance(value, (Mapping, list)):
        known = f" of {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
        raise DeckError(f"{place}: {path} is {_kind(value)}; name one{known}")
    if percent and (isinstance(value, (str, bool)) or value is None):
        raise DeckError(f"{place}: {path} is no share; it is {_kind(value)}")
    if field.verb == "setting":
        return {True: "yes", False: "no", None: "none"}.get(value) if value is None or isinstance(value, bool) else f"{value}"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) and not percent else f"{value:{form}}"


def _kind(value: Any) -> str:
    return f"a group of {len(value)}" if isinstance(value, (Mapping, list)) else f"{type(value).__name__} {value!r}"


def _look_up(path: str, place: str, values: Mapping[str, Callable[[], Any]]) -> Any:
    found: Any = None
    for depth, step in enumerate(path.split(".")):
        known = values if depth == 0 else found
        before = ".".join(path.split(".")[:depth]) or "a run"
        if not isinstance(known, Mapping):
            raise DeckError(f"{place}: nothing below {before}, which is {_kind(known)}; got {path}")
        if step not in known:
            raise DeckError(f"{place}: {before} has no {step}; there are: {', '.join(map(str, known))}")
        found = known[step]() if depth == 0 else known[step]
    return found


def _figure(field: Field, place: str, content: Content, folder: Path) -> str:
    slot = field.options.get("slot", "full")
    for kind, name, known in (("figure", field.argument, content.figures), ("slot", slot, SLOTS)):
        if name not in known:
            raise DeckError(f"{place}: no {kind} {name}; there are: {', '.join(known)}")
    figure = content.figures[field.argument]()
    name = f"{field.argument}-{slot}.png"
    with replacing(folder / FIGURES / name) as temporary:
        for_the_last_row(figure, slot, float(field.options.get("shrink", SHRINK)))
        figure.savefig(temporary, format="png", dpi=2 * PIXELS_PER_INCH)
    # HTML, as Marp reads directions such as "blur" out of a Markdown picture's description.
    return f'<div class="figure"><img src="{FIGURES}/{name}" alt="{html.escape(figure.alt_text)}"></div>'


def for_the_last_row(figure: DescribedFigure, slot: str, shrink: float = SHRINK) -> None:
    """Make a large figure smaller in inches, so that its letters, whose size is in points, are larger on the slide.

    Width and height shrink apart, each as far as the slot asks: a figure that is only too tall keeps its width.

    Args:
        figure: is resized.
        slot: of ``SLOTS``.
        shrink: smallest share of its own sides that it may be given.
    """
    sides = zip(figure.get_size_inches(), SLOTS[slot], strict=True)
    figure.set_size_inches(*(max(shrink * side, min(side, room / PIXELS_PER_INCH)) for side, room in sides))


def build(decks: list[Deck], content: Content, out: Path, formats: tuple[str, ...] = ("html", "pdf")) -> list[Path]:
    """Fill decks and render them.

    Args:
        decks: that keep the rules of decks.
        content: of a run.
        out: folder of the filled decks, their figures and pages.
        formats: of ``html``, ``pdf``; none leaves the filled Markdown alone.

    Returns:
        The files, filled Markdown first.

    Raises:
        DeckError: if a deck breaks a rule, a field cannot be filled, or Marp or a browser is missing or fails.
    """
    if found := [breach for deck in decks for breach in breaches(deck)]:
        raise DeckError("decks are not ready to be shown:\n  " + "\n  ".join(found))
    marp = find_marp() if formats else None
    written = []
    for deck in decks:
        write_text(out / f"{deck.name}.md", fill(deck, content, out))
        written.append(out / f"{deck.name}.md")
    return written + [render(out / f"{deck.name}.md", form, marp) for deck in decks for form in formats]


def find_marp() -> Path:
    """The installed Marp.

    Raises:
        DeckError: if there is none.
    """
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
