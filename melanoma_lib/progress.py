"""A progress bar with the time left, for everything that takes longer than a breath."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, total: int, show: bool = True) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` steps; the bar appears with the first call and shows the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, disable=not show, transient=False)
    task = bar.add_task(label, total=total)

    def advance() -> None:
        bar.start()  # does nothing once started
        bar.advance(task)

    try:
        yield advance
    finally:
        bar.stop()
