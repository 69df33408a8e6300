"""Results of studies: tables of numbers that name the code, the weights and the command that made them."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_lib.errors import StudyError
from melanoma_lib.settings import project_dir


@dataclass(frozen=True)
class ResultTable:
    """Numbers of one study, with where they come from.

    Attributes:
        name: of the study; also of its file.
        title: what the table shows, in a sentence.
        command: the command line that made it.
        rows: one dictionary a line; an interval is ``{"value", "low", "high"}``.
        notes: what a reader must know to read it rightly, a sentence each.
        details: further numbers that belong to the table as a whole, fit for JSON.
        made: day it was made, ISO 8601.
        machine: what it ran on.
        commit: of the code that made it, 40 hex digits, or ``unknown``.
        weights_sha256: digest of the weights of each run behind it, by the run's name; or ``unknown``.
        command_of: ``this kit`` if it still has the command, else ``its commit``.
    """

    name: str
    title: str
    command: str
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str]
    details: dict[str, Any]
    made: str
    machine: str
    commit: str
    weights_sha256: dict[str, str] | str
    command_of: str


def results_dir() -> Path:
    """Where the committed tables lie."""
    return project_dir() / "docs" / "results"


def load_results(name: str, folder: Path | str = "") -> ResultTable:
    """Read a table.

    Args:
        name: of the study.
        folder: looked into first; a table that is not there is the committed one. Empty: the committed ones.

    Raises:
        StudyError: if there is no such folder or table, or the file is none.
    """
    own = Path(folder).expanduser() if str(folder) else results_dir()
    if not own.is_dir():
        raise StudyError(f"{own}: expected a folder of result tables, found none")
    path = next((path for path in (own / f"{name}.json", results_dir() / f"{name}.json") if path.is_file()), None)
    if path is None:
        there = ", ".join(sorted(file.stem for file in (*own.glob("*.json"), *results_dir().glob("*.json")))) or "none"
        raise StudyError(f"there is no table {name} in {own}; tables: {there}")
    try:
        return ResultTable(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise StudyError(f"{path} is no result table: {error}") from error


def provenance(table: ResultTable) -> str:
    """Title, command, day, commit, weights and machine of a table, one line each, long ones broken."""
    weights = table.weights_sha256
    digests = weights if isinstance(weights, str) else ", ".join(f"{name} {digest[:12]}" for name, digest in weights.items())
    rows = {"title": table.title, "command": f"{table.command}  (of {table.command_of})", "made": table.made}
    rows |= {"commit": table.commit, "weights": digests, "machine": table.machine}
    return "\n".join(textwrap.fill(f"{key:<9}{text}", 100, subsequent_indent=" " * 9) for key, text in rows.items())
