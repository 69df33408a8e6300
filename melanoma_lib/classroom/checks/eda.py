"""Exercises of the data lesson: a figure of suspects, a split that keeps groups whole, features that know no answer."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from melanoma_lib.classroom.checks.engine import Exercise, ask, not_yet, shown
from melanoma_lib.data import SyntheticDermoscopy

UNEVEN = 0.12  # mean relative error of the test prevalence; stratified splits of the made-up table stay below, others well above
SITE = "anatom_site_general_challenge"


def made_up_cases() -> pd.DataFrame:
    """A table that shows what a split does: 100 patients with several lesions, lesions with several images."""
    return SyntheticDermoscopy(n_patients=100, seed=2).cases


def _taken():
    """Three artefacts, with other shares in each class, and the class of each image."""
    rng = np.random.default_rng(0)
    label = pd.Series(np.where(rng.random(400) < 0.2, "melanoma", "other lesion"), name="label")
    often = {"camera_a": (0.31, 0.35), "ink": (0.62, 0.05), "hair": (0.2, 0.44)}
    return pd.DataFrame({name: rng.random(400) < np.where(label == "melanoma", *both) for name, both in often.items()}), label


def _drawn(taken, label, hue="label", scale=1.0, transposed=False, **more):
    """The lesson's figure; on request the shares are those of melanomas among the images with each artefact."""
    import seaborn as sns

    if transposed:
        return sns.barplot(taken.apply(lambda column: (label[column] == "melanoma").mean()))
    long = taken.assign(label=label).melt("label").assign(value=lambda table: scale * table["value"])
    return sns.barplot(long, **({"x": "value", "y": "variable", "hue": hue, "errorbar": None} | more))


def _bars(draw, taken, label):
    """Columns that an axis names, whether a legend names the classes, and the lengths of the bars."""
    import matplotlib.pyplot as plt

    earlier = plt.get_fignums()
    plt.figure()
    try:
        axes = draw(taken, label)
        if hasattr(axes, "facet_axis"):
            not_yet("that is seaborn's grid of axes: end with return grid.ax, or draw with sns.barplot")
        if not getattr(axes, "patches", None):
            not_yet(f"expected the axes, with bars, as sns.barplot returns them, got {shown(axes)}: end with return")
        boxes = [(bar.get_width(), bar.get_height()) for bar in axes.patches]
        names = {text.get_text() for text in (*axes.get_yticklabels(), *axes.get_xticklabels())}
        legend = axes.get_legend() is not None
    finally:
        for number in set(plt.get_fignums()) - set(earlier):
            plt.close(number)
    boxes = [box for box in boxes if all(box)]  # a legend's are empty
    lengths = max(zip(*boxes, strict=True), key=np.ptp)  # the other side is the same for all
    return [len(names & set(taken)), legend, *sorted(lengths)]


suspects_figure = Exercise(
    reference=_drawn,
    inputs=lambda: [_taken()],
    use=_bars,
    returns="axes with two bars a column, their names on an axis, and a legend of the classes",
    success="two bars for each column, each a share of its own class, so that the rarer class counts as much as the other.",
    slips={
        "the bars are counts, and the classes differ in size: draw the share of true, the mean": {"estimator": "sum"},
        "the bars are in percent: a share lies between 0 and 1": {"scale": 100},
        "there is one bar a column, of both classes together: tell them apart with hue": {"hue": None},
        "these are shares of melanomas among the images that have it. Asked was for the share of each class that has it":
            {"transposed": True},
        "nothing says which class has which colour: keep seaborn's legend": {"legend": False},
    },
    hint="Return the axes. Each bar is the share of true in one class; an axis names the columns, a legend the classes",
    tolerance=1e-3,
)  # fmt: skip


def _split(cases, seed, group="group_id", n=5, shuffle=True, stratify=True, swap=False):
    kind = StratifiedGroupKFold if group else StratifiedKFold
    groups = cases[group] if group else None
    splitter = kind(n, shuffle=shuffle, random_state=seed if shuffle else None)
    parts = next(splitter.split(cases, cases["target"] if stratify else np.zeros(len(cases)), groups))
    return parts[::-1] if swap else parts


def _dealt(split, cases, n_seeds):
    """Whether rows, groups or lesions are in a wrong part, the share of the test, its classes, and whether the seed matters."""
    faults, tests = np.zeros(3, bool), []
    for seed in range(n_seeds):
        train, test = (np.flatnonzero(part) if np.asarray(part).dtype == bool else part for part in split(cases, seed))
        times = np.bincount(np.concatenate([train, test]), minlength=len(cases))
        torn = [set(cases[name].iloc[train]) & set(cases[name].iloc[test]) for name in ("group_id", "lesion_id")]
        faults |= [len(times) > len(cases) or (times != 1).any(), *map(bool, torn)]
        tests.append(cases["target"].iloc[test])
    uneven = np.mean([abs(test.mean() / cases["target"].mean() - 1) for test in tests]) > UNEVEN
    same = all(set(test.index) == set(tests[0].index) for test in tests)
    return [*faults, round(len(tests[0]) / len(cases), 1), uneven, same]


