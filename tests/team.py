"""What each process of a team does in the tests of training together: ``torchrun … -m tests.team SETTINGS FOLDER [EPOCH]``."""

import json
import sys
from pathlib import Path

import pytorch_lightning as pl

from melanoma_lib.data import datamodule
from melanoma_lib.data.images import evaluation_pixels
from melanoma_lib.processes import started_team
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.training import train


class Watch(pl.Callback):
    """Notes which cases this process is given in each epoch; in the second process it may break off."""

    def __init__(self, file: Path, breaks_at: int | None = None) -> None:
        self.file, self.breaks_at, self.rows = file, breaks_at, {}

    def on_train_batch_start(self, trainer, pl_module, batch, step):
        if trainer.global_rank == 1 and trainer.current_epoch == self.breaks_at:
            raise RuntimeError("the second process breaks off")
        self.rows.setdefault(trainer.current_epoch, []).append(batch["row"].tolist())

    def on_train_end(self, trainer, pl_module):
        self.file.write_text(json.dumps(list(self.rows.values())))


def train_plainly(settings: Settings, folder: Path, breaks_at: int | None = None) -> Run:
    """Train without augmentation, the one thing that differs between one process and several."""
    datamodule.training_transform = lambda backbone, image_size, _: evaluation_pixels(backbone, image_size)
    return train(settings, watchers=[Watch(folder / f"rows-{started_team().rank}.json", breaks_at)])


if __name__ == "__main__":
    file, folder, *breaks_at = sys.argv[1:]
    run = train_plainly(Settings.from_json(Path(file).read_text()), Path(folder), *map(int, breaks_at))
    Path(folder, f"run-{started_team().rank}.json").write_text(json.dumps([str(run.path), run.metrics["auroc"]["value"]]))
