"""How good, how sure, and how much better than the default: candidates on the same test cases, one fold or several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import Interval, OperatingCurve, bootstrap_replicates, delong_test, resample_groups, wilson_interval
from melanoma_lib.evaluation.intervals import BLOCK, group_codes

# specificity: at the threshold that validation chose; specificity_at: where the test cases' own ROC reaches the sensitivity.
METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "specificity_at", "brier")
COMPARED = ("auroc", "average_precision", "specificity_at", "brier")
RANKED = ("auroc", "specificity_at")  # what a recommendation rests on


@dataclass(frozen=True)
class Part:
    """What a candidate said of one fold's test cases.

    Attributes:
        table: image_id, group_id, target, probability and risk, the latter calibrated on the fold's validation cases.
        threshold: on ``probability``, chosen on the fold's validation cases.
    """

    table: pd.DataFrame
    threshold: float


@dataclass(frozen=True)
class Candidate:
    """A model, or several of one recipe, one a fold.

    Attributes:
        name: unique.
        parts: one a fold.
        facts: further columns of its row.
    """

    name: str
    parts: Sequence[Part]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Replicates:
    """Each of ``METRICS``, on the sample and on each resample, shape ``(n,)``; with several folds their mean."""

    sample: dict[str, float]
    draws: dict[str, NDArray[np.float64]]

    def interval(self, metric: str) -> Interval:
        """The metric with its percentile interval, whose ends meet where the metric is perfect."""
        return Interval.from_replicates(self.sample[metric], self.draws[metric])

    def less(self, other: "Replicates", metric: str) -> Interval:
        """The metric less another candidate's, both seen in the same resamples."""
        value = self.sample[metric] - other.sample[metric]
        return Interval.from_replicates(value, self.draws[metric] - other.draws[metric])


