"""Exercises of the cross-validation lesson: a standard error, folds to mend, two models on the same draws, and a choice."""

import math
import operator

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks.engine import Exercise
from melanoma_lib.classroom.checks.threshold import auroc, threshold_for


def _variance(auroc, melanomas, others, less=(1, 1), swap=False, square=True, combine=None):
    """Hanley and McNeil's variance, with the faults that are asked for."""
    q = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    q1, q2 = q[::-1] if swap else q
    square = auroc**2 if square else 0.0
    terms = auroc * (1 - auroc), (melanomas - less[0]) * (q1 - square), (others - less[1]) * (q2 - square)
    return combine(terms, melanomas, others) if combine else sum(terms) / (melanomas * others)


_PAIR = "a pair needs two different lesions: look again at"
standard_error = Exercise(
    reference=_variance,
    finish=math.sqrt,
    inputs=[(0.9, 52, 225), (0.75, 30, 60), (0.95, 1100, 400)],
    returns="one number, the standard error",
    success="the width follows from the AUROC and the number of lesions of each class",
    slips={
        "q1 and q2 have changed places, or the two numbers of lesions have: q1 goes with the melanomas": {"swap": True},
        f"{_PAIR} (melanomas - 1) and (others - 1)": {"less": (0, 0)},
        f"{_PAIR} (melanomas - 1)": {"less": (0, 1)},
        f"{_PAIR} (others - 1)": {"less": (1, 0)},
        "take the square of the AUROC off q1 and off q2: only what exceeds independent wins counts": {"square": False},
        "nothing is divided by the number of pairs, melanomas x others": {"combine": lambda t, m, n: sum(t)},
        "only the last term is divided by the number of pairs": {"combine": lambda t, m, n: t[0] + t[1] + t[2] / (m * n)},
        "x / m * n divides by m and then multiplies by n: look at the brackets": {"combine": lambda t, m, n: sum(t) / m * n},
        "the root goes over the whole fraction": {"combine": lambda t, m, n: sum(t) / (m * n) ** 2},
    },
    finishes={
        "that is the variance: the standard error is its square root": float,
        "that is half of a 95% interval: leave the 1.96 out": lambda variance: 1.96 * math.sqrt(variance),
    },
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
        "it reports the best fold, which is the luck of a split: take the mean": lambda folds: max(folds[0]),
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


def _normal(both):
    gains = both[0] - both[1]
    return gains.mean() + np.array([-1.96, 1.96]) * gains.std()


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
    },
)


# heavy is dearer than middle and no better; scores are thirty-seconds, so that a margin can be exact; the rows are in no order
MODELS = pd.DataFrame(
    [("middle", 28 / 32, 120), ("tiny", 24 / 32, 8), ("large", 29 / 32, 400), ("small", 27 / 32, 60), ("grand", 30 / 32, 900),
     ("heavy", 27.5 / 32, 350)],
    columns=["name", "score", "cost"],
)  # fmt: skip


def _choose(models, budget, margin, afford=operator.le, near=operator.ge, of_all=False, by="cost", at=0):
    affordable = models[afford(models["cost"], budget)]
    best = (models if of_all else affordable)["score"].max()
    left = affordable[near(affordable["score"], best - margin)].sort_values(by)
    return pd.Series({"name": "", "score": np.nan, "cost": np.nan}) if left.empty else left.iloc[at]


_NAME = "take the name that goes with it"
choice = Exercise(
    reference=_choose,
    finish=lambda row: row["name"],
    inputs=[(MODELS, *probe) for probe in ((400, 2 / 32), (400, 1 / 32), (120, 2.5 / 32), (60, 0.2), (350, 0.2))],
    returns="the name of a model, a text",
    success="affordable first, then good enough, then cheap",
    slips={
        "the margin is taken from the best of all: first leave out what costs more than the budget": {"of_all": True},
        "it takes the highest score of all, whatever it costs": {"afford": lambda cost, _: cost > 0, "by": "score", "at": -1},
        "it takes the best that one can afford: of those within the margin, take the cheapest": {"by": "score", "at": -1},
        "it takes the cheapest of all: it must come within the margin of the best": {"near": lambda score, _: score > 0},
        "it keeps what costs more than the budget: the comparison is the wrong way round": {"afford": operator.gt},
        "a model that costs exactly the budget can be afforded: <=": {"afford": operator.lt},
        "a model exactly the margin below the best is within it: >=": {"near": operator.gt},
    },
    finishes={
        f"that is the label of a row: {_NAME}": lambda row: row.name,
    },
    hint=f"The models are\n{MODELS.to_string(index=False)}",
)
