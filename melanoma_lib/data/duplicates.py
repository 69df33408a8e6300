"""The same photograph twice: byte for byte, or nearly, found by a perceptual hash and confirmed by the fine detail."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_lib.utils import progress_bar

HASH_SIDE = 16  # 16 x 16 comparisons give 256 bits
THUMB_SIDE = 48
# Chosen on HAM10000, where 51 of the 53 pairs so found share a lesion; at a correlation of 0.8 half of the pairs are strangers.
MAX_BITS = 48
MIN_CORRELATION = 0.9
BLOCK = 64  # images compared with all others at a time: with 33,000 images 70 MB


@dataclass(frozen=True)
class Duplicates:
    """Repeated photographs among a list of files, by position in that list.

    Attributes:
        compared: number of images that could be read and compared.
        unreadable: positions of files that are no readable image.
        exact: sets of positions whose files are the same byte for byte.
        near: pairs ``(i, j, correlation)`` that show nearly the same picture but are not the same file.
    """

    compared: int
    unreadable: list[int]
    exact: list[list[int]]
    near: list[tuple[int, int, float]]


def find_duplicates(paths: Sequence[str | Path], show_progress: bool = False) -> Duplicates:
    """Find files that hold the same photograph.

    Dermoscopy images resemble each other (a dark spot amid pale skin), so a perceptual hash alone takes many strangers for
    twins. Here it only proposes pairs: a 256-bit difference hash no more than ``MAX_BITS`` bits apart. A pair counts when
    the brightness gradients of its thumbnails also correlate by ``MIN_CORRELATION``. Colour, brightness, size and
    compression may differ; turned, mirrored or cropped copies are not found.

    Args:
        paths: existing image files.
        show_progress: draw a bar with the time left.

    Returns:
        What repeats; see ``Duplicates``.
    """
    paths = [Path(path) for path in paths]
    exact = _same_bytes(paths)
    bits = np.zeros((len(paths), HASH_SIDE**2 // 8), np.uint8)
    thumbs = np.zeros((len(paths), THUMB_SIDE, THUMB_SIDE), np.uint8)
    unreadable = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("comparing images", len(paths), show_progress) as advance:
        for i, seen in enumerate(pool.map(_look, paths)):
            if seen is None:
                unreadable.append(i)
            else:
                bits[i], thumbs[i] = seen
            advance()
    content = np.arange(len(paths))  # one number for all copies of a file, so that copies are not near duplicates as well
    for copies in exact:
        content[copies] = copies[0]
    unseen = set(unreadable)
    pairs = [(i, j) for i, j in _close_hashes(bits) if content[i] != content[j] and not {i, j} & unseen]
    return Duplicates(len(paths) - len(unreadable), unreadable, exact, _confirm(pairs, thumbs))


def _same_bytes(paths: Sequence[Path]) -> list[list[int]]:
    by_size = defaultdict(list)
    for i, path in enumerate(paths):
        by_size[path.stat().st_size].append(i)
    by_content = defaultdict(list)
    for size, candidates in by_size.items():
        for i in candidates if len(candidates) > 1 else ():  # only files of one size can be equal
            with paths[i].open("rb") as file:
                by_content[size, hashlib.file_digest(file, "sha256").digest()].append(i)
    return sorted(copies for copies in by_content.values() if len(copies) > 1)


def _look(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Difference hash, uint8 (32,), and grey thumbnail, uint8 (48, 48); None for what is no image."""
    try:
        with Image.open(path) as image:
            image.draft("L", (THUMB_SIDE, THUMB_SIDE))  # lets JPEG decode at a fraction of its size
            grey = image.convert("L").resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # reported by the caller as unreadable
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    return np.packbits(small[:, 1:] > small[:, :-1]), np.asarray(grey)


def _close_hashes(bits: np.ndarray) -> Iterator[tuple[int, int]]:
    words = bits.view(np.uint64)  # (N, 4)
    for start in range(0, len(words), BLOCK):
        block = words[start : start + BLOCK, None]
        distance = np.bitwise_count(block ^ words[None, start:]).sum(axis=-1, dtype=np.uint16)  # (BLOCK, N - start)
        for i, j in zip(*np.nonzero(distance <= MAX_BITS), strict=True):
            if i < j:
                yield start + int(i), start + int(j)


def _confirm(pairs: list[tuple[int, int]], thumbs: np.ndarray) -> list[tuple[int, int, float]]:
    confirmed = []
    for start in range(0, len(pairs), BLOCK):
        left, right = np.array(pairs[start : start + BLOCK]).T
        correlation = (_gradients(thumbs[left]) * _gradients(thumbs[right])).sum(axis=1)
        confirmed += [
            (int(i), int(j), round(float(r), 3)) for i, j, r in zip(left, right, correlation, strict=True) if r >= MIN_CORRELATION
        ]
    return confirmed


def _gradients(thumbs: np.ndarray) -> np.ndarray:
    """Steps between neighbouring pixels, down and across, as unit vectors: (B, 48, 48) -> (B, 4512)."""
    grey = thumbs.astype(np.float32)
    steps = np.concatenate([np.diff(grey, axis=axis).reshape(len(grey), -1) for axis in (1, 2)], axis=1)
    steps -= steps.mean(axis=1, keepdims=True)
    return steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-6)
