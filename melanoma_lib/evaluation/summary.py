"""One set of predictions in, all that a report needs out, for each subgroup too; and the predictions of folds read as one."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from melanoma_lib.evaluation.calibration import Calibrator, bootstrap_calibration, expected_calibration_error
from melanoma_lib.evaluation.intervals import LEVEL, RATES, Interval, rate_intervals, wilson_interval, with_intervals
from melanoma_lib.evaluation.operating import OperatingCurve, check_scores, check_targets, require_columns
from melanoma_lib.evaluation.paired import bootstrap_mean_auroc

NOTE = "Educational, not for diagnosis."
CALIBRATION_RESAMPLES = 500  # each is a regression of its own
AGE_EDGES = (-np.inf, 30, 45, 60, 75, np.inf)
AGE_BANDS = ("<30", "30-44", "45-59", "60-74", "75+")
COLUMNS = {"sex": "sex", "age": "age_approx", "site": "anatom_site_general_challenge"}
MIN_GROUPS = 10  # patients or lesions of each class below which resampling says too little
METRICS = ("auroc", "sensitivity", "specificity")
RANKING = ("auroc", "auroc_pooled", "average_precision")  # of folds auroc is the mean, and pooled ranks all of them as one


def evaluate_predictions(predictions: pd.DataFrame, threshold: float, n: int = 2000, seed: int = 0) -> dict:
    """Everything the kit reports about one set of predictions, with 95% intervals that resample whole groups.

    Args:
        predictions: one row an image: image_id, group_id, target, probability (sigmoid of the logit), risk (calibrated),
            and any of sex, age_approx, anatom_site_general_challenge for the subgroups.
        threshold: chosen on other data; ``probability >= threshold`` is flagged.
        n: number of resamples (of calibration fits at most 500).
        seed: of the resampling.

    Returns:
        Fit for JSON, undefined numbers as None: note, n, n_groups, n_melanoma, prevalence, resampling, auroc,
        average_precision, at_half and at_threshold (threshold, tp, fp, tn, fn, biopsies_per_melanoma and each rate as
        an interval), calibration (of probability and of risk: brier, slope, intercept as intervals, ece), subgroups.
        Where the predictions have ``fold``, as `gather_folds` gives them, auroc is the mean of the folds'; besides there are
        auroc_by_fold, auroc_pooled (all ranked as if by one model) and score: what probability then is.

    Raises:
        ValueError: for missing columns, an empty table, an image twice, one class only, or numbers out of range.
    """
    require_columns(predictions, ("image_id", "group_id", "target", "probability", "risk"))
    twice = predictions["image_id"][predictions["image_id"].duplicated()]
    if len(twice):
        raise ValueError(f"predictions: expected each image once, got {twice.iloc[0]!r} again ({len(twice)} in all)")
    targets, groups = check_targets(predictions["target"]), predictions["group_id"].to_numpy()
    probability, risk = (check_scores(predictions[k], targets.size, k, unit_interval=True) for k in ("probability", "risk"))

    half = rate_intervals(targets, probability, groups, 0.5, n, seed)
    chosen = rate_intervals(targets, probability, groups, threshold, n, seed)
    brier = {"probability": half["brier"], "risk": rate_intervals(targets, risk, groups, None, n, seed)["brier"]}
    curve = OperatingCurve(targets, probability)

    def at(threshold: float, intervals: dict) -> dict:
        point = curve.at(threshold)
        biopsies = point.biopsies_per_melanoma if point.tp else None
        return asdict(point) | {"biopsies_per_melanoma": biopsies} | {name: intervals[name].to_dict() for name in RATES}

    def calibration(name: str, values: np.ndarray) -> dict:
        fits = {"brier": brier[name]} | bootstrap_calibration(values, targets, groups, min(n, CALIBRATION_RESAMPLES), seed)
        return {key: fit.to_dict() for key, fit in fits.items()} | {"ece": expected_calibration_error(values, targets)}

    pooled, of_folds = half["auroc"].to_dict(), {}
    if "fold" in predictions:
        samples = auroc_samples(predictions)
        mean, *each = (bootstrap_mean_auroc(some, n=n, seed=seed).to_dict() for some in (samples, *zip(samples, strict=True)))
        of_folds = {"auroc": mean, "auroc_pooled": pooled, "score": "score, folds aligned", "auroc_by_fold": each}
    subgroups = subgroup_table(predictions, threshold, n, seed).astype(object)
    return {
        "note": NOTE,
        "n": len(predictions),
        "n_groups": int(predictions["group_id"].nunique()),
        "n_melanoma": curve.n_positive,
        "prevalence": curve.prevalence,
        "resampling": {"unit": "group_id", "n": n, "seed": seed, "level": LEVEL},
        "auroc": pooled,
        "average_precision": half["average_precision"].to_dict(),
        "at_half": at(0.5, half),
        "at_threshold": at(threshold, chosen),
        "calibration": {"probability": calibration("probability", probability), "risk": calibration("risk", risk)},
        "subgroups": subgroups.where(subgroups.notna(), None).to_dict("records"),
    } | of_folds


def subgroup_table(predictions: pd.DataFrame, threshold: float, n: int = 2000, seed: int = 0) -> pd.DataFrame:
    """AUROC, sensitivity and specificity of each subgroup at one common threshold.

    Intervals resample whole groups where a subgroup has at least 10 groups of each class. Below that the two rates get Wilson
    intervals with one observation a group and AUROC gets none; what is undefined is NaN. Either has a note.
    Arguments are those of `evaluate_predictions`; neither image_id nor risk is needed.

    Returns one row a subgroup, the first for all cases: variable, subgroup, n, n_groups, n_melanoma, for each metric its value,
    ``_low`` and ``_high``, and note. Age bands are in years, lower end included.
    """
    require_columns(predictions, ("group_id", "target", "probability"))
    check_scores(predictions["probability"], check_targets(predictions["target"], both_classes=False).size, "probability")
    variables = {"all": pd.Series("all", index=predictions.index)}
    variables |= {variable: predictions[column] for variable, column in COLUMNS.items() if column in predictions}
    rows = []
    for variable, values in variables.items():
        if variable == "age":
            values = pd.cut(values.astype(float), AGE_EDGES, right=False, labels=AGE_BANDS)
        labels = values.astype("category").cat.add_categories("missing").fillna("missing")
        for subgroup, part in predictions.groupby(labels.array, observed=True):
            intervals, note = _subgroup_intervals(part, threshold, n, seed)
            counts = {"n": len(part), "n_groups": part["group_id"].nunique(), "n_melanoma": int(part["target"].sum())}
            row = {"variable": variable, "subgroup": subgroup} | counts
            for name, interval in intervals.items():
                row |= interval.columns(name)
            rows.append(row | {"note": note})
    return pd.DataFrame(rows)


def _subgroup_intervals(part: pd.DataFrame, threshold: float, n: int, seed: int) -> tuple[dict[str, Interval], str]:
    """AUROC, sensitivity and specificity of one subgroup, and a note where it is too small: see `subgroup_table`."""
    melanoma, groups = part["target"].to_numpy() == 1, part["group_id"].to_numpy()
    n_melanoma, n_other = (len(pd.unique(groups[rows])) for rows in (melanoma, ~melanoma))
    if min(n_melanoma, n_other) >= MIN_GROUPS:
        intervals = rate_intervals(melanoma, part["probability"], groups, threshold, n, seed)
        return {name: intervals[name] for name in METRICS}, ""

    def rate(right: np.ndarray, of: np.ndarray) -> Interval:
        n_groups = len(pd.unique(groups[of]))
        return wilson_interval(right[of].mean() * n_groups if n_groups else 0, n_groups)

    flagged, auroc = part["probability"].to_numpy() >= threshold, np.nan
    if melanoma.all() or not melanoma.any():
        note = f"no {'other lesion: AUROC and specificity' if melanoma.all() else 'melanoma: AUROC and sensitivity'} undefined"
    else:
        auroc = OperatingCurve(melanoma, part["probability"]).auroc
        note = f"{n_melanoma} melanoma and {n_other} other groups, under {MIN_GROUPS} of one: Wilson intervals, none for AUROC"
    found = (Interval(auroc, np.nan, np.nan), rate(flagged, melanoma), rate(~flagged, ~melanoma))
    return dict(zip(METRICS, found, strict=True)), note


def summary_table(summary: dict) -> str:
    """The summary of `evaluate_predictions` as text of at most 100 columns."""
    half, chosen, resampling = summary["at_half"], summary["at_threshold"], summary["resampling"]
    score = summary.get("score", "probability (sigmoid of the logit)")  # another of several models
    name, ranking = score.split()[0].strip(","), [one for one in RANKING if one in summary]

    def texts(numbers: dict, names: Sequence[str]) -> list[str]:
        return [f"{Interval.from_dict(numbers[one]):.3f}" for one in names]

    def decided(point: dict) -> list[str]:
        counts, biopsies = " / ".join(str(point[k]) for k in ("tp", "fp", "tn", "fn")), point["biopsies_per_melanoma"]
        return [counts, *texts(point, RATES), "-" if biopsies is None else f"{biopsies:.1f}"]

    def calibrated(of: str) -> list[str]:
        numbers = summary["calibration"][of]
        return [*texts(numbers, ("brier", "slope", "intercept")), f"{numbers['ece']:.3f}"]

    subgroups = pd.DataFrame(summary["subgroups"])
    few = subgroups["note"] != ""
    rows = (subgroups["variable"] + " " + subgroups["subgroup"]).str.removeprefix("all ") + np.where(few, " *", "")
    shown = with_intervals(subgroups, ".2f").set_axis(rows)[["n", "n_melanoma", *METRICS]]
    tables = {
        "Ranking": pd.DataFrame({"value": texts(summary, ranking)}, ranking),
        "Decisions": pd.DataFrame(
            {f"{name} >= 0.5": decided(half), f"{name} >= {chosen['threshold']:.4g} (chosen)": decided(chosen)},
            ["TP / FP / TN / FN", *RATES, "biopsies per melanoma"],
        ),
        "Calibration": pd.DataFrame(
            {score: calibrated("probability"), "risk (calibrated)": calibrated("risk")},
            ["brier", "slope", "intercept (with slope)", "ECE, 10 equal-count bins"],
        ),
        f"Subgroups at {chosen['threshold']:.4g}": shown,
    }
    counts = "{n:,} images, {n_melanoma:,} melanomas ({prevalence:.1%}), {n_groups:,} groups".format(**summary)
    lines = [counts, *(f"\n{title}\n{table.to_string()}" for title, table in tables.items())]
    if "auroc_pooled" in summary:
        lines.append("auroc is the mean of the folds; auroc_pooled, average precision and subgroups rank all folds together")
    if few.any():
        lines.append("* few patients or lesions, or one class: Wilson intervals, none for AUROC; a dash is undefined")
    told = "\n{level:.0%} intervals resample whole groups ({unit}: patients, else lesions, else images), {n:,} times."
    return "\n".join([*lines, told.format(**resampling), f"{summary['note']}\n"])


class FoldPredictions(NamedTuple):
    """What one fold's model says of its ``val`` and ``test`` cases; both others were fitted on the former."""

    tables: dict[str, pd.DataFrame]
    calibrator: Calibrator
    threshold: float


