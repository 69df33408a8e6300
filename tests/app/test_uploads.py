"""Reading strangers' files: each fault without a server, and random damage."""

import io
import time
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.app.uploads import FORMATS, Store, open_upload
from melanoma_lib.data.images import read_square
from melanoma_lib.errors import CorruptImageError, DataError
from tests.app.pictures import encoded, exif, lesion

WHOLE = {kind: encoded(lesion(), kind) for kind in FORMATS}


def test_every_format_is_read_as_training_reads_it_and_shown_upright():
    for data in WHOLE.values():
        np.testing.assert_array_equal(open_upload(data, 48)[0], read_square(io.BytesIO(data), 48))
    assert open_upload(encoded(lesion(), "JPEG", exif=exif(orientation=6)), 48)[1].shape == (160, 120, 3)
    for kind in ("ICO", "PPM", "TGA", "PDF", "EPS"):  # decoders that a stranger's bytes may not reach
        with pytest.raises(CorruptImageError):
            open_upload(encoded(lesion(), kind), 48)


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
    alone = Store(seconds=0.1)
    alone.put(np.zeros(1))
    store, cases = Store(most=3, seconds=0.5), [np.zeros(1) for _ in range(4)]
    watched = [weakref.ref(case) for case in cases]
    names = [store.put(cases.pop(0)) for _ in range(3)]
    assert min(map(len, names)) >= 20  # nothing to guess
    store.get(names[0])
    names.append(store.put(cases.pop()))
    assert [watch() is None for watch in watched] == [False, True, False, False]  # its memory is free
    store.drop(names[0])
    assert watched[0]() is None and store.get(names[2]) is watched[2]()
    time.sleep(0.6)
    assert not alone._cases  # though nobody came again
    for name in names:
        with pytest.raises(DataError, match="Choose it again"):
            store.get(name)
