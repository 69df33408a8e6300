import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from melanoma_lib.utils import replacing, write_text


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("old", [None, "old"])
def test_any_exception_leaves_what_was_there_and_nothing_else(tmp_path, error, old):
    path = tmp_path / "table.csv"
    if old:
        path.write_text(old)
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half of the ta")
        raise error
    assert {child.name: child.read_text() for child in tmp_path.iterdir()} == ({"table.csv": old} if old else {})


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "settings.json"
    write_text(path, "old")
    code = (
        "import os, signal, sys, pathlib; from melanoma_lib.utils import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_readers_beside_a_writer_see_whole_texts_only(tmp_path):
    path = tmp_path / "history.csv"
    texts = [letter * 100_000 for letter in "abcd"]
    write_text(path, texts[0])

    def read(_: int) -> str:
        return Path(path).read_text()

    with ThreadPoolExecutor(4) as pool:
        seen = pool.map(read, range(200))
        for text in texts * 10:
            write_text(path, text)
        assert set(seen) <= set(texts)
