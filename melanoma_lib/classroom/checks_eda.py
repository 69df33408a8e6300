"""Checks of lesson 01: a split that keeps groups whole, and features that know neither the test cases nor the answer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks import not_yet, passed
from melanoma_lib.data.schema import group_ids

TEST_SHARE, SHARE_TOLERANCE = 0.2, 0.04
SEEDS = range(8)
UNEVEN = 0.12  # mean relative error of the test prevalence; stratified splits of the probe stay below, others well above
SITE = "anatom_site_general_challenge"

Split = Callable[[pd.DataFrame, int], tuple[np.ndarray, np.ndarray]]
Prepare = Callable[[pd.DataFrame, pd.DataFrame], tuple[Any, Any]]


def probe_cases() -> pd.DataFrame:
    """A made-up table that shows what a split does: 150 patients with up to 12 lesions, lesions with up to 3 images."""
    rng = np.random.default_rng(0)
    lesions = rng.integers(1, 13, 150)
    patient = np.repeat(np.arange(150), lesions)
    images = rng.integers(1, 4, patient.size)
    melanoma = rng.random(patient.size) < 0.06
    cases = pd.DataFrame({"patient": patient, "lesion": np.arange(patient.size), "target": melanoma.astype(int)})
    cases = cases.loc[cases.index.repeat(images)].reset_index(drop=True)
    n = len(cases)
    cases = cases.assign(
        image_id=[f"image_{i}" for i in range(n)],
        patient_id="patient_" + cases.pop("patient").astype(str),
        lesion_id="lesion_" + cases.pop("lesion").astype(str),
        diagnosis=np.where(cases["target"] == 1, "melanoma", "nevus"),
        age_approx=rng.integers(4, 18, n) * 5.0,
        sex=rng.choice(["female", "male"], n),
        **{SITE: rng.choice(["torso", "head/neck", "lower extremity"], n)},
    )
    return cases.assign(group_id=group_ids(cases))


def grouped_split(split: Split, cases: pd.DataFrame) -> None:
    """Check a function that splits cases four to one with every group whole, stratified by class, led by a seed.

    Args:
        split: from a case table and a seed to the positions of training and test rows.
        cases: the lesson's own cases; a made-up table is tried as well.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    train, test = _sound_parts(split, cases, 0)
    probe = probe_cases()
    tests = [_sound_parts(split, probe, seed)[1] for seed in SEEDS]
    if all(np.array_equal(np.sort(tests[0]), np.sort(other)) for other in tests[1:]):
        not_yet("every seed gives the same split; pass shuffle=True and random_state=seed to the splitter.")
    prevalence = probe["target"].mean()
    uneven = np.mean([abs(probe["target"].iloc[rows].mean() / prevalence - 1) for rows in tests])
    if uneven > UNEVEN:
        not_yet(
            f"no group straddles, but on a small table the test part's share of melanomas is off by {uneven:.0%} on average: "
            "classes are left to chance. Stratified splitters deal each class out evenly; hand them the target as y."
        )
    shares = " and ".join(f"{cases['target'].iloc[part].mean():.1%}" for part in (train, test))
    passed(f"{cases['group_id'].nunique():,} groups, none on both sides; melanomas are {shares} of training and test images.")


