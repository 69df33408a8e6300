"""Downloads against a web server on this machine, with the faults that real ones have."""

import errno
import hashlib
import io
import json
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from melanoma_lib.data import download
from melanoma_lib.data.download import OFFERS, fetch
from melanoma_lib.data.sources import load_cases
from melanoma_lib.errors import DownloadError

TABLE, ARCHIVE = "/2020/ISIC_2020_Training_GroundTruth_v2.csv", "/2020/ISIC_2020_Training_JPEG.zip"
HEADER = "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"
ROWS = "ISIC_1,IP_1,IL_1,male,50,torso,nevus,benign,0\nISIC_2,IP_2,IL_2,female,60,torso,melanoma,malignant,1\n"
PIXELS = hashlib.shake_256(b"pixels").digest(300_000)


class Publisher(ThreadingHTTPServer):
    """A web server on this machine whose files and failures the test decides."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.kind = "application/octet-stream"
        self.ranges = True  # whether the rest of a file can be had
        self.cuts: dict[str, list[int]] = {}  # how many bytes of each coming reply are sent before the connection drops
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def replies(self, path: str) -> list[str | None]:
        return [wanted for asked, wanted in self.asked if asked == path]


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        shop, wanted = self.server, self.headers.get("Range")
        shop.asked.append((self.path, wanted))
        if self.path not in shop.files:
            self.send_error(404)
            return
        body = shop.files[self.path]
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and shop.ranges else 0
        status = 416 if start >= len(body) else 206 if start else 200
        rest = b"<Error>no such range</Error>" if status == 416 else body[start:]
        cuts = shop.cuts.get(self.path)  # before the headers, at which the other side may raise and the test go on
        sent = rest[: cuts.pop(0)] if cuts else rest
        self.send_response(status)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("Content-Type", shop.kind)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@pytest.fixture
def shop():
    server = Publisher()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def zipped(**members: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def challenge(shop, monkeypatch):
    monkeypatch.setattr(download, "CHALLENGE", shop.url)
    shop.files[TABLE] = (HEADER + ROWS).encode()
    shop.files[ARCHIVE] = zipped(**{"train/ISIC_1.jpg": PIXELS, "train/ISIC_2.jpg": PIXELS[::-1]})
    return shop


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


WHOLE = {Path(TABLE).name, "jpeg"}


def test_a_source_is_fetched_licence_first_can_be_loaded_and_is_not_fetched_twice(challenge, tmp_path):
    said = []
    root = fetch("isic2020", tmp_path / "new" / "isic2020", show=said.append)
    assert "CC BY-NC 4.0" in said[0] and "doi:10.1038/s41597-021-00815-z" in said[0]
    assert any(hashlib.sha256(challenge.files[ARCHIVE]).hexdigest() in line for line in said)
    cases = load_cases("isic2020", root)
    assert list(cases["target"]) == [0, 1]
    assert Path(cases["image_path"][1]).read_bytes() == PIXELS[::-1]
    assert names(root) == WHOLE
    asked = len(challenge.asked)
    fetch("isic2020", root)
    assert len(challenge.asked) == asked


def test_a_cut_connection_is_resumed_where_it_stopped(challenge, tmp_path):
    challenge.cuts = {ARCHIVE: [2**17, 2**16]}
    (tmp_path / ".jpeg.tmp").mkdir()
    (tmp_path / ".jpeg.tmp" / "half.jpg").write_text("left by a killed process")
    fetch("isic2020", tmp_path)
    assert challenge.replies(ARCHIVE) == [None, "bytes=131072-", "bytes=196608-"]
    assert len(load_cases("isic2020", tmp_path)) == 2
    assert sorted(path.name for path in (tmp_path / "jpeg").rglob("*.jpg")) == ["ISIC_1.jpg", "ISIC_2.jpg"]


@pytest.mark.parametrize("ranges", [True, False])
def test_what_came_before_the_network_failed_is_kept_for_the_next_call(challenge, tmp_path, ranges):
    challenge.ranges = ranges
    challenge.cuts = {ARCHIVE: [200_000, 0, 0]}
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch("isic2020", tmp_path)
    assert names(tmp_path) == {Path(TABLE).name, "ISIC_2020_Training_JPEG.zip.part"}
    challenge.cuts = {}
    fetch("isic2020", tmp_path)
    assert names(tmp_path) == WHOLE
    assert len(load_cases("isic2020", tmp_path)) == 2


@pytest.mark.parametrize("length", [300, 5_000_000])  # the other version may be longer than the whole of this one
def test_a_rest_of_another_version_is_found_out_and_begun_anew(challenge, tmp_path, length):
    (tmp_path / "ISIC_2020_Training_JPEG.zip.part").write_bytes(b"?" * length)
    (tmp_path / f"{Path(TABLE).name}.part").write_bytes(b"?" * 30)
    if length < len(challenge.files[ARCHIVE]):
        with pytest.raises(DownloadError, match="is no sound zip file"):
            fetch("isic2020", tmp_path)
        assert names(tmp_path) == {Path(TABLE).name}
    fetch("isic2020", tmp_path)
    assert names(tmp_path) == WHOLE
    assert (tmp_path / Path(TABLE).name).read_bytes() == challenge.files[TABLE]


@pytest.mark.parametrize("damage", [lambda z: b"no zip at all", lambda z: z[:-30], lambda z: z[:60] + b"\0" * 200 + z[260:]])
def test_a_broken_archive_leaves_no_folder_and_is_fetched_again(challenge, tmp_path, damage):
    whole = challenge.files[ARCHIVE]
    challenge.files[ARCHIVE] = damage(whole)
    with pytest.raises(DownloadError, match=r"(?s)is no sound zip file .*run this again.*By hand: open https"):
        fetch("isic2020", tmp_path)
    assert names(tmp_path) == {Path(TABLE).name}
    challenge.files[ARCHIVE] = whole
    assert len(load_cases("isic2020", fetch("isic2020", tmp_path))) == 2


@pytest.mark.parametrize("name", ["../evil.txt", "train/../../evil.txt", "/evil.txt", "C:/evil.txt", "..\\evil.txt", "link"])
def test_nothing_in_an_archive_lands_outside_its_folder(challenge, tmp_path, name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (0o120777 if name == "link" else 0o100644) << 16  # a symbolic link, in archives of Unix
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, "/etc/passwd")
    challenge.files[ARCHIVE] = buffer.getvalue()
    root = fetch("isic2020", tmp_path / "a" / "root")
    assert names(tmp_path) == {"a"} and names(tmp_path / "a") == {"root"} and names(root) == WHOLE
    assert not any(path.is_symlink() for path in root.rglob("*"))


def test_what_a_server_sends_in_place_of_the_file_is_told(challenge, tmp_path):
    challenge.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match=r"sent a web page in place of the file"):
        fetch("isic2020", tmp_path)
    assert not list(tmp_path.glob("*.csv"))
    challenge.kind = "text/csv"
    challenge.cuts = {TABLE: [150]}
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch("isic2020", tmp_path)
    assert not list(tmp_path.glob("*.csv"))
    del challenge.files[ARCHIVE]
    with pytest.raises(DownloadError, match=r"(?s)JPEG\.zip cannot be fetched \(404 .*By hand"):
        fetch("isic2020", tmp_path)
    with pytest.raises(DownloadError, match="see that the folder can be written to"):
        fetch("isic2020", tmp_path / Path(TABLE).name)


@pytest.mark.parametrize("source", OFFERS)
def test_without_network_licence_and_the_way_by_hand_are_given(tmp_path, monkeypatch, source):
    for service in ("CHALLENGE", "DATAVERSE", "ARCHIVE"):
        monkeypatch.setattr(download, service, "http://127.0.0.1:9")  # discard: nothing listens there
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: name)
    said = []
    with pytest.raises(DownloadError, match=rf"(?s)cannot be fetched .*https_proxy.*By hand: open http.*save in {tmp_path}: "):
        fetch(source, tmp_path, show=said.append)
    assert all(word in said[0] for word in ("Licence: ", "Please cite:", *OFFERS[source].cite))


def test_too_little_space_is_said_and_leaves_nothing_half(challenge, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(DownloadError, match=r"needs .* bytes, 10 are free; free some space and run this again"):
            fetch("isic2020", tmp_path)
    assert not list(tmp_path.glob("*.csv"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(DownloadError, match="No space left on device; free some space and run this again"):
        fetch("isic2020", tmp_path)
    assert names(tmp_path) == {Path(TABLE).name, "ISIC_2020_Training_JPEG.zip"}  # the archive need not come again


# --- HAM10000 from the Dataverse ----------------------------------------------------------------------------------------


@pytest.fixture
def dataverse(shop, monkeypatch):
    monkeypatch.setattr(download, "DATAVERSE", shop.url)
    table = b"lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\nHAM_1,ISIC_1,mel,histo,50,male,back,rosendahl\n"
    masks = "HAM10000_segmentations_lesion_tschandl"
    contents = {
        "HAM10000_images_part_1.zip": zipped(**{"ISIC_1.jpg": b"1"}),
        "HAM10000_images_part_2.zip": zipped(**{"ISIC_9.jpg": b"9"}),
        f"{masks}.zip": zipped(**{f"{masks}/ISIC_1_segmentation.png": b"m", "__MACOSX/x": b"junk"}),
        "HAM10000_metadata.tab": table,
        "ISIC2018_Task3_Test_Images.zip": b"not wanted",
    }
    listed = []
    for number, (label, content) in enumerate(contents.items()):
        listed.append({"label": label, "dataFile": {"id": number, "md5": hashlib.md5(content).hexdigest()}})
        shop.files[f"/api/access/datafile/{number}" + ("?format=original" if label.endswith(".tab") else "")] = content
    shop.listing = f"/api/datasets/:persistentId/?persistentId={download.HAM10000_DOI}"
    shop.files[shop.listing] = json.dumps({"data": {"latestVersion": {"files": listed}}}).encode()
    return shop


def test_ham10000_comes_from_the_dataverse_with_its_own_checksums(dataverse, tmp_path):
    cases = load_cases("ham10000", fetch("ham10000", tmp_path))
    assert list(cases["acquisition"]) == ["rosendahl"]
    assert cases["mask_path"].notna().all()
    assert not dataverse.replies("/api/access/datafile/4")


def test_a_wrong_checksum_is_refused_and_nothing_stays(dataverse, tmp_path):
    dataverse.files["/api/access/datafile/0"] += b"!"
    with pytest.raises(DownloadError, match=r"HAM10000_images_part_1\.zip came with MD5 .* the publisher states"):
        fetch("ham10000", tmp_path)
    assert names(tmp_path) == {"HAM10000_metadata"}


@pytest.mark.parametrize("reply", [b"<html>", b"[]", b'{"data": {}}', b'{"data": {"latestVersion": {"files": []}}}'])
def test_a_dataverse_that_answers_otherwise_is_reported(dataverse, tmp_path, reply):
    dataverse.files[dataverse.listing] = reply
    with pytest.raises(DownloadError, match="gave no answer as expected"):
        fetch("ham10000", tmp_path)


# --- collections of the archive, by isic-cli ----------------------------------------------------------------------------


@pytest.fixture
def archive(shop, monkeypatch):
    """The archive's list of collections, on two pages."""
    monkeypatch.setattr(download, "ARCHIVE", shop.url)
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: name)
    first = {"results": [{"id": 5, "name": "HAM10000"}, {"id": 6, "name": "Twice"}], "next": f"{shop.url}/collections/?page=2"}
    second = {"results": [{"id": 731, "name": "BCN20000"}, {"id": 8, "name": "Twice"}], "next": None}
    shop.files |= {"/collections/": json.dumps(first).encode(), "/collections/?page=2": json.dumps(second).encode()}
    return shop


