"""Synthetic cases as files, painted by one process or several."""

import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.utils import progress_bar

TABLE = "cases.csv"
FILES = {"images": "jpg", "masks": "png", "artefacts": "png"}  # folder: kind
JPEG_QUALITY = 94
BATCH = 16  # cases that a worker paints before it says so


def write_files(generator: Any, part: Path, workers: int, twin: Path | None, shared: np.ndarray) -> None:
    """Write table, images, masks and artefacts of a generator's cases into an empty folder.

    Args:
        generator: a ``SyntheticDermoscopy``.
        part: the folder.
        workers: processes to paint with.
        twin: folder of the same kind, whose files are copied for the shared cases.
        shared: which cases those are, boolean, shape ``(N,)``.

    Raises:
        OSError: if something cannot be written, or a file of the twin is gone; what was written until then stays.
    """
    for folder in FILES:
        (part / folder).mkdir()
    for index in np.flatnonzero(shared):
        for path in _paths(generator, index):
            shutil.copyfile(twin / path, part / path)
    rows = np.flatnonzero(~shared).tolist()
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    with progress_bar("painting synthetic cases", len(rows)) as advance:
        for batch in _painted(generator, part, batches, workers):
            for _ in batch:
                advance()
    generator.cases.to_csv(part / TABLE, index=False)


def _paths(generator: Any, index: int) -> list[Path]:
    """Image, mask and artefacts of a case, in the data set's folder."""
    name = generator.cases["image_id"].iloc[index]
    return [Path(folder, f"{name}.{kind}") for folder, kind in FILES.items()]


def _painted(generator: Any, part: Path, batches: list[list[int]], workers: int) -> Iterator[list[int]]:
    if workers == 1:
        for batch in batches:
            _paint_batch(generator, part, batch)
            yield batch
        return
    # spawned, not forked: a fork of a process with running threads (torch, BLAS) may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (type(generator), generator.knobs, part)) as pool:
        try:
            yield from pool.map(_paint_in_worker, batches)
        finally:
            pool.shutdown(cancel_futures=True)


def _paint_batch(generator: Any, part: Path, batch: list[int]) -> None:
    for index in batch:
        case, (image, mask, artefacts) = generator.render(index), (part / path for path in _paths(generator, index))
        Image.fromarray(case.image).save(image, quality=JPEG_QUALITY, subsampling=0)
        Image.fromarray(case.mask.astype(np.uint8) * 255).save(mask)
        bits = np.zeros(case.mask.shape, np.uint8)
        for artefact, where in case.artefacts.items():
            bits |= where.astype(np.uint8) << ARTEFACTS.index(artefact)
        Image.fromarray(bits).save(artefacts)


_worker: tuple[Any, Path]  # a worker process builds its generator once


def _start_worker(kind: type, knobs: dict, part: Path) -> None:
    global _worker
    _worker = kind(**knobs), part


def _paint_in_worker(batch: list[int]) -> list[int]:
    _paint_batch(*_worker, batch)
    return batch
