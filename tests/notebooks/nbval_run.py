"""nbval in a process of its own, its kernels over sockets of their own."""

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
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # the plugin lies below the root
    environment = os.environ | (settings or {}) | {"PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=path.parent)
