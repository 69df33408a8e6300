"""Kernels that can be had by two lessons at once, and clients that hear every answer.

Kernels are spoken to through files in a folder of their own, where the system has such sockets. Jupyter chooses TCP ports and
lets go of them about a second before the kernel takes them. A second kernel may have got one meanwhile; the first then dies.

Clients look for answers anew each second. A cell that draws into an Output widget makes nbclient send on the very socket on
which it waits for the cell's reply. A reply that comes at that moment wakes nobody, and nbclient would wait for ever.
"""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from traitlets import Type

LOOK_AGAIN = 1.0  # seconds
LONGEST_SOCKET = 100  # bytes of a path; systems cut it off, or refuse it, at 103 to 107


class OwnSockets:
    """A manager with a folder of its own, deleted with it; over TCP where files cannot be sockets, or lie too deep."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        deepest = Path(tempfile.gettempdir()) / "kernel-12345678" / "k-ipc-1"  # as the sockets will be called
        if os.name == "posix" and len(os.fsencode(deepest)) <= LONGEST_SOCKET:
            folder = tempfile.mkdtemp(prefix="kernel-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self.connection_file, self.transport = f"{folder}/k.json", "ipc"


class WakefulChannel(AsyncZMQSocketChannel):
    """Waits for a message as long as it takes, but never on one wake-up alone."""

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message; ``queue.Empty`` if none comes within ``timeout`` seconds, None for ever."""
        while timeout is None:
            try:
                return await super().get_msg(LOOK_AGAIN)
            except Empty:
                pass  # nothing yet
        return await super().get_msg(timeout)


class WakefulClient(AsyncKernelClient):
    """Asks the shell channel, on which nbclient both sends and waits, in a way that misses no answer."""

    shell_channel_class = Type(WakefulChannel)


class AsyncOwnSocketsManager(OwnSockets, AsyncKernelManager):
    """For callers with an event loop, as papermill is."""

    client_factory = Type(WakefulClient)
