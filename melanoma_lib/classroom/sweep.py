"""A grid of parameters over one lesson: a notebook a point, a run a training, resumed where it stopped, in one table."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from melanoma_lib.classroom.lesson import Lesson, Scalar
from melanoma_lib.classroom.papermill import run_lesson
from melanoma_lib.errors import LessonError
from melanoma_lib.utils import write_text

DONE = "done.json"
METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "ppv")


class Point(NamedTuple):
    """One combination of the swept values, and the folder for what it leaves."""

    folder: Path
    varied: dict[str, Scalar]
    values: dict[str, Scalar]  # of all the lesson's parameters


def grid(lesson: Lesson, over: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], out: Path) -> list[Point]:
    """Every combination, each to train a run of its own, checked before the first one runs; a LessonError if one does not fit."""
    code = "\n".join(cell.source for cell in lesson.notebook.cells if cell.cell_type == "code")
    if "run_dir" not in lesson.parameters or not re.search(r"(?<![.\w])train\(", code):
        raise LessonError(f"{lesson.name} trains no run to compare into its parameter run_dir; sweep 03_training")
    if len({*over, *fixed, "run_dir"}) <= len(over) + len(fixed):
        raise LessonError("a sweep chooses run_dir itself, and a parameter is either swept or fixed")
    points = []
    for combination in itertools.product(*over.values()):
        values = lesson.with_defaults(dict(fixed) | dict(zip(over, combination, strict=True)))
        folder = out / f"{lesson.name}-{_digest(values)}"
        values["run_dir"] = str((folder / "run").resolve())
        points.append(Point(folder, {name: values[name] for name in over}, values))
    return points


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def sweep(lesson: Lesson, points: Sequence[Point], out: Path, jobs: int = 1) -> pd.DataFrame:
    """Run the points that are not done yet, through joblib's current backend; all go into ``comparison.csv``.

    A row a point: swept values, status, and the test metrics with their 95% intervals; NaN where a point failed.
    """
    from joblib import Parallel, delayed

    Parallel(n_jobs=jobs, verbose=10)(delayed(_run_point)(lesson.path, point) for point in points)
    table = pd.DataFrame([_row_of(point) for point in points])
    write_text(out / "comparison.csv", table.to_csv(index=False))
    return table


def _run_point(path: Path, point: Point) -> None:
    """Run one point, unless it is done and the lesson has not changed since."""
    lesson = Lesson(path)
    source = _digest([cell.source for cell in lesson.notebook.cells])
    done = point.folder / DONE
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")).get("source") == source:
        return
    outcome = run_lesson(lesson, point.folder, point.values, show_progress=False)
    record = {"status": outcome.status, "seconds": outcome.seconds} | ({"source": source} if outcome.ok else {})
    write_text(done, json.dumps(record) + "\n")


def _row_of(point: Point) -> dict[str, Any]:
    from melanoma_lib.runs import Run

    row: dict[str, Any] = point.varied | {"status": json.loads((point.folder / DONE).read_text(encoding="utf-8"))["status"]}
    metrics = Run(point.values["run_dir"]).metrics if row["status"] == "ok" else {}
    for name in METRICS:
        interval = (metrics | metrics.get("at_threshold", {})).get(name, {})
        row |= {f"{name}{end}": interval.get(key) for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}
    return row | {"run": str(point.values["run_dir"])}
