"""Loading: an epoch of `DermoscopyDataModule` against PIL and torchvision, which decode every file again.

    python -m tests.bench.loading --image-size 128

The files are JPEGs of the size in which HAM10000 is published, enlarged from synthetic cases: smoother than photographs, so
quicker to decode. The kit's batches hold metadata too.
"""

import tempfile

import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from melanoma_lib.data import DermoscopyDataModule
from tests.bench.turns import options, small_settings, take_turns

SIZE = (600, 450)


def main(words: list[str] | None = None) -> list[pd.DataFrame]:
    given = options(__doc__, words, image_size=128, n_patients=25, rounds=5, threads=1)
    torch.set_num_threads(given.threads)
    side, found = given.image_size, []
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    drawn = [v2.RandomResizedCrop(side, scale=(0.7, 1.0)), *flips, v2.ColorJitter(0.1, 0.1)]
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    with tempfile.TemporaryDirectory() as folder:
        settings = small_settings(folder, image_size=side, n_patients=given.n_patients, threads=given.threads)
        small = DermoscopyDataModule(settings).cases
        cases = small.assign(image_path=[f"{folder}/{image_id}.jpg" for image_id in small["image_id"]])
        for source, target in zip(small["image_path"], cases["image_path"], strict=True):
            Image.open(source).convert("RGB").resize(SIZE).save(target, quality=95)
        data = DermoscopyDataModule(settings.with_changes(cache_dir=f"{folder}/cache of the large"), cases)
        for split, loader, steps in (
            ("train", data.train_dataloader(), drawn),
            ("test", data.test_dataloader(), [v2.Resize((side, side))]),
        ):
            transform, paths = v2.Compose([*steps, *finish]), list(cases.loc[cases["split"] == split, "image_path"])

            def decoded(batch, transform=transform):
                return torch.stack([transform(Image.open(path).convert("RGB")) for path in batch])

            peer = DataLoader(paths, settings.batch_size, split == "train", drop_last=split == "train", collate_fn=decoded)
            contenders = {"kit, cached": lambda kit=loader: list(kit), "PIL + torchvision": lambda peer=peer: list(peer)}
            found.append(take_turns(f"{SIZE} to {side} px, {split} split of {len(paths)}", contenders, given.rounds))
    return found


if __name__ == "__main__":
    main()
