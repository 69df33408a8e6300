"""From a picture and what is known of the patient to an answer: plain functions, no page, no Gradio."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from melanoma_lib.app.answers import Answer, Case, Patient, similar_cases
from melanoma_lib.app.unlike import Reference, layer_features
from melanoma_lib.app.uploads import Upload, open_upload
from melanoma_lib.data.images import stored_side
from melanoma_lib.errors import DataError, ForeignThresholdError, KitError
from melanoma_lib.explain.cam import ONE_PASS_METHODS, heatmaps, resize_heatmap
from melanoma_lib.explain.layers import CamLayer, cam_layers, default_layer
from melanoma_lib.export.document import NOTE, Document, sigmoid
from melanoma_lib.export.predictor import Predictor, logits_of
from melanoma_lib.runs import Run

BACKENDS = {"torch": "PyTorch", "onnx": "ONNX Runtime"}
METHODS = ONE_PASS_METHODS  # the others ask the model once a channel: too slow here


@dataclass(frozen=True)
class Heatmap:
    """A map of one case.

    Attributes:
        values: signed, at the layer's own resolution, shape ``(h, w)``.
        layer: where it was taken.
        method: how.
        doubtful_sign: whether it might as well be turned round.
    """

    values: np.ndarray
    layer: CamLayer
    method: str
    doubtful_sign: bool


class Service:
    """A run, ready to be asked by many at once.

    Args:
        run: a finished run.
        backend: ``torch``, or ``onnx`` for the exported file in the run directory. Heatmaps and the distance to training need
            gradients and features, which PyTorch computes from the same weights in either case.
        reference: what training looks like; None looks for it, and fits it if it is not there yet.

    Attributes:
        document: what the run says of itself.
        readings: number of averaged views (1, 8) to calibration and operating point.
        reference: None where the run's images are gone.
        lacks: why there is no reference; empty if there is.

    Raises:
        ExportError: if the ONNX file is missing or damaged.
        ForeignThresholdError: if threshold, file and checkpoint do not belong together.
    """

    def __init__(self, run: Run, backend: str = "torch", reference: Reference | None = None) -> None:
        from melanoma_lib.export.writer import FORMATS, describe_run

        if backend not in BACKENDS:
            raise DataError(f"backend expects one of {list(BACKENDS)}, got {backend!r}")
        self.run, self.backend = run, backend
        own = describe_run(run)
        self.document: Document = own
        if backend == "onnx":
            predictor = Predictor(run.path / FORMATS["onnx"])
            self.document, self._network = predictor.document, predictor.network
            if self.document.checkpoint_sha256 != own.checkpoint_sha256:
                raise ForeignThresholdError(
                    f"{run.path / FORMATS['onnx']} was exported from another checkpoint than the run's; "
                    f"export again with python -m melanoma_lib export {run.path}"
                )
        self.model = run.model()
        self._asking = threading.Lock()  # hooks and gradients of heatmaps are the model's, not the thread's
        if backend == "torch":
            self._network = self._torch_network
        self.readings = {int(views): reading for views, reading in (own.readings | self.document.readings).items()}
        self._tests = {int(views): run.predictions("test")[["risk", "target"]].to_numpy(float) for views in own.readings}
        self.reference, self.lacks = reference, ""
        if self.reads_images and reference is None:
            try:
                self.reference = Reference.of(run)
            except ForeignThresholdError:
                raise
            except KitError as error:
                self.lacks = str(error)
        if self.reference is not None and self.reference.views is not None:
            self.readings[8], self._tests[8] = self.reference.views, self.reference.test
        self.readings = {views: reading for views, reading in self.readings.items() if views in self._tests}

    @property
    def reads_images(self) -> bool:
        """Whether the model has an image branch."""
        return self.document.preprocessing is not None

    @property
    def reads_metadata(self) -> bool:
        """Whether the model has a metadata branch."""
        return self.document.encoder is not None

    @property
    def layers(self) -> dict[str, CamLayer]:
        """Layers a heatmap can be taken from, early to late; none without an image branch."""
        return cam_layers(self.model) if self.reads_images else {}

    @property
    def first_layer(self) -> str:
        """The latest layer whose map is fine enough to point."""
        return default_layer(self.layers, self.run.settings.image_size)

    def admit(self, data: bytes) -> Case:
        """Read an upload; of its bytes nothing is kept.

        Raises:
            CorruptImageError: in words for the page.
            DataError: if the model looks at metadata alone.
        """
        if not self.reads_images:
            raise DataError("This model looks at age, sex and site alone; it takes no image.")
        return self.prepare(open_upload(data))

    def prepare(self, upload: Upload) -> Case:
        """Make a picture ready and compare it with those of training."""
        square = upload.square(stored_side(self.run.settings.image_size))
        pixels = self.document.preprocessing.prepare(Image.fromarray(square))
        warnings = self.reference.warnings(square, self._features(pixels)) if self.reference is not None else ()
        return Case(upload.shown, pixels, upload.notes, warnings)

    def ask(self, case: Case | None, patient: Patient, tta: bool = False) -> Answer:
        """The run's answer.

        Args:
            case: None for a model of metadata alone.
            patient: what is known.
            tta: average eight views; of a run that always does so it changes nothing.

        Raises:
            DataError: if a value is not known to the encoder, the image is missing, or there is no reading of eight views.
        """
        views = (8 if tta else 1) if len(self.readings) > 1 else next(iter(self.readings))
        if tta and views != 8:
            raise DataError("This server has no calibration and threshold for eight averaged views, so it cannot average them.")
        inputs = self._inputs(case, patient)
        logit = float(logits_of(self._network, inputs, views)[0])
        reading = self.readings[views]
        probability, risk = float(sigmoid(np.array(logit))), float(reading.risk(np.array(logit)))
        return Answer(
            logit, probability, risk, probability >= reading.threshold, views, reading,
            similar_cases(self._tests[views], risk),
            case.notes if case else (),
            case.warnings if case else (),
        )  # fmt: skip

    def heatmap(self, case: Case, patient: Patient, layer: str, method: str) -> Heatmap:
        """Where the layer sees what moves the logit.

        Raises:
            DataError: for an unknown layer or method, or a value that the encoder does not know.
        """
        import torch

        if layer not in self.layers or method not in METHODS:
            raise DataError(f"heatmaps expect a layer of {list(self.layers)} and a method of {list(METHODS)}")
        inputs = {name: torch.from_numpy(values) for name, values in self._inputs(case, patient).items()}
        with self._asking:
            maps = heatmaps(self.model, inputs["image"], inputs.get("metadata"), layer, method)
        return Heatmap(maps[layer][0], self.layers[layer], method, bool(maps.doubtful_sign[layer][0]))

    def facts(self) -> dict:
        """What the page and the API tell of the run, fit for JSON."""
        encoder = self.document.encoder
        return {
            "run": self.run.path.name,
            "source": self.document.source,
            "licence": self.document.licence,
            "backbone": self.document.backbone,
            "modalities": self.document.modalities,
            "backend": BACKENDS[self.backend],
            "views": sorted(self.readings),
            "sexes": list(encoder.sexes) if encoder else [],
            "sites": list(encoder.sites) if encoder else [],
            "layers": list(self.layers),
            "methods": list(METHODS) if self.reads_images else [],
            "compares_with_training": self.reference is not None,
            "note": NOTE,
        }

    def _inputs(self, case: Case | None, patient: Patient) -> dict[str, np.ndarray]:
        inputs: Mapping[str, np.ndarray] = {}
        if self.reads_images:
            if case is None:
                raise DataError("This model looks at an image; choose one first.")
            inputs = {"image": case.pixels[None]}  # (1, 3, S, S)
        if not self.reads_metadata:
            if patient != Patient():
                raise DataError("This model looks at the image alone; leave age, sex and site unknown.")
            return dict(inputs)
        encoded = self.document.encoder.encode_cases([patient.age], [patient.sex], [patient.site])  # (1, M)
        return dict(inputs) | {"metadata": encoded}

    def _torch_network(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        import torch

        given = {name: torch.from_numpy(values) for name, values in inputs.items()}
        with self._asking, torch.inference_mode():
            return self.model(given.get("image"), given.get("metadata")).numpy()

    def _features(self, pixels: np.ndarray) -> np.ndarray:
        """What a middle layer makes of a picture, shape ``(F,)``."""
        import torch

        with self._asking:
            return layer_features(self.model, torch.from_numpy(pixels[None]))[0]


def enlarged(heatmap: Heatmap, shape: tuple[int, int]) -> np.ndarray:
    """The map at the size of the picture, divided by its own largest magnitude: within -1 and 1."""
    values = resize_heatmap(heatmap.values, shape)
    return values / (float(np.abs(values).max()) or 1.0)
