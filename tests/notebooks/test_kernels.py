"""Kernels of lessons: no other process can take what they will be spoken to through."""

import os
import socket

import pytest
from jupyter_client.provisioning import LocalProvisioner

from melanoma_lib.classroom.kernels import AsyncOwnSocketsManager, OwnSocketsManager
from melanoma_lib.classroom.papermill import run_lessons

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
@pytest.mark.parametrize("manager", [OwnSocketsManager, AsyncOwnSocketsManager])
def test_two_managers_never_share_a_path_and_leave_nothing_behind(manager):
    first, second = manager(), manager()
    folders = [os.path.dirname(one.connection_file) for one in (first, second)]
    assert folders[0] != folders[1]
    assert all(one.ip.startswith(folder) for one, folder in zip((first, second), folders, strict=True))
    del first, second
    assert not any(map(os.path.exists, folders))


@posix
def test_a_folder_too_deep_for_a_socket_falls_back_to_tcp(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    manager = OwnSocketsManager()
    assert manager.transport == "tcp"
    assert not manager.connection_file
