"""Shared fixtures: where real data lies, if anywhere."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder that holds `ham10000/`, `isic2019/` and `isic2020/`; skips where MELANOMA_TEST_DATA names none."""
    root = os.environ.get("MELANOMA_TEST_DATA")
    if not root:
        pytest.skip("real data not available: set MELANOMA_TEST_DATA to the folder that holds ham10000/, isic2019/, isic2020/")
    path = Path(root)
    if not path.is_dir():
        pytest.fail(f"MELANOMA_TEST_DATA={root!r} is not a folder; unset it or point it at the real data")
    return path


@pytest.fixture(scope="session")
def ham10000_root(shared_data: Path) -> Path:
    """Real HAM10000 as a user unpacks it."""
    return shared_data / "ham10000"
