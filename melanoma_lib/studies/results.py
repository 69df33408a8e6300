"""Results of studies: tables of numbers that name the code, the weights and the command that made them."""

import json
import math
import platform
import subprocess
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from melanoma_lib.errors import StudyError
from melanoma_lib.runs import CHECKPOINT, Run, sha256
from melanoma_lib.settings import project_dir
from melanoma_lib.utils import write_text

# What tells one case from another, or what was said of it, has no place in a table that anybody may read.
PRIVATE = {"image_id", "lesion_id", "patient_id", "group_id", "image_path", "mask_path", "target", "logit", "probability", "risk"}
UNKNOWN = "unknown"


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
        commit: of the code that made it, 40 hex digits, with ``+changes`` if files differed from it; or ``unknown``.
        weights_sha256: digest of the weights of each run behind it, by the run's name; or ``unknown``.
        command_of: ``this kit`` if it still has the command, else ``its commit``.
    """

    name: str
    title: str
    command: str
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str] = ()
    details: dict[str, Any] = field(default_factory=dict)
    made: str = field(default_factory=lambda: date.today().isoformat())
    machine: str = field(default_factory=lambda: describe_machine())
    commit: str = field(default_factory=lambda: current_commit())
    weights_sha256: dict[str, str] | str = UNKNOWN
    command_of: str = "this kit"


def describe_machine() -> str:
    """Processor architecture, number of cores, graphics card and PyTorch of this machine, in one line."""
    import os

    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"


def current_commit() -> str:
    """Commit of the code that runs, ``+changes`` where tracked files differ from it, ``unknown`` outside a git checkout."""
    package = Path(__file__).parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # an installed copy may lie inside a checkout of something else
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN


def weights_of(runs: Iterable[Run]) -> dict[str, str]:
    """SHA-256 of the checkpoint of each run, by the run's name; a cross-validation stands for its folds."""
    single = [one for run in runs for one in (run.folds if run.is_cross_validation else [run])]
    return {run.path.name: sha256(run.path / CHECKPOINT) for run in single}


def results_dir() -> Path:
    """Where the committed tables lie."""
    return project_dir() / "docs" / "results"


def save_results(table: ResultTable, folder: Path) -> Path:
    """Write a table as ``NAME.json``.

    Raises:
        StudyError: if a key names something of single cases, or a number is not finite.
    """
    value = asdict(table)
    if private := sorted(PRIVATE & (set(_keys(value["rows"])) | set(_keys(value["details"])))):
        raise StudyError(f"a result table holds numbers of groups, never of single cases; leave out {', '.join(private)}")
    try:
        text = json.dumps(_plain(value), indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StudyError(f"result table {table.name}: expected text and finite numbers or None; {error}") from error
    path = folder / f"{table.name}.json"
    write_text(path, text + "\n")
    return path


def load_results(name: str, folder: Path | str = "") -> ResultTable:
    """Read a table that ``save_results`` wrote.

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
