"""The cache of decoded images."""

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from melanoma_lib.data import images as cache_module
from melanoma_lib.data.images import (
    normalise,
    open_cache,
    open_evaluation_cache,
    prepare_image,
    read_square,
    stored_side,
)
from melanoma_lib.errors import CorruptImageError, DataError
from tests.data.builders import pixels


@pytest.fixture
def photographs(tmp_path) -> list[Path]:
    """Twelve small images on disk."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    paths = [folder / f"ISIC_{number}.png" for number in range(12)]
    for seed, path in enumerate(paths):
        Image.fromarray(pixels(14, 18, seed)).save(path)
    return paths


def caches(folder: Path) -> list[str]:
    """What lies in a cache folder, locks apart."""
    return [file.name for file in folder.iterdir() if file.suffix != ".lock"] if folder.exists() else []


def test_the_cache_follows_the_files(photographs, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    open_cache(photographs, 16, cache)
    Image.fromarray(pixels(14, 18, seed=99)).save(photographs[5])
    changed = open_cache(photographs, 16, cache)
    np.testing.assert_array_equal(changed, [read_square(path, 16) for path in photographs])
    with pytest.raises(ValueError, match="read-only"):
        changed[0] = 0
    assert len(caches(cache)) == 2
    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", lambda *_: pytest.fail("an image was decoded again"))
        np.testing.assert_array_equal(open_cache(photographs, 16, cache), changed)
    open_cache(photographs[:-1], 16, cache)
    open_cache(photographs[::-1], 16, cache)
    open_cache(photographs, 17, cache)
    assert len(caches(cache)) == 5


def test_corrupt_images_are_named_and_leave_no_cache(photographs, tmp_path):
    photographs[2].write_bytes(b"")
    photographs[7].write_bytes(photographs[7].read_bytes()[:100])
    with pytest.raises(CorruptImageError, match="2 of 12") as caught:
        open_cache(photographs, 16, tmp_path / "cache")
    assert all(str(photographs[i]) in str(caught.value) for i in (2, 7))
    assert str(photographs[3]) not in str(caught.value)
    photographs[4].unlink()
    with pytest.raises(DataError, match=str(photographs[4])):
        open_cache(photographs, 16, tmp_path / "cache")
    assert caches(tmp_path / "cache") == []
    with pytest.raises(DataError, match=r"--cache-dir"):
        open_cache(photographs[:2], 16, photographs[3])  # a file, no folder


def test_those_who_ask_at_once_share_one_build_and_what_a_killed_one_left_goes(photographs, tmp_path, monkeypatch):
    decoded, read = [], read_square
    monkeypatch.setattr(cache_module, "read_square", lambda path, side: decoded.append(path) or read(path, side))
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: np.array(open_cache(photographs, 16, tmp_path / "cache")), range(3)))
    assert len(decoded) == 12
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    (built,) = caches(tmp_path / "cache")
    (tmp_path / "cache" / built).rename(tmp_path / "cache" / f".{built}.x1.tmp")
    np.testing.assert_array_equal(open_cache(photographs, 16, tmp_path / "cache"), answers[0])
    assert len(decoded) == 24
    assert caches(tmp_path / "cache") == [built]


def test_a_disk_that_fills_up_meanwhile_is_a_clear_error(photographs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot keep 9\.4 MB .*no room.*--cache-dir"):  # 12 x 512 x 512 x 3 bytes
        open_cache(photographs, 512, tmp_path / "cache")
    assert caches(tmp_path / "cache") == []


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "vgg11"])  # bicubic, bilinear
def test_the_evaluation_cache_holds_what_the_one_transform_makes_of_each_file(backbone, photographs, tmp_path):
    decoded = open_cache(photographs, stored_side(32), tmp_path / "cache")
    kept = open_evaluation_cache(decoded, backbone, 32)
    assert (kept.shape, kept.dtype) == ((12, 32, 32, 3), np.uint8)
    assert isinstance(kept, np.memmap)
    expected = torch.stack([prepare_image(path, backbone, 32) for path in photographs])
    assert normalise(torch.from_numpy(np.array(kept)).permute(0, 3, 1, 2), backbone).equal(expected)
    few = open_cache(photographs[:5], stored_side(32), tmp_path / "cache")
    others = ((decoded, backbone, 40), (few, backbone, 32), (decoded, "vgg13_bn" if backbone != "vgg11" else "resnet50", 32))
    assert len({kept.filename, *(open_evaluation_cache(*other).filename for other in others)}) == 4
