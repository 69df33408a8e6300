"""Is this picture like those the model learned from? Light, colours, grain, and how far off it lies in feature space.

Features are the mean and deviation of each channel of a middle layer. The last layer would not do: it was trained to forget all
that does not tell melanoma from other lesions, and a screenshot looks to it like a mole.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from melanoma_lib.data.datamodule import DermoscopyDataModule, Draw
from melanoma_lib.errors import DataError, ForeignThresholdError, RunError
from melanoma_lib.explain.layers import cam_layers
from melanoma_lib.inference.document import measure
from melanoma_lib.model import MelanomaNet
from melanoma_lib.runs import Run
from melanoma_lib.utils import replacing

log = logging.getLogger("melanoma_lib")
REFERENCE = "app_reference.npz"
MOST_IMAGES = 2000  # of the training split, drawn with a fixed seed
NEIGHBOURS = 5
TAIL = 0.002  # of the training images beyond each limit, before the margin
MARGIN = 0.15  # of the range between the limits, added on either side
FAR = 0.99  # quantile of the validation images' distances beyond which one is far
FINEST = 8  # stride in pixels of the layer that is looked at, or less


@dataclass(frozen=True)
class Reference:
    """What a run's images look like."""

    checkpoint_sha256: str
    low: np.ndarray  # lower limits of the measures, shape (5,)
    high: np.ndarray
    features: np.ndarray  # of training images, scaled to length 1, float16, shape (n, F)
    far: float  # mean distance to the nearest features, 0 to 2, that one validation image in a hundred exceeds

    @classmethod
    def of(cls, run: Run) -> Reference:
        """The reference kept in the run directory; fitted at the first call, which takes a while.

        Raises:
            RunError: if the file cannot be read; ForeignThresholdError, if it is of another model.
            DataError: if there is no file and the images are gone.
        """
        file, advice = run.path / REFERENCE, "delete it, and the next start makes it anew"
        if not file.is_file():
            reference = fit(run)
            with suppress(OSError):  # a run on a read-only disk is fitted anew at each start
                reference.save(file)
            return reference
        try:
            with np.load(file) as arrays:
                record, limits = json.loads(str(arrays["record"])), (arrays["low"], arrays["high"])
                reference = cls(record["checkpoint_sha256"], *limits, arrays["features"], record["far"])
        except Exception as error:  # of zip, zlib, JSON and NumPy
            raise RunError(f"{file} cannot be read ({error}); {advice}") from error
        if reference.checkpoint_sha256 != run.operating_point.checkpoint_sha256:
            raise ForeignThresholdError(f"{file} was made for another checkpoint; {advice}")
        return reference

    def save(self, file: Path) -> None:
        """Write what :meth:`of` reads."""
        record = json.dumps({"checkpoint_sha256": self.checkpoint_sha256, "far": self.far})
        with replacing(file) as temporary, temporary.open("wb") as opened:
            np.savez_compressed(opened, record=record, low=self.low, high=self.high, features=self.features)


def fit(run: Run) -> Reference:
    """Look at a run's images once more; DataError if they are gone."""
    try:
        cases = run.cases()
    except RunError as error:  # others are there now
        raise DataError(str(error)) from error
    log.info("looking at images that %s was trained on, to tell which others are unlike them; this is done once", run.path)
    data, model = DermoscopyDataModule(run.settings, cases), run.model()
    dataset = data.dataset(training=False)

    def features(rows: np.ndarray) -> np.ndarray:
        parts = np.array_split(rows, len(rows) // 64 + 1)  # that fit in memory
        return np.concatenate([layer_features(model, dataset.__getitems__(Draw(part, 0))["image"]) for part in parts])

    training = np.sort(np.random.default_rng(0).permutation(data.rows("train"))[:MOST_IMAGES])
    low, high = np.quantile([measure(data.pixels()[row]) for row in training], [TAIL, 1 - TAIL], axis=0)
    margin = MARGIN * (high - low)
    known = torch.nn.functional.normalize(torch.from_numpy(features(training))).half().numpy()
    far = float(np.quantile(distances(features(data.rows("val")), known), FAR))
    return Reference(run.operating_point.checkpoint_sha256, low - margin, high + margin, known, far)


def distances(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean distance, 0 to 2, shape ``(m,)``, of features, shape ``(m, F)``, to the nearest of those known, shape ``(n, F)``.

    Source: Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors", which takes the k-th distance.
    """
    unit = [torch.nn.functional.normalize(torch.from_numpy(one.astype(np.float64))) for one in (features, known)]
    return torch.cdist(*unit).topk(min(NEIGHBOURS, len(known)), largest=False).values.mean(1).numpy()  # of (m, n)


def layer_features(model: MelanomaNet, images: torch.Tensor | np.ndarray) -> np.ndarray:
    """Mean and deviation, shape ``(B, 2 C)``, of each channel of the last layer of at most ``FINEST`` pixels between points."""
    layers = list(cam_layers(model).values())
    layer = ([one for one in layers if one.stride <= FINEST] or layers[:1])[-1]
    kept: list[torch.Tensor] = []
    with layer.module.register_forward_hook(lambda _module, _inputs, output: kept.append(output)), torch.inference_mode():
        model.image_branch(torch.as_tensor(images))
    maps = layer.as_maps(kept[0], tuple(images.shape[2:])).float()  # (B, C, h, w)
    return torch.cat([maps.mean((2, 3)), maps.std((2, 3))], dim=1).numpy()
