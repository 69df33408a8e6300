"""Checks of the cross-validation lesson's exercises."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks import not_yet, numbers, passed
from melanoma_lib.evaluation import OperatingCurve

SIZES = ((0.9, 52, 225), (0.75, 30, 60), (0.95, 1100, 400))  # AUROC, melanomas, other lesions
TARGETS = (0.9, 0.6)
Fit = Callable[[pd.DataFrame], Callable[[pd.DataFrame], np.ndarray]]


# --- exercise 1: the width before anything is run -----------------------------------------------------------------------------


def standard_error(compute: Callable[[float, int, int], float]) -> None:
    """Hold ``compute(auroc, melanomas, others)`` to Hanley and McNeil's standard error.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    given = [numbers(compute(*size), 1, "a number")[0] for size in SIZES]

    def variance(a: float, m: int, n: int, less: int = 1, swap: bool = False, square: bool = True) -> float:
        q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
        q1, q2 = (q2, q1) if swap else (q1, q2)
        taken = a**2 if square else 0.0
        return (a * (1 - a) + (m - less) * (q1 - taken) + (n - less) * (q2 - taken)) / (m * n)

    mistakes: dict[str, Callable[[float, int, int], float]] = {
        "that is the variance: the standard error is its square root": variance,
        "that is half of a 95% interval; leave the 1.96 to whoever wants one": lambda a, m, n: (
            1.96 * math.sqrt(variance(a, m, n))
        ),
        "q1 and q2 have changed places: q1 goes with the melanomas, q2 with the other lesions": (
            lambda a, m, n: math.sqrt(variance(a, m, n, swap=True))
        ),
        "a pair needs two different lesions: (melanomas - 1) and (others - 1)": (
            lambda a, m, n: math.sqrt(variance(a, m, n, less=0))
        ),
        "take the square of the AUROC off q1 and off q2: only what exceeds independent wins counts": (
            lambda a, m, n: math.sqrt(variance(a, m, n, square=False))
        ),
        "divide by the number of pairs, melanomas x others, not by the number of lesions": (
            lambda a, m, n: math.sqrt(variance(a, m, n) * m * n / (m + n))
        ),
    }
    if not _same(given, [math.sqrt(variance(*size)) for size in SIZES]):
        for diagnosis, mistake in mistakes.items():
            if _same(given, [mistake(*size) for size in SIZES]):
                not_yet(diagnosis)
        a, m, n = SIZES[0]
        not_yet(
            f"at an AUROC of {a}, {m} melanomas and {n} others it answers {given[0]:.4g}, expected {variance(a, m, n) ** 0.5:.4f}"
        )
    passed("the width follows from the AUROC and the number of lesions of each class")


# --- exercise 2: a bug hunt in folds ------------------------------------------------------------------------------------------


def nested(evaluate: Callable[[pd.DataFrame, Sequence[pd.Series], Fit, float], float]) -> None:
    """Hold ``evaluate(cases, roles, fit, target)`` to the mean over folds of the sensitivity at a threshold from validation.

    The made-up model remembers what it was taught, so whoever teaches or chooses on the wrong cases gets another number.

    Raises:
        NotYet: with every mistake that explains the numbers seen.
    """
    cases, roles = _made_up_folds()
    seen: list[set[str]] = []  # roles of what each model was taught

    def fit(part: pd.DataFrame) -> Callable[[pd.DataFrame], np.ndarray]:
        seen.append(set(roles[len(seen) % len(roles)].loc[part.index]))
        return _memory(part)

    answers = [evaluate(cases.copy(), [role.copy() for role in roles], fit, target) for target in TARGETS]
    given = [numbers(answer, 1, "a number")[0] for answer in answers]
    taught = {
        "": ("train",),
        "the model is taught on validation cases too, and then knows them better than any new case: teach on train alone": (
            "train", "val",
        ),
        "the model is taught on the very cases that it is tested on": ("train", "val", "test"),
    }  # fmt: skip
    chosen = {
        "": "val",
        "the threshold is chosen on the fold that it is scored on, so the promise is kept by construction: choose on val": "test",
        "the threshold is chosen on training cases, which the model knows: choose on val": "train",
    }
    gathered: dict[str, Callable[[list[float], list[int]], float]] = {
        "": lambda found, _: float(np.mean(found)),
        "it reports the best fold: that is the luck of a split, not the worth of a model. Take the mean": lambda found, _: max(
            found
        ),
        "it reports the worst fold; the mean of all was asked for": lambda found, _: min(found),
        "it reports the last fold alone": lambda found, _: found[-1],
        "it reports the median fold; the mean was asked for": lambda found, _: float(np.median(found)),
        "it counts all folds' melanomas together; the mean of the folds was asked for": (
            lambda found, sizes: float(np.average(found, weights=sizes))
        ),
    }
    signs = {"": False, "a score equal to the threshold is called melanoma: use >=": True}
    played = {
        key: _played(cases, roles, taught[key[0]], chosen[key[1]], key[3], signs[key[2]])
        for key in itertools.product(taught, chosen, signs, TARGETS)
    }
    # Where the threshold comes from the scored fold, what was taught changes no number: it is seen in what fit was given.
    teachings = [fault for fault, names in taught.items() if seen and all(one == set(names) for one in seen)] or taught
    explained = itertools.product(teachings, chosen, gathered, signs)
    for teach, choose, gather, sign in sorted(explained, key=lambda faults: sum(map(bool, faults))):  # the fewest faults first
        if _same(given, [gathered[gather](*played[teach, choose, sign, target]) for target in TARGETS]):
            if faults := [fault for fault in (teach, choose, gather, sign) if fault]:
                not_yet("; and ".join(faults))
            passed("taught on train, chosen on validation, scored on test, and every fold counts")
            return
    right = [np.mean(played["", "", "", target][0]) for target in TARGETS]
    not_yet(f"on the made-up cases it answers {given[0]:.4g} and {given[1]:.4g}, expected {right[0]:.4f} and {right[1]:.4f}")


