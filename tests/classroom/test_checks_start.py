import pytest

from melanoma_lib.classroom import checks_start as checks
from melanoma_lib.classroom.checks import NotYet


def right_ppv(se, sp, pr):
    return se * pr / (se * pr + (1 - sp) * (1 - pr))


def test_right_answers_pass(capsys):
    checks.decision(lambda output, threshold: output >= threshold)
    checks.ppv(right_ppv)
    assert capsys.readouterr().out.count("✓") == 2


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
        (lambda se, sp, pr: se * pr / (se * pr + sp * (1 - pr)), "takes the specificity"),
        (lambda se, sp, pr: se / (se + 1 - sp), "leaves the prevalence out"),
        (lambda se, sp, pr: se * pr / (se * pr + (1 - se) * (1 - pr)), "missed melanomas"),
        (lambda se, sp, pr: se, "that is the sensitivity"),
        (lambda se, sp, pr: se * pr / (se * pr + 1 - sp), "share of other lesions"),
        (lambda se, sp, pr: 100 * right_ppv(se, sp, pr), "Bayes' rule 0.045"),
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
