"""Runs beside each other on the test cases that they share, the gain of each branch over seeds, and what runs cost."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.errors import RunError
from melanoma_lib.evaluation import Interval, bootstrap_gain, bootstrap_mean_auroc, delong_test, rate_intervals
from melanoma_lib.evaluation.summary import auroc_samples
from melanoma_lib.runs import Run
from melanoma_lib.utils import write_text

BRANCHES = {"metadata": "metadata only", "image": "image only", "image+metadata": "image + metadata"}
ISIC_2024 = 401_059  # images of the ISIC 2024 challenge's training part


def compare_runs(runs: Sequence[Run], n: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Each run on the test cases that all of them share, paired with the first, whatever differs between them.

    Intervals resample whole groups, the same ones for all runs. The scores of a cross-validation are those of its folds brought
    to one scale, ranked together: its AUROC here may differ from the mean of the folds that its own report gives.

    Args:
        runs: finished runs; each may be of another source, split, backbone or branch.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        One row a run, numbered from 1: path, images, melanomas (of the shared cases), auroc, difference (AUROC less that of the
        first), delong_p, sensitivity and specificity at the run's own stored threshold, threshold; what has an interval also
        with ``_low`` and ``_high``, NaN where unknown. Then, as ``setting: name``, each setting in which the runs differ, the
        folder of their data included.

    Raises:
        RunError: if the runs share no test case, name other targets for one image, or share fewer than two cases of a class.
        ForeignThresholdError: if a stored threshold belongs to another model.
    """
    tables = [run.predictions("test").set_index("image_id") for run in runs]
    shared = tables[0].index
    for run, table in zip(runs, tables, strict=True):
        shared = shared[shared.isin(table.index)]
        if shared.empty:
            raise RunError(
                f"{run.path} shares no test case with {runs[0].path}; compare runs of one source and split: of one --seed, "
                "or cross-validations, which test every case"
            )
    first = tables[0].loc[shared]
    targets, groups = first["target"], first["group_id"].to_numpy()
    if min(counts := (int(targets.sum()), int((1 - targets).sum()))) < 2:
        raise RunError(f"the runs share {counts[0]} melanomas and {counts[1]} other test cases; expected two of each or more")
    rows = []
    for run, whole in zip(runs, tables, strict=True):
        table, threshold = whole.loc[shared], run.operating_point.threshold
        if len(other := shared[table["target"] != targets]):
            raise RunError(
                f"{run.path} and {runs[0].path} disagree on the target of {len(other)} of {len(shared)} shared images, such as "
                f"{other[0]}: they were trained on other data under the same names, or on another edition of the labels"
            )
        found = rate_intervals(targets, table["probability"], groups, threshold, n, seed)
        gain = bootstrap_gain(targets, table["probability"], first["probability"], groups, n, seed)["auroc"]
        row = {"run": str(run.path), "images": len(shared), "melanomas": counts[0]} | found["auroc"].columns("auroc")
        row |= gain.columns("difference") | {"delong_p": delong_test(targets, table["probability"], first["probability"]).p_value}
        row |= found["sensitivity"].columns("sensitivity") | found["specificity"].columns("specificity")
        rows.append(row | {"threshold": threshold})
    chosen = [run.settings.shaping() | {"data_dir": str(run.settings.data_root)} for run in runs]
    settings = pd.DataFrame(chosen, dtype=object).fillna("")
    differing = settings.loc[:, settings.astype(str).nunique() > 1].add_prefix("setting: ")
    return pd.concat([pd.DataFrame(rows), differing], axis=1).rename(index=lambda row: row + 1)


def compare_seeds(runs: Sequence[Run]) -> pd.DataFrame:
    """AUROC of each combination of branches, averaged over seeds, and its gain over those with fewer branches.

    Intervals resample whole groups once for all seeds, so that a lesion which several seeds test counts as one. The AUROC of a
    cross-validation is the mean of its folds.

    Args:
        runs: that differ in ``modalities`` and ``seed`` only; a gain uses the seeds that both sides have.

    Returns:
        A row a combination: inputs, seeds (how many), auroc and ``gain over ...``, each with ``_low`` and ``_high``.

    Raises:
        RunError: if the runs differ in more, two are of the same seed and branches, or a gain has other cases on its sides.
    """
    reference, tables = runs[0].settings.shaping(), {}
    for run in runs:
        branch, seed, shaping = run.settings.modalities, run.settings.seed, run.settings.shaping()
        differing = {name for name in shaping | reference if shaping.get(name) != reference.get(name)} - {"modalities", "seed"}
        if differing:
            names = ", ".join(sorted(differing))
            raise RunError(f"{run.path} differs from {runs[0].path} in {names}; compare runs that differ in branches and seed")
        if seed in tables.setdefault(branch, {}):
            raise RunError(f"two runs are both of {branch}, seed {seed}; {run.path} is the second")
        tables[branch][seed] = run.predictions("test")
    rows = []
    for place, branch in enumerate(branches := [branch for branch in BRANCHES if branch in tables]):
        found = bootstrap_mean_auroc([one for test in tables[branch].values() for one in auroc_samples(test)])
        row = {"inputs": BRANCHES[branch], "seeds": len(tables[branch])} | found.columns("auroc")
        for base in branches[:place]:
            pairs = [(tables[branch][seed], tables[base][seed]) for seed in sorted(set(tables[branch]) & set(tables[base]))]
            for mine, theirs in pairs:
                same = [name for name in ("image_id", "target", "fold") if name in mine or name in theirs]
                if not mine.reindex(columns=same).equals(theirs.reindex(columns=same)):
                    raise RunError(f"the runs of {branch} and {base} test other cases; a gain needs the same ones on both sides")
            if pairs:
                samples = [one for mine, _ in pairs for one in auroc_samples(mine)]
                baselines = [scores for _, theirs in pairs for _, scores, _ in auroc_samples(theirs)]
                row |= bootstrap_mean_auroc(samples, baselines).columns(f"gain over {BRANCHES[base]}")
        rows.append(row)
    return pd.DataFrame(rows)


