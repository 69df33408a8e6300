"""Training: the Lightning module and ``train(settings) -> Run``."""

import logging
import math
import signal
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision, BinaryF1Score, BinaryRecall

from melanoma_lib.callbacks import AtomicCheckpointIO, BestCheckpoint, History, MovingAverage, TimeLeft
from melanoma_lib.data.datamodule import UNKNOWN, Batch, DermoscopyDataModule
from melanoma_lib.errors import RunError, SettingsError
from melanoma_lib.inference import predict_logits, prediction_device
from melanoma_lib.losses import FocalLoss
from melanoma_lib.machine import keep_freed_memory, trainer_precision
from melanoma_lib.model import MelanomaNet, hold_early, takes_any_size
from melanoma_lib.processes import ALONE, Team, team_of
from melanoma_lib.run_writer import RunWriter
from melanoma_lib.runs import HISTORY, Run
from melanoma_lib.settings import Settings
from melanoma_lib.tracking import log_run, wandb_logger
from melanoma_lib.weights import require_backbone

log = logging.getLogger(__name__)
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)  # devices and tips, at each start


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
        self.model = MelanomaNet(
            settings.backbone,
            n_metadata,
            settings.pretrained,
            settings.modalities,
            settings.metadata_hidden,
            settings.dropout,
            settings.drop_path,
            prior,
        ).to(memory_format=torch.channels_last)
        # Only training knows this head: telling a nevus from a keratosis shapes the features, the model keeps its one logit.
        self.diagnosis_head = nn.Linear(self.model.n_features, n_diagnoses) if settings.diagnosis_weight and n_diagnoses else None
        metrics = MetricCollection(
            {
                "accuracy": BinaryAccuracy(),
                "recall": BinaryRecall(),
                "f1": BinaryF1Score(),
                "auroc": BinaryAUROC(),
                "average_precision": BinaryAveragePrecision(),
            }
        )
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
        return loss + self.settings.diagnosis_weight * F.cross_entropy(
            self.diagnosis_head(dropped), batch["diagnosis"], ignore_index=UNKNOWN
        )

    def _sized(self, image: Tensor | None) -> Tensor | None:
        """The images, smaller in early epochs: what lesions look like from afar is learnt first, and faster."""
        settings = self.settings
        early = self.current_epoch < settings.small_epochs * settings.max_epochs
        if image is None or not early or not takes_any_size(self.model.image_branch):
            return image
        side = max(32, round(0.75 * settings.image_size / 32) * 32)  # what strides of 32 divide
        return F.interpolate(image, size=side, mode="bilinear", antialias=True)  # (B, 3, S, S) -> (B, 3, side, side)

    def validation_step(self, batch: Batch, step: int) -> None:
        """Metrics of one batch."""
        self._score(self.model(batch.get("image"), batch["metadata"]), batch, self.val_metrics, "val/loss")

    def _score(self, logits: Tensor, batch: Batch, metrics: MetricCollection, loss_name: str) -> Tensor:
        loss = self.loss(logits, batch["target"])
        metrics.update(torch.sigmoid(logits.detach().float()), batch["target"].int())
        # Lightning averages the processes' numbers of cases: as integers it would cut halves off.
        self.log(loss_name, loss.detach(), on_epoch=True, on_step=False, batch_size=float(len(logits)), sync_dist=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Order of the new epoch; which parts of the image branch learn in it."""
        self.trainer.train_dataloader.batch_sampler.set_epoch(self.current_epoch)
        branch, settings = self.model.image_branch, self.settings
        if branch is not None:
            learning = self.current_epoch >= settings.head_epochs  # before, it waits frozen while only the head learns
            branch.requires_grad_(learning).train(learning)
            if settings.pretrained:
                hold_early(branch, settings.frozen_stride)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics; validation ends an epoch, so the training batches are all in."""
        for metrics in (self.train_metrics, self.val_metrics):
            self.log_dict(metrics.compute())
            metrics.reset()

    def configure_optimizers(self) -> dict:
        """Adam (decoupled decay) with a lower rate for the image branch; linear warm-up, then cosine decay to zero, per step."""
        settings = self.settings
        branch = list(self.model.image_branch.parameters()) if self.model.image_branch is not None else []
        in_branch = {id(parameter) for parameter in branch}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in in_branch]
        groups = [{"params": rest, "lr": settings.learning_rate}]
        if branch:
            groups.append({"params": branch, "lr": settings.learning_rate * settings.backbone_lr_scale})
        optimiser = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
        total = self.trainer.estimated_stepping_batches
        warm_up = settings.warmup_epochs * total / settings.max_epochs

        def rate(step: int) -> float:
            if step < warm_up:
                return (step + 1) / (warm_up + 1)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1.0, total - warm_up))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loss_and_prior(settings: Settings, prevalence: float) -> tuple[nn.Module, float]:
    """The training loss and the output an untrained model should start from.

    Args:
        settings: ``loss``, ``alpha``, ``gamma`` and ``sampler``.
        prevalence: share of melanomas among the training cases, in (0, 1).

    Returns:
        The loss module, and the output that minimises it when nothing but the base rate is known.
    """
    # Drawing melanomas more often changes the base rate that the loss meets.
    seen = {"plain": prevalence, "weighted": settings.sampled_prevalence, "oversample": 0.5}[settings.sampler]
    if settings.loss == "focal":
        loss = FocalLoss(settings.alpha, settings.gamma)
        return loss, loss.optimal_output(seen)
    if settings.loss == "bce":
        return nn.BCEWithLogitsLoss(), seen
    weight = (1 - prevalence) / prevalence
    return nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weight)), weight * seen / (weight * seen + 1 - seen)


