"""A run on another collection: its stored threshold and calibration on cases it has not seen."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from melanoma_lib.data.images import open_cache, stored_side
from melanoma_lib.errors import DataError, RunError
from melanoma_lib.evaluation import Interval, OperatingPoint, evaluate_predictions, group_bootstrap, summary_table
from melanoma_lib.evaluation.intervals import with_intervals
from melanoma_lib.inference import Predictor, prediction_device
from melanoma_lib.reports.report import Report, report_figures, write_report
from melanoma_lib.runs import Run
from melanoma_lib.runs.writer import prediction_table

MIN_CASES = 100  # melanomas, and others, that a validation needs (Vergouwe et al. 2005; Collins et al. 2016)
RATES = ("sensitivity", "specificity", "ppv", "npv")


def evaluate_external(run: Run, cases: pd.DataFrame, cache_dir: Path | None = None) -> Report:
    """Evaluate a run on another collection at its own stored threshold and calibration, beside its own test cases.

    Cases that the run's own table holds (for training, validation or test), or whose lesion or patient it names, are left out;
    DataError if the others hold no melanoma or nothing else.

    Args:
        run: a finished run; of a cross-validation, the models of all folds are averaged.
        cases: of the other collection, as ``load_cases`` gives them.
        cache_dir: for decoded images; default: that of the run.

    The summary holds left_out (reason: cases), external (as ``evaluate_predictions``) and comparison (of ``external_table``).
    The folder is ``evaluation-<source>`` in the run directory.
    """
    source, seen = cases.attrs.get("source", "external"), seen_cases(run.splits, cases)
    left_out = {"in the run's own table": int(seen.sum()), "image absent": cases.attrs.get("dropped_images", 0)}
    new = cases[~seen].reset_index(drop=True)
    if new["target"].nunique() < 2:
        known = f"of {len(cases)} cases of {source} {seen.sum()} are in the run's own table; the other {len(new)}"
        raise DataError(f"{run.path}: {known} hold {new['target'].sum()} melanomas; expected both classes among what is new")
    predictions = {"internal": run.predictions("test"), "external": predict_cases(run, new, cache_dir)}
    threshold, n = run.operating_point.threshold, run.settings.n_resamples
    summaries = {"internal": run.metrics, "external": evaluate_predictions(predictions["external"], threshold, n)}
    if run.is_cross_validation:
        summaries["external"]["score"] = "score, folds averaged"
    table = external_table(summaries, predictions, n)
    shown, counts = with_intervals(table), ["images", "groups", "melanomas"]
    for place in predictions:
        shown.loc[counts, place] = table.loc[counts, place].map("{:,.0f}".format)
    tested = "each case by one fold's model; external: by the mean of all" if run.is_cross_validation else "test"
    text = (
        f"{run.path.name} on {source}; threshold: {run.operating_point.rule}\n\n{pd.Series(left_out).to_frame('left out')}\n\n"
        f"Internal ({run.settings.source}, {tested}) and external\n{shown.to_string()}\n\nExternal\n"
        + summary_table(summaries["external"])
    )
    tables = {"comparison": table.reset_index(), "predictions": predictions["external"]}
    comparison = json.loads(tables["comparison"].to_json(orient="records"))
    summary = {"left_out": left_out, "external": summaries["external"], "comparison": comparison}
    figures = report_figures(predictions["external"], summaries["external"], threshold)
    return write_report(run.path / f"evaluation-{source}", summary, text, figures, tables)


def seen_cases(splits: pd.DataFrame, cases: pd.DataFrame) -> pd.Series:
    """Which cases a run's own table (its ``splits``) holds, or whose lesion or patient it names."""
    plain = cases["image_id"].str.removesuffix("_downsampled")  # as ISIC 2019 marks what it shrank
    found = plain.isin(splits["image_id"].str.removesuffix("_downsampled"))
    for unit in ("lesion", "patient"):
        found |= (f"{unit}:" + cases[f"{unit}_id"]).isin(splits["group_id"])
    return found | cases["group_id"].isin(splits["group_id"])


