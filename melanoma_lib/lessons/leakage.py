"""What a split by image leaks: siblings on both sides of it, and what they are worth to a classifier that remembers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from melanoma_lib.data.splits import audit_leakage
from melanoma_lib.evaluation.canvas import BLUE, GREY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.evaluation.intervals import Interval
from melanoma_lib.evaluation.seeds import bootstrap_mean_auroc
from melanoma_lib.lessons.eda import WIDTH, nothing_to_show
from melanoma_lib.lessons.eda_pictures import Pictures

FEW = 50  # pictured melanomas below which the worth of siblings is not measured


def leakage_over_splits(cases: pd.DataFrame, n_splits: int = 30, seed: int = 0) -> pd.DataFrame:
    """Audit one random split after another.

    Args:
        cases: case table.
        n_splits: number of splits of each kind.
        seed: of the first.

    Returns:
        One row a split: ``by_image`` and ``by_group``, the share of test melanomas of which training holds another image of
        the same group, when images or whole groups are split.

    Raises:
        DataError: as `split_cases`.
    """
    audits = [audit_leakage(cases, seed=seed + i, n_splits=1) for i in range(n_splits)]
    both = [(audit.by_image["group"]["melanomas"], audit.by_group["group"]["melanomas"]) for audit in audits]
    return pd.DataFrame(both, columns=["by_image", "by_group"])


def leakage_figure(leakage: pd.DataFrame, guess: float | None = None, unit: str = "group") -> DescribedFigure:
    """Every split as a dot, image-level above grouped, and the reader's guess as a line.

    Args:
        leakage: from `leakage_over_splits`.
        guess: share in [0, 1] that the reader expected of image-level splits.
        unit: what the groups are.
    """
    kinds = {"by_image": ("images split\nat random", VERMILLION), "by_group": (f"whole {unit}s\nsplit", BLUE)}
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(leakage))
    with kit_figure(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for y, (column, (_, colour)) in enumerate(kinds.items()):
            axes.plot(leakage[column], y + jitter, "o", color=colour, markersize=8, alpha=0.55, markeredgewidth=0)
            axes.annotate(
                f"mean {leakage[column].mean():.1%}", (leakage[column].mean(), y - 0.3), ha="center", fontsize=15, color=colour
            )
        if guess is not None:
            axes.axvline(guess, color=GREY, linestyle="--")
            axes.annotate(f"your guess {guess:.0%}", (guess, 1.45), xytext=(6, 0), textcoords="offset points", color=GREY)
        axes.set(xlim=(-0.09, 1.09), ylim=(1.6, -0.6))
        axes.set_xlabel(f"test melanomas of whose {unit} training holds another image ({len(leakage)} splits)")
        axes.set_yticks(range(2), [label for label, _ in kinds.values()])
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.grid(visible=False, axis="y")
    image, group = (leakage[column] for column in kinds)
    return describe(
        figure,
        f"""Share of test melanomas of whose {unit} training holds another image, mean of {len(leakage)} random splits:
        {image.mean():.3f} ({image.min():.3f} to {image.max():.3f}) by image, {group.mean():.3f} by whole {unit}s.""",
    )


@dataclass(frozen=True)
class SiblingEffect:
    """What siblings in training are worth to a classifier that remembers pictures.

    Attributes:
        with_siblings: AUROC of each split whose training holds siblings of the test pictures, shape ``(S,)``.
        strangers_only: AUROC of the same test pictures when training holds none, shape ``(S,)``.
        gain: mean difference, with an interval that resamples groups.
        recognised: share of test pictures with a sibling in training whose most similar training picture is a sibling.
    """

    with_siblings: np.ndarray
    strangers_only: np.ndarray
    gain: Interval
    recognised: float


def sibling_effect(pictures: Pictures, n_splits: int = 10, n: int = 500, seed: int = 0) -> SiblingEffect | None:
    """Test the same pictures twice: with siblings of theirs in training, and with strangers alone.

    A third of the groups is tested, on half of each one's pictures. The other halves either stay away, or take the place of as
    many strangers of the same class, so that both trainings are of one size and prevalence. The classifier asks the five
    pictures of most similar colours.

    Args:
        pictures: from `look_at_pictures`.
        n_splits: number of random splits.
        n: resamples behind the interval.
        seed: of the splits and the resamples.

    Returns:
        The effect; None where fewer than 50 melanomas are pictured or no group has two pictures.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.neighbors import KNeighborsClassifier

    targets, groups = pictures.table["target"].to_numpy(), pictures.table["group_id"].to_numpy(str)
    if targets.sum() < FEW or len(set(groups)) == len(groups):
        return None
    samples, baselines, recognised = [], [], []
    for rng in np.random.default_rng(seed).spawn(n_splits):
        test, siblings, strangers = _sibling_split(targets, groups, rng)
        mixed = _swap_in(siblings, strangers, targets, rng)
        scores = []
        for training in (mixed, strangers):
            model = KNeighborsClassifier(5, weights="distance").fit(pictures.colours[training], targets[training])
            scores.append(model.predict_proba(pictures.colours[test])[:, 1])
            if training is mixed:
                nearest = groups[mixed][model.kneighbors(pictures.colours[test], 1, return_distance=False)[:, 0]]
                known = np.isin(groups[test], groups[siblings])
                recognised.extend((nearest == groups[test])[known])
        samples.append((targets[test], scores[0], groups[test]))
        baselines.append(scores[1])
    return SiblingEffect(
        np.array([roc_auc_score(answers, scores) for answers, scores, _ in samples]),
        np.array([roc_auc_score(sample[0], scores) for sample, scores in zip(samples, baselines, strict=True)]),
        bootstrap_mean_auroc(samples, baselines, n, seed),
        float(np.mean(recognised)),
    )


