"""The headline: what a cross-validation says of a recipe, as a table that may be quoted.

Educational, not for diagnosis.
"""

from typing import Any

from melanoma_lib.errors import StudyError
from melanoma_lib.reports import evaluate_run
from melanoma_lib.runs import Run
from melanoma_lib.studies.backbones import command_of
from melanoma_lib.studies.results import ResultTable, interval_text

ONE, EIGHT = "one view", "eight views, averaged"
COLUMNS = {
    "auroc": "AUROC, mean of folds",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier",
    "slope": "calibration slope",
}


def folds_table(run: Run, views: bool = False) -> ResultTable:
    """Out-of-fold figures of a cross-validation.

    Args:
        run: a gathered one.
        views: also with the mean of eight views of each image, which takes eight times as long; a run that was trained with
            ``tta`` predicts so already and has no other row.

    Raises:
        StudyError: if the run is no cross-validation.
    """
    if not run.is_cross_validation:
        raise StudyError(f"{run.path} is one training; train --folds 5 makes a cross-validation")
    rows = [_row(EIGHT if run.settings.tta else ONE, run.metrics)]
    if views and not run.settings.tta:
        rows.append(_row(EIGHT, evaluate_run(run, tta=True).summary))
    minutes = [float(fold.history["seconds"].sum()) / 60 for fold in run.folds]
    settings, metrics = run.settings, run.metrics
    return ResultTable(
        name="folds",
        title=f"{settings.backbone} at {settings.image_size} px on {settings.source}, {len(minutes)} folds",
        command=command_of(settings, places=False),
        rows=rows,
        notes=[
            f"{metrics['n']:,} images of {metrics['n_groups']:,} patients or lesions, {metrics['n_melanoma']:,} of the images "
            "melanomas; each predicted by a model that has not seen its patient or lesion. Intervals (95%) resample patients or "
            "lesions; they do not hold the luck of the seed.",
            "Early stopping, calibration and threshold of each fold come from its own validation cases, where the threshold "
            f"reaches {settings.min_sensitivity:.0%} sensitivity; those of the table are of the tested cases.",
        ],
        details={
            "auroc_by_fold": metrics["auroc_by_fold"],
            "auroc_pooled": metrics["auroc_pooled"],
            "minutes_by_fold": minutes,
            "threads": run.environment["threads"],
            "n": metrics["n"],
            "n_melanomas": metrics["n_melanoma"],
        },
    )


def _row(name: str, summary: dict[str, Any]) -> dict[str, Any]:
    calibrated, point = summary["calibration"]["risk"], summary["at_threshold"]
    return {
        "name": name,
        **{key: summary[key] for key in ("auroc", "average_precision")},
        **{key: point[key] for key in ("sensitivity", "specificity")},
        **{key: calibrated[key] for key in ("brier", "slope")},
    }


def folds_markdown(table: ResultTable) -> str:
    """The table in Markdown, with how far the folds lie apart."""
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += ["| " + " | ".join([row["name"], *(interval_text(row[key]) for key in COLUMNS)]) + " |" for row in table.rows]
    by_fold = [fold["value"] for fold in table.details["auroc_by_fold"]]
    minutes = table.details["minutes_by_fold"]
    return "\n".join(
        [
            *lines,
            "",
            f"The folds' AUROCs run from {min(by_fold):.3f} to {max(by_fold):.3f}; ranked as if by one model, all cases have "
            f"{interval_text(table.details['auroc_pooled'])}. A fold took {min(minutes):.0f} to {max(minutes):.0f} minutes on "
            f"{table.details['threads']} thread(s).",
            "",
            *(f"- {note}" for note in table.notes),
        ]
    )
