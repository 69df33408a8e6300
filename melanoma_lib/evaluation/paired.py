"""Is one model better than another, on the same cases or over several splits? Bootstrap by groups, and the DeLong test."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from melanoma_lib.evaluation.inputs import check_scores, check_targets
from melanoma_lib.evaluation.intervals import BLOCK, Interval, group_bootstrap, group_codes
from melanoma_lib.evaluation.operating import Ranking


def bootstrap_gain(
    targets: ArrayLike,
    scores: ArrayLike,
    baseline_scores: ArrayLike,
    groups: ArrayLike,
    n: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """What ``scores`` gain over ``baseline_scores`` on the same cases, with both seen in the same resamples.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        scores: of the model, shape ``(N,)``.
        baseline_scores: of what it should beat (metadata alone, say), shape ``(N,)``.
        groups: patient, lesion or image id of each row, shape ``(N,)``.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        Differences (model - baseline) in "auroc" and "average_precision".

    Raises:
        ValueError: for NaN, infinite, empty, one-class or mismatched input.
    """
    answers = check_targets(targets)
    codes, n_groups = group_codes(groups, answers.size)
    model, base = (Ranking(answers, check_scores(one, answers.size), codes) for one in (scores, baseline_scores))
    sample, replicates = group_bootstrap(
        lambda weights: model.metrics(weights) - base.metrics(weights), n_groups, n, seed, max(1, BLOCK // answers.size)
    )
    names = ("auroc", "average_precision")
    return {name: Interval.from_replicates(*both) for name, *both in zip(names, sample, replicates, strict=True)}


def bootstrap_mean_auroc(
    samples: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
    baselines: Sequence[ArrayLike] | None = None,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean AUROC over seeds, or mean gain over a baseline, with an interval that resamples each group once for all seeds.

    A lesion that several seeds test is one lesion: it is drawn or left out in all of them together, so the interval is not
    narrowed by counting it several times. It covers the choice of cases, not the choice of seeds.

    Args:
        samples: for each seed ``(targets, scores, groups)``, shape ``(N_s,)`` each; a group has one name across seeds.
        baselines: for each seed the scores to beat, shape ``(N_s,)``; with them the result is the mean difference.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        The mean (difference) and its percentile interval; its ends are NaN where every resample gives the same, as of perfect
        rankings.

    Raises:
        ValueError: for no samples, unequal lengths, or input that has no AUROC.
    """
    if not samples or (baselines is not None and len(baselines) != len(samples)):
        got = 0 if baselines is None else len(baselines)
        raise ValueError(f"expected as many baselines as samples and at least one, got {got}, {len(samples)}")
    against = [] if baselines is None else baselines
    names = np.unique(np.concatenate([np.asarray(groups, dtype=str) for _, _, groups in samples]))
    signed = [(+1, *sample) for sample in samples]
    signed += [(-1, targets, scores, groups) for (targets, _, groups), scores in zip(samples, against, strict=False)]
    rankings = []
    for sign, targets, scores, groups in signed:
        answers = check_targets(targets)
        codes = names.searchsorted(np.asarray(groups, dtype=str))
        if codes.size != answers.size:
            raise ValueError(f"groups expect one name a case, got {codes.size} for {answers.size} cases")
        rankings.append((sign, Ranking(answers, check_scores(scores, answers.size), codes)))
    value, replicates = group_bootstrap(
        lambda weights: np.sum([sign * one.metrics(weights)[0] for sign, one in rankings], axis=0) / len(samples),
        names.size, n, seed,
    )  # fmt: skip
    interval = Interval.from_replicates(float(value), replicates)
    # No resample of a perfect ranking is anything else, which is no certainty about the next cases.
    return replace(interval, low=np.nan, high=np.nan) if interval.value == interval.low == interval.high else interval


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
