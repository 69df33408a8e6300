import errno
import io
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from melanoma_lib.data import images
from melanoma_lib.data.images import (
    eight_views,
    evaluation_transform,
    normalise,
    open_cache,
    read_square,
    stored_side,
    training_transform,
)
from melanoma_lib.errors import CorruptImageError, DataError, SettingsError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# What the weights of each backbone were trained with, from their publishers.
TRAINED_WITH = {
    "efficientnet_b0": (*IMAGENET, v2.InterpolationMode.BICUBIC),
    "convnext_tiny": (*IMAGENET, v2.InterpolationMode.BICUBIC),
    "tf_efficientnet_lite0": (*HALVES, v2.InterpolationMode.BICUBIC),
    "tf_efficientnetv2_s": (*HALVES, v2.InterpolationMode.BICUBIC),
    "vgg11": (*IMAGENET, v2.InterpolationMode.BILINEAR),
}


def pixels(height=20, width=30, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, form="PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    file.seek(0)
    return file


# Reading


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (16, 16), (1, 50), (7, 3)])
@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF"])
def test_the_whole_frame_is_squashed_to_a_square(form, shape):
    grey = np.repeat(pixels(*shape)[..., :1], 3, axis=2)  # survives the palette of a GIF
    expected = np.asarray(Image.fromarray(grey).resize((16, 16), Image.Resampling.BICUBIC))
    square = read_square(encoded(grey, form), 16)
    assert (square.shape, square.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_array_equal(square, expected)


@pytest.mark.parametrize("side", [16, 64, 200])
def test_a_large_jpeg_is_read_as_if_decoded_in_full(side):
    rough = Image.fromarray(pixels(6, 8)).resize((640, 480), Image.Resampling.BICUBIC)
    file = encoded(rough, "JPEG", quality=95)
    expected = np.asarray(rough.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(read_square(file, side) - expected)
    assert difference.mean() < 2
    assert difference.max() < 25


def test_a_path_and_an_open_file_give_the_same(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_square(tmp_path / "a.png", 16), read_square(encoded(pixels()), 16))


UPRIGHT = {  # Exif 2.3, tag 274: how the stored picture has to be turned to stand as it was seen
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_camera_held_sideways_gives_an_upright_image(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    stored = pixels(16, 16)
    np.testing.assert_array_equal(read_square(encoded(stored, exif=exif), 16), UPRIGHT[orientation](stored))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "PA"])
def test_every_kind_of_png_shows_its_colours(mode):
    image = Image.fromarray(pixels(16, 16)).quantize(16) if mode in ("P", "PA") else Image.fromarray(pixels(16, 16))
    expected = np.asarray(image.convert("L" if mode in ("LA", "L") else "1" if mode == "1" else "RGB").convert("RGB"))
    image = image.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(77)
    form = "TIFF" if mode == "PA" else "PNG"
    np.testing.assert_array_equal(read_square(encoded(image, form), 16), expected)


def test_a_cmyk_jpeg_shows_its_colours():
    flat = np.full((16, 16, 3), (200, 120, 60), np.uint8)
    square = read_square(encoded(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=100), 16)
    assert np.abs(square.astype(int) - flat).max() <= 3


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_cut_off(form):
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    square = read_square(encoded(deep, form), 16)
    assert np.abs(square - deep[..., None] / 257).max() <= 1


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(kind):
    with pytest.raises(CorruptImageError, match="brightest"):
        read_square(encoded(np.ones((4, 4), kind), "TIFF"), 16)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_square(file, 8) == (255, 0, 0)).all()


DAMAGED = {
    "empty": b"",
    "text": b"this is no image, whatever its name says",
    "web page": b"<!doctype html><title>404</title>",
    "half a jpeg": encoded(pixels(200, 300), "JPEG").getvalue()[:9000],
    "half a png": encoded(pixels()).getvalue()[:900],
    "signature only": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_an_error_that_names_it(kind, tmp_path):
    (tmp_path / "ISIC_7.jpg").write_bytes(DAMAGED[kind])
    with pytest.raises(CorruptImageError, match=r"ISIC_7\.jpg.*readable image"):
        read_square(tmp_path / "ISIC_7.jpg", 16)


FORMS = {form: encoded(pixels(), form).getvalue() for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")}


@given(st.sampled_from(sorted(FORMS)), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=5), st.floats(0, 1))
def test_any_damage_gives_an_image_or_the_one_error(form, changes, kept):
    damaged = bytearray(FORMS[form])
    for position, value in changes:
        damaged[int(position**3 * len(damaged))] = value  # mostly in the header
    file = io.BytesIO(damaged[: int(len(damaged) * kept**0.1)])
    try:
        assert read_square(file, 8).shape == (8, 8, 3)
    except CorruptImageError as error:
        assert "readable image" in str(error)


# Transforms


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (45, 45), (20, 31)])
@pytest.mark.parametrize("backbone", TRAINED_WITH)
def test_the_evaluation_transform_equals_a_plain_torchvision_pipeline(backbone, shape):
    mean, std, interpolation = TRAINED_WITH[backbone]
    reference = v2.Compose(
        [v2.Resize((32, 32), interpolation), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )
    image = Image.fromarray(pixels(*shape))
    torch.testing.assert_close(evaluation_transform(backbone, 32)(image), reference(image))


def test_the_evaluation_transform_keeps_all_four_sides():
    framed = np.zeros((60, 100, 3), np.uint8)
    framed[:3, :, 0] = framed[-3:, :, 1] = framed[:, :4, 2] = framed[:, -4:, :] = 255
    seen = evaluation_transform("tf_efficientnet_lite0", 32)(Image.fromarray(framed)) * 0.5 + 0.5  # (3, 32, 32) in [0, 1]
    middle = slice(8, 24)
    assert seen[0, 0, middle].min() > 0.7
    assert seen[1, -1, middle].min() > 0.7
    assert seen[2, middle, 0].min() > 0.7
    assert seen[:, middle, -1].min() > 0.7
    assert seen[:, middle, middle].max() < 0.1


@pytest.mark.parametrize("backbone", TRAINED_WITH)
def test_normalising_a_batch_equals_the_evaluation_transform_of_each_image(backbone):
    stack = np.stack([pixels(32, 32, seed) for seed in range(3)])
    batch = torch.from_numpy(stack).permute(0, 3, 1, 2)  # (B, S, S, 3) -> (B, 3, S, S)
    before = batch.clone()
    scaled = normalise(batch, backbone)
    transform = evaluation_transform(backbone, 32)
    torch.testing.assert_close(scaled, torch.stack([transform(Image.fromarray(image)) for image in stack]), rtol=1e-5, atol=1e-5)
    assert scaled.dtype == torch.float32
    assert scaled.is_contiguous(memory_format=torch.channels_last)
    assert batch.equal(before)


@pytest.fixture
def augment():
    """The training transform of one backbone, drawing from fixed seeds."""
    state = random.getstate()
    random.seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield training_transform("tf_efficientnet_lite0", 48)
    random.setstate(state)


def test_a_training_crop_keeps_seven_tenths_of_the_frame(augment):
    y, x = np.mgrid[:64, :64] / 63 - 0.5
    disc = x**2 + y**2 < 0.3**2  # inside every crop, so its share of the crop tells the crop's area
    image = Image.fromarray(np.where(disc[..., None], 230, 20).astype(np.uint8).repeat(3, axis=2))
    kept = []
    for _ in range(300):
        seen = augment(image).float().mean(dim=0)  # (3, S, S) -> (S, S)
        kept.append(disc.mean() / (seen > (seen.max() + seen.min()) / 2).float().mean().item())
    assert 0.68 < min(kept) < 0.75
    assert 0.95 < max(kept) < 1.02


def test_training_images_come_in_all_eight_orientations_equally_often(augment):
    corner = np.zeros((48, 48, 3), np.uint8)
    corner[4:44, 4:20], corner[32:44, 4:40] = 200, 200  # an L
    views = [view[0].float() for view in eight_views(torch.from_numpy(corner).permute(2, 0, 1)[None])]
    likeliest = [
        int(torch.stack([(augment(Image.fromarray(corner)) * view).sum() for view in views]).argmax()) for _ in range(240)
    ]
    counts = np.bincount(likeliest, minlength=8)
    assert ((counts > 9) & (counts < 51)).all()  # 30 each, give or take four standard deviations


def test_training_colours_change_mildly(augment):
    flat = Image.new("RGB", (64, 64), (180, 120, 100))
    colours = np.stack([augment(flat).float().mean(dim=(1, 2)).numpy() for _ in range(100)])
    change = colours / (180, 120, 100)
    assert change.std(axis=0).min() > 0.02
    assert change.min() > 0.75
    assert change.max() < 1.25
    assert (np.diff(colours, axis=1) < 0).all()  # skin stays skin: red over green over blue


@pytest.mark.parametrize("shape", [(48, 48), (60, 90), (20, 20)])
def test_a_training_image_is_a_uint8_tensor_of_the_size_asked_for(augment, shape):
    image = augment(Image.fromarray(pixels(*shape)))
    assert (image.shape, image.dtype) == ((3, 48, 48), torch.uint8)


@pytest.mark.parametrize("transform", [evaluation_transform, training_transform])
def test_a_misspelt_backbone_is_an_error_that_offers_similar_names(transform):
    with pytest.raises(SettingsError, match=r"'resnet5O'.*resnet50"):
        transform("resnet5O", 32)


@given(st.integers(32, 1024))
def test_stored_images_leave_the_tightest_crop_just_enough_pixels(size):
    tightest = 0.7**0.5
    assert stored_side(size) * tightest >= size > (stored_side(size) - 1) * tightest


def test_eight_views_are_the_eight_symmetries_of_the_square():
    batch = np.random.default_rng(0).random((2, 3, 5, 5))
    flipped = batch[..., ::-1]
    expected = {np.rot90(start, turns, (2, 3)).tobytes() for start in (batch, flipped) for turns in range(4)}
    views = [view.numpy() for view in eight_views(torch.from_numpy(batch))]
    assert len(views) == len(expected) == 8
    assert {np.ascontiguousarray(view).tobytes() for view in views} == expected
    np.testing.assert_array_equal(views[0], batch)


# Cache


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
from melanoma_lib.data.images import open_cache
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

    monkeypatch.setattr(*((images.os, "fsync") if victim == "fsync" else (images, "write_text")), full)
    with pytest.raises(DataError, match=r"needs 0\.0 MB in .*cache.*make room"):
        open_cache(photographs, 16, tmp_path / "cache")
    assert caches(tmp_path / "cache") == []


FULL_DISK = """
import json, pathlib, shutil, sys, types
from melanoma_lib.data.images import open_cache
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
