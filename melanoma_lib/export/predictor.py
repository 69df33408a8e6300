"""Risks from an exported file, with onnxruntime, NumPy and Pillow alone: neither PyTorch nor pandas is imported.

A TorchScript file is served as well, by PyTorch, where that is installed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_lib.errors import DataError, ExportError
from melanoma_lib.export.document import RECORD, Document, Prediction, read_sealed

ONNX, TORCHSCRIPT = "onnx", "torchscript"
Picture = str | Path | bytes | Image.Image | np.ndarray
Network = Callable[[dict[str, np.ndarray]], np.ndarray]  # inputs by name, (B, ...) each -> logits (B,)


class Predictor:
    """An exported model, ready to be asked.

    Args:
        path: file written by ``python -m melanoma_lib export``.
        tta: average the logits of the eight flips and quarter turns of each image; the file must hold the calibration and the
            threshold of that (``export --tta``). None takes eight views if the file knows nothing else, else one.
        threads: of the runtime; 0 leaves its choice.

    Attributes:
        document: the file's record.
        format: onnx or torchscript.
        views: 1, or 8 with test-time augmentation; ``reading`` is what holds for that.
        network: from named inputs, shape ``(B, ...)`` each, to the logits of one view, shape ``(B,)``.

    Raises:
        ExportError: if the file is no export of this version, has been changed, or has no reading for ``tta``.
        ForeignThresholdError: if its operating point was chosen for another model.

    Example:
        ``Predictor("model.onnx").predict("lesion.jpg", age=55, sex="female", site="torso").risk``
    """

    def __init__(self, path: str | Path, tta: bool | None = None, threads: int = 0) -> None:
        data = read_sealed(path)
        self.format = TORCHSCRIPT if data.startswith(b"PK") else ONNX
        record, self.network = _torchscript_network(data) if self.format == TORCHSCRIPT else onnx_network(data, threads)
        self.document = Document.from_json(record)
        known = sorted(self.document.readings, key=int)
        self.views = int(known[0]) if tta is None else 8 if tta else 1
        if str(self.views) not in known:
            advice = "export the run with --tta" if tta else "ask with tta=True"
            raise ExportError(f"{path} is calibrated for {' and '.join(known)} view(s), not for {self.views}: {advice}")
        self.reading = self.document.readings[str(self.views)]

    def predict(
        self, image: Picture | None = None, age: float | None = None, sex: str | None = None, site: str | None = None
    ) -> Prediction:
        """Ask about one case.

        Args:
            image: path, bytes of an image file, Pillow image, or uint8 pixels of shape ``(H, W, 3)`` or ``(H, W)``. A JPEG is
                best given as path or bytes, as in training: decoded at reduced size, its pixels differ a little from those of
                a decoded image.
            age: years in [0, 120], or None.
            sex: one of the encoder's sexes, or None.
            site: one of the encoder's sites, or None.

        Raises:
            CorruptImageError: if the image cannot be decoded.
            DataError: if the image is missing or no image, a value of the metadata is not known, something is given that the
                model does not look at, or a model of synthetic cases is shown anything but files that the kit painted.
        """
        given = [None if value is None else [value] for value in (age, sex, site)]
        return self.predict_batch(None if image is None else [image], *given)[0]

    def predict_batch(
        self,
        images: Sequence[Picture] | None = None,
        ages: Sequence[float | None] | None = None,
        sexes: Sequence[str | None] | None = None,
        sites: Sequence[str | None] | None = None,
        batch_size: int = 32,
    ) -> list[Prediction]:
        """Ask about N cases, ``batch_size`` at a time; arguments and errors are those of :meth:`predict`, one entry a case."""
        given = {"image": images, "age": ages, "sex": sexes, "site": sites}
        n = self._count(given)
        columns = [[None] * n if values is None else values for values in (ages, sexes, sites)]
        parts = []
        for start in range(0, n, batch_size):
            rows, inputs = slice(start, start + batch_size), {}
            if self.document.encoder is not None:
                inputs["metadata"] = self.document.encoder.encode_cases(*(column[rows] for column in columns))  # (B, M)
            if self.document.preprocessing is not None:
                inputs["image"] = np.stack([self.prepare(image) for image in images[rows]])  # (B, 3, S, S)
            parts.append(self.logits(**inputs))
        return self.reading.read(np.concatenate(parts) if parts else np.empty(0))

    def prepare(self, image: Picture) -> np.ndarray:
        """The network's input of one image, float32, shape ``(3, S, S)``; errors as of :meth:`predict`."""
        if self.document.preprocessing is None:
            raise DataError("this model looks at metadata alone; give it no image")
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
                raise DataError(f"expected pixels as uint8, (H, W, 3) or (H, W), got {image.dtype} of shape {image.shape}")
            image = Image.fromarray(image)
        if not isinstance(image, (str, Path, bytes, Image.Image)):
            raise DataError(f"image expects a path, bytes, a Pillow image or an array, got {type(image).__name__}")
        pixels = self.document.preprocessing.prepare(io.BytesIO(image) if isinstance(image, bytes) else image)
        self.document.refuse_photograph(image)
        return pixels

    def logits(self, image: np.ndarray | None = None, metadata: np.ndarray | None = None) -> np.ndarray:
        """Logits, float64, shape ``(B,)``, averaged over the views in force, of prepared float32 inputs.

        Their shapes are ``(B, 3, S, S)`` and ``(B, M)``; one that the model does not look at stays None.
        """
        given = {"image": image, "metadata": metadata}
        return logits_of(self.network, {name: part for name, part in given.items() if part is not None}, self.views)

    def _count(self, given: dict[str, Sequence | None]) -> int:
        """Number of cases; refuses what the model does not look at, and columns of unequal length."""
        looks_at = {"image": self.document.preprocessing is not None}
        for name, values in given.items():
            if values is not None and not looks_at.get(name, self.document.encoder is not None):
                raise DataError(f"this model looks at {self.document.modalities} alone, not at {name}; leave that out")
        if looks_at["image"] and given["image"] is None:
            raise DataError("this model looks at an image; give one as path, bytes, Pillow image or array")
        lengths = {name: len(values) for name, values in given.items() if values is not None}
        if len(set(lengths.values())) > 1:
            raise DataError(f"expected as many entries of each, got {lengths}")
        return next(iter(lengths.values()), 1)  # a case of which nothing is known is one case, too


