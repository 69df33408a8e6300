"""The cross-validation lesson: a quick model on many splits, with and without a leak."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.data import DermoscopyDataModule, MetadataEncoder, split_cases
from melanoma_lib.data.splits import fold_cases
from melanoma_lib.errors import RunError
from melanoma_lib.evaluation import Interval, OperatingCurve, bootstrap_mean_auroc, rate_intervals
from melanoma_lib.heads import cached_features
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings

# C of the quick model: weak features in their hundreds need a strong penalty; chosen before any split was looked at.
PENALTY = 0.01


# --- a model that takes a blink -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuickCases:
    """Cases as the quick model sees them.

    Attributes:
        cases: case table, ``N`` rows.
        features: float32, shape ``(N, F)``: what a network that was never trained for skin sees of each picture, then age, sex
            and site.
        n_image: how many of the columns come from the picture.
    """

    cases: pd.DataFrame
    features: NDArray[np.float32] = field(repr=False)
    n_image: int

    @property
    def targets(self) -> NDArray[np.int64]:
        """1 melanoma, 0 not; shape ``(N,)``."""
        return self.cases["target"].to_numpy()

    def logits(self, train: NDArray[np.bool_], test: NDArray[np.bool_], inputs: str = "image+metadata") -> NDArray[np.float64]:
        """Fit a logistic regression on some rows and answer others.

        Args:
            train: rows to fit on, shape ``(N,)``.
            test: rows to answer, shape ``(N,)``.
            inputs: ``image+metadata``, ``image`` or ``metadata``.

        Returns:
            Log-odds of the rows to answer, in their order.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        part = {"image+metadata": slice(None), "image": slice(0, self.n_image), "metadata": slice(self.n_image, None)}[inputs]
        solver = LogisticRegression(C=PENALTY, max_iter=1000, solver="newton-cg")  # closer than L-BFGS, in a seventh of the time
        model = make_pipeline(StandardScaler(), solver).fit(self.features[train, part], self.targets[train])
        return model.decision_function(self.features[test, part])

    def fit(self, cases: pd.DataFrame) -> Callable[[pd.DataFrame], NDArray[np.float64]]:
        """A quick model fitted on some of the cases: a function from cases to their log-odds.

        Args:
            cases: rows of ``cases``, with their index.
        """
        taught = self.cases.index.isin(cases.index)
        answers = pd.Series(self.logits(taught, np.ones_like(taught)), index=self.cases.index)
        return lambda asked: answers.loc[asked.index].to_numpy()


def quick_cases(settings: Settings) -> QuickCases:
    """Look at every picture once with a network that only knows ImageNet; what it saw is kept in the cache folder.

    Args:
        settings: source, backbone, image size; ``pretrained`` false takes random weights.

    Raises:
        DataError: if the source cannot be read.
        WeightsUnavailableError: if pretrained weights are not to be had.
    """
    import torch

    from melanoma_lib.model import MelanomaNet

    data = DermoscopyDataModule(settings.with_changes(modalities="image"))
    with torch.random.fork_rng(devices=[]):  # the cache knows the features by all weights, those of the unused head included
        torch.manual_seed(0)
        model = MelanomaNet(settings.backbone, data.encoder.n_features, settings.pretrained, "image")
    table = cached_features(model.to(memory_format=torch.channels_last), data)
    told = MetadataEncoder(age_mean=0.0, age_std=1.0).transform(data.cases)  # scaled where the model is fitted, by its own cases
    return QuickCases(data.cases, np.hstack([table.features, told]), table.n_image)


def quick_answers(quick: QuickCases, run: Run) -> NDArray[np.float64]:
    """Log-odds of a run's test cases by a quick model that was taught on the run's training cases, in the run's order.

    Args:
        quick: the cases that the run knows.
        run: a finished run.

    Raises:
        RunError: if the run was trained on other cases.
    """
    split = run.splits.set_index("image_id")["split"].reindex(quick.cases["image_id"])
    if split.isna().any() or len(run.splits) != len(quick.cases):
        raise RunError(f"{run.path} was trained on other cases than these {len(quick.cases):,}; take its own settings")
    train, test = ((split == name).to_numpy() for name in ("train", "test"))
    answers = pd.Series(quick.logits(train, test), index=quick.cases.loc[test, "image_id"])
    return answers.loc[run.predictions("test")["image_id"]].to_numpy()


