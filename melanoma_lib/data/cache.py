"""The cache of decoded images: each file is decoded once, and then read as fast as memory."""

import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_lib.data.images import backbone_normalisation, evaluation_pixels, read_square
from melanoma_lib.errors import CorruptImageError, DataError
from melanoma_lib.utils import replacing, write_text

log = logging.getLogger(__name__)

CACHE_FORMAT = 1  # raise when read_square changes what it returns


def open_cache(paths: Sequence[Path], side: int, cache_dir: Path, on_progress: Callable[[], None] | None = None) -> np.memmap:
    """Memory-mapped pixels of the images at ``paths``, decoding them only if no cache with this very content exists.

    The cache is keyed by the content of the files and the side, so a changed, added or removed image gives another cache.
    Processes that ask at the same time wait for the first; an interrupted build leaves nothing that could be taken for a cache.

    Returns:
        read-only uint8 array in the order of the paths, shape ``(len(paths), side, side, 3)``; ``on_progress`` is called after
        each decoded image.

    Raises:
        CorruptImageError: naming the files that cannot be decoded; no cache is left behind.
        DataError: if there is no image, one cannot be read, or the folder cannot hold the cache (full disk, no permission).
    """
    from filelock import FileLock

    if not paths:
        raise DataError("expected at least one image to cache, got none")
    shape = (len(paths), side, side, 3)
    with _explained(cache_dir, shape):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / "fingerprints.lock"):
            digests = _fingerprints(paths, cache_dir / "fingerprints.json")
        key = hashlib.sha256("\n".join([f"{CACHE_FORMAT} {side}", *digests]).encode()).hexdigest()[:24]
        return _open(cache_dir / f"images-{side}px-{key}.npy", shape, paths, lambda path: read_square(path, side), on_progress)


def open_evaluation_cache(pixels: np.memmap, backbone: str, image_size: int) -> np.memmap:
    """What :func:`evaluation_pixels` makes of each cached image, kept beside them, so that evaluation only copies memory.

    Returns:
        read-only uint8 array, shape ``(len(pixels), image_size, image_size, 3)``.

    Raises:
        DataError: if the folder cannot hold the cache.
    """
    images, prepare = Path(pixels.filename), evaluation_pixels(backbone, image_size)
    shape = (len(pixels), image_size, image_size, 3)
    name = f"evaluation-{image_size}px-{backbone_normalisation(backbone)['interpolation']}-of-{images.name}"

    def squash(image: np.ndarray) -> np.ndarray:
        return prepare(Image.fromarray(image)).permute(1, 2, 0).numpy()  # (C, C, 3) -> (3, S, S) -> (S, S, 3)

    with _explained(images.parent, shape):
        return _open(images.with_name(name), shape, pixels, squash)


def _open(
    target: Path, shape: tuple[int, ...], items: Iterable, make: Callable, on_progress: Callable[[], None] | None = None
) -> np.memmap:
    from filelock import FileLock

    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            _build(target, shape, items, make, on_progress)
    return np.load(target, mmap_mode="r")


@contextmanager
def _explained(folder: Path, shape: tuple[int, ...]) -> Iterator[None]:
    """Say what to do where a cache of this shape cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"the image cache needs {math.prod(shape) / 1e6:.1f} MB in {folder}, "
                f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free; make room or point --cache-dir to another disk"
            ) from error
        raise DataError(f"cannot cache images in {folder} ({error}); point --cache-dir to a folder you may write to") from error


def _fingerprints(paths: Sequence[Path], memory: Path) -> list[str]:
    """Digest of each file's content; files whose size and time of change are remembered are not read again."""
    try:
        known = dict(json.loads(memory.read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # a lost memory only costs reading the files again
        known = {}
    digests, fresh = [], {}
    for path in paths:
        try:
            status = path.stat()
            name, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns]
            entry = known.get(name)
            if entry is None or entry[:2] != stamp:
                fresh[name] = entry = [*stamp, hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()]
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}); check the data folder") from error
        digests.append(entry[2])
    if fresh:
        write_text(memory, json.dumps(known | fresh))
    return digests


def _build(target: Path, shape: tuple[int, ...], items: Iterable, make: Callable, on_progress: Callable[[], None] | None) -> None:
    """Write what ``make`` returns for each item, uint8 of shape ``shape[1:]``; the caller holds the lock."""
    for abandoned in target.parent.glob(f".{target.name}.*.tmp"):  # by a killed build
        abandoned.unlink()
    if math.prod(shape) > shutil.disk_usage(target.parent).free:
        raise OSError(errno.ENOSPC, "no room")
    log.info("preparing %d images in %s", shape[0], target)
    corrupt: list[str] = []

    def pixels_of(item: Path | np.ndarray) -> np.ndarray:
        try:
            return make(item)
        except CorruptImageError as error:
            corrupt.append(str(error))
            return np.zeros(shape[1:], np.uint8)  # keeps rows in step; the file is never finished

    # Written through the file, not the map: a full disk is then an error and not a bus fault.
    with replacing(target) as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        with temporary.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for pixels in pool.map(pixels_of, items):
                file.write(pixels.tobytes())
                if on_progress:
                    on_progress()
            file.flush()
            os.fsync(file.fileno())
        if corrupt:
            names = "\n  ".join(corrupt[:10])
            more = f"\n  and {len(corrupt) - 10} more" if len(corrupt) > 10 else ""
            raise CorruptImageError(f"{len(corrupt)} of {shape[0]} images cannot be decoded:\n  {names}{more}")
