"""Pixels: one way to read an image, one evaluation transform, one augmentation, and the cache that decodes each file once."""

import hashlib
import logging
import math
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from melanoma_lib.errors import CorruptImageError, DataError
from melanoma_lib.utils import progress_bar, replacing
from melanoma_lib.weights import timm_config

log = logging.getLogger(__name__)
CACHE_FORMAT = 2  # raise when read_square changes what it returns

MIN_CROP_SCALE = 0.7  # area kept by the tightest training crop: a lesion in the frame stays in the crop
COLOUR_CHANGE = {"mild": 0.15, "strong": 0.3}  # of brightness, contrast and saturation, by augmentation
PAINTED = b"melanoma_lib painted this, it is no photograph: "  # a JPEG comment; the digest of the rest of the file follows
_DRAWING = threading.RLock()  # the generators of two threads would change places
GREY_OF_RGB = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow weighs colours


def read_square(file: Path | IO[bytes] | Image.Image, side: int) -> np.ndarray:
    """:func:`read_upright`, the whole frame squashed to a square, uint8 RGB ``(side, side, 3)``: no border is cut."""
    return np.asarray(read_upright(file, side).resize((side, side), Image.Resampling.BICUBIC))


def read_upright(file: Path | IO[bytes] | Image.Image, side: int, draft: str = "RGB") -> Image.Image:
    """Decode anything that Pillow reads to RGB, upright, no side below ``side`` pixels unless the file's is.

    ``draft="L"`` decodes the brightness of a JPEG alone.

    Raises:
        CorruptImageError: if the file is no image or is cut short.
    """
    try:
        with nullcontext(file.copy()) if isinstance(file, Image.Image) else Image.open(file) as image:
            image.draft(draft, (side, side))  # lets JPEG decode at 1/2, 1/4, 1/8 when that is still large enough
            return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:  # of Pillow's decoders
        raise CorruptImageError(f"{file}: expected a readable image, got {error}; restore or remove the file") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale deep greyscale to 0 to 255, where Pillow's own conversion would cut everything brighter off."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r}, whose brightest value is not known; save it with 8 or 16 bits")
    return image


def mark_painted(jpeg: bytes) -> bytes:
    """A JPEG file of the generator's with a comment that says so, for :func:`is_painted`."""
    head = 4 + int.from_bytes(jpeg[4:6], "big")  # the JFIF header, which Pillow writes first
    text = PAINTED + hashlib.sha256(jpeg).hexdigest().encode()
    return jpeg[:head] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[head:]


def is_painted(file: Any) -> bool:
    """Whether an image file, given as path or bytes, is one that the kit's generator wrote, and has not been changed since.

    The digest in its comment guards against mistakes and is no signature. Decoded images are never known.
    """
    data = Path(file).read_bytes() if isinstance(file, str | Path) else file
    if not isinstance(data, bytes) or (start := data.find(PAINTED, 0, 4096)) < 0:
        return False
    end = start + len(PAINTED) + 64
    return mark_painted(data[: start - 4] + data[end:]) == data


def stored_side(image_size: int) -> int:
    """Side at which images are cached: the tightest training crop then still has ``image_size`` pixels a side."""
    return math.ceil(image_size / math.sqrt(MIN_CROP_SCALE))


def evaluation_pixels(backbone: str, image_size: int) -> Callable[[Image.Image], Any]:
    """The evaluation transform before :func:`normalise`: from a PIL image, squashed, to uint8 ``(3, image_size, image_size)``."""
    from timm.data import create_transform

    return create_transform(image_size, crop_pct=1.0, crop_mode="squash", normalize=False, **backbone_normalisation(backbone))


def evaluation_transform(backbone: str, image_size: int) -> Callable[[Image.Image], Any]:
    """The one evaluation transform: from a PIL image, its whole frame squashed, to float ``(3, image_size, image_size)``."""
    pixels = evaluation_pixels(backbone, image_size)
    return lambda image: normalise(pixels(image)[None], backbone)[0]  # (3, S, S) -> (1, 3, S, S) -> (3, S, S)


def prepare_image(file: Path | IO[bytes], backbone: str, image_size: int) -> Any:
    """What a trained model is shown of a file: decoded by :func:`read_square`, then the evaluation transform."""
    return evaluation_transform(backbone, image_size)(Image.fromarray(read_square(file, stored_side(image_size))))


def training_transform(backbone: str, image_size: int, augmentation: str = "mild") -> Callable[[Image.Image], Any]:
    """The augmentation, from a PIL image to uint8 ``(3, image_size, image_size)``, drawn as timm draws it, in half the time.

    Quarter turns, both flips, crops of at least 70% of the frame, mild colour. The strong one changes colours twice as much and
    hides, in every second image, a patch of up to a tenth of it.
    """
    from timm.data import create_transform
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision.transforms import ColorJitter, Compose, RandomErasing

    normalisation = backbone_normalisation(backbone)
    augment = create_transform(
        image_size,
        is_training=True,
        scale=(MIN_CROP_SCALE, 1.0),
        ratio=(0.8, 1.25),
        hflip=0.5,
        vflip=0.5,
        color_jitter=(COLOUR_CHANGE[augmentation],) * 3,
        normalize=False,
        **normalisation,
    )
    faster = {RandomResizedCropAndInterpolation: _crop_on_tensors, ColorJitter: _jitter_at_once}
    steps = [partial(faster[type(step)], step) if type(step) in faster else step for step in augment.transforms]
    if augmentation == "strong":
        blank = [round(255 * mean) for mean in normalisation["mean"]]  # what says nothing to the backbone
        steps.append(RandomErasing(p=0.5, scale=(0.02, 0.1), value=blank))
    return Compose([_quarter_turn, *steps])


