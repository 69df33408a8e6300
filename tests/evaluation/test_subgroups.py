import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from melanoma_lib.evaluation import subgroup_table
from tests.evaluation.cases import prediction_table


def test_each_row_is_the_metric_of_its_own_cases():
    cases = prediction_table()
    table = subgroup_table(cases, 0.6, n=100).set_index(["variable", "subgroup"])
    women = cases[cases["sex"] == "female"]
    row = table.loc[("sex", "female")]
    assert (row["n"], row["n_groups"], row["n_melanoma"]) == (
        len(women),
        women["group_id"].nunique(),
        women["target"].sum(),
    )
    assert row["auroc"] == pytest.approx(roc_auc_score(women["target"], women["probability"]))
    assert row["sensitivity"] == pytest.approx(recall_score(women["target"], women["probability"] >= 0.6))
    assert row["specificity"] == pytest.approx(recall_score(women["target"], women["probability"] >= 0.6, pos_label=0))
    for metric in ("auroc", "sensitivity", "specificity"):
        assert row[f"{metric}_low"] < row[metric] < row[f"{metric}_high"]
    assert row["note"] == ""


def test_subgroups_of_each_variable_add_up_and_keep_the_missing():
    cases = prediction_table()
    table = subgroup_table(cases, 0.5, n=10)
    for variable, column in (("sex", "sex"), ("age", "age_approx"), ("site", "anatom_site_general_challenge")):
        rows = table[table["variable"] == variable]
        assert rows["n"].sum() == len(cases)
        assert rows["n_melanoma"].sum() == cases["target"].sum()
        assert rows.set_index("subgroup").loc["missing", "n"] == cases[column].isna().sum()
    assert list(table["variable"].unique()) == ["all", "sex", "age", "site"]


def test_age_bands_include_their_lower_end():
    ages = [0.0, 29.0, 30.0, 44.9, 45.0, 60.0, 74.0, 75.0, 85.0, np.nan]
    cases = pd.DataFrame({"group_id": range(10), "target": [0, 1] * 5, "probability": 0.5, "age_approx": ages})
    rows = subgroup_table(cases, 0.5, n=10).query("variable == 'age'")
    assert dict(zip(rows["subgroup"], rows["n"], strict=True)) == {
        "<30": 2, "30-44": 2, "45-59": 1, "60-74": 2, "75+": 2, "missing": 1,
    }  # fmt: skip


def test_small_and_one_sided_subgroups_say_so():
    cases = prediction_table()
    cases["sex"] = "male"
    cases.loc[cases.index[:3], "sex"] = "female"
    cases.loc[cases.index[:3], "target"] = 0
    table = subgroup_table(cases, 0.5, n=50).set_index("subgroup")
    women = table.loc["female"]
    assert "no melanoma" in women["note"]
    assert np.isnan([women["auroc"], women["sensitivity"], women["sensitivity_low"]]).all()
    assert 0 <= women["specificity_low"] < women["specificity_high"] <= 1
    cases.loc[cases.index[0], "target"] = 1
    women = subgroup_table(cases, 0.5, n=50).set_index("subgroup").loc["female"]
    assert "Wilson" in women["note"] and np.isnan(women["auroc_low"]) and not np.isnan(women["auroc"])
    assert women["sensitivity_high"] - women["sensitivity_low"] > 0.5  # one lesion proves little


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="group_id"), r"missing \['group_id'\]"),
        (lambda t: t.assign(probability=np.nan), "probability: expected finite"),
    ],
)
def test_bad_tables_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        subgroup_table(change(prediction_table()), 0.5)
