"""The checks of the cross-validation lesson pass what is right and name what is wrong."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.classroom import checks_cross_validation as checks
from melanoma_lib.classroom.checks import NotYet
from melanoma_lib.evaluation import OperatingCurve


def error(a, m, n, less=1, swap=False, square=True):
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    if swap:
        q1, q2 = q2, q1
    off = a * a if square else 0
    return math.sqrt((a * (1 - a) + (m - less) * (q1 - off) + (n - less) * (q2 - off)) / m / n)


def test_the_right_error_passes(capsys):
    checks.standard_error(error)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda *size: error(*size) ** 2, "the variance"),
        (lambda *size: 1.96 * error(*size), "half of a 95% interval"),
        (lambda *size: error(*size, swap=True), "changed places"),
        (lambda *size: error(*size, less=0), "two different lesions"),
        (lambda *size: error(*size, square=False), "square of the AUROC"),
        (lambda a, m, n: error(a, m, n) * math.sqrt(m * n / (m + n)), "number of pairs"),
        (lambda *size: 0.1, "expected 0.0"),
        (lambda *size: None, "does your function return"),
    ],
)
def test_wrong_errors_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.standard_error(wrong)


# --- folds ------------------------------------------------------------------------------------------------------------------


def sensitivities(cases, roles, fit, target, taught=("train",), chosen="val", strict=False):
    found = []
    for role in roles:
        model = fit(cases[role.isin(taught)])
        on, test = cases[role == chosen], cases[role == "test"]
        cut = OperatingCurve(on["target"], model(on)).for_sensitivity(target).threshold
        called = model(test) > cut if strict else model(test) >= cut
        found.append(called[test["target"] == 1].mean())
    return found


def test_nested_folds_pass(capsys):
    checks.nested(lambda *given: np.mean(sensitivities(*given)))
    assert capsys.readouterr().out.startswith("✓")


MIX = {"taught": ("train", "val")}
SAME = {"taught": ("train", "val", "test")}
ON_TEST = {"chosen": "test"}


@pytest.mark.parametrize(
    ("options", "gather", "said"),
    [
        (MIX, np.mean, ["validation cases too"]),
        (SAME, np.mean, ["very cases that it is tested on"]),
        (ON_TEST, np.mean, ["kept by construction"]),
        ({"chosen": "train"}, np.mean, ["training cases, which"]),
        ({"strict": True}, np.mean, ["use >="]),
        ({}, max, ["best fold"]),
        ({}, min, ["worst fold"]),
        ({}, np.median, ["median fold"]),
        ({}, lambda found: found[-1], ["last fold"]),
        (MIX | ON_TEST, max, ["validation cases too", "kept by construction", "best fold"]),
        (ON_TEST, max, ["kept by construction", "best fold"]),
        (MIX, max, ["validation cases too", "best fold"]),
    ],
)
def test_faults_of_folds_are_named_and_no_others(options, gather, said):
    with pytest.raises(NotYet) as caught:
        checks.nested(lambda *given: gather(sensitivities(*given, **options)))
    assert [part in str(caught.value) for part in said] == [True] * len(said)
    assert str(caught.value).count("; and ") == len(said) - 1


def test_all_melanomas_thrown_together_are_told_from_the_mean():
    def pooled(cases, roles, fit, target):
        sizes = [(cases["target"][role == "test"] == 1).sum() for role in roles]
        return np.average(sensitivities(cases, roles, fit, target), weights=sizes)

    with pytest.raises(NotYet, match="counts all folds' melanomas together"):
        checks.nested(pooled)


@pytest.mark.parametrize("wrong", [lambda *given: None, lambda *given: 0.5])
def test_other_answers_to_the_folds_are_refused(wrong):
    with pytest.raises(NotYet, match="expected"):
        checks.nested(wrong)


# --- two models ---------------------------------------------------------------------------------------------------------------


def ends(values, outside=2.5):
    return np.percentile(values, [outside, 100 - outside])


def aurocs(t, s, draws):
    return np.array([roc_auc_score(t[rows], s[rows]) for rows in draws])


def gains(t, a, b, draws):
    return aurocs(t, a, draws) - aurocs(t, b, draws)


def by_sorting(t, a, b, draws):
    ordered = np.sort(gains(t, a, b, draws))
    return ordered[int(0.025 * len(ordered))], ordered[int(0.975 * len(ordered))]


@pytest.mark.parametrize("right", [lambda *given: ends(gains(*given)), by_sorting])
def test_paired_intervals_pass(right, capsys):
    checks.paired_interval(right)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda t, a, b, draws: ends(gains(t, b, a, draws)), "it is b less a"),
        (lambda *given: ends(gains(*given))[::-1], "changed places"),
        (lambda *given: ends(gains(*given), 5), "90% of the draws"),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws)) - ends(aurocs(t, b, draws)), "subtracted from each other"),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws)) - ends(aurocs(t, b, draws))[::-1], "by eye"),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws) - aurocs(t, b, draws[::-1])), "drawn apart"),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws) - aurocs(t, b, draws[-1:] + draws[:-1])), "drawn apart"),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws)), "model a alone"),
        (lambda t, a, b, draws: ends([roc_auc_score(t, a[r]) - roc_auc_score(t, b[r]) for r in draws]), "targets are not"),
        (lambda *given: (0.0, 0.1), r"answers \[0.0000, 0.1000\], expected"),
        (lambda *given: (gains(*given).min(), gains(*given).max()), "take percentiles"),
        (lambda *given: gains(*given).mean() + 1.96 * gains(*given).std() * np.array([-1, 1]), "normal interval"),
        (lambda *given: 0.1, "expected two numbers"),
        (lambda *given: (0.1, 0.2, 0.3), "expected two numbers"),
    ],
)
def test_wrong_intervals_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.paired_interval(wrong)


# --- choosing -----------------------------------------------------------------------------------------------------------------


def chosen(models, budget, margin):
    affordable = models[models["cost"] <= budget]
    near = affordable[affordable["score"] >= affordable["score"].max() - margin]
    return near.sort_values("cost")["name"].iloc[0]


def from_all(models, budget, margin):
    near = models[(models["score"] >= models["score"].max() - margin) & (models["cost"] <= budget)]
    return near.sort_values("cost")["name"].iloc[0] if len(near) else None


def test_the_right_choice_passes(capsys):
    checks.choice(chosen)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda models, budget, margin: chosen(models, 1e9, margin), "the budget makes no difference"),
        (lambda models, budget, margin: chosen(models, budget, 0), "best that one can afford: of those"),
        (lambda models, budget, margin: models.loc[models["cost"].idxmin(), "name"], "cheapest of all"),
        (lambda models, budget, margin: chosen(models, budget - 1e-9, margin), "exactly the budget"),
        (from_all, "best of all, affordable or not"),
        (lambda models, budget, margin: models.iloc[0], "expected the name of a model"),
        (lambda models, budget, margin: None, "expected the name of a model"),
        (lambda models, budget, margin: "grand", "expected"),
    ],
)
def test_wrong_choices_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.choice(wrong)


def test_the_made_up_table_is_not_sorted():
    seen = []
    with pytest.raises(NotYet):
        checks.choice(lambda models, budget, margin: seen.append(models) or "tiny")
    assert isinstance(seen[0], pd.DataFrame) and not seen[0]["score"].is_monotonic_decreasing
