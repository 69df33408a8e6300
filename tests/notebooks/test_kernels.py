"""Kernels of lessons: no other process can take what they are spoken to through, and no answer is missed."""

import asyncio
import gc
import os
import socket
from pathlib import Path
from queue import Empty
from unittest.mock import AsyncMock

import pytest
from jupyter_client.provisioning import LocalProvisioner

from melanoma_lib.classroom.kernels import AsyncOwnSocketsManager, WakefulChannel
from melanoma_lib.classroom.papermill import run_lessons
from tests.notebooks.nbval_run import OwnSocketsManager

posix = pytest.mark.skipif(os.name != "posix", reason="sockets as files are used on POSIX systems only")


@posix
def test_a_lesson_runs_although_a_neighbour_takes_every_port_it_could_have_had(lesson, tmp_path, monkeypatch):
    launch, taken = LocalProvisioner.launch_kernel, []

    async def take_then_launch(self, command, **options):
        if self.parent.transport == "tcp":
            taken.append(socket.create_server((self.parent.ip, self.parent.shell_port)))
        return await launch(self, command, **options)

    monkeypatch.setattr(LocalProvisioner, "launch_kernel", take_then_launch)
    (outcome,) = run_lessons([lesson], tmp_path / "out", {}, show_progress=False)
    for server in taken:
        server.close()
    assert (outcome.status, outcome.digests) == ("ok", ("sum 45\n",))


@posix
def test_a_kernel_that_was_restarted_answers_and_leaves_no_folder_behind():
    manager, other = OwnSocketsManager(), AsyncOwnSocketsManager()
    folder = Path(manager.connection_file).parent
    assert folder != Path(other.connection_file).parent
    manager.start_kernel()
    manager.restart_kernel(now=True)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    del manager, client
    gc.collect()
    assert not folder.exists()


@posix
def test_a_folder_too_deep_for_a_socket_falls_back_to_tcp(tmp_path, monkeypatch):
    (deep := tmp_path / ("d" * 120)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    manager = OwnSocketsManager()
    assert manager.transport == "tcp" and not manager.connection_file and not list(deep.iterdir())


class Dozing:
    """A socket whose message wakes nobody who waits already: seen by whoever asks anew."""

    asked = 0

    async def poll(self, timeout):
        self.asked += 1
        if self.asked == 1:
            await asyncio.sleep(1e6 if timeout is None else timeout / 1000)
        return int(self.asked > 1)


async def wait(timeout=None):
    channel = object.__new__(WakefulChannel)  # its constructor takes no stand-in
    channel.socket, channel._recv = Dozing(), AsyncMock(return_value={"msg_type": "execute_reply"})
    return await asyncio.wait_for(channel.get_msg(timeout), 2)


def test_a_reply_that_wakes_nobody_is_heard(monkeypatch):
    monkeypatch.setattr("melanoma_lib.classroom.kernels.LOOK_AGAIN", 0.01)
    assert asyncio.run(wait()) == {"msg_type": "execute_reply"}
    with pytest.raises(Empty):
        asyncio.run(wait(0.01))
    assert AsyncOwnSocketsManager().client().shell_channel_class is WakefulChannel
