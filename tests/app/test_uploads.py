"""Reading strangers' files: each fault without a server, and random damage."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from melanoma_lib.app import open_upload
from melanoma_lib.app.uploads import FORMATS, MAX_BYTES
from melanoma_lib.data.images import read_square
from melanoma_lib.errors import CorruptImageError
from tests.app.pictures import FAULTS, encoded, exif, lesion

WHOLE = {
    "JPEG": encoded(lesion(), "JPEG", exif=exif(orientation=6)),
    "PNG": encoded(lesion()),
    "TIFF": encoded(lesion(), "TIFF"),
    "WEBP": encoded(lesion(), "WEBP"),
    "GIF": encoded(lesion(), "GIF"),
    "BMP": encoded(lesion(), "BMP"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_is_refused_in_words_or_read_with_a_note(fault):
    data = fault.make()
    if not fault.accepted:
        with pytest.raises(CorruptImageError, match=fault.sees) as refused:
            open_upload(data)
        assert "BytesIO" not in str(refused.value)
        assert str(refused.value)[0].isupper()
        return
    upload = open_upload(data)
    assert upload.shown.dtype == np.uint8
    np.testing.assert_array_equal(upload.square(48), read_square(io.BytesIO(data), 48))
    if fault.sees not in ("too dark", "noise"):  # which take a reference to tell
        assert re.search(fault.sees, " ".join(upload.notes))


def test_a_turned_picture_is_shown_upright():
    assert open_upload(WHOLE["JPEG"]).shown.shape == (160, 120, 3)


@pytest.mark.parametrize("kind", WHOLE)
def test_every_format_is_read(kind):
    assert open_upload(WHOLE[kind]).shown.shape[2] == 3
    assert set(WHOLE) == set(FORMATS)


def test_no_decoder_but_those_listed_is_reached():
    for kind in ("ICO", "PPM", "TGA", "PDF", "EPS"):
        with pytest.raises(CorruptImageError):
            open_upload(encoded(lesion(), kind))


def test_the_size_limit_holds_to_the_byte():
    padded = WHOLE["JPEG"] + bytes(MAX_BYTES - len(WHOLE["JPEG"]))
    assert open_upload(padded).shown.size
    with pytest.raises(CorruptImageError, match="20 MB"):
        open_upload(padded + b"\0")


@settings(max_examples=150)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_damage_never_raises_anything_but_the_refusal(kind, data):
    damaged = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 12))):
        where = data.draw(st.integers(0, min(len(damaged) - 1, 600)))
        damaged[where] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    try:
        upload = open_upload(bytes(damaged))
        upload.square(32)
    except CorruptImageError as refused:
        assert len(str(refused)) < 300


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    with pytest.raises(CorruptImageError):
        open_upload(data)


def test_memory_of_a_large_picture_is_given_back():
    large = encoded(Image.new("RGB", (6000, 5000), (200, 150, 130)), "JPEG")
    assert open_upload(large).shown.shape == (533, 640, 3)