# --- many splits --------------------------------------------------------------------------------------------------------------


def single_splits(quick: QuickCases, n: int = 100, seed: int = 0) -> pd.DataFrame:
    """The same model on one random grouped split after another.

    Args:
        quick: the cases.
        n: number of splits.
        seed: of the first.

    Returns:
        One row a split: ``auroc``, ``melanomas`` and ``others`` among its test images.
    """
    rows = []
    for number in range(seed, seed + n):
        test = (split_cases(quick.cases, seed=number) == "test").to_numpy()
        curve = OperatingCurve(quick.targets[test], quick.logits(~test, test))
        rows.append({"auroc": curve.auroc, "melanomas": curve.n_positive, "others": curve.n_negative})
    return pd.DataFrame(rows)


def first_split(quick: QuickCases, seed: int = 0, n: int = 500) -> Interval:
    """AUROC of the first of these splits, with the interval that a report would print: whole patients or lesions resampled."""
    test = (split_cases(quick.cases, seed=seed) == "test").to_numpy()
    groups = quick.cases.loc[test, "group_id"]
    return rate_intervals(quick.targets[test], quick.logits(~test, test), groups, n=n)["auroc"]


def best_of(values: ArrayLike, n: int) -> float:
    """Mean of the best of ``n`` values drawn without replacement.

    Of the ``k``-th smallest among ``N``, a share ``C(k - 1, n - 1) / C(N, n)`` of all draws has it for its largest.

    Args:
        values: shape ``(N,)``.
        n: 1 to ``N``.

    Raises:
        ValueError: if ``n`` is out of range.
    """
    from scipy.special import comb

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not 1 <= n <= ordered.size:
        raise ValueError(f"n: expected 1 to {ordered.size}, got {n}")
    weights = comb(np.arange(ordered.size), n - 1) / comb(ordered.size, n)
    return float(ordered @ weights)


@dataclass(frozen=True)
class Leak:
    """What it is worth to a model that siblings of its test images taught it.

    Attributes:
        by_image: AUROC of each repetition when images are dealt one by one, shape ``(R,)``.
        by_group: AUROC of the same images when whole patients or lesions are, shape ``(R,)``.
        difference: mean of by_image - by_group, with an interval that resamples whole groups.
        known: share of the melanomas of which training held a sibling when images were dealt.
    """

    by_image: NDArray[np.float64]
    by_group: NDArray[np.float64]
    difference: Interval
    known: float


def leak(quick: QuickCases, repeats: int = 10, folds: int = 5, n: int = 500, seed: int = 0) -> Leak:
    """Cross-validate the same cases twice, folds dealt by image and by group, with as many cases to learn from.

    Each case is tested once in every repetition of both ways, so both AUROCs are of the same images.

    Args:
        quick: the cases.
        repeats: R, random deals of each kind.
        folds: of a deal.
        n: resamples behind the interval.
        seed: of the first deal and of the resamples.
    """
    cases, melanoma = quick.cases, quick.targets == 1
    alone = cases.assign(group_id=cases["image_id"])
    aurocs, scores, known = {"by_image": [], "by_group": []}, {"by_image": [], "by_group": []}, []
    for number in range(seed, seed + repeats):
        for name, table in (("by_image", alone), ("by_group", cases)):
            answers = np.empty(len(cases))
            for fold in range(1, folds + 1):
                test = (fold_cases(table, folds, fold, number) == "test").to_numpy()
                answers[test] = quick.logits(~test, test)
                if name == "by_image":
                    known.append(np.isin(cases["group_id"][test & melanoma], cases["group_id"][~test]))
            scores[name].append(answers)
            aurocs[name].append(OperatingCurve(quick.targets, answers).auroc)
    samples = [(quick.targets, answers, cases["group_id"]) for answers in scores["by_image"]]
    difference = bootstrap_mean_auroc(samples, scores["by_group"], n, seed)
    return Leak(np.array(aurocs["by_image"]), np.array(aurocs["by_group"]), difference, float(np.concatenate(known).mean()))


