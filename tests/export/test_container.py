"""The container: what it holds is what other readers see in it, and no change goes unnoticed."""

import io
import json
import zipfile
from dataclasses import replace

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.errors import ExportError, ForeignThresholdError
from melanoma_lib.export import Predictor, read_export
from melanoma_lib.export.container import RECORD, SEAL, _as_varint, _field, _fields, _varint, seal_of, with_record
from melanoma_lib.export.document import Document
from melanoma_lib.export.writer import serialise

from .models import document_of, model_of, written


@given(st.integers(0, 2**63 - 1), st.binary(max_size=5))
def test_a_number_is_read_as_written(value, after):
    text = _as_varint(value)
    assert _varint(text + after, 0) == (value, len(text))


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4), st.text(), st.integers(0, 2**40))
def test_fields_are_those_that_onnx_writes_and_reads(pairs, producer, version):
    proto = onnx.ModelProto(producer_name=producer, ir_version=version)
    for key, value in pairs:
        proto.metadata_props.add(key=key, value=value)
    data = proto.SerializeToString()
    expected = [field.number for field, _ in proto.ListFields()]
    assert sorted({number for number, *_ in _fields(data)}) == sorted(expected)
    added = _field(14, _field(1, b"key") + _field(2, "né".encode()))
    read = onnx.ModelProto.FromString(data + added)
    assert [(pair.key, pair.value) for pair in read.metadata_props] == [*pairs, ("key", "né")]
    assert read.producer_name == producer


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"PK\x03\x04" + tail))
def test_what_is_no_export_is_a_clear_error(tmp_path_factory, data):
    path = written(tmp_path_factory.getbasetemp(), "any.onnx", data)
    with pytest.raises(ExportError, match="no model exported by this kit"):
        read_export(path)


def test_a_model_of_someone_else_is_a_clear_error(tmp_path):
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), tmp_path / "other.onnx")
    torch.save({}, tmp_path / "other.pt")
    for path in (tmp_path / "other.onnx", tmp_path / "other.pt"):
        with pytest.raises(ExportError, match="no model exported by this kit"):
            Predictor(path)
    with pytest.raises(ExportError, match="cannot be read"):
        Predictor(tmp_path / "absent.onnx")


@settings(max_examples=100)
@given(st.data())
def test_no_changed_byte_goes_unnoticed(exported, tmp_path_factory, data):
    content = bytearray(exported.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ExportError):
        read_export(written(tmp_path_factory.getbasetemp(), "changed.onnx", bytes(content)))


@pytest.fixture(scope="module")
def zipped() -> bytes:
    model = model_of("test_efficientnet", "metadata")
    return with_record(serialise(model, 32, "torchscript"), document_of(model, 32))


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_zip_is_a_clear_error_or_holds_the_same(zipped, tmp_path_factory, data):
    content = bytearray(zipped)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.getbasetemp()
    try:
        found = read_export(written(folder, "damaged.pt", bytes(content)))
    except ExportError:
        return
    sound = read_export(written(folder, "sound.pt", zipped))
    assert (found.document, found.model_sha256) == (sound.document, sound.model_sha256)


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_file_cut_short_is_a_clear_error(exported, tmp_path, cut):
    with pytest.raises(ExportError):
        read_export(written(tmp_path, "short.onnx", exported.read_bytes()[:-cut]))


def test_onnx_itself_accepts_the_file_and_shows_the_record(exported):
    proto = onnx.load(exported)
    onnx.checker.check_model(proto, full_check=True)
    entries = {pair.key: pair.value for pair in proto.metadata_props}
    assert set(entries) == {RECORD, SEAL}
    assert Document.from_json(entries[RECORD]) == read_export(exported).document
    assert json.loads(entries[RECORD])["note"] == "Educational, not for diagnosis."
    assert {tensor.data_location for tensor in proto.graph.initializer} == {onnx.TensorProto.DEFAULT}
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 18)]


def test_a_lowered_threshold_and_the_record_of_another_file_are_refused(exported, tmp_path):
    proto, found = onnx.load(exported), read_export(exported)
    reading = found.document.readings["1"]
    forged = replace(found.document, readings={"1": replace(reading, threshold=0.01)}).to_json()
    elsewhere = "0" * 64
    for seal in (None, seal_of(elsewhere, forged)):
        changed = {RECORD: forged} | ({SEAL: seal} if seal else {})
        for pair in proto.metadata_props:
            pair.value = changed.get(pair.key, pair.value)
        onnx.save(proto, tmp_path / "forged.onnx")
        with pytest.raises(ExportError, match="network" if seal else "record"):
            read_export(tmp_path / "forged.onnx")


def test_an_operating_point_of_another_checkpoint_is_refused():
    document = document_of(model_of("test_efficientnet", "metadata"), 32)
    with pytest.raises(ForeignThresholdError, match="export again"):
        replace(document, checkpoint_sha256="d" * 64)
    values = json.loads(document.to_json()) | {"checkpoint_sha256": "d" * 64}
    with pytest.raises(ForeignThresholdError, match="another model"):
        Document.from_json(json.dumps(values))


@pytest.mark.parametrize("modalities", ["image+metadata", "image", "metadata"])
def test_a_record_is_read_as_written(modalities):
    document = document_of(model_of("test_efficientnet", modalities), 32)
    assert Document.from_json(document.to_json()) == document


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": 2}, "schema 2, this version reads 1"),
        ({"encoder": {}}, "MetadataEncoder"),
        ({"surprise": 1}, "surprise"),
        ({"readings": {"1": {}}}, "slope"),
        ({"readings": []}, "record"),
        ({"preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, "stored_side"),
    ],
)
def test_a_record_that_cannot_be_is_a_clear_error(change, named):
    values = json.loads(document_of(model_of("test_efficientnet"), 32).to_json())
    with pytest.raises(ExportError, match=named):
        Document.from_json(json.dumps(values | change))


def test_a_zip_carries_its_record_where_pytorch_reads_extra_files():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/constants.pkl", b"")
    document = document_of(model_of("test_efficientnet"), 32)
    with zipfile.ZipFile(io.BytesIO(with_record(buffer.getvalue(), document))) as archive:
        assert archive.read(f"archive/extra/{RECORD}").decode() == document.to_json()
        assert f"archive/extra/{SEAL}" in archive.namelist()
