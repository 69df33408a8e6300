"""The training lesson's beginning: its cases, a batch to look at, one case as training may see it, the model's parts."""

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from melanoma_lib.data.datamodule import Batch, DermoscopyDataModule
from melanoma_lib.data.images import backbone_normalisation
from melanoma_lib.data.sampling import Draw
from melanoma_lib.errors import RunError
from melanoma_lib.evaluation.canvas import BLUE, GREEN, GREY, ORANGE, DescribedFigure, describe, kit_figure
from melanoma_lib.inference import predict_logits
from melanoma_lib.lessons.eda import CLASSES, WIDTH
from melanoma_lib.model import MelanomaNet
from melanoma_lib.run_writer import RunWriter
from melanoma_lib.runs import Run
from melanoma_lib.settings import PLACE_FIELDS, Settings


def lesson_data(settings: Settings) -> DermoscopyDataModule:
    """Cases, split and settings that the lesson works with.

    Where the settings' run directory holds a finished run, that run decides everything that shaped it (backbone, image size,
    split, …) and the notebook only where things lie; else the settings are taken as they are.

    Args:
        settings: of the notebook.

    Returns:
        The data module; its ``settings`` are those to go on with. They resume, so that running the notebook again finds its run.

    Raises:
        RunError: if the finished run is of another source, lacks a branch, or was trained on other cases than are there now.
        DataError: if the cases cannot be loaded.
    """
    settings = settings.with_changes(resume=True, progress=False)
    if not RunWriter(settings).is_finished:
        return DermoscopyDataModule(settings)
    run = Run(settings.run_path)
    trained = run.settings
    if trained.source != settings.source or trained.modalities != "image+metadata":
        raise RunError(
            f"{run.path} holds a run of {trained.modalities} on {trained.source}; this lesson needs image+metadata on "
            f"{settings.source}: choose another run_dir or source"
        )
    places = settings.model_dump(include=PLACE_FIELDS) | {"run_dir": run.path}
    settings = trained.with_changes(**places | {"data_dir": settings.data_dir or trained.data_dir})
    return DermoscopyDataModule(settings, run.cases(settings))


# --- what goes in -----------------------------------------------------------------------------------------------------------


def first_batch(data: DermoscopyDataModule) -> Batch:
    """The first batch of the first epoch, as training sees it."""
    return next(iter(data.train_dataloader()))


