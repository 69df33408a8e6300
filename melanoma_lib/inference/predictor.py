"""Ask a run or an exported file about cases: the one place that turns a case into an answer.

An ONNX file is asked without PyTorch, by onnxruntime, NumPy, pandas and Pillow alone.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from melanoma_lib.errors import DataError, ExportError
from melanoma_lib.inference.document import AGAIN, RECORD, Document

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from melanoma_lib.model import MelanomaNet
    from melanoma_lib.runs import Run

log = logging.getLogger("melanoma_lib")
COLUMNS = {"age": "age_approx", "sex": "sex", "site": "anatom_site_general_challenge"}  # short name: name in a case table
BATCH = 32  # cases a pass
Picture = str | Path | bytes | Image.Image | np.ndarray
Network = Callable[[dict[str, np.ndarray]], np.ndarray]  # inputs by name, (B, ...) each -> logits (B,)


class Predictor:
    """A model ready to be asked, with its preprocessing, calibration and operating point. Educational, not for diagnosis.

    ``Predictor("runs/mine").predict(["a.jpg", "b.jpg"], [{"age": 55, "sex": "female"}, {"site": "torso"}])``

    Args:
        source: a run, a run directory, or a file written by ``python -m melanoma_lib export``; KitError if it is none of them.
        tta: average the logits of the eight flips and quarter turns of each image, for which run or file must have been made
            with ``--tta``, or ExportError; None takes what there is, one view first.
        model: ``run.model()``, where it is already at hand.

    Attributes:
        document: what is known of the model.
        views: 1, or 8 with test-time augmentation; ``reading`` is the calibration and operating point for that.
        network: from named inputs, shape ``(B, ...)`` each, to the logits of one view, shape ``(B,)``.
    """

    def __init__(self, source: Run | str | Path, tta: bool | None = None, model: MelanomaNet | None = None) -> None:
        if isinstance(source, str | Path) and Path(source).is_dir():
            from melanoma_lib.runs import Run

            source = Run(source)
        if isinstance(source, str | Path):
            self.document, self.network = _exported(Path(source))
        else:
            self.document, model = Document.of_run(source), source.model() if model is None else model
            self.network = partial(_by_torch, model)
        known = sorted(self.document.readings, key=int)
        self.views = int(known[0]) if tta is None else 8 if tta else 1
        if str(self.views) not in known:
            advice = "export the run with --tta and ask the file" if tta else "ask with tta=True"
            name = getattr(source, "path", source)
            raise ExportError(f"{name} is calibrated for {' and '.join(known)} view(s), not for {self.views}: {advice}")
        self.reading = self.document.readings[str(self.views)]

    def predict(
        self, images: Sequence[Picture] | None = None, metadata: pd.DataFrame | Sequence[Mapping[str, Any]] | None = None
    ) -> pd.DataFrame:
        """Ask about N cases; DataError for what the model cannot answer, CorruptImageError if an image cannot be decoded.

        Args:
            images: one a case: path, bytes of an image file, Pillow image, or uint8 pixels of shape ``(H, W, 3)``. A JPEG is
                best given as path or bytes, as in training: decoded at reduced size, its pixels differ a little.
            metadata: a table or a list of rows with some of ``age`` (years in [0, 120]), ``sex`` and ``site``, or the case
                table's names of them; the words are the encoder's, None is not known.

        Returns:
            A row a case, with the index of ``metadata``: ``logit``; ``probability``, its sigmoid, which of a focal loss is no
            risk; ``risk``, calibrated, at the prevalence of validation; and ``flagged``, whether the probability reaches the
            threshold.
        """
        import pandas as pd

        table = None if metadata is None else pd.DataFrame(metadata).rename(columns=COLUMNS)
        if table is not None and not any(name in table for name in COLUMNS.values()):
            raise DataError(f"metadata: expected some of the columns {', '.join(COLUMNS)}, got {list(table)}")
        if table is not None and len(again := table.columns[table.columns.duplicated()]):
            raise DataError(f"metadata: {again[0]} is there twice; keep one of its names")
        absent = [] if table is None else [name for name, column in COLUMNS.items() if column not in table]
        if absent and (unread := set(table) - set(COLUMNS.values())):
            log.warning("metadata: no %s, which counts as missing; not read: %s", " and ".join(absent), unread)
        if len(lengths := {len(part) for part in (images, table) if part is not None}) != 1:
            raise DataError(f"expected as many images as rows of metadata, and one of them at least, got {sorted(lengths)}")
        if self.document.preprocessing is None and images is not None:
            raise DataError("this model looks at metadata alone; leave the images out")
        if self.document.encoder is None and table is not None and table.filter(list(COLUMNS.values())).notna().any(axis=None):
            raise DataError("this model looks at the image alone; leave age, sex and site out")
        table = pd.DataFrame(index=range(*lengths)) if table is None else table
        return self._answers([None] * len(table) if images is None else images, table, foreign=True)

    def predict_cases(self, cases: pd.DataFrame) -> pd.DataFrame:
        """As :meth:`predict`, of rows of a case table, which knows its source: images need not be recognised as painted."""
        return self._answers(list(cases.get("image_path", [None] * len(cases))), cases, foreign=False)

    def prepare(self, image: Picture) -> np.ndarray:
        """The network's input of an image, float32, shape ``(3, S, S)``; errors as of :meth:`predict`, but of its source."""
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            image = Image.fromarray(image)
        if not isinstance(image, str | Path | bytes | Image.Image):
            got = type(image).__name__
            raise DataError(f"this model looks at an image: give a path, bytes, Pillow image or array of uint8, got {got}")
        return self.document.preprocessing.prepare(io.BytesIO(image) if isinstance(image, bytes) else image)

    def logits(self, image: np.ndarray | None = None, metadata: np.ndarray | None = None) -> np.ndarray:
        """Logits, float64, ``(B,)``, mean of all views, of prepared inputs, float32 ``(B, 3, S, S)``, ``(B, M)`` or None."""
        inputs = {name: part for name, part in (("image", image), ("metadata", metadata)) if part is not None}
        if self.views == 1 or image is None:
            return self.network(inputs).astype(np.float64)
        turned = [np.rot90(image, turns, axes=(2, 3)) for turns in range(4)]
        eight = [*turned, *(one[..., ::-1] for one in turned)]  # the flips and quarter turns of data.images.eight_views
        parts = [self.network(inputs | {"image": np.ascontiguousarray(view)}) for view in eight]
        return np.mean(parts, axis=0, dtype=np.float64)  # (8, B) -> (B,)

    def _answers(self, images: Sequence, table: pd.DataFrame, foreign: bool) -> pd.DataFrame:
        """Answers about images and rows of metadata; ``foreign`` images come from anywhere."""
        import pandas as pd

        encoder, pixels, parts = self.document.encoder, None, [np.empty(0)]
        metadata = encoder and encoder.transform(table.reindex(columns=list(COLUMNS.values())))  # (N, M)
        for start in range(0, len(table), BATCH):
            rows = slice(start, start + BATCH)
            if self.document.preprocessing is not None:
                pixels = np.stack([self.prepare(image) for image in images[rows]])  # (B, 3, S, S)
                for image in images[rows] if foreign else ():
                    self.document.warnings(image)
            parts.append(self.logits(pixels, None if metadata is None else metadata[rows]))
        return pd.DataFrame(self.reading.answers(np.concatenate(parts)), index=table.index)


