"""Is one model better than another on the same cases? The paired bootstrap by groups, and the DeLong test."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from melanoma_lib.evaluation.inputs import check_fraction, check_scores, check_targets
from melanoma_lib.evaluation.intervals import Interval, bootstrap_replicates


def bootstrap_gain(
    targets: ArrayLike,
    scores: ArrayLike,
    baseline_scores: ArrayLike,
    groups: ArrayLike,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """What ``scores`` gain over ``baseline_scores`` on the same cases, with both seen in the same resamples.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        scores: of the model, shape ``(N,)``.
        baseline_scores: of what it should beat (metadata alone, say), shape ``(N,)``.
        groups: patient, lesion or image id of each row, shape ``(N,)``.
        n: number of resamples.
        seed: of the resampling.
        level: coverage aimed at.

    Returns:
        Differences (model - baseline) in "auroc" and "average_precision".

    Raises:
        ValueError: for NaN, infinite, empty, one-class or mismatched input.
    """
    check_fraction(level, "level")
    model, model_replicates = bootstrap_replicates(targets, scores, groups, None, n, seed)
    base, base_replicates = bootstrap_replicates(targets, baseline_scores, groups, None, n, seed)
    return {
        name: Interval.from_replicates(model[name] - base[name], model_replicates[name] - base_replicates[name], level)
        for name in ("auroc", "average_precision")
    }


class DeLongResult(NamedTuple):
    """Two AUROCs on the same cases and the test of their difference (a - b)."""

    auroc_a: float
    auroc_b: float
    difference: float
    standard_error: float
    z: float
    p_value: float


def delong_test(targets: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> DeLongResult:
    """Two-sided test that two scores have the same AUROC on the same cases.

    DeLong et al. 1988 in the form of Sun and Xu 2014, n log n. It takes the images to be independent: with several
    images of one lesion or patient it is too sure of itself, and `bootstrap_gain` is the honest choice.
    Where the difference has no variance (equal rankings, or both perfect), z is 0 and p 1 for equal AUROCs, else z is
    infinite and p 0.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``, at least two of each.
        scores_a: shape ``(N,)``.
        scores_b: shape ``(N,)``.

    Raises:
        ValueError: for NaN, infinite, empty or mismatched input, or fewer than two cases of a class.
    """
    from scipy.stats import norm, rankdata

    answers = check_targets(targets)
    n_melanomas, n_others = int(answers.sum()), int((~answers).sum())
    if min(n_melanomas, n_others) < 2:
        raise ValueError(f"targets: expected at least 2 cases of each class, got {n_melanomas} and {n_others}")
    wins, losses = [], []
    for name, scores in (("scores_a", scores_a), ("scores_b", scores_b)):
        values = check_scores(scores, answers.size, name)
        ranks = rankdata(values)
        # Share of the other class that each case beats: overall rank less rank within its own class.
        wins.append((ranks[answers] - rankdata(values[answers])) / n_others)  # (P,)
        losses.append(1 - (ranks[~answers] - rankdata(values[~answers])) / n_melanomas)  # (Q,)
    auroc_a, auroc_b = float(wins[0].mean()), float(wins[1].mean())
    difference = auroc_a - auroc_b
    variance = np.var(wins[0] - wins[1], ddof=1) / n_melanomas + np.var(losses[0] - losses[1], ddof=1) / n_others
    error = float(np.sqrt(variance))
    z = difference / error if error > 0 else float(np.sign(difference) * np.inf if difference else 0.0)
    return DeLongResult(auroc_a, auroc_b, difference, error, float(z), float(2 * norm.sf(abs(z))))
