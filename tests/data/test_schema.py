import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.data.schema import CASE_COLUMNS, group_ids, validate_cases
from melanoma_lib.errors import DataError
from tests.data.builders import case_table


def test_a_valid_table_comes_back_in_order_and_typed():
    cases = case_table([0, 1], true_risk=[0.1, 0.9], truth_hairs=[1, 0])[::-1].astype({"target": "float32"})
    checked = validate_cases(cases)
    assert list(checked.columns) == [*CASE_COLUMNS, "true_risk", "truth_hairs"]
    assert checked["target"].dtype == np.int64
    assert checked["age_approx"].dtype == np.float64
    assert list(checked.index) == [1, 0]
    assert checked["acquisition"].isna().all()
    assert (checked["acquisition"] == "x").dtype == bool  # missing text compares as False, not as NA


@pytest.mark.parametrize("column", CASE_COLUMNS)
def test_a_missing_column_is_named(column):
    with pytest.raises(DataError, match=rf"from\.csv.*'{column}' missing"):
        validate_cases(case_table([0, 1]).drop(columns=column), origin="from.csv")


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("group_id", None, r"'nan'; expected a value \(1 such rows\)"),
        ("sex", "F", "'F'; expected one of"),
        ("age_approx", 121.0, "'121.0'; expected years"),
        ("age_approx", "old", "'old'; expected a number"),
        ("target", 2, r"'2.0'; expected 1 \(melanoma\)"),
        ("mask_path", "", "filled text"),
    ],
)
def test_a_bad_value_is_named_with_column_and_row(column, value, shown):
    cases = case_table([0, 1, 0])
    cases[column] = cases[column].astype(object)
    cases.loc[2, column] = value
    with pytest.raises(DataError, match=f"(?s)column '{column}', row 2: .*{shown}"):
        validate_cases(cases)


def test_contradictory_rows_of_one_image_are_named_before_mere_repeats():
    cases = case_table([0, 0, 1, 0, 0]).assign(image_id=["a", "a", "b", "c", "b"])
    with pytest.raises(DataError, match=r"'b' is in the rows 2, 4 with target 1, 0\. 2 images are repeated, 1 with"):
        validate_cases(cases)


def test_an_empty_table_and_repeated_labels_are_refused():
    with pytest.raises(DataError, match="got 0 rows"):
        validate_cases(case_table([0]).iloc[:0])
    with pytest.raises(DataError, match="unique labels, got 2 rows; call reset_index"):
        validate_cases(case_table([0, 1]).set_axis([7, 7]))


@pytest.mark.parametrize("unit", ["patient", "lesion"])
def test_a_unit_spread_over_groups_is_refused(unit):
    cases = case_table([0, 1, 1], **{f"{unit}s": ["A", "A", "B"]})
    cases["group_id"] = ["g1", "g2", "g3"]
    with pytest.raises(DataError, match=rf"{unit}_id 'A' is spread over the groups 'g1', 'g2'"):
        validate_cases(cases)


ids = st.one_of(st.none(), st.sampled_from(["1", "2", "3"]))


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=12))
def test_group_ids_join_what_shares_a_patient_or_lesion(rows):
    # an id of one kind must not collide with the same word of another kind; a lesion belongs to one patient
    owner = {lesion: patient for patient, lesion in rows if patient and lesion}
    rows = [(owner.get(lesion, patient) if patient and lesion else patient, lesion) for patient, lesion in rows]
    groups = list(group_ids(case_table([0] * len(rows), patients=[r[0] for r in rows], lesions=[r[1] for r in rows])))
    resolved = [(patient or owner.get(lesion), lesion) for patient, lesion in rows]
    for i, (patient_i, lesion_i) in enumerate(resolved):
        for j, (patient_j, lesion_j) in enumerate(resolved):
            same = i == j or (patient_i and patient_i == patient_j) or (lesion_i and lesion_i == lesion_j)
            assert (groups[i] == groups[j]) == bool(same)
