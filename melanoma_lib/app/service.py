"""From a picture and what is known of the patient to an answer: plain functions, no page, no Gradio."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from melanoma_lib.app.uploads import open_upload
from melanoma_lib.data.images import stored_side
from melanoma_lib.errors import DataError, ForeignThresholdError, KitError
from melanoma_lib.evaluation import Interval, OperatingPoint, carry_risk, wilson_interval
from melanoma_lib.inference import Prediction, Predictor, Reading
from melanoma_lib.inference.document import NOTE
from melanoma_lib.runs import Run

if TYPE_CHECKING:
    from melanoma_lib.app.unlike import Reference
    from melanoma_lib.explain.layers import CamLayer

BACKENDS = {"torch": "PyTorch", "onnx": "ONNX Runtime"}
ALIKE = (20, 100)  # fewest and most test cases that stand for those of similar risk


@dataclass(frozen=True)
class Patient:
    """What is known beside the image: age in years, in [0, 120], sex and site as the encoder names them; None is not known."""

    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True)
class Case:
    """A picture made ready; nothing else of the upload is kept.

    Attributes:
        shown: for the page, uint8, shape ``(h, w, 3)``.
        pixels: for the network, float32, shape ``(3, S, S)``.
        notes: how it was read, where that is worth telling.
        warnings: in which respects it is unlike training.
    """

    shown: np.ndarray
    pixels: np.ndarray
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Heatmap:
    """A map of one case, signed, at the layer's own resolution, shape ``(h, w)``.

    Where the sign is doubtful, the map might as well be turned round.
    """

    values: np.ndarray
    layer: CamLayer
    method: str
    doubtful_sign: bool


@dataclass(frozen=True)
class Similar:
    """The ``n`` test cases of closest risk, and their ``observed`` share of melanomas with its Wilson interval."""

    n: int
    melanomas: int
    risk_from: float
    risk_to: float
    observed: Interval


@dataclass(frozen=True, kw_only=True)
class Answer(Prediction):
    """What the run says of one case. Educational, not for diagnosis.

    Attributes:
        views: 1, or 8 with test-time augmentation.
        reading: calibration, operating point and test metrics in force.
        similar: what became of test cases of similar risk.
        notes: how the image was read.
        warnings: in which respects the image is unlike training; if there is one, the risk is nothing to rely on.
    """

    views: int
    reading: Reading
    similar: Similar
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def point(self) -> OperatingPoint:
        """Counts of the test split at the threshold."""
        counts = self.reading.test["at_threshold"]
        return OperatingPoint(self.threshold, *(counts[name] for name in ("tp", "fp", "tn", "fn")))

    def rate(self, name: str) -> Interval:
        """``sensitivity`` or ``specificity`` on the test split, with its interval over patients."""
        found = self.reading.test["at_threshold"][name]
        return Interval(**{key: np.nan if value is None else value for key, value in found.items()})

    def risk_at(self, prevalence: float) -> float:
        """The risk carried to another prevalence, in (0, 1)."""
        return float(carry_risk(self.risk, self.reading.prevalence, prevalence))

    def to_dict(self, prevalence: float) -> dict:
        """Fit for JSON."""
        own = ("risk", "probability", "logit", "flagged", "threshold", "views", "note")
        return {name: getattr(self, name) for name in own} | {
            "risk_at_prevalence": self.risk_at(prevalence),
            "prevalence": prevalence,
            "validation_prevalence": self.reading.prevalence,
            "rule": self.reading.rule,
            "sensitivity": self.rate("sensitivity").to_dict(),
            "specificity": self.rate("specificity").to_dict(),
            "ppv_at_prevalence": self.point.ppv_at(prevalence),
            "npv_at_prevalence": self.point.npv_at(prevalence),
            "similar_test_cases": vars(self.similar) | {"observed": self.similar.observed.to_dict()},
            "reliable": not self.warnings,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


def similar_cases(test: np.ndarray, risk: float) -> Similar:
    """Those whose risk is closest, an eighth within ``ALIKE``, of test cases' risk and target, shape ``(n, 2)``."""
    n = min(len(test), int(np.clip(len(test) // 8, *ALIKE)))
    chosen = test[np.argsort(np.abs(test[:, 0] - risk), kind="stable")[:n]]
    k = int(chosen[:, 1].sum())
    return Similar(n, k, float(chosen[:, 0].min()), float(chosen[:, 0].max()), wilson_interval(k, n))


class Service:
    """A run, ready to be asked by many at once.

    Args:
        run: a finished run.
        backend: ``torch``, or ``onnx`` for the exported file in the run directory. Heatmaps and the distance to training need
            gradients and features, which PyTorch computes from the same weights in either case.
        wait: be ready at once. Otherwise importing PyTorch is left to :meth:`load`, and :meth:`compare` follows that; whoever
            asks too early waits for the first, and is told that images are not compared before the second is done.

    Attributes:
        encoder: of age, sex and site; None without a metadata branch.
        loaded: done after :meth:`load`, with the error if that failed.
        document: what the run says of itself.
        predictors: number of averaged views (1, 8) to who is asked.
        reference: what training looks like; None where the run's images are gone.
        lacks: why there is no reference; empty if there is.
        layers: those a heatmap can be taken from, early to late; none without an image branch.
        methods: how, name by key.

    Raises:
        ExportError: if the ONNX file is missing or damaged.
        ForeignThresholdError: if threshold, file and checkpoint do not belong together.
    """

    def __init__(self, run: Run, backend: str = "torch", wait: bool = True) -> None:
        if backend not in BACKENDS:
            raise DataError(f"backend expects one of {list(BACKENDS)}, got {backend!r}")
        self.run, self.backend, modalities = run, backend, run.settings.modalities
        self.reads_images, self.reads_metadata = "image" in modalities, "metadata" in modalities
        self.encoder = run.encoder if self.reads_metadata else None
        run.operating_point  # noqa: B018 - which is refused if it belongs to another model
        self.reference: Reference | None = None
        self.lacks = "the comparison is being prepared"
        self.loaded: Future[None] = Future()
        self._asking = threading.Lock()  # hooks and gradients of heatmaps are the model's, not the thread's
        if wait:
            self.load()
            self.compare()

    def load(self) -> None:
        """Make the model ready to be asked."""
        try:
            self._load()
        except BaseException as error:
            self.loaded.set_exception(error)
            raise
        self.loaded.set_result(None)

    def _load(self) -> None:
        from melanoma_lib.app.unlike import REFERENCE
        from melanoma_lib.explain import CAM_METHODS, METHOD_NAMES, cam_layers, default_layer
        from melanoma_lib.export.writer import FORMATS

        run, self.model = self.run, self.run.model()
        own = predictor = Predictor(run, model=self.model)
        if self.backend == "onnx":
            predictor = Predictor(run.path / FORMATS["onnx"])
            if predictor.document.checkpoint_sha256 != own.document.checkpoint_sha256:
                raise ForeignThresholdError(
                    f"{run.path / FORMATS['onnx']} was exported from another checkpoint than the run's; "
                    f"export again with python -m melanoma_lib export {run.path}"
                )
        predictor.views, predictor.reading = own.views, own.reading
        self.document = predictor.document
        self.predictors = {own.views: predictor}
        self._tests = {own.views: run.predictions("test")[["risk", "target"]].to_numpy(float)}
        self.layers: dict[str, CamLayer] = cam_layers(self.model) if self.reads_images else {}
        self.first_layer = default_layer(self.layers, run.settings.image_size) if self.layers else None  # fine enough to point
        self.methods = {one: METHOD_NAMES[one] for one in CAM_METHODS if self.layers}
        if (run.path / REFERENCE).is_file():
            self.compare()

    def compare(self) -> None:
        """Find out what training looks like: from a file of the run directory, or from the images, which takes minutes."""
        if self.reference is not None or not self.reads_images:
            return
        from melanoma_lib.app.unlike import Reference

        try:
            reference = Reference.of(self.run)
        except ForeignThresholdError:
            raise
        except KitError as error:
            self.lacks = str(error)
            return
        if reference.views is not None:
            predictor = next(iter(self.predictors.values())).averaging(reference.views)
            self._tests[8], self.predictors = reference.test, self.predictors | {8: predictor}
        self.reference, self.lacks = reference, ""

    def admit(self, data: bytes) -> Case:
        """Read an upload and compare it with the images of training; of its bytes nothing is kept.

        Raises:
            CorruptImageError: if it cannot be read; the message is for the user.
            DataError: if the model looks at metadata alone, or at synthetic cases alone and this is none.
        """
        if not self.reads_images:
            raise DataError("This model looks at age, sex and site alone; it takes no image.")
        upload = open_upload(data)
        self.loaded.result()
        self.document.refuse_photograph(data)
        square = upload.square(stored_side(self.run.settings.image_size))
        pixels = self.document.preprocessing.prepare(Image.fromarray(square))
        notes, warnings = upload.notes, self.document.warnings(data)
        if (reference := self.reference) is None:
            notes = (*notes, f"Not compared with the images of training: {self.lacks}.")
        else:
            from melanoma_lib.app.unlike import layer_features

            with self._asking:
                features = layer_features(self.model, pixels[None])[0]  # (F,)
            warnings += reference.warnings(square, features)
        return Case(upload.shown, pixels, notes, warnings)

    def ask(self, case: Case | None, patient: Patient, tta: bool = False) -> Answer:
        """The run's answer; ``tta`` averages eight views, which changes nothing of a run that always does so.

        Raises:
            DataError: if a value is not known to the encoder, the image is missing, or there is no reading of eight views.
        """
        self.loaded.result()
        views = (8 if tta else 1) if len(self.predictors) > 1 else next(iter(self.predictors))
        if tta and views != 8:
            raise DataError("This server has no calibration and threshold for eight averaged views, so it cannot average them.")
        predictor, inputs = self.predictors[views], self._inputs(case, patient)
        with self._asking if self.backend == "torch" else nullcontext():
            said = predictor.reading.read(predictor.logits(**inputs)[0])
        notes, warnings = (case.notes, case.warnings) if case else ((), ())
        similar = similar_cases(self._tests[views], said.risk)
        return Answer(**vars(said), views=views, reading=predictor.reading, similar=similar, notes=notes, warnings=warnings)

    def heatmap(self, case: Case, patient: Patient, layer: str, method: str) -> Heatmap:
        """Where the layer sees what moves the logit; DataError for an unknown layer, method or value of the patient."""
        import torch

        from melanoma_lib.explain import heatmaps

        if layer not in self.layers or method not in self.methods:
            raise DataError(f"heatmaps expect a layer of {list(self.layers)} and a method of {list(self.methods)}")
        inputs = {name: torch.from_numpy(values) for name, values in self._inputs(case, patient).items()}
        with self._asking:
            maps = heatmaps(self.model, inputs["image"], inputs.get("metadata"), layer, method)
        return Heatmap(maps[layer][0], self.layers[layer], method, bool(maps.doubtful_sign[layer][0]))

    def facts(self) -> dict:
        """What the page and the API tell of the run, fit for JSON."""
        self.loaded.result()
        encoder, told = self.encoder, ("source", "licence", "backbone", "modalities")
        return {name: getattr(self.document, name) for name in told} | {
            "run": self.run.path.name,
            "backend": BACKENDS[self.backend],
            "views": sorted(self.predictors),
            "sexes": list(encoder.sexes) if encoder else [],
            "sites": list(encoder.sites) if encoder else [],
            "layers": list(self.layers),
            "methods": list(self.methods),
            "compares_with_training": self.reference is not None,
            "note": NOTE,
        }

    def _inputs(self, case: Case | None, patient: Patient) -> dict[str, np.ndarray]:
        """What the network takes, one case: shapes ``(1, 3, S, S)`` and ``(1, M)``."""
        inputs = {}
        if self.reads_images:
            if case is None:
                raise DataError("This model looks at an image; choose one first.")
            inputs["image"] = case.pixels[None]
        if self.reads_metadata:
            inputs["metadata"] = self.encoder.encode_cases([patient.age], [patient.sex], [patient.site])
        elif patient != Patient():
            raise DataError("This model looks at the image alone; leave age, sex and site unknown.")
        return inputs
