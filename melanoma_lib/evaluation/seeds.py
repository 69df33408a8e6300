"""A score averaged over seeds whose test splits share patients or lesions: how sure is the mean?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from melanoma_lib.evaluation.inputs import check_fraction, check_scores, check_targets
from melanoma_lib.evaluation.intervals import Interval, _Ranking, resample_groups

BLOCK = 64  # resamples held at once


def bootstrap_mean_auroc(
    samples: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
    baselines: Sequence[ArrayLike] | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean AUROC over seeds, or mean gain over a baseline, with an interval that resamples each group once for all seeds.

    A lesion that several seeds test is one lesion: it is drawn or left out in all of them together, so the interval is not
    narrowed by counting it several times. It covers the choice of cases, not the choice of seeds.

    Args:
        samples: for each seed ``(targets, scores, groups)``, shape ``(N_s,)`` each; a group has one name across seeds.
        baselines: for each seed the scores to beat, shape ``(N_s,)``; with them the result is the mean difference.
        n: number of resamples.
        seed: of the resampling.
        level: coverage aimed at.

    Returns:
        The mean (difference) and its percentile interval; its ends are NaN where every resample gives the same, as of perfect
        rankings.

    Raises:
        ValueError: for no samples, unequal lengths, or input that has no AUROC.
    """
    check_fraction(level, "level")
    if not samples or (baselines is not None and len(baselines) != len(samples)):
        raise ValueError(f"expected as many baselines as samples and at least one, got {len(baselines or [])}, {len(samples)}")
    groups = np.unique(np.concatenate([np.asarray(sample[2], dtype=str) for sample in samples]))
    signed = [(+1, *sample) for sample in samples]
    if baselines is not None:
        signed += [(-1, targets, scores, names) for (targets, _, names), scores in zip(samples, baselines, strict=True)]
    rankings = []
    for sign, targets, scores, names in signed:
        answers = check_targets(targets)
        codes = groups.searchsorted(np.asarray(names, dtype=str))
        if codes.size != answers.size:
            raise ValueError(f"groups expect one name a case, got {codes.size} for {answers.size} cases")
        rankings.append((sign, _Ranking(answers, check_scores(scores, answers.size), codes)))

    def mean(weights: np.ndarray) -> np.ndarray:
        parts = [sign * ranking.metrics(weights)["auroc"] for sign, ranking in rankings]
        return np.sum(parts, axis=0) / len(samples)  # (B,)

    value = float(mean(np.ones((1, groups.size), dtype=np.int64))[0])
    replicates = np.concatenate([mean(weights) for weights in resample_groups(groups.size, n, seed, BLOCK)])
    interval = Interval.from_replicates(value, replicates, level)
    # No resample of a perfect ranking is anything else, which is no certainty about the next cases.
    return replace(interval, low=np.nan, high=np.nan) if value == interval.low == interval.high else interval