def batch_figure(data: DermoscopyDataModule, batch: Batch, n: int = 8) -> DescribedFigure:
    """Images of a training batch as the model gets them, put back into colours, each with its label and metadata.

    Args:
        data: the batch comes from.
        batch: with ``image``, ``target`` and ``row``.
        n: images shown.
    """
    pixels = displayable(batch["image"][:n], data.settings.backbone)
    said = []
    with kit_figure(WIDTH, 3.0 * -(-len(pixels) // 4)) as figure:
        panels = figure.subplots(-(-len(pixels) // 4), 4, squeeze=False).ravel()
        for axes, image, row in zip(panels, pixels, batch["row"], strict=False):
            case = data.cases.iloc[int(row)]
            words = _metadata_words(case)
            _picture(axes, image, int(case["target"]), words)
            said.append(f"{_class(case['target'])[0]} ({words})")
        for axes in panels[len(pixels) :]:
            axes.axis("off")
    shown, n_melanomas = len(pixels), int(batch["target"].sum())
    return describe(
        figure,
        f"{shown} of the {len(batch['target'])} augmented images of a training batch that holds {n_melanomas} melanomas: "
        f"{'; '.join(said)}.",
    )


def augmentation_figure(data: DermoscopyDataModule, row: int | None = None, n: int = 7) -> DescribedFigure:
    """One case as it is evaluated, and as training may see it, each time differently.

    Args:
        data: the case comes from.
        row: of the case table; by default the first melanoma of the training split.
        n: augmented views.
    """
    if row is None:
        row = int(np.flatnonzero((data.cases["split"] == "train") & (data.cases["target"] == 1))[0])
    backbone = data.settings.backbone
    plain = displayable(data.dataset(training=False).__getitems__(Draw([row], 0))["image"], backbone)
    augmenting = data.dataset(training=True)
    views = [displayable(augmenting.__getitems__(Draw([row], seed))["image"], backbone)[0] for seed in range(n)]
    with kit_figure(WIDTH, 2.8 * -(-(n + 1) // 4)) as figure:
        panels = figure.subplots(-(-(n + 1) // 4), 4, squeeze=False).ravel()
        for axes in panels:
            axes.axis("off")
        titles = ["as evaluated", *(f"in training, {number + 1}" for number in range(n))]
        for axes, image, title in zip(panels, [plain[0], *views], titles, strict=False):
            axes.imshow(image, interpolation="nearest")
            axes.set_title(title)
    change = np.mean([np.abs(view - plain[0]).mean() for view in views])
    return describe(
        figure,
        f"Case {data.cases['image_id'].iloc[row]} as evaluated and {n} augmented views of it: turned, flipped, cropped to no "
        f"less than 70% of its area, colours changed a little. A pixel differs by {change:.2f} on average, on a scale from 0 "
        "to 1.",
    )


def displayable(images: torch.Tensor, backbone: str) -> np.ndarray:
    """Colours of normalised images: ``(B, 3, S, S)`` to ``(B, S, S, 3)`` in [0, 1]."""
    config = backbone_normalisation(backbone)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (images.float() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _picture(axes: Axes, image: np.ndarray, target: int, words: str) -> None:
    name, colour, marker = _class(target)
    axes.imshow(image, interpolation="nearest")
    axes.set_title(f"{marker} {name}", color=colour, fontweight="bold")
    axes.set(xticks=[], yticks=[], xlabel=words)
    axes.xaxis.label.set_size(11.5)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


def _class(target: int) -> tuple[str, str, str]:
    """Name, colour and sign of a class."""
    name, colour, marker = next((name, colour, marker) for value, name, colour, marker in CLASSES if value == target)
    return name, colour, {"^": "▲", "o": "●"}[marker]


def _metadata_words(case: pd.Series) -> str:
    age = "age ?" if pd.isna(case["age_approx"]) else f"{case['age_approx']:.0f} y"
    rest = [case["sex"], case["anatom_site_general_challenge"]]
    return ", ".join([age, *("?" if pd.isna(value) else str(value) for value in rest)])


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
        "image": (0.0, 1.0), "image branch": (2.5, 1.0), "metadata": (0.0, 0.0), "metadata branch": (2.5, 0.0),
        "concatenation": (5.3, 0.5), "head": (7.8, 0.5),
    }  # fmt: skip
    colours = {"image branch": BLUE, "metadata branch": ORANGE, "head": GREEN}  # the parts that learn
    arrows = ((1.95, 1, 2.45, 1), (1.95, 0, 2.45, 0), (4.75, 1, 5.25, 0.68), (4.75, 0, 5.25, 0.32), (7.25, 0.5, 7.75, 0.5))
    with kit_figure(WIDTH, 3.6) as figure:
        axes = figure.add_subplot()
        axes.axis("off")
        axes.set(xlim=(-0.05, 11.2), ylim=(-0.42, 1.42))
        for name, (x, y) in places.items():
            width, style = 2.2 if name in colours else 1.9, "round,pad=0.02,rounding_size=0.08"
            edge = colours.get(name, GREY)
            axes.add_patch(FancyBboxPatch((x, y - 0.3), width, 0.6, style, facecolor="white", edgecolor=edge, linewidth=2.5))
            axes.text(x + width / 2, y + 0.13, name, ha="center", va="center", fontweight="bold")
            note = [parts.loc[name, "output"], f"{parts.loc[name, 'parameters']:,} parameters"][: 1 + (name in colours)]
            axes.text(x + width / 2, y - 0.1, "\n".join(note), ha="center", va="center", fontsize=11.5)
        for x, y, to_x, to_y in (*arrows, (10.05, 0.5, 10.5, 0.5)):
            axes.add_patch(
                FancyArrowPatch((x, y), (to_x, to_y), arrowstyle="-|>", mutation_scale=18, linewidth=1.6, color="black")
            )
        axes.text(10.55, 0.5, "logit", va="center", fontweight="bold")
    said = "; ".join(f"{name} {row['output']}, {row['parameters']:,} parameters" for name, row in parts.iterrows())
    return describe(
        figure, f"The model's parts and what each hands on, B being the number of cases: {said}. The head gives one logit."
    )
