"""Exercises of the data lesson: shares counted by hand, a split that keeps groups whole, features that know no answer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks.engine import Exercise, ask, not_yet, order, passed, shown

TEST_SHARE, SHARE_TOLERANCE = 0.2, 0.04
UNEVEN = 0.12  # mean relative error of the test prevalence; stratified splits of the made-up table stay below, others well above
SITE = "anatom_site_general_challenge"


def made_up_cases() -> pd.DataFrame:
    """A table that shows what a split does: 150 patients with up to 12 lesions, lesions with up to 3 images."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(150), rng.integers(1, 13, 150))
    images = rng.integers(1, 4, patient.size)
    lesions = pd.DataFrame({"target": (rng.random(patient.size) < 0.06).astype(int), "patient": patient})
    cases = lesions.loc[lesions.index.repeat(images)].reset_index(names="lesion")
    n, patient = len(cases), "patient_" + cases.pop("patient").astype(str)
    return cases.assign(
        image_id=[f"image_{i}" for i in range(n)],
        patient_id=patient,
        lesion_id="lesion_" + cases.pop("lesion").astype(str),
        group_id="patient:" + patient,
        diagnosis=np.where(cases["target"] == 1, "melanoma", "nevus"),
        age_approx=rng.integers(4, 18, n) * 5.0,
        sex=rng.choice(["female", "male"], n),
        **{SITE: rng.choice(["torso", "head/neck", "lower extremity"], n)},
    )


_OTHER_WAY = "Asked was how many fields of a class are empty"
PERCENT = {"that is in percent: a share lies between 0 and 1": lambda share: np.multiply(100, share)}


def _with_gaps():
    cases, rng = made_up_cases(), np.random.default_rng(1)
    for column, often in (("age_approx", (0.3, 0.1)), ("sex", (0.05, 0.2))):
        cases[column] = cases[column].mask(rng.random(len(cases)) < np.where(cases["target"] == 1, *often))
    return [(cases, "age_approx"), (cases, "sex")]


def _gaps(share: Callable) -> Callable:
    """Shares from which fields are empty and which cases are melanomas, both as arrays of true and false."""
    return lambda cases, column: share(cases[column].isna().to_numpy(), (cases["target"] == 1).to_numpy())


gap_shares = Exercise(
    reference=_gaps(lambda empty, melanoma: (empty[melanoma].mean(), empty[~melanoma].mean())),
    inputs=_with_gaps,
    returns=("share among the melanomas", "share among the others"),
    success="a share of each class, so that the rarer one counts as much as the other",
    slips={
        f"these are shares of the empty fields. {_OTHER_WAY}": _gaps(lambda e, m: (m[e].mean(), 1 - m[e].mean())),
        "divide by the cases of each class, not by all cases": _gaps(lambda e, m: ((e & m).mean(), (e & ~m).mean())),
        "these are counts: divide each by the cases of its class": _gaps(lambda e, m: ((e & m).sum(), (e & ~m).sum())),
        "it finds no gap at all: nothing equals NaN, not even NaN; use .isna()": _gaps(lambda *_: (0.0, 0.0)),
        "both classes get the share among all cases: select the rows of each class": _gaps(lambda e, _: (e.mean(), e.mean())),
    },
    finishes=PERCENT
    | {
        "the two are swapped: melanomas first. groupby sorts the targets, 0 before 1": order(1, 0),
        "these are the filled fields; the empty ones are the rest": lambda shares: np.subtract(1, shares),
    },
)