def _sibling_split(
    targets: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to test, their siblings, and the rows of all other groups."""
    rows = pd.DataFrame({"group": groups, "target": targets}).sample(frac=1, random_state=rng)
    holds_melanoma = rows.groupby("group")["target"].max().sample(frac=1, random_state=rng)
    tested = holds_melanoma[holds_melanoma.groupby(holds_melanoma).cumcount() % 3 == 0].index
    place, size = rows.groupby("group").cumcount(), rows.groupby("group")["target"].transform("size")
    inside = rows["group"].isin(tested)
    test = inside & (place < np.maximum(size // 2, 1))
    return tuple(np.sort(rows.index[chosen]) for chosen in (test, inside & ~test, ~inside))


def _swap_in(siblings: np.ndarray, strangers: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Siblings in place of as many strangers of the same class."""
    parts = []
    for kind in (0, 1):
        family = rng.permutation(siblings[targets[siblings] == kind])
        others = rng.permutation(strangers[targets[strangers] == kind])
        parts += [family[: len(others)], others[len(family) :]]
    return np.concatenate(parts)


def sibling_figure(effect: SiblingEffect | None) -> DescribedFigure:
    """Both AUROCs of each split, joined, and what siblings gained on average."""
    if effect is None:
        return nothing_to_show(f"Not measured: fewer than {FEW} melanomas are pictured here, or no two pictures belong together.")
    both = np.stack([effect.strangers_only, effect.with_siblings])  # (2, S)
    with kit_figure(WIDTH, 4.6) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], both, color=GREY, linewidth=1.5, alpha=0.7)
        for x, colour in ((0, BLUE), (1, VERMILLION)):
            axes.plot(np.full(both.shape[1], x), both[x], "o", color=colour, markersize=11, markeredgecolor="white")
            axes.plot(x + 0.12 * (2 * x - 1), both[x].mean(), "_", color=colour, markersize=34, markeredgewidth=4)
            place, side = (x + 0.2 * (2 * x - 1), both[x].mean()), "left" if x else "right"
            axes.annotate(f"mean {both[x].mean():.3f}", place, ha=side, va="center", fontsize=16, color=colour)
        axes.set(xlim=(-0.75, 1.75), ylabel="AUROC of the same test pictures")
        axes.set_xticks([0, 1], ["training: strangers only", "training: siblings too"], fontsize=15)
        axes.set_title(f"gain from siblings: {effect.gain:+.3f}; {effect.recognised:.0%} of test pictures find theirs")
        axes.grid(visible=False, axis="x")
    return describe(
        figure,
        f"""AUROC over {both.shape[1]} random splits: training on strangers only, mean {both[0].mean():.3f}; with siblings of the
        test pictures, mean {both[1].mean():.3f}; mean gain {effect.gain:+.3f}. The most similar training picture is a sibling
        for {effect.recognised:.3f} of the test pictures that have one.""",
    )
