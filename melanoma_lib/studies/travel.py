"""Does it travel? A model of one collection, asked about the pictures of another.

Educational, not for diagnosis.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from melanoma_lib.data.sources import load_cases
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation.calibration import RISK_FLOOR, bootstrap_calibration
from melanoma_lib.evaluation.intervals import BLOCK, Interval, bootstrap_intervals, group_codes, resample_groups
from melanoma_lib.evaluation.paired import bootstrap_mean_auroc
from melanoma_lib.runs import Run
from melanoma_lib.studies.recalibration import (
    AS_IT_IS,
    BOTH,
    INTERCEPT,
    PRIOR,
    LocalCases,
    fit_intercepts,
    fit_maps,
    local_recalibration,
    observed_over_expected,
    prior_shift,
)

BATCH = 64
LOCAL_PATIENTS = (5, 10, 20, 30)  # patients whose outcome a clinic waits for before it trusts a risk
RATES = ("sensitivity", "specificity", "ppv")
FITS = 500  # resamples of what needs a regression each


@dataclass(frozen=True)
class Traveller:
    """One model with its answers at home and abroad.

    Attributes:
        run: a finished training.
        home: its own test predictions.
        abroad: its predictions of the other collection's cases. Both tables have ``image_id``, ``group_id``, ``target``,
            ``risk`` (calibrated on its own validation cases), ``log_odds`` of that risk, and ``margin``: those log-odds less the
            ones at its own stored threshold, so that ``margin >= 0`` is its decision whatever its scale.
    """

    run: Run
    home: pd.DataFrame
    abroad: pd.DataFrame

    @property
    def cut(self) -> float:
        """Calibrated log-odds at its stored threshold."""
        return float(self.home["log_odds"].iloc[0] - self.home["margin"].iloc[0])


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
        if differing := sorted(
            name for name in mine | first if mine.get(name) != first.get(name) and name not in ("seed", "fold")
        ):
            raise StudyError(f"{run.path} differs from {found[0].path} in {', '.join(differing)}; take runs of one recipe")
    return found


def with_margin(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Predictions with ``log_odds`` of the calibrated risk and ``margin`` over the run's own stored threshold.

    Raises:
        StudyError: if the run's calibration turns its ranking upside down, or its threshold calls everybody or nobody.
    """
    calibrator, threshold = run.calibrator, run.operating_point.threshold
    if calibrator.slope <= 0 or not 0 < threshold < 1:
        raise StudyError(
            f"{run.path}: slope {calibrator.slope:.3g}, threshold {threshold:.3g}; such a model ranks or decides nothing"
        )
    log_odds = calibrator.slope * table["logit"] + calibrator.intercept
    margin = calibrator.slope * (table["logit"] - logit(threshold))
    return table.assign(log_odds=log_odds, margin=margin)


def predict_cases(run: Run, cases: pd.DataFrame, cache_dir: Path) -> pd.DataFrame:
    """A run's predictions of cases it has never seen, of any source, prepared as its own test cases were.

    Args:
        run: a finished training.
        cases: a validated case table with image files.
        cache_dir: where decoded images are kept.

    Returns:
        ``image_id``, ``group_id``, ``target``, ``logit``, ``risk``, ``log_odds`` and ``margin``, in the order of the cases.
    """
    from melanoma_lib.inference import predict_logits, prediction_device

    model = run.model().to(prediction_device())
    logits = predict_logits(model, _batches(run, cases, cache_dir), run.settings.tta)
    table = cases[["image_id", "group_id", "target"]].reset_index(drop=True)
    return with_margin(table.assign(logit=logits, risk=run.calibrator.risk(logits)), run)


def _batches(run: Run, cases: pd.DataFrame, cache_dir: Path) -> Iterator[dict]:
    import torch

    from melanoma_lib.data.cache import open_cache, open_evaluation_cache
    from melanoma_lib.data.images import normalise, stored_side

    settings, metadata = run.settings, torch.from_numpy(run.encoder.transform(cases))  # (N, M)
    pixels = None
    if "image" in settings.modalities:
        decoded = open_cache([Path(path) for path in cases["image_path"]], stored_side(settings.image_size), cache_dir)
        pixels = open_evaluation_cache(decoded, settings.backbone, settings.image_size)  # (N, S, S, 3)
    for start in range(0, len(cases), BATCH):
        batch = {"metadata": metadata[start : start + BATCH]}
        if pixels is not None:
            stack = torch.from_numpy(pixels[start : start + BATCH].copy()).permute(0, 3, 1, 2)  # (B, 3, S, S)
            batch["image"] = normalise(stack, settings.backbone)
        yield batch


