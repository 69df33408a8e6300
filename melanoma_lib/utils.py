"""Small helpers of every layer: the project's folder, files written whole or not at all, a progress bar, lazy packages."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

from melanoma_lib.errors import KitError, SettingsError

log = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it over ``path`` on success, delete it on any exception.

    The folder is made when absent. OSError, ``path`` untouched, if it cannot be written, or as the body raises it.
    """
    path = path.resolve() if path.is_symlink() else path  # what it points to is replaced
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "this is no file that could be written anew; name another one", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        temporary.touch()  # now, not after the work
        temporary.unlink()
    except OSError as error:
        raise OSError(error.errno, "nothing can be written there; name another place", str(path)) from error
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_ending(out: Path | None, *endings: str) -> None:
    """KitError, before any work, if a file to write bears a name of another kind: it would be lost, or not found again."""
    if out and out.suffix.lower() not in endings:
        raise KitError(f"--out {out}: expected the name of a file that ends in {' or '.join(endings)}")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def project_dir() -> Path:
    """The nearest folder, from the working directory up, with the kit's ``notebooks``; else the working directory."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "notebooks" / "00_start_here.ipynb").is_file()), here)


def in_project(path: str | Path) -> Path:
    """A path as it is or, where a relative one leads nowhere from the working directory, from the project around that."""
    return Path(path) if Path(path).exists() or project_dir() == Path.cwd() else project_dir() / path


def shows_bars() -> bool:
    """Whether somebody looks on: a terminal or a notebook, no file and no batch queue."""
    from rich import get_console

    return get_console().is_terminal or get_console().is_jupyter


@contextmanager
def progress_bar(label: str, total: int, show: bool = True) -> Iterator[Callable[..., None]]:
    """Yield a function to call after each of ``total`` steps, with a note to show; the bar, with the time left, appears then.

    Where nobody looks on, a line is logged every ten seconds instead.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")
    bar = Progress(*columns, disable=not (show and shows_bars()), transient=False)
    task, told = bar.add_task(label, total=total, note=""), time.monotonic()

    def advance(note: str = "") -> None:
        nonlocal told
        bar.start()  # does nothing once started
        bar.update(task, advance=1, note=note)
        if show and bar.disable and time.monotonic() - told > 10:
            told = time.monotonic()
            log.info("%s: %d of %d", label, bar.tasks[task].completed, total)

    try:
        yield advance
    finally:
        bar.stop()


@contextmanager
def workers(backend: str = "loky", jobs: int = 1, scheduler: str | None = None) -> Iterator[None]:
    """Send what joblib runs in the body to its backend ``loky``, ``threading`` or ``dask``; SettingsError if that cannot be.

    Dask's workers are those of a running ``scheduler``, such as ``tcp://node1:8786``, else so many ``jobs`` on this machine.
    """
    from joblib import parallel_config

    with ExitStack() as stack:
        if scheduler and backend != "dask":
            raise SettingsError(f"--scheduler {scheduler} goes with --backend dask, got {backend}")
        if backend == "dask":
            try:
                from distributed import Client
            except ImportError as error:
                raise SettingsError('the dask backend needs Dask: python -m pip install -e ".[dask]"') from error
            own = {} if scheduler else {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
            stack.enter_context(Client(scheduler, **own))
        stack.enter_context(parallel_config(backend))
        yield


def lazy_names(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[list[str], Callable[[str], object]]:
    """``__all__`` and ``__getattr__`` of the package of this ``__name__``; ``homes``: module to the public names it holds."""
    home_of = {name: module for module, names in homes.items() for name in names}
    names = sorted(home_of)

    def load(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it offers {', '.join(names)}")
        return getattr(import_module(f"{package}.{home_of[name]}"), name)

    return names, load
