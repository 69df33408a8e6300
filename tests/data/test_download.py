"""Downloads from a publisher that the test plays, with the faults that real ones have."""

import errno
import hashlib
import io
import json
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from melanoma_lib.data import download
from melanoma_lib.data.download import OFFERS, fetch
from melanoma_lib.data.sources import load_cases
from melanoma_lib.errors import DownloadError

TABLE, ARCHIVE = "/2020/ISIC_2020_Training_GroundTruth_v2.csv", "/2020/ISIC_2020_Training_JPEG.zip"
HEADER = "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"
ROWS = "ISIC_1,IP_1,IL_1,male,50,torso,nevus,benign,0\nISIC_2,IP_2,IL_2,female,60,torso,melanoma,malignant,1\n"
PIXELS = hashlib.shake_256(b"pixels").digest(300_000)
WHOLE = {Path(TABLE).name, "jpeg"}


class Publisher:
    """What pooch is given in place of its downloader: files by path, and the faults that the test decides."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.cut: str = ""  # the path of a file whose connection drops half-way
        self.asked: list[str] = []

    def __call__(self, url, out, _):
        path = url.removeprefix("http://publisher")
        self.asked.append(path)
        if path not in self.files:
            raise OSError(f"404 Client Error: Not Found for url: {url}")
        content = self.files[path]
        out.write(content) if hasattr(out, "write") else Path(out).write_bytes(content[: 100 if path == self.cut else None])
        if path == self.cut:
            raise OSError("IncompleteRead")


@pytest.fixture
def shop(monkeypatch):
    publisher = Publisher()
    for service in ("CHALLENGE", "DATAVERSE", "ARCHIVE"):
        monkeypatch.setattr(download, service, "http://publisher")
    monkeypatch.setattr(download, "_downloader", lambda: publisher)
    return publisher


def zipped(**members: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def challenge(shop):
    shop.files[TABLE] = (HEADER + ROWS).encode()
    shop.files[ARCHIVE] = zipped(**{"train/ISIC_1.jpg": PIXELS, "train/ISIC_2.jpg": PIXELS[::-1]})
    return shop


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_a_source_is_fetched_licence_first_can_be_loaded_and_is_not_fetched_twice(challenge, tmp_path):
    said, root = [], tmp_path / "new" / "isic2020"
    (root / ".jpeg.tmp" / "left by a killed process").mkdir(parents=True)
    assert fetch("isic2020", root, show=said.append) == root
    assert "CC BY-NC 4.0" in said[0] and "doi:10.1038/s41597-021-00815-z" in said[0]
    assert any(hashlib.sha256(challenge.files[ARCHIVE]).hexdigest() in line for line in said)
    cases = load_cases("isic2020", root)
    assert list(cases["target"]) == [0, 1]
    assert Path(cases["image_path"][1]).read_bytes() == PIXELS[::-1]
    assert names(root) == WHOLE
    asked = len(challenge.asked)
    fetch("isic2020", root)
    assert len(challenge.asked) == asked


def damaged(archive: bytes) -> bytes:
    return archive[:200] + bytes([archive[200] ^ 255]) + archive[201:]


@pytest.mark.parametrize(
    ("path", "fault", "message"),
    [
        (ARCHIVE, "cut", "IncompleteRead"),
        (TABLE, "cut", "IncompleteRead"),
        (ARCHIVE, None, r"404 .*JPEG\.zip"),
        (TABLE, b"<html>log in", r"v2\.csv is not sound \(a web page came in its place"),
        (ARCHIVE, b"<html>log in", r"JPEG\.zip is not sound \(File is not a zip file"),
        (ARCHIVE, damaged, r"JPEG\.zip is not sound"),
    ],
)
def test_what_does_not_come_whole_is_told_and_the_next_call_goes_on(challenge, tmp_path, path, fault, message):
    sound = dict(challenge.files)
    challenge.cut = path if fault == "cut" else ""
    if fault is None:
        del challenge.files[path]
    elif fault != "cut":
        challenge.files[path] = fault if isinstance(fault, bytes) else fault(sound[path])
    with pytest.raises(DownloadError, match=rf"(?s){message}.*run this again.*By hand: open http.*save in {tmp_path}: "):
        fetch("isic2020", tmp_path)
    assert names(tmp_path) == ({Path(TABLE).name} if path == ARCHIVE else set())
    challenge.files, challenge.cut, challenge.asked = sound, "", []
    fetch("isic2020", tmp_path)
    assert challenge.asked == ([ARCHIVE] if path == ARCHIVE else [TABLE, ARCHIVE])
    assert names(tmp_path) == WHOLE
    assert len(load_cases("isic2020", tmp_path)) == 2


@pytest.mark.parametrize("source", OFFERS)
def test_without_network_licence_and_the_way_by_hand_are_given(tmp_path, monkeypatch, source):
    for service in ("CHALLENGE", "DATAVERSE", "ARCHIVE"):
        monkeypatch.setattr(download, service, "http://127.0.0.1:9")  # discard: nothing listens there
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: name)
    said = []
    with pytest.raises(DownloadError, match=rf"(?s)refused.*https_proxy.*By hand: open http.*save in {tmp_path}: "):
        fetch(source, tmp_path, show=said.append)
    assert all(word in said[0] for word in ("Licence: ", "Please cite:", *OFFERS[source].cite))


def test_a_full_disk_a_file_in_the_way_and_an_unknown_source_are_clear_errors(challenge, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    for _ in range(2):
        with pytest.raises(DownloadError, match=r"(?s)No space left on device.*free space"):
            fetch("isic2020", tmp_path)
    assert names(tmp_path) == {Path(TABLE).name, "ISIC_2020_Training_JPEG.zip"}
    assert challenge.asked == [TABLE, ARCHIVE]  # the archive need not come again
    with pytest.raises(DownloadError, match="can be written to"):
        fetch("isic2020", tmp_path / Path(TABLE).name)
    with pytest.raises(DownloadError, match=r"'synthetic' cannot be fetched; expected one of \['ham10000'"):
        fetch("synthetic", tmp_path)


def test_ham10000_comes_from_the_dataverse_with_its_own_checksums(shop, tmp_path):
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
    listing = f"/api/datasets/:persistentId/?persistentId={download.HAM10000_DOI}"
    shop.files[listing] = json.dumps({"data": {"latestVersion": {"files": listed}}}).encode()
    cases = load_cases("ham10000", fetch("ham10000", tmp_path / "whole"))
    assert list(cases["acquisition"]) == ["rosendahl"]
    assert cases["mask_path"].notna().all()
    assert "/api/access/datafile/4" not in shop.asked
    shop.files["/api/access/datafile/0"] += b"!"
    with pytest.raises(DownloadError, match=r"HAM10000_images_part_1\.zip\) does not match the known hash"):
        fetch("ham10000", tmp_path / "wrong")
    assert names(tmp_path / "wrong") == {"HAM10000_metadata"}
    for reply in (b"<html>", b"[]", b'{"data": {}}', b'{"data": {"latestVersion": {"files": []}}}'):
        shop.files[listing] = reply
        with pytest.raises(DownloadError, match=r"ham10000 was not fetched whole: (?s:.*)By hand"):
            fetch("ham10000", tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "images", "status", "message"),
    [
        (None, 2, 0, None),
        ("ham10000", 1, 0, r"1 of 2 images did not come \('ISIC_1'\)(?s:.*)run this again"),
        ("ham10000", 2, 1, "isic-cli ended with status 1"),
        ("BCN2000", 2, 0, "0 public collections .*'BCN20000'"),
        ("Twice", 2, 0, "2 public collections .*'Twice'"),
    ],
)
def test_a_collection_is_found_by_name_on_any_page_or_reported(shop, tmp_path, monkeypatch, name, images, status, message):
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: name)
    named = [{"id": 7 * k, "name": name} for k, name in enumerate(("HAM10000", "Twice", "BCN20000", "Twice"))]
    pages = {"/collections/": (named[:2], "http://publisher/more"), "/more": (named[2:], None)}
    shop.files |= {path: json.dumps({"results": found, "next": more}).encode() for path, (found, more) in pages.items()}
    commands = []

    def run(command, **_):
        """In place of isic-cli: metadata of two images and so many of their files."""
        commands.append(command)
        (tmp_path / "metadata.csv").write_text("isic_id,diagnosis_1,attribution\nISIC_0,Benign,Clinic\nISIC_1,Benign,Clinic\n")
        for i in range(images):
            (tmp_path / f"ISIC_{i}.JPG").write_bytes(b"x")
        return CompletedProcess(command, status)

    monkeypatch.setattr(download.subprocess, "run", run)
    if message:
        with pytest.raises(DownloadError, match=message):
            fetch("isic_archive", tmp_path, name)
        return
    fetch("isic_archive", tmp_path, name)
    assert commands[0][1:] == ["-m", "isic_cli.cli", "image", "download", "--collections", "14", str(tmp_path)]
    assert len(load_cases("isic_archive", tmp_path)) == 2


def test_isic_cli_understands_the_command_we_give():
    command = pytest.importorskip("isic_cli.cli.image", reason="isic-cli is not installed").download
    context = command.make_context("download", ["--collections", "", "--limit", "0", "out"], resilient_parsing=True)
    assert {"collections", "outdir"} <= set(context.params)