def differ_in_seeds(runs: Sequence[Run]) -> bool:
    """Whether :func:`compare_seeds` is what compares these runs: of several seeds, each once a branch, and else alike."""
    kinds = {run.settings.with_changes(seed=0, modalities="image").fingerprint() for run in runs}
    seeds = {(run.settings.modalities, run.settings.seed) for run in runs}
    return len(kinds) == 1 and len(seeds) == len(runs) and len({seed for _, seed in seeds}) > 1


def comparison_text(table: pd.DataFrame) -> str:
    """What :func:`compare_runs` returns as two tables of text, the runs numbered."""
    names = table.filter(regex="^run$|^setting: ").rename(columns=lambda name: name.removeprefix("setting: "))
    names["run"] = names["run"].map(lambda path: Path(path).name)
    shown = with_intervals(table.drop(columns=["run", "images", "melanomas", *table.filter(like="setting: ")]))
    shown["delong_p"], shown["threshold"] = shown["delong_p"].map("{:.3g}".format), shown["threshold"].map("{:.4g}".format)
    shown = shown.rename(columns={"auroc": "AUROC", "difference": "less that of 1", "delong_p": "DeLong p"})
    heading = f"{table['images'].iloc[0]:,} shared test images, {table['melanomas'].iloc[0]:,} melanomas"
    return "\n\n".join([names.to_string(), heading, shown.to_string()]) + "\n"


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each column that has ``_low`` and ``_high`` as ``0.930 [0.912, 0.947]``, gains signed; ``-`` if unknown."""
    shown = {}
    for name in table:
        if f"{name}_low" in table:
            spec = "+.3f" if name.startswith(("gain", "difference")) else ".3f"
            rows = table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
            shown[name] = ["-" if math.isnan(row[0]) else format(Interval(*row), spec) for row in rows]
        elif not name.endswith(("_low", "_high")):
            shown[name] = table[name]
    return pd.DataFrame(shown, table.index)


def save_table(table: pd.DataFrame, out: Path) -> None:
    """Write a table as CSV, or, where ``out`` does not end in ``.csv``, as JSON: a list of rows."""
    csv = out.suffix.lower() == ".csv"
    write_text(out, table.to_csv(index=False) if csv else table.to_json(orient="records", indent=2) + "\n")


def cost_table(runs: Sequence[Run], images: int = ISIC_2024) -> pd.DataFrame:
    """What training costs for an image, read from finished runs, and what so many images would take on the same machine.

    Args:
        runs: that differ in nothing but the seed or the fold; a cross-validation stands for the runs of its folds.
        images: of the larger archive.

    Returns:
        One row: milliseconds of an image and epoch with validation (median, low, high of the epochs measured), hours (the
        same three), gigabytes of the two image caches: pixels for training, larger than the input by the tightest crop, and
        those of evaluation.

    Raises:
        RunError: if there is none, or they differ in more, or were trained on other machines.
    """
    from melanoma_lib.data.images import stored_side

    runs = [part for run in runs for part in (run.folds if run.is_cross_validation else [run])]
    if not runs:
        raise RunError("costs are read from finished runs, got none")
    machine = ("platform", "device", "threads")
    recipes = [run.settings.with_changes(seed=0, fold=0).fingerprint() for run in runs]
    machines = [(run.settings.devices, *(run.environment[key] for key in machine)) for run in runs]
    if len(set(zip(recipes, machines, strict=True))) > 1:
        raise RunError(f"{len(runs)} runs differ in more than the seed, or in their machine; name runs of one recipe and machine")
    seen = [int(run.splits["split"].ne("test").sum()) for run in runs]  # test cases wait until the end
    seconds = np.concatenate([run.history["seconds"] / count for run, count in zip(runs, seen, strict=True)])
    share, epochs = sum(seen) / sum(len(run.splits) for run in runs), -(-sum(len(run.history) for run in runs) // len(runs))
    settings, environment = runs[0].settings, runs[0].environment
    row = {"recipe": f"{settings.backbone}, {settings.modalities}, {settings.image_size} px, {settings.source}"}
    row |= {"runs": len(runs)} | {key: environment[key] for key in machine} | {"torch": environment["packages"]["torch"]}
    ends = {"": np.median(seconds), "_low": seconds.min(), "_high": seconds.max()}
    row |= {f"milliseconds{end}": round(1000 * value, 2) for end, value in ends.items()} | {"epochs_measured": len(seconds)}
    row |= {"images": images, "share": round(share, 2), "epochs": epochs}
    row |= {f"hours{end}": round(value * epochs * share * images / 3600, 1) for end, value in ends.items()}
    sides = (stored_side(settings.image_size), settings.image_size) if "image" in settings.modalities else ()
    return pd.DataFrame([row | {"cache_gigabytes": round(sum(images * 3 * side**2 for side in sides) / 1e9, 1)}])
