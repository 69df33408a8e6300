"""Eight-bit weights and activations: a smaller file, another model; what it costs is measured, not assumed."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader

from melanoma_lib.errors import ExportError
from melanoma_lib.evaluation import Calibrator, Interval, OperatingCurve, bootstrap_gain
from melanoma_lib.export.container import ONNX
from melanoma_lib.export.document import Document
from melanoma_lib.export.predictor import logits_of, onnx_network
from melanoma_lib.export.writer import describe_run, quiet, reading_of, serialise, write_export
from melanoma_lib.run_writer import prediction_table
from melanoma_lib.runs import Run
from melanoma_lib.utils import write_text

INT8_NAME = "model.int8.onnx"
N_CALIBRATION = 256  # training images from which the ranges of the activations are taken
CALIBRATION_BATCH = 16
# Clip and Relu besides what multiplies: ranges are then taken after the clipping; before it, rare huge values would coarsen all
# others. The small Gemm of metadata and head decide, and cost nothing in float.
QUANTISED = ["Conv", "MatMul", "Clip", "Relu"]


@dataclass(frozen=True)
class TestedModel:
    """What one of the two models does on the test split, at the threshold that was chosen for it on validation.

    Attributes:
        auroc: area under the ROC curve.
        sensitivity: share of melanomas flagged.
        specificity: share of others not flagged.
        megabytes: size of the network.
    """

    auroc: float
    sensitivity: float
    specificity: float
    megabytes: float


@dataclass(frozen=True)
class Int8Cost:
    """What eight bits cost on the test split, both models on the same cases.

    Attributes:
        float32: the run's own predictions.
        int8: those of the eight-bit model.
        gain: int8 - float32, paired by group, for auroc and average_precision.
        largest_logit_difference: over the test cases.
        disagreement: share of test cases on which the two decide otherwise, each by its own threshold.
        n_test: test cases.
        n_groups: groups resampled.
        n_calibration: training images behind the ranges.
    """

    float32: TestedModel
    int8: TestedModel
    gain: dict[str, Interval]
    largest_logit_difference: float
    disagreement: float
    n_test: int
    n_groups: int
    n_calibration: int

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self) | {"gain": {name: interval.to_dict() for name, interval in self.gain.items()}}

    def __str__(self) -> str:
        """A table."""
        rows = {
            "AUROC": ("auroc", ".4f"),
            "sensitivity at own threshold": ("sensitivity", ".3f"),
            "specificity at own threshold": ("specificity", ".3f"),
            "file, MB": ("megabytes", ".1f"),
        }
        lines = [f"{'test split':32}{'float32':>10}{'int8':>10}"]
        for label, (name, spec) in rows.items():
            lines.append(f"{label:32}{getattr(self.float32, name):>10{spec}}{getattr(self.int8, name):>10{spec}}")
        gains = "; ".join(f"{name.replace('_', ' ')} {interval:+.4f}" for name, interval in self.gain.items())
        return "\n".join(
            [
                *lines,
                f"int8 - float32: {gains}",
                f"(95% intervals: {self.n_groups} groups of {self.n_test} cases resampled, both models in the same resamples)",
                f"largest difference of a logit {self.largest_logit_difference:.2f}; "
                f"other decision on {self.disagreement:.1%} of cases",
                f"ranges from {self.n_calibration} training images; the int8 file has its own calibration and threshold",
            ]
        )


def export_int8(run: Run, out: Path | None = None, n_calibration: int = N_CALIBRATION) -> tuple[Path, Int8Cost]:
    """Write a run's model with eight-bit weights and activations as ONNX, and measure what that costs.

    It is another model than the run's: its logits on validation give it a calibration and a threshold of its own, and those on
    the test split its metrics. The cost lies as JSON beside the file.

    Args:
        run: a finished run whose images are still there.
        out: file to write; default: ``model.int8.onnx`` in the run directory.
        n_calibration: training images from which the ranges of the activations are taken.

    Returns:
        The file and the cost.

    Raises:
        ExportError: for a model without an image branch, where there is nothing to gain.
        DataError: if the images are gone.
        ForeignThresholdError: if the run's operating point was chosen for another model.
    """
    from melanoma_lib.data.datamodule import DermoscopyDataModule

    settings = run.settings
    if "image" not in settings.modalities:
        raise ExportError("a model of metadata alone is a few kilobytes; int8 is for the convolutions of an image branch")
    document, data = describe_run(run), DermoscopyDataModule(settings, run.cases())
    exact = serialise(run.model(), settings.image_size, ONNX)
    rows = np.random.default_rng(settings.seed).permutation(data.rows("train"))[:n_calibration]
    network = quantise(exact, _calibration_inputs(data, rows, document.inputs))
    loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
    logits = {split: predict(network, document.inputs, loader, settings.tta) for split, loader in loaders.items()}
    calibrator = Calibrator.fit(logits["val"], data.cases.loc[data.cases["split"] == "val", "target"])
    tables = {split: prediction_table(data.cases[data.cases["split"] == split], logits[split], calibrator) for split in logits}
    document = replace(document, precision="int8", readings={_views(document): reading_of(run, **tables)})
    out = out or run.path / INT8_NAME
    write_export(out, network, document)
    sizes = (len(exact) / 1e6, out.stat().st_size / 1e6)
    cost = cost_of(run, tables["test"], document, sizes, len(rows))
    write_text(out.with_suffix(".json"), json.dumps(cost.to_dict(), indent=2, allow_nan=False) + "\n")
    return out, cost


def quantise(network: bytes, inputs: Iterator[dict[str, np.ndarray]]) -> bytes:
    """Static quantisation of the convolutions and matrix products: eight-bit weights a channel, activations a tensor.

    Args:
        network: ONNX, float32.
        inputs: what it is shown to learn the ranges of its activations, arrays by name of the input.

    Returns:
        ONNX with pairs of quantise and dequantise, which onnxruntime fuses into integer kernels.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(inputs, None)

    with tempfile.TemporaryDirectory() as folder, quiet():
        given, folded, done = (Path(folder) / name for name in ("given.onnx", "folded.onnx", "done.onnx"))
        given.write_bytes(network)
        quantization.quant_pre_process(given, folded, skip_symbolic_shape=True)  # folds batch normalisation into convolutions
        quantization.quantize_static(
            folded,
            done,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=QUANTISED,
        )
        return _without_metadata(done)