def send(
    runs: Sequence[Run], cases: pd.DataFrame, cache_dir: Path, show: Callable[[str], None] = lambda _: None
) -> list[Traveller]:
    """Ask every training behind the runs about the cases.

    Args:
        runs: of one recipe; a cross-validation sends its folds.
        cases: of the other collection.
        cache_dir: where decoded images are kept.
        show: is told what is being done.
    """
    travellers = []
    for run in single_runs(runs):
        show(f"asking {run.path.name}")
        travellers.append(Traveller(run, with_margin(run.predictions("test"), run), predict_cases(run, cases, cache_dir)))
    return travellers


def averaged(travellers: Sequence[Traveller]) -> pd.DataFrame:
    """What the models say of the cases abroad together: means of calibrated log-odds and of margins, no case was in training."""
    table = travellers[0].abroad[["image_id", "group_id", "target"]]
    log_odds, margin = (np.mean([one.abroad[name] for one in travellers], axis=0) for name in ("log_odds", "margin"))
    return table.assign(log_odds=log_odds, margin=margin, risk=expit(log_odds))


def score_row(table: pd.DataFrame, n: int = 2000, seed: int = 0) -> dict[str, dict]:
    """Ranking, decisions at the stored threshold and calibration of one table of predictions, each an interval by groups."""
    targets, groups = table["target"].to_numpy(), table["group_id"].to_numpy(str)
    found = bootstrap_intervals(targets, table["margin"], groups, 0.0, n, seed)
    row = {name: found[name] for name in ("auroc", "average_precision", *RATES)}
    return {
        name: interval.to_dict() for name, interval in (row | calibration_of(table["risk"], targets, groups, n, seed)).items()
    }


