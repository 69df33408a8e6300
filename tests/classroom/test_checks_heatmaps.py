"""The heatmap lesson's later checks pass what is right and name what is wrong."""

import itertools

import numpy as np
import pytest

from melanoma_lib.classroom import checks_heatmaps as checks
from melanoma_lib.classroom.checks import NotYet


def flat(maps):
    return maps.reshape(len(maps), -1)


def by_loop(first, second):
    return [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)]


def by_standard_scores(first, second):
    a, b = ((m - m.mean(1, keepdims=True)) / m.std(1, keepdims=True) for m in (flat(first), flat(second)))
    return (a * b).mean(1)


@pytest.mark.parametrize("right", [by_loop, by_standard_scores])
def test_right_correlations_pass(right, capsys):
    checks.swap_correlation(right)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda a, b: np.corrcoef(a.ravel(), b.ravel())[0, 1], "thrown into one"),
        (lambda a, b: np.mean(by_loop(a, b)), "mean over the cases"),
        (lambda a, b: by_loop(np.maximum(a, 0), np.maximum(b, 0)), "ReLU came first"),
        (lambda a, b: by_loop(abs(a), abs(b)), "absolute values came first"),
        (lambda a, b: np.abs(by_loop(a, b)), "size of the correlation"),
        (lambda a, b: np.square(by_loop(a, b)), "its square"),
        (lambda a, b: (flat(a) * flat(b)).sum(1) / np.linalg.norm(flat(a), axis=1) / np.linalg.norm(flat(b), axis=1), "cosine"),
        (lambda a, b: [np.cov(x.ravel(), y.ravel(), bias=True)[0, 1] for x, y in zip(a, b, strict=True)], "covariance"),
        (lambda a, b: 1 - np.array(by_loop(a, b)), "distance"),
        (lambda a, b: by_loop(a, b)[:2], "one number a case"),
        (lambda a, b: np.zeros(len(a)), "Pearson's correlation is"),
        (lambda a, b: None, "end with a return"),
    ],
)
def test_wrong_correlations_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.swap_correlation(wrong)


def share(heatmap, mask):
    positive = np.where(heatmap > 0, heatmap, 0)
    return (positive * mask).sum() / positive.sum()


def test_the_right_gain_passes(capsys):
    checks.beyond_centre(lambda h, c, m: share(h, m) - share(c, m))
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda h, c, m: share(h, m), "share of the map alone"),
        (lambda h, c, m: share(c, m) - share(h, m), "the order is wrong"),
        (lambda h, c, m: h[m].sum() / h.sum() - share(c, m), "negative values were counted"),
        (lambda h, c, m: share(abs(h), m) - share(c, m), "absolute values"),
        (lambda h, c, m: share((h - h.min()) / (h.max() - h.min()), m) - share(c, m), "stretched to 0"),
        (lambda h, c, m: share(h, m) - m.mean(), "area of the lesion"),
        (lambda h, c, m: share(h, m) / share(c, m), "a ratio"),
        (lambda h, c, m: share(h, ~m), "beside the lesion"),
        (lambda h, c, m: 0.5, "of the map's positive energy"),
        (lambda h, c, m: None, "return its result"),
    ],
)
def test_wrong_gains_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.beyond_centre(wrong)


def report(strict=False, net=False, of_all=False, signed=False):
    def made(pairs, threshold):
        risks = pairs["risk_without"], pairs["risk_with"]
        before, after = (risk > threshold if strict else risk >= threshold for risk in risks)
        change = risks[1] - risks[0]
        flips = after.mean() - before.mean() if net else (before != after).mean()
        raised = (after & ~before).sum() / (len(pairs) if of_all else (~before).sum())
        return flips, raised, change.mean() if signed else change.abs().mean()

    return made


WORDS = {"strict": ">=, not >", "net": "cancel: a case raised", "of_all": "out of all cases", "signed": "up and down cancel"}


@pytest.mark.parametrize("faults", list(itertools.product([False, True], repeat=4)))
def test_the_hunt_names_every_fault_left_and_no_other(faults, capsys):
    left = dict(zip(WORDS, faults, strict=True))
    if not any(faults):
        checks.artefact_report(report())
        assert capsys.readouterr().out.startswith("✓")
        return
    with pytest.raises(NotYet) as told:
        checks.artefact_report(report(**left))
    for name, words in WORDS.items():
        assert (words in str(told.value)) == left[name], (name, str(told.value))


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda pairs, cut: (0.1, *report()(pairs, cut)[1:]), "flips is 0.100"),
        (lambda pairs, cut: (*report()(pairs, cut)[:2], 0.123), "mean size of the change is"),
        (lambda pairs, cut: (*report()(pairs, cut)[:2], abs(report(signed=True)(pairs, cut)[2])), "cancel"),
        (lambda pairs, cut: None, "expected three numbers"),
        (lambda pairs, cut: (1, 2), "expected three numbers"),
    ],
)
def test_other_reports_are_told(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.artefact_report(wrong)
