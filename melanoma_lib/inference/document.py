"""What is known of a model that is asked, and what an exported file says of itself: pixels, calibration, threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import melanoma_lib
from melanoma_lib.data.images import GREY_OF_RGB, backbone_normalisation, is_painted, read_square, stored_side
from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.errors import DataError, ExportError, ForeignThresholdError

if TYPE_CHECKING:
    from melanoma_lib.runs import Run

SCHEMA = 2  # raise when a reader of the old document would misread a new one
RECORD = "melanoma_lib.json"  # name under which the file's metadata holds the document
AGAIN = "export the run again with python -m melanoma_lib export"
NOTE = "Educational, not for diagnosis."
PAINTING = "It is a painting that the kit made, no photograph of skin: nothing that the model learned from photographs applies."
MEASURES = ("brightness", "contrast", "warmth", "green", "grain")  # of a picture


def measure(pixels: np.ndarray) -> np.ndarray:
    """``MEASURES``, shape ``(5,)``, of a picture, uint8, shape ``(H, W, 3)``.

    Mean and deviation of the grey value, 0 to 255; median of (R - B) / (R + G + B) and of (2 G - R - B) / (R + G + B); mean
    step between neighbours over the deviation.
    """
    colours = pixels.astype(np.float32)
    grey, total = colours @ GREY_OF_RGB.astype(np.float32), colours.sum(-1) + 1  # (H, W)
    red, green, blue = np.moveaxis(colours, -1, 0)
    warmth, greenness = np.median((red - blue) / total), np.median((2 * green - red - blue) / total)
    steps = (np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=0)).mean()) / 2
    return np.array([grey.mean(), grey.std(), warmth, greenness, steps / (grey.std() + 1)], float)


def beyond(square: np.ndarray, low: Sequence[float], high: Sequence[float]) -> list[tuple[str, float, float, float]]:
    """Name, value and limits of each of ``MEASURES`` of a picture, uint8, shape ``(H, W, 3)``, that lies beyond the limits."""
    found = zip(MEASURES, measure(square).tolist(), low, high, strict=True)
    return [(name, value, least, most) for name, value, least, most in found if not least <= value <= most]


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to what the network takes; it gives what ``prepare_image`` gives, without PyTorch."""

    stored_side: int  # of the square that the decoded frame is first squashed to, pixels
    image_size: int  # of the network's input
    interpolation: str  # Pillow's name of the second resize; the first is always bicubic
    mean: tuple[float, float, float]  # of each colour, on the scale 0 to 1; so is std
    std: tuple[float, float, float]
    rule: str = (  # for whoever writes another reader
        "turn as EXIF says; 16-bit grey divided by 257; convert to RGB; squash the whole frame to stored_side by Pillow's "
        "BICUBIC (a JPEG file is first decoded at 1/2, 1/4 or 1/8 where both sides stay at least stored_side: Image.draft); "
        "squash to image_size by the filter named in interpolation; (pixel - 255 mean) / (255 std) in float32; colours first"
    )

    def prepare(self, file: Path | IO[bytes] | Image.Image) -> np.ndarray:
        """Float32 pixels of an image, shape ``(3, image_size, image_size)``; CorruptImageError if it cannot be decoded."""
        square, size = Image.fromarray(read_square(file, self.stored_side)), (self.image_size, self.image_size)
        pixels = square.resize(size, Image.Resampling[self.interpolation.upper()])
        mean, std = (np.array(colours, np.float32) * np.float32(255) for colours in (self.mean, self.std))
        return ((np.asarray(pixels).astype(np.float32) - mean) / std).transpose(2, 0, 1)  # (S, S, 3) -> (3, S, S)


@dataclass(frozen=True)
class Reading:
    """How a logit is read: calibration and operating point of this model predicting in this way, and its test metrics."""

    slope: float  # risk = sigmoid(slope * logit + intercept), both fitted on validation
    intercept: float
    threshold: float  # sigmoid(logit) >= threshold is flagged; chosen on validation by the rule
    rule: str
    sensitivity: float  # at the threshold, on validation; so is specificity
    specificity: float
    prevalence: float  # share of melanomas on validation, where the risk holds
    checkpoint_sha256: str
    predictions_sha256: str  # of the validation predictions
    test: dict[str, Any]  # test metrics with intervals, as evaluate_predictions gives them

    def answers(self, logits: np.ndarray) -> dict[str, np.ndarray]:
        """Of logits, shape ``(B,)``, in that shape each: ``logit``, ``probability``, calibrated ``risk`` and ``flagged``."""
        logits = np.asarray(logits, np.float64)
        probability, risk = sigmoid(logits), sigmoid(self.slope * logits + self.intercept)
        return {"logit": logits, "probability": probability, "risk": risk, "flagged": probability >= self.threshold}


