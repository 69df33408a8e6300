"""Pixels: one way to read an image, one evaluation transform, one augmentation, and the cache that decodes each file once."""

import errno
import hashlib
import json
import logging
import math
import os
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from melanoma_lib.errors import CorruptImageError, DataError
from melanoma_lib.files import replacing, write_text
from melanoma_lib.weights import timm_config

log = logging.getLogger(__name__)

MIN_CROP_SCALE = 0.7  # area kept by the tightest training crop: a lesion in the frame stays in the crop
CACHE_FORMAT = 1  # raise when read_square changes what it returns


def read_square(file: Path | IO[bytes], side: int) -> np.ndarray:
    """Decode an image and squash its whole frame to a square; no border is cut, so no lesion is lost.

    Args:
        file: path or open binary file of anything Pillow reads.
        side: pixels of a side.

    Returns:
        uint8 RGB, shape ``(side, side, 3)``.

    Raises:
        CorruptImageError: if the file is no image or is cut short.
    """
    try:
        with Image.open(file) as image:
            image.draft("RGB", (side, side))  # lets JPEG decode at 1/2, 1/4, 1/8 when that is still large enough
            upright = _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except (
        OSError,
        SyntaxError,
        ValueError,
        RuntimeError,
        Image.DecompressionBombError,
    ) as error:  # what Pillow's decoders raise
        raise CorruptImageError(f"{file}: expected a readable image, got {error}; restore or remove the file") from error
    return np.asarray(upright.resize((side, side), Image.Resampling.BICUBIC))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale deep greyscale to 0 to 255, where Pillow's own conversion would cut everything brighter off."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {image.mode!r}, whose brightest value is not known; save it with 8 or 16 bits a channel"
        )
    return image


def stored_side(image_size: int) -> int:
    """Side at which images are cached: the tightest training crop then still has ``image_size`` pixels a side."""
    return math.ceil(image_size / math.sqrt(MIN_CROP_SCALE))


def evaluation_pixels(backbone: str, image_size: int) -> Callable[[Image.Image], Any]:
    """The pixels of the one evaluation transform: the whole frame, squashed to ``image_size``, not yet scaled.

    Args:
        backbone: name of a timm model, whose interpolation is used.
        image_size: side of the result.

    Returns:
        A callable from a PIL image to a uint8 tensor, shape ``(3, image_size, image_size)``; :func:`normalise` scales batches.
    """
    from timm.data import create_transform

    return create_transform(image_size, crop_pct=1.0, crop_mode="squash", normalize=False, **backbone_normalisation(backbone))


def evaluation_transform(backbone: str, image_size: int) -> Callable[[Image.Image], Any]:
    """The one evaluation transform: whole frame to ``image_size``, scaled by the backbone's own mean and deviation.

    Args:
        backbone: name of a timm model, whose data configuration is used.
        image_size: side of the result.

    Returns:
        A callable from a PIL image to a float tensor, shape ``(3, image_size, image_size)``.
    """
    pixels = evaluation_pixels(backbone, image_size)
    return lambda image: normalise(pixels(image)[None], backbone)[0]  # (3, S, S) -> (1, 3, S, S) -> (3, S, S)


def prepare_image(file: Path | IO[bytes], backbone: str, image_size: int) -> Any:
    """What a trained model is shown of a file: decoded as the cache does, then the evaluation transform.

    Args:
        file: path or open binary file of anything Pillow reads.
        backbone: of the model.
        image_size: of the model.

    Returns:
        float tensor, shape ``(3, image_size, image_size)``.

    Raises:
        CorruptImageError: if the file is no image or is cut short.
    """
    pixels = read_square(file, stored_side(image_size))
    return evaluation_transform(backbone, image_size)(Image.fromarray(pixels))


def training_transform(backbone: str, image_size: int) -> Callable[[Image.Image], Any]:
    """The augmentation: quarter turns, both flips, crops of at least 70% of the frame, mild colour.

    Args:
        backbone: name of a timm model, whose interpolation is used.
        image_size: side of the result.

    Returns:
        A callable from a PIL image to a uint8 tensor, shape ``(3, image_size, image_size)``; :func:`normalise` then scales whole
        batches, in a fraction of the time it takes image by image.
    """
    from timm.data import create_transform
    from torchvision.transforms import Compose

    augment = create_transform(
        image_size,
        is_training=True,
        scale=(MIN_CROP_SCALE, 1.0),
        ratio=(0.8, 1.25),
        hflip=0.5,
        vflip=0.5,
        color_jitter=(0.15, 0.15, 0.15),
        normalize=False,
        interpolation=backbone_normalisation(backbone)["interpolation"],
    )
    return Compose([_quarter_turn, augment])


