"""External validation: models of one collection, asked about the images of another.

Educational, not for diagnosis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from melanoma_lib.comparison import predict_cases
from melanoma_lib.data import load_cases
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import bootstrap_calibration, bootstrap_intervals, bootstrap_mean_auroc
from melanoma_lib.runs import Run
from melanoma_lib.studies.results import ResultTable, weights_of

EXTERNAL = "isic2020"
RATES = ("sensitivity", "specificity", "ppv")
FITS = 500  # resamples of what needs a regression each


@dataclass(frozen=True)
class ExternalTest:
    """One model with its answers on its own collection and on another one.

    Attributes:
        run: a finished training.
        internal: its own test predictions.
        external: its predictions of the other collection's cases. Both tables have ``image_id``, ``group_id``, ``target``,
            ``risk`` (calibrated on its own validation cases), ``log_odds`` of that risk, and ``margin``: those log-odds less the
            ones at its own stored threshold, so that ``margin >= 0`` is its decision whatever its scale.
    """

    run: Run
    internal: pd.DataFrame
    external: pd.DataFrame


def single_runs(runs: Sequence[Run]) -> list[Run]:
    """The trainings behind some runs: a cross-validation stands for its folds.

    Raises:
        StudyError: if they differ in more than seed and fold, or there is none.
    """
    found = [one for run in runs for one in (run.folds if run.is_cross_validation else [run])]
    if not found:
        raise StudyError("expected at least one run, got none")
    first = found[0].settings.shaping()
    for run in found[1:]:
        mine = run.settings.shaping()
        differing = sorted(name for name in (mine | first).keys() - {"seed", "fold"} if mine.get(name) != first.get(name))
        if differing:
            raise StudyError(f"{run.path} differs from {found[0].path} in {', '.join(differing)}; take runs of one recipe")
    return found


def with_margin(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Predictions with ``log_odds`` of the calibrated risk and ``margin`` over the run's own stored threshold.

    Raises:
        StudyError: if the run's calibration turns its ranking upside down, or its threshold flags everybody or nobody.
    """
    calibrator, threshold = run.calibrator, run.operating_point.threshold
    if calibrator.slope <= 0 or not 0 < threshold < 1:
        raise StudyError(
            f"{run.path}: slope {calibrator.slope:.3g}, threshold {threshold:.3g}; such a model ranks or decides nothing"
        )
    log_odds = calibrator.slope * table["logit"] + calibrator.intercept
    return table.assign(log_odds=log_odds, margin=calibrator.slope * (table["logit"] - logit(threshold)))


def score(table: pd.DataFrame, n: int = 2000, seed: int = 0) -> dict[str, dict]:
    """Ranking, decisions at the stored threshold and calibration of predictions, each an interval that resamples groups."""
    targets, groups = table["target"].to_numpy(), table["group_id"].to_numpy(str)
    found = bootstrap_intervals(targets, table["margin"], groups, 0.0, n, seed)
    row = {name: found[name] for name in ("auroc", "average_precision", *RATES)}
    row["brier"] = bootstrap_intervals(targets, table["risk"], groups, None, n, seed)["brier"]
    row |= bootstrap_calibration(table["risk"], targets, groups, min(n, FITS), seed)
    return {name: interval.to_dict() for name, interval in row.items()}


def averaged(tests: Sequence[ExternalTest]) -> pd.DataFrame:
    """What the models say of the external cases together: means of calibrated log-odds and of margins."""
    table = tests[0].external[["image_id", "group_id", "target"]]
    log_odds, margin = (np.mean([one.external[name] for one in tests], axis=0) for name in ("log_odds", "margin"))
    return table.assign(log_odds=log_odds, margin=margin, risk=expit(log_odds))