def calibration_of(risk, targets, groups, n: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Brier score, slope, intercept and observed over expected, with intervals by groups."""
    fits = bootstrap_calibration(risk, targets, groups, min(n, FITS), seed)
    brier = bootstrap_intervals(targets, risk, groups, None, n, seed)["brier"]
    return {"brier": brier} | fits | {"observed_over_expected": observed_over_expected(risk, targets, groups, n, seed)}


def external_rows(travellers: Sequence[Traveller], n: int = 2000, seed: int = 0) -> list[dict]:
    """The mean of the models, all models averaged, and each model: at home where it can be said, and abroad.

    Rates of the mean count the decisions of all models together, each by its own model.
    """
    samples = {place: [columns_of(getattr(one, place)) for one in travellers] for place in ("home", "abroad")}
    mean = {f"auroc_{place}": bootstrap_mean_auroc(these, n=n, seed=seed).to_dict() for place, these in samples.items()}
    for place, these in samples.items():
        decided = bootstrap_intervals(*map(np.concatenate, zip(*these, strict=True)), 0.0, n, seed)
        mean |= {f"{name}_{place}": decided[name].to_dict() for name in RATES}
    rows = [{"model": f"mean of {len(travellers)} models"} | mean]
    if len(travellers) > 1:
        rows.append({"model": f"{len(travellers)} models averaged"} | _named(score_row(averaged(travellers), n, seed), "abroad"))
    for one in travellers:
        settings = one.run.settings
        row = {"model": f"fold {settings.fold}" if settings.fold else f"seed {settings.seed}"}
        rows.append(row | _named(score_row(one.home, n, seed), "home") | _named(score_row(one.abroad, n, seed), "abroad"))
    return rows


def gain_over(travellers: Sequence[Traveller], baseline: Sequence[Traveller], n: int = 2000, seed: int = 0) -> dict[str, dict]:
    """Mean AUROC abroad of a baseline's models, such as metadata alone, and what the others gain over it on the same cases.

    Where the numbers of models differ, each model is compared with the baseline's average.
    """
    scores = averaged(baseline)["log_odds"] if len(baseline) != len(travellers) else None
    baselines = [one.abroad["log_odds"] for one in baseline] if scores is None else [scores] * len(travellers)
    samples = [columns_of(one.abroad) for one in travellers]
    own = [(targets, base, groups) for (targets, _, groups), base in zip(samples, baselines, strict=True)]
    return {
        "auroc": bootstrap_mean_auroc(own, n=n, seed=seed).to_dict(),
        "gain": bootstrap_mean_auroc(samples, baselines, n, seed).to_dict(),
    }


def columns_of(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, margins and groups of a traveller's table."""
    return table["target"].to_numpy(), table["margin"].to_numpy(), table["group_id"].to_numpy(str)


def _named(row: dict, place: str) -> dict:
    return {f"{name}_{place}": value for name, value in row.items()}


def recalibrated(travellers: Sequence[Traveller], there: float, n: int = 2000, seed: int = 0) -> tuple[list[dict], dict]:
    """Risks abroad as they came, after the prior's closed form, and after fits on all cases abroad, which flatter themselves.

    Args:
        travellers: whose average is recalibrated.
        there: share of melanomas where the cases come from, known without their labels.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        Rows by ``method``; and the shift of the log-odds that the prior's change asks for, beside the one that the cases ask for.
    """
    table, local = averaged(travellers), local_cases(travellers)
    targets, groups, equal = local.targets, local.groups, np.ones((1, len(table)))
    maps = {AS_IT_IS: (1.0, 0.0), PRIOR: (1.0, float(prior_shift(local.here, there)))}
    for method in (INTERCEPT, BOTH):
        slope, intercept = fit_maps(method, local.log_odds, targets, equal, local.here)
        maps[method] = (float(slope[0]), float(intercept[0]))
    rows = []
    for method, (slope, intercept) in maps.items():
        if not np.isfinite([slope, intercept]).all():
            continue  # the classes are separated: there is no such fit
        mapped = slope * local.log_odds + intercept
        found = bootstrap_intervals(targets, mapped - local.cut, groups, 0.0, n, seed)
        decisions = {name: found[name] for name in RATES}
        facts = {"method": method, "map_slope": slope, "map_intercept": intercept}
        values = decisions | calibration_of(expit(mapped), targets, groups, n, seed)
        rows.append(facts | {name: interval.to_dict() for name, interval in values.items()})
    codes, n_groups = group_codes(groups, targets.size)
    blocks = resample_groups(n_groups, n, seed, max(1, BLOCK // targets.size))
    drawn = np.concatenate([fit_intercepts(local.log_odds, targets, weights[:, codes]) for weights in blocks])
    needed = Interval.from_replicates(float(fit_intercepts(local.log_odds, targets, equal)[0]), drawn)
    return rows, {
        "prevalence_home": local.here,
        "prevalence_abroad": there,
        "prior_shift": maps[PRIOR][1],
        "needed_shift": needed.to_dict(),
    }


def local_cases(travellers: Sequence[Traveller]) -> LocalCases:
    """The cases abroad with the averaged risk, the prevalence it holds for and the averaged cut."""
    table = averaged(travellers)
    here = float(np.mean([one.run.predictions("val")["target"].mean() for one in travellers]))
    cut = expit(np.mean([one.cut for one in travellers]))
    return LocalCases.of_risks(table["risk"].clip(RISK_FLOOR, 1 - RISK_FLOOR), table["target"], table["group_id"], here, cut)


def few_cases(travellers: Sequence[Traveller], repeats: int = 500, seed: int = 0) -> list[dict]:
    """What a few local patients mend, by number of patients and method; see ``recalibration.local_recalibration``."""
    local = local_cases(travellers)
    n_groups = len(set(local.groups))
    sizes = [size for size in LOCAL_PATIENTS if size < n_groups]
    return local_recalibration(local, sizes, repeats, seed).to_dict("records") if sizes else []


def sample_facts(root: Path, present: pd.DataFrame) -> dict:
    """How the cases at hand were chosen from their collection's table, as far as the table tells."""
    whole = load_cases("isic2020", root, missing_images="keep")
    facts = {}
    for name, table in (("here", present), ("table", whole)):
        patients = table.groupby("patient_id")["target"].agg(["size", "max"])
        facts[name] = {
            "images": len(table), "patients": len(patients), "melanomas": int(table["target"].sum()),
            "prevalence": float(table["target"].mean()), "patients_with_melanoma": float(patients["max"].mean()),
            "images_a_patient": float(patients["size"].mean()),
        }  # fmt: skip
    full = whole[whole["patient_id"].isin(present["patient_id"])].groupby("patient_id").size()
    facts["whole_patients"] = float((present.groupby("patient_id").size().reindex(full.index) == full).mean())
    return facts
