"""Exercises of the cross-validation lesson: grouped folds, folds to mend, and two models on the same draws."""

import operator

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from melanoma_lib.classroom.checks.engine import Exercise
from melanoma_lib.classroom.checks.threshold import auroc, threshold_for


def _photographed(n_lesions: int = 120):
    """Images of lesions, up to three of each, whose features tell the lesion better than its class; with targets and lesions."""
    rng = np.random.default_rng(11)
    lesion = np.repeat(np.arange(n_lesions), rng.integers(1, 4, n_lesions))
    target = (rng.random(n_lesions) < 0.3).astype(int)
    features = rng.normal(size=(n_lesions, 3)) + 0.6 * target[:, None]
    return features[lesion] + 0.1 * rng.normal(size=(lesion.size, 3)), target[lesion], lesion


def _two_classifiers():
    return [(model, *_photographed()) for model in (KNeighborsClassifier(3), DecisionTreeClassifier(max_depth=3, random_state=0))]


def _fold_scores(model, features, targets, groups, folds=StratifiedGroupKFold, scoring="roc_auc"):
    cv = folds(5).split(features, targets, groups if "Group" in folds.__name__ else None)  # the others would warn
    return cross_val_score(model, features, targets, cv=[*cv], scoring=scoring)


grouped = Exercise(
    reference=_fold_scores,
    finish=np.mean,
    inputs=_two_classifiers,
    returns="one number, the mean of five AUROCs",
    success="the check's models, which recognise lesions, gain nothing from it",
    slips={
        "images of one lesion lie in several folds: stratified folds know nothing of groups": {"folds": StratifiedKFold},
        "images of one lesion lie in several folds, and the classes are left to chance: hand over cv=": {"folds": KFold},
        "no lesion is split, but the folds differ in their share of melanomas: GroupKFold leaves the classes to chance": {
            "folds": GroupKFold
        },
        "that is the accuracy, the default of cross_val_score: name the scoring": {"scoring": "accuracy"},
    },
    finishes={
        "that is the best fold: take the mean": np.max,
        "that is the spread of the folds: take the mean": np.std,
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
    cases,
    roles,
    fit,
    target,
    taught=("train",),
    chosen=("val",),
    scored="test",
    sign=operator.ge,
    count=lambda called, melanoma: called[melanoma].mean(),
):
    """What is counted in each fold, sensitivity if all is well, and the number of melanomas there."""
    counted, sizes = [], []
    for role in roles:
        model = fit(cases[role.isin(taught)])
        on, part = cases[role.isin(chosen)], cases[role == scored]
        threshold = threshold_for(target, on["target"], model(on))
        melanoma = (part["target"] == 1).to_numpy()
        counted.append(count(sign(model(part), threshold), melanoma))
        sizes.append(melanoma.sum())
    return counted, sizes


_MELANOMAS = "sensitivity counts melanomas only:"
nested = Exercise(
    reference=_folds,
    finish=lambda folds: np.mean(folds[0]),
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
        "a score equal to the threshold is called melanoma: use >=": {"sign": operator.gt},
        f"{_MELANOMAS} this is the share of all cases that are called": {"count": lambda called, melanoma: called.mean()},
        f"{_MELANOMAS} this is the accuracy": {"count": lambda called, melanoma: (called == melanoma).mean()},
    },
    finishes={
        "it reports the best fold, which promises too much: take the mean": lambda folds: max(folds[0]),
        "it reports the first fold alone: does `return` stand inside the loop?": lambda folds: folds[0][0],
        "it counts all folds' melanomas together; take the mean of the folds": lambda folds: np.average(
            folds[0], weights=folds[1]
        ),
    },
)


def _two_models():
    rng = np.random.default_rng(3)
    targets = (rng.random(120) < 0.35).astype(int)
    shared = rng.normal(targets)
    a, b = (shared + 0.5 * rng.normal(size=120) + 0.5 * targets).round(6), (shared + 0.6 * rng.normal(size=120)).round(6)
    # 81 draws: the percentiles are draws themselves, however they are interpolated
    return [(targets, a, b, [rng.integers(120, size=120) for _ in range(81)]) for _ in range(2)]


def _aurocs(targets, scores, draws):
    return np.array([auroc(targets[rows], scores[rows]) for rows in draws])


def _both(targets, a, b, draws):
    return np.array([_aurocs(targets, a, draws), _aurocs(targets, b, draws)])


def _ends(values, outside=2.5):
    return np.percentile(values, [outside, 100 - outside])


def _normal(both, draws=1):
    gains = both[0] - both[1]
    return gains.mean() + np.array([-1.96, 1.96]) * gains.std() / np.sqrt(draws)


_UNPAIRED = "subtract within each draw, before you take percentiles"
paired_interval = Exercise(
    reference=_both,
    finish=lambda both: _ends(both[0] - both[1]),
    inputs=_two_models,
    returns="two numbers, the lower and the upper end",
    success="both models see the same lesions in every draw, so what they share cancels",
    slips={
        "it is b less a: a - b was asked for": lambda targets, a, b, draws: _both(targets, b, a, draws),
        "that is the interval of model a alone": lambda targets, a, b, draws: _both(targets, a, b, draws) * [[1], [0]],
        "scores are drawn, targets are not: index all three with the same rows": lambda targets, a, b, draws: np.array(
            [[auroc(targets, scores[rows]) for rows in draws] for scores in (a, b)]
        ),
        "a and b see different rows: in each draw both models must see the same lesions": (
            lambda targets, a, b, draws: (_aurocs(targets, a, draws), _aurocs(targets, b, [*draws[1:], draws[0]]))
        ),
    },
    finishes={
        f"these are the two intervals' ends subtracted; {_UNPAIRED}": lambda both: _ends(both[0]) - _ends(both[1]),
        f"that compares the worst of a with the best of b; {_UNPAIRED}": lambda both: _ends(both[0]) - _ends(both[1])[::-1],
        "np.percentile takes percent: 2.5 and 97.5": lambda both: np.percentile(both[0] - both[1], [0.025, 0.975]),
        "that holds 90% of the draws: 2.5% lie outside at each end of a 95% interval": lambda both: _ends(both[0] - both[1], 5),
        "the ends have changed places: low first": lambda both: _ends(both[0] - both[1])[::-1],
        "these are the smallest and the largest difference: take percentiles": lambda both: _ends(both[0] - both[1], 0),
        "that is a normal interval, plus or minus 1.96 deviations; percentiles of the draws were asked for": _normal,
        "the spread of the draws is the standard error already: no division by √n": lambda both: _normal(both, len(both[0])),
    },
)
