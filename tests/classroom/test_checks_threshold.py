"""The checks of the threshold lesson pass what is right and name what is wrong."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from melanoma_lib.classroom import checks_threshold as checks
from melanoma_lib.classroom.checks import NotYet
from melanoma_lib.evaluation import OperatingCurve

CHECKS = (checks.counting, checks.cost_threshold, checks.carried_ppv, checks.honest_report)


def counted(t, s, cut):
    called = s >= cut
    return (called & (t == 1)).sum(), (called & (t == 0)).sum(), (~called & (t == 0)).sum(), (~called & (t == 1)).sum()


def by_loop(targets, scores, cut):
    pairs = list(zip(targets, scores, strict=True))
    return [sum(t == a and (s >= cut) == b for t, s in pairs) for a, b in ((1, True), (0, True), (0, False), (1, False))]


def reordered(*order):
    return lambda t, s, cut: tuple(counted(t, s, cut)[i] for i in order)


@pytest.mark.parametrize("right", [counted, by_loop])
def test_right_counts_pass(right, capsys):
    checks.counting(right)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda t, s, cut: counted(t, s, np.nextafter(cut, 2)), "use >=, not >"),
        (lambda t, s, cut: counted(t, s, 0.5), "always cuts at 0.5"),
        (lambda t, s, cut: counted(t, -s, -cut), "wrong way round"),
        (lambda t, s, cut: counted(t, s < cut, True), "wrong way round"),
        (lambda t, s, cut: confusion_matrix(t, s >= cut).ravel(), "as scikit-learn"),
        (reordered(0, 3, 2, 1), "fp and fn are swapped"),
        (reordered(2, 1, 0, 3), "tp and tn are swapped"),
        (lambda t, s, cut: counted(t, s, 0.35), "third argument"),
        (lambda t, s, cut: (*counted(t, s, cut)[:3], 0), "fn is 0, expected 1"),
        (lambda t, s, cut: [n / len(t) for n in counted(t, s, cut)], "do not divide"),
        (lambda t, s, cut: (*counted(t, s, cut)[:3], np.nan), "whole numbers, got .*nan"),
        (lambda t, s, cut: (*counted(t, s, cut)[:3], np.inf), "whole numbers, got .*inf"),
        (lambda t, s, cut: counted(t, s, cut)[:2], "got 2 numbers"),
        (lambda t, s, cut: None, "expected four counts"),
    ],
)
def test_wrong_counts_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.counting(wrong)


SLIPS = {
    "": counted,
    "use >=, not >": lambda t, s, cut: counted(t, s > cut, True),
    "always cuts at 0.5": lambda t, s, cut: counted(t, s, 0.5),
    "wrong way round": lambda t, s, cut: counted(t, s <= cut, True),
}
ORDERS = {
    "": (0, 1, 2, 3),
    "fp and fn are swapped": (0, 3, 2, 1),
    "as scikit-learn": (2, 1, 3, 0),
    "tp and tn are swapped": (2, 1, 0, 3),
}


@pytest.mark.parametrize(("slip", "order"), list(itertools.product(SLIPS, ORDERS))[1:])
def test_a_wrong_comparison_in_a_wrong_order_is_told_as_both_and_nothing_else(slip, order):
    with pytest.raises(NotYet) as caught:
        checks.counting(lambda t, s, cut: tuple(SLIPS[slip](t, s, cut)[i] for i in ORDERS[order]))
    said = str(caught.value)
    for diagnosis in {*SLIPS, *ORDERS} - {""}:
        assert (diagnosis in said) == (diagnosis in (slip, order)), said


@pytest.mark.parametrize("right", [lambda fn, fp: fp / (fp + fn), lambda fn, fp: 1 / (1 + fn / fp)])
def test_the_right_price_passes(right, capsys):
    checks.cost_threshold(right)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda fn, fp: fn / (fn + fp), "upside down: the dearer"),
        (lambda fn, fp: fp / fn, "these are odds, 1 to 20"),
        (lambda fn, fp: fn / fp, "odds, and upside down"),
        (lambda fn, fp: 0.5, "0.5 whatever"),
        (lambda fn, fp: 1 / (1 + fn), "use fp_cost too"),
        (lambda fn, fp: fp / (fn - fp), "nothing is subtracted"),
        (lambda fn, fp: fp / (fn - fp) if fn != fp else np.inf, "nothing is subtracted"),
        (lambda fn, fp: fp / (fn - 20 * fp), r"arguments \(20, 1\) it divides by zero"),
        (lambda fn, fp: 0.1, "they should be the same"),
        (lambda fn, fp: None, "does your function return"),
    ],
)
def test_wrong_prices_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.cost_threshold(wrong)


def odds(p):
    return p / (1 - p)


def share(o):
    return o / (1 + o)


def by_bayes(ppv, here, there):
    """Through a specificity: with a sensitivity of 0.5, which cancels out."""
    alarms = 0.5 * here * (1 - ppv) / ppv / (1 - here)
    return 0.5 * there / (0.5 * there + alarms * (1 - there))


@pytest.mark.parametrize("right", [lambda p, a, b: share(odds(p) * odds(b) / odds(a)), by_bayes])
def test_a_ppv_rightly_carried_passes(right, capsys):
    checks.carried_ppv(right)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda p, a, b: p, "PPV of here as that of there"),
        (lambda p, a, b: p * b / a, "can exceed 1"),
        (lambda p, a, b: share(odds(p) * odds(a) / odds(b)), "upside down"),
        (lambda p, a, b: odds(p) * odds(b) / odds(a), "not yet the share"),
        (lambda p, a, b: share(odds(p) * b / a), "the prevalences are not"),
        (lambda p, a, b: share(p * odds(b) / odds(a)), "but the PPV is not"),
        (lambda p, a, b: p * odds(b) / odds(a), "PPV must become odds"),
        (lambda p, a, b: p / 2, r"Bayes' rule says 0\.0485"),
        (lambda p, a, b: p / (p - a), r"arguments \(0\.3, 0\.3, 0\.05\) it divides by zero"),
    ],
)
def test_wrongly_carried_ppvs_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.carried_ppv(wrong)


def reporting(*faults: str):
    """A report with the faults that are asked for."""

    def report(validation, test, target):
        chosen_on = {"on test": test, "pooled": pd.concat([validation, test])}.get(faults[0] if faults else "", validation)
        cut = (
            OperatingCurve(chosen_on["target"], chosen_on["probability"])
            .for_sensitivity(0.9 if "fixed target" in faults else target)
            .threshold
        )
        cut = 0.02 if "low" in faults else np.nan if "undefined" in faults else cut
        digits = [int(fault.split()[-1]) for fault in faults if fault.startswith("rounded to")]
        cut = round(cut, digits[0]) if digits else cut
        used = validation if "reported on validation" in faults else test
        called = used["probability"] > cut if "strict" in faults else used["probability"] >= cut
        melanoma = used["target"] == 1
        sensitivity = (called & melanoma).sum() / (called.sum() if "ppv" in faults else melanoma.sum())
        specificity = (~called & ~melanoma).sum() / ((~called).sum() if "npv" in faults else (~melanoma).sum())
        if "fpr" in faults:
            specificity = 1 - specificity
        if "accuracy" in faults:
            specificity = (called == melanoma).mean()
        if "swapped" in faults:
            sensitivity, specificity = specificity, sensitivity
        return (cut, sensitivity) if "short" in faults else (cut, sensitivity, 0.5 if "odd" in faults else specificity)

    return report


def test_an_honest_report_passes(capsys):
    checks.honest_report(reporting())
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("faults", "diagnoses"),
    [
        (["on test"], ["chosen on the test"]),
        (["pooled"], ["validation and test together"]),
        (["pooled", "rounded to 4"], ["validation and test together", "is rounded"]),
        (["strict"], ["use >="]),
        (["npv"], ["is the NPV"]),
        (["ppv"], ["is the PPV"]),
        (["fpr"], ["false-positive rate"]),
        (["swapped"], ["swapped"]),
        (["reported on validation"], ["its sensitivity is that of validation", "its specificity is that of validation"]),
        (["low"], ["lower than it need be"]),
        (["fixed target"], ["lower than it need be"]),
        (["odd"], ["not that of its own threshold"]),
        (["accuracy"], ["is the accuracy"]),
        (["on test", "rounded to 2", "strict", "npv"], ["chosen on the test", "is rounded", "use >=", "is the NPV"]),
        (["strict", "npv"], ["use >=", "is the NPV"]),
    ],
)
def test_every_fault_left_in_a_report_is_named_and_no_other(faults, diagnoses):
    with pytest.raises(NotYet) as caught:
        checks.honest_report(reporting(*faults))
    said = str(caught.value)
    assert all(diagnosis in said for diagnosis in diagnoses), said
    assert said.count("·") == len(diagnoses), said
    assert said.startswith("one fault is left" if len(diagnoses) == 1 else f"{len(diagnoses)} faults are left")


@pytest.mark.parametrize("digits", range(1, 7))
@pytest.mark.parametrize("chosen", ["", "on test"])
def test_a_rounded_threshold_is_never_accepted(digits, chosen):
    with pytest.raises(NotYet, match="is rounded") as caught:
        checks.honest_report(reporting(chosen, f"rounded to {digits}"))
    said = str(caught.value)
    assert ("chosen on the test" in said) == (chosen == "on test")
    assert said.count("·") == 1 + ("chosen on the test" in said)


@pytest.mark.parametrize("strict", [[], ["strict"]])
@pytest.mark.parametrize(
    ("mixed_up", "diagnosis"),
    [
        ("ppv", "is the PPV"),
        ("npv", "is the NPV"),
        ("fpr", "false-positive"),
        ("accuracy", "the accuracy"),
        ("swapped", "swapped"),
    ],
)
def test_validation_rates_passed_off_as_test_rates_are_told_beside_what_else_is_wrong(mixed_up, diagnosis, strict):
    with pytest.raises(NotYet) as caught:
        checks.honest_report(reporting("reported on validation", mixed_up, *strict))
    said = str(caught.value)
    assert diagnosis in said
    assert "its sensitivity is that of validation" in said
    assert "its specificity is that of validation" in said
    assert ("use >=" in said) == bool(strict)
    assert said.count("·") == 3 + len(strict), said


def test_the_made_up_samples_tell_every_choice_apart():
    validation, test = checks._two_samples()
    for target in checks.TARGETS:
        on_validation, on_test = (
            OperatingCurve(s["target"], s["probability"]).for_sensitivity(target).threshold for s in (validation, test)
        )
        assert round(on_validation, 2) != round(on_test, 2)
        assert all(round(cut, 6) != cut for cut in (on_validation, on_test))
        assert set(test["target"][test["probability"] == on_validation]) == {0, 1}  # so that > shows in both rates
        rates = [checks._rates(s, on_validation, sign) for s in (validation, test) for sign in (">=", ">")]
        # But for the rates of others on validation, where no other lesion scores what a melanoma does.
        values = [rate for one in rates for name, rate in one.items() if name not in ("specificity", "fpr") or one in rates[2:]]
        assert np.diff(np.sort(values)).min() > 1e-6


def test_a_threshold_that_is_no_number_is_told_why():
    with pytest.raises(NotYet, match="the threshold is NaN"):
        checks.honest_report(reporting("undefined"))


def test_a_report_of_another_shape_is_told_what_was_expected():
    with pytest.raises(NotYet, match="expected threshold, sensitivity and specificity"):
        checks.honest_report(reporting("short"))


@pytest.mark.parametrize("check", CHECKS)
def test_a_stub_is_not_yet_right(check):
    def stub(*_):
        raise NotImplementedError("your turn")

    with pytest.raises(NotImplementedError, match="your turn"):
        check(stub)
    with pytest.raises(NotYet):
        check(lambda *_: None)
