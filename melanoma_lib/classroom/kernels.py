"""Kernels that are spoken to through files in a folder of their own, where the system has such sockets.

Jupyter chooses the TCP ports of a kernel, lets go of them, and starts the kernel, which takes them about a second later. Whatever
opens a connection meanwhile, such as a second kernel, may have got one of them; the kernel then dies before its first cell.
"""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager, KernelManager

LONGEST_SOCKET = 100  # bytes of a path; systems cut it off, or refuse it, at 103 to 107


class _OwnSockets:
    """Gives a kernel manager a folder of its own; over TCP where there are no sockets as files, or the folder lies too deep.

    The folder goes when the manager is collected, which may be late, for started managers stand in cycles; or else at exit.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        deepest = Path(tempfile.gettempdir()) / "kernel-12345678" / "k-ipc-1"  # as the sockets will be called
        if os.name == "posix" and len(os.fsencode(deepest)) <= LONGEST_SOCKET:
            folder = tempfile.mkdtemp(prefix="kernel-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self.connection_file, self.transport = f"{folder}/k.json", "ipc"


class OwnSocketsManager(_OwnSockets, KernelManager):
    """For callers that wait."""


class AsyncOwnSocketsManager(_OwnSockets, AsyncKernelManager):
    """For callers with an event loop, as papermill is."""
