"""Exercises of the cross-validation lesson: grouped folds, folds to mend, and two models on the same draws."""

import operator

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from melanoma_lib.classroom.checks.engine import Exercise
from melanoma_lib.classroom.checks.threshold import threshold_for


def _photographed(n_lesions: int = 120):
    """Images of lesions, up to three of each, whose features tell the lesion better than its class; with targets and lesions."""
    rng = np.random.default_rng(11)
    lesion = np.repeat(np.arange(n_lesions), rng.integers(1, 4, n_lesions))
    target = (rng.random(n_lesions) < 0.3).astype(int)
    features = rng.normal(size=(n_lesions, 3)) + 0.6 * target[:, None]
    return features[lesion] + 0.1 * rng.normal(size=(lesion.size, 3)), target[lesion], lesion


def _fold_scores(model, features, targets, groups, folds=StratifiedGroupKFold, scoring="roc_auc", last=np.mean):
    cv = folds(5).split(features, targets, groups if "Group" in folds.__name__ else None)  # the others would warn
    return last(cross_val_score(model, features, targets, cv=[*cv], scoring=scoring))


grouped = Exercise(
    reference=_fold_scores,
    inputs=lambda: [
        (model, *_photographed()) for model in (KNeighborsClassifier(3), DecisionTreeClassifier(max_depth=3, random_state=0))
    ],
    returns="one number, the mean of five AUROCs",
    success="the check's models, which recognise lesions, gain nothing from it",
    slips={
        "images of one lesion lie in several folds: stratified folds know nothing of groups": {"folds": StratifiedKFold},
        "images of one lesion lie in several folds, and the classes are left to chance: hand over cv=": {"folds": KFold},
        "no lesion is split, but GroupKFold leaves the share of melanomas to chance": {"folds": GroupKFold},
        "that is the accuracy, the default of cross_val_score: name the scoring": {"scoring": "accuracy"},
        "that is the best fold: take the mean": {"last": np.max},
    },
    hint="Five folds, AUROC, no shuffling",
)


def _made_up_folds(n_folds: int = 5, n: int = 400):
    """Cases with a weak score ``x``, another one ``y``, and their role in each fold; folds of unlike sizes."""
    rng = np.random.default_rng(7)
    target = (rng.random(n) < 0.3).astype(int)
    scores = {name: rng.normal(shift * target).round(1) for name, shift in (("x", 0.9), ("learnt", 2.4), ("y", 0.9))}
    cases = pd.DataFrame({"image_id": [f"case_{number:03}" for number in range(n)], "target": target, **scores})
    fold = rng.choice(n_folds, n, p=np.array([3, 4, 5, 6, 7]) / 25)
    late = rng.random(n) < 0.5
    roles = []
    for number in range(n_folds):
        role = np.where((fold == (number + 1) % n_folds) & late, "val", "train")
        roles.append(pd.Series(np.where(fold == number, "test", role), index=cases.index, name="split"))
    return cases, roles


def _memory(taught: pd.DataFrame):
    """A model that knows by heart what it was taught; what it says of other cases depends a little on how many those were."""

    def answer(asked: pd.DataFrame) -> np.ndarray:
        known = asked["image_id"].isin(taught["image_id"])
        new = asked["x"] + len(taught) / 1000 * asked["y"]
        return np.where(known, asked["learnt"], new.round(1))

    return answer


def _folds(
    cases, roles, fit, target, taught=("train",), chosen=("val",), scored="test", sign=operator.ge,
    count=lambda called, melanoma: called[melanoma].mean(), last=np.mean,
):  # fmt: skip
    """What is counted in each fold, sensitivity if all is well."""
    counted = []
    for role in roles:
        model = fit(cases[role.isin(taught)])
        on, part = cases[role.isin(chosen)], cases[role == scored]
        threshold = threshold_for(target, on["target"], model(on))
        melanoma = (part["target"] == 1).to_numpy()
        counted.append(count(sign(model(part), threshold), melanoma))
    return last(counted)


nested = Exercise(
    reference=_folds,
    inputs=lambda: [(*_made_up_folds(), _memory, target) for target in (0.9, 0.6)],
    returns="one number, the mean over the folds",
    success="taught on train, chosen on validation, scored on test, and every fold counts",
    hunt=True,
    slips={
        "the model is taught on validation cases too, which it then knows better than new ones": {"taught": ("train", "val")},
        "the model is taught on the very cases that it is tested on": {"taught": ("train", "val", "test")},
        "the threshold is chosen on the fold that it is scored on: choose on val": {"chosen": ("test",)},
        "the threshold is chosen on training cases, which the model knows: choose on val": {"chosen": ("train",)},
        "scored on validation: the threshold was chosen there; score on test": {"scored": "val"},
        "val and test have changed places: choose on the one, score on the other": {"chosen": ("test",), "scored": "val"},
        "a score equal to the threshold is not flagged: use >=": {"sign": operator.gt},
        "that is the share of all cases that are flagged; sensitivity counts melanomas only":
            {"count": lambda called, melanoma: called.mean()},
        "it reports the best fold, which is sampling variability: take the mean": {"last": max},
        "it reports the first fold alone: is `return` inside the loop?": {"last": lambda rates: rates[0]},
    },
)  # fmt: skip


def _two_models():
    rng = np.random.default_rng(3)
    targets = (rng.random(120) < 0.35).astype(int)
    shared = rng.normal(targets)
    a, b = (shared + 0.5 * rng.normal(size=120) + 0.5 * targets).round(6), (shared + 0.6 * rng.normal(size=120)).round(6)
    # 81 draws: the percentiles are draws themselves, however they are interpolated
    return [(targets, a, b, [rng.integers(120, size=120) for _ in range(81)]) for _ in range(2)]


def _ends(values, outside=2.5):
    return np.percentile(values, [outside, 100 - outside])


def _auroc(targets, scores):
    positives, negatives = scores[targets == 1], scores[targets == 0]
    return (np.sign(positives[:, None] - negatives) + 1).mean() / 2


def _gains(targets, a, b, draws, drawn=True, turn=0, last=lambda a, b: _ends(a - b)):
    """Ends of the interval; on request targets are not drawn, or model ``b`` sees other draws."""
    of_each = [
        np.array([_auroc(targets[rows] if drawn else targets, scores[rows]) for rows in asked])
        for scores, asked in ((a, draws), (b, [*draws[turn:], *draws[:turn]]))
    ]
    return last(*of_each)


paired_interval = Exercise(
    reference=_gains,
    inputs=_two_models,
    returns="two numbers, the lower and the upper end",
    success="both models see the same lesions in every draw, so what they share cancels",
    slips={
        "it is b less a: a - b was asked for": {"last": lambda a, b: _ends(b - a)},
        "scores are drawn, targets are not: index all three with the same rows": {"drawn": False},
        "a and b see different rows: in each draw both models must see the same lesions": {"turn": 1},
        "these are the two intervals' ends subtracted: subtract within each draw": {"last": lambda a, b: _ends(a) - _ends(b)},
        "np.percentile takes percent: 2.5 and 97.5": {"last": lambda a, b: np.percentile(a - b, [0.025, 0.975])},
        "that holds 90% of the draws: 2.5% lie outside at each end of a 95% interval": {"last": lambda a, b: _ends(a - b, 5)},
        "the ends have changed places: low first": {"last": lambda a, b: _ends(a - b)[::-1]},
    },
)  # fmt: skip