def fake_cli(monkeypatch, root, images: int, status: int = 0) -> list[list[str]]:
    """In place of isic-cli: writes metadata for two images and so many of their files."""
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        rows = "".join(f"ISIC_{i},Benign,Clinic\n" for i in range(2))
        (root / "metadata.csv").write_text("isic_id,diagnosis_1,attribution\n" + rows)
        for i in range(images):
            (root / f"ISIC_{i}.JPG").write_bytes(b"x")
        return CompletedProcess(command, status)

    monkeypatch.setattr(download.subprocess, "run", run)
    return commands


def test_a_collection_is_found_by_name_on_any_page(archive, tmp_path, monkeypatch):
    commands = fake_cli(monkeypatch, tmp_path, images=2)
    fetch("isic_archive", tmp_path)
    assert commands[0][1:] == ["-m", "isic_cli.cli", "image", "download", "--collections", "731", str(tmp_path)]
    assert len(load_cases("isic_archive", tmp_path)) == 2


def test_isic_cli_understands_the_command_we_give():
    command = pytest.importorskip("isic_cli.cli.image", reason="isic-cli is not installed").download
    context = command.make_context("download", ["--collections", "", "--limit", "0", "out"], resilient_parsing=True)
    assert {"collections", "outdir"} <= set(context.params)


@pytest.mark.parametrize(
    ("name", "images", "status", "message"),
    [
        ("ham10000", 1, 0, r"1 of 2 images did not come \('ISIC_1'\); run this again"),
        ("ham10000", 2, 1, "isic-cli ended with status 1"),
        ("BCN2000", 2, 0, "0 of 4 .*'BCN20000'"),
        ("Twice", 2, 0, "2 of 4 .*'Twice'"),
    ],
)
def test_collections_that_cannot_be_had_are_reported(archive, tmp_path, monkeypatch, name, images, status, message):
    fake_cli(monkeypatch, tmp_path, images, status)
    with pytest.raises(DownloadError, match=message):
        fetch("isic_archive", tmp_path, name)
