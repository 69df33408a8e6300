"""The fusion head on its own: branch features computed once and kept, so that retraining the head takes about a second."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from melanoma_lib.data.datamodule import CaseDataset, DermoscopyDataModule
from melanoma_lib.errors import DataError, SettingsError
from melanoma_lib.evaluation import OperatingCurve
from melanoma_lib.inference import predict_logits
from melanoma_lib.losses import FocalLoss
from melanoma_lib.model import MelanomaNet, Modalities
from melanoma_lib.settings import Settings
from melanoma_lib.utils import progress_bar, replacing


@dataclass(frozen=True)
class FeatureTable:
    """What a model's branches hand to its head, one row a case.

    Attributes:
        cases: image_id, group_id, split, target; ``N`` rows.
        features: float32, shape ``(N, F)``; the image branch's columns first, then the metadata branch's.
        n_image: how many of the columns come from the image branch.
    """

    cases: pd.DataFrame
    features: np.ndarray
    n_image: int

    def columns(self, modalities: Modalities) -> slice:
        """The columns that a head with these inputs sees.

        Raises:
            DataError: if the features come from a model without such a branch.
        """
        width = self.features.shape[1]
        wanted = {"image": slice(0, self.n_image), "metadata": slice(self.n_image, width), "image+metadata": slice(0, width)}
        has = {"image": self.n_image > 0, "metadata": self.n_image < width, "image+metadata": 0 < self.n_image < width}
        if not has[modalities]:
            raise DataError(f"a head on {modalities} needs other features: {self.n_image} of the {width} columns are the image's")
        return wanted[modalities]

    def tensors(self, split: str, modalities: Modalities = "image+metadata") -> tuple[Tensor, Tensor]:
        """Features ``(n, F')`` and targets ``(n,)`` of one split, both float32.

        Raises:
            DataError: as :meth:`columns`.
        """
        rows = (self.cases["split"] == split).to_numpy()
        features = self.features[rows, self.columns(modalities)]
        return torch.from_numpy(features), torch.from_numpy(self.cases.loc[rows, "target"].to_numpy(np.float32))


def cached_features(model: MelanomaNet, data: DermoscopyDataModule) -> FeatureTable:
    """Features of all cases, without augmentation; computed once for a model and its data, then read from the cache folder.

    Args:
        model: of a run, or an untrained one with a pretrained backbone.
        data: the cases; its settings hold the backbone and image size that the model expects.

    Raises:
        DataError: if an image cannot be read or the cache cannot be written.
        ValueError: if the data do not fit the model.
    """
    dataset = data.dataset(training=False)
    file = data.settings.cache_dir / f"features-{_digest(model, dataset, data.settings)}.npy"
    if not file.exists():
        features = _features(model, data)
        with replacing(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, features)
    n_image = model.image_branch.head_hidden_size if model.image_branch is not None else 0
    return FeatureTable(data.cases[["image_id", "group_id", "split", "target"]], np.load(file), n_image)


def _features(model: MelanomaNet, data: DermoscopyDataModule) -> np.ndarray:
    """What reaches the head while the one prediction loop runs, shape ``(N, F)``."""
    loader = data.all_dataloader()
    kept: list[Tensor] = []
    with progress_bar("computing features, once", len(loader), data.settings.progress) as advance:

        def keep(_: nn.Module, inputs: tuple[Tensor]) -> None:
            kept.append(inputs[0].float().cpu())  # (B, F)
            advance()

        hook = model.head.register_forward_pre_hook(keep)
        try:
            predict_logits(model, loader)
        finally:
            hook.remove()
    return torch.cat(kept).numpy()


def _digest(model: MelanomaNet, dataset: CaseDataset, settings: Settings) -> str:
    """Changes with every weight, image and metadata value that shapes the features."""
    digest = hashlib.sha256(f"{model.backbone} {model.modalities} {settings.image_size}".encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    digest.update(dataset.metadata.tobytes())
    if dataset.pixels is not None:
        digest.update(Path(dataset.pixels.filename).name.encode())  # the image cache is named after its content
    return digest.hexdigest()[:24]


@dataclass(frozen=True)
class HeadSettings:
    """How a head is retrained: evenly drawn cases or more melanomas, AdamW, a learning rate that falls linearly to zero.

    Attributes:
        alpha: focal weight of the positives, in (0, 1), or None.
        gamma: focal exponent, at least 0.
        dropout: share of the features hidden at each step, in [0, 1); kept to 1/256.
        learning_rate: at the start, above 0.
        epochs: passes over the training cases, at least 1.
        modalities: which branches the head sees.
        seed: of initial weights, order, dropout and draws.
        sampled_prevalence: share of melanomas among the cases drawn with replacement for each epoch, in (0, 1); None takes every
            training case once.

    Raises:
        SettingsError: if a value is out of range.
    """

    alpha: float | None = None
    gamma: float = 2.0
    dropout: float = 0.2
    learning_rate: float = 1.5e-3
    epochs: int = 12
    modalities: Modalities = "image+metadata"
    seed: int = 0
    sampled_prevalence: float | None = None

    def __post_init__(self) -> None:
        allowed = {
            "alpha": self.alpha is None or 0 < self.alpha < 1,
            "gamma": 0 <= self.gamma <= 10,
            "dropout": 0 <= self.dropout <= 0.99,
            "learning_rate": 0 < self.learning_rate <= 1,
            "epochs": self.epochs >= 1,
            "modalities": self.modalities in ("image+metadata", "image", "metadata"),
            "sampled_prevalence": self.sampled_prevalence is None or 0 < self.sampled_prevalence < 1,
        }
        if wrong := [f"{name}={getattr(self, name)!r}" for name, fine in allowed.items() if not fine]:
            raise SettingsError(
                f"head settings out of range: {', '.join(wrong)}; expected alpha none or in (0, 1), gamma in [0, 10], dropout in "
                "[0, 0.99], learning_rate in (0, 1], epochs from 1, modalities image+metadata, image or metadata, "
                "sampled_prevalence none or in (0, 1)"
            )

    @classmethod
    def of(cls, settings: Settings) -> "HeadSettings":
        """Loss, dropout, learning rate and seed of a whole training, for the head alone."""
        focal = {"alpha": settings.alpha, "gamma": settings.gamma} if settings.loss == "focal" else {"gamma": 0.0}
        return cls(**focal, dropout=settings.dropout, learning_rate=settings.learning_rate, seed=settings.seed)


@dataclass(frozen=True)
class HeadResult:
    """A retrained head.

    Attributes:
        settings: it was trained with.
        history: epoch, train/loss, val/loss, train/auroc, val/auroc; all four without dropout, on the cases as they are.
        predictions: image_id, group_id, split, target and probability (sigmoid of the logit) of every case.
    """

    settings: HeadSettings
    history: pd.DataFrame
    predictions: pd.DataFrame = field(repr=False)

    def of(self, split: str) -> pd.DataFrame:
        """Predictions of one split."""
        return self.predictions[self.predictions["split"] == split]

    def curve(self, split: str) -> OperatingCurve:
        """Operating points of one split."""
        table = self.of(split)
        return OperatingCurve(table["target"], table["probability"])


BATCH = 256  # large steps: the head is linear, and each step costs as much in overhead as in arithmetic
WEIGHT_DECAY = 0.01


def train_head(table: FeatureTable, settings: HeadSettings | None = None) -> HeadResult:
    """Retrain dropout and linear layer, ``MelanomaNet.head``, on features that stay as they are.

    The training split teaches; validation is only watched, and the weights of the last epoch are kept, so that nothing is chosen
    on any split. The same table, settings and machine give the same result; torch's own random state is left alone.

    Args:
        table: features of every case.
        settings: loss, dropout, learning rate, epochs, branches, seed, sampling.

    Raises:
        DataError: if the table lacks a branch that the head needs.
    """
    settings = settings or HeadSettings()
    features = torch.from_numpy(table.features[:, table.columns(settings.modalities)])  # (N, F')
    targets = torch.from_numpy(table.cases["target"].to_numpy(np.float32))  # (N,)
    rows = {split: np.flatnonzero(table.cases["split"] == split) for split in ("train", "val")}
    loss, rng = FocalLoss(settings.alpha, settings.gamma), np.random.default_rng(settings.seed)
    prevalence = settings.sampled_prevalence or float(targets[rows["train"]].mean())  # that the loss meets
    head = _new_head(features.shape[1], loss.optimal_output(prevalence), settings.seed)
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    batches = _batches(features, targets, rng.permutation(rows["train"]))  # copied once; only their order changes
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, settings.epochs * len(batches))
    history = []
    for epoch in range(settings.epochs):
        if settings.sampled_prevalence is not None:
            drawn = _drawn(targets[rows["train"]].numpy(), settings.sampled_prevalence, rng)
            batches = _batches(features, targets, rows["train"][drawn])
        for number in rng.permutation(len(batches)):
            x, y = batches[number]
            value = loss(head(_dropped(x, settings.dropout, rng)).squeeze(1), y)  # (B, F') -> (B,) -> ()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
        with torch.inference_mode():
            logits = head(features).squeeze(1)  # (N,)
            history.append({"epoch": epoch + 1} | _scores(loss, logits, targets, rows))
    return HeadResult(settings, pd.DataFrame(history), table.cases.assign(probability=torch.sigmoid(logits.double()).numpy()))


def _batches(features: Tensor, targets: Tensor, rows: np.ndarray) -> list[tuple[Tensor, Tensor]]:
    return [(features[part], targets[part]) for part in np.array_split(rows, -(-len(rows) // BATCH))]


def _drawn(targets: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """As many positions as there are targets, drawn with replacement so that a melanoma comes up with chance ``share``."""
    melanoma = targets == 1
    weights = np.where(melanoma, share / melanoma.sum(), (1 - share) / (~melanoma).sum())
    return rng.choice(len(targets), len(targets), p=weights / weights.sum())


def _new_head(width: int, prior: float, seed: int) -> nn.Linear:
    """A linear layer that starts at the prior, from a random state of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(width, 1)
    nn.init.constant_(head.bias, float(np.log(prior / (1 - prior))))
    return head


def _dropped(x: Tensor, dropout: float, rng: np.random.Generator) -> Tensor:
    """Inverted dropout by random bytes: ``nn.Dropout`` draws a float for each feature and takes most of the second."""
    hidden = round(256 * dropout)
    if not hidden:
        return x
    kept = torch.from_numpy(rng.integers(0, 256, x.shape, dtype=np.uint8)) >= hidden
    return x * kept * (256 / (256 - hidden))


def _scores(loss: FocalLoss, logits: Tensor, targets: Tensor, rows: dict[str, np.ndarray]) -> dict[str, float]:
    losses = {f"{split}/loss": float(loss(logits[part], targets[part])) for split, part in rows.items()}
    curves = {split: OperatingCurve(targets[part].numpy(), logits[part].numpy()) for split, part in rows.items()}
    return losses | {f"{split}/auroc": curve.auroc for split, curve in curves.items()}
