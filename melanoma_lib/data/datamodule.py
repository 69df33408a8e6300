"""From a case table to batches: split, encoder, cached pixels, samplers; the same batches whatever the worker count."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from melanoma_lib.data.images import (
    normalise,
    open_cache,
    open_evaluation_cache,
    seeded_transforms,
    stored_side,
    training_transform,
)
from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.data.sources import load_cases
from melanoma_lib.data.splits import SPLITS, assert_no_straddling, fold_cases, split_cases
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError, SettingsError
from melanoma_lib.settings import Settings

# image (B, 3, S, S), metadata (B, M), target (B,), diagnosis (B,): code or UNKNOWN, row (B,): position in the case table
Batch = dict[str, torch.Tensor]
UNKNOWN = -100  # the target that PyTorch's cross-entropy passes over
STRIDE = 1_000_003  # between the augmentation seeds of two processes; the first has those of a process alone


class Draw(NamedTuple):
    """What a sampler hands to the data set: which rows, and the seed of their augmentation."""

    rows: list[int]
    seed: int


class EpochSampler:
    """Batches of row numbers that depend on seed and epoch alone, so that a resumed run draws what an unbroken one would.

    Args:
        targets: 0 or 1 of every case, shape ``(N,)``.
        rows: the rows to draw from, at least one for each process.
        mode: ``plain`` draws each row once, ``weighted`` draws with replacement, melanomas with chance ``prevalence``,
            ``oversample`` repeats the rarer class until the classes balance; ``ordered`` keeps the order and every row.
        batch_size: rows a batch; an incomplete last batch is dropped unless it is the only one or the mode is ``ordered``.
        seed: of the order.
        prevalence: share of melanomas that ``weighted`` aims at.
        rank: which of ``size`` processes draws; each takes a contiguous share of the batch that one alone would draw.
        size: processes that train together.
    """

    def __init__(
        self, targets: np.ndarray, rows: np.ndarray, mode: str, batch_size: int, seed: int, prevalence: float = 0.5,
        rank: int = 0, size: int = 1,
    ) -> None:  # fmt: skip
        self.rows, self.mode, self.batch_size, self.seed, self.epoch = np.asarray(rows), mode, batch_size, seed, 0
        self.prevalence, self.rank, self.size = prevalence, rank, size
        self.positive = np.asarray(targets)[self.rows] == 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches an epoch."""
        if self.mode == "ordered":
            return min(-(-len(self.rows) // self.batch_size), len(self.rows) // self.size)  # a case for each process in each
        balanced = 2 * int(max(self.positive.sum(), (~self.positive).sum()))
        return max(1, (balanced if self.mode == "oversample" else len(self.rows)) // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        """Draws of the current epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        rows, steps = self._order(rng), len(self)
        for step in range(steps):
            if self.mode == "ordered" and self.size > 1:
                chosen = np.array_split(rows, steps)[step]  # of even length: a short last one could leave a process none
            else:
                chosen = rows[step * self.batch_size : (step + 1) * self.batch_size]
            seed = (int(rng.integers(2**31)) + self.rank * STRIDE) % 2**31
            yield Draw(np.array_split(chosen, self.size)[self.rank].tolist(), seed)

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        if self.mode == "ordered":
            return self.rows
        if self.mode == "plain":
            return rng.permutation(self.rows)
        melanomas, others = self.rows[self.positive], self.rows[~self.positive]
        if self.mode == "weighted":
            from_melanomas = rng.random(len(self.rows)) < self.prevalence
            return np.where(from_melanomas, rng.choice(melanomas, len(self.rows)), rng.choice(others, len(self.rows)))
        larger = max(len(melanomas), len(others))
        return rng.permutation(np.concatenate([np.resize(rng.permutation(part), larger) for part in (melanomas, others)]))


class CaseDataset(Dataset):
    """Batches of cases by row number; pixels come from the cache, never from an image file."""

    def __init__(self, data: "DermoscopyDataModule", training: bool) -> None:
        settings, self.pixels = data.settings, data.pixels()  # uint8 (N, C, C, 3); None for a model without an image branch
        self.backbone = settings.backbone  # whose normalisation scales the batches
        self.transform = None  # PIL -> uint8 (3, S, S); None: pixels are those of evaluation
        if self.pixels is not None and training:
            self.transform = training_transform(settings.backbone, settings.image_size, settings.augmentation)
        elif self.pixels is not None:
            self.pixels = open_evaluation_cache(self.pixels, settings.backbone, settings.image_size)
        self.metadata = data.encoder.transform(data.cases)  # float32 (N, M)
        self.no_metadata = data.encoder.missing  # encoding of a case that tells nothing, (M,)
        hides = training and settings.modalities == "image+metadata"
        self.metadata_dropout = settings.metadata_dropout if hides else 0.0  # chance that a case hides all its metadata
        self.targets = data.cases["target"].to_numpy(np.float32)  # (N,)
        codes = pd.Categorical(data.cases["diagnosis"], categories=data.diagnoses).codes.astype(np.int64)
        self.diagnoses = np.where(codes < 0, UNKNOWN, codes)  # (N,): position among those known in training, or UNKNOWN

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.targets)

    def __getstate__(self) -> dict:
        """What a worker process is sent: the name of the memory map, not a copy of all its pixels."""
        state = dict(self.__dict__)
        return state | {"pixels": Path(self.pixels.filename)} if isinstance(self.pixels, np.memmap) else state

    def __setstate__(self, state: dict) -> None:
        """Open the memory map again."""
        pixels = state["pixels"]
        self.__dict__.update(state | {"pixels": np.load(pixels, mmap_mode="r") if isinstance(pixels, Path) else pixels})

    def __getitems__(self, draw: Draw) -> Batch:
        """The batch of a draw; random choices depend on the draw alone, so any worker gives the same."""
        rows = np.asarray(draw.rows)
        metadata = self.metadata[rows]
        if self.metadata_dropout:
            hidden = np.random.default_rng(draw.seed).random(len(rows)) < self.metadata_dropout
            metadata = np.where(hidden[:, None], self.no_metadata, metadata)
        batch = {
            "metadata": torch.from_numpy(metadata),
            "target": torch.from_numpy(self.targets[rows]),
            "diagnosis": torch.from_numpy(self.diagnoses[rows]),
            "row": torch.from_numpy(rows),
        }
        if self.pixels is not None:
            stack = torch.from_numpy(self.pixels[rows]) if self.transform is None else self._augmented(rows, draw.seed)
            batch["image"] = normalise(stack.permute(0, 3, 1, 2), self.backbone)  # (B, S, S, 3) -> (B, 3, S, S)
        return batch

    def _augmented(self, rows: np.ndarray, seed: int) -> torch.Tensor:
        """Transformed images, uint8 ``(B, S, S, 3)``: colours last, as they lie in memory, which stacks fastest."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # on single images, two wait for each other longer than they work on a busy machine
        try:
            with seeded_transforms(seed):
                images = [self.transform(Image.fromarray(self.pixels[row])) for row in rows]  # (C, C, 3) -> (3, S, S) each
        finally:
            torch.set_num_threads(threads)
        return torch.stack([image.permute(1, 2, 0) for image in images])


class DermoscopyDataModule(pl.LightningDataModule):
    """Cases, split, metadata encoder and loaders of one run.

    Args:
        settings: what to load and how.
        cases: a validated case table to use in place of the settings' source; a ``split`` column, when present, is kept.

    Attributes:
        cases: the case table with its ``split`` column (train, val, test).
        encoder: fitted on the training split only.
        diagnoses: the words of the training split, in alphabetical order.
        train_prevalence: share of melanomas among the training cases.
    """

    def __init__(self, settings: Settings, cases: pd.DataFrame | None = None) -> None:
        super().__init__()
        self.settings = settings
        cases = cases_for(settings) if cases is None else cases
        if "split" not in cases:
            cases = cases.assign(split=_split(settings, cases))
        _check_split(cases)
        self.cases = cases.reset_index(drop=True)
        training = self.cases[self.cases["split"] == "train"]
        self.encoder = MetadataEncoder.fit(training)
        self.diagnoses = sorted(training["diagnosis"].dropna().unique())
        self.train_prevalence = float(training["target"].mean())
        self._pixels: np.ndarray | None = None

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split."""
        return np.flatnonzero(self.cases["split"] == split)

    def pixels(self) -> np.ndarray | None:
        """Cached images of all cases, uint8 ``(N, C, C, 3)``, decoded on first use; None without an image branch."""
        if "image" in self.settings.modalities and self._pixels is None:
            paths = [Path(path) for path in self.cases["image_path"]]
            side = stored_side(self.settings.image_size)
            self._pixels = open_cache(paths, side, self.settings.cache_dir, self.settings.progress)
        return self._pixels

    def dataset(self, training: bool) -> CaseDataset:
        """All cases, augmented for training or prepared by the one evaluation transform."""
        return CaseDataset(self, training)

    def train_dataloader(self) -> DataLoader:
        """Augmented batches of the training split."""
        return self._loader("train", self.settings.sampler, training=True)

    def val_dataloader(self) -> DataLoader:
        """Validation cases in table order."""
        return self._loader("val", "ordered", training=False)

    def test_dataloader(self) -> DataLoader:
        """Test cases in table order."""
        return self._loader("test", "ordered", training=False)

    def _loader(self, split: str, mode: str, training: bool) -> DataLoader:
        settings = self.settings
        dataset = self.dataset(training)
        rank, size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(
            dataset.targets, self.rows(split), mode, settings.batch_size, settings.seed, settings.sampled_prevalence, rank, size
        )
        sampler.set_epoch(self.trainer.current_epoch if self.trainer else 0)  # a resumed run starts further on
        workers = settings.num_workers if dataset.pixels is not None else 0
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=dict,  # the data set makes whole batches
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # of its own, or each pass would advance the global one
        )


def cases_for(settings: Settings, only: Collection[str] = ()) -> pd.DataFrame:
    """The case table of the settings' source, fit for training; DataError as by :func:`load_cases`, or of one class alone.

    A model of metadata alone needs no image file. Where ``only`` names images, no other synthetic cases are painted.
    """
    root = source_root(settings, only)
    needless = "image" not in settings.modalities and settings.missing_images == "error"
    cases = load_cases(settings.source, root, "keep" if needless else settings.missing_images, image_dirs=settings.image_dirs)
    if cases["target"].nunique() < 2:
        raise DataError(f"{root}: expected melanomas and other lesions, every case has target {cases['target'].iloc[0]}")
    return cases


def _split(settings: Settings, cases: pd.DataFrame) -> pd.Series:
    if not settings.folds:
        return split_cases(cases, settings.val_fraction, settings.test_fraction, settings.seed)
    if not settings.fold:
        raise SettingsError(f"folds={settings.folds} needs a training for each: name a fold, or call cross_validate")
    return fold_cases(cases, settings.folds, settings.fold)  # whatever the seed: models of several seeds can then be averaged


def source_root(settings: Settings, only: Collection[str] = ()) -> Path:
    """Folder of the source's tables; synthetic cases get one for each set of knobs within ``data_root``.

    Where ``data_root`` is itself what a generator wrote, such as cases with artefacts correlated with the label, it is taken as
    it is; DataError if its patients, seed or image size are not those of the settings. ``only`` is as in :func:`cases_for`.
    """
    if settings.source != "synthetic":
        return settings.data_root
    generator = SyntheticDermoscopy(settings.n_patients, settings.data_seed, stored_side(settings.image_size))
    written = SyntheticDermoscopy.of_folder(settings.data_root)
    if written is None:
        return generator.write(settings.data_root / generator.fingerprint, only=only)
    found, expected = ({name: getattr(g, name) for name in ("n_patients", "seed", "image_size")} for g in (written, generator))
    if found != expected:
        raise DataError(
            f"{settings.data_root} holds synthetic cases of {found}, the settings need {expected}; name the folder above it as "
            "data_dir to have others generated there, or change the settings"
        )
    return written.write(settings.data_root)


def _check_split(cases: pd.DataFrame) -> None:
    """Refuse a split that training would only trip over at its end."""
    assert_no_straddling(cases["group_id"], cases["split"])
    for name in SPLITS:
        if cases.loc[cases["split"] == name, "target"].nunique() < 2:
            found = pd.crosstab(cases["split"], cases["target"]).to_dict("index")
            raise DataError(f"split {name!r} needs melanomas (target 1) and other lesions (0); there are {found}")
