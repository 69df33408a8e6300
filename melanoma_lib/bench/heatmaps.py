"""Heatmaps: all layers of a model from one pass against one call of pytorch-grad-cam for each layer, in time and memory.

Each contender works in a fresh process of its own, so that the peak of one is not hidden by that of another, and they take
turns: while one computes, the other waits.
"""

import importlib.util
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import numpy as np

from melanoma_lib.bench.memory import peak_memory, resident_memory
from melanoma_lib.bench.peers import PEERS, largest_difference, peer_maps
from melanoma_lib.bench.rates import ROUNDS, in_words, result_and_seconds, timed, verdict
from melanoma_lib.errors import KitError
from melanoma_lib.settings import Settings

BACKBONE, SIDE, N_IMAGES, N_METADATA = "efficientnet_b0", 256, 8, 5
GOALS = {"eigencam": 20.0, "gradcam": 3.0}  # times as fast as the peer
TOLERANCE = 1e-4  # of maps stretched to [0, 1]
ENOUGH = 60.0  # seconds of rounds after which no further one begins
FEWEST = 2  # rounds, however long they take


@dataclass(frozen=True)
class Work:
    """What a process is to do: whose call, and on what model and images.

    Attributes:
        contender: ``kit`` or ``peer``.
        backbone: of a model with random weights.
        side: of the images, pixels.
        n_images: in the batch.
        seed: of weights and images.
        threads: for PyTorch and NumPy alike; 0 leaves them as they are.
    """

    contender: str
    backbone: str
    side: int
    n_images: int
    seed: int
    threads: int


@dataclass(frozen=True)
class Contest:
    """Seconds of the kit and of its peer for the maps of one method, one number a round, and the memory that took.

    Attributes:
        method: one of ``PEERS``.
        kit: seconds a round.
        peer: seconds a round, in the same rounds.
        memory: MB that kit and peer needed beyond what they held before their first call; NaN where not measured.
        difference: the largest between their finished maps.
    """

    method: str
    kit: list[float]
    peer: list[float]
    memory: tuple[float, float]
    difference: float

    @property
    def ratio(self) -> float:
        """Median over rounds of the peer's seconds over the kit's."""
        return median(theirs / mine for mine, theirs in zip(self.kit, self.peer, strict=True))

    def __str__(self) -> str:
        """A row of the table."""
        goal = GOALS.get(self.method, 0.0)
        met = verdict(self.ratio >= goal and self.difference <= TOLERANCE) if goal else ""
        memory = "".join(f"{'-' if np.isnan(megabytes) else f'{megabytes:,.0f}':>10}" for megabytes in self.memory)
        times = f"{in_words(median(self.kit)):>10}{in_words(median(self.peer)):>10}{self.ratio:>9,.1f}"
        return (
            f"{self.method:14}{times}{f'{goal:g}' if goal else '-':>7}  {met:8}{memory}{self.difference:>11.0e}{len(self.kit):>8}"
        )


def bench_heatmaps(settings: Settings) -> str:
    """Every layer of a model: the kit in one call, pytorch-grad-cam in one call a layer, as its users have to.

    Weights are random: the time does not depend on them.

    Args:
        settings: seed and threads; backbone and image size where they are set, else EfficientNet-B0 at 256 pixels.

    Returns:
        A table of seconds, ratios, goals, peak memory and agreement, then how the kit's time grows with layers and methods.

    Raises:
        KitError: if pytorch-grad-cam is not installed.
    """
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        raise KitError(
            "bench heatmaps compares with pytorch-grad-cam, which is not installed; it comes with the development extras: "
            "pip install 'grad-cam>=1.5.5,<2'"
        )
    given = settings.model_fields_set
    backbone = settings.backbone if "backbone" in given else BACKBONE
    side = settings.image_size if "image_size" in given else SIDE

    def work(contender: str) -> Work:
        return Work(contender, backbone, side, N_IMAGES, settings.seed, settings.threads)

    with _process(work("kit")) as process:
        before, layers = process.submit(resident_memory).result(), process.submit(_layers).result()
        plain = median(process.submit(_forward).result() for _ in range(ROUNDS))
        plain_memory = process.submit(peak_memory).result() - before
        growth = _growth(process, layers)
    others = [method for method in PEERS if method not in GOALS]
    contests = [
        found for methods in [*([goal] for goal in GOALS), others] for found in contest(methods, work("kit"), work("peer"))
    ]
    title = f"{len(layers)} layers ({', '.join(layers)}) x {N_IMAGES} {side}-px images of {backbone}"
    heading = (
        f"{'':14}{'kit':>10}{'peer':>10}{'times':>9}{'goal':>7}{'':10}{'kit MB':>10}{'peer MB':>10}{'differ by':>11}{'rounds':>8}"
    )
    about = (
        f"A plain forward pass: {in_words(plain)}, {plain_memory:,.0f} MB. peer: pytorch-grad-cam, one call a layer. "
        "times: how many times as fast\nthe kit is. MB: peak resident memory of a fresh process beyond what it held with model "
        "and images ready. differ by:\nfinished maps, stretched to [0, 1] as the peer does, eigen maps up to their sign. "
        "Rounds alternate (medians)."
    )
    return "\n".join([title, heading, *map(str, contests), about, "", growth])


