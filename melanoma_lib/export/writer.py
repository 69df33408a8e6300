"""Writing an exported file: a run's record, its network in one of three formats, and a check that it answers as the run does."""

import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import melanoma_lib
from melanoma_lib.data.catalogue import OFFERS
from melanoma_lib.data.images import backbone_normalisation, stored_side
from melanoma_lib.errors import ExportError
from melanoma_lib.evaluation import Calibrator, evaluate_predictions
from melanoma_lib.export.container import ONNX, PT2, TORCHSCRIPT, with_record
from melanoma_lib.export.document import Document, Preprocessing, Reading
from melanoma_lib.export.predictor import Predictor
from melanoma_lib.model import MelanomaNet
from melanoma_lib.reports import predict_with_views
from melanoma_lib.run_writer import choose_operating_point
from melanoma_lib.runs import Run
from melanoma_lib.utils import replacing

FORMATS = {ONNX: "model.onnx", TORCHSCRIPT: "model.torchscript.pt", PT2: "model.pt2"}  # format to default file name
OPSET = 18  # the one that PyTorch's exporter writes by itself; older ones need a conversion
TOLERANCE = 1e-4  # of a logit, between the model and its export
LARGEST = 2**31 - 1  # bytes of a protocol buffer


def export_run(run: Run, kind: str = ONNX, out: Path | None = None, tta: bool = False) -> Path:
    """Write a run's model, with all that it takes to serve its risks, as one file.

    Args:
        run: a finished run.
        kind: one of ``FORMATS``.
        out: file to write; default: in the run directory.
        tta: add calibration and threshold of eight averaged views; predicts validation and test anew, which needs the images.

    Returns:
        The file.

    Raises:
        ForeignThresholdError: if the run's operating point was chosen for another model.
        ExportError: if the format is not known, or the exported model does not answer as the run's does; nothing is then written.
    """
    if kind not in FORMATS:
        raise ExportError(f"format expects {', '.join(FORMATS)}, got {kind!r}")
    model, document = run.model(), describe_run(run, tta)
    out = out or run.path / FORMATS[kind]
    write_export(out, serialise(model, run.settings.image_size, kind), document, model)
    return out


def write_export(out: Path, network: bytes, document: Document, model: MelanomaNet | None = None) -> None:
    """Write network and record as one file, whole or not at all.

    Args:
        out: file to write.
        network: as :func:`serialise` returns it.
        document: its record.
        model: what the file must answer like; None for no comparison.

    Raises:
        ExportError: if a logit differs from the model's by more than ``TOLERANCE``, see :func:`largest_difference`.
    """
    with replacing(out) as temporary:
        temporary.write_bytes(with_record(network, document))
        if model is not None:
            size = document.preprocessing.image_size if document.preprocessing else 1
            difference = largest_difference(model, temporary, size)
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"the exported model differs from the run's by {difference:.2g} in the logit, more than {TOLERANCE:g} is not "
                    "served; try another --format, and report the backbone"
                )


def largest_difference(model: MelanomaNet, file: Path, image_size: int, batches: Sequence[int] = (1, 2, 5)) -> float:
    """The most by which a logit of the file's differs from the model's, on noise of several batch sizes.

    Of logits beyond 1 it is the share of the logit: noise drives some models far out, where float32 has fewer decimals left.
    """
    network, worst = Predictor(file).network, 0.0
    for size in batches:
        inputs = example_inputs(model, image_size, size, seed=size)
        with torch.inference_mode():
            expected = model(inputs.get("image"), inputs.get("metadata")).numpy()
        found = network({name: tensor.numpy() for name, tensor in inputs.items()})
        worst = max(worst, float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max()))
    return worst


