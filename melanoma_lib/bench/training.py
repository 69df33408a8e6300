"""Training: the kit's epoch against a bare loop of the same work, and against its limit."""

import copy
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from melanoma_lib.bench.rates import ROUNDS, Rates, timed
from melanoma_lib.settings import Settings

STEPS = 8  # training steps of each contender a round


def bench_training(settings: Settings) -> str:
    """The kit's training epoch, a bare PyTorch loop of the same work, and forward and backward alone on one fixed batch.

    The kit's epoch runs inside Lightning with its metrics, moving average and history; between two of its epochs, the peers take
    as many steps with copies of the same model, so that all three see the same moods of the machine. They share its settings,
    too: what the kit sets for the whole process, such as how OpenMP's threads wait, helps or harms the peers as much, and no
    ratio shows it.

    Args:
        settings: backbone, size, batch, threads; trained from scratch on synthetic cases or the settings' source.

    Returns:
        A table of images a second and ratios.
    """
    import pytorch_lightning as pl

    from melanoma_lib.data.datamodule import DermoscopyDataModule
    from melanoma_lib.module import MelanomaModule
    from melanoma_lib.training import keep_freed_memory, trainer_for, trainer_precision

    keep_freed_memory()
    n_patients = max(200, STEPS * settings.batch_size)  # several photographs each: more than enough for a round
    changes = {"pretrained": False, "max_epochs": ROUNDS + 1, "n_patients": n_patients, "progress": False}
    changes |= {"sampler": "plain", "small_epochs": 0.0}  # all three see as many pixels
    settings = settings.with_changes(**changes)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    data = DermoscopyDataModule(settings)
    module = MelanomaModule(settings, data.encoder.n_features, data.train_prevalence, len(data.diagnoses))
    bare, fixed = BareLoop(data, copy.deepcopy(module)), FixedBatch(data, copy.deepcopy(module))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=trainer_precision(settings) == "bf16-mixed")
    names = (
        "kit (Lightning, cache, EMA, history)",
        "bare PyTorch loop, same augmentation",
        "forward and backward, one fixed batch",
    )
    rates: dict[str, list[float]] = {name: [] for name in names}

    class Alternate(pl.Callback):
        def on_train_epoch_start(self, *_: object) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
            seconds = [time.perf_counter() - self.started]
            with autocast:  # the peers compute in the precision that the kit chose
                seconds += [timed(bare.steps), timed(fixed.steps)]
            if trainer.current_epoch:  # the first round warms caches up
                for name, duration in zip(names, seconds, strict=True):
                    rates[name].append(STEPS * settings.batch_size / duration)

    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(settings, Path(folder))
        kept = [callback for callback in trainer.callbacks if not isinstance(callback, pl.callbacks.Checkpoint)]
        kept = [callback for callback in kept if not isinstance(callback, pl.callbacks.EarlyStopping)]  # no validation here
        trainer = pl.Trainer(
            max_epochs=ROUNDS + 1,
            precision=trainer.precision,
            callbacks=[Alternate(), *kept],
            limit_train_batches=STEPS,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            deterministic=settings.deterministic,
        )
        trainer.fit(module, data)
    title = (
        f"training {settings.backbone} at {settings.image_size} px, batch {settings.batch_size}, "
        f"{torch.get_num_threads()} threads, {ROUNDS} alternating rounds of {STEPS} steps (medians)"
    )
    return str(Rates(title, rates))


class BareLoop:
    """What a careful person would write without the kit: pre-decoded array, DataLoader, same augmentation, Adam."""

    def __init__(self, data, module) -> None:
        from torchvision.transforms import Normalize

        from melanoma_lib.data.images import backbone_normalisation, training_transform

        settings, dataset, rows = data.settings, data.dataset(training=True), data.rows("train")
        augment = training_transform(settings.backbone, settings.image_size, settings.augmentation)
        config = backbone_normalisation(settings.backbone)
        normalisation = Normalize(config["mean"], config["std"])

        class Decoded(Dataset):
            def __len__(self) -> int:
                return len(rows)

            def __getitem__(self, i: int) -> tuple:
                row = rows[i]
                image = normalisation(augment(Image.fromarray(dataset.pixels[row])).float() / 255)
                return image, dataset.metadata[row], dataset.targets[row]

        self.loader = DataLoader(Decoded(), settings.batch_size, shuffle=True, drop_last=True, num_workers=settings.num_workers)
        self.module, self.batches = module, iter(self.loader)
        self.optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)

    def steps(self) -> None:
        """As many training steps as a round of the kit has."""
        self.module.train()
        for _ in range(STEPS):
            try:
                image, metadata, target = next(self.batches)
            except StopIteration:
                self.batches = iter(self.loader)
                image, metadata, target = next(self.batches)
            image = image.contiguous(memory_format=torch.channels_last)
            loss = self.module.loss(self.module.model(image, metadata), target)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()


class FixedBatch:
    """The limit: forward and backward on one batch that is already there, without a step of the optimiser."""

    def __init__(self, data, module) -> None:
        self.module, self.batch = module, next(iter(data.train_dataloader()))

    def steps(self) -> None:
        """As many passes as a round of the kit has steps."""
        self.module.train()
        for _ in range(STEPS):
            self.module.zero_grad()
            self.module.loss(self.module.model(self.batch["image"], self.batch["metadata"]), self.batch["target"]).backward()
