"""Training: ``train(settings) -> Run``, in one process or in several."""

import logging
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
from torch.utils.data import DataLoader

from melanoma_lib.callbacks import AtomicCheckpointIO, BestCheckpoint, History, MovingAverage, TimeLeft
from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.errors import RunError, SettingsError
from melanoma_lib.inference import predict_logits, prediction_device
from melanoma_lib.machine import keep_freed_memory, trainer_precision
from melanoma_lib.model import MelanomaNet
from melanoma_lib.module import MelanomaModule, warn_of_double_correction
from melanoma_lib.processes import ALONE, Team, team_of
from melanoma_lib.run_writer import RunWriter
from melanoma_lib.runs import HISTORY, Run
from melanoma_lib.settings import Settings
from melanoma_lib.tracking import log_run, wandb_logger
from melanoma_lib.weights import require_backbone, require_digest

log = logging.getLogger(__name__)
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)  # devices and tips, at each start


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
    if settings.deterministic:
        # Or torch fills each new tensor first, to show who reads memory that nobody has set: a twentieth of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False
    held = "image" in settings.modalities and (settings.is_pretrained or settings.head_epochs > 0)  # weights without a gradient
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
) -> tuple[MelanomaModule, DermoscopyDataModule]:
    """The untrained module and its data, the same in every process of the team; the leader prepares first, the others find it.

    Raises:
        RunError: if a process holds other cases than the run was begun with.
    """
    if "image" in settings.modalities:
        if settings.init_weights:  # now, not after minutes of preparing data
            require_digest(settings.init_weights)
        require_backbone(settings.backbone, settings.pretrained and settings.init_weights is None)
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
