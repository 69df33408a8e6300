"""Checks of the threshold lesson's exercises."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks import not_yet, numbers, passed
from melanoma_lib.evaluation import OperatingCurve

COSTS = ((20.0, 1.0), (1.0, 1.0), (1.0, 4.0), (50.0, 3.0))  # of a missed melanoma and of a false alarm
MOVES = ((0.40, 0.19, 0.0176), (0.70, 0.10, 0.45), (0.3, 0.3, 0.05))  # PPV here, prevalence here and there
TARGETS = (0.9, 0.8)
Counts = tuple[int, int, int, int]


# --- exercise 1: counting -----------------------------------------------------------------------------------------------------


def counting(count: Callable[[np.ndarray, np.ndarray, float], Counts]) -> None:
    """Hold ``count(targets, scores, threshold)`` to tp, fp, tn, fn, with a score equal to the threshold positive.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    # All four counts differ, at 0.5 too, and a melanoma and two others score exactly 0.35.
    targets = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    scores = np.array([0.9, 0.8, 0.6, 0.55, 0.35, 0.1, 0.7, 0.35, 0.35, 0.3, 0.3, 0.25, 0.2, 0.1, 0.05, 0.0])
    probes = [(targets, scores, threshold) for threshold in (0.35, 0.65, 0.2)]
    given = [_four_counts(count(t.copy(), s.copy(), cut)) for t, s, cut in probes]
    right = [_counted(*probe) for probe in probes]
    wrong_way = "low scores are called melanoma: the comparison is the wrong way round"
    mistakes: tuple[tuple[str, Callable[[np.ndarray, np.ndarray, float], Counts]], ...] = (
        ("", _counted),
        (
            "a case whose score equals the threshold is called melanoma: use >=, not >. A threshold is often the score of a "
            "melanoma, and > loses that very melanoma",
            lambda t, s, cut: _counted(t, s, np.nextafter(cut, 2)),
        ),
        ("the threshold makes no difference: it always cuts at 0.5. Use the third argument", lambda t, s, _: _counted(t, s, 0.5)),
        (wrong_way, lambda t, s, cut: _counted(t, -s, -cut)),  # <=
        (wrong_way, lambda t, s, cut: _counted(t, -s, np.nextafter(-cut, 2))),  # <
    )
    orders = {
        "": (0, 1, 2, 3),
        "fp and fn are swapped: fp is a lesion called melanoma that is none, fn a melanoma that is let go": (0, 3, 2, 1),
        "the counts are right, their order is not: tp, fp, tn, fn was asked for, and this is tn, fp, fn, tp, as scikit-learn's "
        "confusion_matrix(...).ravel() has it": (2, 1, 3, 0),
        "tp and tn are swapped: tp are the melanomas called melanoma": (2, 1, 0, 3),
    }
    if given != right:
        for swap, order in orders.items():
            for diagnosis, mistake in mistakes:
                if given == [tuple(mistake(*probe)[i] for i in order) for probe in probes]:
                    not_yet("; and ".join(text for text in (diagnosis, swap) if text))
        _name_the_wrong_count(given[0], right[0])
        not_yet(
            f"right at threshold {probes[0][2]}, but not at {probes[1][2]} or {probes[2][2]}: does it use its third argument?"
        )
    passed("all four cells, with a score equal to the threshold on the positive side")


def _name_the_wrong_count(given: Counts, right: Counts) -> None:
    wrong = [
        f"{name} is {mine}, expected {wanted}"
        for name, mine, wanted in zip(("tp", "fp", "tn", "fn"), given, right, strict=True)
        if mine != wanted
    ]
    if wrong:
        not_yet(f"at threshold 0.35 of 16 cases with 6 melanomas {'; '.join(wrong)}; the four must add up to 16")


