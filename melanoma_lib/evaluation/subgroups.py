"""For whom does it work? The same metrics by sex, age band and site, with the missing as a group of their own."""

import numpy as np
import pandas as pd

from melanoma_lib.evaluation.inputs import check_scores, check_targets, require_columns
from melanoma_lib.evaluation.intervals import Interval, rate_intervals, wilson_interval
from melanoma_lib.evaluation.operating import OperatingCurve

AGE_EDGES = (-np.inf, 30, 45, 60, 75, np.inf)
AGE_BANDS = ("<30", "30-44", "45-59", "60-74", "75+")
COLUMNS = {"sex": "sex", "age": "age_approx", "site": "anatom_site_general_challenge"}
MIN_GROUPS = 10  # patients or lesions of each class below which resampling says too little
METRICS = ("auroc", "sensitivity", "specificity")


def subgroup_table(
    predictions: pd.DataFrame,
    threshold: float,
    n: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """AUROC, sensitivity and specificity of each subgroup at one common threshold.

    Intervals resample whole groups where a subgroup has at least 10 groups of each class. Below that the two
    rates get Wilson intervals with one observation a group and AUROC gets none; ``note`` says so. What cannot be
    computed (no melanoma, no other lesion) is NaN, with a note.

    Args:
        predictions: columns group_id, target, probability, and any of sex, age_approx, anatom_site_general_challenge.
        threshold: ``probability >= threshold`` is called melanoma.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        One row a subgroup, the first for all cases: variable, subgroup, n, n_groups, n_melanoma, for each metric
        its value and ``_low``, ``_high``, and note. Age bands are in years, lower end included.

    Raises:
        ValueError: for missing columns, an empty table, or values that `rate_intervals` refuses.
    """
    require_columns(predictions, ("group_id", "target", "probability"))
    check_scores(predictions["probability"], check_targets(predictions["target"], both_classes=False).size, "probability")
    cuts = {"all": pd.Series("all", index=predictions.index)}
    cuts |= {variable: predictions[column] for variable, column in COLUMNS.items() if column in predictions}
    rows = []
    for variable, values in cuts.items():
        if variable == "age":
            values = pd.cut(values.astype(float), AGE_EDGES, right=False, labels=AGE_BANDS)
        labels = values.astype(object).where(values.notna(), "missing")
        order = [*AGE_BANDS] if variable == "age" else sorted(set(labels) - {"missing"})
        for subgroup in [*order, "missing"]:
            part = predictions[(labels == subgroup).to_numpy()]
            if len(part):
                intervals, note = _intervals(part, threshold, n, seed)
                counts = {"n": len(part), "n_groups": part["group_id"].nunique(), "n_melanoma": int(part["target"].sum())}
                row = {"variable": variable, "subgroup": subgroup} | counts
                for name, interval in intervals.items():
                    row |= interval.columns(name)
                rows.append(row | {"note": note})
    return pd.DataFrame(rows)


def _intervals(part: pd.DataFrame, threshold: float, n: int, seed: int) -> tuple[dict[str, Interval], str]:
    """AUROC, sensitivity and specificity of one subgroup, and a note where it is too small: see `subgroup_table`."""
    melanoma, groups = part["target"].to_numpy() == 1, part["group_id"].to_numpy()
    n_melanoma, n_other = (len(pd.unique(groups[rows])) for rows in (melanoma, ~melanoma))
    if min(n_melanoma, n_other) >= MIN_GROUPS:
        intervals = rate_intervals(melanoma, part["probability"], groups, threshold, n, seed)
        return {name: intervals[name] for name in METRICS}, ""

    def rate(right: np.ndarray, of: np.ndarray) -> Interval:
        n_groups = len(pd.unique(groups[of]))
        return wilson_interval(right[of].mean() * n_groups if n_groups else 0, n_groups)

    called = part["probability"].to_numpy() >= threshold
    intervals = {
        "auroc": Interval(np.nan, np.nan, np.nan),
        "sensitivity": rate(called, melanoma),
        "specificity": rate(~called, ~melanoma),
    }
    if melanoma.all() or not melanoma.any():
        absent = "no other lesion: AUROC and specificity" if melanoma.all() else "no melanoma: AUROC and sensitivity"
        return intervals, f"{absent} undefined"
    intervals["auroc"] = Interval(OperatingCurve(melanoma, part["probability"]).auroc, np.nan, np.nan)
    few = f"{n_melanoma} melanoma and {n_other} other groups, under {MIN_GROUPS} of one"
    return intervals, f"{few}: Wilson intervals, none for AUROC"
