"""Reading strangers' files: each fault without a server, and random damage."""

import io
import time
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.app.uploads import FORMATS, MAX_BYTES, Store, open_upload
from melanoma_lib.data.images import read_square
from melanoma_lib.errors import CorruptImageError, DataError
from tests.app.pictures import encoded, exif, lesion

WHOLE = {
    "JPEG": encoded(lesion(), "JPEG", exif=exif(orientation=6)),
    "PNG": encoded(lesion()),
    "TIFF": encoded(lesion(), "TIFF"),
    "WEBP": encoded(lesion(), "WEBP"),
    "GIF": encoded(lesion(), "GIF"),
    "BMP": encoded(lesion(), "BMP"),
}


def test_every_format_is_read_as_training_reads_it_and_shown_upright():
    assert set(WHOLE) == set(FORMATS)
    for kind in ("ICO", "PPM", "TGA", "PDF", "EPS"):  # decoders that a stranger's bytes may not reach
        with pytest.raises(CorruptImageError):
            open_upload(encoded(lesion(), kind), 48)
    for data in WHOLE.values():
        np.testing.assert_array_equal(open_upload(data, 48)[0], read_square(io.BytesIO(data), 48))
    shapes = {kind: open_upload(data, 48)[1].shape for kind, data in WHOLE.items()}
    assert shapes == dict.fromkeys(WHOLE, (120, 160, 3)) | {"JPEG": (160, 120, 3)}


def test_the_size_limit_holds_to_the_byte():
    padded = WHOLE["JPEG"] + bytes(MAX_BYTES - len(WHOLE["JPEG"]))
    assert open_upload(padded, 48)[1].size
    with pytest.raises(CorruptImageError, match="20 MB"):
        open_upload(padded + b"\0", 48)


@settings(max_examples=150)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_damage_never_raises_anything_but_the_refusal(kind, data):
    damaged = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 12))):
        where = data.draw(st.integers(0, min(len(damaged) - 1, 600)))
        damaged[where] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    try:
        open_upload(bytes(damaged), 32)
    except CorruptImageError as refused:
        assert len(str(refused)) < 300


def test_the_store_forgets_the_oldest_and_the_old():
    store, cases = Store(most=3, seconds=60), [np.zeros(1) for _ in range(5)]
    watched = [weakref.ref(case) for case in cases]
    names = [store.put(cases.pop(0)) for _ in range(3)]
    assert min(map(len, names)) >= 20  # nothing to guess
    store.get(names[0])
    store.put(cases.pop(0))
    assert [watch() is None for watch in watched[:4]] == [False, True, False, False]  # its memory is free
    assert [store.get(names[place]) is watched[place]() for place in (2, 0)] == [True, True]
    with pytest.raises(DataError, match="Choose it again"):
        store.get(names[1])
    store.drop(names[0])
    store.drop("never-there")
    assert watched[0]() is None
    brief = Store(seconds=0.05)
    name = brief.put(cases.pop())
    time.sleep(0.1)
    with pytest.raises(DataError):
        brief.get(name)
    assert watched[4]() is None
