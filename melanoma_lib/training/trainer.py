"""Training: ``train(settings) -> Run``, in one process or in several."""

import logging
import os
import signal
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import distributed

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.errors import RunError, SettingsError
from melanoma_lib.inference import predict_logits, prediction_device
from melanoma_lib.model import size_problem
from melanoma_lib.reports.report import log_run, wandb_logger
from melanoma_lib.runs.run import HISTORY, Run
from melanoma_lib.runs.writer import RunWriter
from melanoma_lib.settings import Settings
from melanoma_lib.training.module import (
    AtomicCheckpointIO,
    BestCheckpoint,
    History,
    MelanomaModule,
    MovingAverage,
    TimeLeft,
    warn_of_double_correction,
)
from melanoma_lib.weights import require_backbone, require_digest

log = logging.getLogger(__name__)


def train(
    settings: Settings, cases: pd.DataFrame | None = None, watchers: Sequence[pl.Callback] = (), demonstration: str = ""
) -> Run:
    """Train, calibrate and choose the operating point on validation, predict the test split, and keep it all as a run.

    With several ``devices`` Lightning starts the script or command again for each further process; under torchrun they are there
    already. They train one model; then the first process goes on alone and the others end here.

    Args:
        settings: everything the run depends on; with ``resume`` an interrupted run of the same settings goes on at its last
            finished epoch and ends where an unbroken one would have ended.
        cases: a case table to use in place of the settings' source.
        watchers: Lightning callbacks that look on, such as curves drawn while it trains.
        demonstration: what the run is to show if it is trained to go wrong; marks it, so that no command takes it unasked.

    Returns:
        The finished run.

    Raises:
        SettingsError: if ``devices``, ``nodes`` or ``batch_size`` do not fit each other or torchrun's processes.
        RunError: if the run directory exists already, the interrupted run does not fit, or somebody interrupts.
        DataError: if the cases are not usable.
        WeightsUnavailableError: if pretrained weights are not to be had.
        SystemExit: in all processes but the first, when the model is trained.
    """
    if cases is not None and settings.run_dir is None:
        raise SettingsError("a run on cases of your own needs a --run-dir of its own: its name cannot be derived from settings")
    leads = processes(settings) == (1, 1) or rank_zero_only.rank == 0
    if not leads:
        settings = settings.with_changes(progress=False, wandb=False)
    writer = RunWriter(settings, demonstration)
    if run := writer.finished():
        return run
    with writer.working() if leads else nullcontext(writer.partial) as work:
        if "image" in settings.modalities:  # now, not after minutes of preparing data
            if settings.init_weights:
                require_digest(settings.init_weights)
            require_backbone(settings.backbone, settings.pretrained and settings.init_weights is None)
            if problem := size_problem(settings.backbone, settings.image_size):
                raise SettingsError(problem)
        data = DermoscopyDataModule(settings, cases)
        if leads:
            warn_of_double_correction(settings)
            writer.claim_cases(data.cases)
        module = prepare(settings, data)
        with wandb_logger(settings, work) if settings.wandb else nullcontext() as logger:
            fit(module, data, work, watchers, logger)
            if not leads:
                raise SystemExit(0)
            best = torch.load(work / "checkpoints" / "best.ckpt", map_location=module.device, weights_only=True)
            module.load_state_dict(best["state_dict"])
            model = module.model.to(prediction_device())
            loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
            logits = {split: predict_logits(model, loader, settings.tta) for split, loader in loaders.items()}
            writer.finish(data.cases, data.encoder, logits)
            if logger:
                log_run(logger, Run(work))
    for kept in settings.run_path.glob("wandb/offline-run-*"):  # W&B itself told a place that has been renamed since
        log.info("to send it to Weights & Biases: wandb sync %s", kept)
    return Run(settings.run_path)


