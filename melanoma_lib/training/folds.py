"""Cross-validation: one training a fold, in as many processes or machines as there are, gathered into one run."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from melanoma_lib.errors import SettingsError
from melanoma_lib.runs.run import Run
from melanoma_lib.runs.writer import RunWriter
from melanoma_lib.settings import Settings

# A training seeds and switches things that its whole process shares, so the threads of one (a Dask worker has several unless
# told otherwise) train in turn.
_TRAINING = threading.Lock()


def cross_validate(settings: Settings, jobs: int = 1) -> Run:
    """Train every fold and gather their out-of-fold predictions.

    Each fold is a run of its own (see :func:`melanoma_lib.data.splits.fold_cases`), trained by ``train``: early stopping,
    calibration and the operating point know only its validation cases, so no case is scored by anything that saw it.

    Args:
        settings: with ``folds``; ``fold`` is 0. With ``resume``, finished folds are taken as they are, the interrupted ones go
            on at their last finished epoch.
        jobs: folds trained at a time, each with its share of this machine's threads, through joblib: within
            ``joblib.parallel_config`` or ``workers`` that may be a Dask cluster whose workers see the same folders.

    Returns:
        The gathered run: ``predictions("test")`` holds every case once.

    Raises:
        SettingsError: if the settings ask for no folds, for a single one, or for several processes a fold.
        RunError: as ``train`` raises it, the folds finished until then stay; or, before anything is trained, if a run is in the
            way or a finished fold has other settings; or if the folds hold other cases than each other.
    """
    from joblib import Parallel, delayed

    if not settings.folds or settings.fold:
        raise SettingsError(f"cross-validation needs folds and no single fold, got folds={settings.folds}, fold={settings.fold}")
    if settings.devices > 1 or settings.nodes > 1:
        raise SettingsError(
            "several processes train one fold, not all: give --fold 1, then --fold 2, ..., and gather without --devices"
        )
    writer = RunWriter(settings)
    if run := writer.finished():
        writer.require_free_place()
        return run
    if jobs > 1 and not settings.threads:
        settings = settings.with_changes(threads=max(1, (os.cpu_count() or 1) // jobs), progress=False)
    for one in (writer, *map(RunWriter, fold_settings(settings))):  # before hours of training, not after
        one.require_free_place()
    paths = Parallel(n_jobs=jobs)(delayed(_train_fold)(fold.to_json()) for fold in fold_settings(settings))
    with writer.working():
        writer.finish_folds([Run(path) for path in paths])
    return Run(settings.run_path)


def fold_settings(settings: Settings) -> Iterator[Settings]:
    """The settings of each fold's own run, in order."""
    for fold in range(1, settings.folds + 1):
        named = settings.run_dir and settings.run_dir.with_name(f"{settings.run_dir.name}-fold{fold}of{settings.folds}")
        yield settings.with_changes(fold=fold, run_dir=named)


def _train_fold(settings: str) -> str:
    """Train one fold in whatever process joblib chose; text goes in and out, which travels to every machine."""
    from melanoma_lib.training.trainer import train

    with _TRAINING:
        return str(train(Settings.from_json(settings)).path)


@contextmanager
def workers(backend: str = "loky", jobs: int = 1, scheduler: str | None = None) -> Iterator[None]:
    """Send what joblib runs in the body to this backend of joblib.

    Args:
        backend: ``loky``, ``threading``, or ``dask``, which needs the kit's extra of that name.
        jobs: workers of the Dask cluster that is started here where no scheduler is named.
        scheduler: address of a running Dask scheduler, such as ``tcp://node1:8786``, whose workers see the same folders and have
            the kit installed.

    Raises:
        SettingsError: if a scheduler is given to another backend than Dask, or Dask is not installed.
    """
    from joblib import parallel_config

    if backend != "dask":
        if scheduler:
            raise SettingsError(f"--scheduler {scheduler} goes with --backend dask, got {backend}")
        with parallel_config(backend):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise SettingsError('the dask backend needs Dask: python -m pip install -e ".[dask]"') from error
    cluster = {"address": scheduler} if scheduler else {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    with Client(**cluster), parallel_config("dask"):
        yield
