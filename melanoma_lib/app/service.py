"""From a picture and what is known of the patient to an answer: a predictor, what became of similar cases, and heatmaps."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from melanoma_lib.app.uploads import open_upload
from melanoma_lib.errors import DataError, ExplanationError, ForeignThresholdError, KitError
from melanoma_lib.evaluation import OperatingPoint, carry_risk, wilson_interval
from melanoma_lib.inference import Predictor
from melanoma_lib.inference.document import NOTE, Reading
from melanoma_lib.runs import Run

if TYPE_CHECKING:
    from melanoma_lib.app.unlike import Reference

BACKENDS = {"torch": "PyTorch", "onnx": "ONNX Runtime"}
ALIKE = (20, 100)  # fewest and most test cases that stand for those of similar risk
PREVALENCE = 0.1  # that an answer is carried to unless another is asked for


class Patient(NamedTuple):
    """What is known beside the image: age in years, in [0, 120], sex and site as the encoder names them; None is not known."""

    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A picture made ready; nothing else of the upload is kept.

    Attributes:
        shown: for the page, uint8, shape ``(h, w, 3)``; None of a local file.
        pixels: for the network, float32, shape ``(3, S, S)``.
        notes: how it was read, where that is worth telling.
        warnings: in which respects it is unlike training; if there is one, no answer about it is anything to rely on.
    """

    shown: np.ndarray | None
    pixels: np.ndarray
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class Service:
    """A model, ready to be asked by many at once. It is loaded by whoever asks first; all others wait meanwhile.

    Args:
        source: a finished run, or the path of an exported file, which knows neither heatmaps nor similar cases.
        backend: ``torch``, or ``onnx`` for the exported file in the run directory. Heatmaps and the distance to training need
            gradients and features, which PyTorch computes from the same weights in either case.

    Attributes:
        predictor: who is asked; ``document`` is what it knows of the model; both are set once it is loaded.
        readings: number of averaged views (1, 8) to calibration and threshold for that; empty before.
        reference: what training looks like; where it is None, ``lacks`` says why.
        layers: those a heatmap can be taken from, early to late; ``methods`` says how, name by key.

    Raises:
        ExportError: if the ONNX file is missing or damaged; this and the next also when the model is loaded.
        ForeignThresholdError: if threshold, file and checkpoint do not belong together.
    """

    def __init__(self, source: Run | Path, backend: str = "torch") -> None:
        if backend not in BACKENDS:
            raise DataError(f"backend expects one of {list(BACKENDS)}, got {backend!r}")
        self.run, self.backend = source, backend
        if isinstance(source, Run):
            source.operating_point  # noqa: B018 - which is refused if it belongs to another model
        self.readings: dict[int, Reading] = {}
        self.layers, self.methods, self.first_layer = {}, {}, None
        self.reference: Reference | None = None
        self.lacks = "the comparison is being prepared"
        self._tests: dict[int, np.ndarray] = {}
        self._loading = threading.Lock()
        self._asking = threading.Lock()  # hooks and gradients of heatmaps are the model's, not the thread's

    def load(self) -> None:
        """Make the model ready to be asked, unless it is."""
        with self._loading:
            if not self.readings:
                (self._load_run if isinstance(self.run, Run) else self._load_file)()

    def _load_file(self) -> None:
        self.predictor, self.lacks = Predictor(self.run), "an exported file knows nothing of them"
        self.document = self.predictor.document
        self.readings = {int(views): reading for views, reading in self.document.readings.items()}

    def _load_run(self) -> None:
        from melanoma_lib.app.unlike import REFERENCE
        from melanoma_lib.explain import CAM_METHODS, METHOD_NAMES, cam_layers, default_layer
        from melanoma_lib.export import FORMATS

        run = self.run
        self.model, exported = run.model(), run.path / FORMATS["onnx"]
        self.predictor = Predictor(exported) if self.backend == "onnx" else Predictor(run, model=self.model)
        self.document = self.predictor.document
        if self.document.checkpoint_sha256 != run.operating_point.checkpoint_sha256:
            raise ForeignThresholdError(
                f"{exported} was exported from another checkpoint than the run's; "
                f"export again with python -m melanoma_lib export {run.path}"
            )
        self._tests = {self.predictor.views: run.predictions("test")[["risk", "target"]].to_numpy(float)}
        if self.document.preprocessing is not None:
            with suppress(ExplanationError):  # some backbones have none; all but heatmaps works
                self.layers, self.methods = cam_layers(self.model), {one: METHOD_NAMES[one] for one in CAM_METHODS}
                self.first_layer = default_layer(self.layers, run.settings.image_size)  # fine enough to point
        self.readings = {self.predictor.views: self.predictor.reading}
        if (run.path / REFERENCE).is_file():
            self.learn_training()

    def learn_training(self) -> None:
        """Find out what training looks like: from a file of the run directory, or from the images, which takes minutes."""
        if self.reference is not None or not isinstance(self.run, Run) or self.document.preprocessing is None:
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
            self._tests[8] = reference.test
            self.readings = self.readings | {8: reference.views}
        self.reference, self.lacks = reference, ""

    def admit(self, data: bytes, local: bool = False) -> Case:
        """Read an upload, or a ``local`` file that no page shows, and compare it with the images of training.

        Of its bytes nothing is kept.

        Raises:
            CorruptImageError: if it cannot be read; the message is for the user.
            DataError: if the model looks at metadata alone, or at synthetic cases alone and this is none.
        """
        self.load()
        preprocessing = self.document.preprocessing
        if preprocessing is None:
            raise DataError("This model looks at age, sex and site alone; it takes no image.")
        square, shown, notes = open_upload(data, preprocessing.stored_side, local)
        pixels, warnings = preprocessing.prepare(Image.fromarray(square)), self.document.warnings(data)
        if self.reference is not None:
            from melanoma_lib.app.unlike import layer_features

            with self._asking:
                features = layer_features(self.model, pixels[None])
            warnings += self.reference.warnings(square, features)
        else:  # and stays so, whatever is known later
            notes += (f"Not compared with the images of training: {self.lacks}.",)
        return Case(shown, pixels, notes, warnings)

    def reading(self, tta: bool = False) -> tuple[int, Reading]:
        """Number of averaged views and their reading; DataError if eight are wanted and were never calibrated.

        ``tta`` asks for eight, which changes nothing of a run that always averages them, nor of metadata, which have one view.
        """
        self.load()
        views = 8 if (tta and self.document.preprocessing is not None) or 1 not in self.readings else 1
        if views not in self.readings:
            why = self.lacks if isinstance(self.run, Run) else "export the run with --tta, and ask that file"
            raise DataError(f"Eight views cannot be averaged, as no calibration and threshold for them are at hand: {why}.")
        return views, self.readings[views]

    def ask(self, case: Case | None, patient: Patient, tta: bool = False, prevalence: float = PREVALENCE) -> dict[str, Any]:
        """The run's answer, fit for JSON, as in ``docs/api.md``; DataError if the image is missing or a value not known."""
        inputs, (views, reading) = self._inputs(case, patient), self.reading(tta)
        with self._asking:
            logits = self.predictor.logits(**inputs, views=views)
        said = {name: values[0].item() for name, values in reading.answers(logits).items()}
        tested = reading.test["at_threshold"]
        counts = {name: tested[name] for name in ("tp", "fp", "tn", "fn")}
        point = OperatingPoint(reading.threshold, **counts)
        many, rates = point.per_thousand(prevalence), {"ppv": point.ppv_at(prevalence), "npv": point.npv_at(prevalence)}
        return said | {
            "threshold": reading.threshold,
            "rule": reading.rule,
            "views": views,
            "validation_prevalence": reading.prevalence,
            "prevalence": prevalence,
            "risk_at_prevalence": float(carry_risk(said["risk"], reading.prevalence, prevalence)),
            "sensitivity": tested["sensitivity"],
            "specificity": tested["specificity"],
            **{f"{name}_at_prevalence": rate if np.isfinite(rate) else None for name, rate in rates.items()},
            "test_counts": counts,
            "of_thousand": {name: int(getattr(many, name)) for name in counts},
            "similar_test_cases": similar_cases(self._tests[views], said["risk"]) if self._tests else None,
            "reliable": not (case and case.warnings),
            "warnings": list(case.warnings) if case else [],
            "notes": list(case.notes) if case else [],
            "note": NOTE,
        }

    def heatmap(self, case: Case, patient: Patient, layer: str, method: str) -> tuple[np.ndarray, bool]:
        """Where the layer sees what moves the logit: signed, at its own resolution, shape ``(h, w)``, and whether in doubt.

        Where the sign is doubtful, the map might as well be turned round. DataError for an unknown layer, method or value.
        """
        import torch

        from melanoma_lib.explain import heatmaps

        inputs = {name: torch.from_numpy(values) for name, values in self._inputs(case, patient).items()}
        if layer not in self.layers or method not in self.methods:
            raise DataError(f"heatmaps expect a layer of {list(self.layers)} and a method of {list(self.methods)}")
        with self._asking:
            maps = heatmaps(self.model, inputs["image"], inputs.get("metadata"), layer, method)
        return maps[layer][0], bool(maps.doubtful_sign[layer][0])

    def facts(self) -> dict[str, Any]:
        """What the page and the API tell of the run, fit for JSON."""
        self.load()
        encoder, told = self.document.encoder, ("source", "licence", "backbone", "modalities", "note")
        return {name: getattr(self.document, name) for name in told} | {
            "run": self.run.path.name,
            "backend": BACKENDS[self.backend],
            "views": sorted(self.readings),
            "sexes": list(encoder.sexes) if encoder else [],
            "sites": list(encoder.sites) if encoder else [],
            "layers": list(self.layers),
            "methods": list(self.methods),
            "compares_with_training": self.reference is not None,
        }

    def _inputs(self, case: Case | None, patient: Patient) -> dict[str, np.ndarray]:
        """What the network takes: shapes ``(1, 3, S, S)`` and ``(1, M)``."""
        self.load()
        inputs = {}
        if self.document.preprocessing is not None:
            if case is None:
                raise DataError("This model looks at an image; choose one first.")
            inputs["image"] = case.pixels[None]
        if self.document.encoder is not None:
            inputs["metadata"] = self.document.encoder.encode(*patient)
        elif patient != Patient():
            raise DataError("This model looks at the image alone; leave age, sex and site unknown.")
        return inputs


def similar_cases(test: np.ndarray, risk: float) -> dict[str, Any]:
    """How many melanomas there were among the test cases, risk and target of shape ``(n, 2)``, whose risk is closest.

    That is an eighth of them, within ``ALIKE``.
    """
    n = min(len(test), int(np.clip(len(test) // 8, *ALIKE)))
    chosen = test[np.argsort(np.abs(test[:, 0] - risk), kind="stable")[:n]]
    ends = {"risk_from": float(chosen[:, 0].min()), "risk_to": float(chosen[:, 0].max())}
    k = int(chosen[:, 1].sum())
    return {"n": n, "melanomas": k, **ends, "observed": wilson_interval(k, n).to_dict()}
