"""Exercises of the data lesson: a figure of suspects, a split that keeps groups whole, features that know no answer."""

from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from melanoma_lib.classroom.checks.engine import Exercise
from melanoma_lib.data import SyntheticDermoscopy


def made_up_cases() -> pd.DataFrame:
    """A table that shows what a split does: 100 patients with several lesions, lesions with several images."""
    return SyntheticDermoscopy(n_patients=100, seed=2).cases


def _taken():
    cases, names = made_up_cases(), {0: "other lesion", 1: "melanoma"}
    return cases[["truth_artefact_hair", "truth_artefact_vignette"]], cases["target"].map(names).rename("label")


def _drawn(taken, label, **more):
    long = taken.assign(label=label).melt("label")
    return sns.barplot(long, **({"x": "value", "y": "variable", "hue": "label", "errorbar": None} | more))


def _bars(draw, taken, label):
    figure, axes = plt.figure(), draw(taken, label)
    plt.close(figure)
    plt.close(axes.figure)
    boxes = [(bar.get_width(), bar.get_height()) for bar in axes.patches if bar.get_width() and bar.get_height()]
    lengths = max(zip(*boxes, strict=True), key=np.ptp)  # the other side is the same for all
    return [bool(axes.get_legend() or axes.figure.legends), *sorted(lengths)]


def _split(cases, seed, group="group_id", shuffle=True, stratify=True):
    kind, groups = (StratifiedGroupKFold, cases[group]) if group else (StratifiedKFold, None)
    target = cases["target"] if stratify else np.zeros(len(cases))
    return next(kind(5, shuffle=shuffle, random_state=seed if shuffle else None).split(cases, target, groups))


def _dealt(split, cases):
    faults, tests = np.zeros(3, bool), []
    for seed in range(4):
        train, test = (cases.iloc[part] for part in split(cases, seed))
        torn = [set(train[name]) & set(test[name]) for name in ("group_id", "lesion_id")]
        faults |= [sorted([*train.index, *test.index]) != sorted(cases.index), *map(bool, torn)]
        tests.append(test)
    uneven = np.mean([abs(test["target"].mean() / cases["target"].mean() - 1) for test in tests])  # stratified: < 0.12
    same = all(set(test.index) == set(tests[0].index) for test in tests)
    return *faults, round(len(test) / len(cases), 1), uneven > 0.12, same


def grouped_split(split: Callable, cases: pd.DataFrame) -> None:
    """Check a function from cases and a seed to positions of both parts, then say what it does to these cases."""
    grouping(split)
    shares = " and ".join(f"{cases['target'].iloc[part].mean():.1%}" for part in split(cases, 0))
    print(f"Here: {cases['group_id'].nunique():,} groups; melanomas are {shares} of training and test images.")


def _prepared(train, test, columns=(), mean=lambda train, both: train.mean(), flag=True):
    both = pd.concat([train, test])
    features = pd.get_dummies(both[["sex", "anatom_site_general_challenge", *columns]], dtype=float)
    features["age"] = both["age_approx"].fillna(mean(train["age_approx"], both["age_approx"]))
    features["gap"] = both["age_approx"].isna() * flag
    return features[: len(train)], features[len(train) :]


def _features(prepare, train, test):
    def made(train, test):
        return np.vstack([np.asarray(part, dtype=float) for part in prepare(train, test)]).round(9)

    same, features, n = partial(np.array_equal, equal_nan=True), made(train, test), len(train)
    relabelled = made(*(part.assign(target=1 - part["target"], diagnosis="something else") for part in (train, test)))
    ages = [*range(121), train["age_approx"].mean(), train["age_approx"].median(), np.nan]
    *aged, gap = made(train, test.iloc[[0] * len(ages)].assign(age_approx=ages))[n:]
    learned = not same(features[: n + 1], made(train, test[:1]))
    return np.isnan(features).any(), not same(features, relabelled), learned, any(same(one, gap) for one in aged)


suspects_figure = Exercise(
    reference=_drawn,
    inputs=lambda: [_taken()],
    use=_bars,
    success="two bars for each column, each a share of its own class, so that the rarer class counts as much as the other.",
    slips={
        "the bars are counts, and the classes differ in size: draw the share of true, the mean": {"estimator": "sum"},
        "there is one bar a column, of both classes together: tell them apart with hue": {"hue": None},
        "nothing says which class has which colour: keep seaborn's legend": {"legend": False},
    },
)

grouping = Exercise(
    reference=_split,
    inputs=lambda: [(made_up_cases(),)],
    use=_dealt,
    names="rows lost or doubled, groups torn, lesions torn, share of the test, uneven classes, seed without effect",
    success="no group is on both sides, and melanomas are about as frequent in one part as in the other",
    slips={
        "groups have images on both sides, though each lesion_id is whole: hand over group_id": {"group": "lesion_id"},
        "groups have images on both sides: use a splitter that takes groups, and hand it group_id": {"group": None},
        "classes are left to chance: take a stratified splitter, and hand it the target as y": {"stratify": False},
        "every seed gives the same split: pass shuffle=True and random_state=seed to the splitter": {"shuffle": False},
    },
    hint="Return positions of training, then of test rows: a fifth of the images. A test_size counts groups",
)

preparation = Exercise(
    reference=_prepared,
    inputs=lambda: [(made_up_cases()[:-40], made_up_cases()[-40:])],
    use=_features,
    names="NaN, depends on the answer, depends on other test cases, missing age like an age",
    success="no answer leaks in, nothing is learned from test cases, and a missing age looks like no age at all.",
    slips={
        "the features know the answer: they change with target or diagnosis": {"columns": ("diagnosis",)},
        "a mean or scale was computed from all rows: fit on train alone": {"mean": lambda train, both: both.mean()},
        "a missing age looks exactly like an age: add a column that says that the age is missing": {"flag": False},
    },
)