def warn_of_double_correction(settings: Settings) -> str | None:
    """Log and return a warning where both sampler and loss correct for the imbalance; None where at most one does."""
    weights_loss = settings.loss == "weighted_bce" or (settings.loss == "focal" and (settings.alpha or 0.5) > 0.5)
    if settings.sampler == "plain" or not weights_loss:
        return None
    named = "weighted_bce" if settings.loss == "weighted_bce" else f"focal alpha={settings.alpha}"
    message = (
        f"sampler={settings.sampler!r} already balances the classes and {named} weights melanomas again: the imbalance is "
        "corrected twice and outputs run far above the risk. Use sampler='plain', or bce, or alpha=none."
    )
    log.warning(message)
    return message


def trainer_for(
    settings: Settings, work: Path, watchers: Sequence[pl.Callback] = (), team: Team = ALONE, logger: Logger | None = None
) -> pl.Trainer:
    """The Lightning trainer of these settings, keeping its files in ``work``; watchers are called after its own callbacks."""
    kept = {"dirpath": work / "checkpoints", "enable_version_counter": False, "save_on_train_epoch_end": True}
    best = BestCheckpoint(filename="best", monitor=settings.monitor, mode=_mode(settings), **kept)
    last = ModelCheckpoint(filename="last", **kept)  # after the best one, whose state it holds
    stopping = EarlyStopping(settings.monitor, patience=settings.patience, mode=_mode(settings), check_on_train_epoch_end=True)
    callbacks = [History(work / HISTORY), stopping, best, last]
    callbacks += [MovingAverage(settings.ema_decay)] if settings.ema_decay else []
    callbacks += [TimeLeft()] if settings.progress else []
    held = "image" in settings.modalities and (settings.pretrained or settings.head_epochs > 0)  # weights without a gradient
    return pl.Trainer(
        max_epochs=settings.max_epochs,
        accelerator="auto",
        strategy=DDPStrategy(find_unused_parameters=held) if team.size > 1 else "auto",
        devices=team.devices,
        num_nodes=team.nodes,
        use_distributed_sampler=False,  # the kit's own sampler shares the cases out
        precision=trainer_precision(settings),
        callbacks=[*callbacks, *watchers],
        logger=logger or False,
        deterministic=settings.deterministic,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=work,
        plugins=[AtomicCheckpointIO()],
    )


