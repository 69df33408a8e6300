"""Ask a run or an exported file about cases: the one place that turns a case into an answer.

An ONNX file is asked with onnxruntime, NumPy and Pillow alone, and without pandas as long as it is about one case; a run or a
TorchScript file needs PyTorch.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from melanoma_lib.errors import DataError, ExportError
from melanoma_lib.inference.document import NOTE, RECORD, Document, read_sealed

if TYPE_CHECKING:
    import pandas as pd

    from melanoma_lib.model import MelanomaNet
    from melanoma_lib.runs import Run

TORCH, ONNX, TORCHSCRIPT = "torch", "onnx", "torchscript"
COLUMNS = {"age": "age_approx", "sex": "sex", "site": "anatom_site_general_challenge"}  # short name: name in a case table
BATCH = 32  # cases a pass
Picture = str | Path | bytes | Image.Image | np.ndarray
Network = Callable[[dict[str, np.ndarray]], np.ndarray]  # inputs by name, (B, ...) each -> logits (B,)


class Predictor:
    """A model ready to be asked, with its preprocessing, calibration and operating point.

    Args:
        source: a run, a run directory, or a file written by ``python -m melanoma_lib export``.
        tta: average the logits of the eight flips and quarter turns of each image, for which run or file must have been made
            with ``--tta``; None takes what there is, one view first.
        model: ``run.model()``, where it is already at hand.

    Attributes:
        document: what is known of the model; ``format`` is torch, onnx or torchscript.
        views: 1, or 8 with test-time augmentation; ``reading`` is the calibration and operating point for that.
        network: from named inputs, shape ``(B, ...)`` each, to the logits of one view, shape ``(B,)``.

    Raises:
        ExportError: if the file is no export of this version, has been changed, or has no reading for ``tta``.
        RunError: if the directory holds no finished run, or one without a single model.
        ForeignThresholdError: if the operating point was chosen for another model.

    Example:
        ``Predictor("runs/mine").predict(["a.jpg", "b.jpg"], [{"age": 55, "sex": "female"}, {"site": "torso"}])``
    """

    def __init__(self, source: Run | str | Path, tta: bool | None = None, model: MelanomaNet | None = None) -> None:
        if isinstance(source, str | Path) and Path(source).is_dir():
            from melanoma_lib.runs import Run

            source = Run(source)
        if isinstance(source, str | Path):
            data = read_sealed(source)
            self.format, load = (TORCHSCRIPT, _torchscript) if data.startswith(b"PK") else (ONNX, _onnx)
            record, self.network = load(data)
            self.document = Document.from_json(record)
        else:
            self.format, self.document = TORCH, Document.of_run(source)
            self.network = _torch(source.model() if model is None else model)
        known = sorted(self.document.readings, key=int)
        self.views = int(known[0]) if tta is None else 8 if tta else 1
        if str(self.views) not in known:
            advice = "export the run with --tta and ask the file" if tta else "ask with tta=True"
            asked, have = getattr(source, "path", source), " and ".join(known)
            raise ExportError(f"{asked} is calibrated for {have} view(s), not for {self.views}: {advice}")
        self.reading = self.document.readings[str(self.views)]

    def ask(
        self, image: Picture | None = None, age: float | None = None, sex: str | None = None, site: str | None = None
    ) -> dict[str, Any]:
        """Ask about one case; educational, not for diagnosis.

        Args:
            image: path, bytes of an image file, Pillow image, or uint8 pixels of shape ``(H, W, 3)`` or ``(H, W)``. A JPEG is
                best given as path or bytes, as in training: decoded at reduced size, its pixels differ a little.
            age: years in [0, 120]; None is not known, here and below.
            sex: as the encoder names it.
            site: likewise.

        Returns:
            ``logit``; ``probability``, its sigmoid, which of a focal loss is no risk; ``risk``, calibrated, which holds at the
            prevalence of validation; ``flagged``, whether the probability reaches the ``threshold``; and a ``note``.

        Raises:
            CorruptImageError: if the image cannot be decoded.
            DataError: if the image is missing or no image, a value of the metadata is not known, something is given that the
                model does not look at, or a model of synthetic cases is shown anything but files that the kit painted.
        """
        self._refuse_unseen(image, {"age": age, "sex": sex, "site": site})
        encoder = self.document.encoder
        said = self.reading.answers(self._ask([image], None if encoder is None else encoder.encode(age, sex, site)))
        return {name: values[0].item() for name, values in said.items()} | {"threshold": self.reading.threshold, "note": NOTE}

    def predict(
        self, images: Sequence[Picture] | None = None, metadata: pd.DataFrame | Sequence[Mapping[str, Any]] | None = None
    ) -> pd.DataFrame:
        """Ask about N cases.

        Args:
            images: as of :meth:`ask`, one a case.
            metadata: a table or a list of rows with some of ``age``, ``sex`` and ``site``, or the case table's names of them.

        Returns:
            A row a case, with the index of ``metadata``: ``logit``, ``probability``, ``risk`` and ``flagged``, as of :meth:`ask`.

        Raises:
            CorruptImageError, DataError: as of :meth:`ask`; also if images and rows are not as many.
        """
        import pandas as pd

        table = None if metadata is None else pd.DataFrame(metadata).rename(columns=COLUMNS)
        if table is not None and not any(name in table for name in COLUMNS.values()):
            raise DataError(f"metadata: expected some of the columns {', '.join(COLUMNS)}, got {list(table)}")
        if len(lengths := {len(part) for part in (images, table) if part is not None}) != 1:
            raise DataError(f"expected as many images as rows of metadata, and one of them at least, got {sorted(lengths)}")
        table = pd.DataFrame(index=range(*lengths)) if table is None else table
        told = {name: table[column].first_valid_index() for name, column in COLUMNS.items() if column in table}
        self._refuse_unseen(images, told)
        return self._table(images, table)

    def predict_cases(self, cases: pd.DataFrame) -> pd.DataFrame:
        """Ask about rows of a case table; returns and raises what :meth:`predict` does.

        Its images, paths or any that :meth:`ask` takes, need not be recognised as painted: a case table knows its source.
        """
        return self._table(list(cases.get("image_path", [None] * len(cases))), cases, foreign=False)

    def prepare(self, image: Picture) -> np.ndarray:
        """The network's input of an image, float32, shape ``(3, S, S)``; errors as of :meth:`ask`, but of its source."""
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
                raise DataError(f"expected pixels as uint8, (H, W, 3) or (H, W), got {image.dtype} of shape {image.shape}")
            image = Image.fromarray(image)
        if not isinstance(image, (str, Path, bytes, Image.Image)):
            raise DataError(
                f"this model looks at an image: give a path, bytes, Pillow image or array, got {type(image).__name__}"
            )
        return self.document.preprocessing.prepare(io.BytesIO(image) if isinstance(image, bytes) else image)

    def logits(self, image: np.ndarray | None = None, metadata: np.ndarray | None = None, views: int | None = None) -> np.ndarray:
        """Logits, float64, shape ``(B,)``, averaged over so many views, by default ``self.views``, of prepared float32 inputs.

        Their shapes are ``(B, 3, S, S)`` and ``(B, M)``; one that the model does not look at stays None.
        """
        inputs = {name: part for name, part in (("image", image), ("metadata", metadata)) if part is not None}
        if (views or self.views) == 1 or image is None:
            return self.network(inputs).astype(np.float64)
        turned = [np.rot90(image, turns, axes=(2, 3)) for turns in range(4)]
        eight = [*turned, *(one[..., ::-1] for one in turned)]  # the flips and quarter turns of data.images.eight_views
        parts = [self.network(inputs | {"image": np.ascontiguousarray(view)}) for view in eight]
        return np.mean(parts, axis=0, dtype=np.float64)  # (8, B) -> (B,)

    def _refuse_unseen(self, images: Any, described: Mapping[str, Any]) -> None:
        """DataError if something is given that the model does not look at."""
        if self.document.preprocessing is None and images is not None:
            raise DataError("this model looks at metadata alone, not at image; leave that out")
        if self.document.encoder is None and (told := [name for name, value in described.items() if value is not None]):
            raise DataError(f"this model looks at image alone, not at {', '.join(told)}; leave that out")

    def _table(self, images: Sequence | None, table: pd.DataFrame, foreign: bool = True) -> pd.DataFrame:
        import pandas as pd

        encoder, parts = self.document.encoder, [np.empty(0)]
        metadata = None if encoder is None else encoder.transform(table.reindex(columns=list(COLUMNS.values())))  # (N, M)
        for start in range(0, len(table), BATCH):
            rows = slice(start, start + BATCH)
            some = [None] * len(table[rows]) if images is None else images[rows]
            parts.append(self._ask(some, None if metadata is None else metadata[rows], foreign))
        return pd.DataFrame(self.reading.answers(np.concatenate(parts)), index=table.index)

    def _ask(self, images: Sequence, metadata: np.ndarray | None, foreign: bool = True) -> np.ndarray:
        """Logits of images and as many rows of encoded metadata; ``foreign`` images come from anywhere."""
        if self.document.preprocessing is None:
            return self.logits(metadata=metadata)
        pixels = np.stack([self.prepare(image) for image in images])  # (B, 3, S, S)
        for image in images if foreign else ():
            self.document.warnings(image)
        return self.logits(pixels, metadata)


def _onnx(data: bytes) -> tuple[str, Network]:
    """Record and network of an ONNX file, on the processor."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map.get(RECORD, ""), lambda inputs: session.run(None, inputs)[0]


def _torch(model: MelanomaNet) -> Network:
    """The network of a model, where it is."""
    import torch

    from melanoma_lib.inference.logits import predict_logits

    return lambda inputs: predict_logits(model, [{name: torch.from_numpy(values) for name, values in inputs.items()}])


def _torchscript(data: bytes) -> tuple[str, Network]:
    """Record and network of a TorchScript file."""
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