def logits_of(network: Network, inputs: dict[str, np.ndarray], views: int) -> np.ndarray:
    """Logits of prepared inputs, float64, shape ``(B,)``: of the image as it is, or the mean over its eight views."""
    if views == 1 or "image" not in inputs:
        return network(inputs).astype(np.float64)
    parts = [network(inputs | {"image": np.ascontiguousarray(view)}) for view in _eight_views(inputs["image"])]
    return np.mean(parts, axis=0, dtype=np.float64)  # (8, B) -> (B,)


def _eight_views(images: np.ndarray) -> Iterator[np.ndarray]:
    """The eight flips and quarter turns of square images, as ``data.images.eight_views`` orders them, ``(B, 3, S, S)`` each."""
    for turns in range(4):
        turned = np.rot90(images, turns, axes=(2, 3))
        yield turned
        yield turned[..., ::-1]


def onnx_network(data: bytes, threads: int = 0) -> tuple[str, Network]:
    """Record, empty if there is none, and network of an ONNX file on the processor; threads 0 leaves onnxruntime the choice."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map.get(RECORD, ""), lambda inputs: session.run(None, inputs)[0]


def _torchscript_network(data: bytes) -> tuple[str, Network]:
    try:
        import torch
    except ImportError as error:
        raise ExportError("a torchscript file needs PyTorch, which is not installed; export it as onnx") from error
    record = {RECORD: ""}
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated; whoever has such a file knows
        module = torch.jit.load(io.BytesIO(data), _extra_files=record)

    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        given = [inputs[name] for name in ("image", "metadata") if name in inputs]
        return module(*(torch.from_numpy(np.ascontiguousarray(values)) for values in given)).numpy()

    return record[RECORD], run