def train(settings: Settings, cases: pd.DataFrame | None = None, watchers: Sequence[pl.Callback] = ()) -> Run:
    """Train, calibrate and choose the operating point on validation, predict the test split, and keep it all as a run.

    Under torchrun every process calls this; they train one model and each gets the run that the first one writes.

    Args:
        settings: everything the run depends on; with ``resume`` an interrupted run of the same settings goes on at its last
            finished epoch and ends where an unbroken one would have ended.
        cases: a case table to use in place of the settings' source.
        watchers: Lightning callbacks that look on, such as curves drawn while it trains.

    Returns:
        The finished run.

    Raises:
        SettingsError: if ``devices``, ``nodes`` or ``batch_size`` do not fit the processes that torchrun started.
        RunError: if the run directory exists already, the interrupted run does not fit, or somebody interrupts.
        DataError: if the cases are not usable.
        WeightsUnavailableError: if pretrained weights are not to be had.
    """
    if cases is not None and settings.run_dir is None:
        raise SettingsError("a run on cases of your own needs a --run-dir of its own: its name cannot be derived from settings")
    with team_of(settings) as team:
        if not team.leads:
            settings = settings.with_changes(progress=False, wandb=False)
        writer = RunWriter(settings)
        if writer.is_finished and settings.resume:
            return Run(settings.run_path)
        with writer.working() if team.leads else nullcontext(writer.partial) as work:
            module, data = prepare(settings, cases, team, writer)
            with wandb_logger(settings, work) if settings.wandb else nullcontext() as logger:
                fit(module, data, work, watchers, logger)
                model = load_best(module, work / "checkpoints" / "best.ckpt").to(prediction_device())
                logits = {
                    "val": predict_together(model, data.val_dataloader(), team, settings.tta),
                    "test": predict_together(model, data.test_dataloader(), team, settings.tta),
                }
                with team.leader_first():
                    if team.leads:
                        writer.finish(data.cases, data.encoder, logits)
                        if logger:
                            log_run(logger, Run(work))
            with team.leader_first():
                return writer.publish() if team.leads else Run(settings.run_path)


def prepare(
    settings: Settings, cases: pd.DataFrame | None, team: Team, writer: RunWriter
) -> tuple["MelanomaModule", DermoscopyDataModule]:
    """The untrained module and its data, the same in every process of the team; the leader prepares first, the others find it.

    Raises:
        RunError: if a process holds other cases than the run was begun with.
    """
    if "image" in settings.modalities:
        require_backbone(settings.backbone, settings.pretrained)  # now, not after minutes of preparing data
    if settings.threads:
        torch.set_num_threads(settings.threads)
    keep_freed_memory()
    if team.leads:
        warn_of_double_correction(settings)
    with team.leader_first():
        data = DermoscopyDataModule(settings, cases, team)
        writer.claim_cases(data.cases)
        data.pixels()
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    module = MelanomaModule(settings, data.encoder.n_features, data.train_prevalence, len(data.diagnoses))
    if team.size > 1 and torch.cuda.is_available():
        module.model = synchronise_statistics(module.model)
    return module, data


def synchronise_statistics(model: MelanomaNet) -> MelanomaNet:
    """Let batch normalisation see the whole batch of all processes; PyTorch can do so on CUDA devices only.

    Lightning's own ``sync_batchnorm`` would replace timm's fused layers by plain ones, and their activations would be gone.
    """
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(model)


def fit(
    module: MelanomaModule,
    data: DermoscopyDataModule,
    work: Path,
    watchers: Sequence[pl.Callback] = (),
    logger: Logger | None = None,
) -> None:
    """Train the module, from the last finished epoch in ``work`` if there is one.

    Raises:
        RunError: if somebody interrupts (Ctrl-C); the finished epochs stay.
    """
    trainer = trainer_for(module.settings, work, watchers, data.team, logger)
    last, on_interrupt = work / "checkpoints" / "last.ckpt", signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")  # its own use of what torch deprecates
            trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C; it would end a notebook's kernel
        signal.signal(signal.SIGINT, on_interrupt)  # which Lightning has told to ignore every further one
        raise RunError(f"interrupted; {work} keeps the finished epochs, and the same command with --resume goes on") from stop


def predict_together(model: MelanomaNet, loader: DataLoader, team: Team, tta: bool) -> np.ndarray:
    """Logits of all cases of an ordered loader, in table order, shape ``(N,)``; each process of the team predicts its share."""
    mine = np.array([row for draw in loader.batch_sampler for row in draw.rows])
    shares = team.gather((mine, predict_logits(model, loader, tta)))
    rows, logits = (np.concatenate(parts) for parts in zip(*shares, strict=True))
    return logits[np.argsort(rows)]


def load_best(module: MelanomaModule, checkpoint: Path) -> MelanomaNet:
    """The module's model with the weights of a checkpoint."""
    module.load_state_dict(torch.load(checkpoint, map_location=module.device, weights_only=True)["state_dict"])
    return module.model


def _mode(settings: Settings) -> str:
    return "min" if settings.monitor == "val/loss" else "max"
