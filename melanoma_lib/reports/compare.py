"""Runs beside each other, on the test cases that they share or over seeds, and one run on another collection."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from melanoma_lib.errors import DataError, RunError
from melanoma_lib.evaluation import (
    Interval,
    bootstrap_gain,
    bootstrap_mean_auroc,
    delong_test,
    evaluate_predictions,
    external_table,
    rate_intervals,
    recalibration_table,
    summary_table,
)
from melanoma_lib.evaluation.summary import auroc_samples
from melanoma_lib.reports.evaluate import Report, test_figures, write_report
from melanoma_lib.runs import Run
from melanoma_lib.runs.writer import prediction_table
from melanoma_lib.utils import progress_bar, write_text

BATCH = 64
BRANCHES = {"metadata": "metadata only", "image": "image only", "image+metadata": "image + metadata"}


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
        row = {"run": str(run.path), "images": len(shared), "melanomas": counts[0]} | _ends("auroc", found["auroc"])
        row |= _ends("difference", gain) | {"delong_p": delong_test(targets, table["probability"], first["probability"]).p_value}
        row |= {name: end for rate in ("sensitivity", "specificity") for name, end in _ends(rate, found[rate]).items()}
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
        row = {"inputs": BRANCHES[branch], "seeds": len(tables[branch])} | _ends("auroc", found)
        for base in branches[:place]:
            pairs = [(tables[branch][seed], tables[base][seed]) for seed in sorted(set(tables[branch]) & set(tables[base]))]
            for mine, theirs in pairs:
                same = [name for name in ("image_id", "target", "fold") if name in mine or name in theirs]
                if not mine.reindex(columns=same).equals(theirs.reindex(columns=same)):
                    raise RunError(f"the runs of {branch} and {base} test other cases; a gain needs the same ones on both sides")
            if pairs:
                samples = [one for mine, _ in pairs for one in auroc_samples(mine)]
                baselines = [scores for _, theirs in pairs for _, scores, _ in auroc_samples(theirs)]
                row |= _ends(f"gain over {BRANCHES[base]}", bootstrap_mean_auroc(samples, baselines))
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
    figures = test_figures(predictions["external"], summaries["external"], threshold)
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
    from melanoma_lib.inference import predict_logits, prediction_device

    if not run.is_cross_validation:
        model = run.model().to(prediction_device())
        logits = predict_logits(model, _batches(run, cases, cache_dir or run.settings.cache_dir), run.settings.tta)
        return prediction_table(cases, logits, run.calibrator)
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


def _batches(run: Run, cases: pd.DataFrame, cache_dir: Path) -> Iterator[dict]:
    import torch

    from melanoma_lib.data.cache import open_cache, open_evaluation_cache
    from melanoma_lib.data.images import normalise, stored_side

    settings, metadata = run.settings, torch.from_numpy(run.encoder.transform(cases))  # (N, M)
    pixels = None
    if "image" in settings.modalities:
        paths = [Path(path) for path in cases["image_path"]]
        with progress_bar("decoding images, once", len(paths), settings.progress) as advance:
            decoded = open_cache(paths, stored_side(settings.image_size), cache_dir, advance)
        pixels = open_evaluation_cache(decoded, settings.backbone, settings.image_size)  # (N, S, S, 3)
    for start in range(0, len(cases), BATCH):
        batch = {"metadata": metadata[start : start + BATCH]}
        if pixels is not None:
            stack = torch.from_numpy(pixels[start : start + BATCH].copy()).permute(0, 3, 1, 2)  # (B, 3, S, S)
            batch["image"] = normalise(stack, settings.backbone)
        yield batch


def save_table(table: pd.DataFrame, out: Path) -> None:
    """Write a table as CSV, or, where ``out`` does not end in ``.csv``, as JSON: a list of rows."""
    csv = out.suffix.lower() == ".csv"
    write_text(out, table.to_csv(index=False) if csv else table.to_json(orient="records", indent=2) + "\n")


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