def external_rows(tests: Sequence[ExternalTest], n: int = 2000, seed: int = 0) -> list[dict]:
    """The mean of the models, all models averaged, and each model, internal (keys ``_home``) and external (``_abroad``).

    Rates of the mean count the decisions of all models together, each by its own model.
    """
    mean = {"model": f"mean of {len(tests)} models"}
    for place, tables in (("home", [one.internal for one in tests]), ("abroad", [one.external for one in tests])):
        samples = [_columns(table) for table in tables]
        decided = bootstrap_intervals(*map(np.concatenate, zip(*samples, strict=True)), 0.0, n, seed)
        mean |= {f"auroc_{place}": bootstrap_mean_auroc(samples, n=n, seed=seed).to_dict()}
        mean |= {f"{name}_{place}": decided[name].to_dict() for name in RATES}
    rows = [mean]
    if len(tests) > 1:
        rows.append({"model": f"{len(tests)} models averaged"} | _named(score(averaged(tests), n, seed), "abroad"))
    for one in tests:
        settings = one.run.settings
        row = {"model": f"fold {settings.fold}" if settings.fold else f"seed {settings.seed}"}
        rows.append(row | _named(score(one.internal, n, seed), "home") | _named(score(one.external, n, seed), "abroad"))
    return rows


def gain_over(tests: Sequence[ExternalTest], baseline: Sequence[ExternalTest], n: int = 2000, seed: int = 0) -> dict[str, dict]:
    """Mean external AUROC of a baseline's models, such as metadata alone, and what the others gain over it, model by model.

    Where the numbers of models differ, each model is compared with the baseline's average.
    """
    if len(baseline) == len(tests):
        scores = [one.external["log_odds"] for one in baseline]
    else:
        scores = [averaged(baseline)["log_odds"]] * len(tests)
    samples = [_columns(one.external) for one in tests]
    own = [(targets, base, groups) for (targets, _, groups), base in zip(samples, scores, strict=True)]
    return {
        "auroc": bootstrap_mean_auroc(own, n=n, seed=seed).to_dict(),
        "gain": bootstrap_mean_auroc(samples, scores, n, seed).to_dict(),
    }


def external_validation(
    runs: Sequence[Run],
    folder: Path,
    cache_dir: Path | None = None,
    metadata: Sequence[Run] = (),
    n: int = 2000,
    seed: int = 0,
    show: Callable[[str], None] = lambda _: None,
) -> ResultTable:
    """Test runs on the ISIC 2020 images at hand.

    Args:
        runs: of one recipe, such as seeds of one split or one cross-validation, which stands for its folds.
        folder: of ISIC 2020; images that are not there are left out.
        cache_dir: for decoded images; default: that of the runs.
        metadata: runs of metadata alone, to be gained over.
        n: number of resamples.
        seed: of the resampling.
        show: is told what is being done.

    Raises:
        StudyError: if the runs are not of one recipe, were trained on the external cases, or see no picture.
        DataError: if cases cannot be read.
    """
    settings = single_runs(runs)[0].settings
    if settings.source == EXTERNAL or "image" not in settings.modalities:
        raise StudyError(f"expected runs with an image branch, trained elsewhere than on {EXTERNAL}; got {settings.source} runs")
    cases = load_cases(EXTERNAL, folder, missing_images="drop")

    def ask(several: Sequence[Run]) -> list[ExternalTest]:
        found = []
        for run in single_runs(several):
            show(f"asking {run.path.name}")
            external = with_margin(predict_cases(run, cases, cache_dir or settings.cache_dir), run)
            found.append(ExternalTest(run, with_margin(run.predictions("test"), run), external))
        return found

    tests = ask(runs)
    patients = cases["patient_id"].nunique()
    details = {"images": len(cases), "patients": patients, "melanomas": int(cases["target"].sum()), "models": len(tests)}
    names = [f"runs/{run.path.name}" for run in runs]
    extra = ["--metadata", *(f"runs/{run.path.name}" for run in metadata)] if metadata else []
    return ResultTable(
        name="travel",
        title=f"{settings.source} models asked about {len(cases):,} ISIC 2020 images of {patients} patients",
        command=" ".join(["python -m melanoma_lib study travel", *names, *extra]),
        rows=external_rows(tests, n, seed),
        notes=("Each model's own calibration and threshold are used. Intervals resample patients or lesions, not trainings.",),
        details=details | ({"metadata_alone": gain_over(tests, ask(metadata), n, seed)} if metadata else {}),
        weights_sha256=weights_of([*runs, *metadata]),
    )


def _columns(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return table["target"].to_numpy(), table["margin"].to_numpy(), table["group_id"].to_numpy(str)


def _named(row: dict, place: str) -> dict:
    return {f"{name}_{place}": value for name, value in row.items()}