def _crop_on_tensors(crop: Any, image: Image.Image) -> Any:
    """What timm's random crop does, drawn by itself, with PyTorch's interpolation of 8-bit pixels in place of Pillow's."""
    from torchvision.transforms.v2 import functional

    top, left, height, width = crop.get_params(image, crop.scale, crop.ratio)
    part = functional.pil_to_tensor(image.crop((left, top, left + width, top + height)))  # (3, h, w), colours last in memory
    return functional.resize(part, list(crop.size), crop.interpolation, antialias=True)  # (3, S, S)


def _jitter_at_once(jitter: Any, image: Any) -> Any:
    """What torchvision's jitter does, drawn by itself, as one linear map of the colours, shape ``(3, S, S)`` to the same.

    Brightness b, contrast c about the mean grey m and saturation s turn the colour x of a pixel of grey g into
    b (c (s x + (1 - s) g) + (1 - c) m), in whatever order they come, as long as nothing is rounded or cut off in between.
    """
    import torch

    _, brightness, contrast, saturation, _ = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    colours = image.permute(1, 2, 0).numpy().astype(np.float32)  # (S, S, 3)
    mean_colour = colours.mean(axis=0).mean(axis=0)
    mix = saturation * np.eye(3) + (1 - saturation) * np.outer(GREY_OF_RGB, np.ones(3))
    changed = colours @ (brightness * contrast * mix).astype(np.float32)
    changed += float(brightness * (1 - contrast) * (mean_colour @ GREY_OF_RGB)) + 0.5  # the half rounds where the next line cuts
    return torch.from_numpy(changed.clip(0, 255, out=changed).astype(np.uint8)).permute(2, 0, 1)


@contextmanager
def seeded_transforms(seed: int) -> Iterator[None]:
    """Let training transforms draw what the seed says, whatever else in the process draws random numbers meanwhile.

    timm's transforms, and ours, draw from Python's one global generator, which other threads use too (those of a Dask worker
    do), so in the body they get one of their own. PyTorch's global generator is seeded and put back. Threads take turns.
    """
    import torch
    from timm.data import transforms

    drawing, mine = (sys.modules[__name__], transforms), Random(seed)
    with _DRAWING:
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        for module in drawing:
            module.random = mine
        try:
            yield
        finally:
            for module in drawing:
                module.random = sys.modules["random"]
            torch.set_rng_state(state)


def normalise(images: Any, backbone: str) -> Any:
    """Scale a uint8 batch, shape ``(B, 3, S, S)``, by the backbone's own mean and deviation; float32, channels last."""
    import torch

    config = backbone_normalisation(backbone)
    # Whole rows of pixels against a row of means: three numbers at a time would take six times as long.
    mean, std = (torch.tensor(config[name]).repeat(images.shape[3]) * 255 for name in ("mean", "std"))  # (3S,)
    rows = images.permute(0, 2, 3, 1).contiguous().flatten(2)  # (B, S, 3S)
    return rows.float().sub_(mean).div_(std).unflatten(2, (-1, 3)).permute(0, 3, 1, 2)


def _quarter_turn(image: Image.Image) -> Image.Image:
    """One of four orientations: dermoscopy knows no upright."""
    turn = random.choice([None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270])
    return image if turn is None else image.transpose(turn)


@cache
def backbone_normalisation(backbone: str) -> dict[str, Any]:
    """``mean``, ``std`` and ``interpolation`` the backbone was pretrained with; SettingsError if timm knows no such model."""
    from timm.data import resolve_data_config

    config = resolve_data_config(pretrained_cfg=timm_config(backbone).to_dict())
    return {name: config[name] for name in ("mean", "std", "interpolation")}


def eight_views(images: Any) -> Iterable[Any]:
    """The eight flips and quarter turns of a batch of square images, shape ``(B, C, S, S)`` each."""
    for turns in range(4):
        turned = images.rot90(turns, dims=(2, 3))
        yield turned
        yield turned.flip(3)


def open_cache(paths: Sequence[Path], side: int, cache_dir: Path, show_progress: bool = False) -> np.memmap:
    """Memory-mapped pixels of the images at ``paths``, decoding them only if no cache of these very files exists.

    A changed, added or removed image gives another cache. Processes that ask at the same time wait for the first; an
    interrupted build leaves nothing that could be taken for a cache.

    Returns:
        read-only uint8 array in the order of the paths, shape ``(len(paths), side, side, 3)``.

    Raises:
        CorruptImageError: naming the files that cannot be decoded.
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
    """What :func:`evaluation_pixels` makes of each cached image, kept beside them; else as :func:`open_cache`."""
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
            raise CorruptImageError(f"{len(corrupt)} of {shape[0]} images cannot be decoded: {corrupt[:10]}")
