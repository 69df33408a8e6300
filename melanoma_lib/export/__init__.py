"""What a run hands on: its network and record as one ONNX or TorchScript file, checked against the run; and its model card."""

import difflib
import hashlib
import io
import logging
import tomllib
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import nn

from melanoma_lib.data.splits import SPLITS, assert_no_straddling
from melanoma_lib.errors import DataError, ExportError
from melanoma_lib.evaluation import Calibrator, evaluate_predictions
from melanoma_lib.evaluation.intervals import RATES
from melanoma_lib.explain.unlike import Reference
from melanoma_lib.inference import Document, Predictor, Reading
from melanoma_lib.inference.document import RECORD
from melanoma_lib.model import MelanomaNet
from melanoma_lib.reports.report import predict_with_views
from melanoma_lib.runs import Run
from melanoma_lib.runs.writer import choose_operating_point
from melanoma_lib.utils import replacing, write_text

FORMATS = {"onnx": "model.onnx", "torchscript": "model.torchscript.pt"}  # format to default file name
OPSET = 18  # the one that PyTorch's exporter writes by itself; older ones need a conversion
CARD, FOLDER = "model_card.md", Path(__file__).parent
TOLERANCE = 1e-4  # of a logit, between the model and its export


def export_run(run: Run, kind: str = "onnx", out: Path | None = None, tta: bool = False) -> Path:
    """Write a finished run's model, with all that it takes to serve its risks, as one file.

    ``kind`` is one of ``FORMATS``; ``out`` is in the run directory by default. ``tta`` adds calibration and threshold of eight
    averaged views, for which validation and test images are predicted anew. KitError if the operating point is another model's,
    images are gone, or the file would answer otherwise than the model.
    """
    if kind not in FORMATS:
        raise ExportError(f"format expects {', '.join(FORMATS)}, got {kind!r}")
    out = out or run.path / FORMATS[kind]
    write_export(out, run.model(), describe_run(run, tta), kind)
    return out


def describe_run(run: Run, tta: bool = False) -> Document:
    """The record of a run: the readings of its own predictions and, on request, of eight averaged views."""
    document = Document.of_run(run)
    with suppress(DataError):  # its images are gone, and nobody has looked at them
        if document.preprocessing:
            reference = Reference.of(run)
            document = replace(document, limits=[reference.low.tolist(), reference.high.tolist()])
    if not tta or not document.preprocessing or "8" in document.readings:
        return document
    val, test = predict_with_views(run).values()
    point = choose_operating_point(val, run.settings)  # from validation alone, as the calibration
    reading = Reading(
        **Calibrator.fit(val["logit"], val["target"]).to_dict(),
        **point,
        prevalence=float(val["target"].mean()),
        checkpoint_sha256=run.operating_point.checkpoint_sha256,
        predictions_sha256=hashlib.sha256(val.to_csv(index=False).encode()).hexdigest(),
        test=evaluate_predictions(test, point["threshold"], run.settings.n_resamples),
    )
    return replace(document, readings=document.readings | {"8": reading})


def write_export(out: Path, model: MelanomaNet, document: Document, kind: str = "onnx") -> None:
    """Write a model and its record as one file, whole or not at all; errors as of :func:`export_run`."""
    size = document.preprocessing.image_size if document.preprocessing else 1
    with replacing(out) as temporary:
        temporary.write_bytes(serialise(model, size, document.to_json(), kind))
        network = Predictor(temporary).network
        for n in (1, 2, 5):
            inputs = example_inputs(model, size, n, seed=n)
            with torch.inference_mode():
                expected = model(inputs.get("image"), inputs.get("metadata")).numpy()
            found = network({name: tensor.numpy() for name, tensor in inputs.items()})
            # Noise drives some models far out, where float32 has fewer decimals left: there it is the share of the logit.
            if not (difference := (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max()) <= TOLERANCE:
                raise ExportError(f"the file differs from the run's model by {difference:.2g} in the logit; try another --format")


def serialise(model: MelanomaNet, image_size: int, record: str, kind: str) -> bytes:
    """A model on the CPU, for any number of images of one size, and its record as the bytes of a file, or ExportError."""
    examples = example_inputs(model, image_size, 2)
    network = _Inputs(model).eval()
    for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)  # for good: another thread may be exporting as well
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # what comes out is compared with the model
            return (_torchscript if kind == "torchscript" else _onnx)(network, examples, record)
    except (RuntimeError, ValueError) as error:  # the exporters; and ONNX, of more than the 2 GB that a file of its may hold
        raise ExportError(f"PyTorch cannot export {model.backbone} as {kind}: {error}") from error


