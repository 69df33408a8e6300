"""Every format answers as the model does, for every branch, any batch size; a file that would not is never written."""

from pathlib import Path

import numpy as np
import pytest
import torch

from melanoma_lib.data.images import prepare_image
from melanoma_lib.errors import ExportError, ForeignThresholdError
from melanoma_lib.export import FORMATS, Predictor, export_run, read_export, writer
from melanoma_lib.export.container import RECORD
from melanoma_lib.export.writer import describe_run, example_inputs, licence_of, serialise, write_export
from melanoma_lib.runs import CHECKPOINT, OPERATING_POINT

from .models import ENCODER, document_of, model_of

TOLERANCE = 1e-4
BATCHES = (1, 2, 7, 32)
MODELS = {
    "test_efficientnet": (64, ["image+metadata", "metadata"]),
    "test_resnet": (64, ["image+metadata"]),
    "test_convnext": (64, ["image+metadata"]),
    "test_vit": (160, ["image"]),
}


def difference(model, predictor: Predictor, inputs: dict[str, torch.Tensor]) -> float:
    with torch.inference_mode():
        expected = model(inputs.get("image"), inputs.get("metadata")).numpy()
    found = predictor.logits(**{name: tensor.numpy() for name, tensor in inputs.items()})
    assert found.shape == expected.shape
    assert len(found) == 1 or np.ptp(found) > 1e-2  # the cases do differ
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize(
    ("backbone", "size", "modalities"), [(name, size, one) for name, (size, each) in MODELS.items() for one in each]
)
def test_all_formats_answer_as_the_model_and_carry_one_record(backbone, size, modalities, tmp_path):
    model = model_of(backbone, modalities)
    document = document_of(model, size)
    for kind, name in FORMATS.items():
        write_export(tmp_path / name, serialise(model, size, kind), document, model)
        predictor = Predictor(tmp_path / name)
        assert (predictor.format, predictor.document) == (kind, document)
        assert all(difference(model, predictor, example_inputs(model, size, n, seed=n)) <= TOLERANCE for n in BATCHES)


def test_real_images_in_every_format(ham10000_root, tmp_path):
    model = model_of("tf_efficientnet_lite0", pretrained=True)
    paths = sorted(ham10000_root.rglob("ISIC_*.jpg"))[::300][:32]
    images = torch.stack([prepare_image(path, model.backbone, 128) for path in paths])
    metadata = torch.from_numpy(ENCODER.encode_cases(range(20, 20 + len(paths)), ["female", "male"] * 16, ["torso"] * 32))
    for kind, name in FORMATS.items():
        write_export(tmp_path / name, serialise(model, 128, kind), document_of(model, 128), model)
        predictor = Predictor(tmp_path / name)
        for n in BATCHES:
            assert difference(model, predictor, {"image": images[:n], "metadata": metadata[:n]}) <= TOLERANCE
        with torch.inference_mode():
            assert 0.1 < model(images, metadata).std() < 10
            expected = torch.sigmoid(model(images, metadata) * 1.5 - 0.25).numpy()
        found = predictor.predict_batch(paths, range(20, 52), ["female", "male"] * 16, ["torso"] * 32)
        np.testing.assert_allclose([case.risk for case in found], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
def test_pytorch_itself_reads_the_record(kind, tmp_path):
    model = model_of("test_efficientnet", "metadata")
    path, extra = tmp_path / FORMATS[kind], {RECORD: ""}
    write_export(path, serialise(model, 32, kind), document_of(model, 32), model)
    if kind == "pt2":
        torch.export.load(path, extra_files=extra)
    else:
        torch.jit.load(path, _extra_files=extra)
    text = extra[RECORD] if isinstance(extra[RECORD], str) else extra[RECORD].decode()
    assert text == document_of(model, 32).to_json()


def test_the_file_names_no_folder_of_this_machine(exported, tmp_path):
    model = model_of("test_efficientnet", "metadata")
    home = str(Path(writer.__file__).parents[2]).encode()
    assert home not in exported.read_bytes()
    assert home not in serialise(model, 32, "pt2")


def test_a_model_of_metadata_or_image_alone_refuses_the_other(tmp_path):
    for modalities, wrong, named in (("metadata", {"image": b""}, "image"), ("image", {"image": b"", "age": 3}, "age")):
        model = model_of("test_efficientnet", modalities)
        write_export(tmp_path / "model.pt", serialise(model, 32, "torchscript"), document_of(model, 32))
        with pytest.raises(Exception, match=f"does not look at {named}"):
            Predictor(tmp_path / "model.pt").predict(**wrong)
        if modalities == "metadata":
            asked = Predictor(tmp_path / "model.pt").predict(age=40, sex="female").logit
            with torch.inference_mode():
                assert asked == pytest.approx(float(model(None, torch.from_numpy(ENCODER.encode(40, "female")))), abs=1e-6)


def test_an_export_that_answers_otherwise_is_not_written(tmp_path):
    model, other = model_of("test_efficientnet", "metadata"), model_of("test_efficientnet", "metadata")
    other.head[-1].bias.data += 0.1
    network = serialise(model, 32, "torchscript")
    out = tmp_path / "model.pt"
    out.write_text("the export of before")
    with pytest.raises(ExportError, match="differs from the run's"):
        write_export(out, network, document_of(model, 32), other)
    assert out.read_text() == "the export of before"
    assert list(tmp_path.iterdir()) == [out]


def test_the_record_is_the_runs(tiny_run, exported):
    document, reading = read_export(exported).document, read_export(exported).document.readings["1"]
    assert document == describe_run(tiny_run, tta=True)
    assert document.encoder == tiny_run.encoder
    assert (reading.slope, reading.intercept) == (tiny_run.calibrator.slope, tiny_run.calibrator.intercept)
    assert reading.threshold == tiny_run.operating_point.threshold
    assert reading.test["auroc"] == tiny_run.metrics["auroc"]
    assert document.checkpoint_sha256 == tiny_run.operating_point.checkpoint_sha256
    assert "itself" in document.licence
    assert "CC BY-NC" in licence_of("ham10000")


def test_a_foreign_threshold_is_not_exported(tiny_run, tmp_path):
    import json
    import shutil

    from melanoma_lib.runs import Run

    copy = Run(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    values = json.loads((copy.path / OPERATING_POINT).read_text())
    (copy.path / OPERATING_POINT).write_text(json.dumps(values | {"checkpoint_sha256": "0" * 64}))
    with pytest.raises(ForeignThresholdError, match=CHECKPOINT):
        export_run(copy)
    assert not list(copy.path.glob("model*"))


def test_an_unknown_format_is_a_clear_error(tiny_run):
    with pytest.raises(ExportError, match="onnx, torchscript, pt2, got 'tflite'"):
        export_run(tiny_run, "tflite")
