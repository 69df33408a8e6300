"""Curves that grow while a model trains, and what they say about over-fitting."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from melanoma_lib.evaluation.canvas import BLUE, GREY, ORANGE, DescribedFigure, describe, kit_figure
from melanoma_lib.lessons.eda import WIDTH
from melanoma_lib.module import History
from melanoma_lib.run_writer import RunWriter
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.training import train

SCORES = {"val/auroc": ("AUROC", BLUE, "o"), "val/f1": ("F1 at 0.5", ORANGE, "s")}
REDRAW = 3.0  # seconds between two drawings within an epoch; each takes a fifth of one


class LiveCurves(pl.Callback):
    """Draws the curves again every few seconds, and at each epoch's end.

    Args:
        show: called with each new figure.
    """

    def __init__(self, show: Callable[[DescribedFigure], object]) -> None:
        self.show, self.steps, self.shown, self.loss = show, [], 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to the loss itself: what a step minimises may hold a second task, which the epoch's loss leaves out."""
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
    with kit_figure(WIDTH, 4.3) as figure:
        left, right = figure.subplots(1, 2)
        if len(steps):
            left.plot(*np.transpose(steps), color=GREY, alpha=0.45, linewidth=1, label="each batch")
        for split, colour, marker in (("train", ORANGE, "s"), ("val", BLUE, "o")):
            if n_done:
                name = {"train": "training", "val": "validation"}[split]
                left.plot(history["epoch"], history[f"{split}/loss"], f"-{marker}", color=colour, label=name)
        for column, (name, colour, marker) in SCORES.items():
            if n_done:
                right.plot(history["epoch"], history[column], f"-{marker}", color=colour, label=name)
        left.set(title=f"loss: {state}", ylim=(0, None))
        right.set(title="validation scores", ylim=(0, 1.2), yticks=np.linspace(0, 1, 6))
        for axes in (left, right):
            axes.set(xlabel="epoch", xlim=(0, (max_epochs or n_done) + 0.3))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper right", ncols=1 if axes is left else 2)  # above 1, where no score comes
    if not n_done:
        return describe(figure, f"Empty axes for losses and validation scores; {state}.")
    last = history.iloc[-1]
    scores = ", ".join(f"{name} {last[column]:.3f}" for column, (name, *_) in SCORES.items())
    return describe(
        figure,
        f"Learning curves, {state}. After epoch {int(last['epoch'])}: training loss {last['train/loss']:.4f}, validation loss "
        f"{last['val/loss']:.4f}; on validation {scores}.",
    )


def overfitting_figure(histories: Mapping[str, pd.DataFrame]) -> DescribedFigure:
    """Loss above and AUROC below, on training and on validation cases, one column a training.

    Args:
        histories: by title; each with epoch, train/loss, val/loss, train/auroc, val/auroc.
    """
    said = []
    with kit_figure(WIDTH, 6.4) as figure:
        panels = figure.subplots(2, len(histories), squeeze=False, sharex="col")
        for column, (title, history) in enumerate(histories.items()):
            loss_axes, rank_axes = panels[:, column]
            marker = "o" if len(history) < 20 else ""
            for axes, what in ((loss_axes, "loss"), (rank_axes, "auroc")):
                axes.plot(history["epoch"], history[f"train/{what}"], f"-{marker}", color=ORANGE, label="training")
                axes.plot(history["epoch"], history[f"val/{what}"], f"-{marker}", color=BLUE, label="validation")
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            rank_axes.fill_between(
                history["epoch"], history["val/auroc"], history["train/auroc"], color=GREY, alpha=0.18, label="gap"
            )
            best = history.loc[history["val/loss"].idxmin()]
            loss_axes.axvline(best["epoch"], color=GREY, linestyle="--", linewidth=1.5, label="lowest validation loss")
            loss_axes.set(title=title, ylim=(0, None), ylabel="" if column else "loss")
            rank_axes.set(xlabel="epoch", ylim=(0.5, 1.01), ylabel="" if column else "AUROC")
            loss_axes.legend(fontsize=11)
            rank_axes.legend(loc="lower right", fontsize=11)
            said.append(f"{title}: {overfitting_in_words(history)}")
    return describe(figure, f"Training against validation, loss and AUROC over epochs. {' '.join(said)}")


def overfitting_in_words(history: pd.DataFrame) -> str:
    """What the curves of one training say, without assuming how it went.

    Args:
        history: with epoch, train/loss, val/loss, train/auroc, val/auroc.
    """
    best, last = history.loc[history["val/loss"].idxmin()], history.iloc[-1]
    gap = last["train/auroc"] - last["val/auroc"]
    rise = last["val/loss"] / best["val/loss"] - 1
    turned = best["epoch"] < last["epoch"]
    falls = last["train/loss"] < best["train/loss"]
    if turned and falls:
        loss = (
            f"validation loss was lowest after epoch {best['epoch']:.0f} and ended {rise:.1%} above that, while training loss "
            "fell further: the sign of over-fitting"
        )
    elif turned:
        loss = f"validation loss was lowest after epoch {best['epoch']:.0f}, and training loss fell no further either"
    else:
        loss = "validation loss was lowest at the end: this training shows no over-fitting yet, and longer might have helped"
    return (
        f"Loss: {loss}.\n"
        f"AUROC at the end: {last['train/auroc']:.3f} training, {last['val/auroc']:.3f} validation, a gap of {gap:+.3f}."
    )