def _torchscript(network: nn.Module, examples: dict[str, torch.Tensor], record: str) -> bytes:
    buffer = io.BytesIO()
    module = torch.jit.trace(network, tuple(examples.values()), check_trace=False)
    torch.jit.save(module, buffer, _extra_files={RECORD: record})
    return buffer.getvalue()


def _onnx(network: nn.Module, examples: dict[str, torch.Tensor], record: str) -> bytes:
    """ONNX, weights inside, without traces of the machine it was made on."""
    batch = torch.export.Dim("batch", min=1)
    shapes = (tuple({0: batch} for _ in examples),)
    program = torch.export.export(network, tuple(examples.values()), dynamic_shapes=shapes)
    options = {"input_names": list(examples), "output_names": ["logit"], "opset_version": OPSET}
    proto = torch.onnx.export(program, dynamo=True, verbose=False, **options).model_proto
    for node in [*proto.graph.node, *(node for one in proto.functions for node in one.node)]:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    proto.ClearField("metadata_props")
    proto.metadata_props.add(key=RECORD, value=record)
    return proto.SerializeToString(deterministic=True)


class _Inputs(nn.Module):
    """The model with only the inputs that its branches look at, in order."""

    def __init__(self, model: MelanomaNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self.model.modalities.split("+"), inputs, strict=True))
        return self.model(given.get("image"), given.get("metadata"))


def example_inputs(model: MelanomaNet, image_size: int, n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Noise of the shapes that the model takes, by name of the inputs that it looks at."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"image": (n, 3, image_size, image_size), "metadata": (n, model.n_metadata)}
    return {name: torch.randn(shapes[name], generator=generator) for name in shapes if name in model.modalities}


def write_card(run: Run) -> Path:
    """Write ``model_card.md`` into the directory of a finished run; ForeignThresholdError if its operating point is."""
    write_text(run.path / CARD, card_text(run))
    return run.path / CARD


def differences(run: Run) -> list[str]:
    """How the card in the run directory differs from what the run says now: lines of a diff, none if it does not."""
    kept = (run.path / CARD).read_text(encoding="utf-8").splitlines()
    return list(difflib.unified_diff(kept, card_text(run).splitlines(), "card", "run", lineterm="", n=0))


def card_text(run: Run) -> str:
    """The card as Markdown; errors as of :func:`write_card`."""
    splits = run.splits
    assert_no_straddling(splits["group_id"], splits["split"])
    environment = Environment(loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    epochs = run.history.groupby("fold").size().tolist() if run.is_cross_validation else len(run.history)
    trained = run.folds[0].splits if run.is_cross_validation else splits
    return environment.get_template("card.md.j2").render(
        name=run.path.name, settings=run.settings, epochs=epochs, folds=run.is_cross_validation, point=run.operating_point,
        metrics=run.metrics,
        splits=splits.sort_values("split", key=lambda column: column.map(SPLITS.index), kind="stable"),
        leaked=shared_by_image_split(trained), rates=RATES, calibrator=run.calibrator, environment=run.environment,
        guidelines=tomllib.loads((FOLDER / "checklists.toml").read_text(encoding="utf-8"))["guideline"],
    ).rstrip() + "\n"  # fmt: skip


def shared_by_image_split(splits: pd.DataFrame) -> float:
    """Expected share of melanoma images that a split by image would test while training holds a sibling.

    An image's k - 1 siblings all miss the training part with probability (1 - share)^(k - 1), drawing with replacement.
    """
    siblings = splits.groupby("group_id")["image_id"].transform("size")[splits["target"] == 1] - 1
    return float((1 - (splits["split"] != "train").mean() ** siblings).mean())