def _sound_parts(split: Split, cases: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of training and test rows, no group on both sides, a fifth of the images in test."""
    train, test = _positions(split(cases, seed), len(cases))
    _refuse_straddling(cases, train, test)
    share = len(test) / len(cases)
    if abs(1 - share - TEST_SHARE) <= SHARE_TOLERANCE:
        not_yet(f"the test part holds {share:.0%} of the images: training and test are swapped. Return training first.")
    if abs(share - TEST_SHARE) > SHARE_TOLERANCE:
        not_yet(
            f"the test part holds {share:.0%} of the images, a fifth (20%) was asked for: n_splits=5. "
            "A test_size counts groups, and groups differ in size."
        )
    return train, test


def _positions(result: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test positions, each row in exactly one part."""
    try:
        train, test = (np.asarray(part) for part in result)
    except (TypeError, ValueError):
        not_yet(
            f"expected two arrays, training and test rows, got {type(result).__name__}; a splitter's split() yields such pairs."
        )
    if train.dtype == bool and test.dtype == bool:
        train, test = np.flatnonzero(train), np.flatnonzero(test)
    if not all(np.issubdtype(part.dtype, np.integer) and part.ndim == 1 and part.min(initial=0) >= 0 for part in (train, test)):
        not_yet("expected positions of rows, whole numbers from 0; return what the splitter yields, not tables.")
    times = np.bincount(np.concatenate([train, test]), minlength=n)
    if times.size > n or (times != 1).any():
        not_yet(
            f"each of the {n:,} rows belongs into one part; {(times == 0).sum():,} are in none, {(times > 1).sum():,} in more."
        )
    return train, test


def _refuse_straddling(table: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> None:
    torn = _torn(table["group_id"], train, test)
    if not torn:
        return
    total = table["group_id"].nunique()
    said = f"{torn:,} of {total:,} groups have images on both sides"
    columns = [column for column in ("patient_id", "lesion_id") if table[column].dropna().duplicated().any()]
    if whole := [column for column in columns if not _torn(table[column], train, test)]:
        not_yet(f"{said}, though each {whole[0]} is whole: you grouped by the wrong column. group_id is what must not straddle.")
    not_yet(f"{said}: the images were dealt out one by one. Use a splitter that takes groups, and hand it group_id.")


def _torn(ids: pd.Series, train: np.ndarray, test: np.ndarray) -> int:
    """Number of ids on both sides."""
    return len(set(ids.iloc[train].dropna()) & set(ids.iloc[test].dropna()))


def preparation(prepare: Prepare) -> None:
    """Check a function that turns training and test cases into features, fitted on the training cases alone.

    Args:
        prepare: from two case tables to two matrices with the same columns.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    cases = probe_cases().drop(columns="group_id")
    train, test = cases.iloc[:300].copy(), cases.iloc[300:340].reset_index(drop=True)
    train.iloc[::9, train.columns.get_loc("age_approx")] = np.nan
    of_train, of_test = _matrices(prepare, train, test)

    turned = [part.assign(target=1 - part["target"], diagnosis="something else") for part in (train, test)]
    if not _equal(_matrices(prepare, *turned), (of_train, of_test)):
        not_yet("the features change when only target and diagnosis change: they know the answer. Drop the column that leaks.")
    older = test.assign(age_approx=test["age_approx"] + 30)
    if not _equal(_matrices(prepare, train, older)[:1], (of_train,)):
        not_yet(
            "the training features change when only the test cases get older: a mean (or scale) was computed from all rows. "
            "Compute it from train alone."
        )
    if not _equal(_matrices(prepare, train, test.iloc[:1])[1:], (of_test[:1],)):
        not_yet("a test case gets other features when it comes alone: fit on train, then apply the same to every test case.")
    for column, value in (("age_approx", 20.0), ("sex", "male"), (SITE, "torso")):
        other = test.assign(**{column: [value] * len(test)})
        if _equal(_matrices(prepare, train, other)[1:], (of_test,)):
            not_yet(f"the features do not change with {column}: keep all three, they are what the patient tells you.")
    _refuse_hidden_gaps(prepare, train, test)
    passed("no answer leaks in, nothing is learned from test cases, and a missing age looks like no age at all.")


def _refuse_hidden_gaps(prepare: Prepare, train: pd.DataFrame, test: pd.DataFrame) -> None:
    """A missing age must not look like any age."""
    known = train["age_approx"].dropna()
    ages = np.unique([*np.arange(0, 121), known.mean(), known.median()])
    same = test.iloc[[0] * (len(ages) + 1)].assign(age_approx=[*ages, np.nan]).reset_index(drop=True)
    features = _matrices(prepare, train, same)[1]
    twins = np.isclose(features[:-1], features[-1]).all(axis=1)
    if twins.any():
        not_yet(
            f"a missing age looks exactly like an age of {ages[np.argmax(twins)]:.1f} years: the gap is hidden, and gaps may "
            "carry a signal of their own. Add a column that says that the age is missing."
        )


def _matrices(prepare: Prepare, train: pd.DataFrame, test: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The two matrices as numbers, one row a case, the same columns."""
    result = prepare(train.copy(), test.copy())
    try:
        of_train, of_test = (np.asarray(part, dtype=float) for part in result)
    except (TypeError, ValueError) as error:
        not_yet(f"expected two matrices of numbers, for training and test cases; got {type(result).__name__} ({error}).")
    if of_train.ndim != 2 or of_test.ndim != 2 or len(of_train) != len(train) or len(of_test) != len(test):
        not_yet(f"expected {len(train)} and {len(test)} rows of features, got shapes {of_train.shape} and {of_test.shape}.")
    if of_train.shape[1] != of_test.shape[1]:
        not_yet(
            f"training has {of_train.shape[1]} columns, test {of_test.shape[1]}: each was encoded by its own values. "
            "A site that no test case has still needs its column."
        )
    if np.isnan(of_train).any() or np.isnan(of_test).any():
        not_yet("some features are NaN: most models refuse them. Fill the gap, and add a column that says there was one.")
    return of_train, of_test


def _equal(some: tuple[np.ndarray, ...], others: tuple[np.ndarray, ...]) -> bool:
    return all(a.shape == b.shape and np.allclose(a, b) for a, b in zip(some, others, strict=True))