def _counted(targets: np.ndarray, scores: np.ndarray, threshold: float) -> Counts:
    called, melanoma = scores >= threshold, targets == 1
    return tuple(int((cell).sum()) for cell in (called & melanoma, called & ~melanoma, ~called & ~melanoma, ~called & melanoma))


def _four_counts(answer: Any) -> Counts:
    counts = numbers(answer, 4, "four counts, tp, fp, tn, fn")
    if not all(number.is_integer() for number in counts):  # NaN and infinity are none either
        not_yet(f"expected counts of cases, whole numbers, got {counts}: do not divide yet")
    return tuple(int(number) for number in counts)


# --- exercises 2 and 3: two formulas ------------------------------------------------------------------------------------------


def cost_threshold(compute: Callable[[float, float], float]) -> None:
    """Hold ``compute(fn_cost, fp_cost)`` to the risk at which an alarm and an all-clear cost the same.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    given = _numbers(compute, COSTS)
    mistakes: dict[str, Callable[[float, float], float]] = {
        "the ratio is upside down: the dearer a missed melanoma, the lower must the risk be at which you act. Which of the two "
        "costs do you pay for an alarm?": lambda fn, fp: fn / (fn + fp),
        "these are odds, 1 to 20 for example; the risk that belongs to odds o is o / (1 + o)": lambda fn, fp: fp / fn,
        "these are odds, and upside down: solve risk x fn_cost = (1 - risk) x fp_cost for the risk": lambda fn, fp: fn / fp,
        "that is 0.5 whatever the costs; it is right only where both errors cost the same": lambda fn, fp: 0.5,
        "it takes a false alarm to cost 1: use fp_cost too": lambda fn, fp: 1 / (1 + fn),
        "an alarm on a melanoma saves fn_cost, an alarm on another lesion costs fp_cost; nothing is subtracted here": (
            lambda fn, fp: fp / (fn - fp)
        ),
    }
    right = [fp / (fp + fn) for fn, fp in COSTS]
    if not _same(given, right):
        _diagnose(given, mistakes, COSTS)
        fn, fp = COSTS[0]
        not_yet(
            f"at a missed melanoma of {fn:g} and a false alarm of {fp:g} it answers {given[0]:.4g}. At that risk an all-clear "
            f"costs {given[0] * fn:.3g} on average, an alarm {(1 - given[0]) * fp:.3g}: they should be the same"
        )
    passed("at this risk an alarm and an all-clear cost the same; above it, flag")


def carried_ppv(carry: Callable[[float, float, float], float]) -> None:
    """Hold ``carry(ppv, here, there)`` to Bayes' rule in odds: the PPV at another prevalence.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    given = _numbers(carry, MOVES)

    def odds(p: float) -> float:
        return p / (1 - p)

    mistakes: dict[str, Callable[[float, float, float], float]] = {
        "it reports the PPV of here as that of there: that holds only where the prevalence is the same": lambda ppv, a, b: ppv,
        "it scales the PPV by the ratio of prevalences, which can exceed 1: scale odds, then turn them back into a share": (
            lambda ppv, a, b: ppv * b / a
        ),
        "the ratio is upside down: where melanoma is rarer, the PPV must be lower": (
            lambda ppv, a, b: (o := odds(ppv) * odds(a) / odds(b)) / (1 + o)
        ),
        "that is the odds, not yet the share: o / (1 + o)": lambda ppv, a, b: odds(ppv) * odds(b) / odds(a),
        "the PPV is in odds, but the prevalences are not: use prevalence / (1 - prevalence) for both": (
            lambda ppv, a, b: (o := odds(ppv) * b / a) / (1 + o)
        ),
        "the prevalences are in odds, but the PPV is not: use ppv / (1 - ppv)": (
            lambda ppv, a, b: (o := ppv * odds(b) / odds(a)) / (1 + o)
        ),
        "it multiplies a share by a ratio of odds: the PPV must become odds first": lambda ppv, a, b: ppv * odds(b) / odds(a),
    }
    right = [(o := odds(ppv) * odds(b) / odds(a)) / (1 + o) for ppv, a, b in MOVES]
    if not _same(given, right):
        _diagnose(given, mistakes, MOVES)
        ppv, a, b = MOVES[0]
        not_yet(f"a PPV of {ppv} at a prevalence of {a} becomes {given[0]:.4g} at {b}; Bayes' rule says {right[0]:.4f}")
    passed("an alarm multiplies the odds by one factor; what it starts from is the place")


