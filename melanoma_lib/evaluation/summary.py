"""One set of predictions in, everything a report needs out: as JSON and as a table for the terminal."""

import io
import math

import numpy as np
import pandas as pd

from melanoma_lib.evaluation.calibration import bootstrap_calibration, expected_calibration_error
from melanoma_lib.evaluation.inputs import check_scores, check_targets
from melanoma_lib.evaluation.intervals import RATES, bootstrap_intervals
from melanoma_lib.evaluation.operating import OperatingCurve
from melanoma_lib.evaluation.subgroups import METRICS, require_columns, subgroup_table

NOTE = "Educational, not for diagnosis."
CALIBRATION_RESAMPLES = 500  # each is a regression of its own


def evaluate_predictions(predictions: pd.DataFrame, threshold: float, n: int = 2000, seed: int = 0) -> dict:
    """Everything the kit reports about one set of predictions, with 95% intervals that resample whole groups.

    Args:
        predictions: one row an image: image_id, group_id, target, probability (sigmoid of the logit), risk (calibrated),
            and any of sex, age_approx, anatom_site_general_challenge for the subgroups.
        threshold: chosen on other data; ``probability >= threshold`` is called melanoma.
        n: number of resamples (of calibration fits at most 500).
        seed: of the resampling.

    Returns:
        Fit for JSON, undefined numbers as None: note, n, n_groups, n_melanoma, prevalence, resampling, auroc,
        average_precision, at_half and at_threshold (threshold, tp, fp, tn, fn, biopsies_per_melanoma and each rate as
        an interval), calibration (of probability and of risk: brier, slope, intercept as intervals, ece), subgroups.

    Raises:
        ValueError: for missing columns, an empty table, an image twice, one class only, or numbers out of range.
    """
    require_columns(predictions, ("image_id", "group_id", "target", "probability", "risk"))
    twice = predictions["image_id"][predictions["image_id"].duplicated()]
    if len(twice):
        raise ValueError(f"predictions: expected each image once, got {twice.iloc[0]!r} again ({len(twice)} in all)")
    targets, groups = check_targets(predictions["target"]), predictions["group_id"].to_numpy()
    probability, risk = (check_scores(predictions[k], targets.size, k, unit_interval=True) for k in ("probability", "risk"))

    half = bootstrap_intervals(targets, probability, groups, 0.5, n, seed)
    chosen = bootstrap_intervals(targets, probability, groups, threshold, n, seed)
    brier = {"probability": half["brier"], "risk": bootstrap_intervals(targets, risk, groups, None, n, seed)["brier"]}
    curve = OperatingCurve(targets, probability)

    def at(cut: float, intervals: dict) -> dict:
        point = curve.at(cut).to_dict()
        kept = {name: point[name] for name in ("threshold", "tp", "fp", "tn", "fn", "biopsies_per_melanoma")}
        return kept | {name: intervals[name].to_dict() for name in RATES}

    def calibration(name: str, values: np.ndarray) -> dict:
        fits = bootstrap_calibration(values, targets, groups, min(n, CALIBRATION_RESAMPLES), seed)
        numbers = {"brier": brier[name].to_dict()} | {key: fit.to_dict() for key, fit in fits.items()}
        return numbers | {"ece": expected_calibration_error(values, targets)}

    table = subgroup_table(predictions, threshold, n=n, seed=seed)
    return {
        "note": NOTE,
        "n": len(predictions),
        "n_groups": int(predictions["group_id"].nunique()),
        "n_melanoma": curve.n_positive,
        "prevalence": curve.prevalence,
        "resampling": {"unit": "group_id", "n": n, "seed": seed, "level": 0.95},
        "auroc": half["auroc"].to_dict(),
        "average_precision": half["average_precision"].to_dict(),
        "at_half": at(0.5, half),
        "at_threshold": at(threshold, chosen),
        "calibration": {"probability": calibration("probability", probability), "risk": calibration("risk", risk)},
        "subgroups": [
            {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
            for row in table.to_dict("records")
        ],
    }


def summary_table(summary: dict) -> str:
    """The summary of `evaluate_predictions` as text of 100 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    resampling = summary["resampling"]
    console = Console(width=100, file=io.StringIO(), color_system=None, legacy_windows=False)
    console.print(
        f"{summary['n']:,} images, {summary['n_melanoma']:,} melanomas ({summary['prevalence']:.1%}), "
        f"{summary['n_groups']:,} patients or lesions"
    )
    half, chosen = summary["at_half"], summary["at_threshold"]

    def table(title: str, *headings: str) -> Table:
        frame = Table(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, title_justify="left")
        for heading in headings:
            frame.add_column(heading, no_wrap=True)
        return frame

    score = summary.get("score")  # of several models
    cut = "score" if score else "probability"
    decisions = table("Decisions", "", f"{cut} >= 0.5", f"{cut} >= {chosen['threshold']:.4g} (chosen)")
    decisions.add_row("TP / FP / TN / FN", *(" / ".join(str(p[k]) for k in ("tp", "fp", "tn", "fn")) for p in (half, chosen)))
    for name in RATES:
        decisions.add_row(_title(name), _text(half[name]), _text(chosen[name]))
    decisions.add_row("Biopsies per melanoma", *(_number(p["biopsies_per_melanoma"], 1) for p in (half, chosen)))

    calibration = table("Calibration", "", score or "probability (sigmoid of the logit)", "risk (calibrated)")
    columns = [summary["calibration"][name] for name in ("probability", "risk")]
    for name in ("brier", "slope", "intercept"):
        calibration.add_row(_title(name), *(_text(column[name]) for column in columns))
    calibration.add_row("ECE, 10 equal-count bins", *(_number(column["ece"]) for column in columns))

    ranking = table("Ranking", "", "value")
    for name in ("auroc", "average_precision"):
        ranking.add_row(_title(name), _text(summary[name]))

    subgroups = table(f"Subgroups at {chosen['threshold']:.4g}", "", "n", "melanoma", *map(_title, METRICS))
    for row in summary["subgroups"]:
        cells = [_text({"value": row[m], "low": row[f"{m}_low"], "high": row[f"{m}_high"]}, 2) for m in METRICS]
        mark = " *" if row["note"] else ""
        label = "all" if row["variable"] == "all" else f"{row['variable']} {row['subgroup']}"
        subgroups.add_row(label + mark, f"{row['n']:,}", f"{row['n_melanoma']:,}", *cells)

    for part in (ranking, decisions, calibration, subgroups):
        console.print()
        console.print(part)
    if any(row["note"] for row in summary["subgroups"]):
        console.print(
            "* few patients or lesions, or one class: Wilson intervals, none for AUROC; a dash is undefined", highlight=False
        )
    console.print(
        f"\n{resampling['level']:.0%} intervals resample patients or lesions ({resampling['unit']}), {resampling['n']:,} "
        f"times, never single images.\n{summary['note']}",
        highlight=False,
    )
    return console.file.getvalue()


def _title(name: str) -> str:
    capitals = {"auroc": "AUROC", "ppv": "PPV", "npv": "NPV", "f1": "F1", "mcc": "MCC"}
    return capitals.get(name, name.replace("_", " ").capitalize())


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _text(interval: dict, digits: int = 3) -> str:
    value, low, high = (_number(interval[end], digits) for end in ("value", "low", "high"))
    return value if "-" in (low, high) else f"{value} [{low}, {high}]"
