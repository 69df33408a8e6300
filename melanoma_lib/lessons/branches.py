"""The model's two branches: what they are, and what each is worth against the best possible and against no picture at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.evaluation import Interval, OperatingCurve, bootstrap_gain, rate_intervals
from melanoma_lib.heads import FeatureTable, HeadSettings, train_head
from melanoma_lib.inference import predict_logits
from melanoma_lib.lessons.eda import WIDTH, Row, forest, height_of
from melanoma_lib.model import MelanomaNet
from melanoma_lib.plotting import BLUE, GREEN, GREY, ORANGE, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.reports import BRANCHES
from melanoma_lib.runs import Run

REFERENCE = "no pixel: age, sex, site"
CEILINGS = {"metadata": "truth_risk_metadata", "image": "truth_risk_image", "image+metadata": "true_risk"}


# --- the model ----------------------------------------------------------------------------------------------------------------


def untrained_model(data: DermoscopyDataModule) -> MelanomaNet:
    """The model that the data module's settings describe, before any training and without pretrained weights."""
    settings = data.settings
    return MelanomaNet(settings.backbone, data.encoder.n_features, pretrained=False, metadata_hidden=settings.metadata_hidden)


def model_parts(model: MelanomaNet, image_size: int) -> pd.DataFrame:
    """The model's parts in the order data pass them: what each is, the shape it hands on for B cases, its parameters.

    Shapes are read off two cases that pass through the model, not off its description.

    Args:
        model: with both branches.
        image_size: side of its images.
    """
    sizes = {}
    parts = {"image branch": model.image_branch, "metadata branch": model.metadata_branch, "head": model.head}
    hooks = [
        part.register_forward_hook(lambda _, inputs, output, name=name: sizes.update({name: (inputs[0].shape, output.shape)}))
        for name, part in parts.items()
    ]
    blank = {"image": torch.zeros(2, 3, image_size, image_size), "metadata": torch.zeros(2, model.n_metadata)}
    try:
        predict_logits(model, [blank])
    finally:
        for hook in hooks:
            hook.remove()
    rows = [
        ("image", "RGB, scaled as the backbone expects", sizes["image branch"][0], 0),
        ("image branch", f"{model.backbone}, averaged over the picture", sizes["image branch"][1], _count(model.image_branch)),
        ("metadata", "age, sex, site and what is missing", sizes["metadata branch"][0], 0),
        ("metadata branch", _layers(model.metadata_branch), sizes["metadata branch"][1], _count(model.metadata_branch)),
        ("concatenation", "image features, then metadata features", sizes["head"][0], 0),
        ("head", _layers(model.head), sizes["head"][1], _count(model.head)),
    ]
    table = pd.DataFrame(rows, columns=["part", "what it is", "output", "parameters"]).set_index("part")
    table["output"] = ["(" + ", ".join(["B", *map(str, shape[1:])]) + ")" for shape in table["output"]]
    return table


def _count(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def _layers(part: torch.nn.Module) -> str:
    return " → ".join(type(layer).__name__ for layer in part)


def model_figure(parts: pd.DataFrame) -> DescribedFigure:
    """The model drawn: two branches side by side, joined, and one logit.

    Args:
        parts: from `model_parts`.
    """
    places = {
        "image": (0, 1), "image branch": (3.3, 1), "metadata": (0, 0), "metadata branch": (3.3, 0),
        "concatenation": (6.6, 0.5), "head": (9.5, 0.5), "logit": (11.6, 0.5),
    }  # fmt: skip
    colours = {"image branch": BLUE, "metadata branch": ORANGE, "head": GREEN}  # the parts that learn
    chain = ("image", "image branch", "concatenation", "head", "logit"), ("metadata", "metadata branch", "concatenation")
    with kit_figure(WIDTH, 3.6) as figure:
        axes = figure.add_subplot()
        axes.axis("off")
        axes.set(xlim=(-1.1, 11.9), ylim=(-0.4, 1.4))
        for start, end in (pair for names in chain for pair in pairwise(names)):
            arrow = {
                "arrowstyle": "-|>",
                "linewidth": 1.6,
                "shrinkA": 62,
                "shrinkB": {"logit": 20, "image branch": 72}.get(end, 62),
            }
            axes.annotate("", places[end], places[start], arrowprops=arrow)
        for name, place in places.items():
            lines = [name] if name == "logit" else [name, parts.loc[name, "output"]]
            lines += [f"{parts.loc[name, 'parameters']:,} parameters"] if name in colours else []
            box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colours.get(name, GREY), "linewidth": 2.5}
            axes.text(*place, "\n".join(lines), ha="center", va="center", fontsize=11.5, bbox=None if name == "logit" else box)
    said = "; ".join(f"{name} {row['output']}, {row['parameters']:,} parameters" for name, row in parts.iterrows())
    return with_alt_text(figure, f"The model's parts and what each hands on, B being the number of cases: {said}.")


# --- what each is worth ----------------------------------------------------------------------------------------------------


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
        auroc = rate_intervals(test["target"], values, test["group_id"], n=run.settings.n_resamples)["auroc"]
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
    colours = [GREY, *[BLUE] * (len(contenders) - 2), ORANGE]
    pairs = list(zip(contenders, colours, strict=True))
    aurocs = [Row(one.name, ((one.auroc, colour, "o"),), f"{one.auroc.value:.3f}") for one, colour in pairs]
    gains = [
        Row("", ((one.gain, colour, "o"),), f"{one.gain:+.3f}") if one.gain else Row("", (), "reference") for one, colour in pairs
    ]
    with kit_figure(WIDTH + 1.5, 0.8 + height_of(aurocs)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        forest(left, aurocs, "test AUROC, 95% interval")
        forest(right, gains, f"gain over {REFERENCE}")
        right.axvline(0, color=GREY, linestyle="--", linewidth=1.5)
        places = {y: one.ceiling for y, one in enumerate(contenders) if one.ceiling is not None}
        if places:
            rows = np.array(list(places))
            left.vlines(
                list(places.values()), rows - 0.32, rows + 0.32, GREEN, linewidth=4, label="best possible from these inputs"
            )
            left.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3)
    said = "; ".join(
        f"{one.name} {one.auroc:.3f}"
        + (f", gain {one.gain:+.3f}" if one.gain else "")
        + (f", best possible {one.ceiling:.3f}" if one.ceiling is not None else "")
        for one in contenders
    )
    return with_alt_text(figure, f"Test AUROC and gain over {REFERENCE}, with 95% intervals: {said}.")
