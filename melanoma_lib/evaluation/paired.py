"""Is one model better than another, on the same cases or over several splits? Bootstrap by groups, and the DeLong test."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.evaluation.intervals import Interval, group_bootstrap, group_codes
from melanoma_lib.evaluation.operating import Ranking, check_scores, check_targets

Sample = tuple[ArrayLike, ArrayLike, ArrayLike]  # targets, scores and groups, shape (N,) each


def bootstrap_gain(
    targets: ArrayLike, scores: ArrayLike, baseline_scores: ArrayLike, groups: ArrayLike, n: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """What ``scores`` gain over ``baseline_scores`` on the same cases, with both seen in the same resamples.

    ``baseline_scores``, shape ``(N,)``, are those of what it should beat, say of metadata alone; the rest as of `rate_intervals`.
    "auroc" is the difference (model - baseline).
    """
    return {"auroc": _mean_auroc([(targets, scores, groups)], [baseline_scores], n, seed)}


def bootstrap_mean_auroc(
    samples: Sequence[Sample], baselines: Sequence[ArrayLike] = (), n: int = 2000, seed: int = 0
) -> Interval:
    """Mean AUROC over seeds, or mean gain over a baseline, with an interval that resamples each group once for all seeds.

    A lesion that several seeds test is one lesion: it is drawn or left out in all of them together, so the interval is not
    narrowed by counting it several times. It covers the choice of cases, not the choice of seeds.

    Args:
        samples: for each seed ``(targets, scores, groups)``, shape ``(N_s,)`` each; a group has one name across seeds.
        baselines: for each seed the scores to beat, shape ``(N_s,)``; with them the result is the mean difference.
        n: number of resamples.
        seed: of the resampling.

    The ends are NaN where every resample gives the same, as of perfect rankings: no certainty about the next cases.
    """
    interval = _mean_auroc(samples, baselines, n, seed)
    return replace(interval, low=np.nan, high=np.nan) if interval.value == interval.low == interval.high else interval


def _mean_auroc(samples: Sequence[Sample], baselines: Sequence[ArrayLike], n: int, seed: int) -> Interval:
    """Mean over samples, less that of the baselines where there are any."""
    if not samples or len(baselines) not in (0, len(samples)):
        raise ValueError(f"expected at least one sample, and a baseline for each or none, got {len(samples)}, {len(baselines)}")
    signed = [(+1, *sample) for sample in samples]
    signed += [(-1, targets, scores, groups) for (targets, _, groups), scores in zip(samples, baselines, strict=False)]
    for targets, _, groups in samples:
        group_codes(groups, len(targets))  # or the error says what is wrong with them
    names, rankings = np.unique(np.concatenate([groups for *_, groups in samples])), []
    for sign, targets, scores, groups in signed:
        answers = check_targets(targets)
        rankings.append((sign, Ranking(answers, check_scores(scores, answers.size), names.searchsorted(groups))))

    def mean(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return sum(sign * one.metrics(weights)[0] for sign, one in rankings) / len(samples)

    return Interval.from_replicates(*group_bootstrap(mean, names.size, n, seed))


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

    DeLong et al. 1988 in the form of Sun and Xu 2014. It takes the images to be independent: with several images of one lesion
    or patient it is too sure of itself, and `bootstrap_gain` is right. Without variance p is 1 for equal AUROCs, else 0.
    """
    from scipy.stats import norm, rankdata

    answers = check_targets(targets)
    n_melanomas, n_negatives = int(answers.sum()), int((~answers).sum())
    if min(n_melanomas, n_negatives) < 2:
        raise ValueError(f"targets: expected at least 2 cases of each class, got {n_melanomas} and {n_negatives}")
    wins, losses = [], []
    for name, scores in (("scores_a", scores_a), ("scores_b", scores_b)):
        values = check_scores(scores, answers.size, name)
        ranks = rankdata(values)
        # Share of the other class that each case beats: overall rank less rank within its own class.
        wins.append((ranks[answers] - rankdata(values[answers])) / n_negatives)  # (P,)
        losses.append(1 - (ranks[~answers] - rankdata(values[~answers])) / n_melanomas)  # (Q,)
    auroc_a, auroc_b = float(wins[0].mean()), float(wins[1].mean())
    difference = auroc_a - auroc_b
    variance = np.var(wins[0] - wins[1], ddof=1) / n_melanomas + np.var(losses[0] - losses[1], ddof=1) / n_negatives
    error = float(np.sqrt(variance))
    z = difference / error if error > 0 else float(np.sign(difference) * np.inf if difference else 0.0)
    return DeLongResult(auroc_a, auroc_b, difference, error, float(z), float(2 * norm.sf(abs(z))))