_GROUPED = "Use a splitter that takes groups, and hand it group_id"
grouping = Exercise(
    reference=_split,
    inputs=lambda: [(made_up_cases(), 4)],
    use=_dealt,
    returns=(
        "rows in no part or in two", "groups on both sides", "lesions on both sides", "share of the images in test",
        "classes left to chance", "seed without effect",
    ),
    success="no group is on both sides, and melanomas are about as frequent in one part as in the other",
    slips={
        f"groups have images on both sides: the images were dealt out one by one. {_GROUPED}": {"group": None},
        f"groups have images on both sides, though each lesion_id is whole. {_GROUPED}": {"group": "lesion_id"},
        "training and test are swapped: return training first": {"swap": True},
        "the test holds half of the images, not a fifth: n_splits=5": {"n": 2},
        "classes are left to chance: stratified splitters deal them out evenly; hand them the target as y": {"stratify": False},
        "every seed gives the same split: pass shuffle=True and random_state=seed to the splitter": {"shuffle": False},
    },
    hint="Return positions of the training rows, then of the test rows: a fifth of the images. A test_size counts groups",
)  # fmt: skip


def grouped_split(split: Callable, cases: pd.DataFrame) -> None:
    """Check a function from cases and a seed to positions of training and test rows, then say what it does to these cases.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    parts = ask(split, cases, 0)
    grouping(split)
    shares = " and ".join(f"{cases['target'].iloc[part].mean():.1%}" for part in parts)
    print(f"Here: {cases['group_id'].nunique():,} groups; melanomas are {shares} of training and test images.")


def _prepared(train, test, columns=(), mean=lambda train, both: train.mean(), flag=True, apart=False):
    if apart:
        return [_prepared(part, part, columns, mean, flag)[0] for part in (train, test)]
    both = pd.concat([train, test])
    ages = both["age_approx"]
    features = pd.get_dummies(both[["sex", SITE, *columns]], dtype=float)
    features["age"] = ages.fillna(mean(train["age_approx"], ages))
    if flag:
        features["gap"] = ages.isna()
    return features[: len(train)], features[len(train) :]


def _features(prepare, train, test):
    """What features depend on: see the names of these faults in the table."""

    def made(train, test):
        parts = [np.asarray(part, dtype=float) for part in prepare(train, test)]
        if [len(part) for part in parts] != [len(train), len(test)] or any(part.ndim != 2 for part in parts):
            not_yet(f"expected matrices of {len(train)} and {len(test)} rows, got {shown(parts)}")
        return parts

    def differ(one, other):
        return one.shape != other.shape or not np.allclose(one, other, equal_nan=True)

    def aged(*ages):
        return made(train, test.iloc[[0] * len(ages)].assign(age_approx=ages))[1]

    of_train, of_test = made(train, test)
    others = made(*(part.assign(target=1 - part["target"], diagnosis="something else") for part in (train, test)))
    older = test.assign(age_approx=test["age_approx"] + 30)
    known = train["age_approx"].dropna()
    *looks, gap = aged(*range(121), known.mean(), known.median(), np.nan)
    changes = [("age_approx", 20.0), ("sex", "male"), (SITE, "torso")]
    return [
        of_train.shape[1] != of_test.shape[1],
        np.isnan([*of_train.ravel(), *of_test.ravel()]).any(),
        any(map(differ, others, (of_train, of_test))),
        differ(made(train, older)[0], of_train),
        differ(made(train, test.iloc[:1])[1], of_test[:1]),
        *(not differ(made(train, test.assign(**{name: value}))[1], of_test) for name, value in changes),
        any(np.allclose(one, gap) for one in looks),
    ]


preparation = Exercise(
    reference=_prepared,
    inputs=lambda: [(made_up_cases()[:-40], made_up_cases()[-40:])],
    use=_features,
    returns=(
        "columns that training or test lacks", "features that are NaN", "features that depend on target or diagnosis",
        "training features that depend on test cases", "test features that depend on other test cases",
        "age_approx without effect", "sex without effect", "site without effect", "a missing age that looks like an age",
    ),
    success="no answer leaks in, nothing is learned from test cases, and a missing age looks like no age at all.",
    hunt=True,
    slips={
        "the features know the answer: they change with target and diagnosis. Drop the column that leaks":
            {"columns": ("diagnosis",)},
        "a mean or scale was computed from all rows: fit on train, then apply the same to every test case":
            {"mean": lambda train, both: both.mean()},
        "each part was encoded by its own values: a site that no test case has still needs its column": {"apart": True},
        "some features are NaN: most models refuse them. Fill the gap, and add a column that says there was one":
            {"mean": lambda train, both: np.nan},
        "a missing age looks exactly like an age: the gap is hidden. Add a column that says that the age is missing":
            {"flag": False},
    },
    hint="Return two matrices of numbers with a row a case; keep age, sex and site",
)  # fmt: skip