def _numbers(compute: Callable[..., float], points: tuple[tuple[float, ...], ...]) -> list[float]:
    """The answer at each point; NaN where it divides by zero or is not finite."""
    answers = []
    for point in points:
        try:
            answer = float(compute(*point))
        except ZeroDivisionError:
            answer = np.nan
        except TypeError as error:
            not_yet(f"expected one number for each set of arguments ({error}); does your function return its result?")
        answers.append(answer if np.isfinite(answer) else np.nan)
    return answers


def _diagnose(given: list[float], mistakes: dict[str, Callable[..., float]], points: tuple[tuple[float, ...], ...]) -> None:
    for diagnosis, mistake in mistakes.items():
        if _same(given, _numbers(mistake, points)):
            not_yet(diagnosis)
    for answer, point in zip(given, points, strict=True):
        if np.isnan(answer):
            arguments = ", ".join(f"{number:g}" for number in point)
            not_yet(f"with the arguments ({arguments}) it divides by zero or gives no number, though there is an answer")


# --- exercise 4: the bug hunt -------------------------------------------------------------------------------------------------


def honest_report(report: Callable[[pd.DataFrame, pd.DataFrame, float], tuple[float, float, float]]) -> None:
    """Name every fault left in ``report(validation, test, target)``.

    Args:
        report: chooses the highest threshold whose sensitivity reaches ``target`` on validation; returns it with its
            sensitivity and specificity on test.

    Raises:
        NotYet: with all faults found.
    """
    validation, test = _two_samples()
    for target in TARGETS:
        answer = report(validation.copy(), test.copy(), target)
        try:
            threshold, sensitivity, specificity = (float(number) for number in answer)
        except (TypeError, ValueError):
            not_yet(f"expected threshold, sensitivity and specificity, got {answer!r}")
        if np.isnan(threshold):
            not_yet("the threshold is NaN, not a number: something was divided by zero, or nothing was chosen")
        faults = _faults_of_choice(threshold, validation, test, target)
        faults += _faults_of_rate("sensitivity", sensitivity, threshold, validation, test)
        faults += _faults_of_rate("specificity", specificity, threshold, validation, test)
        faults = list(dict.fromkeys(faults))  # both rates may share one
        if faults:
            break  # the next target would tell the same again
    if faults:
        count = "one fault is" if len(faults) == 1 else f"{len(faults)} faults are"
        not_yet(f"{count} left:\n" + "\n".join(f"  · {fault}" for fault in faults))
    passed("chosen on validation, used as it is, and every rate counted on test")