def predict(network: bytes, names: tuple[str, ...], loader: DataLoader, tta: bool = False) -> np.ndarray:
    """Logits of an ONNX network with these inputs over the batches of a loader, float64, shape ``(N,)``."""
    run = onnx_network(network)
    batches = ({name: batch[name].numpy() for name in names} for batch in loader)
    return np.concatenate([logits_of(run, inputs, views=8 if tta else 1) for inputs in batches])


def cost_of(run: Run, test: pd.DataFrame, document: Document, sizes: tuple[float, float], n_calibration: int) -> Int8Cost:
    """Compare the eight-bit model's test predictions with the run's own; sizes are megabytes, float first."""
    exact, thresholds = run.predictions("test"), (run.operating_point.threshold, document.readings[_views(document)].threshold)
    points, aurocs = [], []
    for table, threshold in zip((exact, test), thresholds, strict=True):
        curve = OperatingCurve(table["target"], table["probability"])
        points.append(curve.at(threshold))
        aurocs.append(curve.auroc)
    float32, int8 = (
        TestedModel(auroc, point.sensitivity, point.specificity, size)
        for auroc, point, size in zip(aurocs, points, sizes, strict=True)
    )
    flagged = [table["probability"] >= threshold for table, threshold in zip((exact, test), thresholds, strict=True)]
    scores = test["probability"], exact["probability"]
    return Int8Cost(
        float32=float32,
        int8=int8,
        gain=bootstrap_gain(exact["target"], *scores, exact["group_id"], run.settings.n_resamples),
        largest_logit_difference=float((exact["logit"] - test["logit"]).abs().max()),
        disagreement=float((flagged[0] != flagged[1]).mean()),
        n_test=len(exact),
        n_groups=exact["group_id"].nunique(),
        n_calibration=n_calibration,
    )


def _calibration_inputs(data, rows: np.ndarray, names: tuple[str, ...]) -> Iterator[dict[str, np.ndarray]]:
    """Training cases as at evaluation, a batch at a time."""
    from melanoma_lib.data.sampling import Draw

    dataset = data.dataset(training=False)
    for start in range(0, len(rows), CALIBRATION_BATCH):
        batch = dataset.__getitems__(Draw(rows[start : start + CALIBRATION_BATCH], 0))
        yield {name: batch[name].numpy() for name in names}


def _without_metadata(file: Path) -> bytes:
    import onnx

    proto = onnx.load(file)
    proto.ClearField("metadata_props")
    return proto.SerializeToString(deterministic=True)


def _views(document: Document) -> str:
    """The one way of predicting that the run's own predictions were made in."""
    return next(iter(document.readings))
