"""Worlds with a known truth: how often an interval holds it, and what choosing a threshold on the test hides."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from melanoma_lib.evaluation.inputs import check_fraction
from melanoma_lib.evaluation.intervals import resample_groups, wilson_interval

# --- how often an interval holds the truth ------------------------------------------------------------------------------------


class Coverage(NamedTuple):
    """Share of repetitions whose 95% interval of the sensitivity holds the true one.

    Attributes:
        n_groups: patients or lesions with a melanoma.
        by_image: when images are resampled as if they were independent.
        by_group: when whole patients or lesions are.
    """

    n_groups: int
    by_image: float
    by_group: float


def found_images(
    rng: np.random.Generator, repetitions: int, n_groups: int, images: int, sensitivity: float, alike: float
) -> NDArray[np.bool_]:
    """Whether each image of each melanoma is found: ``(R, G, M)``, two images of one group correlated by ``alike``.

    Each image follows a draw common to its group with probability ``sqrt(alike)``, else a draw of its own; both find it with
    probability ``sensitivity``, so two images agree by following the same draw with probability ``alike``.
    """
    shape = (repetitions, n_groups, images)
    follows = rng.random(shape) < np.sqrt(alike)
    common = rng.random((repetitions, n_groups, 1)) < sensitivity
    return np.where(follows, common, rng.random(shape) < sensitivity)


def coverage(
    n_groups: int,
    images: int = 3,
    alike: float = 0.5,
    sensitivity: float = 0.9,
    repetitions: int = 1000,
    resamples: int = 500,
    seed: int = 0,
) -> Coverage:
    """Play a study many times and count how often its interval of the sensitivity holds the true one.

    Intervals as the kit makes them: percentiles of resamples; Wilson's where every image is found, or none.

    Args:
        n_groups: patients or lesions with a melanoma, G.
        images: of each, M.
        alike: correlation of "found" between two images of one group, in [0, 1].
        sensitivity: the true one, in (0, 1).
        repetitions: studies played, R.
        resamples: behind each interval, B.
        seed: of studies and resamples.

    Raises:
        ValueError: if a share is out of range or a number below 1.
    """
    check_fraction(alike, "alike", zero=True, one=True)
    check_fraction(sensitivity, "sensitivity")
    if min(n_groups, images, repetitions) < 1:
        raise ValueError(f"expected at least 1 group, image, repetition; got {n_groups}, {images}, {repetitions}")
    found = found_images(np.random.default_rng(seed), repetitions, n_groups, images, sensitivity, alike)
    covered = {}
    for name, shares in (("by_image", found.reshape(repetitions, -1)), ("by_group", found.mean(axis=2))):
        weights = np.concatenate(list(resample_groups(shares.shape[1], resamples, seed, block=resamples)))  # (B, units)
        replicates = weights @ shares.T.astype(np.float64) / shares.shape[1]  # (B, R); units are of one size
        low, high = np.quantile(replicates, [0.025, 0.975], axis=0)
        everything = wilson_interval(shares.shape[1], shares.shape[1])
        low = np.where(shares.min(axis=1) == 1, everything.low, low)
        high = np.where(shares.max(axis=1) == 0, 1 - everything.low, high)
        # A hair of room: a replicate that equals the truth must not miss it by rounding.
        covered[name] = float(((low <= sensitivity + 1e-12) & (high >= sensitivity - 1e-12)).mean())
    return Coverage(n_groups, **covered)


# --- the optimism of choosing on test -----------------------------------------------------------------------------------------


WAYS = ("on validation", "on test")


def choose_and_report(
    rule: str = "sensitivity",
    n_melanoma: int = 50,
    n_other: int = 220,
    auroc: float = 0.9,
    target: float = 0.95,
    costs: tuple[float, float] = (20.0, 1.0),
    repetitions: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """Choose a threshold on validation, and on test; report both on test; compare with the truth, which is known here.

    The world is binormal: scores of others are standard normal, of melanomas normal with the same spread and the mean that gives
    ``auroc``. Each repetition draws a validation and a test sample of equal size.

    Args:
        rule: "sensitivity" (the highest score that finds the share ``target``), "youden" or "cost".
        n_melanoma: melanomas in each sample.
        n_other: other lesions in each sample.
        auroc: of the world, in (0.5, 1).
        target: of the rule "sensitivity", in (0, 1].
        costs: of a missed melanoma and of a false alarm.
        repetitions: R.
        seed: of the samples.

    Returns:
        Two rows a repetition: chosen ("on validation" or "on test"), threshold, and as reported on test and in truth:
        sensitivity, true_sensitivity, specificity, true_specificity, cost, true_cost (a lesion, at the samples' prevalence).

    Raises:
        ValueError: for an unknown rule, or a number out of range.
    """
    if rule not in ("sensitivity", "youden", "cost"):
        raise ValueError(f"rule: expected sensitivity, youden or cost, got {rule!r}")
    if min(n_melanoma, n_other, repetitions) < 1 or not 0.5 < auroc < 1:
        raise ValueError(f"expected cases, repetitions and 0.5 < auroc < 1; got {n_melanoma}, {n_other}, {repetitions}, {auroc}")
    rng, shift = np.random.default_rng(seed), np.sqrt(2) * ndtri(auroc)
    samples = [(shift + rng.normal(size=(repetitions, n_melanoma)), rng.normal(size=(repetitions, n_other))) for _ in WAYS]
    melanomas, others = samples[1]
    prevalence = n_melanoma / (n_melanoma + n_other)

    def cost(sensitivity: NDArray, specificity: NDArray) -> NDArray:
        return prevalence * (1 - sensitivity) * costs[0] + (1 - prevalence) * (1 - specificity) * costs[1]

    tables = []
    for way, sample in zip(WAYS, samples, strict=True):
        threshold = _chosen(rule, *sample, target, costs)  # (R,)
        columns = {
            "sensitivity": (melanomas >= threshold[:, None]).mean(axis=1),
            "true_sensitivity": ndtr(shift - threshold),
            "specificity": (others < threshold[:, None]).mean(axis=1),
            "true_specificity": ndtr(threshold),
        }
        columns["cost"] = cost(columns["sensitivity"], columns["specificity"])
        columns["true_cost"] = cost(columns["true_sensitivity"], columns["true_specificity"])
        tables.append(pd.DataFrame({"chosen": way, "threshold": threshold} | columns))
    return pd.concat(tables, ignore_index=True)


def _chosen(
    rule: str, melanomas: NDArray[np.float64], others: NDArray[np.float64], target: float, costs: tuple[float, float]
) -> NDArray[np.float64]:
    """The threshold that the rule takes in each row: ``(R, P)`` and ``(R, Q)`` scores without ties to ``(R,)``."""
    scores = np.concatenate([melanomas, others], axis=1)  # (R, N)
    order = np.argsort(scores, axis=1)
    scores, is_melanoma = np.take_along_axis(scores, order, axis=1), order < melanomas.shape[1]
    n, n_others = melanomas.shape[1], others.shape[1]
    tp = n - np.cumsum(is_melanoma, axis=1) + is_melanoma  # (R, N) melanomas that score at least as much
    fp = np.arange(n + n_others, 0, -1) - tp
    if rule == "sensitivity":
        best = (tp / n >= check_fraction(target, "target", one=True)).sum(axis=1) - 1  # the last that still reaches it
    elif rule == "youden":
        best = np.argmax(tp * n_others - fp * n, axis=1)
    else:
        best = np.argmin((n - tp) * costs[0] + fp * costs[1], axis=1)
    return scores[np.arange(len(scores)), best]


def expected_true_sensitivity(n_melanoma: int, target: float = 0.95) -> tuple[float, float]:
    """What the rule "highest score that finds the share ``target``" reports where it chose, and finds elsewhere on average.

    With ``k`` the smallest number that reaches the target, the rule reports ``k / n``. The threshold is the ``k``-th highest of
    ``n`` independent melanoma scores; whatever their distribution, a new melanoma reaches it with probability ``k / (n + 1)``
    (order statistics: David and Nagaraja 2003, chapter 2).

    Args:
        n_melanoma: melanomas it was chosen on, n, without ties.
        target: in (0, 1].

    Returns:
        Reported and expected true sensitivity.

    Raises:
        ValueError: if ``n_melanoma`` is below 1 or the target out of range.
    """
    check_fraction(target, "target", one=True)
    if n_melanoma < 1:
        raise ValueError(f"n_melanoma: expected at least 1, got {n_melanoma}")
    counts = np.arange(1, n_melanoma + 1)
    k = int(counts[np.argmax(counts / n_melanoma >= target)])
    return k / n_melanoma, k / (n_melanoma + 1)


def optimism_table(tables: dict[str, pd.DataFrame], quantity: str = "sensitivity") -> pd.DataFrame:
    """Means over the repetitions of `choose_and_report`, for each world and each way of choosing.

    Args:
        tables: from `choose_and_report`, by name.
        quantity: "sensitivity", "specificity" or "cost".

    Returns:
        Rows by name and way; columns reported, true, difference, and spread: the standard deviation of the difference.
    """
    rows = {}
    for name, table in tables.items():
        for way, part in table.groupby("chosen", sort=False):
            off = part[quantity] - part[f"true_{quantity}"]
            rows[name, way] = {
                "reported": part[quantity].mean(),
                "true": part[f"true_{quantity}"].mean(),
                "difference": off.mean(),
                "spread": off.std(),
            }
    return pd.DataFrame.from_dict(rows, orient="index")
