import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn import metrics as sk

from melanoma_lib.evaluation import Calibrator, evaluate_predictions, subgroup_table, summary_table
from melanoma_lib.evaluation.summary import FoldPredictions, gather_folds
from tests.evaluation.cases import prediction_table


@pytest.fixture(scope="module")
def table():
    return prediction_table()


def test_values_equal_scikit_learn_and_are_strict_json_whatever_the_order(table):
    targets, probability = table["target"], table["probability"]
    summary = evaluate_predictions(table, threshold=0.7, n=100)
    assert summary["auroc"]["value"] == pytest.approx(sk.roc_auc_score(targets, probability))
    assert summary["average_precision"]["value"] == pytest.approx(sk.average_precision_score(targets, probability))
    for key, cut in (("at_half", 0.5), ("at_threshold", 0.7)):
        tn, fp, fn, tp = sk.confusion_matrix(targets, probability >= cut).ravel()
        assert [summary[key][k] for k in ("threshold", "tp", "fp", "tn", "fn")] == [cut, tp, fp, tn, fn]
        assert summary[key]["mcc"]["value"] == pytest.approx(sk.matthews_corrcoef(targets, probability >= cut))
    for name in ("probability", "risk"):
        assert summary["calibration"][name]["brier"]["value"] == pytest.approx(sk.brier_score_loss(targets, table[name]))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert evaluate_predictions(table.sample(frac=1, random_state=1), 0.7, n=100)["auroc"] == pytest.approx(summary["auroc"])


def test_perfect_predictions_are_reported_with_dashes_not_crashes(table):
    perfect = table.assign(probability=table["target"].astype(float), risk=np.where(table["target"] == 1, 0.9, 0.1))
    summary = evaluate_predictions(perfect, threshold=0.5, n=50)
    assert summary["auroc"]["value"] == 1
    assert summary["calibration"]["risk"]["slope"]["value"] is None
    assert evaluate_predictions(perfect, threshold=1.1, n=10)["at_threshold"]["biopsies_per_melanoma"] is None
    assert "slope" in summary_table(json.loads(json.dumps(summary, allow_nan=False)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="risk"), r"missing \['risk'\]"),
        (lambda t: t.head(0), "at least one row"),
        (lambda t: t.assign(image_id="same"), "each image once, got 'same' again"),
        (lambda t: t.assign(probability=t["logit"]), r"probability: expected probabilities in \[0, 1\]"),
    ],
)
def test_bad_predictions_are_refused(table, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(change(table), threshold=0.5, n=10)


@pytest.mark.parametrize("threshold", [0.5, np.nextafter(1, 2)])
def test_a_fold_that_flags_nobody_keeps_its_decisions_among_the_others(threshold, table):
    shy, other, same = table.assign(logit=table["logit"] - 9), prediction_table(seed=1), Calibrator(1.0, 0.0)
    shy["probability"] = expit(shy["logit"])
    tables, point = gather_folds([FoldPredictions({"val": t, "test": t}, same, p) for t, p in ((shy, threshold), (other, 0.6))])
    test = tables["test"]
    assert (test["probability"] >= point["threshold"]).tolist() == [*[False] * len(shy), *(other["probability"] >= 0.6)]
    assert test["logit"].head(len(shy)).rank().tolist() == table["logit"].rank().tolist()


def test_folds_are_ranked_each_by_its_own_model(table):
    parts = [table.iloc[:200].assign(fold=1), table.iloc[200:].assign(fold=2, probability=lambda t: t["probability"] / 2)]
    summary = evaluate_predictions(pd.concat(parts), 0.5, n=50)
    aurocs = [sk.roc_auc_score(part["target"], part["probability"]) for part in parts]
    assert [one["value"] for one in summary["auroc_by_fold"]] == pytest.approx(aurocs)
    assert summary["auroc"]["value"] == pytest.approx(np.mean(aurocs)) != summary["auroc_pooled"]["value"]
    assert "score, folds aligned" in summary_table(summary)


# --- subgroups ---


def test_each_row_is_the_metric_of_its_own_cases_and_the_missing_are_kept(table):
    found = subgroup_table(table, 0.6, n=100).set_index(["variable", "subgroup"])
    women = table[table["sex"] == "female"]
    row, flagged = found.loc[("sex", "female")], women["probability"] >= 0.6
    assert row[["n", "n_groups", "n_melanoma"]].tolist() == [len(women), women["group_id"].nunique(), women["target"].sum()]
    assert row["auroc"] == pytest.approx(sk.roc_auc_score(women["target"], women["probability"]))
    assert row["sensitivity"] == pytest.approx(sk.recall_score(women["target"], flagged))
    assert row["specificity"] == pytest.approx(sk.recall_score(women["target"], flagged, pos_label=0))
    for metric in ("auroc", "sensitivity", "specificity"):
        assert row[f"{metric}_low"] < row[metric] < row[f"{metric}_high"]
    assert row["note"] == ""
    for variable, column in (("sex", "sex"), ("age", "age_approx"), ("site", "anatom_site_general_challenge")):
        rows = found.loc[variable]
        assert rows[["n", "n_melanoma"]].sum().tolist() == [len(table), table["target"].sum()]
        assert rows.loc["missing", "n"] == table[column].isna().sum()


def test_age_bands_include_their_lower_end():
    ages = [0.0, 29.0, 30.0, 44.9, 45.0, 60.0, 74.0, 75.0, 85.0, np.nan]
    cases = pd.DataFrame({"group_id": range(10), "target": [0, 1] * 5, "probability": 0.5, "age_approx": ages})
    rows = subgroup_table(cases, 0.5, n=10).query("variable == 'age'")
    assert dict(zip(rows["subgroup"], rows["n"], strict=True)) == {
        "<30": 2, "30-44": 2, "45-59": 1, "60-74": 2, "75+": 2, "missing": 1,
    }  # fmt: skip


def test_small_and_one_sided_subgroups_say_so(table):
    few = table.assign(sex="male")
    few.loc[few.index[:3], ["sex", "target"]] = "female", 0
    women = subgroup_table(few, 0.5, n=50).set_index("subgroup").loc["female"]
    assert "no melanoma" in women["note"]
    assert np.isnan([women["auroc"], women["sensitivity"], women["sensitivity_low"]]).all()
    assert 0 <= women["specificity_low"] < women["specificity_high"] <= 1
    few.loc[few.index[0], "target"] = 1
    women = subgroup_table(few, 0.5, n=50).set_index("subgroup").loc["female"]
    assert "Wilson" in women["note"] and np.isnan(women["auroc_low"]) and not np.isnan(women["auroc"])
    assert women["sensitivity_high"] - women["sensitivity_low"] > 0.5  # one lesion proves little