def normalise(images: Any, backbone: str) -> Any:
    """Scale a uint8 batch, shape ``(B, 3, S, S)``, by the backbone's own mean and deviation; float32, channels last."""
    import torch

    config = backbone_normalisation(backbone)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) * 255 for name in ("mean", "std"))
    return images.contiguous(memory_format=torch.channels_last).float().sub_(mean).div_(std)


def _quarter_turn(image: Image.Image) -> Image.Image:
    """One of four orientations: dermoscopy knows no upright."""
    turn = random.choice([None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270])
    return image if turn is None else image.transpose(turn)


@cache
def backbone_normalisation(backbone: str) -> dict[str, Any]:
    """``mean``, ``std`` and ``interpolation`` the backbone was pretrained with, from timm.

    Raises:
        SettingsError: if timm knows no such model.
    """
    from timm.data import resolve_data_config

    config = resolve_data_config(pretrained_cfg=timm_config(backbone).to_dict())
    return {name: config[name] for name in ("mean", "std", "interpolation")}


def eight_views(images: Any) -> Iterable[Any]:
    """The eight flips and quarter turns of a batch of square images, shape ``(B, C, S, S)`` each."""
    for turns in range(4):
        turned = images.rot90(turns, dims=(2, 3))
        yield turned
        yield turned.flip(3)


def open_cache(paths: Sequence[Path], side: int, cache_dir: Path, on_progress: Callable[[], None] | None = None) -> np.ndarray:
    """Memory-mapped pixels of the images at ``paths``, decoding them only if no cache with this very content exists.

    The cache is keyed by the content of the files and the side, so a changed, added or removed image gives another cache.
    Processes that ask at the same time wait for the first; an interrupted build leaves nothing that could be taken for a cache.

    Args:
        paths: image files, in the order of the rows wanted.
        side: pixels of a side.
        cache_dir: where caches live.
        on_progress: called after each decoded image.

    Returns:
        read-only uint8 array, shape ``(len(paths), side, side, 3)``.

    Raises:
        CorruptImageError: naming the files that cannot be decoded; no cache is left behind.
        DataError: if there is no image, one cannot be read, or the folder cannot hold the cache (full disk, no permission).
    """
    from filelock import FileLock

    if not paths:
        raise DataError("expected at least one image to cache, got none")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / "fingerprints.lock"):
            digests = _fingerprints(paths, cache_dir / "fingerprints.json")
        key = hashlib.sha256("\n".join([f"{CACHE_FORMAT} {side}", *digests]).encode()).hexdigest()[:24]
        target = cache_dir / f"images-{side}px-{key}.npy"
        with FileLock(target.with_suffix(".lock")):
            if not target.exists():
                _build(paths, side, target, on_progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(len(paths) * side * side * 3, cache_dir) from error
        raise DataError(
            f"cannot cache images in {cache_dir} ({error}); point --cache-dir to a folder that can be written"
        ) from error
    return np.load(target, mmap_mode="r")


def _no_room(needed: int, folder: Path) -> DataError:
    free = shutil.disk_usage(folder).free
    return DataError(
        f"the image cache needs {needed / 1e6:.1f} MB in {folder}, {free / 1e6:.1f} MB are free; "
        "make room or point --cache-dir to another disk"
    )


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


def _build(paths: Sequence[Path], side: int, target: Path, on_progress: Callable[[], None] | None) -> None:
    for abandoned in target.parent.glob(f".{target.name}.*.tmp"):  # by a killed build: this one holds the lock
        abandoned.unlink()
    shape = (len(paths), side, side, 3)
    if (needed := math.prod(shape)) > shutil.disk_usage(target.parent).free:
        raise _no_room(needed, target.parent)
    log.info("decoding %d images into %s", len(paths), target)
    corrupt: list[str] = []

    def decode(path: Path) -> np.ndarray:
        try:
            return read_square(path, side)
        except CorruptImageError as error:
            corrupt.append(str(error))
            return np.zeros((side, side, 3), np.uint8)  # keeps rows in step; the file is never finished

    # Written through the file, not the map: a full disk is then an error and not a bus fault.
    with replacing(target) as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        with temporary.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for pixels in pool.map(decode, paths):
                file.write(pixels.tobytes())
                if on_progress:
                    on_progress()
            file.flush()
            os.fsync(file.fileno())
        if corrupt:
            names = "\n  ".join(corrupt[:5])
            raise CorruptImageError(f"{len(corrupt)} of {len(paths)} images cannot be decoded:\n  {names}")
