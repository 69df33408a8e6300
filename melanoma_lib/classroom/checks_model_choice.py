"""More checks of the cross-validation lesson: two models on the same resamples, and a choice among many."""

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks import not_yet, numbers, passed
from melanoma_lib.evaluation import OperatingCurve

Draws = Sequence[np.ndarray]
Ends = tuple[float, float]
PERCENT = (2.5, 97.5)
PROBES = ((400, 0.012), (1000, 0.0), (1000, 0.022), (60, 0.01), (399, 0.001), (1000, 0.2), (120, 0.004))  # budget and margin


# --- exercise 3: two models on the same resamples -----------------------------------------------------------------------------


def paired_interval(compute: Callable[[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]], Ends]) -> None:
    """Hold ``compute(targets, a, b, draws)`` to the 2.5th and 97.5th percentile of AUROC(a) - AUROC(b) over the draws.

    Raises:
        NotYet: with the mistakes that give the numbers seen.
    """
    rng = np.random.default_rng(3)
    targets = (rng.random(120) < 0.35).astype(int)
    shared = rng.normal(targets)
    a, b = (shared + 0.5 * rng.normal(size=120) + 0.5 * targets).round(6), (shared + 0.6 * rng.normal(size=120)).round(6)
    draws, others = ([rng.integers(120, size=120) for _ in range(100)] for _ in range(2))

    def answer(drawn: Draws) -> Ends:
        try:
            ends = compute(targets.copy(), a.copy(), b.copy(), [rows.copy() for rows in drawn])
        except ValueError as error:
            if str(error) in _complaints(QUANTILES):
                not_yet(f"quantile takes shares between 0 and 1, percentile takes percent: which of them do you call? ({error})")
            raise
        return numbers(ends, 2, "two numbers, the lower and the upper end")

    given = answer(draws)
    gains = _aurocs(targets, a, draws) - _aurocs(targets, b, draws)
    around = [np.percentile(gains, PERCENT, method=method) for method in ("lower", "higher")]  # however it interpolates
    if not all(low - 1e-9 <= end <= high + 1e-9 for end, low, high in zip(given, *around, strict=True)):
        for diagnosis, ends in _slips(targets, a, b, draws):
            if np.allclose(given, ends, rtol=0, atol=1e-6):
                not_yet(diagnosis)
        if not np.array_equal(given, answer(draws)):
            not_yet("asked twice, it answers differently: draw no rows of your own, `draws` holds them")
        if np.array_equal(given, answer(others)):
            not_yet(f"it answers [{given[0]:.4f}, {given[1]:.4f}] whatever the draws: use the rows in `draws`")
        low, high = np.percentile(gains, PERCENT)
        not_yet(f"on the made-up cases it answers [{given[0]:.4f}, {given[1]:.4f}], expected [{low:.4f}, {high:.4f}]")
    passed("both models see the same lesions in every draw, so what they share cancels")


