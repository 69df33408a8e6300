"""Thresholds: one sort and a binary search against scikit-learn's metrics recomputed, alone and in a grouped bootstrap."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from melanoma_lib.bench.growth import growth_figure, measure_growth
from melanoma_lib.bench.rates import ROUNDS, in_words, result_and_seconds, verdict
from melanoma_lib.evaluation import OperatingCurve, bootstrap_replicates, resample_groups
from melanoma_lib.settings import Settings
from melanoma_lib.utils import replacing, write_text

GOALS = {"at": 1000.0, "curve": 0.5, "bootstrap": 50.0}  # times as fast as scikit-learn
N_PREDICTIONS = 400_000
ISIC2020 = (33_126, 2_056, 584)  # images, patients and melanomas of the published training set
N_REPLICATES = 2_000
PEER_REPLICATES = 3  # that scikit-learn computes a round
N_ASKED = 200  # thresholds the kit answers a round; scikit-learn answers the first
TOLERANCE = 1e-9


class Predictions(NamedTuple):
    """Answers, scores and patients of ``n`` images, each shape ``(n,)``."""

    targets: np.ndarray
    scores: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Duel:
    """Seconds of the kit and of its peer for the same work, one number a round.

    Attributes:
        work: what both did.
        kit: seconds a round.
        peer: seconds a round, in the same rounds.
        goal: how many times as fast as the peer the kit should be.
        difference: the largest between their answers.
    """

    work: str
    kit: list[float]
    peer: list[float]
    goal: float
    difference: float

    @property
    def ratio(self) -> float:
        """Median over rounds of the peer's seconds over the kit's."""
        return median(theirs / mine for mine, theirs in zip(self.kit, self.peer, strict=True))

    def __str__(self) -> str:
        """A row of the table."""
        met = verdict(self.ratio >= self.goal and self.difference <= TOLERANCE)
        times = f"{in_words(median(self.kit)):>12}{in_words(median(self.peer)):>14}{self.ratio:>12,.1f}"
        return f"{self.work:50}{times}{self.goal:>10,.1f}  {met:8}{self.difference:.0e}"


def bench_thresholds(settings: Settings, folder: Path = Path("reports")) -> str:
    """Any threshold, the whole curve and the grouped bootstrap against scikit-learn, and how their cost grows.

    Kit and peer take turns in one process. Of the bootstrap's replicates scikit-learn computes a sample, the very same
    resamples as the kit's, and its time is scaled to all of them.

    Args:
        settings: whose seed draws the predictions.
        folder: where the figure of growth goes, as PNG, with its description beside it.

    Returns:
        A table with each ratio and goal, and how the cost grows with the number of predictions.
    """
    many, cohort = predictions(N_PREDICTIONS, settings.seed), predictions(ISIC2020[0], settings.seed)
    duels = [duel_at(many), duel_curve(many), duel_bootstrap(cohort, settings.seed)]
    growth = measure_growth(lambda n: predictions(n, settings.seed))
    figure, path = growth_figure(growth), folder / "bench_thresholds.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    write_text(path.with_suffix(".txt"), figure.alt_text + "\n")
    heading = f"{'':50}{'kit':>12}{'scikit-learn':>14}{'times':>12}{'goal':>10}{'':10}differ by"
    about = (
        f"{ROUNDS} alternating rounds (medians). times: how many times as fast as scikit-learn, which computed "
        f"{ROUNDS * PEER_REPLICATES} of the {N_REPLICATES:,}\nreplicates, each compared with the kit's, and is scaled to all."
    )
    return "\n".join([heading, *map(str, duels), about, "", str(growth), f"figure: {path}"])


def predictions(n: int, seed: int) -> Predictions:
    """Predictions in the proportions of ISIC 2020: 1 melanoma in 57 images, 16 images a patient, some far more.

    Scores are risks of two overlapping normal populations, rounded to four digits so that ties occur.
    """
    images, patients, melanomas = ISIC2020
    n_patients, n_melanomas = max(2, n * patients // images), max(1, n * melanomas // images)
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(n) < n_melanomas).astype(int)
    scores = np.round(1 / (1 + np.exp(4 - 2 * targets - rng.normal(size=n))), 4)
    sought = rng.gamma(1.0, size=n_patients)
    others = rng.choice(n_patients, n - n_patients, p=sought / sought.sum())
    return Predictions(targets, scores, rng.permutation(np.concatenate([np.arange(n_patients), others])))


def duel_at(cases: Predictions) -> Duel:
    """One threshold: the four counts, sensitivity, specificity, precision and F1."""
    from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

    curve, targets = OperatingCurve(cases.targets, cases.scores), cases.targets
    asked = [float(threshold) for threshold in np.quantile(cases.scores, np.linspace(0.5, 0.999, N_ASKED))]

    def kit() -> list[tuple]:
        points = map(curve.at, asked)
        return [(p.tn, p.fp, p.fn, p.tp, p.sensitivity, p.specificity, p.ppv, p.f1) for p in points]

    def peer(threshold: float) -> tuple:
        called = cases.scores >= threshold
        recalls = recall_score(targets, called), recall_score(targets, called, pos_label=0)
        cells = confusion_matrix(targets, called).ravel()
        return *cells, *recalls, precision_score(targets, called), f1_score(targets, called)

    mine, theirs, difference = [], [], 0.0
    for number in np.linspace(0, N_ASKED - 1, ROUNDS).astype(int):
        answers, seconds = result_and_seconds(kit)
        answer, peer_seconds = result_and_seconds(lambda number=number: peer(asked[number]))
        mine.append(seconds / N_ASKED)
        theirs.append(peer_seconds)
        difference = max(difference, _furthest(answers[number], answer))
    return Duel(f"one threshold on {targets.size:,} predictions", mine, theirs, GOALS["at"], difference)


def duel_curve(cases: Predictions) -> Duel:
    """Every threshold at once: the curve against ``roc_curve``, which it should not take twice as long as."""
    from sklearn.metrics import roc_curve

    mine, theirs = [], []
    for _ in range(ROUNDS):
        curve, seconds = result_and_seconds(lambda: OperatingCurve(cases.targets, cases.scores))
        (fpr, tpr, thresholds), peer_seconds = result_and_seconds(lambda: roc_curve(cases.targets, cases.scores))
        mine.append(seconds)
        theirs.append(peer_seconds)
    points = curve.at(thresholds)
    difference = _furthest([1 - points.specificity, points.sensitivity], [fpr, tpr])
    return Duel(f"curve of {cases.targets.size:,} predictions, roc_curve", mine, theirs, GOALS["curve"], difference)


def duel_bootstrap(cases: Predictions, seed: int) -> Duel:
    """The grouped bootstrap of AUROC, sensitivity and specificity; the kit computes its other metrics along with them."""
    from sklearn.metrics import recall_score, roc_auc_score

    targets, scores, groups = cases
    names, codes = np.unique(groups, return_inverse=True)
    threshold = float(np.quantile(scores[targets == 1], 0.1))
    (drawn,) = resample_groups(names.size, N_REPLICATES, seed, N_REPLICATES)  # (N_REPLICATES, G)

    def peer(replicate: int) -> tuple[float, float, float]:
        rows = np.repeat(np.arange(targets.size), drawn[replicate, codes])
        truth, values = targets[rows], scores[rows]
        called = values >= threshold
        return roc_auc_score(truth, values), recall_score(truth, called), recall_score(truth, called, pos_label=0)

    mine, theirs, difference = [], [], 0.0
    for sample in np.linspace(0, N_REPLICATES - 1, ROUNDS * PEER_REPLICATES).astype(int).reshape(ROUNDS, -1):
        (_, replicates), seconds = result_and_seconds(
            lambda: bootstrap_replicates(targets, scores, groups, threshold, N_REPLICATES, seed)
        )
        answers, peer_seconds = result_and_seconds(lambda sample=sample: [peer(replicate) for replicate in sample])
        mine.append(seconds)
        theirs.append(peer_seconds / PEER_REPLICATES * N_REPLICATES)
        kept = [replicates[name][sample] for name in ("auroc", "sensitivity", "specificity")]
        difference = max(difference, _furthest(np.transpose(kept), answers))
    work = f"{N_REPLICATES:,} replicates, {targets.size:,} rows, {names.size:,} patients"
    return Duel(work, mine, theirs, GOALS["bootstrap"], difference)


def _furthest(mine: ArrayLike, theirs: ArrayLike) -> float:
    return float(np.abs(np.asarray(mine) - np.asarray(theirs)).max())
