"""Thresholds: one sort and a binary search against scikit-learn's metrics computed anew, alone and in a grouped bootstrap.

    python -m tests.bench.thresholds

Kit and peer give the same numbers, which is checked.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score, roc_auc_score

from melanoma_lib.evaluation import OperatingCurve, rate_intervals
from tests.bench.turns import options, take_turns

ISIC2020 = (33_126, 2_056, 584)  # images, patients and melanomas of the published training set
AT_ONCE = 100  # thresholds that the kit answers a round; scikit-learn answers one, and its time is scaled
PEER_REPLICATES = 3  # resamples that scikit-learn computes a round; its time is scaled to the kit's number


def predictions(n: int) -> tuple[NDArray, NDArray, NDArray]:
    """Targets, scores with ties, and patients of ``n`` images in the proportions of ISIC 2020, shape ``(n,)`` each."""
    images, patients, melanomas = ISIC2020
    rng = np.random.default_rng(0)
    targets = rng.permutation(np.arange(n) < n * melanomas // images).astype(int)
    scores = np.round(1 / (1 + np.exp(4 - 2 * targets - rng.normal(size=n))), 4)
    sought = rng.gamma(1.0, size=n * patients // images)
    return targets, scores, rng.choice(len(sought), n, p=sought / sought.sum())


def at_threshold(targets: NDArray, scores: NDArray, threshold: float) -> list[float]:
    """scikit-learn's four counts, sensitivity, specificity, precision and F1."""
    called = scores >= threshold
    recalls = recall_score(targets, called), recall_score(targets, called, pos_label=0)
    return [*confusion_matrix(targets, called).ravel(), *recalls, precision_score(targets, called), f1_score(targets, called)]


def main(words: list[str] | None = None) -> list[pd.DataFrame]:
    given = options(__doc__, words, n=400_000, replicates=1_000, rounds=5)
    targets, scores, _ = predictions(given.n)
    curve, asked = OperatingCurve(targets, scores), np.quantile(scores, np.linspace(0.5, 0.999, AT_ONCE))
    for threshold in asked[:: AT_ONCE // 3]:
        p = curve.at(float(threshold))
        mine = [p.tn, p.fp, p.fn, p.tp, p.sensitivity, p.specificity, p.ppv, p.f1]
        np.testing.assert_allclose(mine, at_threshold(targets, scores, threshold), atol=1e-9)
    at_once = {
        "kit": lambda: [curve.at(float(threshold)) for threshold in asked],
        "scikit-learn": lambda: at_threshold(targets, scores, asked[0]),
    }

    small_targets, small_scores, groups = predictions(min(given.n, ISIC2020[0]))
    threshold, rows = float(np.median(small_scores)), pd.Series(range(len(groups))).groupby(groups).agg(np.array)
    rng = np.random.default_rng(0)

    def resample() -> None:
        for _ in range(PEER_REPLICATES):
            drawn = np.concatenate(rows.iloc[rng.integers(0, len(rows), len(rows))].to_list())
            at_threshold(small_targets[drawn], small_scores[drawn], threshold)
            roc_auc_score(small_targets[drawn], small_scores[drawn])

    resampled = {
        "kit": lambda: rate_intervals(small_targets, small_scores, groups, threshold, n=given.replicates),
        "scikit-learn": resample,
    }
    what = f"{given.replicates:,} resamples of {len(rows):,} patients, {len(groups):,} predictions"
    return [
        take_turns(f"{AT_ONCE} thresholds, {given.n:,} predictions", at_once, given.rounds, 1 / AT_ONCE),
        take_turns(what, resampled, given.rounds, PEER_REPLICATES / given.replicates),
    ]


if __name__ == "__main__":
    main()