def _made_up_folds(folds: int = 5, n: int = 400) -> tuple[pd.DataFrame, list[pd.Series]]:
    """Cases with a weak score ``x``, a better one once ``learnt``, and their role in each fold; folds of unlike sizes."""
    rng = np.random.default_rng(0)
    target = (rng.random(n) < 0.3).astype(int)
    cases = pd.DataFrame({"target": target, "x": rng.normal(0.9 * target).round(1), "learnt": rng.normal(2.4 * target).round(1)})
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
        known = asked.index.isin(taught.index)
        return np.where(known, asked["learnt"], asked["x"])

    return answer


def _played(
    cases: pd.DataFrame, roles: Sequence[pd.Series], taught: Sequence[str], chosen: str, target: float, strict: bool
) -> tuple[list[float], list[int]]:
    """Sensitivity and number of melanomas of each fold."""
    found, sizes = [], []
    for role in roles:
        model = _memory(cases[role.isin(taught)])
        on, test = cases[role == chosen], cases[role == "test"]
        cut = OperatingCurve(on["target"], model(on)).for_sensitivity(target).threshold
        scores = model(test)[(test["target"] == 1).to_numpy()]
        found.append(float((scores > cut if strict else scores >= cut).mean()))
        sizes.append(scores.size)
    return found, sizes


# --- exercise 3: two models on the same resamples -----------------------------------------------------------------------------


