"""Loading: an epoch of `DermoscopyDataModule` against PIL and torchvision, which decode every file again.

    python -m tests.bench.loading --image-size 128

The files are JPEGs of the sizes in which archives publish their images, enlarged from synthetic cases: smoother than photographs,
so quicker to decode. The kit's batches hold metadata too.
"""

import tempfile
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from melanoma_lib.data import DermoscopyDataModule
from melanoma_lib.settings import Settings
from tests.bench.turns import options, table, take_turns

SIZES = {"HAM10000": (600, 450), "ISIC 2019": (1024, 1024)}


class Files(Dataset):
    """Decodes and transforms a file whenever it is asked for."""

    def __init__(self, paths: pd.Series, side: int, training: bool) -> None:
        flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
        drawn = [v2.RandomResizedCrop(side, scale=(0.7, 1.0)), *flips, v2.ColorJitter(0.1, 0.1)]
        steps = drawn if training else [v2.Resize((side, side))]
        finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
        self.paths, self.transform = list(paths), v2.Compose([*steps, *finish])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            return self.transform(image.convert("RGB"))


def main(words: list[str] | None = None) -> dict[str, pd.DataFrame]:
    given = options(__doc__, words, image_size=128, n_patients=25, rounds=5, threads=1)
    torch.set_num_threads(given.threads)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings = Settings(
            source="synthetic", data_dir=root / "data", n_patients=given.n_patients, image_size=given.image_size, sampler="plain",
            small_epochs=0, pretrained=False, batch_size=16, threads=given.threads, progress=False,
        )  # fmt: skip
        small = DermoscopyDataModule(settings.with_changes(cache_dir=root / "cache")).cases
        for name, size in SIZES.items():
            cases = small.assign(image_path=[str(root / f"{name} {image_id}.jpg") for image_id in small["image_id"]])
            for source, target in zip(small["image_path"], cases["image_path"], strict=True):
                Image.open(source).convert("RGB").resize(size).save(target, quality=95)
            data = DermoscopyDataModule(settings.with_changes(cache_dir=root / f"cache {name}"), cases)
            for split, loader in (("train", data.train_dataloader()), ("test", data.test_dataloader())):
                training = split == "train"
                files = Files(cases.loc[cases["split"] == split, "image_path"], given.image_size, training)
                peer = DataLoader(files, settings.batch_size, shuffle=training, drop_last=training)
                what = f"{name}, {size[0]}x{size[1]} to {given.image_size} px, {split} split of {len(files)}"
                contenders = {
                    "kit, cached": lambda _, kit=loader: list(kit),
                    "PIL + torchvision": lambda _, peer=peer: list(peer),
                }
                found[f"{name} {split}"] = take_turns(what, contenders, given.rounds)
                print(table(what, found[f"{name} {split}"]))
    return found


if __name__ == "__main__":
    main()
