"""Simulated studies with a known truth: how often an interval holds it, and what choosing a threshold on the test hides."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from melanoma_lib.evaluation.inputs import check_fraction
from melanoma_lib.evaluation.intervals import resample_groups, wilson_interval
from melanoma_lib.evaluation.operating import OperatingCurve
from melanoma_lib.lessons.eda import WIDTH
from melanoma_lib.plotting import BLACK, BLUE, GREY, ORANGE, DescribedFigure, kit_figure, with_alt_text

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


def coverage_figure(coverages: Sequence[Coverage], repetitions: int = 1000) -> DescribedFigure:
    """Share of intervals that hold the truth against the number of patients or lesions with a melanoma.

    Args:
        coverages: by rising number of groups.
        repetitions: behind each of them, for the noise band around 95%.
    """
    n_groups = [one.n_groups for one in coverages]
    noise = 2 * np.sqrt(0.95 * 0.05 / repetitions)
    with kit_figure(WIDTH, 4.4) as figure:
        axes = figure.add_subplot()
        axes.axhspan(0.95 - noise, 0.95 + noise, color="#E4E4E4", label="95%, give or take chance")
        for name, label, colour, style in (
            ("by_group", "whole patients resampled", BLUE, "-s"),
            ("by_image", "single images resampled", GREY, "--o"),
        ):
            axes.plot(n_groups, [getattr(one, name) for one in coverages], style, color=colour, markersize=9, label=label)
        axes.set(xscale="log", ylim=(0.6, 1.0), xlabel="patients with a melanoma", ylabel="intervals that\nhold the truth")
        axes.set_xticks(n_groups, [str(n) for n in n_groups])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.3, columnspacing=1.4)
    said = "; ".join(f"{one.n_groups}: {one.by_group:.1%} by patient, {one.by_image:.1%} by image" for one in coverages)
    return with_alt_text(figure, f"Share of 95% intervals that hold the true sensitivity, by patients with a melanoma: {said}.")


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
        rule: "sensitivity" (the highest score that finds the share ``target``) or "cost".
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
    if rule not in ("sensitivity", "cost"):
        raise ValueError(f"rule: expected sensitivity or cost, got {rule!r}")
    if min(n_melanoma, n_other, repetitions) < 1 or not 0.5 < auroc < 1:
        raise ValueError(f"expected cases, repetitions and 0.5 < auroc < 1; got {n_melanoma}, {n_other}, {repetitions}, {auroc}")
    rng, shift = np.random.default_rng(seed), np.sqrt(2) * ndtri(auroc)
    samples = [(shift + rng.normal(size=(repetitions, n_melanoma)), rng.normal(size=(repetitions, n_other))) for _ in WAYS]
    melanomas, others = samples[1]
    prevalence = n_melanoma / (n_melanoma + n_other)

    def cost(sensitivity: NDArray, specificity: NDArray) -> NDArray:
        return prevalence * (1 - sensitivity) * costs[0] + (1 - prevalence) * (1 - specificity) * costs[1]

    targets, tables = np.repeat([1, 0], [n_melanoma, n_other]), []
    for way, sample in zip(WAYS, samples, strict=True):
        curves = [OperatingCurve(targets, scores) for scores in np.hstack(sample)]
        points = [curve.for_sensitivity(target) if rule == "sensitivity" else curve.min_cost(*costs) for curve in curves]
        threshold = np.array([point.threshold for point in points])  # (R,)
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


def optimism_table(table: pd.DataFrame, quantity: str = "sensitivity") -> pd.DataFrame:
    """Means over the repetitions of `choose_and_report`, for each way of choosing.

    Args:
        table: from `choose_and_report`.
        quantity: "sensitivity", "specificity" or "cost".

    Returns:
        Rows by way; columns reported, true, difference, and spread: the standard deviation of the difference.
    """
    off = table.assign(
        reported=table[quantity], true=table[f"true_{quantity}"], difference=table[quantity] - table[f"true_{quantity}"]
    )
    of_way = off.groupby("chosen", sort=False)
    return of_way[["reported", "true", "difference"]].mean().assign(spread=of_way["difference"].std())


def optimism_figure(by_sensitivity: pd.DataFrame, by_cost: pd.DataFrame) -> DescribedFigure:
    """What is reported on test less the truth, over many studies, for both ways of choosing.

    Args:
        by_sensitivity: from ``choose_and_report("sensitivity")``.
        by_cost: from ``choose_and_report("cost")``.
    """
    panels = (
        ("sensitivity", by_sensitivity, 100, "reported less true sensitivity, in points"),
        ("cost", by_cost, 1000, "reported less true cost of 1,000 lesions"),
    )
    said = []
    with kit_figure(WIDTH, 4.8) as figure:
        for axes, (quantity, table, unit, label) in zip(figure.subplots(1, 2), panels, strict=True):
            off = unit * (table[quantity] - table[f"true_{quantity}"])
            bins, means = np.linspace(*np.quantile(off, [0.001, 0.999]), 45), unit * optimism_table(table, quantity)["difference"]
            axes.axvline(0, color=BLACK, linewidth=1)
            for way, colour, style in zip(WAYS, (BLUE, ORANGE), ("-", "--"), strict=True):
                axes.hist(off[table["chosen"] == way], bins, color=colour, alpha=0.45, density=True)
                axes.axvline(
                    means[way], color=colour, linestyle=style, linewidth=2.5, label=f"chosen {way}: mean {means[way]:+.1f}"
                )
            axes.set(xlabel=label, yticks=[])
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3)
            said.append(f"{label}: chosen on validation {means[WAYS[0]]:+.1f} on average, on test {means[WAYS[1]]:+.1f}")
    return with_alt_text(figure, f"Distributions over {len(by_cost) // 2:,} simulated studies; {'; '.join(said)}.")
