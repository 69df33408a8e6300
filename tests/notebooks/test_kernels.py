"""Kernels of lessons: no other process can take what they are spoken to through, and no answer is missed."""

import asyncio
import gc
import os
import socket
from queue import Empty

import nbformat
import pytest
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.provisioning import LocalProvisioner

from melanoma_lib.classroom.kernels import AsyncOwnSocketsManager, OwnSocketsManager, WakefulChannel, WakefulClient
from melanoma_lib.classroom.papermill import run_lessons
from tests.notebooks.nbval_run import nbval

posix = pytest.mark.skipif(os.name != "posix", reason="sockets as files are used on POSIX systems only")


@pytest.fixture
def quick_neighbour(monkeypatch):
    """Another process: whatever TCP port Jupyter has chosen for a kernel, it takes before the kernel can."""
    launch, taken = LocalProvisioner.launch_kernel, []

    async def take_then_launch(self, command, **options):
        if self.parent.transport == "tcp":
            taken.append(socket.create_server((self.parent.ip, self.parent.shell_port)))
        return await launch(self, command, **options)

    monkeypatch.setattr(LocalProvisioner, "launch_kernel", take_then_launch)
    yield
    for server in taken:
        server.close()


@posix
def test_a_lesson_runs_although_a_neighbour_takes_every_port_it_could_have_had(lesson, tmp_path, quick_neighbour):
    (outcome,) = run_lessons([lesson], tmp_path / "out", {}, show_progress=False)
    assert (outcome.status, outcome.digests) == ("ok", ("sum 45\n",))


@posix
def test_two_managers_never_share_a_folder():
    first, second = OwnSocketsManager(), AsyncOwnSocketsManager()
    folders = {os.path.dirname(manager.connection_file) for manager in (first, second)}
    assert len(folders) == 2
    assert {os.path.dirname(manager.ip) for manager in (first, second)} == folders


@posix
def test_a_kernel_that_was_restarted_answers_and_leaves_no_folder_behind():
    manager = OwnSocketsManager()
    folder = os.path.dirname(manager.connection_file)
    manager.start_kernel()
    manager.restart_kernel(now=True)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    del manager, client
    gc.collect()
    assert not os.path.exists(folder)


@posix
def test_a_folder_too_deep_for_a_socket_falls_back_to_tcp(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    manager = OwnSocketsManager()
    assert manager.transport == "tcp"
    assert not manager.connection_file
    assert not list(deep.iterdir())


class Dozing:
    """A socket whose message wakes nobody who waits already: seen by whoever asks anew."""

    asked = 0

    async def poll(self, timeout):
        self.asked += 1
        if self.asked == 1:
            await asyncio.sleep(1e6 if timeout is None else timeout / 1000)
            return 0
        return 1


def dozing(kind):
    """A channel with such a socket."""
    channel = object.__new__(kind)  # its constructor takes no stand-in
    channel.socket = Dozing()

    async def received():
        return {"msg_type": "execute_reply"}

    channel._recv = received
    return channel


@pytest.mark.parametrize(("kind", "hears"), [(WakefulChannel, True), (AsyncZMQSocketChannel, False)])
def test_a_reply_that_wakes_nobody_is_heard(kind, hears, monkeypatch):
    monkeypatch.setattr("melanoma_lib.classroom.kernels.LOOK_AGAIN", 0.01)
    channel = dozing(kind)

    async def wait():
        return await asyncio.wait_for(channel.get_msg(), 2)

    if hears:
        assert asyncio.run(wait()) == {"msg_type": "execute_reply"}
    else:
        with pytest.raises(TimeoutError):
            asyncio.run(wait())


def test_no_message_in_time_is_empty_as_ever():
    with pytest.raises(Empty):
        asyncio.run(dozing(WakefulChannel).get_msg(timeout=0.01))


def test_lessons_are_run_by_a_client_that_hears_it():
    client = AsyncOwnSocketsManager().client()
    assert isinstance(client, WakefulClient)
    assert client.shell_channel_class is WakefulChannel


@posix
def test_nbval_uses_them_too(tmp_path):
    code = "import json\nfrom ipykernel.connect import get_connection_file\n"
    code += "assert json.load(open(get_connection_file()))['transport'] == 'ipc'"
    path = tmp_path / "transport.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    done = nbval(path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout
