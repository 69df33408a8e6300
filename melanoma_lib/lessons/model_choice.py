"""Which of two models, or of many: paired comparisons and the winner's curse."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.evaluation import Interval, bootstrap_gain, delong_test, rate_intervals
from melanoma_lib.studies.results import load_results as table_of
from melanoma_lib.studies.results import provenance as made_by
from melanoma_lib.widgets.luck import Z, auroc_error, gap_error

__all__ = ["comparison_table", "equal_rivals", "made_by", "resampled_rows", "table_of", "three_intervals"]

AUROC, ALIKE = 0.9, 0.7  # of equal rivals, unless others are asked for: the true AUROC, and the correlation of any two


def three_intervals(test: pd.DataFrame, error: float, unit: str, n: int = 500) -> dict[str, Interval]:
    """95% intervals of one AUROC: by a formula, by resampling images as if each stood alone, and by resampling whole groups.

    Args:
        test: predictions of a test split.
        error: standard error that a formula gives.
        unit: what the groups are.
        n: resamples.
    """
    by_image, by_group = (
        rate_intervals(test["target"], test["probability"], test[column], n=n)["auroc"] for column in ("image_id", "group_id")
    )
    value = by_group.value
    formula = Interval(value, value - Z * error, value + Z * error, method="normal")
    return {"the formula": formula, "images resampled": by_image, f"whole {unit}s resampled": by_group}


def comparison_table(
    targets: ArrayLike, a: ArrayLike, b: ArrayLike, groups: ArrayLike, names: tuple[str, str], n: int = 500
) -> pd.DataFrame:
    """Two models on the same cases, as text: each alone, then their difference by DeLong and by paired resamples.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        a: scores of one model, shape ``(N,)``.
        b: scores of the other, shape ``(N,)``.
        groups: patient or lesion of each row, shape ``(N,)``.
        names: of both models.
        n: resamples.
    """
    alone = {name: rate_intervals(targets, one, groups, n=n)["auroc"] for name, one in zip(names, (a, b), strict=True)}
    test = delong_test(targets, a, b)
    reach = Z * test.standard_error
    by_image = Interval(test.difference, test.difference - reach, test.difference + reach, method="delong")
    paired = bootstrap_gain(targets, a, b, groups, n)["auroc"]
    rows = {name: {"estimate": f"{one:.3f}", "width": f"{one.high - one.low:.3f}", "p": ""} for name, one in alone.items()}
    p_value = f"{test.p_value:.4f}" if test.p_value >= 1e-4 else "< 0.0001"
    for name, one, p in (("difference, DeLong", by_image, p_value), ("difference, whole groups resampled", paired, "")):
        rows[name] = {"estimate": f"{one:+.3f}", "width": f"{one.high - one.low:.3f}", "p": p}
    return pd.DataFrame.from_dict(rows, orient="index")


def resampled_rows(groups: ArrayLike, n: int = 500, seed: int = 0) -> list[NDArray[np.intp]]:
    """Rows of resamples that draw whole groups with replacement, one array a resample."""
    groups, rng = np.asarray(groups), np.random.default_rng(seed)
    names, codes = np.unique(groups, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return [np.concatenate([rows[number] for number in rng.integers(len(names), size=len(names))]) for _ in range(n)]


def equal_rivals(
    rivals: int,
    melanomas: int,
    ratio: float,
    auroc: float = AUROC,
    alike: float = ALIKE,
    repetitions: int = 20_000,
    seed: int = 0,
) -> dict[str, float]:
    """Many models that are all exactly as good as the default, on one test set: what the best of them seems to gain.

    Each AUROC is normal around the same truth with the error that the sizes give, any two of them correlated by ``alike``; each
    rival is tested against the default at 5%.

    Args:
        rivals: models besides the default.
        melanomas: in the test; independent ones, so lesions or patients, not images.
        ratio: other lesions for each melanoma.
        auroc: the true one of all of them.
        alike: correlation of two models' AUROCs over test sets, in [0, 1).
        repetitions: test sets drawn.
        seed: of the draws.

    Returns:
        ``lead`` of the best over the default on average; share of test sets on which at least one rival is declared different,
        ``plain`` and with the smallest p held to 5% / rivals (``holm``: the first step of Holm's method, which is Bonferroni's);
        and what was supposed, ``auroc`` and ``alike``.
    """
    from scipy.special import ndtri

    rng = np.random.default_rng(seed)
    error = auroc_error(auroc, melanomas, melanomas * ratio)
    common, own = rng.normal(size=(repetitions, 1)), rng.normal(size=(repetitions, rivals + 1))
    shown = auroc + error * (np.sqrt(alike) * common + np.sqrt(1 - alike) * own)
    leads = shown[:, 1:] - shown[:, :1]  # (R, rivals)
    z = np.abs(leads).max(axis=1) / gap_error(auroc, 0.0, alike, melanomas, melanomas * ratio)
    strict = -ndtri(0.025 / rivals)
    found = {"lead": leads.max(axis=1).mean(), "plain": (z > Z).mean(), "holm": (z > strict).mean()}
    return {name: float(value) for name, value in found.items()} | {"auroc": auroc, "alike": alike}
