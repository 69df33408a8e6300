"""The load script, for a few seconds, and the store that keeps memory level."""

import asyncio
import time

import numpy as np
import pytest

from melanoma_lib.app.answers import Case
from melanoma_lib.app.store import Store
from melanoma_lib.errors import DataError
from tests.bench.app_load import press

CASE = Case(np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 2), np.float32), (), ())


@pytest.mark.xdist_group("app-page")
def test_twenty_users_are_all_answered(server):
    files = server.files()
    load = asyncio.run(press(server, users=20, seconds=6))
    assert not load.failures, load.failures
    assert {kind: len(values) >= 20 for kind, values in load.seconds.items()} == dict.fromkeys(
        ("upload", "answer", "heatmap", "API", "delete"), True
    )
    assert load.n == len(load.seconds["upload"]) * 7
    assert server.files() == files
    assert server.said() == []
    assert f"{load.n} requests answered, 0 failed" in load.report(20, 6)


def test_the_store_forgets_the_oldest_and_the_old():
    store = Store(most=3, seconds=60)
    names = [store.put(CASE) for _ in range(3)]
    store.get(names[0])
    store.put(CASE)
    assert len(store) == 3
    assert store.get(names[0]) is CASE
    with pytest.raises(DataError, match="Choose it again"):
        store.get(names[1])
    store.drop(names[0])
    store.drop("never-there")
    assert len(store) == 2
    brief = Store(seconds=0.05)
    name = brief.put(CASE)
    time.sleep(0.1)
    with pytest.raises(DataError):
        brief.get(name)
    assert len(brief) == 0


def test_names_cannot_be_guessed():
    store = Store(most=500)
    names = {store.put(CASE) for _ in range(500)}
    assert len(names) == 500
    assert min(map(len, names)) >= 20
