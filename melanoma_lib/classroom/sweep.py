"""A grid of parameters over one lesson: every point a run of its own, resumed where it stopped, gathered into one table."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_lib.classroom.lesson import Lesson, Scalar
from melanoma_lib.classroom.papermill import run_lesson
from melanoma_lib.errors import LessonError
from melanoma_lib.evaluation.canvas import BLUE, DescribedFigure, describe, kit_figure
from melanoma_lib.utils import replacing, write_text

DONE = "done.json"
SHOWN = {"auroc": "AUROC", "average_precision": "average precision"}
AT_POINT = ("sensitivity", "specificity", "ppv")


@dataclass(frozen=True)
class Point:
    """One combination of the swept values.

    Attributes:
        folder: what this point leaves.
        varied: the swept values.
        values: of all the lesson's parameters.
    """

    folder: Path
    varied: dict[str, Scalar]
    values: dict[str, Scalar]


def grid(lesson: Lesson, over: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], out: Path) -> list[Point]:
    """Every combination, checked before the first one runs; each trains in a run directory of its own.

    Args:
        lesson: with a parameter ``run_dir``.
        over: values to sweep, by parameter.
        fixed: values that all points share.
        out: folder of the sweep.

    Raises:
        LessonError: for an unknown parameter, an ill-typed value, an empty grid, or a lesson without ``run_dir``.
    """
    if "run_dir" not in lesson.parameters:
        raise LessonError(f"{lesson.name} leaves no run to compare: it has no parameter run_dir; sweep 03_training")
    if taken := sorted({"run_dir"} & (set(over) | set(fixed)) | (set(over) & set(fixed))):
        raise LessonError(f"{', '.join(taken)}: a sweep chooses run_dir itself, and a parameter is either swept or fixed")
    if not over or not all(over.values()):
        raise LessonError("nothing to sweep: expected --over name=value,value …")
    points = []
    for combination in itertools.product(*over.values()):
        values = lesson.with_defaults(dict(fixed) | dict(zip(over, combination, strict=True)))
        varied = {name: values[name] for name in over}
        key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
        folder = out / f"{lesson.name}-{key}"
        points.append(Point(folder, varied, values | {"run_dir": str((folder / "run").resolve())}))
    return points


def sweep(lesson: Lesson, points: Sequence[Point], out: Path, jobs: int = 1) -> pd.DataFrame:
    """Run the points that are not done yet, through joblib, and compare the runs of all.

    The backend is joblib's current one: inside :func:`workers` or ``joblib.parallel_config("ray")`` the points go there.

    Args:
        lesson: what to run at every point.
        points: from :func:`grid`.
        out: where ``comparison.csv``, ``comparison.md`` and ``comparison.png`` go.
        jobs: points at a time.

    Returns:
        One row a point: swept values, status, and the test metrics with their 95% intervals; NaN where a point failed.
    """
    from joblib import Parallel, delayed

    Parallel(n_jobs=jobs)(delayed(run_point)(lesson.path, point) for point in points)
    table = pd.DataFrame([row_of(point) for point in points])
    with replacing(out / "comparison.csv") as temporary:
        table.to_csv(temporary, index=False)
    write_text(out / "comparison.md", as_markdown(table) + "\n")
    if table["auroc"].notna().any():
        with replacing(out / "comparison.png") as temporary:
            comparison_figure(table).savefig(temporary, format="png", dpi=110)
    return table


def run_point(path: Path, point: Point) -> None:
    """Run one point, unless it is done and the lesson has not changed since."""
    lesson = Lesson(path)
    source = hashlib.sha256("\n".join(cell.source for cell in lesson.notebook.cells).encode()).hexdigest()
    if _record(point).get("source") == source:
        return
    outcome = run_lesson(lesson, point.folder, point.values, show_progress=False)
    record = {"status": outcome.status, "seconds": outcome.seconds} | ({"source": source} if outcome.ok else {})
    write_text(point.folder / DONE, json.dumps(record) + "\n")


def row_of(point: Point) -> dict[str, Any]:
    """The point's line of the comparison."""
    from melanoma_lib.runs import Run

    row: dict[str, Any] = dict(point.varied) | {"status": _record(point).get("status", "not run")}
    numbers: dict[str, Any] = {}
    if row["status"] == "ok":
        metrics = Run(point.values["run_dir"]).metrics
        numbers = {name: metrics[name] for name in SHOWN} | {name: metrics["at_threshold"][name] for name in AT_POINT}
    for name in (*SHOWN, *AT_POINT):
        interval = numbers.get(name) or {}
        row |= {name: interval.get("value"), f"{name}_low": interval.get("low"), f"{name}_high": interval.get("high")}
    return row | {"run": str(point.values["run_dir"])}


def as_markdown(table: pd.DataFrame) -> str:
    """The comparison as a table to read; intervals in brackets."""
    metrics = [*SHOWN, *AT_POINT]
    varied = list(table.columns[: list(table.columns).index("status")])
    lines = ["| " + " | ".join([*varied, *(SHOWN.get(name, name) for name in metrics), "status"]) + " |"]
    lines.append("|" + "---|" * (len(varied) + len(metrics) + 1))
    for _, row in table.iterrows():
        cells = [str(row[name]) for name in varied]
        for name in metrics:
            known = pd.notna(row[name])
            cells.append(f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]" if known else "")
        lines.append("| " + " | ".join([*cells, row["status"]]) + " |")
    return "\n".join(lines)


def comparison_figure(table: pd.DataFrame) -> DescribedFigure:
    """Test AUROC of every point with its interval, best on top."""
    varied = list(table.columns[: list(table.columns).index("status")])
    shown = table[table["auroc"].notna()].astype({"auroc": float}).sort_values("auroc")
    labels = [", ".join(f"{name}={row[name]}" for name in varied) for _, row in shown.iterrows()]
    with kit_figure(9, 1.6 + 0.45 * len(shown)) as figure:
        axes = figure.subplots()
        spread = [shown["auroc"] - shown["auroc_low"].astype(float), shown["auroc_high"].astype(float) - shown["auroc"]]
        axes.errorbar(shown["auroc"], range(len(shown)), xerr=spread, fmt="o", color=BLUE, capsize=4)
        axes.set_yticks(range(len(shown)), labels)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set(xlabel="test AUROC (95% interval, whole groups resampled)", title=f"{len(shown)} runs, best on top")
    best = shown.iloc[-1]
    return describe(figure, f"Test AUROC of {len(shown)} runs; the best is {labels[-1]} with {best['auroc']:.3f} "
                            f"[{best['auroc_low']:.3f}, {best['auroc_high']:.3f}].")  # fmt: skip


def _record(point: Point) -> dict[str, Any]:
    try:
        return json.loads((point.folder / DONE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
