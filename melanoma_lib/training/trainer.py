"""Training: ``train(settings) -> Run``, in one process or in several; ``cross_validate(settings) -> Run`` trains every fold."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
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
from melanoma_lib.errors import RunError, SettingsError, WeightsUnavailableError
from melanoma_lib.inference import predict_logits, prediction_device
from melanoma_lib.model import size_problem
from melanoma_lib.runs.run import HISTORY, SETTINGS, Run
from melanoma_lib.runs.writer import RunWriter
from melanoma_lib.settings import Settings
from melanoma_lib.training import module as parts
from melanoma_lib.training.module import MelanomaModule, TimeLeft
from melanoma_lib.weights import require_backbone

log = logging.getLogger(__name__)

# A training seeds and switches things that its whole process shares, so the threads of one (a Dask worker has several unless
# told otherwise) train in turn.
_TRAINING = threading.Lock()


def train(settings: Settings, cases: pd.DataFrame | None = None, watchers: Sequence[pl.Callback] = ()) -> Run:
    """Train, calibrate and choose the operating point on validation, predict the test split, and keep it all as a run.

    With several ``devices`` Lightning starts the script or command again for each further process, unless torchrun has. They
    train one model; then the first process goes on alone and the others end here.

    Args:
        settings: everything the run depends on; with ``resume`` an interrupted run of the same settings goes on at its last
            finished epoch and ends where an unbroken one would have; a finished one, of whatever settings, is returned.
        cases: a case table to use in place of the settings' source.
        watchers: Lightning callbacks that look on, such as curves drawn while it trains.

    Raises:
        SettingsError: if settings do not fit each other, torchrun's processes or the backbone.
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
    writer = RunWriter(settings)
    if run := writer.finished():
        if changed := writer.differing(run.path / SETTINGS):
            log.warning("%s is finished and taken as it is, with other settings than asked for: %s", run.path, changed)
        return run
    if leads:
        writer.tell_of_others()
    with writer.working() if leads else nullcontext(writer.partial) as work:
        if "image" in settings.modalities:  # now, not after minutes of preparing data
            if settings.init_weights and not settings.init_weights.is_file():
                raise WeightsUnavailableError(
                    f"{settings.init_weights} does not exist; point --init-weights to where it lies now"
                )
            require_backbone(settings.backbone, settings.pretrained and settings.init_weights is None)
            if problem := size_problem(settings.backbone, settings.image_size):
                raise SettingsError(problem)
        data = DermoscopyDataModule(settings, cases)
        if leads:
            parts.warn_of_double_correction(settings)
            writer.claim_cases(data.cases, data.encoder)
        module = prepare(settings, data)
        with parts.wandb_logger(settings, work) if settings.wandb else nullcontext() as logger:
            fit(module, data, work, watchers, logger)
            if not leads:
                raise SystemExit(0)
            best = torch.load(work / "checkpoints" / "best.ckpt", map_location=module.device, weights_only=True)
            module.load_state_dict(best["state_dict"])
            model = module.model.to(prediction_device())
            loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
            logits = {split: predict_logits(model, loader, settings.tta) for split, loader in loaders.items()}
            writer.finish(data.cases, logits)
            if logger:
                parts.log_run(logger, Run(work))
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
    """Train the module, from the last finished epoch in ``work`` if there is one; RunError if somebody interrupts (Ctrl-C)."""
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
    best = ModelCheckpoint(filename="best", **monitored, **kept)
    last = ModelCheckpoint(filename="last", **kept)  # after the best one, whose state it holds
    stopping = EarlyStopping(**monitored, patience=settings.patience, check_on_train_epoch_end=True)
    callbacks = [parts.History(work / HISTORY), stopping, best, last]
    callbacks += [parts.MovingAverage(settings.ema_decay)] if settings.ema_decay else []
    callbacks += [TimeLeft()] if settings.progress else []
    if settings.deterministic:
        # Or torch fills each new tensor first, to show who reads memory that nobody has set: a twentieth of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False
    devices, nodes = processes(settings)
    held = "image" in settings.modalities and (settings.is_pretrained or settings.head_epochs > 0)  # weights without a gradient
    together = "ddp_find_unused_parameters_true" if held else "ddp"
    sharing = {"devices": devices, "num_nodes": nodes, "strategy": together if devices * nodes > 1 else "auto"}
    sharing["use_distributed_sampler"] = False  # the kit's own sampler shares the cases out
    numbers = {"precision": trainer_precision(settings), "deterministic": settings.deterministic, "num_sanity_val_steps": 0}
    places = {"default_root_dir": work, "logger": logger or False, "plugins": [parts.AtomicCheckpointIO()]}
    callbacks += watchers
    return pl.Trainer(max_epochs=settings.max_epochs, callbacks=callbacks, **sharing, **numbers, **places, **quiet())


