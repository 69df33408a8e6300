"""Checks of the cross-validation lesson's exercises; those on comparing and choosing models stand in `checks_model_choice`."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks import not_yet, numbers, passed
from melanoma_lib.classroom.checks_model_choice import choice, paired_interval
from melanoma_lib.evaluation import OperatingCurve

__all__ = ["choice", "nested", "paired_interval", "standard_error"]

SIZES = ((0.9, 52, 225), (0.75, 30, 60), (0.95, 1100, 400))  # AUROC, melanomas, other lesions
TARGETS = (0.9, 0.6)
Formula = Callable[[float, int, int], float]
Fit = Callable[[pd.DataFrame], Callable[[pd.DataFrame], np.ndarray]]


# --- exercise 1: the width before anything is run -----------------------------------------------------------------------------


def standard_error(compute: Formula) -> None:
    """Hold ``compute(auroc, melanomas, others)`` to Hanley and McNeil's standard error.

    Raises:
        NotYet: with the mistakes that give the numbers seen.
    """
    given = [numbers(compute(*size), 1, "a number")[0] for size in SIZES]
    one_less = "a pair needs two different lesions: look again at (melanomas - 1) and (others - 1)"
    variances: tuple[tuple[str, Formula], ...] = (
        ("", lambda a, m, n: sum(_terms(a, m, n)) / (m * n)),
        (
            "q1 and q2 have changed places, or the two numbers of lesions have: q1 goes with the melanomas, q2 with the others",
            lambda a, m, n: sum(_terms(a, m, n, swap=True)) / (m * n),
        ),
        (one_less, lambda a, m, n: sum(_terms(a, m + 1, n + 1)) / (m * n)),
        (one_less, lambda a, m, n: sum(_terms(a, m + 1, n)) / (m * n)),
        (one_less, lambda a, m, n: sum(_terms(a, m, n + 1)) / (m * n)),
        (
            "take the square of the AUROC off q1 and off q2: only what exceeds independent wins counts",
            lambda a, m, n: sum(_terms(a, m, n, square=False)) / (m * n),
        ),
        ("nothing is divided by the number of pairs, melanomas x others", lambda a, m, n: sum(_terms(a, m, n))),
        (
            "only the last of the three terms is divided by the number of pairs: look at the brackets",
            lambda a, m, n: (terms := _terms(a, m, n))[0] + terms[1] + terms[2] / (m * n),
        ),
        (
            "x / m * n divides by m and then multiplies by n: look at the brackets below the line",
            lambda a, m, n: sum(_terms(a, m, n)) / m * n,
        ),
        (
            "divide by the number of pairs, melanomas x others, not by the number of lesions",
            lambda a, m, n: sum(_terms(a, m, n)) / (m + n),
        ),
        (
            "the root is taken before the division: it goes over the whole fraction",
            lambda a, m, n: sum(_terms(a, m, n)) / (m * n) ** 2,
        ),
    )
    finishes: tuple[tuple[str, Callable[[float], float]], ...] = (
        ("", math.sqrt),
        ("that is the variance: the standard error is its square root", float),
        ("that is half of a 95% interval; leave the 1.96 to whoever wants one", lambda variance: 1.96 * math.sqrt(variance)),
    )
    right = [math.sqrt(variances[0][1](*size)) for size in SIZES]
    if not _same(given, right):
        explained = itertools.product(variances, finishes)
        for (slip, variance), (end, finish) in sorted(explained, key=lambda pair: bool(pair[0][0]) + bool(pair[1][0])):
            if _same(given, [finish(variance(*size)) for size in SIZES]):
                not_yet("; and ".join(filter(None, (slip, end))))
        (a, m, n), mine, wanted = next(row for row in zip(SIZES, given, right, strict=True) if not _same(*row[1:]))
        not_yet(f"at an AUROC of {a}, {m} melanomas and {n} others it answers {mine:.4g}, expected {wanted:.4f}")
    passed("the width follows from the AUROC and the number of lesions of each class")


def _terms(a: float, m: int, n: int, swap: bool = False, square: bool = True) -> tuple[float, float, float]:
    """What stands in the brackets of Hanley and McNeil's variance."""
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    q1, q2 = (q2, q1) if swap else (q1, q2)
    taken = a**2 if square else 0.0
    return a * (1 - a), (m - 1) * (q1 - taken), (n - 1) * (q2 - taken)


