import errno
import io
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import Compose, v2

from melanoma_lib.data import images
from melanoma_lib.data.images import (
    evaluation_transform,
    normalise,
    open_cache,
    open_evaluation_cache,
    prepare_image,
    read_square,
    seeded_transforms,
    stored_side,
    training_transform,
)
from melanoma_lib.errors import CorruptImageError, DataError
from tests.data.builders import encoded, pixels

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


def file_of(*image, **options) -> io.BytesIO:
    return io.BytesIO(encoded(*image, **options))


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (16, 16), (1, 50), (7, 3)])
@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF"])
def test_the_whole_frame_is_squashed_to_a_square(form, shape):
    grey = np.repeat(pixels(*shape)[..., :1], 3, axis=2)  # survives the palette of a GIF
    expected = np.asarray(Image.fromarray(grey).resize((16, 16), Image.Resampling.BICUBIC))
    square = read_square(file_of(grey, form), 16)
    assert (square.shape, square.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_array_equal(square, expected)


@pytest.mark.parametrize("side", [16, 64, 200])
def test_a_large_jpeg_is_read_as_if_decoded_in_full(side):
    rough = Image.fromarray(pixels(6, 8)).resize((640, 480), Image.Resampling.BICUBIC)
    file = file_of(rough, "JPEG", quality=95)
    expected = np.asarray(rough.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(read_square(file, side) - expected)
    assert difference.mean() < 2
    assert difference.max() < 25


def test_pictures_stand_upright_and_sixteen_bits_are_scaled():
    exif = Image.Exif()
    exif[274] = 6  # the camera was held sideways
    np.testing.assert_array_equal(read_square(file_of(pixels(16, 16), exif=exif), 16), np.rot90(pixels(16, 16), -1))
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    assert np.abs(read_square(file_of(deep), 16) - deep[..., None] / 257).max() <= 1


FORMS = {form: encoded(pixels(), form) for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")}


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


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (45, 45), (20, 31)])
@pytest.mark.parametrize("backbone", TRAINED_WITH)
def test_the_evaluation_transform_equals_a_plain_torchvision_pipeline(backbone, shape):
    mean, std, interpolation = TRAINED_WITH[backbone]
    reference = v2.Compose(
        [v2.Resize((32, 32), interpolation), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )
    image = Image.fromarray(pixels(*shape))
    torch.testing.assert_close(evaluation_transform(backbone, 32)(image), reference(image))


def drawn_alike(backbone, size, image, seed, augmentation="mild"):
    """One image through timm's own augmentation and through the kit's, both from the same state of the generators."""
    pair = []
    kit = training_transform(backbone, size, augmentation)
    timm = Compose([step.args[0] if isinstance(step, partial) else step for step in kit.transforms])
    for transform in (timm, kit):
        with seeded_transforms(seed):
            pair.append((transform(image), images.random.random(), float(torch.rand(()))))
    return pair


@pytest.mark.parametrize("augmentation", ["mild", "strong"])
@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "vgg11"])
@pytest.mark.parametrize("size", [32, 48, 64])
def test_the_augmentation_is_that_of_timm_to_within_rounding(backbone, size, augmentation):
    rng = np.random.default_rng(size)
    middle = (60, 190) if augmentation == "mild" else (105, 145)
    smooth = Image.fromarray(rng.integers(*middle, (5, 5, 3), dtype=np.uint8))
    image = smooth.resize((stored_side(size), stored_side(size)), Image.Resampling.BICUBIC)  # no colour gets to black or white
    for seed in range(60):
        (timm, *timm_drew), (kit, *kit_drew) = drawn_alike(backbone, size, image, seed, augmentation)
        assert kit_drew == timm_drew
        assert (kit.shape, kit.dtype) == (timm.shape, timm.dtype) == ((3, size, size), torch.uint8)
        higher = kit.float() - timm.float()
        # Pillow cuts the fraction off after each of three steps, and takes a whole number for the mean grey.
        assert higher.min() >= -2
        assert higher.max() <= 6
        assert 0.5 < higher.mean() < 3


def test_threads_draw_in_turn_what_their_seeds_say():
    image, transform = Image.fromarray(pixels(48, 48)), training_transform("tf_efficientnet_lite0", 32)

    def seen(seed):
        with seeded_transforms(seed):
            return transform(image)

    alone = [seen(seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(seen, range(40)))
    assert all(map(torch.equal, alone, together))
    assert sys.modules["melanoma_lib.data.images"].random is random


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
    monkeypatch.setattr(images, "read_square", lambda path, side: decoded.append(path) or read(path, side))
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

    monkeypatch.setattr(images.os, "fsync", full)
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
