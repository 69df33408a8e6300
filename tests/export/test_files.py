"""The exported file: other tools read its record, and no change goes unnoticed."""

import json
from dataclasses import replace

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.errors import ExportError, ForeignThresholdError
from melanoma_lib.export import Document, Predictor
from melanoma_lib.export.writer import write_export
from melanoma_lib.inference.document import RECORD, read_sealed

from .models import document_of, model_of


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    model, path = model_of("test_efficientnet", "metadata"), tmp_path_factory.mktemp("scripted") / "model.pt"
    write_export(path, model, document_of(model, 32), "torchscript")
    return path


def test_onnx_itself_reads_the_record_and_finds_no_fault(exported):
    proto = onnx.load(exported)
    onnx.checker.check_model(proto, full_check=True)
    record = {pair.key: pair.value for pair in proto.metadata_props}[RECORD]
    assert Document.from_json(record) == Predictor(exported).document
    assert {tensor.data_location for tensor in proto.graph.initializer} == {onnx.TensorProto.DEFAULT}
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 18)]


def test_pytorch_itself_reads_the_record(scripted):
    extra = {RECORD: ""}
    torch.jit.load(scripted, _extra_files=extra)
    assert Document.from_json(extra[RECORD]) == Predictor(scripted).document


@settings(max_examples=100)
@given(st.data())
def test_no_changed_byte_and_no_cut_goes_unnoticed(exported, scripted, tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from([exported, scripted])).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed"
    for changed in (content, content[:position]):
        path.write_bytes(changed)
        with pytest.raises(ExportError):
            read_sealed(path)


def test_a_lowered_threshold_and_another_network_are_refused(exported, tmp_path):
    def lower_threshold(proto):
        found = Predictor(exported).document
        forged = replace(found, readings={"1": replace(found.readings["1"], threshold=0.01)})
        next(pair for pair in proto.metadata_props if pair.key == RECORD).value = forged.to_json()

    def change_weights(proto):
        proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[::-1]

    for forge in (lower_threshold, change_weights):
        proto = onnx.load(exported)
        forge(proto)
        onnx.save(proto, tmp_path / "forged.onnx")
        with pytest.raises(ExportError, match="was changed; export the run"):
            Predictor(tmp_path / "forged.onnx")


def test_files_of_others_and_of_earlier_versions_are_clear_errors(exported, tmp_path):
    proto = onnx.load(exported)
    seal = next(pair for pair in proto.metadata_props if pair.key != RECORD)
    seal.value = f"{'a' * 64} {'b' * 64}"  # as files were sealed before
    onnx.save(proto, tmp_path / "old.onnx")
    proto.ClearField("metadata_props")
    onnx.save(proto, tmp_path / "other.onnx")
    torch.save({}, tmp_path / "other.pt")
    expected = {"old.onnx": "earlier version.*export", "other.onnx": "no model exported by this kit"}
    expected |= {"other.pt": "no model exported by this kit", "absent.onnx": "cannot be read"}
    for name, message in expected.items():
        with pytest.raises(ExportError, match=message):
            Predictor(tmp_path / name)


@pytest.mark.parametrize("modalities", ["image+metadata", "image", "metadata"])
def test_a_record_is_read_as_written_and_refused_for_another_checkpoint(modalities):
    document = document_of(model_of("test_efficientnet", modalities), 32)
    assert Document.from_json(document.to_json()) == document
    with pytest.raises(ForeignThresholdError, match="another model: export again"):
        Document.from_json(document.to_json().replace("c" * 64, "d" * 64, 1))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": 1}, "schema 1, this version reads 2"),
        ({"encoder": {}}, "expected the JSON of a MetadataEncoder"),
        ({"surprise": 1}, "unexpected keyword argument 'surprise'"),
        ({"readings": {"1": {}}}, r"Reading.* missing 10 .*'slope'"),
        ({"readings": []}, "'list' object has no attribute"),
        ({"preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, r"Preprocessing.* missing .*'stored_side'"),
    ],
)
def test_a_record_that_cannot_be_is_a_clear_error(change, named):
    values = json.loads(document_of(model_of("test_efficientnet"), 32).to_json())
    with pytest.raises(ExportError, match=named):
        Document.from_json(json.dumps(values | change))
