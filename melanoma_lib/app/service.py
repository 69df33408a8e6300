"""From a picture and what is known of the patient to an answer: a predictor, what became of similar cases, and heatmaps."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.special import logit

from melanoma_lib.app.uploads import open_upload
from melanoma_lib.errors import DataError, ExplanationError, ForeignThresholdError
from melanoma_lib.evaluation import OperatingPoint, adjust_for_prevalence, wilson_interval
from melanoma_lib.evaluation.calibration import RISK_FLOOR
from melanoma_lib.explain import CAM_METHODS, METHOD_NAMES, cam_layers, default_layer, heatmaps
from melanoma_lib.explain.unlike import FAR, REFERENCE, Reference, distances, layer_features
from melanoma_lib.export import FORMATS
from melanoma_lib.inference import Predictor
from melanoma_lib.inference.document import NOTE, beyond
from melanoma_lib.runs import Run

BACKENDS = {"torch": "PyTorch", "onnx": "ONNX Runtime"}
ALIKE = 0.5  # log-odds within which a risk is similar
FEWEST = (30, 100)  # test cases that are compared with at least; where none of those is a melanoma
PREVALENCE = 0.1  # that an answer is carried to unless another is asked for
# What to say where a measure lies below its lower and above its upper limit.
UNLIKE = {
    "brightness": ("The image is too dark", "The image is too bright"),
    "contrast": ("The image is almost blank", "The image has harsher contrasts than a photograph of skin"),
    "warmth": ("The colours are not those of skin: too blue or grey", "The colours are not those of skin: too red or yellow"),
    "green": ("The colours are not those of skin: too purple", "The colours are not those of skin: too green"),
    "grain": ("The image has no detail", "The image is covered by noise, text or a pattern"),
}


class Patient(NamedTuple):
    """What is known beside the image: age in years, in [0, 120], sex and site as the encoder names them; None is not known."""

    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A picture made ready; nothing else of the upload is kept. With a warning no answer about it is anything to rely on."""

    shown: np.ndarray | None  # for the page, uint8, shape (h, w, 3); None of a local file
    pixels: np.ndarray  # for the network, float32, shape (3, S, S)
    notes: tuple[str, ...]  # how it was read
    warnings: tuple[str, ...]  # in which respects it is unlike training
    sha256: str  # of the file


