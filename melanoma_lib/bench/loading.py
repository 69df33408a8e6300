"""Loading: the kit's cache against decoding every file again, epoch after epoch."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from melanoma_lib.bench.rates import ROUNDS, Rates, timed
from melanoma_lib.settings import Settings

N_LOADED = 96  # images each loader passes through a round
GOAL = 5.0  # times as fast as the peer
PUBLISHED_SIZES = {"HAM10000": (600, 450), "ISIC 2019": (1024, 1024), "ISIC 2020, a small one": (1920, 1080)}


def bench_loading(settings: Settings) -> str:
    """The kit's cached loader against decoding each file with Pillow and the same timm transform, epoch after epoch.

    Both go through a DataLoader in this process and end with normalised float batches. The files are JPEGs of the sizes in
    which the archives publish their images, enlarged from synthetic cases: smoother than photographs, so quicker to decode.

    Args:
        settings: backbone, size, batch.

    Returns:
        A table for each published size and transform.
    """
    from timm.data import create_transform

    from melanoma_lib.data.cache import open_cache, open_evaluation_cache
    from melanoma_lib.data.images import (
        backbone_normalisation,
        stored_side,
        timm_augmentation,
        training_transform,
    )
    from melanoma_lib.data.synthetic import SyntheticDermoscopy
    from melanoma_lib.training import keep_freed_memory

    keep_freed_memory()  # as in training, for both
    size, backbone, tables = settings.image_size, settings.backbone, []
    cases = SyntheticDermoscopy(n_patients=20, seed=settings.data_seed, image_size=512)
    pictures = [Image.fromarray(cases.render(i).image) for i in range(8)]
    whole_frame = {"crop_pct": 1.0, "crop_mode": "squash", **backbone_normalisation(backbone)}
    peers = {"evaluation": create_transform(size, **whole_frame), "training": timm_augmentation(backbone, size)}
    for label, shape in PUBLISHED_SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{i}.jpg" for i in range(N_LOADED)]
            for i, path in enumerate(paths):
                enlarged = pictures[i % len(pictures)].resize(shape, Image.Resampling.BICUBIC)
                enlarged.save(path, quality=95, comment=str(i).encode())
            pixels = open_cache(paths, stored_side(size), Path(folder) / "cache")
            kits = {
                "evaluation": (open_evaluation_cache(pixels, backbone, size), None),
                "training": (pixels, training_transform(backbone, size)),
            }
            for name, transform in peers.items():
                title = f"{label}: {shape[0]}x{shape[1]} JPEG, {name} transform to {size} px"
                loaders = _cached_loader(*kits[name], settings), _decoding_loader(paths, transform, settings)
                tables.append(_alternate(title, *loaders))
    return "\n\n".join(tables)


def _alternate(title: str, kit: DataLoader, peer: DataLoader) -> str:
    rates: dict[str, list[float]] = {"kit, cached loader": [], "Pillow decode + same timm transform": []}
    for epoch in range(ROUNDS):
        kit.batch_sampler.set_epoch(epoch)
        for rounds, loader in zip(rates.values(), (kit, peer), strict=True):
            seen: list[int] = []
            seconds = timed(lambda loader=loader, seen=seen: seen.extend(len(images) for images in loader))
            rounds.append(sum(seen) / seconds)
    return str(Rates(f"{title}, {ROUNDS} alternating rounds (medians)", rates, GOAL))


def _cached_loader(pixels: np.ndarray, transform: Callable | None, settings: Settings) -> DataLoader:
    from melanoma_lib.data.datamodule import CaseDataset
    from melanoma_lib.data.sampling import EpochSampler

    n = len(pixels)
    metadata, targets = np.zeros((n, 1), np.float32), np.zeros(n, np.float32)
    dataset = CaseDataset(pixels, metadata, targets, np.zeros(n, np.int64), transform, settings.backbone, 0.0, metadata[0])
    sampler = EpochSampler(targets, np.arange(n), "plain", settings.batch_size, settings.seed)
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=lambda batch: batch["image"])


def _decoding_loader(paths: list[Path], transform: Callable, settings: Settings) -> DataLoader:
    class Files(Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> torch.Tensor:
            with Image.open(paths[i]) as image:
                return transform(image.convert("RGB"))

    return DataLoader(Files(), settings.batch_size, shuffle=True)