# --- every case once ----------------------------------------------------------------------------------------------------------


def roles_of(cases: pd.DataFrame, folds: int = 5, seed: int = 0) -> list[pd.Series]:
    """``train``, ``val`` or ``test`` of every case, one series a fold."""
    return [fold_cases(cases, folds, fold, seed) for fold in range(1, folds + 1)]


def out_of_fold(
    quick: QuickCases, roles: Sequence[pd.Series], min_sensitivity: float, inputs: str = "image+metadata"
) -> pd.DataFrame:
    """Every case answered once, by a model that has seen nothing of its patient or lesion, with its fold's own decision.

    Args:
        quick: the cases.
        roles: from ``roles_of``.
        min_sensitivity: that each fold's threshold must reach on its validation cases.
        inputs: as in ``QuickCases.logits``.

    Returns:
        image_id, group_id, target, fold (from 1), logit, threshold and called, one row a case, in the order of the cases.
    """
    parts = []
    for fold, role in enumerate(roles, 1):
        train, val, test = ((role == name).to_numpy() for name in ("train", "val", "test"))
        answers = quick.logits(train, np.ones_like(train), inputs)
        threshold = OperatingCurve(quick.targets[val], answers[val]).for_sensitivity(min_sensitivity).threshold
        columns = {"fold": fold, "logit": answers[test], "threshold": threshold, "called": answers[test] >= threshold}
        parts.append(quick.cases.loc[test, ["image_id", "group_id", "target"]].assign(**columns))
    return pd.concat(parts).loc[quick.cases.index]


def fold_table(answers: pd.DataFrame, n: int = 500) -> pd.DataFrame:
    """Each fold's test as text: size, AUROC with interval, and what its own threshold did; at the end the mean of the folds.

    Args:
        answers: from ``out_of_fold``.
        n: resamples behind each interval.
    """
    parts = {f"fold {fold}": part for fold, part in answers.groupby("fold")}
    samples = [(part["target"], part["logit"], part["group_id"]) for part in parts.values()]
    called = answers.groupby(["target", "fold"])["called"].mean().unstack(0)  # by fold, of others (0) and of melanomas (1)
    table = pd.DataFrame(
        {
            "images": [f"{len(part):,}" for part in parts.values()],
            "melanomas": [f"{part['target'].sum():,}" for part in parts.values()],
            "AUROC": [f"{bootstrap_mean_auroc([sample], n=n):.3f}" for sample in samples],
            "threshold (log-odds)": [f"{part['threshold'].iloc[0]:+.2f}" for part in parts.values()],
            "sensitivity": [f"{share:.1%}" for share in called[1]],
            "specificity": [f"{1 - share:.1%}" for share in called[0]],
        },
        index=list(parts),
    )
    auroc, shares = f"{bootstrap_mean_auroc(samples, n=n):.3f}", (called[1].mean(), 1 - called[0].mean())
    table.loc["mean of folds"] = ["", "", auroc, "", *(f"{share:.1%}" for share in shares)]
    return table


def fold_aurocs(answers: pd.DataFrame, scores: ArrayLike | None = None) -> tuple[float, float]:
    """Mean of the folds' AUROCs, and the AUROC of all answers thrown together.

    Args:
        answers: from ``out_of_fold``.
        scores: in place of its logits, shape ``(N,)``.
    """
    table = answers.assign(score=answers["logit"] if scores is None else np.asarray(scores))
    each = [OperatingCurve(part["target"], part["score"]).auroc for _, part in table.groupby("fold")]
    return float(np.mean(each)), OperatingCurve(table["target"], table["score"]).auroc


def moved_scales(answers: pd.DataFrame, by: float = 1.0) -> NDArray[np.float64]:
    """Log-odds as if each fold's model had a scale of its own: fold 1 stays, the next move by ``by``, -``by``, 2 ``by``, ..."""
    folds = answers["fold"].to_numpy()
    return answers["logit"].to_numpy() + by * np.where(folds % 2, -1, 1) * (folds // 2)
