"""Training: images through a step of `train`, against a bare PyTorch loop with the same model, loss, augmentation and size.

    python -m tests.bench.training --backbone tf_efficientnet_lite0 --image-size 64

After each epoch of the kit the bare loop takes as many steps with images that it decoded beforehand, so that both see the same
moods of the machine. What the kit adds is its cache, metrics, moving average of the weights, history and checkpoints.
"""

import tempfile
import time

import pandas as pd
import pytorch_lightning as pl
import torch
from PIL import Image
from timm.data import create_transform
from torch.utils.data import DataLoader

from melanoma_lib.data import DermoscopyDataModule
from melanoma_lib.losses import FocalLoss
from melanoma_lib.model import MelanomaNet
from melanoma_lib.training import train
from tests.bench.turns import options, printed, small_settings


class BareLoop:
    """What a careful person would write without the kit."""

    def __init__(self, data: DermoscopyDataModule) -> None:
        settings, cases = data.settings, data.cases[data.cases["split"] == "train"]
        side = round(1.2 * settings.image_size)
        images = [Image.open(path).convert("RGB").resize((side, side)) for path in cases["image_path"]]
        metadata, targets = torch.tensor(data.encoder.transform(cases)).float(), torch.tensor(cases["target"].array).float()
        augment = create_transform(settings.image_size, is_training=True, scale=(0.7, 1.0), vflip=0.5, auto_augment=None)

        def batch_of(rows: list[int]) -> tuple[torch.Tensor, ...]:
            return torch.stack([augment(images[row]) for row in rows]), metadata[rows], targets[rows]

        self.loader = DataLoader(range(len(images)), settings.batch_size, shuffle=True, drop_last=True, collate_fn=batch_of)
        model = MelanomaNet(settings.backbone, data.encoder.n_features, pretrained=False)
        self.model, self.loss = model.to(memory_format=torch.channels_last).train(), FocalLoss()
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def epoch(self) -> None:
        for image, metadata, target in self.loader:
            image = image.contiguous(memory_format=torch.channels_last)
            loss = self.loss(self.model(image, metadata), target)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()


class Turns(pl.Callback):
    """Notes the seconds of the kit's training steps, then lets the bare loop do the same."""

    def __init__(self, bare: BareLoop) -> None:
        self.bare, self.seconds = bare, []

    def on_train_epoch_start(self, *_: object) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        self.ended = time.perf_counter()  # validation, which follows the last one, is not counted

    def on_train_epoch_end(self, *_: object) -> None:
        start = time.perf_counter()
        self.bare.epoch()
        self.seconds.append({"kit": self.ended - self.started, "bare loop": time.perf_counter() - start})


def main(words: list[str] | None = None) -> list[pd.DataFrame]:
    given = options(__doc__, words, backbone="tf_efficientnet_lite0", image_size=64, n_patients=80, rounds=3, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        settings = small_settings(
            folder, n_patients=given.n_patients, backbone=given.backbone, image_size=given.image_size, threads=given.threads,
            max_epochs=given.rounds + 1, patience=given.rounds + 1, precision="32",
        )  # fmt: skip
        torch.set_num_threads(given.threads)
        turns = Turns(BareLoop(DermoscopyDataModule(settings)))
        train(settings, watchers=[turns])
    what = f"training {given.backbone} at {given.image_size} px, {len(turns.bare.loader)} steps of 16, {given.threads} thread(s)"
    return [printed(what, pd.DataFrame(turns.seconds[1:]))]  # the first epoch warms caches up


if __name__ == "__main__":
    main()