def _slips(targets: np.ndarray, a: np.ndarray, b: np.ndarray, draws: Draws) -> list[tuple[str, Ends]]:
    """What to say of an interval, and the interval it is said of; those with the fewest faults first."""
    of_a, of_b = _aurocs(targets, a, draws), _aurocs(targets, b, draws)
    all_a, all_b = OperatingCurve(targets, a).auroc, OperatingCurve(targets, b).auroc
    b_as_is = np.array([OperatingCurve(targets[rows], b).auroc for rows in draws])
    no_targets = np.array([OperatingCurve(targets, a[rows]).auroc - OperatingCurve(targets, b[rows]).auroc for rows in draws])
    half = len(draws) // 2
    apart = "a and b see different rows: in each draw both models must see the same lesions"
    values: list[tuple[str, np.ndarray]] = [
        ("", of_a - of_b),
        ("it is b less a: a - b was asked for", of_b - of_a),
        ("that is the interval of model a alone", of_a),
        ("that is the interval of model b alone", of_b),
        ("scores are drawn, targets are not: index all three with the same rows", no_targets),
        *((apart, gains) for gains in (
            of_a - np.roll(of_b, 1), of_a - np.roll(of_b, -1), of_a - of_b[::-1],  # each with the next draw, or the last first
            of_a[:-1] - of_b[1:], of_a[1:] - of_b[:-1], of_a[::2] - of_b[1::2], of_a[:half] - of_b[half:],  # some for each
            np.subtract.outer(of_a, of_b).ravel(), of_a - all_b, all_a - of_b, of_a - b_as_is,  # all with all, or one undrawn
        )),
    ]  # fmt: skip
    normal = "that is a normal interval, plus or minus 1.96 deviations; percentiles of the draws were asked for"
    takes: list[tuple[str, Callable[[np.ndarray], Ends]]] = [
        ("", lambda gains: np.percentile(gains, PERCENT)),
        ("np.percentile takes percent: 2.5 and 97.5", lambda gains: np.percentile(gains, [0.025, 0.975])),
        (
            "that holds 90% of the draws: 2.5% lie outside at each end of a 95% interval",
            lambda gains: np.percentile(gains, [5, 95]),
        ),
        ("the ends have changed places: low first", lambda gains: np.percentile(gains, PERCENT)[::-1]),
        ("these are the smallest and the largest difference: take percentiles", lambda gains: (gains.min(), gains.max())),
        *((normal, lambda gains, mid=mid, less=less: _normal(mid if mid is not None else gains.mean(), gains.std(ddof=less)))
          for mid, less in itertools.product((None, all_a - all_b), (0, 1))),
        (
            "the deviation over the draws is the standard error already: nothing is divided by the root of their number, and "
            "percentiles were asked for",
            lambda gains: _normal(gains.mean(), gains.std() / np.sqrt(gains.size)),
        ),
    ]  # fmt: skip
    both = sorted(itertools.product(values, takes), key=lambda one: bool(one[0][0]) + bool(one[1][0]))
    slips = [("; and ".join(filter(None, (which, how))), take(gains)) for (which, gains), (how, take) in both]
    (low_a, high_a), (low_b, high_b) = np.percentile(of_a, PERCENT), np.percentile(of_b, PERCENT)
    unpaired = "subtract within each draw, before you take percentiles: both models must see the same lesions"
    return [
        (f"these are the two intervals' ends subtracted from each other; {unpaired}", (low_a - low_b, high_a - high_b)),
        (
            f"that compares the worst of a with the best of b, as reading two intervals by eye does; {unpaired}",
            (low_a - high_b, high_a - low_b),
        ),
        *slips,
    ]


def _aurocs(targets: np.ndarray, scores: np.ndarray, draws: Draws) -> np.ndarray:
    return np.array([OperatingCurve(targets[rows], scores[rows]).auroc for rows in draws])


def _normal(middle: float, deviation: float) -> Ends:
    return middle - 1.96 * deviation, middle + 1.96 * deviation


# --- exercise 4: choose -------------------------------------------------------------------------------------------------------


def choice(choose: Callable[[pd.DataFrame, float, float], str]) -> None:
    """Hold ``choose(models, budget, margin)`` to the cheapest affordable model within the margin of the best affordable one.

    Raises:
        NotYet: with the mistake that gives the names seen.
    """
    names = ["grand", "large", "heavy", "middle", "small", "tiny"]  # heavy is dearer than middle, and no better
    scores, costs = [0.95, 0.93, 0.9195, 0.92, 0.915, 0.80], [900, 400, 350, 120, 60, 8]
    models = pd.DataFrame({"name": names, "score": scores, "cost": costs}).sample(frac=1, random_state=1, ignore_index=True)
    given, stopped = [], False
    for probe in PROBES:
        try:
            answer = choose(models.copy(), *probe)
        except (IndexError, ValueError) as error:
            if str(error) not in _complaints(OF_NOTHING):  # a mistake of another kind: its traceback says more than we could
                raise
            answer, stopped = None, True
        given.append(_name(answer, models))
    wanted = [_picked(models, *probe) for probe in PROBES]
    if given != wanted:
        if not any(given) and not stopped:
            not_yet("expected the name of a model, got nothing: does your function return something?")
        for diagnosis, variant in MISCHOICES:
            if given == [_picked(models, *probe, **variant) for probe in PROBES]:
                not_yet(diagnosis)
        probe, mine, theirs = next(row for row in zip(PROBES, given, wanted, strict=True) if row[1] != row[2])
        where = f"with a budget of {probe[0]} and a margin of {probe[1]}"
        if mine is None:
            not_yet(f"{where} it finds nothing to choose from, expected {theirs!r}: what does each step leave of\n{models}")
        not_yet(f"{where} it takes {mine!r}, expected {theirs!r} of\n{models}")
    passed("affordable first, then good enough, then cheap")


