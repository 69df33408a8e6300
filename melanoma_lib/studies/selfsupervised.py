"""A warm start without labels: SimCLR on the training images of a split, resumable, from ImageNet's weights or from scratch.

Loss, projection head and views are those of ``lightly`` (pip install melanoma_lib[selfsupervised]).
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.data.images import backbone_normalisation
from melanoma_lib.data.sampling import EpochSampler
from melanoma_lib.errors import RunError, StudyError
from melanoma_lib.model import hold_early, image_branch
from melanoma_lib.settings import Settings
from melanoma_lib.utils import progress_bar, replacing, write_text

WIDTH = 128  # of the space that the contrast is drawn in
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.01  # the rate at its peak
TEMPERATURE = 0.2  # of the contrast; the lower, the more the nearest others count
MIN_CROP, COLOUR = 0.3, 0.4  # least share of the frame in a view; mild changes of colour, which tells lesions apart


@dataclass(frozen=True)
class Pretraining:
    """How the image branch is pretrained; two views of an image shall be nearer to each other than to the rest of the batch.

    Attributes:
        side: of a view in pixels.
        epochs: passes over the images.
        batch_size: images a step; each gives two views, and 2 (batch_size - 1) others to be told from.

    Raises:
        StudyError: if a value is out of range.
    """

    side: int = 64
    epochs: int = 8
    batch_size: int = 128

    def __post_init__(self) -> None:
        for name, least in (("side", 32), ("epochs", 1), ("batch_size", 2)):
            if (value := getattr(self, name)) < least:
                raise StudyError(f"pretraining: {name}: expected at least {least}, got {value}")

    @classmethod
    def of(cls, settings: Settings, **changes: int) -> "Pretraining":
        """For a model of these settings: views of two thirds of its side, which crops make up for, but none below 64 px."""
        smaller = 32 * round(settings.image_size * 2 / 3 / 32)  # in whole strides of the backbone
        return cls(**{"side": min(settings.image_size, max(64, smaller))} | changes)


@dataclass(frozen=True)
class WarmStart:
    """A pretrained image branch.

    Attributes:
        file: its weights, named after their digest, as ``init_weights`` takes it.
        history: epoch, loss, found (share of views whose nearest other view is of the same image), seconds; one row an epoch.
    """

    file: Path
    history: list[dict[str, float]]


def pretrain(settings: Settings, how: Pretraining, data: DermoscopyDataModule) -> WarmStart:
    """Pretrain the image branch on the images of the training split alone, without their labels.

    No image of validation or test is seen, so what is fine-tuned from it is tested on images that are new in every sense. The
    stages that ``frozen_stride`` holds in fine-tuning are held here too. An interrupted pretraining goes on at its last
    finished epoch.

    Args:
        settings: backbone, start (ImageNet or random), split, seed and where things lie.
        how: of the pretraining.
        data: the cases of these settings, with their split.

    Raises:
        StudyError: if ``lightly`` is not installed, or there are fewer training images than make a batch.
        RunError: if the loss is no longer finite, or another process pretrains the same.
    """
    rows = data.rows("train")
    if len(rows) < how.batch_size:
        raise StudyError(f"expected at least one batch of {how.batch_size} training images, got {len(rows)}")
    folder = settings.runs_dir / f"selfsupervised-{settings.backbone}-{_digest(settings, how, data)}".replace("/", "_")
    with _alone(folder):
        if not list(folder.glob("simclr-*.pt")):
            state = _fit(settings, how, data, rows, folder / "last.ckpt")
            write_text(folder / "history.json", json.dumps(state["history"], indent=1) + "\n")
            torch.save(state["branch"], unnamed := folder / "unnamed.pt")
            unnamed.rename(folder / f"simclr-{hashlib.sha256(unnamed.read_bytes()).hexdigest()[:12]}.pt")
        (folder / "last.ckpt").unlink(missing_ok=True)
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return WarmStart(next(folder.glob("simclr-*.pt")), history)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder against a second pretraining, which would write over the states of the first."""
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder.with_name(f".{folder.name}.lock")).acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"another process pretrains {folder}; wait for it, then start again: what it leaves is taken") from error
    with held:
        yield


