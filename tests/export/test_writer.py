"""Both formats answer as the model does, for every branch, any batch size; a file that would not is never written."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from melanoma_lib.errors import DataError, ExportError, ForeignThresholdError
from melanoma_lib.export import FORMATS, Predictor, export_run, writer
from melanoma_lib.export.writer import describe_run, example_inputs, write_export
from melanoma_lib.inference.document import licence_of
from melanoma_lib.runs.run import CHECKPOINT, OPERATING_POINT

from .models import document_of, model_of

MODELS = [
    ("test_efficientnet", 64, "image+metadata"),
    ("test_efficientnet", 64, "metadata"),
    ("test_convnext", 64, "image+metadata"),
    ("test_vit", 160, "image"),
]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("backbone", "size", "modalities"), MODELS)
def test_a_file_answers_as_the_model_and_carries_its_record(backbone, size, modalities, kind, tmp_path):
    model = model_of(backbone, modalities)
    document = document_of(model, size)
    write_export(tmp_path / "model", model, document, kind)
    predictor = Predictor(tmp_path / "model")
    assert (predictor.format, predictor.document) == (kind, document)
    for n in (1, 2, 7, 32):
        inputs = example_inputs(model, size, n, seed=n)
        with torch.inference_mode():
            expected = model(inputs.get("image"), inputs.get("metadata")).numpy()
        found = predictor.logits(**{name: tensor.numpy() for name, tensor in inputs.items()})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert n == 1 or np.ptp(found) > 1e-2  # the cases do differ


@pytest.mark.parametrize(
    ("modalities", "wrong", "named"), [("metadata", {"image": b""}, "image"), ("image", {"image": b"", "age": 3}, "age")]
)
def test_a_model_of_one_branch_refuses_the_other(modalities, wrong, named, tmp_path):
    model = model_of("test_efficientnet", modalities)
    write_export(tmp_path / "model.pt", model, document_of(model, 32), "torchscript")
    with pytest.raises(DataError, match=f"alone, not at {named}"):
        Predictor(tmp_path / "model.pt").ask(**wrong)


def test_an_export_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    model, other = model_of("test_efficientnet", "metadata"), model_of("test_efficientnet", "metadata")
    other.head[-1].bias.data += 0.1
    serialise = writer.serialise
    monkeypatch.setattr(writer, "serialise", lambda _model, *others: serialise(other, *others))
    out = tmp_path / "model.pt"
    out.write_text("the export of before")
    with pytest.raises(ExportError, match="differs from the run's"):
        write_export(out, model, document_of(model, 32), "torchscript")
    assert out.read_text() == "the export of before"
    assert list(tmp_path.iterdir()) == [out]


def test_the_record_is_the_runs(tiny_run, exported):
    document = Predictor(exported).document
    reading = document.readings["1"]
    assert replace(document, source="synthetic") == describe_run(tiny_run, tta=True)
    assert document.encoder == tiny_run.encoder
    assert (reading.slope, reading.intercept) == (tiny_run.calibrator.slope, tiny_run.calibrator.intercept)
    assert reading.threshold == tiny_run.operating_point.threshold
    assert reading.prevalence == pytest.approx(tiny_run.predictions("val")["target"].mean())
    assert reading.test["auroc"] == tiny_run.metrics["auroc"]
    assert "CC BY-NC" in licence_of("ham10000")


def test_a_foreign_threshold_and_an_unknown_format_are_not_exported(own_run, tiny_run):
    values = json.loads((own_run.path / OPERATING_POINT).read_text())
    (own_run.path / OPERATING_POINT).write_text(json.dumps(values | {"checkpoint_sha256": "0" * 64}))
    with pytest.raises(ForeignThresholdError, match=CHECKPOINT):
        export_run(own_run)
    with pytest.raises(ExportError, match="onnx, torchscript, got 'tflite'"):
        export_run(tiny_run, "tflite")
    assert not list(own_run.path.glob("model*"))
