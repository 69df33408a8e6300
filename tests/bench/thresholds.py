"""Thresholds: one sort and a binary search against scikit-learn's metrics computed anew, alone and in a grouped bootstrap.

    python -m tests.bench.thresholds

Kit and peer give the same numbers, which is checked.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from melanoma_lib.evaluation import OperatingCurve, rate_intervals
from tests.bench.turns import options, take_turns

IMAGES, PATIENTS, MELANOMAS = 33_126, 2_056, 584  # of the published training set of ISIC 2020


def by_scikit_learn(targets: NDArray, scores: NDArray, threshold: float) -> list[float]:
    """Four counts, sensitivity, specificity, precision and F1."""
    called = scores >= threshold
    recalls = recall_score(targets, called), recall_score(targets, called, pos_label=0)
    return [*confusion_matrix(targets, called).ravel(), *recalls, precision_score(targets, called), f1_score(targets, called)]


def main(words: list[str] | None = None) -> list[pd.DataFrame]:
    given = options(__doc__, words, n=IMAGES, replicates=50, rounds=5)
    rng, n = np.random.default_rng(0), given.n
    targets = rng.permutation(np.arange(n) < n * MELANOMAS // IMAGES).astype(int)
    scores = np.round(1 / (1 + np.exp(4 - 2 * targets - rng.normal(size=n))), 4)  # with ties
    groups = rng.integers(0, n * PATIENTS // IMAGES, n)
    curve, asked = OperatingCurve(targets, scores), np.quantile(scores, np.linspace(0.5, 0.999, 100))
    for threshold in asked[::33]:
        p = curve.at(float(threshold))
        mine = [p.tn, p.fp, p.fn, p.tp, p.sensitivity, p.specificity, p.ppv, p.f1]
        np.testing.assert_allclose(mine, by_scikit_learn(targets, scores, threshold), atol=1e-9)
    threshold, rows = float(np.median(scores)), pd.Series(range(n)).groupby(groups).agg(np.array)

    def resample() -> None:
        for _ in range(given.replicates):
            drawn = np.concatenate(rows.sample(frac=1, replace=True).to_list())
            by_scikit_learn(targets[drawn], scores[drawn], threshold)

    at_once = {
        "kit": lambda: [curve.at(float(threshold)) for threshold in asked],
        "scikit-learn": lambda: [by_scikit_learn(targets, scores, threshold) for threshold in asked],
    }
    resampled = {
        "kit": lambda: rate_intervals(targets, scores, groups, threshold, n=given.replicates),
        "scikit-learn": resample,
    }
    return [
        take_turns(f"{len(asked)} thresholds, {n:,} predictions", at_once, given.rounds),
        take_turns(f"{given.replicates:,} resamples of {len(rows):,} patients, {n:,} predictions", resampled, given.rounds),
    ]


if __name__ == "__main__":
    main()
