"""Out-of-fold predictions: several models, each scored on the cases it has not seen, read as one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from melanoma_lib.evaluation.calibration import Calibrator
from melanoma_lib.evaluation.operating import OperatingCurve
from melanoma_lib.evaluation.seeds import bootstrap_mean_auroc
from melanoma_lib.evaluation.summary import evaluate_predictions


class FoldPredictions(NamedTuple):
    """What one fold's model says.

    Attributes:
        tables: of the ``val`` and ``test`` cases, with target, logit, probability, risk.
        calibrator: fitted on the fold's validation cases.
        threshold: on ``probability``, chosen on the fold's validation cases.
    """

    tables: dict[str, pd.DataFrame]
    calibrator: Calibrator
    threshold: float


def gather_folds(folds: Sequence[FoldPredictions]) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """Predictions of all folds as one table a split, with one threshold that repeats each fold's own decisions.

    The folds are different models: one threshold for all would be chosen on cases that some fold is scored on. So each fold's
    calibrated log-odds are shifted until its own operating point lies where the mean of all of them does. ``logit`` and
    ``probability`` are those; ``risk`` stays what the fold's own calibration says.

    Returns:
        The tables of ``val`` and ``test``, with ``fold`` (1, 2, ...); and ``threshold``, ``sensitivity`` and ``specificity`` of
        the operating point, the latter two on ``val``.
    """
    from scipy.special import expit

    cuts = []  # on each fold's logits: the lowest that it calls melanoma
    for fold in folds:
        validation = fold.tables["val"]
        cuts.append(validation.loc[validation["probability"] >= fold.threshold, "logit"].min())
    # Where calibration failed, and would reverse the ranking, the fold keeps its own scale.
    slopes = [fold.calibrator.slope if fold.calibrator.slope > 0 else 1.0 for fold in folds]
    common = float(np.mean([f.calibrator.slope * cut + f.calibrator.intercept for f, cut in zip(folds, cuts, strict=True)]))
    aligned: dict[str, list[pd.DataFrame]] = {"val": [], "test": []}
    for number, (fold, cut, slope) in enumerate(zip(folds, cuts, slopes, strict=True), start=1):
        for split, parts in aligned.items():
            table = fold.tables[split]
            above = slope * (table["logit"] - cut)
            flagged = table["probability"] >= fold.threshold
            above = np.where(flagged, np.maximum(above, 0), np.minimum(above, -1e-9))  # exact on the threshold itself, too
            parts.append(table.assign(logit=common + above, probability=expit(common + above), fold=number))
    tables = {split: pd.concat(parts, ignore_index=True) for split, parts in aligned.items()}
    threshold = float(expit(common))
    chosen = OperatingCurve(tables["val"]["target"], tables["val"]["probability"]).at(threshold)
    return tables, {"threshold": threshold, "sensitivity": chosen.sensitivity, "specificity": chosen.specificity}


def evaluate_folds(test: pd.DataFrame, threshold: float, n: int = 2000, seed: int = 0) -> dict:
    """What ``evaluate_predictions`` reports, with the AUROC as the mean of the folds': each ranks the cases of one model.

    Args:
        test: out-of-fold predictions with ``fold``, as ``gather_folds`` gives them.
        threshold: the common one.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        As ``evaluate_predictions``, with ``auroc_by_fold`` and ``auroc_pooled`` (all folds ranked as if by one model) besides,
        and ``score``: what ``probability`` is in a table of several models.
    """
    summary = evaluate_predictions(test, threshold, n, seed)
    samples = auroc_samples(test)
    return summary | {
        "auroc": bootstrap_mean_auroc(samples, n=n, seed=seed).to_dict(),
        "auroc_pooled": summary["auroc"],
        "score": "score, folds aligned",
        "auroc_by_fold": [bootstrap_mean_auroc([sample], n=n, seed=seed).to_dict() for sample in samples],
    }


def auroc_samples(test: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """``(targets, probabilities, groups)`` of each model in a table: of each fold where there are folds, else of all."""
    parts = [part for _, part in test.groupby("fold")] if "fold" in test else [test]
    return [(part["target"].to_numpy(), part["probability"].to_numpy(), part["group_id"].to_numpy()) for part in parts]
