"""Is this picture like those the model learned from? Light, colours, grain, and how far off it lies in feature space.

Features are the mean and deviation of each channel of a middle layer. The last layer would not do: it was trained to forget all
that does not tell melanoma from other lesions, and a screenshot looks to it like a mole.

A network answers anything, and often with confidence. What is unlike its training images it has never been tested on, so an
answer there is worth nothing, however sure it sounds.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from melanoma_lib.data.images import GREY_OF_RGB
from melanoma_lib.errors import ForeignThresholdError, RunError
from melanoma_lib.explain.layers import cam_layers
from melanoma_lib.export.container import BROKEN_ZIP
from melanoma_lib.export.document import Reading
from melanoma_lib.model import MelanomaNet
from melanoma_lib.runs import Run
from melanoma_lib.utils import replacing

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE = "app_reference.npz"
MOST_IMAGES = 2000  # of the training split, drawn with a fixed seed
NEIGHBOURS = 5
TAIL = 0.002  # of the training images beyond each limit, before the margin
MARGIN = 0.15  # of the range between the limits, added on either side
FAR = 0.99  # quantile of the validation images' distances beyond which one is far
BLOCK = 256
FINEST = 8  # stride in pixels of the layer that is looked at, or less
# Name of each measure: what to say below its lower and above its upper limit.
MEASURES = {
    "brightness": ("The image is too dark", "The image is too bright"),
    "contrast": ("The image is almost blank", "The image has harsher contrasts than a photograph of skin"),
    "warmth": ("The colours are not those of skin: too blue or grey", "The colours are not those of skin: too red or yellow"),
    "green": ("The colours are not those of skin: too purple", "The colours are not those of skin: too green"),
    "grain": ("The image has no detail", "The image is covered by noise, text or a pattern"),
}
SIGNED = ("warmth", "green")


def measure(pixels: np.ndarray) -> np.ndarray:
    """What can be told of a picture without a network.

    Args:
        pixels: uint8, shape ``(..., H, W, 3)``.

    Returns:
        float64, shape ``(..., 5)``, in the order of ``MEASURES``: mean and standard deviation of the grey value, 0 to 255; median
        over the pixels of (R - B) / (R + G + B) and of (2 G - R - B) / (R + G + B); mean step between neighbours as a share
        of the standard deviation.
    """
    colours = pixels.astype(np.float32)
    grey = colours @ GREY_OF_RGB.astype(np.float32)  # (..., H, W)
    total = colours.sum(-1) + 1
    red, green, blue = (colours[..., k] for k in range(3))
    spread = grey.std((-2, -1))
    steps = (np.abs(np.diff(grey, axis=-1)).mean((-2, -1)) + np.abs(np.diff(grey, axis=-2)).mean((-2, -1))) / 2
    return np.stack(
        [
            grey.mean((-2, -1)),
            spread,
            np.median((red - blue) / total, axis=(-2, -1)),
            np.median((2 * green - red - blue) / total, axis=(-2, -1)),
            steps / (spread + 1),
        ],
        axis=-1,
    ).astype(np.float64)


@dataclass(frozen=True)
class Reference:
    """What a run's images look like, and its reading of eight averaged views.

    Attributes:
        checkpoint_sha256: of the model whose features these are.
        low: lower limits of the measures, shape ``(5,)``.
        high: upper limits, shape ``(5,)``.
        features: of training images, scaled to length 1, float16, shape ``(n, F)``.
        far: mean distance to the nearest ``NEIGHBOURS`` features, 0 to 2, that one validation image in a hundred exceeds.
        views: reading of eight views, or None where the run itself averages them.
        test: risk and target of the test images by eight views, shape ``(n, 2)``; empty without that reading.
    """

    checkpoint_sha256: str
    low: np.ndarray
    high: np.ndarray
    features: np.ndarray
    far: float
    views: Reading | None
    test: np.ndarray

    @classmethod
    def of(cls, run: Run) -> Reference:
        """The reference kept in the run directory; fitted and kept there at the first call, which takes a while.

        Raises:
            DataError: if the run's images are gone and nothing was kept.
            ForeignThresholdError: if what was kept belongs to another model.
        """
        file = run.path / REFERENCE
        if file.is_file():
            return cls.load(file, run.operating_point.checkpoint_sha256)
        reference = fit(run)
        with suppress(OSError):  # a run on a read-only disk is fitted anew at each start
            reference.save(file)
        return reference

    def save(self, file: Path) -> None:
        """Write it as one file."""
        record = {
            "checkpoint_sha256": self.checkpoint_sha256,
            "far": self.far,
            "measures": list(MEASURES),
            "views": None if self.views is None else asdict(self.views),
        }
        with replacing(file) as temporary, temporary.open("wb") as opened:
            arrays = {name: getattr(self, name) for name in ("low", "high", "features", "test")}
            np.savez_compressed(opened, record=json.dumps(record), **arrays)

    @classmethod
    def load(cls, file: Path, checkpoint_sha256: str) -> Reference:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: if it cannot be read.
            ForeignThresholdError: if it belongs to another model.
        """
        try:
            with np.load(file) as arrays:
                record = json.loads(str(arrays["record"]))
                if record["measures"] != list(MEASURES):
                    raise ValueError(f"measures {record['measures']}")
                views = None if record["views"] is None else Reading(**record["views"])
                held = {name: arrays[name] for name in ("low", "high", "features", "test")}
                reference = cls(record["checkpoint_sha256"], far=record["far"], views=views, **held)
        except (ValueError, KeyError, TypeError, *BROKEN_ZIP) as error:
            raise RunError(f"{file} cannot be read ({error}); delete it, and the next start makes it anew") from error
        if reference.checkpoint_sha256 != checkpoint_sha256:
            raise ForeignThresholdError(
                f"{file} was made for another checkpoint ({reference.checkpoint_sha256[:12]}…, not {checkpoint_sha256[:12]}…); "
                "delete it, and the next start makes it anew"
            )
        return reference

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mean distance of features, shape ``(m, F)``, to their nearest neighbours in training, shape ``(m,)``, 0 to 2.

        Source: Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors", which takes the k-th distance.
        """
        bank, k = self.features.astype(np.float32), min(NEIGHBOURS, len(self.features))
        found = []
        for start in range(0, len(features), BLOCK):
            cosine = _unit(features[start : start + BLOCK]) @ bank.T  # (b, n)
            nearest = np.partition(cosine, -k, axis=1)[:, -k:]
            found.append(np.sqrt(np.clip(2 - 2 * nearest, 0, None)).mean(1))
        return np.concatenate(found)

    def warnings(self, square: np.ndarray, features: np.ndarray | None) -> tuple[str, ...]:
        """In which respects a picture is unlike training, in words; empty if in none.

        Args:
            square: as training's images are cached, uint8, shape ``(C, C, 3)``.
            features: as :func:`layer_features` gives them, shape ``(F,)``; None if they are not at hand.
        """
        said = []
        for (name, words), value, low, high in zip(MEASURES.items(), measure(square), self.low, self.high, strict=True):
            if not low <= value <= high:
                low = low if name in SIGNED else max(low, 0)  # a margin below zero is no brightness
                range_ = f"{name} {value:.2f}, training images lie between {low:.2f} and {high:.2f}"
                said.append(f"{words[int(value > high)]} ({range_}).")
        if features is not None and (distance := float(self.distances(features[None])[0])) > self.far:
            said.append(
                "To the network it is unlike every image it learned from "
                f"(distance {distance:.2f}; {FAR:.0%} of the validation images are nearer than {self.far:.2f})."
            )
        return tuple(said)


def fit(run: Run) -> Reference:
    """Look at a run's images once more.

    Raises:
        DataError: if they are gone.
    """
    from melanoma_lib.data.datamodule import DermoscopyDataModule
    from melanoma_lib.data.sampling import Draw
    from melanoma_lib.export.writer import reading_of
    from melanoma_lib.reports import predict_with_views

    data = DermoscopyDataModule(run.settings, run.cases())
    model, dataset = run.model(), data.dataset(training=False)
    training = np.sort(np.random.default_rng(0).permutation(data.rows("train"))[:MOST_IMAGES])
    low, high = limits(np.concatenate([measure(data.pixels()[rows]) for rows in _blocks(training)]))

    def features(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([layer_features(model, dataset.__getitems__(Draw(part, 0))["image"]) for part in _blocks(rows)])

    views, test = None, np.empty((0, 2))
    if not run.settings.tta:
        tables = predict_with_views(run)
        views = reading_of(run, **tables)
        risk = views.risk(tables["test"]["logit"].to_numpy())
        test = np.column_stack([risk, tables["test"]["target"]])
    bank = _unit(features(training)).astype(np.float16)
    draft = Reference(run.operating_point.checkpoint_sha256, low, high, bank, np.inf, views, test)
    far = float(np.quantile(draft.distances(features(data.rows("val"))), FAR))
    return Reference(draft.checkpoint_sha256, low, high, bank, far, views, test)


def layer_features(model: MelanomaNet, images: Tensor) -> np.ndarray:
    """Mean and deviation of each channel of the last layer whose points are at most ``FINEST`` pixels apart.

    Args:
        model: with an image branch, in evaluation mode.
        images: normalised, shape ``(B, 3, S, S)``.

    Returns:
        float32, shape ``(B, 2 C)``.
    """
    import torch

    layers = list(cam_layers(model).values())
    layer = ([one for one in layers if one.stride <= FINEST] or layers[:1])[-1]
    kept: list[Tensor] = []
    hook = layer.module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        with torch.inference_mode():
            model.image_branch(images)
    finally:
        hook.remove()
    maps = layer.as_maps(kept[0], tuple(images.shape[2:])).float()  # (B, C, h, w)
    return torch.cat([maps.mean((2, 3)), maps.std((2, 3))], dim=1).numpy()


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    """Rows in parts that fit in memory."""
    return [rows[start : start + 64] for start in range(0, len(rows), 64)]


def limits(measures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limits, shape ``(M,)`` each, of measures of many images, shape ``(N, M)``."""
    low, high = np.quantile(measures, [TAIL, 1 - TAIL], axis=0)
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
