"""The cache of decoded images: each file is decoded once, and then read as fast as memory."""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_lib.data.images import backbone_normalisation, evaluation_pixels, read_square
from melanoma_lib.data.schema import listed
from melanoma_lib.errors import CorruptImageError, DataError
from melanoma_lib.utils import progress_bar, replacing

log = logging.getLogger(__name__)

CACHE_FORMAT = 2  # raise when read_square changes what it returns


def open_cache(paths: Sequence[Path], side: int, cache_dir: Path, show_progress: bool = False) -> np.memmap:
    """Memory-mapped pixels of the images at ``paths``, decoding them only if no cache of these very files exists.

    The cache is keyed by each file's path, size and time of change, and by the side, so a changed, added or removed image gives
    another cache. Processes that ask at the same time wait for the first; an interrupted build leaves nothing that could be taken
    for a cache.

    Returns:
        read-only uint8 array in the order of the paths, shape ``(len(paths), side, side, 3)``.

    Raises:
        CorruptImageError: naming the files that cannot be decoded; no cache is left behind.
        DataError: if an image cannot be read, or the folder cannot hold the cache (full disk, no permission).
    """
    key = hashlib.sha256(f"{CACHE_FORMAT} {side}".encode())
    try:
        for path in paths:
            status = path.stat()
            key.update(f"\n{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the data folder") from error
    target = cache_dir / f"images-{side}px-{key.hexdigest()[:24]}.npy"
    return _kept(target, (len(paths), side, side, 3), paths, lambda path: read_square(path, side), show_progress)


def open_evaluation_cache(pixels: np.memmap, backbone: str, image_size: int) -> np.memmap:
    """What :func:`evaluation_pixels` makes of each cached image, kept beside them, so that evaluation only copies memory.

    Returns and raises as :func:`open_cache`, with ``image_size`` for the side.
    """
    images, prepare = Path(pixels.filename), evaluation_pixels(backbone, image_size)
    name = f"evaluation-{image_size}px-{backbone_normalisation(backbone)['interpolation']}-of-{images.name}"
    shape = (len(pixels), image_size, image_size, 3)
    # Each image from (C, C, 3) over (3, S, S) to (S, S, 3).
    return _kept(images.with_name(name), shape, pixels, lambda image: prepare(Image.fromarray(image)).permute(1, 2, 0).numpy())


def _kept(target: Path, shape: tuple[int, ...], items: Iterable, make: Callable, show_progress: bool = False) -> np.memmap:
    """The array at ``target``; where it is not there yet, what ``make`` returns for each item, uint8 of shape ``shape[1:]``."""
    from filelock import FileLock

    folder = target.parent
    try:
        if not target.exists():  # a finished one needs no lock, which a folder of another user may refuse
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(target.with_suffix(".lock")):
                if not target.exists():
                    log.info("preparing %d images in %s", shape[0], target)
                    _build(target, shape, items, make, show_progress)
        return np.load(target, mmap_mode="r")
    except OSError as error:
        raise DataError(
            f"cannot keep {math.prod(shape) / 1e6:.1f} MB of decoded images in {folder} ({error}); make room, or point "
            "--cache-dir to another disk or to a folder you may write to"
        ) from error


def _build(target: Path, shape: tuple[int, ...], items: Iterable, make: Callable, show_progress: bool) -> None:
    for abandoned in target.parent.glob(f".{target.name}.*.tmp"):  # by a killed build
        abandoned.unlink()
    corrupt: list[str] = []

    def pixels_of(item: Path | np.ndarray) -> np.ndarray:
        try:
            return make(item)
        except CorruptImageError as error:
            corrupt.append(str(error))
            return np.zeros(shape[1:], np.uint8)  # keeps rows in step; the file is never finished

    # Written through the file, not the map: a full disk is then an error and not a bus fault.
    with replacing(target) as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        with temporary.open("wb") as file, progress_bar("decoding images, once", shape[0], show_progress) as advance:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for pixels in pool.map(pixels_of, items):
                file.write(pixels.tobytes())
                advance()
            file.flush()
            os.fsync(file.fileno())
        if corrupt:
            raise CorruptImageError(f"{len(corrupt)} of {shape[0]} images cannot be decoded: {listed(corrupt)}")
