"""Does a ranking hold within each camera or clinic, or does it live on the differences between them?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.evaluation.inputs import check_fraction, check_scores, check_targets
from melanoma_lib.evaluation.intervals import Interval, _Ranking, resample_groups
from melanoma_lib.evaluation.seeds import BLOCK


class StratifiedAuroc(NamedTuple):
    """A pooled AUROC taken apart; each the mean over samples.

    Attributes:
        pooled: over all pairs of a melanoma and another case.
        within: over the pairs whose two cases are of one stratum.
        between: over the pairs of two strata, which whoever tells the strata apart can rank.
        excess: pooled minus within: what the strata lend to the pooled number.
        share_between: share of all pairs that are of two strata.
    """

    pooled: Interval
    within: Interval
    between: Interval
    excess: Interval
    share_between: float


def stratified_auroc(
    samples: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]], n: int = 2000, seed: int = 0, level: float = 0.95
) -> StratifiedAuroc:
    """Take a pooled AUROC apart into pairs within strata and pairs between them.

    An AUROC is the share of pairs, a melanoma and another case, that are ranked rightly. Where strata differ in prevalence, most
    pairs are of two strata, and a model may rank those by the stratum alone. Pairs count as often as they occur, so that
    ``pooled = (1 - share_between) * within + share_between * between`` in each sample.

    Args:
        samples: for each model or fold ``(targets, scores, groups, strata)``, shape ``(N_s,)`` each; a group has one name
            throughout, and is drawn or left out in all samples together.
        n: number of resamples of whole groups.
        seed: of the resampling.
        level: coverage aimed at.

    Raises:
        ValueError: for no samples, unequal lengths, or input that has no AUROC, within strata or at all.
    """
    check_fraction(level, "level")
    if not samples:
        raise ValueError("samples: expected at least one, got none")
    names = np.unique(np.concatenate([np.asarray(sample[2], dtype=str) for sample in samples]))
    prepared = [_Strata(*sample, names) for sample in samples]

    def parts(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.mean([one.parts(weights) for one in prepared], axis=0)  # (S, 5, B) -> (5, B)

    sample = parts(np.ones((1, names.size), dtype=np.int64))[:, 0]
    drawn = np.concatenate([parts(weights) for weights in resample_groups(names.size, n, seed, BLOCK)], axis=1)
    intervals = [Interval.from_replicates(float(value), row, level) for value, row in zip(sample[:4], drawn, strict=False)]
    return StratifiedAuroc(*intervals, share_between=float(sample[4]))


class _Strata:
    """One sample's ranking, whole and by stratum."""

    def __init__(self, targets: ArrayLike, scores: ArrayLike, groups: ArrayLike, strata: ArrayLike, names: NDArray) -> None:
        answers = check_targets(targets)
        values, of = check_scores(scores, answers.size), np.asarray(strata)
        codes = names.searchsorted(np.asarray(groups, dtype=str))
        if codes.size != answers.size or of.shape != answers.shape:
            raise ValueError(f"expected {answers.size} groups and strata, one a case, got {codes.size} and {of.size}")
        self.whole = _Ranking(answers, values, codes)
        rows = [of == stratum for stratum in np.unique(of)]
        self.own = [_Ranking(answers[r], values[r], codes[r]) for r in rows if answers[r].any() and not answers[r].all()]
        if not self.own:
            raise ValueError("strata: expected one with both classes, got none; within strata there is no pair to rank")

    def parts(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """Pooled, within, between, excess and the share of pairs between: ``(B, G)`` to ``(5, B)``; NaN where undefined."""
        pairs, wins = _pairs_and_wins(self.whole, weights)
        own_pairs, own_wins = np.sum([_pairs_and_wins(one, weights) for one in self.own], axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            pooled, within = wins / pairs, own_wins / own_pairs
            between = (wins - own_wins) / (pairs - own_pairs)
            return np.stack([pooled, within, between, pooled - within, 1 - own_pairs / pairs])


def _pairs_and_wins(ranking: _Ranking, weights: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    drawn = weights[:, : ranking.n_groups].T.astype(np.float64)  # (G, B)
    pairs = (ranking.melanomas @ drawn).sum(axis=0) * (ranking.others @ drawn).sum(axis=0)  # (B,)
    return pairs, np.nan_to_num(ranking.metrics(weights)["auroc"]) * pairs