def trainer_precision(settings: Settings) -> str:
    """Lightning's name of the precision that the settings ask for; ``auto`` takes what was faster for the backbone here.

    On a processor with bfloat16 depthwise convolutions (EfficientNet, MobileNet) slow down, the others gain a factor of two.
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

    SettingsError if torchrun started others, or none for several machines, or a batch cannot be shared out evenly.
    """
    devices, nodes = settings.devices or 1, settings.nodes or 1
    if distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        if (settings.devices or devices, settings.nodes or nodes) != (devices, nodes):
            raise SettingsError(f"torchrun started {devices} on each of {nodes} machines; leave --devices and --nodes out")
    elif nodes > 1:
        command = f"torchrun --nnodes {nodes} --nproc-per-node {devices} -m -- melanoma_lib train …"
        raise SettingsError(f"nodes={nodes}: start on every machine: {command}")
    if settings.batch_size % (size := devices * nodes):
        raise SettingsError(f"batch_size={settings.batch_size} is shared out among {size} processes; choose a multiple of {size}")
    return devices, nodes


def quiet() -> dict[str, bool]:
    """Options for a Lightning trainer without bars and summary; its lines on devices and products are not shown from here on."""
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


def cross_validate(settings: Settings, jobs: int = 1) -> Run:
    """Train every fold and gather their out-of-fold predictions.

    Each fold is a run of its own (see :func:`melanoma_lib.data.splits.fold_cases`), trained by ``train``: early stopping,
    calibration and the operating point know only its validation cases, so no case is scored by anything that saw it.

    Args:
        settings: with ``folds``; ``fold`` is 0. With ``resume``, finished folds are taken as they are, the interrupted ones go
            on at their last finished epoch.
        jobs: folds trained at a time, each with its share of this machine's threads, through joblib: within
            ``joblib.parallel_config`` or ``utils.workers`` that may be a Dask cluster whose workers see the same folders.

    Returns:
        The gathered run: ``predictions("test")`` holds every case once.

    Raises:
        SettingsError: if the settings ask for no folds, for a single one, or for several processes a fold.
        RunError: as ``train``, the folds finished until then stay; or, before anything is trained, if a run is in the way.
    """
    from joblib import Parallel, delayed

    if not settings.folds or settings.fold:
        raise SettingsError(f"cross-validation needs folds and no single fold, got folds={settings.folds}, fold={settings.fold}")
    if settings.devices > 1 or settings.nodes > 1:
        raise SettingsError("several processes train one fold: give --fold 1, --fold 2, ..., and gather without --devices")
    writer, tells = RunWriter(settings), settings.progress
    if run := writer.finished():
        writer.require_free_place()
        return run
    if jobs > 1:  # bars of several folds would overwrite each other
        settings = settings.with_changes(threads=settings.threads or max(1, (os.cpu_count() or 1) // jobs), progress=False)
    for one in (writer, *map(RunWriter, fold_settings(settings))):  # before hours of training, not after
        one.require_free_place()
    calls = [delayed(_train_fold)(fold.to_json(), tells and jobs > 1) for fold in fold_settings(settings)]
    folds = []
    for path in Parallel(n_jobs=jobs, return_as="generator")(calls):
        folds.append(Run(path))
        log.info("fold %d of %d is trained: %s", len(folds), settings.folds, path)
    with writer.working():
        writer.finish_folds(folds)
    return Run(settings.run_path)


def fold_settings(settings: Settings) -> Iterator[Settings]:
    """The settings of each fold's own run, in order."""
    for fold in range(1, settings.folds + 1):
        named = settings.run_dir and settings.run_dir.with_name(f"{settings.run_dir.name}-fold{fold}of{settings.folds}")
        yield settings.with_changes(fold=fold, run_dir=named)


def _train_fold(settings: str, tells: bool) -> str:
    """Train one fold in whatever process joblib chose; text goes in and out, which travels to every machine."""
    fold = Settings.from_json(settings)
    if tells:
        logging.basicConfig(level=logging.INFO, format="%(message)s")  # of a process that joblib started
    with _TRAINING:
        return str(train(fold, watchers=[TimeLeft(f"fold {fold.fold} of {fold.folds}, ")] if tells else ()).path)
