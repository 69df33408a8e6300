import errno
from pathlib import Path

import pytest

from melanoma_lib.utils import replacing


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [None, "old"])
def test_any_exception_leaves_what_was_there_and_nothing_else(tmp_path, error, old):
    path = tmp_path / "table.csv"
    if old:
        path.write_text(old)
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half of the ta")
        raise error
    assert {child.name: child.read_text() for child in tmp_path.iterdir()} == ({"table.csv": old} if old else {})


@pytest.mark.parametrize("name", ["", "a_folder", "a_file/risks.csv"])
def test_a_target_that_cannot_be_written_is_told_with_its_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a_folder").mkdir()
    Path("a_file").touch()
    with pytest.raises(OSError, match=name.partition("/")[0] or r"'\.'"), replacing(Path(name)):
        pytest.fail("the work was begun")

    def refuse(path):  # root may write everywhere
        raise PermissionError(errno.EACCES, "denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(PermissionError, match=r"nothing can be written.*risks\.csv"), replacing(tmp_path / "risks.csv"):
        pytest.fail("the work was begun")
