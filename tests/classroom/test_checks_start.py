from itertools import combinations

import numpy as np
import pytest

from melanoma_lib.classroom import checks_start as checks
from melanoma_lib.classroom.checks import NotYet


def right_ppv(se, sp, pr):
    return se * pr / (se * pr + (1 - sp) * (1 - pr))


def right_counts(n, se, sp, pr):
    sick, well = n * pr, n * (1 - pr)
    return sick * se, sick * (1 - se), well * (1 - sp), well * sp


def answering(*faults):
    """The way from pixels to an answer, with the faults that are asked for; all of them make the colleague's version."""

    def answer(pixels, parts):
        image = pixels / 255 if "255" in faults else pixels if "raw" in faults else parts.prepare(pixels)
        logit = parts.logit(image)
        output = 1 / (1 + np.exp(-logit))
        risk = logit if "logit" in faults else output if "output" in faults else parts.calibrate(logit)
        risk = parts.calibrate(output) if "twice" in faults else risk
        compared = parts.calibrate(logit) if "risk" in faults else logit if "cut logit" in faults else output
        threshold = 0.5 if "0.5" in faults else parts.threshold
        return risk, compared > threshold if ">" in faults else compared < threshold if "<" in faults else compared >= threshold

    return answer


def test_right_answers_pass(capsys):
    checks.decision(lambda output, threshold: output >= threshold)
    checks.natural_counts(right_counts)
    checks.natural_counts(lambda *clinic: [round(count) for count in right_counts(*clinic)])
    checks.ppv(right_ppv)
    checks.whole_answer(answering())
    assert capsys.readouterr().out.count("✓") == 5


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda o, t: o > t, "use >="),
        (lambda o, t: o >= 0.5, "same for every threshold"),
        (lambda o, t: o < t, "wrong way round"),
        (lambda o, t: t <= 0.5, "second argument"),
        (lambda o, t: None, "second argument"),
    ],
)
def test_wrong_decisions_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.decision(wrong)


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda *clinic: None, "expected four counts"),
        (lambda *clinic: right_counts(*clinic)[:3], "got 3 numbers"),
        (lambda n, se, sp, pr: (n * se, n * (1 - se), n * (1 - sp), n * sp), "split the lesions by the prevalence"),
        (lambda n, se, sp, pr: (n * pr * se, n * pr * (1 - se), n * (1 - sp), n * sp), "come from the others"),
        (lambda *clinic: [right_counts(*clinic)[i] for i in (1, 0, 2, 3)], "found and missed are swapped"),
        (lambda *clinic: [right_counts(*clinic)[i] for i in (0, 1, 3, 2)], "the false alarms are the rest"),
        (lambda *clinic: [right_counts(*clinic)[i] for i in (0, 2, 3, 1)], "their order is not"),
        (lambda n, se, sp, pr: (n * se, n * (1 - se), n * sp, n * (1 - sp)), "prevalence; and the specificity"),
        (lambda n, *rates: [count / n for count in right_counts(n, *rates)], "multiply by n"),
        (lambda *clinic: [int(count) for count in checks._cut_off(*clinic)], "use round"),
        (lambda n, se, sp, pr: (n, 0, 0, 0), "expected 190, 10, 3,528, 6,272"),
    ],
)
def test_wrong_counts_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.natural_counts(wrong)


DIAGNOSES = {
    "255": "pixels / 255",
    "raw": "raw pixels",
    "output": "not a risk",
    "logit": "no probability",
    "twice": "takes the logit",
    "risk": "the risk is held against",
    "cut logit": "the logit is held against",
    "0.5": "cuts at 0.5",
    ">": "use >=",
    "<": "wrong way round",
}
EXCLUSIVE = ({"255", "raw"}, {"output", "logit", "twice"}, {"risk", "cut logit"}, {">", "<"})


@pytest.mark.parametrize("fault", DIAGNOSES)
def test_each_fault_of_an_answer_is_named_alone(fault):
    with pytest.raises(NotYet, match=DIAGNOSES[fault]) as caught:
        checks.whole_answer(answering(fault))
    assert str(caught.value).startswith("one fault is left")


def test_two_faults_of_an_answer_are_named_together():
    for one, other in combinations(DIAGNOSES, 2):
        if any({one, other} <= group for group in EXCLUSIVE):
            continue
        with pytest.raises(NotYet) as caught:
            checks.whole_answer(answering(one, other))
        assert DIAGNOSES[one] in str(caught.value), (one, other)
        assert DIAGNOSES[other] in str(caught.value), (one, other)


def test_the_colleagues_four_faults_are_named_together():
    def colleague(pixels, parts):
        logit = parts.logit(pixels / 255)
        risk = 1 / (1 + np.exp(-logit))
        return risk, risk > 0.5

    with pytest.raises(NotYet, match="4 faults are left") as caught:
        checks.whole_answer(colleague)
    assert all(DIAGNOSES[fault] in str(caught.value) for fault in ("255", "output", "0.5", ">"))


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda pixels, parts: None, "expected a risk and whether"),
        (lambda pixels, parts: 0.5, "expected a risk and whether"),
        (lambda pixels, parts: (0.5, True), "none that these parts give"),
    ],
)
def test_answers_of_another_kind_are_told(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.whole_answer(wrong)


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda se, sp, pr: se * pr / (se * pr + sp * (1 - pr)), "takes the specificity"),
        (lambda se, sp, pr: se / (se + 1 - sp), "leaves the prevalence out"),
        (lambda se, sp, pr: se * pr / (se * pr + (1 - se) * (1 - pr)), "missed melanomas"),
        (lambda se, sp, pr: se, "that is the sensitivity"),
        (lambda se, sp, pr: se * pr / (se * pr + 1 - sp), "share of other lesions"),
        (lambda se, sp, pr: 100 * right_ppv(se, sp, pr), "Bayes' rule 0.045"),
        (lambda se, sp, pr: None, "does your function return something"),
        (lambda se, sp, pr: [se, sp], "expected one number"),
    ],
)
def test_wrong_ppvs_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.ppv(wrong)


def test_a_stub_is_not_yet_right_but_says_what_it_raises():
    def stub(*_):
        raise NotImplementedError("your turn")

    with pytest.raises(NotImplementedError, match="your turn"):
        checks.ppv(stub)
