import subprocess
import sys
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from melanoma_lib.__main__ import main
from melanoma_lib.bench import bench_heatmaps, heatmaps
from melanoma_lib.bench.heatmaps import Contest, Work, contest
from melanoma_lib.bench.memory import peak_memory, resident_memory
from melanoma_lib.bench.peers import PEERS, largest_difference, stretched

TINY = "test_efficientnet", 64, 2, 0, 1


class Here:
    """A contender that works in this process, with a state of its own."""

    def __init__(self, work):
        self.state = {}
        self.submit(heatmaps._prepare, work)

    def submit(self, action, *arguments):
        future = Future()
        heatmaps._state = self.state
        future.set_result(action(*arguments))
        return future


@pytest.fixture
def here(monkeypatch):
    @contextmanager
    def process(work):
        yield Here(work)

    threads = torch.get_num_threads()
    monkeypatch.setattr(heatmaps, "_process", process)
    monkeypatch.setattr(heatmaps, "_state", {})
    monkeypatch.setattr(heatmaps, "ROUNDS", 1)
    monkeypatch.setattr(heatmaps, "N_IMAGES", 2)
    yield
    torch.set_num_threads(threads)


def test_every_shared_method_is_measured_and_agrees(here, tiny_settings):
    text = bench_heatmaps(tiny_settings)
    assert "6 layers (blocks.0, blocks.1, blocks.2, blocks.3, blocks.4, bn2) x 2 32-px images of test_efficientnet" in text
    rows = {line.split()[0]: line for line in text.splitlines()[2:] if line.split()[:1] and line.split()[0] in PEERS}
    assert rows.keys() == PEERS.keys()
    assert "all 7 methods of all layers from one pass" in text


def test_what_is_compared_is_what_both_compute(here):
    found = contest(list(PEERS), Work("kit", *TINY), Work("peer", *TINY))
    assert [each.method for each in found] == list(PEERS)
    assert max(each.difference for each in found) < 1e-4
    assert all(np.isnan(each.memory).all() for each in found)  # several methods in one process share their peak


def test_a_wrong_map_is_not_met_however_fast(here, monkeypatch):
    answer = heatmaps._answer
    monkeypatch.setattr(heatmaps, "_answer", lambda method: {name: 1 - maps[:, ::-1] for name, maps in answer(method).items()})
    (found,) = contest(["gradcam"], Work("kit", *TINY), Work("peer", *TINY))
    assert found.difference > 1e-2
    assert "MISSED" in str(Contest("gradcam", [1e-9], [1.0], (1.0, 2.0), found.difference))


def test_a_goal_is_a_ratio_of_rounds():
    found = Contest("eigencam", kit=[1.0, 1.0, 2.0], peer=[10.0, 20.0, 50.0], memory=(10.0, 20.0), difference=1e-6)
    assert found.ratio == 20
    assert " met" in str(found)
    assert "MISSED" in str(Contest("eigencam", found.kit, [10.0, 19.0, 38.0], found.memory, 1e-6))
    other = str(Contest("layercam", [1.0], [2.0], (float("nan"), float("nan")), 1e-6))
    assert "met" not in other and "MISSED" not in other and "nan" not in other


def test_the_sign_counts_except_where_a_component_has_none():
    maps = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    theirs = stretched(-maps, (4, 4))
    assert largest_difference(maps, theirs, "eigencam").max() == 0
    assert largest_difference(maps, theirs, "gradcam").min() > 0.1


def test_contenders_work_in_fresh_processes_whose_peaks_are_their_own():
    ballast = np.ones(400 * 2**17)  # 400 MB in this process
    with heatmaps._process(Work("kit", *TINY)) as process:
        before = process.submit(resident_memory).result()
        seconds = process.submit(heatmaps._call, ["gradcam"]).result()
        after = process.submit(peak_memory).result()
    assert ballast.all() and seconds > 0
    assert before <= after < before + 300


def test_memory_that_was_held_and_given_back_counts_for_the_peak():
    code = """if True:
        import numpy as np
        from melanoma_lib.bench.memory import peak_memory, resident_memory
        before = resident_memory()
        np.ones(200 * 2**17).sum()
        print(resident_memory() - before, peak_memory() - before)
    """
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    held, peak = map(float, printed.split())
    assert held < 100 < 195 < peak < 260


def test_without_pytorch_grad_cam_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    assert main(["bench", "heatmaps"]) == 1
    assert "pip install 'grad-cam" in capsys.readouterr().err
