"""The cache of decoded images."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from melanoma_lib.data import cache as cache_module
from melanoma_lib.data.cache import open_cache, open_evaluation_cache
from melanoma_lib.data.images import normalise, prepare_image, read_square, stored_side
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
    """What lies in a cache folder, locks and remembered digests apart."""
    return [file.name for file in folder.iterdir() if file.suffix not in (".lock", ".json")] if folder.exists() else []


def test_rows_are_the_images_in_their_order(photographs, tmp_path):
    ticks = []
    order = [photographs[i] for i in (3, 1, 1, 11)]  # one twice
    rows = open_cache(order, 16, tmp_path / "cache", lambda: ticks.append(1))
    np.testing.assert_array_equal(rows, [read_square(path, 16) for path in order])
    assert len(ticks) == 4
    assert isinstance(rows, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


def test_the_second_time_no_image_is_opened(photographs, tmp_path, monkeypatch):
    first = np.array(open_cache(photographs, 16, tmp_path / "cache"))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    np.testing.assert_array_equal(open_cache(photographs, 16, tmp_path / "cache"), first)


def test_the_cache_follows_the_content_not_the_names_or_times(photographs, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    open_cache(photographs, 16, cache)
    moved = [shutil.copy(path, tmp_path / f"copy_of_{path.name}") for path in photographs]  # other name, other time
    open_cache([Path(path) for path in moved], 16, cache)
    assert len(caches(cache)) == 1

    Image.fromarray(pixels(14, 18, seed=99)).save(photographs[5])
    changed = open_cache(photographs, 16, cache)
    np.testing.assert_array_equal(changed[5], read_square(photographs[5], 16))
    assert len(caches(cache)) == 2
    open_cache(photographs[:-1], 16, cache)
    open_cache(photographs[::-1], 16, cache)
    open_cache(photographs, 17, cache)
    assert len(caches(cache)) == 5


@pytest.mark.parametrize("memory", [b"", b"{", b"[1, 2]", b"\xff", b"null"])
def test_a_damaged_memory_of_digests_costs_only_reading_again(memory, photographs, tmp_path):
    first = np.array(open_cache(photographs, 16, tmp_path / "cache"))
    (tmp_path / "cache" / "fingerprints.json").write_bytes(memory)
    np.testing.assert_array_equal(open_cache(photographs, 16, tmp_path / "cache"), first)
    assert len(caches(tmp_path / "cache")) == 1


def test_corrupt_images_are_named_and_leave_no_cache(photographs, tmp_path):
    photographs[2].write_bytes(b"")
    photographs[7].write_bytes(photographs[7].read_bytes()[:100])
    with pytest.raises(CorruptImageError, match="2 of 12") as caught:
        open_cache(photographs, 16, tmp_path / "cache")
    assert all(str(photographs[i]) in str(caught.value) for i in (2, 7))
    assert str(photographs[3]) not in str(caught.value)
    assert caches(tmp_path / "cache") == []


def test_a_missing_image_is_named_and_leaves_no_cache(photographs, tmp_path):
    photographs[4].unlink()
    with pytest.raises(DataError, match=str(photographs[4])):
        open_cache(photographs, 16, tmp_path / "cache")
    assert caches(tmp_path / "cache") == []


def test_no_image_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="at least one image"):
        open_cache([], 16, tmp_path)


def test_a_file_in_the_way_of_the_cache_folder_is_a_clear_error(photographs, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DataError, match=r"cache.*--cache-dir"):
        open_cache(photographs, 16, tmp_path / "cache")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bar")])
def test_an_interrupted_build_leaves_nothing(error, photographs, tmp_path):
    def interrupt():
        raise error

    with pytest.raises(type(error)):
        open_cache(photographs, 16, tmp_path / "cache", interrupt)
    assert caches(tmp_path / "cache") == []
    assert len(open_cache(photographs, 16, tmp_path / "cache")) == 12


BUILD = """
import json, os, pathlib, signal, sys, time
from melanoma_lib.data.cache import open_cache
paths, cache, after = [pathlib.Path(path) for path in json.loads(sys.argv[1])], pathlib.Path(sys.argv[2]), int(sys.argv[3])
decoded = 0
def count():
    global decoded
    decoded += 1
    time.sleep(0.05)
    if decoded == after:
        os.kill(os.getpid(), signal.SIGKILL)
rows = open_cache(paths, 16, cache, count)
print(json.dumps([decoded, int(rows.astype(int).sum())]))
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


def test_too_small_a_disk_is_told_before_any_decoding(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was decoded"))
    with pytest.raises(DataError, match=r"9\.4 MB.*1\.0 MB are free.*--cache-dir") as caught:  # 12 x 512 x 512 x 3 bytes
        open_cache(photographs, 512, tmp_path / "cache")
    assert str(tmp_path / "cache") in str(caught.value)
    assert caches(tmp_path / "cache") == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("victim", ["fsync", "write_text"])
def test_a_disk_that_fills_up_meanwhile_is_a_clear_error(code, victim, photographs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(code, "no room")

    monkeypatch.setattr(*((cache_module.os, "fsync") if victim == "fsync" else (cache_module, "write_text")), full)
    with pytest.raises(DataError, match=r"needs 0\.0 MB in .*cache.*make room"):
        open_cache(photographs, 16, tmp_path / "cache")
    assert caches(tmp_path / "cache") == []


FULL_DISK = """
import json, pathlib, shutil, sys, types
from melanoma_lib.data.cache import open_cache
from melanoma_lib.errors import DataError
paths, disk = [pathlib.Path(path) for path in json.loads(sys.argv[1])], pathlib.Path(sys.argv[2])
cache, told = disk / "cache", []
def attempt():
    try:
        open_cache(paths, 256, cache)
        told.append("cached")
    except DataError as error:
        told.append(str(error))
    told.append([file.name for file in cache.glob("*") if file.suffix not in (".lock", ".json")] if cache.exists() else [])
attempt()  # the room is known to be too small
honest, shutil.disk_usage = shutil.disk_usage, lambda _: types.SimpleNamespace(free=10**12)
attempt()  # another process takes the room that was there
(cache / "fingerprints.json").unlink()
with open(disk / "filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
attempt()  # not a byte left
print(json.dumps(told))
"""


def test_a_really_full_disk_is_a_clear_error_and_leaves_nothing(photographs, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = 'mount -t tmpfs -o size=512k tmpfs "$0" || exit 77; exec "$@"'  # in a namespace of its own: gone with the process
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", mounted, str(disk), sys.executable, "-c", FULL_DISK]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (Linux) to mount a small disk")
    done = subprocess.run(
        [*words, json.dumps([str(path) for path in photographs]), str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this machine does not let a test mount a small disk: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == 6
    for message, left in zip(told[::2], told[1::2], strict=True):
        assert f"needs 2.4 MB in {disk}" in message
        assert left == []


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


def test_too_small_a_disk_for_the_evaluation_cache_is_told(photographs, tmp_path, monkeypatch):
    decoded = open_cache(photographs, 48, tmp_path / "cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DataError, match=r"0\.0 MB are free.*--cache-dir"):
        open_evaluation_cache(decoded, "vgg11", 32)
    assert len(caches(tmp_path / "cache")) == 1
