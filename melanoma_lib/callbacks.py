"""Lightning callbacks: averaged weights, the history of a run, and the time left."""

import time
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from melanoma_lib.files import replacing


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, validated and saved in their place; short-sighted at first, so it warms up."""

    def __init__(self, decay: float) -> None:
        def average(averaged: list[Tensor], current: list[Tensor], n_averaged: Tensor) -> None:
            now = min(decay, (1 + int(n_averaged)) / (5 + int(n_averaged)))  # about the last quarter of all steps
            if averaged[0].is_floating_point():
                torch._foreach_lerp_(averaged, current, 1 - now)
            else:  # counters of batches seen
                torch._foreach_copy_(averaged, current)

        super().__init__(multi_avg_fn=average)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it.

    Lightning goes by the system's temporary folder, often another disk: moving is then copying, and a killed copy half a file.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        """Save whole or not at all."""
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``; knows it again when a run is resumed in a folder that has moved."""

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore the best score, with the path where the file lies now."""
        here = str(Path(self.dirpath) / "best.ckpt")
        best = {here: state_dict["best_model_score"]}
        moved = {"dirpath": self.dirpath, "best_model_path": here, "kth_best_model_path": here, "best_k_models": best}
        super().load_state_dict(state_dict | moved)


class History(pl.Callback):
    """One row an epoch, in ``history.csv`` and in the checkpoint, so that a resumed run keeps its past."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.started = path, [], 0.0

    def state_dict(self) -> dict:
        """Rows so far, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        """Rows of the run that is being resumed."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        scores = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch + 1, "learning_rate": rate, "seconds": time.perf_counter() - self.started}
        self.rows.append(row | scores)
        if not trainer.is_global_zero:
            return
        with replacing(self.path) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)


class TimeLeft(pl.Callback):
    """One bar over the whole training, with the time left and the last validation scores."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, moved on by what a resumed run has behind it."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")
        )
        total = trainer.max_epochs * trainer.num_training_batches
        self.task = self.bar.add_task("training", total=total, completed=trainer.global_step, note="")
        self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Advance."""
        label = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.bar.update(self.task, completed=trainer.global_step, description=label)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the scores."""
        scores = trainer.callback_metrics
        if "val/auroc" in scores and hasattr(self, "bar"):
            note = f"val AUROC {scores['val/auroc']:.3f}, F1 {scores['val/f1']:.3f}"
            self.bar.update(self.task, note=note)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error is readable."""
        if hasattr(self, "bar"):
            self.bar.stop()
