"""The checks of the cross-validation lesson pass what is right and name what is wrong, and nothing else."""

import math

import numpy as np
import pytest

from melanoma_lib.classroom import checks_cross_validation as checks
from melanoma_lib.classroom.checks import NotYet
from melanoma_lib.evaluation import OperatingCurve


def told(check, answer, claims):
    """The claims that a check makes of a wrong answer."""
    with pytest.raises(NotYet) as caught:
        check(answer)
    return [claim for claim in claims if claim in str(caught.value)]


# --- the width ----------------------------------------------------------------------------------------------------------------


def terms(a, m, n, less=(1, 1), swap=False, square=True):
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    if swap:
        q1, q2 = q2, q1
    off = a * a if square else 0
    return a * (1 - a), (m - less[0]) * (q1 - off), (n - less[1]) * (q2 - off)


def error(a, m, n, **options):
    return math.sqrt(sum(terms(a, m, n, **options)) / m / n)


def last_divided(a, m, n):
    one, two, three = terms(a, m, n)
    return math.sqrt(one + two + three / (m * n))


@pytest.mark.parametrize("right", [error, lambda *size: np.float64(error(*size)), lambda *size: np.array(error(*size))])
def test_the_right_error_passes(right, capsys):
    checks.standard_error(right)
    assert capsys.readouterr().out.startswith("✓")


WIDTHS = {
    "variance": "that is the variance",
    "half": "half of a 95% interval",
    "swap": "have changed places",
    "less": "two different lesions",
    "square": "square of the AUROC off",
    "undivided": "nothing is divided",
    "last": "only the last of the three",
    "order": "then multiplies by n",
    "lesions": "not by the number of lesions",
    "root": "before the division",
    "numbers": "it answers",
    "nothing": "does your function return",
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda *size: error(*size) ** 2, "variance"),
        (lambda *size: 1.96 * error(*size), "half"),
        (lambda *size: error(*size, swap=True), "swap"),
        (lambda a, m, n: error(a, n, m), "swap"),
        (lambda *size: error(*size, less=(0, 0)), "less"),
        (lambda *size: error(*size, less=(0, 1)), "less"),
        (lambda *size: error(*size, less=(1, 0)), "less"),
        (lambda *size: error(*size, square=False), "square"),
        (lambda *size: math.sqrt(sum(terms(*size))), "undivided"),
        (last_divided, "last"),
        (lambda a, m, n: math.sqrt(sum(terms(a, m, n)) / m * n), "order"),
        (lambda a, m, n: math.sqrt(sum(terms(a, m, n)) / (m + n)), "lesions"),
        (lambda a, m, n: math.sqrt(sum(terms(a, m, n))) / (m * n), "root"),
        (lambda *size: 0.1, "numbers"),
        (lambda *size: None, "nothing"),
    ],
)
def test_wrong_errors_are_named_and_no_others(wrong, said):
    assert told(checks.standard_error, wrong, WIDTHS.values()) == [WIDTHS[said]]


def test_two_slips_in_the_width_are_both_named():
    assert told(checks.standard_error, lambda *size: error(*size, less=(0, 0)) ** 2, WIDTHS.values()) == [
        WIDTHS["variance"], WIDTHS["less"],
    ]  # fmt: skip


def test_an_error_right_for_one_size_alone_is_shown_where_it_is_wrong():
    with pytest.raises(NotYet, match=r"AUROC of 0\.75, 30 melanomas"):
        checks.standard_error(lambda *size: error(0.9, 52, 225))


# --- folds --------------------------------------------------------------------------------------------------------------------


def sensitivities(cases, roles, fit, target, taught=("train",), chosen=("val",), scored="test", strict=False, count="found"):
    found = []
    for role in roles:
        model = fit(cases[role.isin(taught)])
        on, test = cases[role.isin(chosen)], cases[role == scored]
        cut = OperatingCurve(on["target"], model(on)).for_sensitivity(target).threshold
        called = model(test) > cut if strict else model(test) >= cut
        melanoma = (test["target"] == 1).to_numpy()
        kinds = {"found": called[melanoma], "called": called, "of all": called & melanoma, "correct": called == melanoma}
        found.append(kinds[count].mean())
    return found


