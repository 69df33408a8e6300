"""A grid of parameters over one lesson: a notebook a point, a run a training, resumed where it stopped, in one table."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from melanoma_lib.classroom.lesson import Lesson, Scalar, tags_of
from melanoma_lib.classroom.papermill import run_lesson
from melanoma_lib.errors import LessonError
from melanoma_lib.utils import in_project, replacing, write_text

DONE = "done.json"
METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "ppv")


class Point(NamedTuple):
    """One combination of the swept values, and what it leaves."""

    folder: Path
    varied: dict[str, Scalar]
    values: dict[str, Scalar]  # of all the lesson's parameters


def grid(lesson: Lesson, over: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], out: Path) -> list[Point]:
    """Every combination, checked before the first one runs; a LessonError says what does not fit.

    Points that differ in nothing that training sees share a run directory, so that it is trained once; where nothing of that
    kind is swept, all read the run that the lesson or ``fixed`` names.
    """
    if "run_dir" not in lesson.parameters:
        raise LessonError(f"{lesson.name} leaves no run to compare: it has no parameter run_dir; sweep 03_training")
    trained = _seen_by_training(lesson)
    if taken := sorted({"run_dir"} & (set(over) | (set(fixed) if trained & set(over) else set())) | (set(over) & set(fixed))):
        raise LessonError(f"{', '.join(taken)}: a sweep chooses run_dir itself, and a parameter is either swept or fixed")
    if not over or not all(over.values()):
        raise LessonError("nothing to sweep: expected --over name=value,value …")
    points = []
    for combination in itertools.product(*over.values()):
        values = lesson.with_defaults(dict(fixed) | dict(zip(over, combination, strict=True)))
        folder = out / f"{lesson.name}-{_digest(values)}"
        if trained & set(over):
            key = _digest({name: values[name] for name in trained})
            values["run_dir"] = str((out / f"{lesson.name}-run-{key}").resolve())
        elif not values["run_dir"]:
            raise LessonError("what is swept trains nothing, and run_dir is empty: name a run, such as -p run_dir runs/mine")
        points.append(Point(folder, {name: values[name] for name in over}, values))
    return points


def _seen_by_training(lesson: Lesson) -> set[str]:
    """Parameters that stand in some code before or in the last cell that trains: whatever they do there may shape the run."""
    cells = [cell.source for cell in lesson.notebook.cells if cell.cell_type == "code" and "parameters" not in tags_of(cell)]
    last = max((place for place, source in enumerate(cells) if re.search(r"(?<![.\w])train\(", source)), default=-1)
    before = "\n".join(cells[: last + 1])
    return {name for name in lesson.parameters if re.search(rf"\b{name}\b", before)} - {"run_dir"}


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def sweep(lesson: Lesson, points: Sequence[Point], out: Path, jobs: int = 1) -> pd.DataFrame:
    """Run the points that are not done yet, through joblib's current backend; the runs of all go into ``comparison.csv``.

    Returns:
        One row a point: swept values, status, and the test metrics with their 95% intervals; NaN where a point failed.
    """
    from joblib import Parallel, delayed

    first: dict[Scalar, Point] = {}  # of each run; it trains, if anything does, and the others wait for it
    for point in points:
        first.setdefault(point.values["run_dir"], point)
    for part in (first.values(), [point for point in points if point not in first.values()]):
        Parallel(n_jobs=jobs, verbose=10)(delayed(_run_point)(lesson.path, point) for point in part)
    table = pd.DataFrame([_row_of(point) for point in points])
    with replacing(out / "comparison.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


def _run_point(path: Path, point: Point) -> None:
    """Run one point, unless it is done and the lesson has not changed since."""
    lesson = Lesson(path)
    source = _digest([cell.source for cell in lesson.notebook.cells])
    if _record(point).get("source") == source and in_project(point.values["run_dir"]).is_dir():
        return
    outcome = run_lesson(lesson, point.folder, point.values, show_progress=False)
    record = {"status": outcome.status, "seconds": outcome.seconds} | ({"source": source} if outcome.ok else {})
    write_text(point.folder / DONE, json.dumps(record) + "\n")


def _row_of(point: Point) -> dict[str, Any]:
    from melanoma_lib.runs import Run

    row: dict[str, Any] = dict(point.varied) | {"status": _record(point).get("status", "not run")}
    metrics = Run(point.values["run_dir"]).metrics if row["status"] == "ok" else {}
    for name in METRICS:
        interval = (metrics | metrics.get("at_threshold", {})).get(name, {})
        row |= {f"{name}{end}": interval.get(key) for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}
    return row | {"run": str(point.values["run_dir"])}


def _record(point: Point) -> dict[str, Any]:
    try:
        return json.loads((point.folder / DONE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
