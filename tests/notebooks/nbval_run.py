"""nbval in a process of its own, its kernels over sockets of their own; as a plugin of pytest this file sees to the latter."""

import os
import subprocess
import sys
from pathlib import Path

import nbval.kernel
from jupyter_client.manager import KernelManager

from melanoma_lib.classroom.kernels import OwnSockets

ROOT = Path(__file__).parents[2]
assert nbval.kernel.KernelManager, "nbval starts kernels in another way than when this was written"


class OwnSocketsManager(OwnSockets, KernelManager):
    """For callers that wait."""


nbval.kernel.KernelManager = OwnSocketsManager


def run_nbval(path: Path) -> subprocess.CompletedProcess[str]:
    """Run a notebook in a fresh kernel and compare the outputs of its digest cells."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "--rootdir", path.parent, path]
    command += ["-p", "no:cacheprovider", "-p", "tests.notebooks.nbval_run"]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # the plugin lies below the root
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=path.parent)
