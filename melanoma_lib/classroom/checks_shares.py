"""More checks of lesson 01: shares counted by hand, of empty fields and of test melanomas that training knows."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks import not_yet, numbers, passed
from melanoma_lib.classroom.checks_eda import probe_cases

SEEDS = range(4)
Share = Callable[[pd.DataFrame, np.ndarray, np.ndarray], float]


def gap_shares(compute: Callable[[pd.DataFrame, str], tuple[float, float]]) -> None:
    """Check a function that gives the share of empty fields of a column, among melanomas and among the others.

    Args:
        compute: from a case table and a column's name to the two shares.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    cases, columns = probe_cases(), ("age_approx", "sex")
    rng, melanoma = np.random.default_rng(1), cases["target"] == 1
    for column, often in zip(columns, ((0.3, 0.1), (0.05, 0.2)), strict=True):
        cases[column] = cases[column].mask(rng.random(len(cases)) < np.where(melanoma, *often))
    gaps = {column: cases[column].isna() for column in columns}
    counted = {
        column: {"all": len(cases), "gaps": gap.sum(), "melanomas": melanoma.sum(), "both": (gap & melanoma).sum()}
        for column, gap in gaps.items()
    }
    mistakes: dict[str, Callable[[dict[str, int]], tuple[float, float]]] = {
        "": lambda n: (n["both"] / n["melanomas"], (n["gaps"] - n["both"]) / (n["all"] - n["melanomas"])),
        "the two are swapped: melanomas first. groupby sorts the targets, 0 before 1": (
            lambda n: ((n["gaps"] - n["both"]) / (n["all"] - n["melanomas"]), n["both"] / n["melanomas"])
        ),
        "these are the shares of melanomas and of others among the empty fields. The question is the other way round: among the "
        "melanomas, how many fields are empty?": lambda n: (n["both"] / n["gaps"], 1 - n["both"] / n["gaps"]),
        "the first is the share of melanomas where the field is empty, the second where it is filled: that asks what a gap says "
        "of the lesion. Asked was how often it is there, in each class": (
            lambda n: (n["both"] / n["gaps"], (n["melanomas"] - n["both"]) / (n["all"] - n["gaps"]))
        ),
        "both are divided by the number of all cases, so the rarer class looks better documented: divide by the cases of each "
        "class": lambda n: (n["both"] / n["all"], (n["gaps"] - n["both"]) / n["all"]),
        "these are counts, and there are far more others than melanomas: divide each by the cases of its class": (
            lambda n: (n["both"], n["gaps"] - n["both"])
        ),
        "it finds no gap at all: nothing equals NaN, not even NaN; use .isna()": lambda n: (0.0, 0.0),
        "these are the filled fields; the empty ones are the rest": (
            lambda n: (1 - n["both"] / n["melanomas"], 1 - (n["gaps"] - n["both"]) / (n["all"] - n["melanomas"]))
        ),
        "both classes get the share among all cases: select the rows of each class first": (
            lambda n: (n["gaps"] / n["all"],) * 2
        ),
    }  # fmt: skip
    given = [numbers(compute(cases.copy(), column), 2, "two shares, among melanomas and among the others") for column in columns]
    for diagnosis, mistake in mistakes.items():
        for factor, also in ((1, ""), (100, "in percent: a share lies between 0 and 1")):
            if np.allclose(given, np.multiply(factor, [mistake(counted[column]) for column in columns])):
                if said := "; and ".join(text for text in (diagnosis, also) if text):
                    not_yet(said)
                passed("a share of each class, so that the rarer one counts as much as the other")
                return
    right = mistakes[""](counted[columns[0]])
    if given[0] == given[1] or np.allclose(given[0], right):
        not_yet(f"the numbers fit one column only: does your function look at {columns!r} as it is asked to?")
    not_yet(f"of a made-up table it says {given[0]!r} for {columns[0]}; expected {right[0]:.4f} and {right[1]:.4f}")


def known_share(compute: Share) -> None:
    """Check a function that counts a leak: the share of test melanomas of whose group training holds an image.

    Args:
        compute: from a case table and the positions of training and test rows to the share.

    Raises:
        NotYet: with what is wrong and where to look.
    """
    cases = probe_cases()
    cases.index = np.random.default_rng(2).permutation(len(cases))  # so that labels are no positions
    orders = [np.random.default_rng(seed).permutation(len(cases)) for seed in SEEDS]
    splits = [(rows[: len(rows) // 3], rows[-len(rows) // 4 :]) for rows in orders]  # some patients are in neither part
    given = [numbers(compute(cases.copy(), train.copy(), test.copy()), 1, "a share, one number")[0] for train, test in splits]
    for diagnosis, mistake in LEAK_MISTAKES.items():
        wrong = np.array([mistake(cases, *split) for split in splits])
        for factor, also in ((1, ""), (100, "in percent: a share lies between 0 and 1")):
            if np.allclose(given, factor * wrong):
                if said := "; and ".join(text for text in (diagnosis, also) if text):
                    not_yet(said)
                passed("each test melanoma counts once, and is known if training holds any image of its group")
                return
    not_yet(
        f"of a made-up split by image it says {given[0]:.4f}; expected {_leak(cases, *splits[0]):.4f}. Which rows do you count, "
        "and which of them have their group_id among those of training?"
    )


def _leak(
    cases: pd.DataFrame, train: np.ndarray, test: np.ndarray, ids: str = "group_id", of: str = "melanomas", by: str = "all"
) -> float:
    """Share of the test rows ``of`` a kind whose id is among the training rows of a kind, ``by``."""
    rows, met = cases.iloc[test], cases.iloc[train]
    rows = rows[rows["target"] == 1] if of == "melanomas" else rows
    met = met[met["target"] == 1] if by == "melanomas" else met
    return rows[ids].isin(met[ids]).mean()


def _count_of_known(cases: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> float:
    return _leak(cases, train, test) * (cases["target"].iloc[test] == 1).sum()


def _share_of_groups(cases: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> float:
    melanomas = cases.iloc[test].query("target == 1")["group_id"].unique()
    return np.isin(melanomas, cases["group_id"].iloc[train]).mean()


def _by_labels(cases: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> float:
    return _leak(cases, *(cases.index.get_indexer(part) for part in (train, test)))


LEAK_MISTAKES: dict[str, Share] = {
    "": _leak,
    "it counts every test image; asked was for the melanomas among them": lambda *split: _leak(*split, of="all"),
    "siblings are looked for by lesion_id, but a patient's other lesions are siblings too: group_id is what must not straddle": (
        lambda *split: _leak(*split, ids="lesion_id")
    ),
    "nothing leaks by image_id, since each image is there once. Siblings share their group_id": (
        lambda *split: _leak(*split, ids="image_id")
    ),
    "only melanomas in training count as siblings; any image of the same patient gives the patient away": (
        lambda *split: _leak(*split, by="melanomas")
    ),
    "training and test are swapped: it is the test melanomas that are known from training": (
        lambda cases, train, test: _leak(cases, test, train)
    ),
    "that is the share of melanomas that are new; known is the rest": lambda *split: 1 - _leak(*split),
    "that is a count: divide by the number of test melanomas": _count_of_known,
    "the known melanomas are divided by all test images; divide by the melanomas among them": (
        lambda cases, train, test: _count_of_known(cases, train, test) / len(test)
    ),
    "it counts each group once; a patient with three melanomas in the test counts three times": _share_of_groups,
    "rows are picked by label (.loc), but positions were given: use .iloc": _by_labels,
}