def serialise(model: MelanomaNet, image_size: int, kind: str) -> bytes:
    """The network alone, any batch size, in evaluation mode.

    Args:
        model: on the CPU.
        image_size: side of the images it will be given.
        kind: onnx, torchscript or pt2.

    Returns:
        The file's bytes, without a record.

    Raises:
        ExportError: if PyTorch cannot export the model, or it is too large for one ONNX file.
    """
    network = _Inputs(model).eval()
    examples = tuple(example_inputs(model, image_size, 2).values())
    buffer = io.BytesIO()
    try:
        with torch.no_grad(), quiet():
            if kind == TORCHSCRIPT:
                torch.jit.save(torch.jit.trace(network, examples, check_trace=False), buffer)
                return buffer.getvalue()
            batch = torch.export.Dim("batch", min=1)
            program = torch.export.export(network, examples, dynamic_shapes=(tuple({0: batch} for _ in examples),))
            if kind == PT2:
                for node in program.graph.nodes:  # file names of this machine
                    node.meta.pop("stack_trace", None)
                torch.export.save(program, buffer)
                return buffer.getvalue()
            return _onnx(program, network.names)
    except RuntimeError as error:  # what the exporters raise, all of them
        raise ExportError(f"PyTorch cannot export {model.backbone} as {kind}: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what exporters say of each node, and their warnings: of what a tracer assumes, and of what is deprecated.

    Nothing is lost by it: what comes out is compared with the model, or its cost is measured.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _onnx(program: torch.export.ExportedProgram, names: Sequence[str]) -> bytes:
    """An exported program as ONNX, weights inside, without traces of the machine it was made on."""
    options = {"input_names": list(names), "output_names": ["logit"], "opset_version": OPSET}
    proto = torch.onnx.export(program, dynamo=True, verbose=False, **options).model_proto
    for node in [*proto.graph.node, *proto.graph.value_info, *(node for function in proto.functions for node in function.node)]:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    proto.ClearField("metadata_props")
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.ClearField("value_info")  # shapes of the inner values, told in the exporter's own name of the batch
    if (size := proto.ByteSize()) > LARGEST:
        raise ExportError(f"the model takes {size / 1e9:.1f} GB, one ONNX file holds 2 GB; export it as pt2")
    return proto.SerializeToString(deterministic=True)


class _Inputs(nn.Module):
    """The model with only the inputs that its branches look at."""

    def __init__(self, model: MelanomaNet) -> None:
        super().__init__()
        self.model, self.names = model, input_names(model)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        return self.model(given.get("image"), given.get("metadata"))


def input_names(model: MelanomaNet) -> list[str]:
    """Which of image and metadata the model looks at, in order."""
    return [name for name in ("image", "metadata") if name in model.modalities]


def example_inputs(model: MelanomaNet, image_size: int, n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Noise of the shapes that the model takes, by name of the input."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"image": (n, 3, image_size, image_size), "metadata": (n, model.n_metadata)}
    return {name: torch.randn(shapes[name], generator=generator) for name in input_names(model)}


def describe_run(run: Run, tta: bool = False) -> Document:
    """The record of a run: the readings of its own predictions and, on request, of eight averaged views.

    Raises:
        ForeignThresholdError: if the run's operating point was chosen for another model.
        DataError: if eight views need images that are gone.
    """
    settings, point = run.settings, run.operating_point
    validation, calibrator = run.predictions("val"), run.calibrator
    readings = {
        "8" if settings.tta else "1": Reading(
            slope=calibrator.slope,
            intercept=calibrator.intercept,
            threshold=point.threshold,
            rule=point.rule,
            sensitivity=point.sensitivity,
            specificity=point.specificity,
            prevalence=float(validation["target"].mean()),
            checkpoint_sha256=point.checkpoint_sha256,
            predictions_sha256=point.predictions_sha256,
            test=run.metrics,
        )
    }
    if tta and "image" in settings.modalities and not settings.tta:
        tables = predict_with_views(run)
        readings["8"] = reading_of(run, **tables)
    shape = None
    if "image" in settings.modalities:
        shape = Preprocessing(stored_side(settings.image_size), settings.image_size, **backbone_normalisation(settings.backbone))
    return Document(
        run=run.path.name,
        source=settings.source,
        licence=licence_of(settings.source),
        backbone=settings.backbone,
        modalities=settings.modalities,
        precision="float32",
        checkpoint_sha256=point.checkpoint_sha256,
        preprocessing=shape,
        encoder=run.encoder if "metadata" in settings.modalities else None,
        readings=readings,
        kit=melanoma_lib.__version__,
    )


def reading_of(run: Run, val: pd.DataFrame, test: pd.DataFrame) -> Reading:
    """Calibration and operating point of predictions made in another way than the run's own: from their validation part alone.

    Args:
        run: whose model predicted.
        val: target, logit and probability of the validation split.
        test: as ``prediction_table`` gives it; its risk is calibrated anew.
    """
    calibrator = Calibrator.fit(val["logit"], val["target"])
    point = choose_operating_point(val, run.settings.min_sensitivity)
    test = test.assign(risk=calibrator.risk(test["logit"]))
    return Reading(
        **calibrator.to_dict(),
        **point,
        prevalence=float(val["target"].mean()),
        checkpoint_sha256=run.operating_point.checkpoint_sha256,
        predictions_sha256=hashlib.sha256(val.to_csv(index=False).encode()).hexdigest(),
        test=evaluate_predictions(test, point["threshold"], run.settings.n_resamples),
    )


def licence_of(source: str) -> str:
    """What to know before passing a model of this source on."""
    if source == "synthetic":
        return "trained on cases that the kit generated itself; no licence of a data set applies"
    licence = OFFERS[source].licence if source in OFFERS else "see the licence of each of its images"
    return f"trained on {source}, {licence}; whether a model inherits the licence of its data is not settled: act as if it did"