def score_candidates(
    candidates: Sequence[Candidate], default: str, min_sensitivity: float, n: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a candidate: metrics with intervals, and paired comparisons with the default and with the best.

    Args:
        candidates: with the same test cases in each fold, in any order.
        default: name of the candidate that the others are compared with.
        min_sensitivity: at which ``specificity_at`` is read off.
        n: resamples of whole groups.
        seed: of the resampling.

    Returns:
        Rows with ``name``, ``METRICS`` (value, low, high), of the ``COMPARED`` ones ``gain_METRIC`` over the default, of the
        ``RANKED`` ones ``behind_METRIC``, at most 0, the best; ``delong_p`` and, adjusted for their number, ``delong_p_holm``.

    Raises:
        StudyError: if there is no such default, or candidates tested other cases.
    """
    names = [candidate.name for candidate in candidates]
    if default not in names or len(set(names)) < len(names):
        raise StudyError(f"expected candidates of different names with {default!r} among them, got {', '.join(names)}")
    reference = candidates[names.index(default)]
    aligned = [_aligned(candidate, reference) for candidate in candidates]
    drawn = {candidate.name: replicates(candidate, min_sensitivity, n, seed) for candidate in aligned}
    best = {metric: max(drawn.values(), key=lambda found, metric=metric: found.sample[metric]) for metric in RANKED}
    rows = []
    for candidate in aligned:
        mine = drawn[candidate.name]
        row: dict[str, Any] = {"name": candidate.name, "default": candidate.name == default}
        row |= {metric: as_row(_interval(candidate, mine, metric)) for metric in METRICS}
        row |= {f"behind_{metric}": as_row(mine.less(best[metric], metric)) for metric in RANKED}
        row |= {f"gain_{metric}": None if row["default"] else as_row(mine.less(drawn[default], metric)) for metric in COMPARED}
        rows.append(row | {"delong_p": None if row["default"] else delong_p(candidate, reference), "delong_p_holm": None})
    compared = [row for row in rows if not row["default"]]
    for row, adjusted in zip(compared, holm([row["delong_p"] for row in compared]), strict=True):
        row["delong_p_holm"] = adjusted
    return rows


def _interval(candidate: Candidate, drawn: Replicates, metric: str) -> Interval:
    """As ``bootstrap_intervals`` gives it: what is perfect never varies under resampling, which is no certainty."""
    interval = drawn.interval(metric)
    if metric in ("auroc", "average_precision"):
        return replace(interval, low=math.nan, high=math.nan) if interval.value == interval.low == 1 else interval
    if metric == "brier" or interval.value not in (0, 1):
        return interval
    melanoma = int(metric == "sensitivity")  # whose groups bear on it
    n_groups = sum(part.table.loc[part.table["target"] == melanoma, "group_id"].nunique() for part in candidate.parts)
    return wilson_interval(interval.value * n_groups, n_groups)


def as_row(interval: Interval) -> dict[str, float | None]:
    """Value, low and high, fit for a result table."""
    return {name: number for name, number in interval.to_dict().items() if name in ("value", "low", "high")}


def replicates(candidate: Candidate, min_sensitivity: float, n: int, seed: int) -> Replicates:
    """All ``METRICS`` of a candidate; groups are resampled within each fold, the same ones for every candidate."""
    found = [_of_part(part, min_sensitivity, n, seed + number) for number, part in enumerate(candidate.parts)]
    return Replicates(
        {metric: float(np.mean([sample[metric] for sample, _ in found])) for metric in METRICS},
        {metric: np.mean([draws[metric] for _, draws in found], axis=0) for metric in METRICS},
    )


def _of_part(part: Part, min_sensitivity: float, n: int, seed: int) -> tuple[dict, dict]:
    targets, groups = part.table["target"], part.table["group_id"].to_numpy(str)
    sample, draws = bootstrap_replicates(targets, part.table["probability"], groups, part.threshold, n, seed)
    risk, risk_draws = bootstrap_replicates(targets, part.table["risk"], groups, None, n, seed)
    sample["brier"], draws["brier"] = risk["brier"], risk_draws["brier"]
    at = OperatingCurve(targets, part.table["probability"]).for_sensitivity(min_sensitivity)
    sample["specificity_at"] = at.specificity
    draws["specificity_at"] = specificity_replicates(targets, part.table["probability"], groups, min_sensitivity, n, seed)
    return sample, draws


def specificity_replicates(
    targets: ArrayLike, scores: ArrayLike, groups: ArrayLike, min_sensitivity: float, n: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Specificity at the highest threshold that finds a share of the melanomas, in each resample of `bootstrap_replicates`.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        scores: shape ``(N,)``.
        groups: shape ``(N,)``.
        min_sensitivity: the share, in (0, 1].
        n: number of resamples.
        seed: of the resampling.

    Returns:
        Shape ``(n,)``; NaN where a resample lacks a class.
    """
    answers, values = np.asarray(targets) == 1, np.asarray(scores, dtype=np.float64)
    codes, n_groups = group_codes(groups, answers.size)
    melanomas = np.flatnonzero(answers)[np.argsort(-values[answers])]  # (P,) highest score first
    others = np.flatnonzero(~answers)[np.argsort(values[~answers])]  # (Q,) lowest score first
    let_go = values[others].searchsorted(values[melanomas], side="left")  # (P,) others below each melanoma
    found = []
    for weights in resample_groups(n_groups, n, seed, max(1, BLOCK // answers.size)):
        caught = np.cumsum(weights[:, codes[melanomas]], axis=1)  # (B, P)
        below = np.pad(np.cumsum(weights[:, codes[others]], axis=1), ((0, 0), (1, 0)))  # (B, Q + 1)
        with np.errstate(invalid="ignore"):
            last = np.argmax(caught / caught[:, -1:] >= min_sensitivity, axis=1)  # (B,) the melanoma that completes the share
            share = np.take_along_axis(below, let_go[last][:, None], axis=1)[:, 0] / below[:, -1]
        found.append(np.where(caught[:, -1] > 0, share, np.nan))
    return np.concatenate(found)


def delong_p(candidate: Candidate, other: Candidate) -> float:
    """Two-sided p of equal AUROC; over folds, whose test cases are disjoint, of the mean difference."""
    from scipy.stats import norm

    pairs = zip(candidate.parts, other.parts, strict=True)
    tests = [delong_test(mine.table["target"], mine.table["probability"], its.table["probability"]) for mine, its in pairs]
    if len(tests) == 1:
        return tests[0].p_value
    difference, error = math.fsum(t.difference for t in tests), math.sqrt(math.fsum(t.standard_error**2 for t in tests))
    return float(2 * norm.sf(abs(difference) / error)) if error > 0 else float(difference == 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number (Holm 1979): at 0.05 the chance of any false alarm among them stays below 5%."""
    order = np.argsort(p_values, kind="stable")
    steps = [(len(order) - place) * p_values[i] for place, i in enumerate(order)]
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else []
    return [float(p) for p in adjusted]


def _aligned(candidate: Candidate, reference: Candidate) -> Candidate:
    """The candidate with its cases in the reference's order."""
    if len(candidate.parts) != len(reference.parts):
        raise StudyError(
            f"{candidate.name} has {len(candidate.parts)} folds, {reference.name} has {len(reference.parts)}; a paired "
            "comparison needs the same ones"
        )
    parts = []
    for mine, its in zip(candidate.parts, reference.parts, strict=True):
        table = mine.table.set_index("image_id")
        if set(table.index) != set(its.table["image_id"]) or len(table) != len(its.table):
            raise StudyError(
                f"{candidate.name} tested {len(table)} cases, {reference.name} {len(its.table)}, not the same ones; "
                "train both with the same --folds, --fold, --seed and data"
            )
        parts.append(Part(table.loc[its.table["image_id"]].reset_index(), mine.threshold))
    return Candidate(candidate.name, parts, candidate.facts)
