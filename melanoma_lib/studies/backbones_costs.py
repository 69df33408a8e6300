"""What a network costs: weights, arithmetic, and images a second, measured with all of them taking turns."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.nn import functional as F

from melanoma_lib.inference import prediction_device
from melanoma_lib.model import MelanomaNet, hold_early
from melanoma_lib.module import MelanomaModule
from melanoma_lib.settings import Settings
from melanoma_lib.training import keep_freed_memory, trainer_precision

DIAGNOSES, PREVALENCE = 7, 0.1  # of the made-up batch; neither changes the speed


@dataclass(frozen=True)
class Costs:
    """What one image costs.

    Attributes:
        parameters: weights of the model.
        macs: multiplications with addition for one image.
        training: images a second in each round: forward, backward and step of the optimiser on a batch that is already there;
            None where no gradient is computed.
        inference: images a second in each round, from prepared pixels to logits; None where not measured.
    """

    parameters: int
    macs: int
    training: list[float] | None
    inference: list[float] | None

    def to_row(self) -> dict[str, Any]:
        """Columns of a result table: of the rates the median of the rounds, with the slowest and the fastest."""
        rates = {"training_rate": self.training, "inference_rate": self.inference}
        return {"parameters": self.parameters, "macs": self.macs} | {
            name: rounds and {"value": median(rounds), "low": min(rounds), "high": max(rounds)} for name, rounds in rates.items()
        }


def measure(
    trained: Mapping[str, Settings], frozen: Mapping[str, Settings], n_metadata: int, rounds: int = 7
) -> dict[str, Costs]:
    """Count and time networks.

    In each round every network trains on one batch and predicts one, so that all see the same moods of the machine; a first
    round counts for nothing.

    Args:
        trained: settings of networks by name; their batch size, image size, precision, frozen stages and threads hold.
        frozen: the same of networks that predict and are never trained.
        n_metadata: width of the encoded metadata.
        rounds: that count, at least 1.

    Returns:
        Costs by name.
    """
    keep_freed_memory()
    if threads := next(iter(trained.values())).threads:
        torch.set_num_threads(threads)
    subjects = {name: _Subject(settings, n_metadata) for name, settings in {**trained, **frozen}.items()}
    training: dict[str, list[float]] = {name: [] for name in trained}
    inference: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(-1, rounds):
        for name, subject in subjects.items():
            rates = [subject.rate(subject.learn)] if name in trained else []
            rates.append(subject.rate(subject.predict))
            if number >= 0:
                inference[name].append(rates.pop())
                if rates:
                    training[name].append(rates.pop())
    pooled: dict[tuple, list[float]] = {}  # whatever its weights, a network predicts at one speed
    for name, subject in subjects.items():
        pooled.setdefault(subject.kind, []).extend(inference[name])
    return {
        name: Costs(subject.parameters, subject.macs, training.get(name), pooled[subject.kind])
        for name, subject in subjects.items()
    }


class _Subject:
    """A network with random weights, which are as fast as any, and one batch."""

    def __init__(self, settings: Settings, n_metadata: int) -> None:
        device, untrained = prediction_device(), settings.with_changes(pretrained=False, init_weights=None)
        self.kind = (settings.backbone, settings.image_size, settings.modalities, settings.batch_size)
        self.module = MelanomaModule(untrained, n_metadata, PREVALENCE, DIAGNOSES).to(device)
        self.parameters = sum(parameter.numel() for parameter in self.module.model.parameters())
        self.macs = macs_of(self.module.model, settings.image_size, n_metadata)
        self.held = settings.frozen_stride if settings.is_pretrained else 0
        self.batch, size = settings.batch_size, settings.image_size
        image = torch.randn(self.batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        self.image = image.contiguous(memory_format=torch.channels_last).to(device)
        self.metadata = torch.zeros(self.batch, n_metadata, device=device)
        self.target = (torch.arange(self.batch, device=device) % round(1 / PREVALENCE) == 0).float()
        self.diagnosis = torch.arange(self.batch, device=device) % DIAGNOSES
        self.autocast = {"dtype": torch.bfloat16, "enabled": trainer_precision(settings) == "bf16-mixed"}
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=1e-6, fused=True)

    def learn(self) -> None:
        """One training step, as the kit takes it, without loading and augmentation."""
        module, model = self.module.train(), self.module.model
        if model.image_branch is not None:
            hold_early(model.image_branch, self.held)
        with torch.autocast(self.image.device.type, **self.autocast):
            dropped = model.head[0](model.features(self.image, self.metadata))  # (B, F)
            loss = module.loss(model.head[1](dropped).squeeze(1), self.target)
            if module.diagnosis_head is not None:
                loss = loss + F.cross_entropy(module.diagnosis_head(dropped), self.diagnosis)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    @torch.inference_mode()
    def predict(self) -> None:
        """Logits of the batch, in float32, as the kit predicts."""
        self.module.model.eval()(self.image, self.metadata)

    def rate(self, action: Callable[[], None]) -> float:
        """Images a second."""
        on_card = self.image.device.type == "cuda"
        start = time.perf_counter()
        action()
        if on_card:
            torch.cuda.synchronize()  # a graphics card answers before it has computed
        return self.batch / (time.perf_counter() - start)


def macs_of(model: MelanomaNet, image_size: int, n_metadata: int) -> int:
    """Multiplications with addition that one image takes, by PyTorch's own counter: convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    image = torch.zeros(1, 3, image_size, image_size, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image, torch.zeros(1, n_metadata, device=device))
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two operations
