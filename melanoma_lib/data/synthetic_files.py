"""Synthetic cases as files, painted by one process or several."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.progress import progress_bar

JPEG_QUALITY = 94
BATCH = 16  # cases that a worker paints before it says so


def paint_files(generator: Any, part: Path, workers: int) -> None:
    """Write table, images, masks and artefacts of a generator's cases into an empty folder.

    Args:
        generator: a ``SyntheticDermoscopy``.
        part: the folder.
        workers: processes to paint with.

    Raises:
        OSError: if something cannot be written; what was written until then stays.
    """
    for folder in ("images", "masks", "artefacts"):
        (part / folder).mkdir()
    batches = [range(start, min(start + BATCH, len(generator))) for start in range(0, len(generator), BATCH)]
    with progress_bar("painting synthetic cases", len(generator)) as advance:
        for batch in _painted(generator, part, batches, workers):
            for _ in batch:
                advance()
    generator.cases.to_csv(part / "cases.csv", index=False)


def _painted(generator: Any, part: Path, batches: list[range], workers: int) -> Iterator[range]:
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


def _paint_batch(generator: Any, part: Path, batch: range) -> None:
    for index in batch:
        case, name = generator.render(index), generator.cases["image_id"].iloc[index]
        Image.fromarray(case.image).save(part / "images" / f"{name}.jpg", quality=JPEG_QUALITY, subsampling=0)
        Image.fromarray(case.mask.astype(np.uint8) * 255).save(part / "masks" / f"{name}.png")
        bits = np.zeros(case.mask.shape, np.uint8)
        for artefact, where in case.artefacts.items():
            bits |= where.astype(np.uint8) << ARTEFACTS.index(artefact)
        Image.fromarray(bits).save(part / "artefacts" / f"{name}.png")


_worker: tuple[Any, Path]  # a worker process builds its generator once


def _start_worker(kind: type, knobs: dict, part: Path) -> None:
    global _worker
    _worker = kind(**knobs), part


def _paint_in_worker(batch: range) -> range:
    _paint_batch(*_worker, batch)
    return batch
