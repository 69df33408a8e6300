"""The exported file as a container: where the record lies in it, and whether record and network are still those written together.

ONNX is a protocol buffer whose field 14 holds named texts; TorchScript and PT2 files are zip archives with a folder for extra
files. Both are read here with the standard library alone.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from melanoma_lib.errors import ExportError
from melanoma_lib.export.document import Document

RECORD, SEAL = "melanoma_lib.json", "melanoma_lib.seal"
ONNX, TORCHSCRIPT, PT2 = "onnx", "torchscript", "pt2"
METADATA_FIELD, KEY_FIELD, VALUE_FIELD = 14, 1, 2  # ModelProto.metadata_props and StringStringEntryProto of onnx.proto
BROKEN_ZIP = (zipfile.BadZipFile, RuntimeError, EOFError, OSError, struct.error, zlib.error)  # what zipfile raises of damage
VARINT, EIGHT_BYTES, WITH_LENGTH, FOUR_BYTES = 0, 1, 2, 5  # wire types of protocol buffers


@dataclass(frozen=True)
class ExportedFile:
    """A file whose record and network have been checked against each other.

    Attributes:
        format: onnx, torchscript or pt2.
        document: its record.
        model_sha256: digest of everything in the file but the record: graph and weights.
        data: the file's bytes.
    """

    format: str
    document: Document
    model_sha256: str
    data: bytes


def read_export(path: str | Path) -> ExportedFile:
    """Open an exported file and check its seal.

    The seal finds damage, a network changed after export, and a record (threshold, calibration) of another file. It is no
    signature: whoever changes a file on purpose can seal it again.

    Raises:
        ExportError: if the file is not there, was not exported by this kit, or has been changed since.
        ForeignThresholdError: if its operating point belongs to another checkpoint.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error}); make one with python -m melanoma_lib export") from error
    try:
        kind, entries, model_sha256 = _take_apart(data)
        record, seal = (entries[name].decode() for name in (RECORD, SEAL))
    except (ValueError, KeyError, IndexError, *BROKEN_ZIP) as error:
        raise ExportError(
            f"{path} is no model exported by this kit, or is damaged ({type(error).__name__}: {error}); "
            "make one with python -m melanoma_lib export"
        ) from error
    if seal != seal_of(model_sha256, record):
        what = "record" if seal.partition(" ")[0] == model_sha256 else "network"
        raise ExportError(f"{path}: its {what} is not the one it was exported with; export the run again")
    return ExportedFile(kind, Document.from_json(record), model_sha256, data)


def seal_of(model_sha256: str, record: str) -> str:
    """What ties a record to a network: the network's digest, and the digest of that digest and the record."""
    return f"{model_sha256} {hashlib.sha256(f'{model_sha256} {record}'.encode()).hexdigest()}"


def with_record(data: bytes, document: Document) -> bytes:
    """The bytes of a serialised network, with record and seal added.

    Args:
        data: an ONNX model without metadata, or a TorchScript or PT2 archive.
        document: the record.
    """
    kind, _, model_sha256 = _take_apart(data)
    record = document.to_json()
    entries = {RECORD: record, SEAL: seal_of(model_sha256, record)}
    if kind == ONNX:  # protocol buffers that follow each other are read as one
        pairs = (_field(KEY_FIELD, key.encode()) + _field(VALUE_FIELD, text.encode()) for key, text in entries.items())
        return data + b"".join(_field(METADATA_FIELD, pair) for pair in pairs)
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        for name, text in entries.items():
            archive.writestr(zipfile.ZipInfo(f"{root}/extra/{name}"), text)  # a fixed date: same model, same bytes
    return buffer.getvalue()


def _take_apart(data: bytes) -> tuple[str, dict[str, bytes], str]:
    """Format, the named texts of the kit, and the digest of all the rest."""
    digest, entries = hashlib.sha256(), {}
    if not data.startswith(b"PK"):
        for field, start, payload, end in _fields(data):
            if field == METADATA_FIELD:
                pair = {number: data[first:last] for number, _, first, last in _fields(data, payload, end)}
                entries[pair[KEY_FIELD].decode()] = pair[VALUE_FIELD]
            else:
                digest.update(data[start:end])
        return ONNX, entries, digest.hexdigest()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = sorted(archive.namelist())
        for name in names:
            tail = name.partition("/")[2]
            if tail in (f"extra/{RECORD}", f"extra/{SEAL}"):
                entries[tail.removeprefix("extra/")] = archive.read(name)
            else:
                digest.update(f"{name} {archive.getinfo(name).file_size} ".encode() + archive.read(name))
    kind = TORCHSCRIPT if any(name.endswith("/constants.pkl") for name in names) else PT2
    return kind, entries, digest.hexdigest()


def _fields(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Fields of a protocol buffer between two positions: number, where the field, its payload and the next field begin.

    Raises:
        ValueError: if the bytes are no protocol buffer.
    """
    at, stop = start, len(data) if stop is None else stop
    while at < stop:
        start = at
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == WITH_LENGTH:
            length, at = _varint(data, at)
        elif wire == VARINT:
            length = _varint(data, at)[1] - at
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if wire == EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if at + length > stop:
            raise ValueError(f"field {tag >> 3} at byte {start} is cut short")
        yield tag >> 3, start, at, at + length
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError(f"number of more than 64 bits at byte {at}")


def _field(number: int, payload: bytes) -> bytes:
    """A field with length, as a protocol buffer holds it."""
    return _as_varint(number << 3 | WITH_LENGTH) + _as_varint(len(payload)) + payload


def _as_varint(value: int) -> bytes:
    parts = [value & 127]
    while value := value >> 7:
        parts.append(value & 127)
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])