@dataclass(frozen=True)
class Document:
    """What is known of a model that is asked; the record inside every exported file."""

    run: str
    source: str
    licence: str  # what whoever passes the file on should know
    backbone: str
    modalities: str
    checkpoint_sha256: str
    preprocessing: Preprocessing | None  # None without an image branch
    encoder: MetadataEncoder | None  # None without a metadata branch
    readings: dict[str, Reading]  # by number of averaged views: "1", "8"
    kit: str  # version that wrote it
    limits: list[list[float]] | None = None  # of MEASURES in training images, low and high, where they are known
    schema: int = SCHEMA
    note: str = NOTE

    def __post_init__(self) -> None:
        for views, reading in self.readings.items():
            if reading.checkpoint_sha256 != self.checkpoint_sha256:
                told = f"was chosen for another model than checkpoint {self.checkpoint_sha256[:12]}…, where it means nothing"
                raise ForeignThresholdError(f"the operating point for {views} view(s) {told}; {AGAIN}")

    @classmethod
    def of_run(cls, run: Run) -> Document:
        """What a run says of itself, with the reading of its own predictions; errors as of ``Run.operating_point``."""
        settings, point, shape = run.settings, run.operating_point, None
        prevalence = float(run.predictions("val")["target"].mean())
        reading = Reading(**run.calibrator.to_dict(), **asdict(point), prevalence=prevalence, test=run.metrics)
        if "image" in settings.modalities:
            colours = backbone_normalisation(settings.backbone)
            shape = Preprocessing(stored_side(settings.image_size), settings.image_size, **colours)
        return cls(
            run.path.name, settings.source, licence_of(settings.source), settings.backbone, settings.modalities,
            point.checkpoint_sha256, shape, encoder=run.encoder if "metadata" in settings.modalities else None,
            readings={"8" if settings.tta else "1": reading}, kit=melanoma_lib.__version__,
        )  # fmt: skip

    def warnings(self, file: Any) -> tuple[str, ...]:
        """Why an answer about an image, given as path or bytes, is nothing to rely on: a model of photographs saw a painting.

        DataError if a model of synthetic cases, which say nothing about skin, is shown anything but a file of theirs.
        """
        painted = is_painted(file)
        if self.source == "synthetic" and not painted:
            told = "This model was trained on synthetic cases and answers only image files that this version of the kit painted"
            raise DataError(f"{told}; ask a model trained on photographs, such as the reference run.")
        return (PAINTING,) if painted and self.source != "synthetic" else ()

    def to_json(self) -> str:
        """Serialise; :meth:`from_json` gives an equal document back."""
        values = asdict(self) | {"encoder": self.encoder and json.loads(self.encoder.to_json())}
        return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Document:
        """Read what :meth:`to_json` wrote; ExportError if it is none, or of a schema that this version does not know."""
        try:
            values = json.loads(text)
            if (found := values["schema"]) != SCHEMA:
                raise ExportError(f"the record has schema {found!r}, this version reads {SCHEMA}; {AGAIN}")
            shape, encoder = values["preprocessing"], values["encoder"]
            read = {
                "preprocessing": shape and Preprocessing(**shape | {name: tuple(shape[name]) for name in ("mean", "std")}),
                "encoder": encoder and MetadataEncoder.from_json(json.dumps(encoder)),
                "readings": {views: Reading(**reading) for views, reading in values["readings"].items()},
            }
            return cls(**values | read)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(f"expected the record of an exported model, got {text[:80]!r} ({error})") from error


def licence_of(source: str) -> str:
    """What to know before passing a model of this source on."""
    from melanoma_lib.data.download import OFFERS

    if source == "synthetic":
        return "trained on cases that the kit generated itself; no licence of a data set applies"
    licence = OFFERS[source].licence if source in OFFERS else "see the licence of each of its images"
    return f"trained on {source}, {licence}; whether a model inherits its data's licence is not settled: act as if it did"


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probability of float64 logits of any shape, without overflow."""
    falling = np.exp(-np.abs(logits))  # in (0, 1]
    return np.where(logits >= 0, 1, falling) / (1 + falling)
