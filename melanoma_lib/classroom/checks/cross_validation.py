"""Exercises of the cross-validation lesson: grouped folds, folds to mend, and two models on the same draws."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from melanoma_lib.classroom.checks.engine import Exercise
from melanoma_lib.classroom.checks.threshold import threshold_for

RNG = np.random.default_rng(12)
LESION = np.repeat(np.arange(120), 3)
TARGET = (RNG.random(120) < 0.3).astype(int)[LESION]
# features tell the lesion better than its class
FEATURES = RNG.normal(size=(120, 3))[LESION] + 0.6 * TARGET[:, None] + 0.1 * RNG.normal(size=(360, 3))
SCORES = {"x": FEATURES[:, 0], "y": FEATURES[:, 1], "learnt": RNG.normal(3 * TARGET)}  # of what a model was taught
CASES = pd.DataFrame({"image_id": np.arange(360), "target": TARGET} | SCORES).round(1)
FOLDS = (RNG.integers(5, size=360) + np.arange(5)[:, None]) % 5
ROLES = [pd.Series(np.array(["test", "val", "train", "train", "train"])[fold]) for fold in FOLDS]
# with 41 draws the percentiles are draws themselves, however they are interpolated
DRAWS = [RNG.integers(360, size=360) for _ in range(41)]


def _fold_scores(model, features, targets, groups, folds=StratifiedGroupKFold, scoring="roc_auc"):
    cv = folds(5).split(features, targets, groups if "Group" in folds.__name__ else None)  # the others would warn
    return cross_val_score(model, features, targets, cv=[*cv], scoring=scoring).mean()


def _fit(taught):
    """A model that knows by heart what it was taught; its other answers depend a little on how much that was."""
    ids, n = taught["image_id"], len(taught)
    return lambda asked: asked["learnt"].where(asked["image_id"].isin(ids), asked["x"] + n / 1000 * asked["y"])


def _folds(cases, roles, fit, target, taught="train", chosen="val", last=np.mean):
    sensitivities = []
    for role in roles:
        model = fit(cases[[name in taught for name in role]])
        on, melanomas = cases[role == chosen], cases[(role == "test") & (cases["target"] == 1)]
        sensitivities.append((model(melanomas) >= threshold_for(on["target"], model(on), target)).mean())
    return last(sensitivities)


def _gains(targets, a, b, draws, drawn=True, turn=0, subtract_ends=False, ends=(2.5, 97.5)):
    of_a, of_b = (
        np.array([roc_auc_score(targets[rows] if drawn else targets, scores[rows]) for rows in asked])
        for scores, asked in ((a, draws), (b, [*draws[turn:], *draws[:turn]]))
    )
    return np.percentile(of_a, ends) - np.percentile(of_b, ends) if subtract_ends else np.percentile(of_a - of_b, ends)


grouped = Exercise(
    reference=_fold_scores,
    inputs=[(KNeighborsClassifier(neighbours), FEATURES, TARGET, LESION) for neighbours in (3, 20)],
    success="the check's models, which recognise lesions, gain nothing from it",
    slips={
        "images of one lesion lie in several folds: stratified folds know no groups": {"folds": StratifiedKFold},
        "no lesion is split, but GroupKFold leaves the share of melanomas to chance": {"folds": GroupKFold},
        "that is the accuracy, the default of cross_val_score: name the scoring": {"scoring": "accuracy"},
    },
)

nested = Exercise(
    reference=_folds,
    inputs=[(CASES, ROLES, _fit, target) for target in (0.9, 0.6)],
    success="taught on train, chosen on validation, scored on test, and every fold counts",
    slips={
        "the model is taught on validation cases too, and knows them better than new ones": {"taught": "train val"},
        "the threshold is chosen on the fold that it is scored on: choose on val": {"chosen": "test"},
        "it reports the best fold, which is sampling variability: take the mean": {"last": max},
    },
)

paired_interval = Exercise(
    reference=_gains,
    inputs=[(TARGET, FEATURES[:, 0], FEATURES[:, :2].sum(1), DRAWS)],
    success="both models see the same lesions in every draw, so what they share cancels",
    slips={
        "a and b see different rows: in each draw both models must see the same lesions": {"turn": 1},
        "scores are drawn, targets are not: index all three with the same rows": {"drawn": False},
        "the ends of two intervals are subtracted: subtract within each draw": {"subtract_ends": True},
    },
)