def prepare(settings: Settings, data: DermoscopyDataModule) -> MelanomaModule:
    """The untrained module, the same in every process; the images of its data are decoded."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    keep_freed_memory()
    data.pixels()
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    module = MelanomaModule(settings, data.encoder.n_features, data.train_prevalence, len(data.diagnoses))
    if processes(settings) != (1, 1) and torch.cuda.is_available():
        from timm.layers import convert_sync_batchnorm

        # Lightning's own sync_batchnorm would replace timm's fused layers by plain ones, and their activations would be gone.
        module.model = convert_sync_batchnorm(module.model)
    return module


def fit(
    module: MelanomaModule, data: DermoscopyDataModule, work: Path, watchers: Sequence[pl.Callback], logger: Logger | None
) -> None:
    """Train the module, from the last finished epoch in ``work`` if there is one.

    Raises:
        RunError: if somebody interrupts (Ctrl-C); the finished epochs stay.
    """
    trainer = trainer_for(module.settings, work, watchers, logger)
    last, on_interrupt = work / "checkpoints" / "last.ckpt", signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")  # its own use of what torch deprecates
            trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C; it would end a notebook's kernel
        signal.signal(signal.SIGINT, on_interrupt)  # which Lightning has told to ignore every further one
        raise RunError(f"interrupted; {work} keeps the finished epochs, and the same command with --resume goes on") from stop
    data.trainer = None  # from here on its loaders give all cases, not this process's share


def trainer_for(settings: Settings, work: Path, watchers: Sequence[pl.Callback], logger: Logger | None) -> pl.Trainer:
    """The Lightning trainer of these settings, keeping its files in ``work``; watchers are called after its own callbacks."""
    kept = {"dirpath": work / "checkpoints", "enable_version_counter": False, "save_on_train_epoch_end": True}
    monitored = {"monitor": settings.monitor, "mode": "min" if settings.monitor == "val/loss" else "max"}
    best = BestCheckpoint(filename="best", **monitored, **kept)
    last = ModelCheckpoint(filename="last", **kept)  # after the best one, whose state it holds
    stopping = EarlyStopping(**monitored, patience=settings.patience, check_on_train_epoch_end=True)
    callbacks = [History(work / HISTORY), stopping, best, last]
    callbacks += [MovingAverage(settings.ema_decay)] if settings.ema_decay else []
    callbacks += [TimeLeft()] if settings.progress else []
    if settings.deterministic:
        # Or torch fills each new tensor first, to show who reads memory that nobody has set: a twentieth of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False
    devices, nodes = processes(settings)
    held = "image" in settings.modalities and (settings.is_pretrained or settings.head_epochs > 0)  # weights without a gradient
    together = "ddp_find_unused_parameters_true" if held else "ddp"
    return pl.Trainer(
        max_epochs=settings.max_epochs,
        accelerator="auto",
        strategy=together if devices * nodes > 1 else "auto",
        devices=devices,
        num_nodes=nodes,
        use_distributed_sampler=False,  # the kit's own sampler shares the cases out
        precision=trainer_precision(settings),
        callbacks=[*callbacks, *watchers],
        logger=logger or False,
        deterministic=settings.deterministic,
        num_sanity_val_steps=0,
        default_root_dir=work,
        plugins=[AtomicCheckpointIO()],
        **quiet(),
    )


def trainer_precision(settings: Settings) -> str:
    """Lightning's name of the precision that the settings ask for; ``auto`` takes what was faster for the backbone here.

    Without CUDA that depends on the processor having bfloat16 instructions: depthwise convolutions (EfficientNet, MobileNet)
    slow down in bfloat16, the others gain about a factor of two.
    """
    if settings.precision != "auto":
        return {"32": "32-true", "bf16": "bf16-mixed"}[settings.precision]
    if torch.cuda.is_available():
        return "bf16-mixed"
    depthwise = any(name in settings.backbone for name in ("efficientnet_b", "efficientnet_lite", "mobilenet", "mnasnet"))
    has_bfloat16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16-mixed" if has_bfloat16 and not depthwise else "32-true"


def processes(settings: Settings) -> tuple[int, int]:
    """Training processes on each machine, and machines: as the settings say, else as torchrun started them, else one of each.

    Raises:
        SettingsError: if torchrun started others, or none for several machines, or a batch cannot be shared out evenly.
    """
    devices, nodes = settings.devices or 1, settings.nodes or 1
    if distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        if (settings.devices or devices, settings.nodes or nodes) != (devices, nodes):
            raise SettingsError(
                f"devices={settings.devices} and nodes={settings.nodes} differ from what torchrun started, {devices} on each of "
                f"{nodes}; leave them out"
            )
    elif settings.nodes > 1:
        raise SettingsError(
            f"nodes={settings.nodes}: start torchrun on every machine: torchrun --nnodes {settings.nodes} --nproc-per-node "
            f"{settings.devices or 1} -m -- melanoma_lib train …"
        )
    if settings.batch_size % (size := devices * nodes):
        raise SettingsError(
            f"batch_size={settings.batch_size} is what all {size} processes take in one step and does not divide among them; "
            f"choose a multiple of {size}"
        )
    return devices, nodes


def quiet() -> dict[str, bool]:
    """Options for a Lightning trainer without bars and summary; its lines on devices and products are not shown from here on.

    What it warns of is, but for advice on the number of loader processes and its own use of what torch deprecates.

    Example:
        >>> trainer = pl.Trainer(max_epochs=5, **quiet())
    """
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (".*does not have many workers", ".*LeafSpec.* is deprecated"):
        warnings.filterwarnings("ignore", message)
    return {"enable_progress_bar": False, "enable_model_summary": False}


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks for the next training step and not hand them back to the system, page by page."""
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # macOS, Windows, musl: no such library or call, and nothing to tell
        return
    for option, value in ((-1, 2**31 - 1), (-3, 2**30)):  # malloc.h's names of the thresholds for trimming and for mmap
        mallopt(option, value)
