"""Inference: PyTorch against the exported file, on the same images with as many threads."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from melanoma_lib.bench.rates import in_words, timed
from melanoma_lib.errors import SettingsError
from melanoma_lib.settings import Settings

ROUNDS = 60  # single images of each contender, one after the other
BATCH_ROUNDS = 7
N_PATIENTS = 200  # synthetic ones, where no run is given: their test split is a few batches
TORCH, FLOAT = "PyTorch (eval, channels last)", "ONNX Runtime, float32"
Network = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class InferenceTimes:
    """Seconds of each contender, which took turns.

    Attributes:
        title: what was measured.
        single: contender to its seconds for one image, one number a round.
        batch: contender to its seconds for one batch, one number a round.
        batch_size: images a batch.
        difference: contender to its largest difference of a logit from the first contender's.
    """

    title: str
    single: dict[str, list[float]]
    batch: dict[str, list[float]]
    batch_size: int
    difference: dict[str, float]

    def __str__(self) -> str:
        """A table; ratios are medians of the ratios within a round, above 1 where the first contender is slower."""
        head = f"{'':32}{'one image':>12}{'p95':>10}{'x':>7}{f'batch {self.batch_size}':>14}{'x':>7}{'logit off by':>14}"
        lines = [self.title, head]
        for name, seconds in self.single.items():
            rate = self.batch_size / median(self.batch[name])
            lines.append(
                f"{name:32}{in_words(median(seconds)):>12}{in_words(float(np.quantile(seconds, 0.95))):>10}"
                f"{times_as_fast(self.single, name):7.2f}{f'{rate:.0f} img/s':>14}{times_as_fast(self.batch, name):7.2f}"
                f"{self.difference[name]:14.1e}"
            )
        lines.append(f"x: times as fast as {next(iter(self.single))}; logit off by: largest difference from it")
        return "\n".join(lines)


def times_as_fast(seconds: dict[str, list[float]], name: str) -> float:
    """Median over rounds of the first contender's seconds over this one's in the same round."""
    first = next(iter(seconds.values()))
    return median(theirs / mine for theirs, mine in zip(first, seconds[name], strict=True))


def bench_inference(settings: Settings) -> str:
    """Latency of one image and throughput of batches, from prepared pixels to logits.

    Args:
        settings: with ``run_dir``, that run's model on its own test images; without, an untrained model of the settings'
            backbone on synthetic images, whose speed is the same. ``threads`` holds for all.

    Returns:
        A table.

    Raises:
        RunError: if ``run_dir`` is given and is no finished run.
        SettingsError: for a model of metadata alone.
    """
    from melanoma_lib.export.predictor import onnx_network
    from melanoma_lib.export.writer import serialise

    if "image" not in settings.modalities:
        raise SettingsError("bench inference measures the image branch; --modalities metadata leaves none")
    threads = settings.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    model, inputs, origin = _subject(settings)
    exact = serialise(model, inputs["image"].shape[-1], "onnx")
    contenders = {TORCH: _torch_network(model), FLOAT: onnx_network(exact, threads)[1]}
    answers = {name: network(inputs) for name, network in contenders.items()}
    rounds = f"{ROUNDS} and {BATCH_ROUNDS} alternating rounds (medians)"
    title = f"inference, {origin}, {inputs['image'].shape[-1]} px, {threads} thread(s), {rounds}"
    return str(
        InferenceTimes(
            title=title,
            single=take_turns(contenders, _slices(inputs, 1), ROUNDS),
            batch=take_turns(contenders, _slices(inputs, settings.batch_size), BATCH_ROUNDS),
            batch_size=settings.batch_size,
            difference={name: float(np.abs(logits - answers[TORCH]).max()) for name, logits in answers.items()},
        )
    )


def take_turns(contenders: dict[str, Network], batches: list[dict[str, np.ndarray]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender for one batch a round, the same one for all; two rounds before count for nothing."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(-2, rounds):
        batch = batches[i % len(batches)]
        for name, network in contenders.items():
            duration = timed(lambda network=network, batch=batch: network(batch))
            if i >= 0:
                seconds[name].append(duration)
    return seconds


def _subject(settings: Settings) -> tuple[torch.nn.Module, dict[str, np.ndarray], str]:
    """Model, prepared inputs of a few batches, shape ``(N, ...)`` each, and what to call them."""
    from melanoma_lib.data.datamodule import DermoscopyDataModule
    from melanoma_lib.export.writer import input_names
    from melanoma_lib.model import MelanomaNet
    from melanoma_lib.runs import Run

    if settings.run_dir is not None:
        run = Run(settings.run_dir)
        data, model, origin = DermoscopyDataModule(run.settings, run.cases()), run.model(), run.path.name
    else:
        data = DermoscopyDataModule(settings.with_changes(n_patients=min(settings.n_patients, N_PATIENTS)))
        untrained = MelanomaNet(
            settings.backbone, data.encoder.n_features, False, settings.modalities, metadata_hidden=settings.metadata_hidden
        )
        model, origin = untrained.to(memory_format=torch.channels_last).eval(), f"untrained {settings.backbone}"
    parts = [batch for batch, _ in zip(data.test_dataloader(), range(4), strict=False)]
    inputs = {name: torch.cat([part[name] for part in parts]).numpy() for name in input_names(model)}
    wanted = -(-settings.batch_size // len(inputs["metadata" if "metadata" in inputs else "image"]))
    return model, {name: np.concatenate([values] * wanted) for name, values in inputs.items()}, origin


def _slices(inputs: dict[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
    """Whole batches of a size, contiguous."""
    n = len(next(iter(inputs.values())))
    return [
        {name: np.ascontiguousarray(values[start : start + size]) for name, values in inputs.items()}
        for start in range(0, n - size + 1, size)
    ]


def _torch_network(model: torch.nn.Module) -> Network:
    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        image = tensors["image"].contiguous(memory_format=torch.channels_last)
        return model(image, tensors.get("metadata")).numpy()

    return run