def gather_folds(folds: Sequence[FoldPredictions]) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """Predictions of all folds as one table a split, with one threshold that repeats each fold's own decisions.

    The folds are different models: one threshold for all would be chosen on cases that some fold is scored on. So each fold's
    calibrated log-odds are shifted until its own operating point lies where the mean of all of them does. ``logit`` and
    ``probability`` are those; ``risk`` stays what the fold's own calibration says. The tables get ``fold`` (1, 2, ...); beside
    them come threshold, sensitivity and specificity (on ``val``).
    """
    thresholds = []  # on each fold's logits: the lowest that it calls melanoma, or the threshold itself where that is none
    for fold in folds:
        validation = fold.tables["val"]
        flagged = validation.loc[validation["probability"] >= fold.threshold, "logit"]
        thresholds.append(flagged.min() if len(flagged) else logit(min(fold.threshold, 1 - 1e-6)))
    # Where calibration failed, and would reverse the ranking, the fold keeps its own scale.
    slopes = [fold.calibrator.slope if fold.calibrator.slope > 0 else 1.0 for fold in folds]
    common = float(np.mean([f.calibrator.slope * own + f.calibrator.intercept for f, own in zip(folds, thresholds, strict=True)]))
    aligned: dict[str, list[pd.DataFrame]] = {"val": [], "test": []}
    for number, (fold, own, slope) in enumerate(zip(folds, thresholds, slopes, strict=True), start=1):
        for split, parts in aligned.items():
            table = fold.tables[split]
            above = slope * (table["logit"] - own)
            flagged = table["probability"] >= fold.threshold
            above = np.where(flagged, np.maximum(above, 0), np.minimum(above, -1e-9))  # exact on the threshold itself, too
            parts.append(table.assign(logit=common + above, probability=expit(common + above), fold=number))
    tables = {split: pd.concat(parts, ignore_index=True) for split, parts in aligned.items()}
    threshold = float(expit(common))
    chosen = OperatingCurve(tables["val"]["target"], tables["val"]["probability"]).at(threshold)
    return tables, {"threshold": threshold, "sensitivity": chosen.sensitivity, "specificity": chosen.specificity}


def auroc_samples(test: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """``(targets, probabilities, groups)`` of each model in a table: of each fold where there are folds, else of all."""
    parts = [part for _, part in test.groupby("fold")] if "fold" in test else [test]
    return [(part["target"].to_numpy(), part["probability"].to_numpy(), part["group_id"].to_numpy()) for part in parts]
