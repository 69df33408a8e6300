"""Kernels that are spoken to through files in a folder of their own, where the system has such sockets.

Jupyter chooses the TCP ports of a kernel, lets go of them, and starts the kernel, which takes them about a second later. Whatever
opens a connection meanwhile, such as a second kernel, may have got one of them; the kernel then dies before its first cell.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager, KernelManager

LONGEST_SOCKET = 100  # bytes of a path; systems cut it off, or refuse it, at 103 to 107


class _OwnSockets:
    """Gives a kernel manager a folder of its own, removed with it; over TCP where there are no sockets as files."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if os.name != "posix":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="kernel-")
        connection = Path(self._folder.name) / "k.json"
        if len(os.fsencode(connection)) <= LONGEST_SOCKET:
            self.connection_file, self.transport = str(connection), "ipc"


class OwnSocketsManager(_OwnSockets, KernelManager):
    """For callers that wait."""


class AsyncOwnSocketsManager(_OwnSockets, AsyncKernelManager):
    """For callers with an event loop, as papermill is."""
