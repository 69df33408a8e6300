"""Exercises of the data lesson: a figure of suspects, a split that keeps groups whole, features that know no answer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks.engine import ask, not_yet, passed, shown

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


def suspects_figure(draw: Callable[[pd.DataFrame, pd.Series], Any]) -> None:
    """Check a function that draws, for each column of true and false, its share of true in each class as a bar.

    Args:
        draw: from a table of true and false and the class of each row to the axes.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(0)
    label = pd.Series(np.where(rng.random(400) < 0.2, "melanoma", "other lesion"), name="label")
    often = {"camera_a": (0.31, 0.35), "ink": (0.62, 0.05), "hair": (0.2, 0.44)}
    taken = pd.DataFrame({name: rng.random(400) < np.where(label == "melanoma", *both) for name, both in often.items()})
    earlier = plt.get_fignums()
    plt.figure()
    try:
        axes = ask(draw, taken, label)
        if hasattr(axes, "facet_axis"):
            not_yet("that is seaborn's grid of axes: end with return grid.ax, or draw with sns.barplot")
        if not hasattr(axes, "get_yticklabels"):
            not_yet(f"expected the axes, as sns.barplot returns them, got {shown(axes)}: end with return")
        boxes = [(bar.get_width(), bar.get_height()) for bar in axes.patches if hasattr(bar, "get_width")]
        names = [text.get_text() for text in (*axes.get_yticklabels(), *axes.get_xticklabels())]
        named = axes.get_legend() is not None
    finally:
        for number in set(plt.get_fignums()) - set(earlier):
            plt.close(number)
    drawn = [sorted(sizes) for sizes in zip(*(box for box in boxes if all(box)), strict=True)]  # a legend's boxes are empty
    melanoma = label == "melanoma"
    shares, others = taken[melanoma].mean(), taken[~melanoma].mean()

    def bars(*values: pd.Series) -> bool:
        wanted = sorted(np.concatenate(values))
        return any(len(sizes) == len(wanted) and np.allclose(sizes, wanted, atol=1e-3) for sizes in drawn)

    if bars(taken.sum()) or bars(taken[melanoma].sum(), taken[~melanoma].sum()):
        not_yet("the bars are counts, and the classes differ in size: draw the share of true, which is the mean")
    if bars(100 * shares, 100 * others):
        not_yet("the bars are in percent: a share lies between 0 and 1")
    if bars(taken.mean()):
        not_yet("there is one bar a column, of both classes together: tell them apart with hue")
    with_it = taken.apply(lambda column: melanoma[column].mean())
    if bars(with_it) or bars(with_it, 1 - with_it):
        not_yet("these are shares of melanomas among the images that have it. Asked was for the share of each class that has it")
    if not bars(shares, others):
        not_yet(
            f"expected {2 * len(often)} bars, the shares of true of {', '.join(often)} in each class, "
            f"got {len(drawn[0]) if drawn else 0} bars of other lengths"
        )
    if missing := set(often) - set(names):
        not_yet(f"the bars are right, but the axis does not name {', '.join(sorted(missing))}: give seaborn the names as x or y")
    if not named:
        not_yet("the bars are right, but nothing says which class has which colour: keep seaborn's legend")
    passed("two bars for each column, each a share of its own class, so that the rarer class counts as much as the other.")


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
