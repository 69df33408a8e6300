"""Every case answered once, by a quick model of the fold that holds it out, with that fold's own threshold."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.data.splits import fold_cases
from melanoma_lib.evaluation import OperatingCurve, bootstrap_mean_auroc
from melanoma_lib.lessons.cross_validation import QuickCases


def roles_of(cases: pd.DataFrame, folds: int = 5, seed: int = 0) -> list[pd.Series]:
    """``train``, ``val`` or ``test`` of every case, one series a fold."""
    return [fold_cases(cases, folds, fold, seed) for fold in range(1, folds + 1)]


def out_of_fold(
    quick: QuickCases, roles: Sequence[pd.Series], min_sensitivity: float, inputs: str = "image+metadata"
) -> pd.DataFrame:
    """Every case answered once, by a model that has seen nothing of its patient or lesion, with its fold's own decision.

    Args:
        quick: the cases.
        roles: from `roles_of`.
        min_sensitivity: that each fold's threshold must reach on its validation cases.
        inputs: as in `QuickCases.logits`.

    Returns:
        image_id, group_id, target, fold (from 1), logit, threshold and called, one row a case, in the order of the cases.
    """
    parts = []
    for fold, role in enumerate(roles, 1):
        train, val, test = ((role == name).to_numpy() for name in ("train", "val", "test"))
        answers = quick.logits(train, np.ones_like(train), inputs)
        threshold = OperatingCurve(quick.targets[val], answers[val]).for_sensitivity(min_sensitivity).threshold
        columns = {"fold": fold, "logit": answers[test], "threshold": threshold, "called": answers[test] >= threshold}
        parts.append(quick.cases.loc[test, ["image_id", "group_id", "target"]].assign(**columns))
    return pd.concat(parts).loc[quick.cases.index]


def fold_table(answers: pd.DataFrame, n: int = 500) -> pd.DataFrame:
    """Each fold's test as text: size, AUROC with interval, and what its own threshold did; at the end the mean of the folds.

    Args:
        answers: from `out_of_fold`.
        n: resamples behind each interval.
    """
    parts = {f"fold {fold}": part for fold, part in answers.groupby("fold")}
    samples = [(part["target"], part["logit"], part["group_id"]) for part in parts.values()]
    called = answers.groupby(["target", "fold"])["called"].mean().unstack(0)  # by fold, of others (0) and of melanomas (1)
    table = pd.DataFrame(
        {
            "images": [f"{len(part):,}" for part in parts.values()],
            "melanomas": [f"{part['target'].sum():,}" for part in parts.values()],
            "AUROC": [f"{bootstrap_mean_auroc([sample], n=n):.3f}" for sample in samples],
            "threshold (log-odds)": [f"{part['threshold'].iloc[0]:+.2f}" for part in parts.values()],
            "sensitivity": [f"{share:.1%}" for share in called[1]],
            "specificity": [f"{1 - share:.1%}" for share in called[0]],
        },
        index=list(parts),
    )
    auroc, shares = f"{bootstrap_mean_auroc(samples, n=n):.3f}", (called[1].mean(), 1 - called[0].mean())
    table.loc["mean of folds"] = ["", "", auroc, "", *(f"{share:.1%}" for share in shares)]
    return table


def fold_aurocs(answers: pd.DataFrame, scores: ArrayLike | None = None) -> tuple[float, float]:
    """Mean of the folds' AUROCs, and the AUROC of all answers thrown together.

    Args:
        answers: from `out_of_fold`.
        scores: in place of its logits, shape ``(N,)``.
    """
    table = answers.assign(score=answers["logit"] if scores is None else np.asarray(scores))
    each = [OperatingCurve(part["target"], part["score"]).auroc for _, part in table.groupby("fold")]
    return float(np.mean(each)), OperatingCurve(table["target"], table["score"]).auroc


def moved_scales(answers: pd.DataFrame, by: float = 1.0) -> NDArray[np.float64]:
    """Log-odds as if each fold's model had a scale of its own: fold 1 stays, the next move by ``by``, -``by``, 2 ``by``, ..."""
    folds = answers["fold"].to_numpy()
    return answers["logit"].to_numpy() + by * np.where(folds % 2, -1, 1) * (folds // 2)