def by_hand(cases, roles, fit, target):
    """Loops, sorting and counting; fresh row numbers, and the model asked once for each part."""
    total = 0.0
    for role in roles:
        train, val, test = (cases[role.to_numpy() == name].reset_index(drop=True) for name in ("train", "val", "test"))
        model = fit(train)
        melanomas = sorted((s for s, t in zip(model(val), val["target"], strict=True) if t == 1), reverse=True)
        k = next(k for k in range(1, len(melanomas) + 1) if k / len(melanomas) >= target)
        hits = [s >= melanomas[k - 1] for s, t in zip(model(test), test["target"], strict=True) if t == 1]
        total += sum(hits) / len(hits)
    return total / len(roles)


@pytest.mark.parametrize(
    "right", [by_hand, lambda *given: np.mean(sensitivities(*given)), lambda *given: float(np.mean(sensitivities(*given)))]
)
def test_nested_folds_pass(right, capsys):
    checks.nested(right)
    assert capsys.readouterr().out.startswith("✓")


def pooled(cases, roles, fit, target):
    sizes = [(cases["target"][role == "test"] == 1).sum() for role in roles]
    return np.average(sensitivities(cases, roles, fit, target), weights=sizes)


def first_alone(cases, roles, fit, target):
    return sensitivities(cases, roles[:1], fit, target)[0]


FOLDS = {
    "mix": "validation cases too",
    "same": "very cases that it is tested on",
    "on test": "kept by construction",
    "on train": "on training cases, which",
    "on both": "among the cases that choose",
    "scored": "scored on validation",
    "places": "val and test have changed places",
    "sign": "use >=",
    "count": "melanomas only",
    "best": "best fold",
    "worst": "worst fold",
    "median": "median fold",
    "first": "first fold alone",
    "last": "last fold",
    "pooled": "all folds' melanomas together",
    "one more": "(and 1 more fault)",
    "two more": "(and 2 more faults)",
    "numbers": "it answers",
}
MIX = {"taught": ("train", "val")}
ON_TEST = {"chosen": ("test",)}


@pytest.mark.parametrize(
    ("options", "gather", "said"),
    [
        (MIX, np.mean, ["mix"]),
        ({"taught": ("train", "val", "test")}, np.mean, ["same"]),
        (ON_TEST, np.mean, ["on test"]),
        ({"chosen": ("train",)}, np.mean, ["on train"]),
        ({"chosen": ("train", "val")}, np.mean, ["on both"]),
        ({"scored": "val"}, np.mean, ["scored"]),
        (ON_TEST | {"scored": "val"}, np.mean, ["places"]),
        ({"strict": True}, np.mean, ["sign"]),
        ({"count": "called"}, np.mean, ["count"]),
        ({"count": "of all"}, np.mean, ["count"]),
        ({"count": "correct"}, np.mean, ["count"]),
        ({}, max, ["best"]),
        ({}, min, ["worst"]),
        ({}, np.median, ["median"]),
        ({}, lambda found: found[0], ["first"]),
        ({}, lambda found: found[-1], ["last"]),
        (MIX | ON_TEST, max, ["mix", "two more"]),  # the colleague's code as it stands
        (MIX | ON_TEST, np.mean, ["mix", "one more"]),
        (ON_TEST, max, ["on test", "one more"]),
        (MIX, max, ["mix", "one more"]),
        (MIX | {"scored": "val"}, np.mean, ["mix", "one more"]),
    ],
)
def test_the_first_fault_of_folds_is_named_and_no_other(options, gather, said):
    answer = lambda *given: gather(sensitivities(*given, **options))  # noqa: E731
    assert told(checks.nested, answer, FOLDS.values()) == [FOLDS[one] for one in said]


@pytest.mark.parametrize(("wrong", "said"), [(pooled, "pooled"), (first_alone, "first"), (lambda *given: 0.5, "numbers")])
def test_other_ways_to_gather_are_told_from_the_mean(wrong, said):
    assert told(checks.nested, wrong, FOLDS.values()) == [FOLDS[said]]


def test_returning_inside_the_loop_hides_no_other_fault():
    def colleague(cases, roles, fit, target):
        return sensitivities(cases, roles[:1], fit, target, **MIX, **ON_TEST)[0]

    assert told(checks.nested, colleague, FOLDS.values()) == [FOLDS["mix"], FOLDS["two more"]]


@pytest.mark.parametrize("wrong", [lambda *given: None, lambda *given: sensitivities(*given)])
def test_what_is_not_one_number_is_refused(wrong):
    with pytest.raises(NotYet, match="expected one number"):
        checks.nested(wrong)
