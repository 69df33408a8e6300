"""A run on another collection: its stored threshold on cases it has not seen, and what a few local patients would mend."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit

from melanoma_lib.data.images import open_cache, stored_side
from melanoma_lib.errors import DataError, RunError
from melanoma_lib.evaluation import Interval, OperatingPoint, evaluate_predictions, group_bootstrap, summary_table
from melanoma_lib.evaluation.calibration import RISK_FLOOR, fit_logistic
from melanoma_lib.evaluation.inputs import check_scores, check_targets
from melanoma_lib.evaluation.intervals import group_codes
from melanoma_lib.inference import Predictor, prediction_device
from melanoma_lib.reports.comparison import with_intervals
from melanoma_lib.reports.report import Report, report_figures, write_report
from melanoma_lib.runs import Run
from melanoma_lib.runs.writer import prediction_table

MIN_CASES = 100  # melanomas, and others, that a validation needs (Vergouwe et al. 2005; Collins et al. 2016)
MIN_LOCAL = 20  # melanomas that an update of slope and intercept needs: ten a parameter (Peduzzi et al. 1996)
ENOUGH, TOO_FEW = "enough", "too few to say"
RATES = ("sensitivity", "specificity", "ppv", "npv")
CALIBRATION = ("brier", "slope", "intercept")


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
            pixels = open_cache(paths, stored_side(settings.image_size), cache_dir or settings.cache_dir, settings.progress)
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


def external_table(
    summaries: dict[str, dict], predictions: dict[str, pd.DataFrame], n: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """One model on its own collection and on another one.

    Args:
        summaries: by "internal" and "external", what ``evaluate_predictions`` says of each at the model's stored threshold.
        predictions: by the same names, the tables behind them.
        n: number of resamples behind observed_over_expected; the other intervals are those of the summaries.
        seed: of the resampling.

    Returns:
        A row a measure, the index: images, groups, melanomas, prevalence; auroc, average_precision; sensitivity, specificity,
        ppv and npv at the threshold; ppv and npv that the same sensitivity and specificity give at the prevalence of the
        internal and of the external collection; brier, slope, intercept and observed_over_expected of the risk. Columns:
        internal and external, each with ``_low`` and ``_high`` (NaN where unknown), and evidence: "enough", or "too few to
        say" where one of the collections has fewer than 100 of the cases that bear on the measure: melanomas on sensitivity,
        others on specificity, both on the rest. Empty for counts.
    """
    prevalences = {place: summary["prevalence"] for place, summary in summaries.items()}
    columns = {}
    for place, summary in summaries.items():
        point, table = summary["at_threshold"], predictions[place]
        counted = OperatingPoint(**{name: point[name] for name in ("threshold", "tp", "fp", "tn", "fn")})
        counts = {"images": summary["n"], "groups": summary["n_groups"], "melanomas": summary["n_melanoma"]}
        rows = {name: {"value": value} for name, value in (counts | {"prevalence": summary["prevalence"]}).items()}
        rows |= {name: summary[name] for name in ("auroc", "average_precision")} | {name: point[name] for name in RATES}
        for where, share in prevalences.items():
            rows |= {f"ppv_at_{where}_prevalence": {"value": counted.ppv_at(share)}}
            rows |= {f"npv_at_{where}_prevalence": {"value": counted.npv_at(share)}}
        rows |= {name: summary["calibration"]["risk"][name] for name in CALIBRATION}
        rows["observed_over_expected"] = asdict(_observed_over_expected(table, n, seed))
        for end, name in {"value": place, "low": f"{place}_low", "high": f"{place}_high"}.items():
            columns[name] = {measure: row.get(end) for measure, row in rows.items()}
    found = pd.DataFrame(columns).astype(float)
    melanomas = min(summary["n_melanoma"] for summary in summaries.values())
    others = min(summary["n"] - summary["n_melanoma"] for summary in summaries.values())
    bearing = {name: min(melanomas, others) for name in found.index} | {"sensitivity": melanomas, "specificity": others}
    bearing |= dict.fromkeys(("images", "groups", "melanomas", "prevalence"))
    found["evidence"] = ["" if n is None else ENOUGH if n >= MIN_CASES else TOO_FEW for n in bearing.values()]
    return found.rename_axis("measure")


def recalibration_table(
    predictions: pd.DataFrame, sizes: Sequence[int] = (20, 50, 100), draws: int = 100, seed: int = 0
) -> pd.DataFrame:
    """What a model's calibration becomes if it is updated on few local patients: repeated draws, tested on all other patients.

    Args:
        predictions: of the other collection: group_id, target and risk, one row an image.
        sizes: patients (or lesions: groups) to draw, without replacement.
        draws: repetitions of each size.
        seed: of the draws.

    Returns:
        Three rows a size: ``update`` none, intercept (moves all log-odds alike), and slope and intercept. ``usable`` is the
        share of draws in which the update exists: both classes drawn, not separated, and a slope above 0; and in which the
        others have a slope. Of these, medians: melanomas (drawn), brier, slope and intercept on the others, the latter three
        with ``_low`` and ``_high``, the 2.5th and 97.5th percentile over draws; NaN where none is usable. ``evidence``: "too few
        to say" below 20 melanomas drawn (ten a parameter) or 100 melanomas or others left to test on, in the median draw, or
        where fewer than half of the draws are usable.

    Raises:
        ValueError: for risks outside [0, 1], NaN, one class only, or mismatched input.
    """
    answers = check_targets(predictions["target"])
    risk = check_scores(predictions["risk"], answers.size, "risk", unit_interval=True)
    codes, n_groups = group_codes(predictions["group_id"], answers.size)
    log_odds, y = logit(np.clip(risk, RISK_FLOOR, 1 - RISK_FLOOR)), answers.astype(float)
    rng, rows = np.random.default_rng(seed), []
    for size in sizes:
        tried = {"none": [], "intercept": [], "slope and intercept": []}
        for _ in range(draws if size < n_groups else 0):
            local = np.isin(codes, rng.permutation(n_groups)[:size])
            left = int(answers[~local].sum())
            counts = [answers[local].sum(), min(left, (~local).sum() - left)]
            slope_left, intercept_left = _fit(log_odds[~local], y[~local])
            for update, (slope, intercept) in _updates(log_odds[local], y[local]).items():
                brier = np.mean((expit(slope * log_odds[~local] + intercept) - y[~local]) ** 2)
                # The others' own fit, on the scale of the updated log-odds.
                moved = (slope_left / slope, intercept_left - slope_left / slope * intercept) if slope > 0 else (np.nan, np.nan)
                tried[update].append([*counts, brier, *moved])
        for update, numbers in tried.items():
            found = np.array(numbers).reshape(-1, 5)
            found = found[np.isfinite(found).all(axis=1)]
            row = {"patients": size, "update": update, "usable": len(found) / draws}
            low, middle, high = np.quantile(found, (0.025, 0.5, 0.975), axis=0) if len(found) else np.full((3, 5), np.nan)
            row["melanomas"] = middle[0]
            for place, name in enumerate(CALIBRATION, start=2):
                row |= {name: middle[place], f"{name}_low": low[place], f"{name}_high": high[place]}
            enough = (middle[0] >= MIN_LOCAL or update == "none") and middle[1] >= MIN_CASES and row["usable"] >= 0.5
            rows.append(row | {"evidence": ENOUGH if enough else TOO_FEW})
    return pd.DataFrame(rows)


def _observed_over_expected(table: pd.DataFrame, n: int, seed: int) -> Interval:
    """Melanomas over the sum of the risks, 1 if calibrated in the large, resampling whole groups."""
    sums = table.groupby("group_id")[["target", "risk"]].sum().to_numpy(float)  # (G, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Interval.from_replicates(*group_bootstrap(lambda drawn: np.divide(*(drawn @ sums).T), len(sums), n, seed))


def _updates(log_odds: np.ndarray, y: np.ndarray) -> dict[str, tuple[float, float]]:
    """Slope and intercept of each update, NaN where it does not exist."""
    shift = np.nan
    if 0 < y.sum() < y.size:  # the maximum-likelihood shift makes the sum of the risks the number of melanomas
        shift = brentq(lambda by: (expit(log_odds + by) - y).sum(), -100, 100)
    return {"none": (1.0, 0.0), "intercept": (1.0, shift), "slope and intercept": _fit(log_odds, y)}


def _fit(log_odds: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    (slope,), (intercept,) = fit_logistic(log_odds, y, np.ones((1, y.size)))
    return float(slope), float(intercept)