# --- exercise 2: a bug hunt in folds ------------------------------------------------------------------------------------------

TAUGHT = {  # roles of the cases that teach, and the fault in that
    ("train",): "",
    ("train", "val"): (
        "the model is taught on validation cases too, and then knows them better than any new case: teach on train alone"
    ),
    ("train", "val", "test"): "the model is taught on the very cases that it is tested on",
}
PLACES = {  # roles of the cases that choose the threshold, and of those that are scored
    (("val",), "test"): "",
    (("test",), "test"): (
        "the threshold is chosen on the fold that it is scored on, so the promise is kept by construction: choose on val"
    ),
    (("train",), "test"): "the threshold is chosen on training cases, which the model knows: choose on val",
    (("train", "val"), "test"): "among the cases that choose the threshold are training cases, which the model knows",
    (("val",), "val"): "scored on validation: the threshold was chosen there; score on test",
    (("test",), "val"): "val and test have changed places: choose on the one, score on the other",
}
MELANOMAS_ONLY = "sensitivity counts melanomas only: of which cases do you take the share?"
COUNTED: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "found": ("", lambda called, melanoma: called[melanoma].mean()),
    "called": (MELANOMAS_ONLY, lambda called, melanoma: called.mean()),
    "found of all": (MELANOMAS_ONLY, lambda called, melanoma: (called & melanoma).mean()),
    "correct": (MELANOMAS_ONLY, lambda called, melanoma: (called == melanoma).mean()),
}
SIGNS = {False: "", True: "a score equal to the threshold is called melanoma: use >="}
GATHERED: dict[str, Callable[[list[float], list[int]], float]] = {
    "": lambda found, _: float(np.mean(found)),
    "it reports the best fold: that is the luck of a split, not the worth of a model. Take the mean": lambda found, _: max(found),
    "it reports the worst fold; the mean of all was asked for": lambda found, _: min(found),
    "it reports the first fold alone: does `return` stand inside the loop?": lambda found, _: found[0],
    "it reports the last fold alone": lambda found, _: found[-1],
    "it reports the median fold; the mean was asked for": lambda found, _: float(np.median(found)),
    "it counts all folds' melanomas together; the mean of the folds was asked for": (
        lambda found, sizes: float(np.average(found, weights=sizes))
    ),
}


