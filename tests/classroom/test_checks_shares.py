import numpy as np
import pytest

from melanoma_lib.classroom import checks_shares as checks
from melanoma_lib.classroom.checks import NotYet


def by_class(cases, column, of=lambda rows: rows.isna().mean()):
    return tuple(of(cases.loc[cases["target"] == kind, column]) for kind in (1, 0))


def among_gaps(cases, column):
    share = cases.loc[cases[column].isna(), "target"].mean()
    return share, 1 - share


def in_each_field(cases, column):
    gap = cases[column].isna()
    return cases.loc[gap, "target"].mean(), cases.loc[~gap, "target"].mean()


WRONG_GAPS = {
    "nothing": (lambda cases, column: None, "expected two shares"),
    "one number": (lambda cases, column: cases[column].isna().mean(), "expected two shares"),
    "groupby order": (lambda cases, column: cases[column].isna().groupby(cases["target"]).mean(), "0 before 1"),
    "the other way round": (among_gaps, "other way round"),
    "what a gap says": (in_each_field, "what a gap says of the lesion"),
    "of all cases": (lambda cases, column: by_class(cases, column, lambda rows: rows.isna().sum() / len(cases)), "number of all"),
    "counts": (lambda cases, column: by_class(cases, column, lambda rows: rows.isna().sum()), "these are counts"),
    "== NaN": (lambda cases, column: by_class(cases, column, lambda rows: (rows == np.nan).mean()), "use .isna()"),
    "filled": (lambda cases, column: by_class(cases, column, lambda rows: rows.notna().mean()), "filled fields"),
    "no class": (lambda cases, column: (cases[column].isna().mean(),) * 2, "select the rows of each class"),
    "percent": (lambda cases, column: by_class(cases, column, lambda rows: 100 * rows.isna().mean()), "in percent"),
    "one column": (lambda cases, column: by_class(cases, "age_approx"), "one column only"),
    "any": (lambda cases, column: (0.123, 0.2 + 0.1 * (column == "sex")), "of a made-up table it says"),
}  # fmt: skip


def leak(cases, train, test, ids="group_id", kind=1, known_kind=None):
    """Row by row, as slowly as it can be counted."""
    rows = [cases.iloc[i] for i in test if kind is None or cases.iloc[i]["target"] == kind]
    met = {cases.iloc[i][ids] for i in train if known_kind is None or cases.iloc[i]["target"] == known_kind}
    return sum(row[ids] in met for row in rows) / len(rows)


def leak_by_labels(cases, train, test):
    rows = cases.loc[test].query("target == 1")
    return rows["group_id"].isin(cases.loc[train, "group_id"]).mean()


def leak_of_groups(cases, train, test):
    groups = set(cases.iloc[test].query("target == 1")["group_id"])
    return len(groups & set(cases["group_id"].iloc[train])) / len(groups)


def melanomas(cases, test):
    return cases["target"].iloc[test].sum()


WRONG_LEAKS = {
    "nothing": (lambda *split: None, "expected a share"),
    "every image": (lambda *split: leak(*split, kind=None), "every test image"),
    "by lesion": (lambda *split: leak(*split, ids="lesion_id"), "lesion_id"),
    "by image": (lambda *split: leak(*split, ids="image_id"), "nothing leaks by image_id"),
    "known melanomas": (lambda *split: leak(*split, known_kind=1), "only melanomas in training"),
    "swapped": (lambda cases, train, test: leak(cases, test, train), "are swapped"),
    "the new ones": (lambda *split: 1 - leak(*split), "that are new"),
    "count": (lambda cases, train, test: leak(cases, train, test) * melanomas(cases, test), "that is a count"),
    "of all": (lambda cases, train, test: leak(cases, train, test) * melanomas(cases, test) / len(test), "by all test images"),
    "of groups": (leak_of_groups, "each group once"),
    "labels": (leak_by_labels, "use .iloc"),
    "percent": (lambda *split: 100 * leak(*split), "in percent"),
    "a guess": (lambda *split: 0.3, "of a made-up split by image it says 0.3000"),
}


def test_right_answers_pass(capsys):
    checks.gap_shares(by_class)
    checks.known_share(leak)
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize("name", WRONG_GAPS)
def test_wrong_shares_of_gaps_are_diagnosed(name):
    wrong, diagnosis = WRONG_GAPS[name]
    with pytest.raises(NotYet, match=diagnosis):
        checks.gap_shares(wrong)


@pytest.mark.parametrize("name", WRONG_LEAKS)
def test_wrong_counts_of_a_leak_are_diagnosed(name):
    wrong, diagnosis = WRONG_LEAKS[name]
    with pytest.raises(NotYet, match=diagnosis):
        checks.known_share(wrong)
