import errno
import hashlib
import io
import json
import shutil
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from subprocess import CompletedProcess

import pytest

from melanoma_lib.data import catalogue, download, transfer
from melanoma_lib.data.catalogue import RemoteFile
from melanoma_lib.data.download import fetch
from melanoma_lib.data.sources import load_cases
from melanoma_lib.data.transfer import CHECKSUMS, fetch_file
from melanoma_lib.errors import DownloadError

PAYLOAD = bytes(range(256)) * 12_000  # 3 MB: several chunks


class Publisher(ThreadingHTTPServer):
    """A web server on this machine whose files, versions and failures the test decides."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.version: str | None = '"v1"'
        self.cuts: list[int] = []  # how many bytes of each coming reply are sent before the connection drops
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        shop, wanted = self.server, self.headers.get("Range")
        shop.asked.append((self.path, wanted))
        if self.path not in shop.files:
            self.send_error(404)
            return
        body = shop.files[self.path]
        start = 0
        if wanted and shop.version and self.headers.get("If-Range") == shop.version:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body) > 0 and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        if shop.version:
            self.send_header("ETag", shop.version)
        self.end_headers()
        self.wfile.write(rest[: shop.cuts.pop(0)] if shop.cuts else rest)

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


@pytest.fixture
def plain(shop):
    shop.files["/data.bin"] = PAYLOAD
    return RemoteFile("data.bin", f"{shop.url}/data.bin", md5=hashlib.md5(PAYLOAD).hexdigest())


def zipped(**members: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def quiet(_: str) -> None:
    pass


def test_a_file_arrives_whole_and_is_not_fetched_twice(shop, plain, tmp_path):
    said = []
    fetch_file(plain, tmp_path, said.append)
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]
    fetch_file(plain, tmp_path, said.append)
    assert len(shop.asked) == 1
    assert said == ["data.bin: done", "data.bin: already here"]


def test_a_cut_connection_is_resumed_where_it_stopped(shop, plain, tmp_path):
    shop.cuts = [1_500_000, 700_000]
    fetch_file(plain, tmp_path, quiet)
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD
    assert [wanted for _, wanted in shop.asked] == [None, "bytes=1500000-", "bytes=2200000-"]


def test_after_too_many_cuts_the_rest_is_left_to_the_next_call(shop, plain, tmp_path):
    shop.cuts = [100_000] * transfer.ATTEMPTS
    with pytest.raises(DownloadError, match=r"cut 5 times .*500,000 bytes are kept, run this again"):
        fetch_file(plain, tmp_path, quiet)
    assert not (tmp_path / "data.bin").exists()
    fetch_file(plain, tmp_path, quiet)
    assert shop.asked[-1] == ("/data.bin", "bytes=500000-")
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


@pytest.mark.parametrize("version", ['"v2"', None, 'W/"weak"'])
def test_a_rest_is_never_sewn_to_another_version(shop, plain, tmp_path, version):
    """The publisher replaces the file between two calls, or never says which version it is."""
    if version != '"v2"':
        shop.version = version
    shop.cuts = [500_000] * transfer.ATTEMPTS
    with pytest.raises(DownloadError, match="cut"):
        fetch_file(plain, tmp_path, quiet)
    shop.version = version
    shop.files["/data.bin"] = PAYLOAD[::-1]
    fresh = RemoteFile("data.bin", plain.url, md5=hashlib.md5(PAYLOAD[::-1]).hexdigest())
    fetch_file(fresh, tmp_path, quiet)
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD[::-1]


def test_a_process_killed_before_the_check_does_not_fetch_again(shop, plain, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(PAYLOAD)
    (tmp_path / "data.bin.part.version").write_text('"v1"')
    fetch_file(plain, tmp_path, quiet)
    assert shop.asked == [("/data.bin", f"bytes={len(PAYLOAD)}-")]
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


def test_a_partial_file_longer_than_the_whole_is_begun_anew(shop, plain, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(PAYLOAD + b"more")
    (tmp_path / "data.bin.part.version").write_text('"v1"')
    fetch_file(plain, tmp_path, quiet)
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_a_keystroke_keeps_what_has_come(shop, plain, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "_check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_file(plain, tmp_path, quiet)
    monkeypatch.undo()
    assert (tmp_path / "data.bin.part").stat().st_size == len(PAYLOAD)
    fetch_file(plain, tmp_path, quiet)
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_a_wrong_checksum_is_refused_and_nothing_stays(shop, plain, tmp_path):
    shop.files["/data.bin"] = PAYLOAD[:-1] + b"!"
    with pytest.raises(DownloadError, match=f"came with md5 .* the publisher states {plain.md5}"):
        fetch_file(plain, tmp_path, quiet)
    assert not (tmp_path / "data.bin").exists()
    assert not (tmp_path / "data.bin.part").exists()


def test_without_published_checksum_the_first_download_is_recorded_and_binds_the_next(shop, tmp_path):
    shop.files["/data.bin"] = PAYLOAD
    file = RemoteFile("data.bin", f"{shop.url}/data.bin")
    said = []
    fetch_file(file, tmp_path, said.append)
    assert (tmp_path / CHECKSUMS).read_text() == f"{hashlib.sha256(PAYLOAD).hexdigest()}  data.bin\n"
    assert "states no checksum; trusted as it came" in said[0]
    (tmp_path / "data.bin").unlink()
    fetch_file(file, tmp_path, quiet)
    (tmp_path / "data.bin").unlink()
    shop.files["/data.bin"] = b"something else"
    with pytest.raises(DownloadError, match="recorded at an earlier download"):
        fetch_file(file, tmp_path, quiet)


def test_a_damaged_checksum_file_is_named(shop, tmp_path):
    shop.files["/data.bin"] = PAYLOAD
    (tmp_path / CHECKSUMS).write_text("garbage\n")
    with pytest.raises(DownloadError, match=f"{CHECKSUMS} is damaged"):
        fetch_file(RemoteFile("data.bin", f"{shop.url}/data.bin"), tmp_path, quiet)


# --- zip files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(shop):
    def offer(content: bytes) -> RemoteFile:
        shop.files["/images.zip"] = content
        return RemoteFile("images.zip", f"{shop.url}/images.zip", folder="images")

    return offer


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_a_zip_is_unpacked_into_its_folder_with_or_without_its_own(archive, tmp_path, prefix):
    content = {f"{prefix}a.jpg": b"A", f"{prefix}sub/b.jpg": b"B", "__MACOSX/._a.jpg": b"junk", f"{prefix}.DS_Store": b"junk"}
    fetch_file(archive(zipped(**content)), tmp_path, quiet)
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: files[name] for name in files if name != CHECKSUMS} == {"images/a.jpg": b"A", "images/sub/b.jpg": b"B"}


@pytest.mark.parametrize("name", ["../evil.txt", "images/../../evil.txt", "/evil.txt", "C:/evil.txt", "..\\evil.txt"])
def test_a_zip_that_points_outside_is_not_unpacked_at_all(archive, tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(DownloadError, match="points outside its folder; nothing was unpacked"):
        fetch_file(archive(zipped(**{"good.jpg": b"A", name: b"B"})), root, quiet)
    assert [path.name for path in root.iterdir()] == ["images.zip"]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_link_in_a_zip_is_refused(archive, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        content.writestr(link, "/etc/passwd")
    with pytest.raises(DownloadError, match="'link', which points outside"):
        fetch_file(archive(buffer.getvalue()), tmp_path, quiet)


@pytest.mark.parametrize("damage", [lambda z: b"no zip at all", lambda z: z[:-30], lambda z: z[:60] + b"\0" * 200 + z[260:]])
def test_a_broken_zip_leaves_no_folder_and_binds_no_later_download(archive, tmp_path, damage):
    whole = zipped(**{f"{i}.jpg": hashlib.sha256(bytes([i])).digest() * 50 for i in range(20)})
    with pytest.raises(DownloadError, match="is no sound zip file"):
        fetch_file(archive(damage(whole)), tmp_path, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["images.zip"]
    (tmp_path / "images.zip").unlink()
    fetch_file(archive(whole), tmp_path, quiet)
    assert len(list((tmp_path / "images").iterdir())) == 20


def test_what_a_killed_unpacking_left_is_cleared(archive, tmp_path):
    (tmp_path / ".images.tmp").mkdir()
    (tmp_path / ".images.tmp/half.jpg").write_text("half")
    fetch_file(archive(zipped(**{"a.jpg": b"A"})), tmp_path, quiet)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["a.jpg"]
    assert not (tmp_path / ".images.tmp").exists()


# --- whole sources ------------------------------------------------------------------------------------------------------


@pytest.fixture
def challenge(shop, monkeypatch):
    monkeypatch.setattr(catalogue, "CHALLENGE", shop.url)
    header = "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"
    rows = "ISIC_1,IP_1,IL_1,male,50,torso,nevus,benign,0\nISIC_2,IP_2,IL_2,female,60,torso,melanoma,malignant,1\n"
    shop.files["/2020/ISIC_2020_Training_GroundTruth_v2.csv"] = (header + rows).encode()
    shop.files["/2020/ISIC_2020_Training_JPEG.zip"] = zipped(**{"train/ISIC_1.jpg": b"1", "train/ISIC_2.jpg": b"2"})
    return shop


def test_isic2020_is_fetched_licence_first_and_can_be_loaded(challenge, tmp_path):
    said = []
    root = fetch("isic2020", tmp_path / "new" / "isic2020", show=said.append)
    assert "CC BY-NC 4.0" in said[0]
    assert "doi:10.1038/s41597-021-00815-z" in said[0]
    cases = load_cases("isic2020", root)
    assert list(cases["target"]) == [0, 1]
    assert cases["image_path"].str.contains("jpeg/train").all()
    asked = len(challenge.asked)
    fetch("isic2020", root, show=quiet)
    assert len(challenge.asked) == asked


def test_the_licence_is_shown_even_when_nothing_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "CHALLENGE", "http://127.0.0.1:9")
    said = []
    with pytest.raises(DownloadError):
        fetch("isic2019", tmp_path, show=said.append)
    assert "Licence" in said[0]
    assert "Combalia" in said[0]


@pytest.mark.parametrize("source", ["ham10000", "isic2019", "isic2020", "isic_archive"])
def test_without_network_the_way_by_hand_is_given(tmp_path, monkeypatch, source):
    for service in ("CHALLENGE", "DATAVERSE", "ARCHIVE"):
        monkeypatch.setattr(catalogue, service, "http://127.0.0.1:9")  # discard: nothing listens there
    with pytest.raises(DownloadError, match=rf"(?s)no connection .*By hand: open the page, .*, in {tmp_path}\.\nPage: http"):
        fetch(source, tmp_path, show=quiet)


def test_an_absent_file_is_reported_with_the_servers_answer(challenge, tmp_path):
    del challenge.files["/2020/ISIC_2020_Training_JPEG.zip"]
    with pytest.raises(DownloadError, match=r"(?s)JPEG\.zip: the server answers 404 .*By hand"):
        fetch("isic2020", tmp_path, show=quiet)


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(DownloadError, match=r"'synthetic' cannot be fetched; expected one of \['ham10000'"):
        fetch("synthetic", tmp_path, show=quiet)


def test_too_little_space_is_said_before_a_byte_is_written(challenge, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(DownloadError, match=r"needs .* bytes, 10 are free; free some space and run this again"):
        fetch("isic2020", tmp_path, show=quiet)
    assert not list(tmp_path.glob("*.csv"))


def test_a_disk_that_fills_up_keeps_what_has_come(challenge, tmp_path, monkeypatch):
    real = zipfile.ZipFile.open

    def full(self, name, *args, **kwargs):
        if "ISIC_2" in getattr(name, "filename", name):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, name, *args, **kwargs)

    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    with pytest.raises(DownloadError, match="No space left on device; free some space and run this again"):
        fetch("isic2020", tmp_path, show=quiet)
    monkeypatch.undo()
    monkeypatch.setattr(catalogue, "CHALLENGE", challenge.url)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_JPEG.zip", CHECKSUMS}
    asked = len(challenge.asked)
    fetch("isic2020", tmp_path, show=quiet)
    assert len(challenge.asked) == asked  # the archive was kept
    assert len(load_cases("isic2020", tmp_path)) == 2


def test_a_folder_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="see that the folder can be written to"):
        fetch("isic2020", tmp_path / "file", show=quiet)


@pytest.fixture
def dataverse(shop, monkeypatch):
    monkeypatch.setattr(catalogue, "DATAVERSE", shop.url)
    table = b"lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\nHAM_1,ISIC_1,mel,histo,50,male,back,rosendahl\n"
    contents = {
        "HAM10000_images_part_1.zip": zipped(**{"ISIC_1.jpg": b"1"}),
        "HAM10000_images_part_2.zip": zipped(**{"ISIC_9.jpg": b"9"}),
        "HAM10000_segmentations_lesion_tschandl.zip": zipped(
            **{"HAM10000_segmentations_lesion_tschandl/ISIC_1_segmentation.png": b"m", "__MACOSX/x": b"junk"}
        ),
        "HAM10000_metadata.tab": table,
        "ISIC2018_Task3_Test_Images.zip": b"not wanted",
    }
    listed = []
    for number, (label, content) in enumerate(contents.items()):
        listed.append({"label": label, "dataFile": {"id": number, "md5": hashlib.md5(content).hexdigest()}})
        shop.files[f"/api/access/datafile/{number}" + ("?format=original" if label.endswith(".tab") else "")] = content
    shop.listing = {"status": "OK", "data": {"latestVersion": {"files": listed}}}
    address = f"/api/datasets/:persistentId/?persistentId={catalogue.HAM10000_DOI}"
    shop.files[address] = json.dumps(shop.listing).encode()
    shop.listing_address = address
    return shop


def test_ham10000_comes_from_the_dataverse_with_its_own_checksums(dataverse, tmp_path):
    root = fetch("ham10000", tmp_path, show=quiet)
    cases = load_cases("ham10000", root)
    assert list(cases["acquisition"]) == ["rosendahl"]
    assert cases["mask_path"].notna().all()
    assert not (root / CHECKSUMS).exists()
    assert not any("/4" in path for path, _ in dataverse.asked)


def test_ham10000_with_a_false_byte_is_refused(dataverse, tmp_path):
    dataverse.files["/api/access/datafile/0"] += b"!"
    with pytest.raises(DownloadError, match=r"HAM10000_images_part_1\.zip came with md5"):
        fetch("ham10000", tmp_path, show=quiet)


@pytest.mark.parametrize("reply", [b"<html>", b"[]", b'{"data": {}}', b'{"data": {"latestVersion": {"files": []}}}'])
def test_a_dataverse_that_answers_otherwise_is_reported(dataverse, tmp_path, reply):
    dataverse.files[dataverse.listing_address] = reply
    with pytest.raises(DownloadError, match=r"gave no readable answer|answered without"):
        fetch("ham10000", tmp_path, show=quiet)


@pytest.fixture
def archive_site(shop, monkeypatch):
    monkeypatch.setattr(catalogue, "ARCHIVE", shop.url)
    pytest.importorskip("isic_cli", reason="isic-cli is not installed")
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


def test_a_collection_is_found_by_name_on_any_page(archive_site, tmp_path, monkeypatch):
    commands = fake_cli(monkeypatch, tmp_path, images=2)
    fetch("isic_archive", tmp_path, show=quiet)
    assert commands[0][1:] == ["-m", "isic_cli.cli", "image", "download", "--collections", "731", str(tmp_path)]
    assert len(load_cases("isic_archive", tmp_path)) == 2


def test_isic_cli_understands_the_command_we_give(archive_site):
    from isic_cli.cli.image import download as command

    context = command.make_context("download", ["--collections", "", "--limit", "0", "out"], resilient_parsing=True)
    assert {"collections", "outdir"} <= set(context.params)


def test_images_that_isic_cli_skipped_are_counted(archive_site, tmp_path, monkeypatch):
    fake_cli(monkeypatch, tmp_path, images=1)
    with pytest.raises(DownloadError, match=r"1 of 2 images did not come \(ISIC_1\); run this again"):
        fetch("isic_archive", tmp_path, "ham10000", show=quiet)


def test_an_isic_cli_that_fails_is_reported(archive_site, tmp_path, monkeypatch):
    fake_cli(monkeypatch, tmp_path, images=2, status=1)
    with pytest.raises(DownloadError, match="isic-cli ended with status 1"):
        fetch("isic_archive", tmp_path, show=quiet)


@pytest.mark.parametrize(("name", "message"), [("BCN2000", "0 of 4 .*'BCN20000'"), ("Twice", "2 of 4 .*'Twice'")])
def test_a_collection_that_is_not_unique_names_similar_ones(archive_site, tmp_path, name, message):
    with pytest.raises(DownloadError, match=message):
        fetch("isic_archive", tmp_path, name, show=quiet)


def test_without_isic_cli_its_installation_is_advised(tmp_path, monkeypatch):
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match="pip install isic-cli"):
        fetch("isic_archive", tmp_path, show=quiet)


def test_every_offer_names_licence_citation_and_way():
    for offer in catalogue.OFFERS.values():
        assert offer.page.startswith("https://")
        assert all(word in str(offer) for word in ("Licence: ", "Please cite:", *offer.cite))
