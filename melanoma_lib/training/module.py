"""What is trained: MelanomaNet with loss, metrics and optimiser as a Lightning module; the callbacks and W&B, which look on."""

import io
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision, BinaryF1Score, BinaryRecall

from melanoma_lib.data.datamodule import UNKNOWN, Batch
from melanoma_lib.losses import FocalLoss
from melanoma_lib.model import MelanomaNet, hold_early, size_problem
from melanoma_lib.reports.report import report_figures
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.utils import progress_bar, replacing, shows_bars
from melanoma_lib.weights import load_branch

log = logging.getLogger(__name__)

METRICS = {
    "accuracy": BinaryAccuracy,
    "recall": BinaryRecall,
    "f1": BinaryF1Score,
    "auroc": BinaryAUROC,
    "average_precision": BinaryAveragePrecision,
}


class MelanomaModule(pl.LightningModule):
    """MelanomaNet with its loss, metrics and optimiser.

    Args:
        settings: architecture, loss, learning rates.
        n_metadata: width of the encoded metadata.
        prevalence: share of melanomas among the training cases, for the class weights and the initial bias.
        n_diagnoses: diagnoses in the training cases, for the second task that ``diagnosis_weight`` adds.
    """

    def __init__(self, settings: Settings, n_metadata: int, prevalence: float, n_diagnoses: int = 0) -> None:
        super().__init__()
        self.settings = settings
        self.loss, prior = loss_and_prior(settings, prevalence)
        imagenet = settings.pretrained and settings.init_weights is None
        shape = {name: getattr(settings, name) for name in ("modalities", "metadata_hidden", "dropout", "drop_path")}
        model = MelanomaNet(settings.backbone, n_metadata, imagenet, prior=prior, **shape)
        self.model = model.to(memory_format=torch.channels_last)
        if settings.init_weights and self.model.image_branch is not None:
            load_branch(self.model.image_branch, settings.init_weights)
        small = max(32, round(0.75 * settings.image_size / 32) * 32)  # what strides of 32 divide
        shrinks = settings.small_epochs and self.model.image_branch is not None
        self.small_side = small if shrinks and not size_problem(settings.backbone, small) else None
        # Only training knows this head: telling a nevus from a keratosis shapes the features, the model keeps its one logit.
        self.diagnosis_head = nn.Linear(self.model.n_features, n_diagnoses) if settings.diagnosis_weight and n_diagnoses else None
        metrics = MetricCollection({name: metric() for name, metric in METRICS.items()})
        self.train_metrics, self.val_metrics = metrics.clone(prefix="train/"), metrics.clone(prefix="val/")

    def training_step(self, batch: Batch, step: int) -> Tensor:
        """Loss of one batch."""
        # One seed a step, from nothing but seed and step: dropout then does not depend on where a run was resumed.
        # Processes of a team drop different units, the first one those it would drop alone.
        torch.manual_seed(self.settings.seed * 1_000_003 + self.global_step + self.global_rank * 1_000_000_007)
        features = self.model.features(self._sized(batch.get("image")), batch["metadata"])  # (B, n_features)
        dropped = self.model.head[0](features)
        loss = self._score(self.model.head[1](dropped).squeeze(1), batch, self.train_metrics, "train/loss")
        if self.diagnosis_head is None:
            return loss
        if (batch["diagnosis"] == UNKNOWN).all():
            return loss + 0 * self.diagnosis_head(dropped).sum()  # the other processes wait for a gradient of every weight
        diagnoses, kept = self.diagnosis_head(dropped), {"ignore_index": UNKNOWN, "reduction": self.settings.reduction}
        return loss + self.settings.diagnosis_weight * F.cross_entropy(diagnoses, batch["diagnosis"], **kept)

    def _sized(self, image: Tensor | None) -> Tensor | None:
        """The images, smaller in early epochs: what lesions look like from afar is learnt first, and faster."""
        early = self.current_epoch < self.settings.small_epochs * self.settings.max_epochs
        if image is None or not early or not self.small_side:
            return image
        return F.interpolate(image, size=self.small_side, mode="bilinear", antialias=True)  # (B, 3, S, S) -> (B, 3, side, side)

    def validation_step(self, batch: Batch, step: int) -> None:
        """Metrics of one batch."""
        self._score(self.model(batch.get("image"), batch["metadata"]), batch, self.val_metrics, "val/loss")

    def _score(self, logits: Tensor, batch: Batch, metrics: MetricCollection, loss_name: str) -> Tensor:
        loss = self.loss(logits, batch["target"])
        metrics.update(torch.sigmoid(logits.detach().float()), batch["target"].int())
        # Lightning averages the processes' numbers of cases: as integers it would cut halves off.
        self.log(loss_name, loss.detach(), on_epoch=True, on_step=False, batch_size=float(len(logits)), sync_dist=True)
        return loss

    def on_train_start(self) -> None:
        """A run that was interrupted after it had stopped early trains no further epoch when it is resumed."""
        if stopping := self.trainer.early_stopping_callback:
            self.trainer.should_stop = stopping.stopped_epoch > 0 or stopping.wait_count >= stopping.patience

    def on_train_epoch_start(self) -> None:
        """Order of the new epoch; which parts of the image branch learn in it."""
        self.trainer.train_dataloader.batch_sampler.set_epoch(self.current_epoch)
        branch, settings = self.model.image_branch, self.settings
        if branch is not None:
            learning = self.current_epoch >= settings.head_epochs  # before, it waits frozen while only the head learns
            branch.requires_grad_(learning).train(learning)
            if settings.is_pretrained:
                hold_early(branch, settings.frozen_stride)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics; validation ends an epoch, so the training batches are all in."""
        for metrics in (self.train_metrics, self.val_metrics):
            self.log_dict(metrics.compute())
            metrics.reset()

    def configure_optimizers(self) -> dict:
        """AdamW or Adam with a lower rate for the image branch; linear warm-up, then cosine decay to zero, per step."""
        settings, of_branch = self.settings, "model.image_branch."
        branch = [weight for name, weight in self.named_parameters() if name.startswith(of_branch)]
        rest = [weight for name, weight in self.named_parameters() if not name.startswith(of_branch)]
        groups = [{"params": rest, "lr": settings.learning_rate}]
        if branch:
            groups.append({"params": branch, "lr": settings.learning_rate * settings.backbone_lr_scale})
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optimizer]
        optimiser = kind(groups, weight_decay=settings.weight_decay, fused=True)
        total = self.trainer.estimated_stepping_batches
        warm_up = settings.warmup_epochs * total / settings.max_epochs

        def rate(step: int) -> float:
            if step < warm_up:
                return (step + 1) / (warm_up + 1)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1.0, total - warm_up))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loss_and_prior(settings: Settings, prevalence: float) -> tuple[nn.Module, float]:
    """The training loss, and the output that minimises it when nothing but the base rate is known, from which a model starts.

    ``prevalence`` is the share of melanomas among the training cases, in (0, 1).
    """
    # Drawing melanomas more often changes the base rate that the loss meets.
    seen = {"plain": prevalence, "weighted": settings.sampled_prevalence, "oversample": 0.5}[settings.sampler]
    if settings.loss == "focal":
        loss = FocalLoss(settings.alpha, settings.gamma, settings.reduction)
        return loss, min(max(loss.optimal_probability(seen), 0.001), 0.999)  # 0 or 1 where alpha leaves a class no weight
    if settings.loss == "bce":
        return nn.BCEWithLogitsLoss(reduction=settings.reduction), seen
    weight = (1 - prevalence) / prevalence
    loss = nn.BCEWithLogitsLoss(reduction=settings.reduction, pos_weight=torch.tensor(weight))
    return loss, weight * seen / (weight * seen + 1 - seen)


def warn_of_double_correction(settings: Settings) -> None:
    """Log a warning where both sampler and loss correct for the imbalance."""
    weights_loss = settings.loss == "weighted_bce" or (settings.loss == "focal" and (settings.alpha or 0.5) > 0.5)
    if settings.sampler != "plain" and weights_loss:
        log.warning(
            "sampler %s and loss %s (alpha %s) both weigh melanomas: the imbalance is corrected twice and outputs run far above "
            "the risk. Use sampler plain, or bce, or alpha none.", settings.sampler, settings.loss, settings.alpha,
        )  # fmt: skip


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
    """Writes a checkpoint beside its final name; Lightning moves it from another disk, where a kill leaves half a file."""

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        """Save whole or not at all."""
        with replacing(Path(path)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # how PyTorch tells of a full disk
                raise OSError(f"{path} cannot be written, the disk may be full: {error}") from error


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
        if trainer.is_global_zero:
            with replacing(self.path) as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)


class TimeLeft(pl.Callback):
    """One bar over the whole training, with the time left and the last validation scores; without a terminal, a line an epoch.

    With a ``label`` lines alone, which begin with it: several trainings share the screen.
    """

    def __init__(self, label: str = "") -> None:
        self.bar, self.label, self.shows = ExitStack(), label, shows_bars() and not label

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, moved on by what a resumed run has behind it."""
        steps = trainer.max_epochs * trainer.num_training_batches
        self.advance = self.bar.enter_context(progress_bar("training", steps, self.shows))
        for _ in range(trainer.global_step):
            self.advance()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Advance, with the scores of the last validation."""
        self.advance(self._told(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A line, where there is no bar."""
        if not self.shows:
            log.info("%s%s", self.label, self._told(trainer))

    def _told(self, trainer: pl.Trainer) -> str:
        scores = trainer.callback_metrics
        told = f", val AUROC {scores['val/auroc']:.3f}, F1 {scores['val/f1']:.3f}" if "val/auroc" in scores else ""
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{told}"

    def on_train_end(self, *_: object) -> None:
        """Close the bar, also before an error, so that this is readable."""
        self.bar.close()

    on_exception = on_train_end