def predict_logits(model: MelanomaNet, batches: Iterable[dict[str, torch.Tensor]], tta: bool = False) -> np.ndarray:
    """Logit of every case of the batches, in their order, float64, shape ``(N,)``: the prediction loop of whole data sets.

    Batches, one at least, hold ``image`` ``(B, 3, S, S)`` and ``metadata`` ``(B, M)``, as far as the model looks at them. With
    ``tta`` the logits of the eight flips and quarter turns of each image are averaged. The model is left in the mode it was in.
    """
    import torch

    from melanoma_lib.data.images import eight_views

    device, parts = next(model.parameters()).device, []
    with undisturbed(model), torch.inference_mode():
        for batch in batches:
            image, metadata = (None if (part := batch.get(name)) is None else part.to(device) for name in ("image", "metadata"))
            views = [image] if image is None or not tta else eight_views(image)
            parts.append(torch.stack([model(view, metadata) for view in views]).mean(dim=0).cpu().double())  # (8, B) -> (B,)
    if not parts:
        raise ValueError("expected at least one batch of cases to predict, got none")
    return torch.cat(parts).numpy()


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards, whatever happened, each part is in the mode it was in."""
    import torch

    training = [module for module in model.modules() if module.training]  # a frozen branch may not be among them
    model.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def prediction_device() -> torch.device:
    """Where to predict: a CUDA device when there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _by_torch(model: MelanomaNet, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    return predict_logits(model, [{name: torch.from_numpy(values) for name, values in inputs.items()}])


def _exported(path: Path) -> tuple[Document, Network]:
    """Record and network of an exported file."""
    if not path.is_file():
        raise ExportError(f"{path} is no file; {AGAIN}")
    data = path.read_bytes()
    try:
        record, network = (_torchscript if data.startswith(b"PK") else _onnx)(data)
    except ImportError:
        raise
    except Exception as error:  # of whatever kind PyTorch and ONNX Runtime raise
        raise ExportError(f"{path} is damaged, or no model exported by this kit ({error}); {AGAIN}") from error
    if not record:
        raise ExportError(f"{path} is no model exported by this kit: it holds no {RECORD}; {AGAIN}")
    return Document.from_json(record), network


def _onnx(data: bytes) -> tuple[str, Network]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map.get(RECORD, ""), lambda inputs: session.run(None, inputs)[0]


def _torchscript(data: bytes) -> tuple[str, Network]:
    import torch

    record = {RECORD: ""}
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated; whoever has such a file knows
        module = torch.jit.load(io.BytesIO(data), _extra_files=record)

    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        given = [inputs[name] for name in ("image", "metadata") if name in inputs]
        return module(*(torch.from_numpy(np.ascontiguousarray(values)) for values in given)).numpy()

    return record[RECORD], run
