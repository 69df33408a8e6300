"""The processes that train one model together, as torchrun starts them: who leads, who waits, how they share results."""

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from melanoma_lib.errors import SettingsError
from melanoma_lib.settings import Settings

# torchrun ends all when one process fails, so this is no watchdog: the leader may well decode images for hours first.
PATIENCE = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Team:
    """Processes that train one model, each with its share of every batch.

    Attributes:
        rank: this process, from 0.
        size: processes in all.
        nodes: machines they run on, the same number on each.
    """

    rank: int = 0
    size: int = 1
    nodes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files, logs and progress."""
        return self.rank == 0

    @property
    def devices(self) -> int:
        """Processes on each machine."""
        return self.size // self.nodes

    def wait(self) -> None:
        """Go on only when all have come here."""
        if self.size > 1:
            distributed.barrier()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the leader go through the body alone, then all others: what it writes, they find."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def gather(self, value: Any) -> list:
        """What every process gives, in the order of ranks, for each of them."""
        values = [value]
        if self.size > 1:
            values = [None] * self.size
            distributed.all_gather_object(values, value)
        return values


ALONE = Team()


def started_team() -> Team:
    """The team that torchrun's environment names; without it, this process alone."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        return ALONE
    size, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return Team(int(os.environ["RANK"]), size, size // local)


def launch(devices: int, words: Sequence[str]) -> int:
    """Run ``python -m melanoma_lib`` with these words in several processes on this machine, through torchrun.

    Returns:
        Exit status: 0, or 1 when a process failed, which has then printed why; all others are ended with it.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    own = ["--standalone", "--nproc-per-node", str(devices), "-m", "--"]  # or torchrun takes our --monitor for its own
    try:
        torchrun.main([*own, "melanoma_lib", *words])
    except ChildFailedError:
        return 1
    return 0


@contextmanager
def team_of(settings: Settings) -> Iterator[Team]:
    """The team this process belongs to: that of torchrun's environment, connected for the body; else itself alone.

    Args:
        settings: ``devices`` and ``nodes`` are 0 or those torchrun was given; ``batch_size`` divides among the processes.

    Raises:
        SettingsError: if they are not, or if several processes are asked for and none was started.
    """
    team = started_team()
    check_fits(settings, team)
    if team.size == 1 or distributed.is_initialized():
        yield team
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # "cuda" then means this process's device everywhere
    distributed.init_process_group("nccl" if on_cuda else "gloo", timeout=PATIENCE)
    try:
        yield team
    finally:
        distributed.destroy_process_group()


def check_fits(settings: Settings, team: Team) -> None:
    """Hold the settings to the processes there are.

    Raises:
        SettingsError: if ``devices`` or ``nodes`` differ from them, or a batch cannot be shared out evenly.
    """
    wanted = settings.devices or team.devices, settings.nodes or team.nodes
    if wanted != (team.devices, team.nodes):
        raise SettingsError(
            f"devices={settings.devices} and nodes={settings.nodes} ask for {wanted[0]} processes on each of {wanted[1]} "
            f"machines, started are {team.devices} on {team.nodes}. Start them with torchrun on every machine: "
            f"torchrun --nnodes {wanted[1]} --nproc-per-node {wanted[0]} -m -- melanoma_lib train …"
        )
    if settings.batch_size % team.size:
        raise SettingsError(
            f"batch_size={settings.batch_size} is what all {team.size} processes take in one step and does not divide among "
            f"them; choose a multiple of {team.size}"
        )
