"""Runs beside each other on the test cases that they share, and the gain of each branch over seeds."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from melanoma_lib.errors import RunError
from melanoma_lib.evaluation import bootstrap_gain, bootstrap_mean_auroc, delong_test, rate_intervals
from melanoma_lib.evaluation.intervals import with_intervals
from melanoma_lib.evaluation.summary import auroc_samples
from melanoma_lib.runs import Run

BRANCHES = {"metadata": "metadata only", "image": "image only", "image+metadata": "image + metadata"}


def compare_runs(runs: Sequence[Run], n: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Each run on the test cases that all of them share, paired with the first, whatever differs between them.

    Intervals resample whole groups, the same ones for all runs. The scores of a cross-validation are those of its folds brought
    to one scale, ranked together: its AUROC may differ from the mean of the folds that its own report gives.

    Returns:
        One row a run, numbered from 1: run (path), images, melanomas (of the shared cases), auroc, difference (AUROC less that
        of the first), delong_p, sensitivity and specificity at the run's own stored threshold, threshold; what has an interval
        also with ``_low`` and ``_high``. Then, as ``setting: name``, each setting in which the runs differ, and their data.

    Raises:
        RunError: if they share no test case, or fewer than two of a class, name other targets for one image, or a threshold
            belongs to another model.
    """
    tables = [run.predictions("test").set_index("image_id") for run in runs]
    shared = tables[0].index
    for run, table in zip(runs, tables, strict=True):
        shared = shared[shared.isin(table.index)]
        if shared.empty:
            raise RunError(f"{run.path} shares no test case with {runs[0].path}; compare runs of one source and --seed")
    first = tables[0].loc[shared]
    targets, groups = first["target"], first["group_id"].to_numpy()
    if (fewest := targets.value_counts().reindex([0, 1], fill_value=0).min()) < 2:
        raise RunError(
            f"the runs share {len(shared)} test cases, {fewest} of one class; compare fewer at a time, or of one --seed"
        )
    rows = []
    for run, whole in zip(runs, tables, strict=True):
        table, threshold = whole.loc[shared], run.operating_point.threshold
        if len(other := shared[table["target"] != targets]):
            told = f"{run.path} and {runs[0].path} disagree on the target of {len(other)} of {len(shared)} shared images"
            raise RunError(f"{told}, such as {other[0]}: their data or labels differ")
        scores = table["probability"], first["probability"]
        found = rate_intervals(targets, scores[0], groups, threshold, n, seed)
        row = {"run": str(run.path), "images": len(shared), "melanomas": targets.sum()} | found["auroc"].columns("auroc")
        row |= bootstrap_gain(targets, *scores, groups, n, seed)["auroc"].columns("difference")
        row |= {"delong_p": delong_test(targets, *scores).p_value} | found["sensitivity"].columns("sensitivity")
        rows.append(row | found["specificity"].columns("specificity") | {"threshold": threshold})
    chosen = [run.settings.shaping() | {"data_dir": str(run.settings.data_root)} for run in runs]
    settings = pd.DataFrame(chosen, dtype=object).fillna("")
    differing = settings.loc[:, settings.astype(str).nunique() > 1].add_prefix("setting: ")
    return pd.concat([pd.DataFrame(rows), differing], axis=1).rename(index=lambda row: row + 1)


def compare_seeds(runs: Sequence[Run]) -> pd.DataFrame:
    """AUROC of each combination of branches, averaged over seeds, and its gain over those with fewer branches.

    Intervals resample whole groups once for all seeds, so that a lesion which several seeds test counts as one. The AUROC of a
    cross-validation is the mean of its folds. A gain uses the seeds that both sides have. Columns: inputs, seeds (how many),
    auroc and ``gain over ...``, each with ``_low`` and ``_high``.
    """
    if not _alike(runs):
        raise RunError("expected runs that differ in modalities and seed alone, each combination once; compare others two by two")
    tables = {(run.settings.modalities, run.settings.seed): run.predictions("test") for run in runs}
    rows, seeds_of = [], {branch: sorted(seed for one, seed in tables if one == branch) for branch in BRANCHES}
    for branch, seeds in seeds_of.items():
        if not seeds:
            continue
        found = bootstrap_mean_auroc([one for seed in seeds for one in auroc_samples(tables[branch, seed])])
        row = {"inputs": BRANCHES[branch], "seeds": len(seeds)} | found.columns("auroc")
        for base in list(BRANCHES)[: list(BRANCHES).index(branch)]:
            if not (pairs := [(tables[branch, seed], tables[base, seed]) for seed in seeds if seed in seeds_of[base]]):
                continue
            same = ["image_id", "target", "fold"]
            if not all(mine.reindex(columns=same).equals(theirs.reindex(columns=same)) for mine, theirs in pairs):
                raise RunError(f"the runs of {branch} and {base} test other cases; a gain needs the same ones on both sides")
            samples = [one for mine, _ in pairs for one in auroc_samples(mine)]
            baselines = [scores for _, theirs in pairs for _, scores, _ in auroc_samples(theirs)]
            row |= bootstrap_mean_auroc(samples, baselines).columns(f"gain over {BRANCHES[base]}")
        rows.append(row)
    return pd.DataFrame(rows)


def differ_in_seeds(runs: Sequence[Run]) -> bool:
    """Whether :func:`compare_seeds` is what compares these runs: of several seeds, each once a branch, and else alike."""
    return _alike(runs) and len({run.settings.seed for run in runs}) > 1


def _alike(runs: Sequence[Run]) -> bool:
    kinds = {run.settings.with_changes(seed=0, modalities="image").fingerprint() for run in runs}
    return len(kinds) == 1 and len({(run.settings.modalities, run.settings.seed) for run in runs}) == len(runs)


def comparison_text(table: pd.DataFrame) -> str:
    """What :func:`compare_runs` returns as two tables of text, the runs numbered."""
    names = table.filter(regex="^run$|^setting: ").rename(columns=lambda name: name.removeprefix("setting: "))
    names["run"] = names["run"].map(lambda path: Path(path).name)
    shown = with_intervals(table.drop(columns=["run", "images", "melanomas", *table.filter(like="setting: ")]))
    shown["delong_p"], shown["threshold"] = shown["delong_p"].map("{:.3g}".format), shown["threshold"].map("{:.4g}".format)
    shown = shown.rename(columns={"auroc": "AUROC", "difference": "less that of 1", "delong_p": "DeLong p"})
    heading = f"{table['images'].iloc[0]:,} shared test images, {table['melanomas'].iloc[0]:,} melanomas"
    heading += "\nintervals resample patients or lesions; DeLong's test takes images as independent"
    return "\n\n".join([names.to_string(), heading, shown.to_string()]) + "\n"