def _every(column: pd.Series, _: float) -> pd.Series:
    return column.notna()


def _picked(
    models: pd.DataFrame,
    budget: float,
    margin: float,
    afford: Callable[[pd.Series, float], pd.Series] = operator.le,
    near: Callable[[pd.Series, float], pd.Series] = operator.ge,
    of_all: bool = False,
    order: tuple[str, bool] = ("cost", True),
) -> str | None:
    """The name that the rule takes, or the rule with one of its parts changed; None where it leaves nothing."""
    affordable = models[afford(models["cost"], budget)]
    best = (models if of_all else affordable)["score"].max()
    left = affordable[near(affordable["score"], best - margin)]
    return None if left.empty else str(left.sort_values(order[0], ascending=order[1])["name"].iloc[0])


OVER_BUDGET = "it keeps what costs more than the budget: the comparison is the wrong way round"
MISCHOICES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("the budget makes no difference: first leave out what costs more", {"afford": _every}),
    (
        "it takes the highest score of all, whatever it costs: first leave out what costs more than the budget",
        {"afford": _every, "order": ("score", False)},
    ),
    (
        "it takes the best that one can afford, so the margin makes no difference: of those within it, take the cheapest",
        {"order": ("score", False)},
    ),
    ("it takes the cheapest of all: it must come within the margin of the best that one can afford", {"near": _every}),
    ("of those within the margin it takes the dearest", {"order": ("cost", False)}),
    ("a model that costs exactly the budget can be afforded: <=", {"afford": operator.lt}),
    (OVER_BUDGET, {"afford": operator.ge}),
    (OVER_BUDGET, {"afford": operator.gt}),
    ("a model exactly the margin below the best is within it, and so is the best itself: >=", {"near": operator.gt}),
    (
        "the margin is taken from the best of all, affordable or not, and may leave nothing: look for the best within the budget",
        {"of_all": True},
    ),
)


def _name(answer: Any, models: pd.DataFrame) -> str | None:
    """The answer, if it is the name of a model or nothing."""
    names = set(models["name"])
    if answer is None or (isinstance(answer, str) and answer in names):
        return answer
    _say_what_came(answer, models)
    return not_yet(f"expected the name of a model, one of {', '.join(sorted(names))}, got {answer!r}")


def _say_what_came(answer: Any, models: pd.DataFrame) -> None:
    if isinstance(answer, pd.DataFrame):
        not_yet("expected the name of a model, got a table: take the name of one row")
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, (pd.Series, np.ndarray, list, tuple)):
        inside = [one for one in answer if isinstance(one, str)]
        if len(answer) > 1 and len(inside) == 1:
            not_yet("expected the name of a model, got a whole row: take its name")
        if inside:
            not_yet(f"expected the name of a model, got a list of {len(inside)}: take one out of it")
    if isinstance(answer, (int, float, np.number)):
        for column, said in ((models.index, "the label of a row"), (models["cost"], "a cost"), (models["score"], "a score")):
            if answer in set(column):
                not_yet(f"expected the name of a model, got {said}, {answer}: take the name that goes with it")


# --- errors that speak for themselves -----------------------------------------------------------------------------------------

QUANTILES: tuple[Callable[[], Any], ...] = (  # percent where shares belong
    lambda: np.quantile([0.0, 1.0], PERCENT),
    lambda: pd.Series([0.0, 1.0]).quantile(list(PERCENT)),
)
NOBODY = pd.DataFrame({"name": pd.Series(dtype=object), "cost": pd.Series(dtype=float)})
OF_NOTHING: tuple[Callable[[], Any], ...] = (  # the first, or the least, of nothing
    lambda: NOBODY["cost"].idxmin(),
    lambda: NOBODY["name"].iloc[0],
    lambda: NOBODY["name"].to_numpy()[0],
    lambda: NOBODY["name"].item(),
    lambda: NOBODY["cost"].to_numpy().min(),
    lambda: NOBODY["cost"].to_numpy().max(),
    lambda: NOBODY["name"].tolist()[0],
    lambda: [].pop(),
    lambda: min([]),
    lambda: max([]),
    lambda: np.argmax([]),
)


def _complaints(ways: Sequence[Callable[[], Any]]) -> set[str]:
    """What each of these ways to go wrong says in the versions installed here."""
    said = set()
    for way in ways:
        try:
            way()
        except (IndexError, ValueError) as error:
            said.add(str(error))
    return said