@contextmanager
def wandb_logger(settings: Settings, work: Path) -> Iterator[Any]:
    """Lightning's ``WandbLogger`` that keeps its files in ``work/wandb`` and is closed, with the body's outcome, at the end.

    Without a key and a ``WANDB_MODE`` it works offline, and so it does where the server does not answer.
    """
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    places = {"project": settings.wandb_project, "name": settings.run_path.name, "save_dir": work}
    offline = {"offline": True, "mode": "offline"}
    try:
        logger = WandbLogger(**places, **({} if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE") else offline))
        logger.log_hyperparams(settings.model_dump(mode="json"))  # which asks the server
    except (wandb.errors.Error, ValueError) as error:  # no server, or a WANDB_ variable that it does not take
        log.warning("Weights & Biases is not to be had (%s); logged offline, for `wandb sync`", str(error).splitlines()[0])
        logger = WandbLogger(**places, **offline)
        logger.log_hyperparams(settings.model_dump(mode="json"))
    try:
        yield logger
    except BaseException:
        logger.experiment.finish(exit_code=1)
        raise
    logger.experiment.finish()  # or the next training in this process would go on in the same W&B run


def log_run(logger: Any, run: Run) -> None:
    """Send what a complete run says of its test split: figures with their descriptions, metrics, operating point."""
    import wandb

    point, experiment = run.operating_point, logger.experiment
    figures = report_figures(run.predictions("test"), run.metrics, point.threshold)
    pictures = {}
    for name, figure in figures.items():
        figure.savefig(picture := io.BytesIO(), format="png", dpi=110)  # W&B knows Matplotlib's own figures by their name only
        pictures[f"test/{name}"] = wandb.Image(Image.open(picture), caption=figure.alt_text)
    experiment.log(pictures)
    experiment.summary["operating_point"] = {
        "threshold": point.threshold, "rule": point.rule,
        "val_sensitivity": point.sensitivity, "val_specificity": point.specificity,
    }  # fmt: skip
    experiment.summary["test"] = run.metrics