def contest(methods: Sequence[str], kit: Work, peer: Work) -> list[Contest]:
    """Kit and peer take turns at the maps of some methods, each in a process of its own.

    Args:
        methods: some of ``PEERS``; memory is told of one alone, for a process remembers only its highest peak.
        kit: the kit's part.
        peer: the same work by pytorch-grad-cam.
    """
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(part)) for part in (kit, peer)]
        ready = [process.submit(resident_memory) for process in processes]
        before = [each.result() for each in ready]
        contests = []
        for method in methods:
            seconds: list[list[float]] = [[], []]
            while len(seconds[0]) < ROUNDS and (len(seconds[0]) < FEWEST or sum(map(sum, seconds)) < ENOUGH):
                for process, rounds in zip(processes, seconds, strict=True):
                    rounds.append(process.submit(_call, [method]).result())
            after = [process.submit(peak_memory).result() if len(methods) == 1 else np.nan for process in processes]
            memory = tuple(peak - rest for peak, rest in zip(after, before, strict=True))
            mine, theirs = (process.submit(_answer, method).result() for process in processes)
            differences = [largest_difference(mine[layer], theirs[layer], method).max() for layer in theirs]
            contests.append(Contest(method, *seconds, memory, float(max(differences))))
    return contests


def _growth(process: ProcessPoolExecutor, layers: Sequence[str]) -> str:
    """What more layers and more methods cost the kit."""
    counts = range(1, len(layers) + 1)
    tasks = {(method, n): ([method], layers[-n:]) for method in GOALS for n in counts}
    tasks |= {("all", len(layers)): (list(PEERS), layers)}
    rounds: dict[tuple[str, int], list[float]] = {task: [] for task in tasks}
    for _ in range(ROUNDS):
        for task, arguments in tasks.items():
            rounds[task].append(process.submit(_call, *arguments).result())
    found = {task: in_words(median(seconds)) for task, seconds in rounds.items()}
    lines = ["".join([f"{'kit, by number of layers, from the last':44}", *(f"{n:>10}" for n in counts)])]
    lines += [f"{method:44}" + "".join(f"{found[method, n]:>10}" for n in counts) for method in GOALS]
    return "\n".join([*lines, f"{f'all {len(PEERS)} methods of all layers from one pass':44}{found['all', len(layers)]:>10}"])


# What runs inside a contender's process.
_state: dict[str, object] = {}


def _process(work: Work) -> ProcessPoolExecutor:
    """A fresh process that has model and images ready; it ends with the ``with`` block."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare, (work,))


def _prepare(work: Work) -> None:
    import torch

    from melanoma_lib.explain import cam_layers
    from melanoma_lib.model import MelanomaNet

    if work.contender == "peer":
        import pytorch_grad_cam  # noqa: F401  before memory is first looked at, for it is no part of a call
    if work.threads:
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(work.threads)
        threadpool_limits(work.threads)
    torch.manual_seed(work.seed)
    model = MelanomaNet(work.backbone, N_METADATA, pretrained=False).eval()
    cases = torch.randn(work.n_images, 3, work.side, work.side), torch.randn(work.n_images, N_METADATA)
    _state.update(work=work, model=model, cases=cases, layers=list(cam_layers(model)))


def _layers() -> list[str]:
    return _state["layers"]


def _forward() -> float:
    """Seconds of a plain forward pass without gradients."""
    import torch

    with torch.no_grad():
        return timed(lambda: _state["model"](*_state["cases"]))


def _call(methods: Sequence[str], layers: Sequence[str] | None = None) -> float:
    """Seconds that the maps of these methods and layers, all if None, take this contender."""
    from melanoma_lib.explain import heatmaps_by_method

    work, model, cases = (_state[name] for name in ("work", "model", "cases"))
    layers = layers or _state["layers"]

    def by_peer() -> dict[str, dict[str, np.ndarray]]:
        return {method: {layer: peer_maps(method, model, *cases, layer) for layer in layers} for method in methods}

    def by_kit() -> dict[str, dict[str, np.ndarray]]:
        return heatmaps_by_method(model, *cases, methods, layers, size=work.side)

    _state["maps"], seconds = result_and_seconds(by_peer if work.contender == "peer" else by_kit)
    return seconds


def _answer(method: str) -> dict[str, np.ndarray]:
    """Maps of every layer: the peer's finished ones; the kit's before enlargement, because the peer cuts negatives off first."""
    from melanoma_lib.explain import heatmaps

    if _state["work"].contender == "peer":
        return _state["maps"][method]
    return dict(heatmaps(_state["model"], *_state["cases"], method=method))