def _two_samples() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Validation and test scores, with cases that score exactly what a rule or a rule rounded to two digits may choose."""
    rng, samples = np.random.default_rng(6), []
    for n, n_melanoma, shift in ((241, 41, 0.0), (251, 51, -0.06)):
        targets = np.arange(n) < n_melanoma
        scores = np.clip(rng.normal(0.3 + 0.3 * targets + shift, 0.13), 0.01, 0.99).round(7)
        samples.append(pd.DataFrame({"target": targets.astype(int), "probability": scores}))
    validation, test = samples
    # Others only on the grid of two digits: the rule's own choice on test stays the score of a melanoma, of seven digits.
    chosen, grid = [_choice(validation, target) for target in TARGETS], np.arange(20, 61) / 100
    melanomas, others = chosen, [*chosen, *chosen, *grid]  # two others to a melanoma, so that > changes the accuracy too
    ties = pd.DataFrame({"target": [1] * len(melanomas) + [0] * len(others), "probability": [*melanomas, *others]})
    return validation, pd.concat([test, ties], ignore_index=True)


def _choice(sample: pd.DataFrame, target: float) -> float:
    return OperatingCurve(sample["target"], sample["probability"]).for_sensitivity(target).threshold


def _faults_of_choice(threshold: float, validation: pd.DataFrame, test: pd.DataFrame, target: float) -> list[str]:
    right, cheat, pooled = (_choice(sample, target) for sample in (validation, test, pd.concat([validation, test])))
    if _same(threshold, right):
        return []
    on_test = (
        "the threshold is chosen on the test cases, so the sensitivity it reports there is what was asked for, whatever the "
        "model is worth. Choose on validation"
    )
    rounding = (
        "the threshold is rounded: that moves it past cases, and past the sensitivity it was chosen for. Round what you print"
    )
    if _same(threshold, cheat):
        return [on_test]
    on_both = "the threshold is chosen on validation and test together: the test has then had its say. Choose on validation alone"
    if _same(threshold, pooled):
        return [on_both]
    # Few digits may be those of several choices: the honest one gets the benefit of the doubt.
    for choice, also in ((right, []), (cheat, [on_test]), (pooled, [on_both])):
        if any(_same(threshold, round(choice, digits)) for digits in range(1, 7)):
            return [*also, rounding]
    reached = (validation["probability"][validation["target"] == 1] >= threshold).mean()
    if reached < target:
        return [f"at its threshold {threshold:.7g} only {reached:.1%} of the validation melanomas are found, not {target:.0%}"]
    return [
        f"its threshold {threshold:.7g} is lower than it need be: {right:.7g} still finds {target:.0%} with fewer false alarms"
    ]


def _faults_of_rate(name: str, given: float, threshold: float, validation: pd.DataFrame, test: pd.DataFrame) -> list[str]:
    """What is wrong with a rate, at the threshold that was returned: choosing badly is told elsewhere."""
    quantities = {
        "sensitivity": {
            "sensitivity": "",
            "ppv": "its sensitivity is the PPV: divide by the melanomas, not by the alarms",
            "specificity": "sensitivity and specificity are swapped",
        },
        "specificity": {
            "specificity": "",
            "npv": "its specificity is the NPV: divide by the other lesions, not by the all-clears",
            "fpr": "its specificity is the false-positive rate, 1 - specificity",
            "accuracy": "its specificity is the accuracy: count the other lesions only",
            "sensitivity": "sensitivity and specificity are swapped",
        },
    }[name]
    samples = ((test, ""), (validation, f"its {name} is that of validation, where the threshold was chosen: report on test"))
    equal = "a case whose score equals the threshold counts as let go: use >=, as the rule that chose the threshold does"
    suspects = [
        ([fault for fault in (quantity_fault, sample_fault, sign_fault) if fault], _rates(sample, threshold, sign)[quantity])
        for sign, sign_fault in ((">=", ""), (">", equal))
        for sample, sample_fault in samples
        for quantity, quantity_fault in quantities.items()
    ]
    for faults, rate in sorted(suspects, key=lambda suspect: len(suspect[0])):  # the fewest faults that explain it
        if _same(given, rate):
            return faults
    return [f"its {name}, {given:.4g}, is not that of its own threshold {threshold:.4g} on test, {suspects[0][1]:.4g}"]


def _rates(sample: pd.DataFrame, threshold: float, sign: str) -> dict[str, float]:
    cut = threshold if sign == ">=" else np.nextafter(threshold, 2)
    point = OperatingCurve(sample["target"], sample["probability"]).at(cut)
    names = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
    return {name: getattr(point, name) for name in names} | {"fpr": 1 - point.specificity}


def _same(one: float | list[float], other: float | list[float]) -> bool:
    return np.allclose(one, other, rtol=0, atol=1e-9, equal_nan=True)