def nested(evaluate: Callable[[pd.DataFrame, Sequence[pd.Series], Fit, float], float]) -> None:
    """Hold ``evaluate(cases, roles, fit, target)`` to the mean over folds of the sensitivity at a threshold from validation.

    The made-up model remembers what it was taught, so whoever teaches or chooses on the wrong cases gets another number.

    Raises:
        NotYet: with the first mistake, in the order in which the code is read, and how many more explain the numbers seen.
    """
    cases, roles = _made_up_folds()
    seen: list[tuple[str, ...] | None] = []  # roles of what each model was taught

    def fit(part: pd.DataFrame) -> Callable[[pd.DataFrame], np.ndarray]:
        taught = set(part["image_id"])
        parts = ((names, set(cases.loc[role.isin(names), "image_id"])) for names in TAUGHT for role in roles)
        seen.append(next((names for names, those in parts if taught == those), None))
        return _memory(part)

    @functools.cache
    def played(*choices: object) -> tuple[list[float], list[int]]:
        return _played(cases, roles, *choices)

    answers = [evaluate(cases.copy(), [role.copy() for role in roles], fit, target) for target in TARGETS]
    given = [numbers(answer, 1, "one number, the mean over the folds")[0] for answer in answers]
    # Where the threshold comes from the scored fold, what was taught changes no number: it is seen in what fit was given.
    teachings = [seen[0]] if len(set(seen)) == 1 and seen[0] else list(TAUGHT)
    explained = [
        ([fault for fault in (TAUGHT[taught], PLACES[place], SIGNS[strict], COUNTED[count][0], gather) if fault],
         (taught, *place, strict, count), gather)
        for taught, place, strict, count, gather in itertools.product(teachings, PLACES, SIGNS, COUNTED, GATHERED)
    ]  # fmt: skip
    for faults, choices, gather in sorted(explained, key=lambda one: len(one[0])):  # the fewest faults first
        if _same(given, [GATHERED[gather](*played(*choices, target)) for target in TARGETS]):
            if faults:  # all at once would end the hunt
                more = len(faults) - 1
                not_yet(faults[0] + (f" (and {more} more fault{'s' * (more > 1)})" if more else ""))
            passed("taught on train, chosen on validation, scored on test, and every fold counts")
            return
    right = [np.mean(played(("train",), ("val",), "test", False, "found", target)[0]) for target in TARGETS]
    not_yet(f"on the made-up cases it answers {given[0]:.4g} and {given[1]:.4g}, expected {right[0]:.4f} and {right[1]:.4f}")


def _made_up_folds(folds: int = 5, n: int = 400) -> tuple[pd.DataFrame, list[pd.Series]]:
    """Cases with a weak score ``x``, a better one once ``learnt``, and their role in each fold; folds of unlike sizes."""
    rng = np.random.default_rng(0)
    target = (rng.random(n) < 0.3).astype(int)
    cases = pd.DataFrame({"target": target, "x": rng.normal(0.9 * target).round(1), "learnt": rng.normal(2.4 * target).round(1)})
    cases.insert(0, "image_id", [f"case_{number:03}" for number in range(n)])
    fold = rng.choice(folds, n, p=np.array([3, 4, 5, 6, 7]) / 25)
    late = rng.random(n) < 0.5
    roles = []
    for number in range(folds):
        role = np.full(n, "train", dtype=object)
        role[fold == number] = "test"
        role[(fold == (number + 1) % folds) & late] = "val"
        roles.append(pd.Series(role, index=cases.index, name="split"))
    return cases, roles


def _memory(taught: pd.DataFrame) -> Callable[[pd.DataFrame], np.ndarray]:
    """A model that has learnt what it was taught by heart, and knows of other cases no more than ``x``."""

    def answer(asked: pd.DataFrame) -> np.ndarray:
        known = asked["image_id"].isin(taught["image_id"])
        return np.where(known, asked["learnt"], asked["x"])

    return answer


def _played(
    cases: pd.DataFrame,
    roles: Sequence[pd.Series],
    taught: Sequence[str],
    chosen: Sequence[str],
    scored: str,
    strict: bool,
    count: str,
    target: float,
) -> tuple[list[float], list[int]]:
    """What is counted in each fold, sensitivity if all is well, and the number of melanomas there."""
    found, sizes = [], []
    for role in roles:
        model = _memory(cases[role.isin(taught)])
        on, part = cases[role.isin(chosen)], cases[role == scored]
        cut = OperatingCurve(on["target"], model(on)).for_sensitivity(target).threshold
        scores, melanoma = model(part), (part["target"] == 1).to_numpy()
        found.append(float(COUNTED[count][1](scores > cut if strict else scores >= cut, melanoma)))
        sizes.append(int(melanoma.sum()))
    return found, sizes


# --- answers ------------------------------------------------------------------------------------------------------------------


def _same(one: float | Sequence[float], other: float | Sequence[float]) -> bool:
    return np.allclose(one, other, rtol=1e-6, atol=1e-9)
