"""What a study leaves: a table of figures with the command that made it, small and safe enough to be committed."""

import json
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import Interval
from melanoma_lib.settings import project_dir
from melanoma_lib.utils import write_text

# What tells one case from another, or what was said of it, has no place in a table that anybody may read.
PRIVATE = {"image_id", "lesion_id", "patient_id", "group_id", "image_path", "mask_path", "target", "logit", "probability", "risk"}


@dataclass(frozen=True)
class ResultTable:
    """Figures of one study.

    Attributes:
        name: of the study; also of its file.
        title: what the table shows, in a sentence.
        command: the command line that made it.
        rows: one dictionary a line; an interval is ``{"value", "low", "high"}``.
        notes: what a reader must know to read it rightly, a sentence each.
        details: further figures that belong to the table as a whole, fit for JSON.
        made: day it was made, ISO 8601.
        machine: what it ran on.
    """

    name: str
    title: str
    command: str
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str] = ()
    details: dict[str, Any] = field(default_factory=dict)
    made: str = field(default_factory=lambda: date.today().isoformat())
    machine: str = field(default_factory=lambda: describe_machine())


def describe_machine() -> str:
    """Processor architecture, number of cores, graphics card and PyTorch of this machine, in one line."""
    import os

    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"


def results_dir() -> Path:
    """Where the committed tables lie."""
    return project_dir() / "docs" / "results"


def save_results(table: ResultTable, folder: Path | None = None) -> Path:
    """Write a table as ``NAME.json``.

    Args:
        table: the study's figures.
        folder: default: where the committed tables lie.

    Returns:
        The file.

    Raises:
        StudyError: if a key names something of single cases, or a number is not finite.
    """
    value = asdict(table)
    if private := sorted(PRIVATE & set(_keys(value["rows"])) | PRIVATE & set(_keys(value["details"]))):
        raise StudyError(f"a result table holds figures of groups, never of single cases; leave out {', '.join(private)}")
    try:
        text = json.dumps(_plain(value), indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StudyError(f"result table {table.name}: expected text and finite numbers or None; {error}") from error
    path = (folder or results_dir()) / f"{table.name}.json"
    write_text(path, text + "\n")
    return path


def load_results(name: str, folder: Path | None = None) -> ResultTable:
    """Read a table that ``save_results`` wrote.

    Raises:
        StudyError: if there is none of that name, or the file is none.
    """
    path = (folder or results_dir()) / f"{name}.json"
    try:
        return ResultTable(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.json"))) or "none"
        raise StudyError(f"{path} does not exist; tables there: {there}. python -m melanoma_lib study writes them") from error
    except (json.JSONDecodeError, TypeError) as error:
        raise StudyError(f"{path} is no result table: {error}") from error


def interval_text(value: dict[str, float | None] | None, digits: int = 3, sign: str = "") -> str:
    """An interval as ``0.906 [0.892, 0.919]``; a dash for what is not known."""
    if value is None or value.get("value") is None:
        return "–"
    ends = (math.nan if value.get(end) is None else value[end] for end in ("low", "high"))
    return format(Interval(value["value"], *ends), f"{sign}.{digits}f")


def _keys(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _keys(part)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's own, and what is undefined as None."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
