import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.data.sources import load_cases
from melanoma_lib.data.splits import SPLITS, audit_leakage, split_cases
from melanoma_lib.errors import DataError
from tests.data.builders import case_table


def random_cases(seed: int, groups: int = 300, prevalence: float = 0.2, largest: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest + 1, groups)
    melanoma = rng.random(groups) < prevalence
    melanoma[:3], melanoma[3:6] = True, False
    patients = np.repeat([f"p{i}" for i in range(groups)], sizes)
    targets = np.repeat(melanoma, sizes) & (rng.random(sizes.sum()) < 0.5)
    targets[np.flatnonzero(~pd.Series(patients).duplicated().to_numpy())] = melanoma  # first image of a melanoma patient
    return case_table(targets.astype(int), patients=patients)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(6, 60),
    val=st.floats(0.05, 0.45),
    test=st.floats(0.05, 0.45),
    prevalence=st.floats(0, 1),
)
def test_no_group_straddles_and_every_split_has_both_classes(seed, groups, val, test, prevalence):
    cases = random_cases(seed, groups, prevalence)
    split = split_cases(cases, val, test, seed)
    assert split.name == "split"
    assert split.index.equals(cases.index)
    members = {name: set(cases.loc[split == name, "group_id"]) for name in SPLITS}
    assert not any(members[a] & members[b] for a, b in itertools.combinations(SPLITS, 2))
    for name in SPLITS:
        assert set(cases.loc[split == name, "target"]) >= {1}
        assert not set(cases.loc[cases["target"] == 1, "group_id"]) >= members[name]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_row_order_does_not_matter_and_the_seed_does(seed, order):
    cases = random_cases(3, 40)
    labels = list(cases.index)
    order.shuffle(labels)
    split = split_cases(cases, seed=seed)
    pd.testing.assert_series_equal(split_cases(cases.loc[labels], seed=seed).sort_index(), split)
    assert not split_cases(cases, seed=seed + 1).equals(split)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("largest", [1, 8, 100])
def test_shares_of_images_and_melanomas_hold(seed, largest):
    cases = random_cases(seed, 300, 0.2, largest)
    split = split_cases(cases, 0.2, 0.1, seed)
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        # dealing level can be off by about one group of the smallest sizes that remain at the end, not by a large one
        assert (split == name).mean() == pytest.approx(share, abs=0.02)
        assert cases.loc[split == name, "target"].sum() / cases["target"].sum() == pytest.approx(share, abs=0.04)


def test_three_groups_of_each_class_are_enough_and_two_are_not():
    cases = case_table([0, 0, 0, 1, 1, 1])
    assert sorted(split_cases(cases)) == sorted([*SPLITS, *SPLITS])
    with pytest.raises(DataError, match=r"2 of 5 groups .* hold a melanoma"):
        split_cases(cases.iloc[:5])
    with pytest.raises(DataError, match=r"0 of 3 groups .* hold no melanoma"):
        split_cases(cases.iloc[3:])
    for val, test in ((0, 0.2), (0.5, 0.5), (float("nan"), 0.2)):
        with pytest.raises(ValueError, match="val="):
            split_cases(cases, val, test)


def test_image_level_leakage_agrees_with_the_closed_form():
    sizes = [1] * 60 + [2] * 40 + [5] * 20
    n = sum(sizes)
    lesions = np.repeat([f"l{i}" for i in range(len(sizes))], sizes)
    both = case_table([0] * n + [1] * n, lesions=[*lesions, *(f"m{lesion}" for lesion in lesions)])
    audit = audit_leakage(both, 0.15, 0.15, n_splits=60)
    # Chance that a test image has one of its size - 1 siblings among the training images, of the n - 1 others.
    missed = [np.prod([(n - 1 - round(0.7 * n) - k) / (n - 1 - k) for k in range(size - 1)]) for size in sizes]
    oracle = 1 - np.dot(sizes, missed) / n
    assert audit.loc["by image"]["lesion"]["images"] == pytest.approx(oracle, abs=0.03)
    assert audit.loc["by image"]["lesion"]["melanomas"] == pytest.approx(oracle, abs=0.04)


def test_the_grouped_split_leaks_nothing_and_unknown_units_are_not_zero():
    cases = random_cases(0)
    cases.loc[[0, 5], "lesion_id"] = ["a", "b"]  # lesions of one image each never leak
    audit = audit_leakage(cases, n_splits=3)
    assert (audit.loc["by group", ["patient", "group"]] == 0).all(axis=None)
    assert audit.loc["by image"]["patient"]["images"] > 0.5
    assert (audit.loc["by image"]["lesion"] == 0).all()
    unnamed = audit_leakage(cases.assign(lesion_id=None), n_splits=1)
    assert unnamed.loc["by image"]["lesion"].isna().all()


def test_real_ham10000_leaks_under_an_image_level_split(ham10000_root):
    cases = load_cases("ham10000", ham10000_root)
    audit = audit_leakage(cases, n_splits=5)
    assert 0.55 < audit.loc["by image"]["lesion"]["melanomas"] < 0.75
    assert (audit.loc["by group"]["lesion"] == 0).all()
    split = split_cases(cases)
    assert (split == "test").mean() == pytest.approx(0.15, abs=0.002)
    assert cases.groupby(split)["target"].mean().max() - cases.groupby(split)["target"].mean().min() < 0.002
