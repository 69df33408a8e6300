"""The cache of decoded images."""

import errno
import json
import subprocess
import sys
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


def test_rows_are_the_images_in_their_order(photographs, tmp_path):
    order = [photographs[i] for i in (3, 1, 1, 11)]  # one twice
    rows = open_cache(order, 16, tmp_path / "cache")
    np.testing.assert_array_equal(rows, [read_square(path, 16) for path in order])
    assert isinstance(rows, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


def test_the_cache_follows_the_files(photographs, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    open_cache(photographs, 16, cache)
    Image.fromarray(pixels(14, 18, seed=99)).save(photographs[5])
    changed = open_cache(photographs, 16, cache)
    np.testing.assert_array_equal(changed[5], read_square(photographs[5], 16))
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


BUILD = """
import json, os, pathlib, signal, sys, time
from melanoma_lib.data import images as cache_module
paths, cache, after = [pathlib.Path(path) for path in json.loads(sys.argv[1])], pathlib.Path(sys.argv[2]), int(sys.argv[3])
decoded, read = [], cache_module.read_square
def read_slowly(path, side):
    time.sleep(0.05)
    decoded.append(path)
    if len(decoded) == after:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path, side)
cache_module.read_square = read_slowly
rows = cache_module.open_cache(paths, 16, cache)
print(json.dumps([len(decoded), int(rows.astype(int).sum())]))
"""


def build(photographs: list[Path], cache: Path, die_after: int = 0) -> subprocess.Popen:
    """Another process that opens the cache, printing how many images it decoded and the sum of all pixels."""
    words = [sys.executable, "-c", BUILD, json.dumps([str(path) for path in photographs]), str(cache), str(die_after)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_processes_that_ask_at_once_share_one_build(photographs, tmp_path):
    processes = [build(photographs, tmp_path / "cache") for _ in range(3)]
    answers = [json.loads(process.communicate()[0]) for process in processes]
    expected = sum(int(read_square(path, 16).astype(int).sum()) for path in photographs)
    assert [total for _, total in answers] == [expected] * 3
    assert sorted(decoded for decoded, _ in answers) == [0, 0, 12]
    assert len(caches(tmp_path / "cache")) == 1


def test_a_killed_build_is_no_cache_and_the_next_one_clears_up(photographs, tmp_path):
    cache = tmp_path / "cache"
    process = build(photographs, cache, die_after=5)
    process.communicate()
    assert process.returncode == -9
    assert list(cache.glob("*.npy")) == []
    np.testing.assert_array_equal(open_cache(photographs, 16, cache), [read_square(path, 16) for path in photographs])
    assert len(caches(cache)) == 1


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


def test_each_interpolation_size_and_content_has_an_evaluation_cache_of_its_own(photographs, tmp_path, monkeypatch):
    decoded = open_cache(photographs, 48, tmp_path / "cache")
    some = open_cache(photographs[:5], 48, tmp_path / "cache")
    asked = [(decoded, "vgg11", 32), (decoded, "resnet50", 32), (decoded, "vgg11", 40), (some, "vgg11", 32)]
    names = {open_evaluation_cache(*words).filename for words in asked}
    assert len(names) == 4
    monkeypatch.setattr(cache_module, "_build", lambda *_: pytest.fail("prepared twice"))
    assert {open_evaluation_cache(*words).filename for words in asked} == names
