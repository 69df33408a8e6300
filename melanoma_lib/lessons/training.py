"""The training lesson: its cases, a batch to look at, and curves that grow while a model trains."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from melanoma_lib.data.datamodule import Batch, DermoscopyDataModule
from melanoma_lib.data.images import backbone_normalisation
from melanoma_lib.data.sampling import Draw
from melanoma_lib.errors import RunError
from melanoma_lib.lessons.eda import CLASSES, WIDTH
from melanoma_lib.module import History
from melanoma_lib.plotting import BLACK, BLUE, GREY, ORANGE, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.run_writer import RunWriter
from melanoma_lib.runs import Run
from melanoma_lib.settings import PLACE_FIELDS, Settings
from melanoma_lib.training import train

SCORES = {"val/auroc": ("AUROC", BLUE, "o"), "val/f1": ("F1 at 0.5", ORANGE, "s")}
REDRAW = 3.0  # seconds between two drawings within an epoch; each takes a fifth of one


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
    return DermoscopyDataModule(settings, run.cases(settings=settings))


# --- what goes in -----------------------------------------------------------------------------------------------------------


def batch_figure(data: DermoscopyDataModule, batch: Batch, n: int = 8) -> DescribedFigure:
    """Images of a training batch as the model gets them, put back into colours, each with its label and metadata.

    Args:
        data: the batch comes from.
        batch: with ``image``, ``target`` and ``row``.
        n: images shown.
    """
    pixels, cases = displayable(batch["image"][:n], data.settings.backbone), data.cases.iloc[batch["row"][:n].tolist()]
    classes = {target: (f"{sign} {name}", colour) for (target, name, colour, _), sign in zip(CLASSES, "▲●", strict=True)}
    shown = cases[["age_approx", "sex", "anatom_site_general_challenge"]].astype(object)
    notes = [
        ", ".join("?" if pd.isna(value) else f"{value:.0f} y" if i == 0 else value for i, value in enumerate(row))
        for row in shown.values
    ]
    figure = _grid(
        pixels, [classes[target][0] for target in cases["target"]], notes, [classes[target][1] for target in cases["target"]]
    )
    said = "; ".join(f"{classes[target][0][2:]} ({note})" for target, note in zip(cases["target"], notes, strict=True))
    n, n_melanomas = len(batch["target"]), int(batch["target"].sum())
    return with_alt_text(
        figure, f"{len(pixels)} of {n} augmented images of a training batch with {n_melanomas} melanomas: {said}."
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

    def seen(training: bool, seed: int) -> np.ndarray:
        return displayable(data.dataset(training=training).__getitems__(Draw([row], seed))["image"], data.settings.backbone)[0]

    plain, views = seen(False, 0), [seen(True, seed) for seed in range(n)]
    figure = _grid([plain, *views], ["as evaluated", *(f"in training, {number + 1}" for number in range(n))])
    change = np.mean([np.abs(view - plain).mean() for view in views])
    return with_alt_text(
        figure,
        f"Case {data.cases['image_id'].iloc[row]} as evaluated and {n} augmented views of it, in which a pixel differs by "
        f"{change:.2f} on average, on a scale from 0 to 1.",
    )


def displayable(images: torch.Tensor, backbone: str) -> np.ndarray:
    """Colours of normalised images: ``(B, 3, S, S)`` to ``(B, S, S, 3)`` in [0, 1]."""
    config = backbone_normalisation(backbone)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (images.float() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _grid(
    pictures: Sequence[np.ndarray], titles: Sequence[str], notes: Sequence[str] = (), colours: Sequence[str] = ()
) -> DescribedFigure:
    """Pictures in rows of four, each with a title, and on request a note below and a colour for its frame."""
    rows = -(-len(pictures) // 4)
    with kit_figure(WIDTH, 3.0 * rows) as figure:
        panels = figure.subplots(rows, 4, squeeze=False).ravel()
        for axes in panels[len(pictures) :]:
            axes.axis("off")
        for i, (axes, picture) in enumerate(zip(panels, pictures, strict=False)):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(titles[i], color=colours[i] if colours else BLACK, fontweight="bold" if colours else "normal")
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(notes[i] if notes else "", fontsize=11.5)
            axes.spines[:].set(visible=bool(colours), color=colours[i] if colours else BLACK, linewidth=3)
    return figure


# --- curves ------------------------------------------------------------------------------------------------------------------


class LiveCurves(pl.Callback):
    """Draws the curves again every few seconds, and at each epoch's end.

    Args:
        show: called with each new figure.
    """

    def __init__(self, show: Callable[[DescribedFigure], object]) -> None:
        self.show, self.steps, self.shown, self.loss = show, [], 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to the loss itself: what a step minimises may hold a second task."""
        self.hook = pl_module.loss.register_forward_hook(self._hear)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop listening."""
        self.hook.remove()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Keep the batch's loss; draw if the last drawing is old."""
        self.steps.append((trainer.global_step / trainer.num_training_batches, self.loss))
        if time.monotonic() - self.shown > REDRAW:
            self._draw(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the epoch's scores, which `History` has just written down."""
        self._draw(trainer)

    def _hear(self, _: nn.Module, inputs: tuple, loss: Tensor) -> None:
        self.loss = float(loss.detach())

    def _draw(self, trainer: pl.Trainer) -> None:
        history = next(callback for callback in trainer.callbacks if isinstance(callback, History))
        self.show(curves_figure(pd.DataFrame(history.rows), self.steps, trainer.max_epochs))
        self.shown = time.monotonic()


def live_training(settings: Settings, display: Callable[..., Any]) -> Run:
    """Train, with curves that grow in the notebook; where the run is finished already, draw what it wrote down.

    Args:
        settings: of `lesson_data`.
        display: the notebook's own ``display``.

    Returns:
        The finished run, whose curves are left in the notebook.

    Raises:
        RunError: as ``train`` does.
    """
    finished = RunWriter(settings).is_finished
    first = (
        curves_figure(pd.DataFrame(), (), settings.max_epochs) if not finished else curves_figure(Run(settings.run_path).history)
    )
    handle = display(first, display_id=True)
    if finished:
        return Run(settings.run_path)
    run = train(settings, watchers=[LiveCurves(handle.update)])
    handle.update(curves_figure(run.history))
    return run


def curves_figure(
    history: pd.DataFrame, steps: Sequence[tuple[float, float]] = (), max_epochs: int | None = None
) -> DescribedFigure:
    """Losses, and validation scores, over the epochs.

    Args:
        history: of a run, so far; may be empty.
        steps: (epochs passed, loss) of each batch so far.
        max_epochs: epochs there will be; None where training is over.
    """
    n_done = len(history)
    state = "finished" if max_epochs is None else f"{n_done} of {max_epochs} epochs done"
    losses = {"train/loss": ("training", ORANGE, "s"), "val/loss": ("validation", BLUE, "o")}
    with kit_figure(WIDTH, 4.3) as figure:
        left, right = figure.subplots(1, 2)
        if len(steps):
            left.plot(*np.transpose(steps), color=GREY, alpha=0.45, linewidth=1, label="each batch")
        for axes, drawn in ((left, losses), (right, SCORES)):
            for column, (name, colour, marker) in drawn.items() if n_done else ():
                axes.plot(history["epoch"], history[column], f"-{marker}", color=colour, label=name)
            axes.set(xlabel="epoch", xlim=(0, (max_epochs or n_done) + 0.3))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper right", ncols=2)
        left.set(title=f"loss: {state}", ylim=(0, None))
        right.set(title="validation scores", ylim=(0, 1.2), yticks=np.linspace(0, 1, 6))
    if not n_done:
        return with_alt_text(figure, f"Empty axes for losses and validation scores; {state}.")
    last = history.iloc[-1]
    numbers = {"training loss": "train/loss", "validation loss": "val/loss"} | {
        name: column for column, (name, *_) in SCORES.items()
    }
    said = ", ".join(f"{name} {last[column]:.4f}" for name, column in numbers.items())
    return with_alt_text(figure, f"Learning curves, {state}; after epoch {int(last['epoch'])}: {said}.")


def overfitting_figure(histories: Mapping[str, pd.DataFrame]) -> DescribedFigure:
    """Loss above and AUROC below, on training and on validation cases, one column a training.

    Args:
        histories: by title; each with epoch, train/loss, val/loss, train/auroc, val/auroc.
    """
    with kit_figure(WIDTH, 6.4) as figure:
        panels = figure.subplots(2, len(histories), squeeze=False, sharex="col")
        for column, (title, history) in zip(panels.T, histories.items(), strict=True):
            marker = "o" if len(history) < 20 else ""
            for axes, what in zip(column, ("loss", "auroc"), strict=True):
                for split, colour, name in (("train", ORANGE, "training"), ("val", BLUE, "validation")):
                    axes.plot(history["epoch"], history[f"{split}/{what}"], f"-{marker}", color=colour, label=name)
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            best = history.loc[history["val/loss"].idxmin(), "epoch"]
            column[0].axvline(best, color=GREY, linestyle="--", linewidth=1.5, label="lowest validation loss")
            column[0].set(title=title, ylim=(0, None))
            column[0].legend(fontsize=11)
            column[1].set(xlabel="epoch", ylim=(0.5, 1.01))
        panels[0, 0].set_ylabel("loss")
        panels[1, 0].set_ylabel("AUROC")
    said = "; ".join(
        f"{name}: {', '.join(f'{k} {v:.3g}' for k, v in row.items())}" for name, row in overfitting_table(histories).iterrows()
    )
    return with_alt_text(figure, f"Training against validation, loss and AUROC over epochs; {said}.")


def overfitting_table(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Where each validation loss was lowest, and losses and AUROCs there and at the end: one row a training.

    Args:
        histories: as for `overfitting_figure`.
    """
    rows = {}
    for title, history in histories.items():
        best, last = history.loc[history["val/loss"].idxmin()], history.iloc[-1]
        rows[title] = {"epochs": int(last["epoch"]), "lowest validation loss after": int(best["epoch"])}
        for split, name in (("train", "training"), ("val", "validation")):
            rows[title] |= {f"{name} loss there": best[f"{split}/loss"], f"{name} loss at the end": last[f"{split}/loss"]}
            rows[title][f"{name} AUROC at the end"] = last[f"{split}/auroc"]
    return pd.DataFrame.from_dict(rows, orient="index")
