"""What each branch is worth: heads on one branch or both, against the best possible and against no picture at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.errors import RunError
from melanoma_lib.evaluation import Interval, OperatingCurve, bootstrap_gain, bootstrap_intervals
from melanoma_lib.evaluation.canvas import BLUE, GREEN, GREY, ORANGE, DescribedFigure, describe, kit_figure
from melanoma_lib.heads import FeatureTable, HeadSettings, train_head
from melanoma_lib.lessons.eda import WIDTH, Row, forest, height_of
from melanoma_lib.reports import BRANCHES, ablation_table
from melanoma_lib.runs import Run

REFERENCE = "no pixel: age, sex, site"
CEILINGS = {"metadata": "truth_risk_metadata", "image": "truth_risk_image", "image+metadata": "true_risk"}


@dataclass(frozen=True)
class Contender:
    """One way to rank the test cases.

    Attributes:
        name: what it is.
        scores: of the test cases, in the run's order, shape ``(n_test,)``.
        auroc: on the test split, with its interval.
        gain: AUROC less that of the reference on the same cases, with its interval; None for the reference itself.
        ceiling: the best AUROC that anything can reach on these cases from the same inputs; None where nobody knows it.
    """

    name: str
    scores: np.ndarray = field(repr=False)
    auroc: Interval
    gain: Interval | None
    ceiling: float | None


def ablation(run: Run, data: DermoscopyDataModule, table: FeatureTable) -> list[Contender]:
    """No picture, retrained heads on one branch and on both, and the run itself, on the run's test split.

    The reference is a logistic regression on the encoded metadata of the training cases, the no-pixel ladder's fair rung. The
    heads stand on the run's frozen features: what the branches *hand on*, not what they could have learned alone.

    Args:
        run: trained with both branches.
        data: its cases.
        table: its features.
    """
    test = run.predictions("test")
    settings = HeadSettings.of(run.settings)
    scores = {REFERENCE: (no_pixel_scores(data), "metadata")}
    for modalities, name in BRANCHES.items():
        result = train_head(table, replace(settings, modalities=modalities))
        scores[f"head on {name}"] = (result.of("test")["probability"], modalities)
    scores["the run, trained whole"] = (test["probability"], "image+metadata")
    contenders: list[Contender] = []
    for name, (values, modalities) in scores.items():
        auroc = bootstrap_intervals(test["target"], values, test["group_id"], n=run.settings.n_resamples)["auroc"]
        truth = CEILINGS[modalities]
        ceiling = OperatingCurve(test["target"], test[truth]).auroc if truth in test else None
        better = gain(run, values, contenders[0].scores) if contenders else None
        contenders.append(Contender(name, np.asarray(values), auroc, better, ceiling))
    return contenders


def gain(run: Run, scores: ArrayLike, baseline_scores: ArrayLike) -> Interval:
    """AUROC of scores less that of others on the run's test cases, both seen in the same resamples of patients or lesions."""
    test = run.predictions("test")
    return bootstrap_gain(test["target"], scores, baseline_scores, test["group_id"], n=run.settings.n_resamples)["auroc"]


def no_pixel_scores(data: DermoscopyDataModule) -> np.ndarray:
    """Risk of each test case by a logistic regression on age, sex and site, fitted on the training cases; shape ``(n_test,)``."""
    from sklearn.linear_model import LogisticRegression

    encoded, targets = data.encoder.transform(data.cases), data.cases["target"].to_numpy()
    train, test = data.rows("train"), data.rows("test")
    return LogisticRegression(max_iter=1000).fit(encoded[train], targets[train]).predict_proba(encoded[test])[:, 1]


def ablation_figure(contenders: Sequence[Contender]) -> DescribedFigure:
    """AUROC of each contender with its ceiling, and its gain over the reference, with intervals."""
    known = any(contender.ceiling is not None for contender in contenders)
    colours = [GREY, *[BLUE] * (len(contenders) - 2), ORANGE]
    left_rows = [
        Row(one.name, ((one.auroc, colour, "o"),), f"{one.auroc.value:.3f}")
        for one, colour in zip(contenders, colours, strict=True)
    ]
    right_rows = [
        Row(one.name, ((one.gain, colour, "o"),) if one.gain else (), f"{one.gain:+.3f}" if one.gain else "reference")
        for one, colour in zip(contenders, colours, strict=True)
    ]
    with kit_figure(WIDTH + 1.5, 0.8 + height_of(left_rows)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        forest(left, left_rows, "test AUROC, 95% interval")
        forest(right, right_rows, f"gain over {REFERENCE}")
        right.set_yticks([])
        right.axvline(0, color=GREY, linestyle="--", linewidth=1.5)
        for y, one in enumerate(contenders):
            if one.ceiling is not None:
                left.plot(
                    [one.ceiling] * 2,
                    [y - 0.32, y + 0.32],
                    color=GREEN,
                    linewidth=4,
                    label="" if y else "best possible from these inputs",
                )
        if known:
            left.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3)
    said = []
    for one in contenders:
        gain = f", gain {one.gain:+.3f}" if one.gain else ", the reference"
        best = f", best possible {one.ceiling:.3f}" if one.ceiling is not None else ""
        said.append(f"{one.name} {one.auroc:.3f}{gain}{best}")
    return describe(figure, f"Test AUROC and gain over {REFERENCE}, with 95% intervals: {'; '.join(said)}.")


def whole_ablation(folder: str) -> str:
    """The ablation over whole trainings, as a Markdown table.

    Args:
        folder: holds finished runs that differ in branches and seed alone; empty for none.

    Raises:
        RunError: if the folder holds no finished run, or runs that differ in more.
    """
    if not folder:
        return "*No whole trainings were given to compare; the parameter `compare_runs` takes a folder of finished runs.*"
    finished = sorted(Path(folder).expanduser().glob("*/environment.json"))
    if not finished:
        raise RunError(f"compare_runs={folder!r} holds no finished run; train some into it with --runs-dir, or leave it empty")
    return ablation_table([Run(file.parent) for file in finished])
