"""Both formats answer as the model does, for every branch, any batch size; other tools read their record; damage is told."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from melanoma_lib import export
from melanoma_lib.errors import ExportError, ForeignThresholdError
from melanoma_lib.export import FORMATS, describe_run, example_inputs, export_run, write_export
from melanoma_lib.inference import Document, Predictor
from melanoma_lib.inference.document import RECORD, licence_of
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
    assert predictor.document == document
    for n in (1, 2, 7, 32):
        inputs = example_inputs(model, size, n, seed=n)
        with torch.inference_mode():
            expected = model(inputs.get("image"), inputs.get("metadata")).numpy()
        found = predictor.logits(**{name: tensor.numpy() for name, tensor in inputs.items()})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert n == 1 or np.ptp(found) > 1e-2  # the cases do differ


def test_an_export_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    model, other = model_of("test_efficientnet", "metadata"), model_of("test_efficientnet", "metadata")
    other.head[-1].bias.data += 0.1
    serialise = export.serialise
    monkeypatch.setattr(export, "serialise", lambda _model, *others: serialise(other, *others))
    out = tmp_path / "model.pt"
    out.write_text("the export of before")
    with pytest.raises(ExportError, match="differs from the run's model"):
        write_export(out, model, document_of(model, 32), "torchscript")
    assert out.read_text() == "the export of before"
    assert list(tmp_path.iterdir()) == [out]


def test_the_record_is_the_runs_and_other_tools_read_it(tiny_run, exported, tmp_path):
    document = Predictor(exported).document
    reading = document.readings["1"]
    assert replace(document, source="synthetic") == describe_run(tiny_run, tta=True)
    assert (reading.slope, reading.intercept) == (tiny_run.calibrator.slope, tiny_run.calibrator.intercept)
    assert reading.threshold == tiny_run.operating_point.threshold
    assert reading.prevalence == pytest.approx(tiny_run.predictions("val")["target"].mean())
    assert "CC BY-NC" in licence_of("ham10000")
    proto = onnx.load(exported)
    onnx.checker.check_model(proto, full_check=True)
    assert Document.from_json({pair.key: pair.value for pair in proto.metadata_props}[RECORD]) == document
    extra = {RECORD: ""}
    torch.jit.load(export_run(tiny_run, "torchscript", tmp_path / "model.pt"), _extra_files=extra)
    assert Document.from_json(extra[RECORD]).encoder == tiny_run.encoder


def test_files_of_others_and_damaged_ones_are_clear_errors(exported, tmp_path):
    proto = onnx.load(exported)
    proto.ClearField("metadata_props")
    onnx.save(proto, tmp_path / "other.onnx")
    torch.save({}, tmp_path / "other.pt")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:5000])
    (tmp_path / "empty.pt").touch()
    for name in ("other.onnx", "other.pt", "cut.onnx", "empty.pt"):
        with pytest.raises(ExportError, match=rf"{name} is .*no model exported by this kit.*; export the run again"):
            Predictor(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": 1}, "schema 1, this version reads 2"),
        ({"encoder": {"age_mean": 3}}, "expected the JSON of a MetadataEncoder"),
        ({"surprise": 1}, "unexpected keyword argument 'surprise'"),
        ({"readings": {"1": {}}}, r"Reading.* missing 10 .*'slope'"),
    ],
)
def test_a_record_that_cannot_be_is_a_clear_error(change, named):
    values = json.loads(document_of(model_of("test_efficientnet"), 32).to_json())
    with pytest.raises(ExportError, match=named):
        Document.from_json(json.dumps(values | change))


def test_a_foreign_threshold_and_an_unknown_format_are_not_exported(own_run, tiny_run):
    document = document_of(model_of("test_efficientnet"), 32)
    with pytest.raises(ForeignThresholdError, match="another model"):
        Document.from_json(document.to_json().replace("c" * 64, "d" * 64, 1))
    values = json.loads((own_run.path / OPERATING_POINT).read_text())
    (own_run.path / OPERATING_POINT).write_text(json.dumps(values | {"checkpoint_sha256": "0" * 64}))
    with pytest.raises(ForeignThresholdError, match=CHECKPOINT):
        export_run(own_run)
    with pytest.raises(ExportError, match="onnx, torchscript, got 'tflite'"):
        export_run(tiny_run, "tflite")
    assert not list(own_run.path.glob("model*"))
