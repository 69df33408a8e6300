import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import OperatingCurve, bootstrap_gain, bootstrap_intervals, delong_test, resample_groups
from melanoma_lib.studies.backbones_scores import (
    Candidate,
    Part,
    delong_p,
    holm,
    replicates,
    score_candidates,
    specificity_replicates,
)


def cases(seed, n=120, prefix=""):
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, n // 2, n))
    target = (rng.random(n) < 0.3).astype(int)
    return pd.DataFrame(
        {"image_id": [f"{prefix}{i}" for i in range(n)], "group_id": [f"{prefix}g{g}" for g in groups], "target": target}
    )


def part(table, seed, strength=1.0, threshold=0.4):
    rng = np.random.default_rng(seed)
    logit = strength * (2 * table["target"] - 1) + rng.normal(0, 1.5, len(table))
    probability = np.round(1 / (1 + np.exp(-logit)), 2)  # rounded, so that scores tie
    return Part(table.assign(probability=probability, risk=probability**2), threshold)


@pytest.fixture(scope="module")
def two():
    table = cases(0)
    return [Candidate("default", [part(table, 1, 0.6)]), Candidate("other", [part(table, 2, 1.2)])]


@pytest.mark.parametrize("wanted", [0.5, 0.95, 1.0])
def test_specificity_of_resamples_is_that_of_the_repeated_rows(wanted):
    table = part(cases(3), 4).table
    found = specificity_replicates(table["target"], table["probability"], table["group_id"], wanted, n=40, seed=5)
    codes = pd.factorize(table["group_id"], sort=True)[0]
    (weights,) = resample_groups(codes.max() + 1, 40, 5, block=40)
    for value, drawn in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(len(table)), drawn[codes])
        curve = OperatingCurve(table["target"].to_numpy()[rows], table["probability"].to_numpy()[rows])
        assert value == pytest.approx(curve.for_sensitivity(wanted).specificity, abs=1e-12)


def test_a_resample_without_a_class_has_no_specificity():
    found = specificity_replicates([1, 0], [0.9, 0.1], ["a", "b"], 0.95, n=60)
    assert set(found[~np.isnan(found)]) == {1.0}
    assert np.isnan(found).mean() == pytest.approx(0.5, abs=0.2)


def test_one_fold_is_scored_as_evaluation_scores_it(two):
    rows = {row["name"]: row for row in score_candidates(two, "default", 0.95, n=200, seed=3)}
    table, threshold = two[1].parts[0].table, two[1].parts[0].threshold
    answers, scores, groups = table["target"], table["probability"], table["group_id"]
    known = bootstrap_intervals(answers, scores, groups, threshold, n=200, seed=3)
    for metric in ("auroc", "average_precision", "sensitivity", "specificity"):
        expected = known[metric]
        assert rows["other"][metric] == pytest.approx({"value": expected.value, "low": expected.low, "high": expected.high})
    brier = bootstrap_intervals(answers, table["risk"], groups, n=200, seed=3)["brier"]
    assert rows["other"]["brier"] == pytest.approx({"value": brier.value, "low": brier.low, "high": brier.high})
    gain = bootstrap_gain(answers, scores, two[0].parts[0].table["probability"], groups, n=200, seed=3)["auroc"]
    assert rows["other"]["gain_auroc"] == pytest.approx({"value": gain.value, "low": gain.low, "high": gain.high})
    test = delong_test(answers, scores, two[0].parts[0].table["probability"])
    assert rows["other"]["delong_p"] == rows["other"]["delong_p_holm"] == pytest.approx(test.p_value)


def test_the_default_and_the_best_are_compared_with_themselves_nowhere(two):
    rows = {row["name"]: row for row in score_candidates(two, "default", 0.95, n=100)}
    assert rows["default"]["default"] and not rows["other"]["default"]
    assert rows["default"]["gain_auroc"] is rows["default"]["delong_p"] is rows["default"]["delong_p_holm"] is None
    assert rows["other"]["behind_auroc"] == {"value": 0.0, "low": 0.0, "high": 0.0}  # of the two the better
    assert rows["default"]["behind_auroc"]["value"] == pytest.approx(-rows["other"]["gain_auroc"]["value"])


def test_rows_in_another_order_change_nothing(two):
    shuffled = Candidate("other", [Part(two[1].parts[0].table.sample(frac=1, random_state=0), two[1].parts[0].threshold)])
    assert score_candidates([two[0], shuffled], "default", 0.95, n=100) == score_candidates(two, "default", 0.95, n=100)


def test_folds_are_averaged_and_resampled_each_for_itself():
    tables = [cases(seed, prefix=f"f{seed}_") for seed in (7, 8)]
    whole = Candidate("whole", [part(table, 9) for table in tables])
    found = replicates(whole, 0.95, 50, seed=2)
    single = [replicates(Candidate("one", [piece]), 0.95, 50, seed=2 + k) for k, piece in enumerate(whole.parts)]
    for metric in found.sample:
        assert found.sample[metric] == pytest.approx(np.mean([one.sample[metric] for one in single]))
        np.testing.assert_allclose(found.draws[metric], np.mean([one.draws[metric] for one in single], axis=0))


def test_delong_over_folds_rests_on_the_mean_difference():
    from scipy.stats import norm

    tables = [cases(seed, prefix=f"f{seed}_") for seed in (7, 8, 9)]
    mine, its = (
        Candidate(name, [part(t, seed, strength) for t in tables]) for name, seed, strength in (("a", 1, 1), ("b", 2, 0.5))
    )
    pairs = zip(mine.parts, its.parts, strict=True)
    tests = [delong_test(p.table["target"], p.table["probability"], q.table["probability"]) for p, q in pairs]
    z = np.mean([t.difference for t in tests]) / (np.sqrt(np.sum([t.standard_error**2 for t in tests])) / 3)
    assert delong_p(mine, its) == pytest.approx(2 * norm.sf(abs(z)))
    assert delong_p(mine, mine) == 1.0


def test_holm_follows_the_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_as_the_stepwise_rule_does(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for step, i in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[i] * (len(p_values) - step) > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


def test_what_is_perfect_on_few_groups_is_not_called_certain():
    table = pd.DataFrame({"image_id": list("abcdef"), "group_id": list("stuvwx"), "target": [1, 1, 1, 0, 0, 0]})
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    perfect = Candidate("perfect", [Part(table.assign(probability=scores, risk=scores), 0.5)])
    (row,) = score_candidates([perfect], "perfect", 0.95, n=100)
    assert row["auroc"] == {"value": 1.0, "low": None, "high": None}
    assert row["sensitivity"]["value"] == 1 and row["sensitivity"]["low"] == pytest.approx(3 / (3 + 1.959964**2))


def test_other_cases_folds_or_names_are_refused(two):
    elsewhere = Candidate("elsewhere", [part(cases(0, prefix="x"), 1)])
    with pytest.raises(StudyError, match=r"not the same ones"):
        score_candidates([two[0], elsewhere], "default", 0.95, n=100)
    with pytest.raises(StudyError, match="2 folds"):
        score_candidates([two[0], Candidate("more", [two[1].parts[0]] * 2)], "default", 0.95, n=100)
    with pytest.raises(StudyError, match="'absent'"):
        score_candidates(two, "absent", 0.95, n=100)
    with pytest.raises(StudyError, match="different names"):
        score_candidates([two[0], two[0]], "default", 0.95, n=100)