def _fit(settings: Settings, how: Pretraining, data: DermoscopyDataModule, rows: np.ndarray, last: Path) -> dict[str, Any]:
    """Train from the last finished epoch on; the state after the last one."""
    import pytorch_lightning as pl

    loss_of, head_of, views_of = _lightly(settings, how)
    pl.seed_everything(settings.seed, workers=False, verbose=False)
    branch = image_branch(settings.backbone, settings.pretrained).to(memory_format=torch.channels_last)
    head = head_of(branch.head_hidden_size)
    parameters = [*branch.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    sampler = EpochSampler(np.zeros(len(data.cases)), rows, "plain", how.batch_size, settings.seed)
    history: list[dict[str, float]] = []
    if last.exists():
        state = torch.load(last, map_location="cpu", weights_only=True)
        branch.load_state_dict(state["branch"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        history = state["history"]
    pixels, steps = data.pixels(), len(sampler)
    with progress_bar("pretraining without labels", steps * (how.epochs - len(history)), settings.progress) as advance:
        for epoch in range(len(history), how.epochs):
            pl.seed_everything(settings.seed * 1_000_003 + epoch, workers=False, verbose=False)  # as in a run never interrupted
            branch.train()
            hold_early(branch, settings.frozen_stride if settings.pretrained else 0)
            sampler.set_epoch(epoch)
            begun, losses, found = time.perf_counter(), [], []
            for step, draw in enumerate(sampler):
                for group in optimiser.param_groups:
                    group["lr"] = LEARNING_RATE * rate_at(epoch * steps + step, steps, how.epochs)
                pairs = [views_of(Image.fromarray(pixels[row])) for row in draw.rows]
                views = torch.stack([pair[side] for side in (0, 1) for pair in pairs])  # (2B, 3, S, S)
                spots = head(branch(views.to(memory_format=torch.channels_last)))  # (2B, WIDTH)
                loss = loss_of(*spots.chunk(2))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                losses.append(float(loss.detach()))
                found.append(pairs_found(spots.detach()))
                advance()
            if not np.isfinite(losses).all():
                raise RunError(f"{last.parent}: the loss of pretraining is no longer finite; lower its learning rate")
            row = {"epoch": epoch + 1, "loss": float(np.mean(losses)), "found": float(np.mean(found))}
            history.append(row | {"seconds": time.perf_counter() - begun})
            state = {"branch": branch.state_dict(), "head": head.state_dict(), "optimiser": optimiser.state_dict()}
            with replacing(last) as temporary:
                torch.save(state | {"history": history}, temporary)
    return {"branch": branch.state_dict(), "history": history}


def rate_at(step: int, steps: int, epochs: int) -> float:
    """Share of the peak learning rate: linear warm-up over half an epoch, then a cosine to zero."""
    warm_up, total = steps / 2, steps * epochs
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1.0, total - warm_up)))


def pairs_found(spots: Tensor) -> float:
    """Share of views whose nearest other view, by cosine, is the second view of the same image.

    Args:
        spots: first views, then second views in the same order, shape ``(2B, D)``.
    """
    unit = nn.functional.normalize(spots, dim=1)
    near = (unit @ unit.T).fill_diagonal_(-2)  # (2B, 2B)
    mates = torch.arange(len(spots)).roll(len(spots) // 2)
    return float((near.argmax(dim=1) == mates).float().mean())


def _lightly(settings: Settings, how: Pretraining) -> tuple[nn.Module, Any, Any]:
    """Loss, a maker of projection heads, and the transform from a PIL image to two views, from ``lightly``."""
    try:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead
        from lightly.transforms import SimCLRTransform
    except ImportError as error:
        raise StudyError(f"pretraining needs lightly: pip install 'melanoma_lib[selfsupervised]' ({error})") from error
    normalisation = backbone_normalisation(settings.backbone)
    views = SimCLRTransform(
        input_size=how.side,
        min_scale=MIN_CROP,
        cj_strength=COLOUR,
        random_gray_scale=0.0,
        gaussian_blur=0.3,
        hf_prob=0.5,
        vf_prob=0.5,
        rr_prob=0.5,
        normalize={name: list(normalisation[name]) for name in ("mean", "std")},
    )
    return NTXentLoss(TEMPERATURE), lambda width: SimCLRProjectionHead(width, width, WIDTH), views


def _digest(settings: Settings, how: Pretraining, data: DermoscopyDataModule) -> str:
    """Changes with all that shapes the weights: the way, the start, and the images, by their cache."""
    shaping = {name: getattr(settings, name) for name in ("backbone", "pretrained", "frozen_stride", "seed", "image_size")}
    digest = hashlib.sha256(json.dumps([shaping, asdict(how)], sort_keys=True).encode())
    digest.update(Path(data.pixels().filename).name.encode())
    digest.update(data.rows("train").tobytes())
    return digest.hexdigest()[:8]
