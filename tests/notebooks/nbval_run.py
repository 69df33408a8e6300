"""nbval in a process of its own, as a reader would start it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def nbval(path: Path, *options: str, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a notebook in a fresh kernel and compare the outputs of its digest cells.

    Args:
        path: of the notebook.
        options: more of pytest's.
        settings: variables of the environment.
    """
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "--rootdir", path.parent, *options, path]
    command += ["-p", "no:cacheprovider", "-p", "tests.notebooks.nbval_sockets"]
    environment = os.environ | (settings or {}) | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=path.parent)