def _splits_by_image():
    cases = made_up_cases()
    cases.index = np.random.default_rng(2).permutation(len(cases))  # so that labels are no positions
    for seed in range(4):
        rows = np.random.default_rng(seed).permutation(len(cases))
        yield cases, rows[: len(rows) // 3], rows[-len(rows) // 4 :]  # some patients are in neither part


def _known(cases, train, test, ids="group_id", of=1, out_of="melanomas"):
    """Share of the test rows of a class whose id is among those of the training rows."""
    tested = cases.iloc[test]
    rows = tested[tested["target"] == of] if of else tested
    known = rows[ids].isin(cases[ids].iloc[train])
    return known.sum() / {"melanomas": len(rows), "test": len(tested), "nothing": 1}[out_of]


def _groups_once(cases, train, test):
    return np.isin(cases.iloc[test].query("target == 1")["group_id"].unique(), cases["group_id"].iloc[train]).mean()


known_share = Exercise(
    reference=_known,
    inputs=lambda: [*_splits_by_image()],
    returns="one number, a share",
    success="each test melanoma counts once, and is known if training holds any image of its group",
    slips={
        "it counts every test image; asked was for the melanomas among them": {"of": None},
        "it looks by lesion_id, but a patient's other lesions leak too: group_id is what must not straddle": {"ids": "lesion_id"},
        "that is a count: divide by the number of test melanomas": {"out_of": "nothing"},
        "the known melanomas are divided by all test images; divide by the melanomas among them": {"out_of": "test"},
        "training and test are swapped": lambda cases, train, test: _known(cases, test, train),
        "it counts each group once; a patient with three melanomas in the test counts three times": _groups_once,
        "rows are picked by label (.loc), but positions were given: use .iloc": lambda cases, train, test: _known(
            cases, *(cases.index.get_indexer(part) for part in (train, test))
        ),
    },
    finishes=PERCENT | {"that is the share of melanomas that are new; known is the rest": lambda share: 1 - share},
    hint="Which rows do you count, and which of them have their group_id among those of training?",
)


def grouped_split(split: Callable[[pd.DataFrame, int], tuple], cases: pd.DataFrame) -> None:
    """Check a function that splits cases four to one with every group whole, stratified by class, led by a seed.

    Args:
        split: from a case table and a seed to the positions of training and test rows.
        cases: the lesson's own cases; a made-up table is tried as well.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    train, test = _sound_parts(split, cases, 0)
    table = made_up_cases()
    tests = [_sound_parts(split, table, seed)[1] for seed in range(8)]
    if all(set(tests[0]) == set(other) for other in tests[1:]):
        not_yet("every seed gives the same split: pass shuffle=True and random_state=seed to the splitter")
    prevalence = table["target"].mean()
    uneven = np.mean([abs(table["target"].iloc[rows].mean() / prevalence - 1) for rows in tests])
    if uneven > UNEVEN:
        not_yet(
            f"no group straddles, but on a small table the test part's share of melanomas is off by {uneven:.0%} on average: "
            "classes are left to chance. Stratified splitters deal each class out evenly; hand them the target as y"
        )
    shares = " and ".join(f"{cases['target'].iloc[part].mean():.1%}" for part in (train, test))
    passed(f"{cases['group_id'].nunique():,} groups, none on both sides; melanomas are {shares} of training and test images.")


def _sound_parts(split: Callable, cases: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of training and test rows: each row in one part, no group on both sides, a fifth of the images in test."""
    answer = ask(split, cases, seed)
    try:
        train, test = (np.flatnonzero(part) if np.asarray(part).dtype == bool else np.asarray(part) for part in answer)
        times = np.bincount(np.concatenate([train, test]), minlength=len(cases))
    except (TypeError, ValueError):
        not_yet(f"expected positions of training and of test rows, as a splitter's split() yields them, got {shown(answer)}")
    if times.size > len(cases) or (times != 1).any():
        not_yet(f"each row belongs into one part; {(times == 0).sum():,} are in none, {(times > 1).sum():,} in more")

    def torn(column: str) -> int:
        return len(set(cases[column].iloc[train].dropna()) & set(cases[column].iloc[test].dropna()))

    if torn("group_id"):
        said = f"{torn('group_id'):,} of {cases['group_id'].nunique():,} groups have images on both sides"
        for column in ("patient_id", "lesion_id"):
            if cases[column].dropna().duplicated().any() and not torn(column):
                not_yet(f"{said}, though each {column} is whole: group_id is what must not straddle")
        not_yet(f"{said}: the images were dealt out one by one. Use a splitter that takes groups, and hand it group_id")
    share = len(test) / len(cases)
    if abs(1 - share - TEST_SHARE) <= SHARE_TOLERANCE:
        not_yet(f"the test part holds {share:.0%} of the images: training and test are swapped. Return training first")
    if abs(share - TEST_SHARE) > SHARE_TOLERANCE:
        not_yet(f"the test part holds {share:.0%} of the images, not a fifth. A test_size counts groups; n_splits=5 fits better")
    return train, test


def preparation(prepare: Callable[[pd.DataFrame, pd.DataFrame], tuple]) -> None:
    """Check a function that turns training and test cases into features, fitted on the training cases alone.

    Args:
        prepare: from two case tables to two matrices with the same columns.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    cases = made_up_cases().drop(columns="group_id")
    train, test = cases.iloc[:300].copy(), cases.iloc[300:340].reset_index(drop=True)
    train.iloc[::9, train.columns.get_loc("age_approx")] = np.nan
    of_train, of_test = _matrices(prepare, train, test)

    turned = [part.assign(target=1 - part["target"], diagnosis="something else") for part in (train, test)]
    if not all(map(_equal, _matrices(prepare, *turned), (of_train, of_test))):
        not_yet("the features change when only target and diagnosis change: they know the answer. Drop the column that leaks")
    if not _equal(_matrices(prepare, train, test.assign(age_approx=test["age_approx"] + 30))[0], of_train):
        not_yet(
            "the training features change when only test cases get older: a mean or scale was computed from all rows, not train"
        )
    if not _equal(_matrices(prepare, train, test.iloc[:1])[1], of_test[:1]):
        not_yet("a test case gets other features when it comes alone: fit on train, then apply the same to every test case")
    for column, value in (("age_approx", 20.0), ("sex", "male"), (SITE, "torso")):
        if _equal(_matrices(prepare, train, test.assign(**{column: [value] * len(test)}))[1], of_test):
            not_yet(f"the features do not change with {column}: keep all three, they are what the patient tells you")
    known = train["age_approx"].dropna()
    ages = np.unique([*np.arange(0, 121), known.mean(), known.median()])
    same_patient = test.iloc[[0] * (len(ages) + 1)].assign(age_approx=[*ages, np.nan]).reset_index(drop=True)
    features = _matrices(prepare, train, same_patient)[1]
    if (like := np.isclose(features[:-1], features[-1]).all(axis=1)).any():
        not_yet(
            f"a missing age looks exactly like an age of {ages[np.argmax(like)]:.1f} years: the gap is hidden, and gaps may "
            "carry a signal of their own. Add a column that says that the age is missing"
        )
    passed("no answer leaks in, nothing is learned from test cases, and a missing age looks like no age at all.")


def _matrices(prepare: Callable, train: pd.DataFrame, test: pd.DataFrame) -> list[np.ndarray]:
    """The two matrices as numbers, one row a case, the same columns."""
    result = ask(prepare, train, test)
    try:
        matrices = of_train, of_test = [np.asarray(part, dtype=float) for part in result]
        columns = [part.shape[1] for part, table in ((of_train, train), (of_test, test)) if len(part) == len(table)]
        n_train, n_test = columns
    except (TypeError, ValueError, IndexError):
        not_yet(f"expected two matrices of numbers, {len(train)} and {len(test)} rows of features, got {shown(result)}")
    if n_train != n_test:
        not_yet(
            f"training has {n_train} columns, test {n_test}: each was encoded by its own values. "
            "A site that no test case has still needs its column"
        )
    if any(np.isnan(part).any() for part in matrices):
        not_yet("some features are NaN: most models refuse them. Fill the gap, and add a column that says there was one")
    return matrices


def _equal(one: Any, other: Any) -> bool:
    return one.shape == other.shape and np.allclose(one, other)
