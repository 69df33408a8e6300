"""A run on another collection: its own stored threshold and calibration, on cases that it has not seen."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from melanoma_lib.data.cache import open_cache
from melanoma_lib.data.images import stored_side
from melanoma_lib.errors import DataError, RunError
from melanoma_lib.evaluation import evaluate_predictions, external_table, recalibration_table, summary_table
from melanoma_lib.inference import Predictor, prediction_device
from melanoma_lib.reports.comparison import with_intervals
from melanoma_lib.reports.report import Report, report_figures, write_report
from melanoma_lib.runs import Run
from melanoma_lib.runs.writer import prediction_table
from melanoma_lib.utils import progress_bar


def evaluate_external(run: Run, cases: pd.DataFrame, cache_dir: Path | None = None) -> Report:
    """Evaluate a run on another collection at its own stored threshold and calibration, beside its own test cases.

    Cases that the run's own table holds (for training, validation or test), or whose lesion or patient it names, are left out.

    Args:
        run: a finished run; of a cross-validation, the models of all folds are averaged.
        cases: of the other collection, as ``load_cases`` gives them.
        cache_dir: for decoded images; default: that of the run.

    Returns:
        The report; its summary holds left_out (reason: cases), external (as ``evaluate_predictions``), comparison and
        recalibration (rows of ``external_table`` and ``recalibration_table``). Its folder, ``evaluation-<source>`` in the run
        directory, holds the same as JSON, the text, the two tables as CSV and the figures.

    Raises:
        DataError: if nothing new is left, or only one class.
        RunError: if a fold's calibration or threshold cannot be averaged.
        ForeignThresholdError: if the stored operating point belongs to another model.
    """
    source, seen = cases.attrs.get("source", "external"), seen_cases(run.splits, cases)
    left_out = {"in the run's own table": int(seen.sum()), "image absent": cases.attrs.get("dropped_images", 0)}
    new = cases[~seen].reset_index(drop=True)
    if new["target"].nunique() < 2:
        raise DataError(
            f"{run.path}: of {len(cases)} cases of {source} {seen.sum()} are in the run's own table; the other {len(new)} hold "
            f"{new['target'].sum()} melanomas; expected melanomas and other lesions that the run has not seen"
        )
    predictions = {"internal": run.predictions("test"), "external": predict_cases(run, new, cache_dir)}
    threshold, n = run.operating_point.threshold, run.settings.n_resamples
    summaries = {"internal": run.metrics, "external": evaluate_predictions(predictions["external"], threshold, n)}
    table, updated = external_table(summaries, predictions, n), recalibration_table(predictions["external"])
    rows = {"comparison": table.reset_index(), "recalibration": updated}
    shown, counts = with_intervals(table), ["images", "groups", "melanomas"]
    for place in predictions:
        shown.loc[counts, place] = table.loc[counts, place].map("{:,.0f}".format)
    text = "\n".join(
        [
            f"{run.path.name} on {source}; threshold: {run.operating_point.rule}\n",
            pd.Series(left_out, name="images").to_frame("left out").to_string(),
            f"\nInternal ({run.settings.source}, test) and external\n{shown.to_string()}",
            f"\nRecalibrated on a few patients, tested on the others: median and 95% range over draws\n"
            f"{with_intervals(updated).to_string(index=False)}",
            f"\nExternal\n{summary_table(summaries['external'])}",
        ]
    )
    records = {name: json.loads(part.to_json(orient="records")) for name, part in rows.items()}
    summary = {"left_out": left_out, "external": summaries["external"]} | records
    figures = report_figures(predictions["external"], summaries["external"], threshold)
    return write_report(run.path / f"evaluation-{source}", summary, text, figures, rows)


def seen_cases(splits: pd.DataFrame, cases: pd.DataFrame) -> pd.Series:
    """Which cases a run's own table holds, or whose lesion or patient it names.

    Args:
        splits: of the run: image_id and group_id (``patient:...``, ``lesion:...``) of each of its cases.
        cases: a case table.
    """
    plain = cases["image_id"].str.removesuffix("_downsampled")  # as ISIC 2019 marks what it shrank
    found = plain.isin(splits["image_id"].str.removesuffix("_downsampled"))
    for unit in ("lesion", "patient"):
        found |= (f"{unit}:" + cases[f"{unit}_id"]).isin(splits["group_id"])
    return found | cases["group_id"].isin(splits["group_id"])


def predict_cases(run: Run, cases: pd.DataFrame, cache_dir: Path | None = None) -> pd.DataFrame:
    """A run's predictions of any cases, of whatever source, prepared as its own test cases were.

    Args:
        run: a finished run. Of a cross-validation all folds answer: ``risk`` is that of their mean calibrated log-odds, and
            ``probability`` says how far, on average, a case lies above the folds' own thresholds, on the scale of the run's.
        cases: a validated case table; with image files if the run has an image branch.
        cache_dir: for decoded images; default: that of the run.

    Returns:
        As ``Run.predictions``, in the order of the cases.

    Raises:
        RunError: if a fold's calibration has a slope of 0, or its threshold flags everybody or nobody.
        DataError: if an image is absent or cannot be decoded.
    """
    if not run.is_cross_validation:
        shown, settings = cases, run.settings
        if "image" in settings.modalities:
            paths = [Path(path) for path in cases["image_path"]]
            with progress_bar("decoding images, once", len(paths), settings.progress) as advance:
                pixels = open_cache(paths, stored_side(settings.image_size), cache_dir or settings.cache_dir, advance)
            shown = cases.assign(image_path=list(pixels))  # (N, H, H, 3) on disk -> N views of it
        answers = Predictor(run, model=run.model().to(prediction_device())).predict_cases(shown)
        return prediction_table(cases, answers["logit"].to_numpy(), run.calibrator)
    margins, log_odds = [], []
    for fold in run.folds:
        calibrator, threshold = fold.calibrator, fold.operating_point.threshold
        if calibrator.slope <= 0 or not 0 < threshold < 1:
            raise RunError(
                f"{fold.path}: slope {calibrator.slope:.3g}, threshold {threshold:.3g}; such a model ranks or decides nothing"
            )
        table = predict_cases(fold, cases, cache_dir)
        margins.append(calibrator.slope * (table["logit"] - logit(threshold)))
        log_odds.append(calibrator.slope * table["logit"] + calibrator.intercept)
    logits = np.mean(margins, axis=0) + logit(run.operating_point.threshold)
    return table.assign(logit=logits, probability=expit(logits), risk=expit(np.mean(log_odds, axis=0)))
