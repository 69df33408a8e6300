"""Splits that keep a patient or lesion whole, and what splitting by image would have leaked."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from melanoma_lib.data.schema import TEXT
from melanoma_lib.errors import DataError

SPLITS = ("train", "val", "test")
UNITS = {"lesion": "lesion_id", "patient": "patient_id", "group": "group_id"}


def split_cases(cases: pd.DataFrame, val: float = 0.15, test: float = 0.15, seed: int = 0) -> pd.Series:
    """Divide cases into training, validation and test so that no group straddles.

    Groups with and without a melanoma are dealt out separately, each group to the split that is furthest behind its share
    of the images and melanomas so far. Larger groups come first, in random order among groups of similar size.

    The shares of images ``val`` and ``test`` lie in (0, 1), as does their sum. The same ``seed`` gives the same split, whatever
    the order of the rows.

    Returns:
        Text series named ``split`` with ``train``, ``val`` or ``test`` on the index of ``cases``.

    Raises:
        DataError: a row without group, or too few groups of a class to put one into each split; ValueError: shares out of range.
    """
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise ValueError(f"val={val} and test={test} must be above 0 and leave something for training (val + test < 1)")
    return _deal_groups(cases, SPLITS, (1 - val - test, val, test), seed, "training, validation and test")


def fold_cases(cases: pd.DataFrame, folds: int, fold: int, seed: int = 0) -> pd.Series:
    """Divide cases for one fold, counted from 1, of a cross-validation; over all folds every case is tested once.

    Each fold is dealt as two halves, by the rules of :func:`split_cases`. The fold itself is the test, half of the next one
    is validation (early stopping, calibration, threshold), the rest is training: with five folds 70, 10 and 20 percent.
    """
    if folds < 2 or not 1 <= fold <= folds:
        raise ValueError(f"fold={fold} of folds={folds}: expected at least 2 folds and one of them, counted from 1")
    named = ["train"] * (2 * folds)
    named[2 * (fold - 1) : 2 * fold] = ["test", "test"]
    named[2 * (fold % folds)] = "val"
    return _deal_groups(cases, named, (1 / (2 * folds),) * (2 * folds), seed, f"the halves of {folds} folds")


def assert_no_straddling(groups: pd.Series, split: pd.Series) -> None:
    """DataError if a split tears a group apart, or unless both series share an index and have no gaps."""
    if not groups.index.equals(split.index) or groups.isna().any() or split.isna().any():
        raise DataError("expected a group and a split for each case, on the index of one case table")
    spread = split.groupby(groups).nunique()
    straddling = spread.index[spread > 1]
    if len(straddling):
        examples = "; ".join(f"{name} in {sorted(split[groups == name].unique())}" for name in straddling[:3])
        raise DataError(f"{len(straddling)} of {len(spread)} groups straddle the splits ({examples}); split with split_cases().")


def _deal_groups(cases: pd.DataFrame, names: Sequence[str], shares: tuple[float, ...], seed: int, needing: str) -> pd.Series:
    if cases["group_id"].isna().any():
        raise DataError(f"row {cases['group_id'].isna().idxmax()} has no group_id; fill the column with group_ids().")
    groups = cases.groupby("group_id")["target"].agg(images="size", melanomas="sum").sort_index()
    has_melanoma = groups["melanomas"] > 0
    for count, name in ((int(has_melanoma.sum()), "a melanoma"), (int((~has_melanoma).sum()), "no melanoma")):
        if count < len(shares):
            raise DataError(f"{count} of {len(groups)} groups (patients or lesions) hold {name}; {needing} need one each.")
    rng = np.random.default_rng(seed)
    dealt = pd.concat([_deal(stratum, shares, rng) for _, stratum in groups.groupby(has_melanoma)])
    return pd.Series(np.array(names)[cases["group_id"].map(dealt)], cases.index, TEXT, "split")


def _deal(groups: pd.DataFrame, shares: tuple[float, ...], rng: np.random.Generator) -> pd.Series:
    """Group -> number of its part, for one stratum; every part gets a group if there are as many."""
    groups = groups.iloc[rng.permutation(len(groups))]
    similar_size = groups["images"].map(lambda count: int(count).bit_length())
    groups = groups.loc[similar_size.sort_values(ascending=False, kind="stable").index]
    loads = groups[["images", "melanomas"]] / groups[["images", "melanomas"]].sum().clip(lower=1)  # (G, 2)
    dealt = [[0.0, 0.0] for _ in shares]  # plain floats: ties, of which there are many, fall alike on every CPU
    total = [0.0, 0.0]
    chosen = []
    for left, load in zip(range(len(groups), 0, -1), loads.itertuples(index=False), strict=True):
        total = [sum_ + part for sum_, part in zip(total, load, strict=True)]
        empty = [had[0] == 0 for had in dealt]
        last = left <= sum(empty)  # the last groups go to parts that would stay empty
        # half of what the group would take off each part's squared debt, up to a constant
        gain = [
            sum((share * sum_ - had) * part for sum_, had, part in zip(total, dealt[split], load, strict=True))
            if empty[split] or not last
            else -np.inf
            for split, share in enumerate(shares)
        ]
        winner = gain.index(max(gain))
        dealt[winner] = [had + part for had, part in zip(dealt[winner], load, strict=True)]
        chosen.append(winner)
    return pd.Series(chosen, index=groups.index)


def audit_leakage(cases: pd.DataFrame, val: float = 0.15, test: float = 0.15, seed: int = 0, n_splits: int = 10) -> pd.DataFrame:
    """Measure what an image-level split would have leaked from test into training, beside :func:`split_cases`.

    Returns:
        A column for each unit (``lesion``, ``patient``, ``group``): share of test ``images`` and of test ``melanomas`` of which
        training holds another image of the same unit, in [0, 1], when split ``by image`` and ``by group``, as the mean over
        ``n_splits`` seeds from ``seed`` on; NaN where the source has no such ids.
    """
    cases, seeds = cases.reset_index(drop=True), range(seed, seed + n_splits)
    leaks = {
        "by image": [_overlap(cases, _split_images(cases["target"], 1 - val - test, val, s)) for s in seeds],
        "by group": [_overlap(cases, split_cases(cases, val, test, s)) for s in seeds],
    }
    return pd.concat({how: sum(found) / n_splits for how, found in leaks.items()})


def _split_images(target: pd.Series, train: float, val: float, seed: int) -> pd.Series:
    """The split most tutorials make: images at random, stratified by class, blind to patients and lesions."""
    in_class = target.sample(frac=1, random_state=seed).groupby(target)
    place = (in_class.cumcount() / in_class.transform("size")).reindex(target.index)  # 0 to 1 within its class
    return pd.Series(np.select([place < train, place < train + val], ["train", "val"], "test"), target.index)


def _overlap(cases: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    train, test = cases[split == "train"], cases[split == "test"]
    known = pd.DataFrame({
        unit: test[column].isin(train[column].dropna()) if cases[column].notna().any() else np.nan
        for unit, column in UNITS.items()
    }, index=test.index)  # fmt: skip
    return pd.DataFrame({"images": known.mean(), "melanomas": known[test["target"] == 1].mean()}).T