def paired_interval(compute: Callable[[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]], tuple[float, float]]) -> None:
    """Hold ``compute(targets, a, b, draws)`` to the 2.5th and 97.5th percentile of AUROC(a) - AUROC(b) over the draws.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    rng = np.random.default_rng(3)
    targets = (rng.random(120) < 0.35).astype(int)
    shared = rng.normal(targets)
    a, b = (shared + 0.5 * rng.normal(size=120) + 0.5 * targets).round(6), (shared + 0.6 * rng.normal(size=120)).round(6)
    draws = [rng.integers(120, size=120) for _ in range(100)]
    answer = compute(targets.copy(), a.copy(), b.copy(), [draw.copy() for draw in draws])
    given = numbers(answer, 2, "two numbers, the lower and the upper end")

    def aurocs(scores: np.ndarray, drawn: Sequence[np.ndarray] = draws) -> np.ndarray:
        return np.array([OperatingCurve(targets[rows], scores[rows]).auroc for rows in drawn])

    def ends(values: np.ndarray, outside: float = 2.5) -> tuple[float, float]:
        return tuple(float(end) for end in np.percentile(values, [outside, 100 - outside]))

    of_a, of_b = aurocs(a), aurocs(b)
    gains, (low_a, high_a), (low_b, high_b) = of_a - of_b, ends(of_a), ends(of_b)
    unpaired = "subtract within each draw, before you take percentiles: both models must see the same lesions"
    mixed = np.array([OperatingCurve(targets, a[rows]).auroc - OperatingCurve(targets, b[rows]).auroc for rows in draws])
    whole = OperatingCurve(targets, a).auroc - OperatingCurve(targets, b).auroc
    mistakes: dict[str, tuple[float, float]] = {
        "it is b less a: a - b was asked for": ends(-gains),
        "the ends have changed places: low first": ends(gains)[::-1],
        "that holds 90% of the draws: 2.5% lie outside at each end of a 95% interval": ends(gains, 5.0),
        f"these are the two intervals' ends subtracted from each other; {unpaired}": (low_a - low_b, high_a - high_b),
        f"that compares the worst of a with the best of b, as reading two intervals by eye does; {unpaired}": (
            low_a - high_b, high_a - low_b,
        ),
        "a and b were drawn apart, each with draws of its own; " + unpaired: ends(of_a - np.roll(of_b, 1)),
        "a and b were drawn apart, b's draws the other way round; " + unpaired: ends(of_a - of_b[::-1]),
        "that is the interval of model a alone": (low_a, high_a),
        "scores are drawn, targets are not: index all three with the same rows": ends(mixed),
        "these are the smallest and the largest difference: take percentiles": (float(gains.min()), float(gains.max())),
        "that is a normal interval, estimate plus or minus 1.96 deviations; percentiles of the draws were asked for": (
            whole - 1.96 * float(gains.std()), whole + 1.96 * float(gains.std()),
        ),
        "that is a normal interval, mean plus or minus 1.96 deviations; percentiles of the draws were asked for": (
            float(gains.mean() - 1.96 * gains.std()), float(gains.mean() + 1.96 * gains.std()),
        ),
    }  # fmt: skip
    around = [np.percentile(gains, [2.5, 97.5], method=method) for method in ("lower", "higher")]  # however it interpolates
    if not all(low - 1e-9 <= end <= high + 1e-9 for end, low, high in zip(given, *around, strict=True)):
        for diagnosis, ends_seen in mistakes.items():
            if np.allclose(given, ends_seen, rtol=0, atol=1e-4):
                not_yet(diagnosis)
        low, high = ends(gains)
        not_yet(f"on the made-up cases it answers [{given[0]:.4f}, {given[1]:.4f}], expected [{low:.4f}, {high:.4f}]")
    passed("both models see the same lesions in every draw, so what they share cancels")


# --- exercise 4: choose -------------------------------------------------------------------------------------------------------


def choice(choose: Callable[[pd.DataFrame, float, float], str]) -> None:
    """Hold ``choose(models, budget, margin)`` to the cheapest affordable model within the margin of the best affordable one.

    Raises:
        NotYet: with the mistake that gives the names seen.
    """
    names, scores, costs = ["grand", "large", "middle", "small", "tiny"], [0.95, 0.93, 0.92, 0.915, 0.80], [900, 400, 120, 60, 5]
    models = pd.DataFrame({"name": names, "score": scores, "cost": costs}).sample(frac=1, random_state=1, ignore_index=True)
    probes = ((400, 0.012), (1000, 0.0), (1000, 0.022), (60, 0.01), (399, 0.001), (1000, 0.2), (120, 0.004))
    given = [_name(choose(models.copy(), budget, margin), models) for budget, margin in probes]

    def picked(affordable: pd.DataFrame, best: float, margin: float) -> str | None:
        near = affordable[affordable["score"] >= best - margin]
        return None if near.empty else str(near.loc[near["cost"].idxmin(), "name"])

    def right(budget: float, margin: float) -> str | None:
        affordable = models[models["cost"] <= budget]
        return picked(affordable, affordable["score"].max(), margin)

    def best_affordable(budget: float, _: float) -> str:
        affordable = models[models["cost"] <= budget]
        return str(affordable.loc[affordable["score"].idxmax(), "name"])

    def strict(budget: float, margin: float) -> str | None:
        affordable = models[models["cost"] < budget]
        return picked(affordable, affordable["score"].max(), margin) if len(affordable) else None

    mistakes: dict[str, Callable[[float, float], str | None]] = {
        "the budget makes no difference: first leave out what costs more": (
            lambda _, margin: picked(models, models["score"].max(), margin)
        ),
        "it takes the best that one can afford: of those within the margin of it, take the cheapest": best_affordable,
        "it takes the cheapest of all: it must come within the margin of the best that one can afford": lambda *_: "tiny",
        "a model that costs exactly the budget can be afforded: <=": strict,
        "the margin is taken from the best of all, affordable or not: look for the best within the budget": (
            lambda budget, margin: picked(models[models["cost"] <= budget], models["score"].max(), margin)
        ),
    }  # fmt: skip
    wanted = [right(*probe) for probe in probes]
    if given != wanted:
        if not any(given):
            not_yet("expected the name of a model, got nothing: does your function return something?")
        for diagnosis, mistake in mistakes.items():
            if given == [mistake(*probe) for probe in probes]:
                not_yet(diagnosis)
        probe, mine, theirs = next(row for row in zip(probes, given, wanted, strict=True) if row[1] != row[2])
        not_yet(f"with a budget of {probe[0]} and a margin of {probe[1]} it takes {mine!r}, expected {theirs!r} of\n{models}")
    passed("affordable first, then good enough, then cheap")


# --- answers ------------------------------------------------------------------------------------------------------------------


def _name(answer: Any, models: pd.DataFrame) -> str | None:
    if answer is not None and (not isinstance(answer, str) or answer not in set(models["name"])):
        not_yet(f"expected the name of a model, one of {', '.join(sorted(models['name']))}, got {answer!r}")
    return answer


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return np.allclose(one, other, rtol=1e-6, atol=1e-9)