class Service:
    """A model, ready to be asked by many at once.

    Args:
        source: a finished run, or the path of an exported file, which knows neither heatmaps nor similar cases.
        backend: ``torch``, or ``onnx`` for the exported file in the run directory; heatmaps take PyTorch in either case.
        tta: as of ``Predictor``.

    Raises:
        ExportError: if the ONNX file is missing or damaged, or not made for ``tta``.
        ForeignThresholdError: if threshold, file and checkpoint do not belong together.
    """

    def __init__(self, source: Run | Path, backend: str = "torch", tta: bool | None = None) -> None:
        self.run, self.backend = source, backend
        self.layers, self.methods, self.first_layer = {}, {}, None  # of heatmaps: early to late; name by key
        self.reference: Reference | None = None  # what training looks like; where it is None, "lacks" says why
        self.lacks = "an exported file knows nothing of them"
        self.test: np.ndarray | None = None  # risk and target, shape (n, 2)
        self._asking = threading.Lock()  # hooks and gradients of heatmaps are the model's, not the thread's
        if not isinstance(source, Run):
            self.predictor = Predictor(source, tta)
            self.document = self.predictor.document
            return
        self.model, exported = source.model(), source.path / FORMATS["onnx"]
        self.predictor = Predictor(exported if backend == "onnx" else source, tta, self.model)
        self.document = self.predictor.document
        if self.document.checkpoint_sha256 != source.operating_point.checkpoint_sha256:
            again = f"export again with python -m melanoma_lib export {source.path}"
            raise ForeignThresholdError(f"{exported} was exported from another checkpoint than the run's; {again}")
        self.test = source.predictions("test")[["risk", "target"]].to_numpy(float)
        if self.document.preprocessing is None:
            return
        with suppress(ExplanationError):  # some backbones have no layer to draw; all but heatmaps works
            self.layers, self.methods = cam_layers(self.model), {one: METHOD_NAMES[one] for one in CAM_METHODS}
            self.first_layer = default_layer(self.layers, source.settings.image_size)  # fine enough to point
        self.lacks = "the first start of the app prepares the comparison, which takes minutes"
        if (source.path / REFERENCE).is_file():
            self.learn_training()

    def learn_training(self) -> None:
        """Find out what training looks like: from a file of the run directory, or from the images, which takes minutes."""
        if self.reference is None and isinstance(self.run, Run) and self.document.preprocessing is not None:
            try:
                self.reference, self.lacks = Reference.of(self.run), ""
            except (DataError, ExplanationError) as error:  # the images are gone; the backbone has no layer to compare by
                self.lacks = str(error)

    def admit(self, data: bytes, local: bool = False) -> Case:
        """Read an upload, or a ``local`` file that no page shows, and compare it with training; of its bytes nothing is kept.

        Raises:
            CorruptImageError: if it cannot be read; the message is for the user.
            DataError: if the model looks at metadata alone, or at synthetic cases alone and this is none.
        """
        preprocessing = self.document.preprocessing
        if preprocessing is None:
            raise DataError("This model looks at age, sex and site alone; it takes no image.")
        square, shown, notes = open_upload(data, preprocessing.stored_side, local)
        pixels, warnings = preprocessing.prepare(Image.fromarray(square)), self.document.warnings(data)
        if self.reference is not None:
            with self._asking:
                distance = distances(layer_features(self.model, pixels[None]), self.reference.features)[0]
            warnings += words_of(beyond(square, self.reference.low, self.reference.high))
            if distance > self.reference.far:
                nearer = f"distance {distance:.2f}; {FAR:.0%} of the validation images are nearer than {self.reference.far:.2f}"
                warnings += (f"To the network it is unlike every image it learned from ({nearer}).",)
        elif self.document.limits:
            warnings += words_of(beyond(square, *self.document.limits))
            notes += ("Light and colours were compared with images of training, what the network sees was not.",)
        else:  # and stays so, whatever is known later
            notes += (f"Not compared with the images of training: {self.lacks}.",)
        return Case(shown, pixels, notes, warnings, hashlib.sha256(data).hexdigest())

    def ask(self, case: Case | None, patient: Patient, prevalence: float = PREVALENCE) -> dict[str, Any]:
        """The run's answer, fit for JSON, as in ``docs/api.md``; DataError if the image is missing or a value not known."""
        inputs, reading = self._inputs(case, patient), self.predictor.reading
        with self._asking:
            logits = self.predictor.logits(**inputs)
        said = {name: values[0].item() for name, values in reading.answers(logits).items()}
        tested = reading.test["at_threshold"]
        counts = {name: tested[name] for name in ("tp", "fp", "tn", "fn")}
        point = OperatingPoint(reading.threshold, **counts)
        alike = None if self.test is None else similar_cases(self.test, said["risk"])
        ends = (alike["observed"]["low"], alike["observed"]["high"]) if alike else (0, 1)
        least = 1 / alike["n"] if alike and not alike["melanomas"] else 0
        shown = max(float(np.clip(said["risk"], *ends)), least)  # never surer than what became of similar cases
        carried = [float(adjust_for_prevalence(end, reading.prevalence, prevalence)) if 0 < end < 1 else end for end in ends]
        age = np.nan if patient.age is None else float(patient.age)  # which the encoder has found fit
        many, ppv, npv = point.per_thousand(prevalence), point.ppv_at(prevalence), point.npv_at(prevalence)
        return (
            {"note": NOTE}
            | said
            | {
                "run": self.document.run,
                "checkpoint_sha256": self.document.checkpoint_sha256,
                "image_sha256": case.sha256 if case else None,
                "patient": self.document.encoder and patient._replace(age=age if age == age else None)._asdict(),
                "answered": date.today().isoformat(),
                "threshold": reading.threshold,
                "rule": reading.rule,
                "views": self.predictor.views,
                "validation_prevalence": reading.prevalence,
                "prevalence": prevalence,
                "risk_shown": shown,
                "risk_at_prevalence": float(adjust_for_prevalence(shown, reading.prevalence, prevalence)),
                "risk_at_prevalence_interval": dict(zip(("low", "high"), carried, strict=True)),
                "sensitivity": tested["sensitivity"],
                "specificity": tested["specificity"],
                "ppv_at_prevalence": ppv if np.isfinite(ppv) else None,
                "npv_at_prevalence": npv if np.isfinite(npv) else None,
                "test_counts": counts,
                "of_thousand": {name: int(getattr(many, name)) for name in counts},
                "similar_test_cases": alike,
                "reliable": not (case and case.warnings),
                "warnings": list(case.warnings) if case else [],
                "notes": list(case.notes) if case else [],
            }
        )

    def heatmap(self, case: Case, patient: Patient, layer: str, method: str) -> tuple[np.ndarray, bool]:
        """As of :func:`heatmaps`, at the layer's own resolution, shape ``(h, w)``, and whether its sign is doubtful."""
        inputs = {name: torch.from_numpy(values) for name, values in self._inputs(case, patient).items()}
        with self._asking:
            maps = heatmaps(self.model, inputs["image"], inputs.get("metadata"), layer, method)
        return maps[layer][0], bool(maps.doubtful_sign[layer][0])

    def facts(self) -> dict[str, Any]:
        """What the page and the API tell of the run, fit for JSON."""
        encoder, told = self.document.encoder, ("run", "source", "licence", "backbone", "modalities", "note")
        return {name: getattr(self.document, name) for name in told} | {
            "backend": BACKENDS[self.backend],
            "views": self.predictor.views,
            "sexes": list(encoder.sexes) if encoder else [],
            "sites": list(encoder.sites) if encoder else [],
            "layers": list(self.layers),
            "methods": list(self.methods),
            "compares_with_training": self.reference is not None,
        }

    def _inputs(self, case: Case | None, patient: Patient) -> dict[str, np.ndarray]:
        """What the network takes: shapes ``(1, 3, S, S)`` and ``(1, M)``."""
        if self.document.preprocessing is not None and case is None:
            raise DataError("This model looks at an image; choose one first.")
        if self.document.encoder is None and patient != Patient():
            raise DataError("This model looks at the image alone; leave age, sex and site unknown.")
        image = {} if self.document.preprocessing is None else {"image": case.pixels[None]}
        return image if self.document.encoder is None else image | {"metadata": self.document.encoder.encode(*patient)}


def words_of(found: list[tuple[str, float, float, float]]) -> tuple[str, ...]:
    """In which respects a picture is unlike those of training, as of ``beyond``, a sentence each."""
    told = "{} ({} {:.2f}, of training images {:.2f} to {:.2f})."
    return tuple(told.format(UNLIKE[name][int(value > most)], name, value, least, most) for name, value, least, most in found)


def similar_cases(test: np.ndarray, risk: float) -> dict[str, Any]:
    """Melanomas among the test cases, risk and target, shape ``(n, 2)``, within ``ALIKE`` log-odds, or the ``FEWEST`` nearest."""
    odds = logit(np.clip(test[:, 0], RISK_FLOOR, 1 - RISK_FLOOR))
    distance = np.abs(odds - logit(np.clip(risk, RISK_FLOOR, 1 - RISK_FLOOR)))
    for fewest in FEWEST:
        near, targets = test[distance <= max(ALIKE, np.sort(distance)[min(fewest, len(test)) - 1])].T
        if targets.any():
            break
    observed = wilson_interval(k := int(targets.sum()), n := len(targets)).to_dict()
    return {"n": n, "melanomas": k, "risk_from": near.min(), "risk_to": near.max(), "observed": observed}
