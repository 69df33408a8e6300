"""The checks on comparing and choosing models pass what is right and name what is wrong, and nothing else."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.classroom import checks_cross_validation as checks
from melanoma_lib.classroom.checks import NotYet

from .test_checks_cross_validation import told

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


def by_pairs(t, a, b, draws):
    """AUROCs by counting pairs, the ends by pandas, as a list of plain floats."""

    def share(scores, drawn):
        return np.mean([(s > scores[drawn == 0]) + 0.5 * (s == scores[drawn == 0]) for s in scores[drawn == 1]])

    found = [share(a[rows], t[rows]) - share(b[rows], t[rows]) for rows in draws]
    return [float(end) for end in pd.Series(found).quantile([0.025, 0.975])]


@pytest.mark.parametrize(
    "right", [lambda *given: ends(gains(*given)), lambda *given: tuple(ends(gains(*given))), by_sorting, by_pairs]
)
def test_paired_intervals_pass(right, capsys):
    checks.paired_interval(right)
    assert capsys.readouterr().out.startswith("✓")


def normal(values, middle=None, less=0, by=1.0):
    middle = np.mean(values) if middle is None else middle
    return middle + 1.96 * np.std(values, ddof=less) / by * np.array([-1, 1])


def apart(t, a, b, rows_a, rows_b):
    return ends(aurocs(t, a, rows_a) - aurocs(t, b, rows_b))


def own_rows(seed):
    def compute(t, a, b, draws):
        rng = np.random.default_rng(seed)
        return ends(gains(t, a, b, [rng.integers(len(t), size=len(t)) for _ in draws]))

    return compute


INTERVALS = {
    "turned": "it is b less a",
    "swapped": "ends have changed places",
    "90": "90% of the draws",
    "percent": "np.percentile takes percent",
    "shares": "quantile takes shares",
    "ends": "subtracted from each other",
    "eye": "by eye",
    "apart": "a and b see different rows",
    "a": "model a alone",
    "b": "model b alone",
    "targets": "targets are not",
    "extremes": "smallest and the largest",
    "normal": "a normal interval",
    "error": "standard error already",
    "own": "asked twice",
    "fixed": "whatever the draws",
    "numbers": "on the made-up cases",
    "two": "expected two numbers",
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda t, a, b, draws: ends(gains(t, b, a, draws)), ["turned"]),
        (lambda *given: ends(gains(*given))[::-1], ["swapped"]),
        (lambda *given: -ends(gains(*given)), ["turned", "swapped"]),
        (lambda *given: ends(gains(*given), 5), ["90"]),
        (lambda *given: np.percentile(gains(*given), [0.025, 0.975]), ["percent"]),
        (lambda *given: np.quantile(gains(*given), [2.5, 97.5]), ["shares"]),
        (lambda *given: pd.Series(gains(*given)).quantile([2.5, 97.5]), ["shares"]),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws)) - ends(aurocs(t, b, draws)), ["ends"]),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws)) - ends(aurocs(t, b, draws))[::-1], ["eye"]),
        (lambda t, a, b, draws: apart(t, a, b, draws, draws[::-1]), ["apart"]),
        (lambda t, a, b, draws: apart(t, a, b, draws, draws[-1:] + draws[:-1]), ["apart"]),
        (lambda t, a, b, draws: apart(t, a, b, draws[:-1], draws[1:]), ["apart"]),
        (lambda t, a, b, draws: apart(t, a, b, draws[::2], draws[1::2]), ["apart"]),
        (lambda t, a, b, draws: apart(t, a, b, draws[:50], draws[50:]), ["apart"]),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws) - roc_auc_score(t, b)), ["apart"]),
        (lambda t, a, b, draws: ends([roc_auc_score(t[r], a[r]) - roc_auc_score(t[r], b) for r in draws]), ["apart"]),
        (lambda t, a, b, draws: ends(aurocs(t, a, draws)), ["a"]),
        (lambda t, a, b, draws: ends(aurocs(t, b, draws)), ["b"]),
        (lambda t, a, b, draws: ends([roc_auc_score(t, a[r]) - roc_auc_score(t, b[r]) for r in draws]), ["targets"]),
        (lambda *given: (gains(*given).min(), gains(*given).max()), ["extremes"]),
        (lambda *given: normal(gains(*given)), ["normal"]),
        (lambda *given: normal(gains(*given), less=1), ["normal"]),
        (lambda t, a, b, draws: normal(gains(t, a, b, draws), roc_auc_score(t, a) - roc_auc_score(t, b)), ["normal"]),
        (lambda *given: normal(gains(*given), by=10), ["error"]),
        (own_rows(None), ["own"]),
        (own_rows(0), ["fixed"]),
        (lambda *given: (0.0, 0.1), ["fixed"]),
        (lambda *given: gains(*given)[:2], ["numbers"]),
        (lambda *given: 0.1, ["two"]),
        (lambda *given: gains(*given), ["two"]),
        (lambda *given: None, ["two"]),
    ],
)
def test_wrong_intervals_are_named_and_no_others(wrong, said):
    assert told(checks.paired_interval, wrong, INTERVALS.values()) == [INTERVALS[one] for one in said]


def test_another_error_keeps_its_own_words():
    with pytest.raises(ValueError, match="a slip of mine"):
        checks.paired_interval(lambda *given: (_ for _ in ()).throw(ValueError("a slip of mine")))


# --- choosing -----------------------------------------------------------------------------------------------------------------


def close(models, budget, margin):
    affordable = models[models["cost"] <= budget]
    return affordable[affordable["score"] >= affordable["score"].max() - margin]


def chosen(models, budget, margin):
    near = close(models, budget, margin)
    return near.loc[near["cost"].idxmin(), "name"]


def by_loops(models, budget, margin):
    rows = [row for row in models.to_dict("records") if row["cost"] <= budget]
    best = max(row["score"] for row in rows)
    return min((row for row in rows if best - row["score"] <= margin), key=lambda row: row["cost"])["name"]


@pytest.mark.parametrize("right", [chosen, by_loops, lambda *given: np.str_(chosen(*given))])
def test_the_right_choice_passes(right, capsys):
    checks.choice(right)
    assert capsys.readouterr().out.startswith("✓")


def of_all(models, budget, margin):
    return models[(models["score"] >= models["score"].max() - margin) & (models["cost"] <= budget)]


def of_all_stops(models, budget, margin):
    near = of_all(models, budget, margin)
    return near.loc[near["cost"].idxmin(), "name"]


def of_all_or_none(models, budget, margin):
    names = of_all(models, budget, margin).sort_values("cost")["name"].tolist()
    return names[0] if names else None


def over(models, budget, margin):
    dear = models[models["cost"] > budget]
    return dear[dear["score"] >= dear["score"].max() - margin].sort_values("cost")["name"].iloc[0]


def strictly_near(models, budget, margin):
    affordable = models[models["cost"] <= budget]
    near = affordable[affordable["score"] > affordable["score"].max() - margin]
    return min(zip(near["cost"], near["name"], strict=True))[1]


def row(models, budget, margin):
    near = close(models, budget, margin)
    return near.loc[near["cost"].idxmin()]


CHOICES = {
    "budget": "the budget makes no difference",
    "highest": "highest score of all",
    "best": "the best that one can afford, so the margin",
    "cheapest": "cheapest of all",
    "dearest": "the dearest",
    "strict": "exactly the budget",
    "over": "keeps what costs more",
    "near": "exactly the margin below",
    "of all": "best of all, affordable or not",
    "row": "a whole row",
    "table": "got a table",
    "list": "got a list of",
    "label": "the label of a row",
    "cost": "got a cost",
    "score": "got a score",
    "nothing": "does your function return",
    "empty": "finds nothing to choose from",
    "numbers": "it takes 'grand'",
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda models, budget, margin: chosen(models, 1e9, margin), "budget"),
        (lambda models, budget, margin: chosen(models, 1e9, 0), "highest"),
        (lambda models, budget, margin: chosen(models, budget, 0), "best"),
        (lambda *given: close(*given).sort_values("score")["name"].iloc[-1], "best"),
        (lambda models, budget, margin: models.loc[models["cost"].idxmin(), "name"], "cheapest"),
        (lambda *given: close(*given).sort_values("cost")["name"].iloc[-1], "dearest"),
        (lambda models, budget, margin: chosen(models, budget - 1e-9, margin), "strict"),
        (over, "over"),
        (strictly_near, "near"),
        (of_all_stops, "of all"),
        (of_all_or_none, "of all"),
        (row, "row"),
        (lambda *given: row(*given).to_dict(), "row"),
        (lambda *given: tuple(row(*given)), "row"),
        (lambda *given: close(*given).nsmallest(1, "cost"), "table"),
        (lambda *given: close(*given).nsmallest(1, "cost")["name"], "list"),
        (lambda *given: close(*given)["cost"].idxmin(), "label"),
        (lambda *given: close(*given)["cost"].min(), "cost"),
        (lambda *given: close(*given)["score"].max(), "score"),
        (lambda *given: None, "nothing"),
        (lambda models, *_: models[models["cost"] < 0]["name"].iloc[0], "empty"),
        (lambda models, budget, _: "grand" if budget < 1000 else "tiny", "numbers"),
    ],
)
def test_wrong_choices_are_named_and_no_others(wrong, said):
    assert told(checks.choice, wrong, CHOICES.values()) == [CHOICES[said]]


def test_what_names_no_model_is_refused():
    with pytest.raises(NotYet, match=r"one of grand, heavy, .* got 'huge'"):
        checks.choice(lambda *given: "huge")


def test_an_error_that_is_not_about_nothing_left_keeps_its_own_words():
    with pytest.raises(ValueError, match="ambiguous"):
        checks.choice(lambda models, budget, margin: "tiny" if models["cost"] <= budget else "large")


def test_the_made_up_table_is_not_sorted():
    seen = []
    with pytest.raises(NotYet):
        checks.choice(lambda models, budget, margin: seen.append(models) or "tiny")
    assert isinstance(seen[0], pd.DataFrame) and not seen[0]["score"].is_monotonic_decreasing