def predict_cases(run: Run, cases: pd.DataFrame, cache_dir: Path | None = None) -> pd.DataFrame:
    """A run's predictions of any cases, of whatever source, prepared as its own test cases were: as ``Run.predictions``.

    Args:
        run: a finished run. Of a cross-validation all folds answer: ``risk`` is that of their mean calibrated log-odds, and
            ``probability`` says how far, on average, a case lies above the folds' own thresholds, on the scale of the run's.
        cases: a validated case table; with image files if the run has an image branch.
        cache_dir: for decoded images; default: that of the run.
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
            raise RunError(f"{fold.path}: slope {calibrator.slope:.3g}, threshold {threshold:.3g}: it ranks or decides nothing")
        table = predict_cases(fold, cases, cache_dir)
        margins.append(calibrator.slope * (table["logit"] - logit(threshold)))
        log_odds.append(calibrator.slope * table["logit"] + calibrator.intercept)
    logits = np.mean(margins, axis=0) + logit(run.operating_point.threshold)
    return table.assign(logit=logits, probability=expit(logits), risk=expit(np.mean(log_odds, axis=0)))


def external_table(summaries: dict[str, dict], predictions: dict[str, pd.DataFrame], n: int = 2000) -> pd.DataFrame:
    """One model on its own collection and on another one.

    ``summaries`` and ``predictions`` hold, by "internal" and "external", what ``evaluate_predictions`` says of each at the stored
    threshold, and the tables behind it; ``n`` resamples are behind observed_over_expected.

    Returns:
        A row a measure, the index; PPV and NPV also at either collection's prevalence; calibration is that of the risk.
        Columns: internal and external, each with ``_low`` and ``_high`` (NaN where unknown), and evidence: "too few to say"
        where one of the collections has fewer than 100 of the cases that bear on the measure (melanomas on sensitivity, others
        on specificity, both on the rest), else "enough"; empty for counts.
    """
    prevalences = {place: summary["prevalence"] for place, summary in summaries.items()}
    columns = {}
    for place, summary in summaries.items():
        point = summary["at_threshold"]
        counted = OperatingPoint(**{name: point[name] for name in ("threshold", "tp", "fp", "tn", "fn")})
        counts = {"images": "n", "groups": "n_groups", "melanomas": "n_melanoma", "prevalence": "prevalence"}
        rows = {name: {"value": summary[key]} for name, key in counts.items()}
        rows |= {name: summary[name] for name in ("auroc", "average_precision")} | {name: point[name] for name in RATES}
        for where, share in prevalences.items():
            rows |= {f"ppv_at_{where}_prevalence": {"value": counted.ppv_at(share)}}
            rows |= {f"npv_at_{where}_prevalence": {"value": counted.npv_at(share)}}
        rows |= {name: summary["calibration"]["risk"][name] for name in ("brier", "slope", "intercept")}
        rows["observed_over_expected"] = vars(_observed_over_expected(predictions[place], n))
        for end, name in {"value": place, "low": f"{place}_low", "high": f"{place}_high"}.items():
            columns[name] = {measure: row.get(end) for measure, row in rows.items()}
    found = pd.DataFrame(columns).astype(float)
    melanomas = min(summary["n_melanoma"] for summary in summaries.values())
    others = min(summary["n"] - summary["n_melanoma"] for summary in summaries.values())
    bearing = {name: min(melanomas, others) for name in found.index} | {"sensitivity": melanomas, "specificity": others}
    bearing |= dict.fromkeys(counts)
    found["evidence"] = ["" if n is None else "enough" if n >= MIN_CASES else "too few to say" for n in bearing.values()]
    return found.rename_axis("measure")


def _observed_over_expected(table: pd.DataFrame, n: int) -> Interval:
    """Melanomas over the sum of the risks, 1 if calibrated in the large, resampling whole groups."""
    sums = table.groupby("group_id")[["target", "risk"]].sum().to_numpy(float)  # (G, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Interval.from_replicates(*group_bootstrap(lambda drawn: np.divide(*(drawn @ sums).T), len(sums), n))
