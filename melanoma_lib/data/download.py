"""What can be fetched, as ``offers.toml`` says; and fetching it, checksummed, whole or not at all."""

from __future__ import annotations

import difflib
import errno
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pooch

from melanoma_lib.data.readers import read_table
from melanoma_lib.data.schema import listed
from melanoma_lib.data.sources import list_files
from melanoma_lib.errors import DownloadError

DATAVERSE = "https://dataverse.harvard.edu"
CHALLENGE = "https://isic-challenge-data.s3.amazonaws.com"
ARCHIVE = "https://api.isic-archive.com/api/v2"
HAM10000_DOI = "doi:10.7910/DVN/DBW86T"
DEFAULT_COLLECTION = "BCN20000"


@dataclass(frozen=True)
class Offer:
    """One data set as its publisher offers it."""

    title: str
    page: str  # where a person finds it in a browser
    licence: str
    cite: list[str]
    files: dict[str, str]  # name at the publisher's -> for a zip, the folder its content ends up in, else ""

    def __str__(self) -> str:
        cite = "\n".join(f"  {work}" for work in self.cite)
        return f"{self.title}\nPage: {self.page}\nLicence: {self.licence}\nPlease cite:\n{cite}"

    def by_hand(self, root: Path) -> str:
        """What to do where there is no network, or the publisher has changed something."""
        files = (
            PurePosixPath(name).name + (f" (unpack into {root / folder})" if folder else "")
            for name, folder in self.files.items()
        )
        return f"By hand: open {self.page}, accept the terms and save in {root}: {', '.join(files)}."


OFFERS = {
    source: Offer(**offer)
    for source, offer in tomllib.loads(Path(__file__).with_name("offers.toml").read_text(encoding="utf-8")).items()
}


def fetch(source: str, root: str | Path, collection: str | None = None, show: Callable[[str], None] = print) -> Path:
    """Fetch a data set into a folder that ``load_cases`` reads; what is there already is left alone.

    Licence and citation are shown before the first byte is asked for. Whatever stops a download, the same call goes on: with
    the next file, and within an archive where it stopped (kept as ``.part``). HAM10000's checksums are published and checked;
    of the others, archives are checked as they are unpacked. The SHA-256 of each file is shown.

    Args:
        source: ``ham10000``, ``isic2019``, ``isic2020`` or ``isic_archive``.
        root: folder to put it in and to return; made when absent.
        collection: for ``isic_archive``: name of the collection; default BCN20000.
        show: receives each message.

    Raises:
        DownloadError: unknown source, no network, absent file, wrong checksum, broken archive, full disk; the message ends with
            the way to do it by hand.
    """
    if source not in OFFERS:
        raise DownloadError(
            f"source {source!r} cannot be fetched; expected one of {list(OFFERS)}. Synthetic cases are generated."
        )
    root, offer = Path(root).expanduser(), OFFERS[source]
    show(str(offer))
    try:
        root.mkdir(parents=True, exist_ok=True)
        if source == "isic_archive":
            _fetch_collection(root, collection or DEFAULT_COLLECTION, show)
        else:
            found = _dataverse_files() if source == "ham10000" else [(f"{CHALLENGE}/{path}", None) for path in offer.files]
            for (url, md5), (path, folder) in zip(found, offer.files.items(), strict=True):
                _fetch_file(url, root / PurePosixPath(path).name, folder, md5, show)
    except DownloadError as error:
        raise DownloadError(f"{error}\n{offer.by_hand(root)}") from error
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "see that the folder can be written to"
        raise DownloadError(
            f"cannot write to {root}: {error.strerror or error}; {remedy} and run this again to go on."
        ) from error
    return root


def _dataverse_files() -> list[tuple[str, str]]:
    """Address and MD5 of each file of HAM10000; for tables, the Dataverse states the MD5 of the original."""
    address = f"{DATAVERSE}/api/datasets/:persistentId/?persistentId={HAM10000_DOI}"
    with _understood(address) as reply:
        entries = reply["data"]["latestVersion"]["files"]
        listing = {entry["label"].removesuffix(".tab").removesuffix(".csv"): entry["dataFile"] for entry in entries}
        return [
            (f"{DATAVERSE}/api/access/datafile/{listing[name]['id']}{'' if folder else '?format=original'}", listing[name]["md5"])
            for name, folder in OFFERS["ham10000"].files.items()
        ]


@contextmanager
def _understood(address: str) -> Iterator[Any]:
    """What an address answers in JSON; DownloadError if that, or what the body looks for in it, is not there."""
    reply = io.BytesIO()
    _get(address, reply)
    try:
        yield json.loads(reply.getvalue())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{address} gave no answer as expected ({error!r}); try again later, or it has changed.") from error


def _fetch_file(url: str, archive: Path, folder: str, md5: str | None, show: Callable[[str], None]) -> None:
    target = archive.with_name(folder or archive.name)
    if target.exists():
        show(f"{target.name}: already here")
        return
    if not archive.exists():
        show(f"{archive.name}: from {url}")
        part = archive.with_name(f"{archive.name}.part")
        if not folder:  # only archives go on where they stopped: their own checksums tell a rest of another version
            part.unlink(missing_ok=True)
        _bring(url, part)
        if md5 and (came := pooch.file_hash(str(part), "md5")) != md5:
            part.unlink()
            raise DownloadError(
                f"{archive.name} came with MD5 {came}, the publisher states {md5}; it has been deleted. Run this again; if it "
                "stays so, the publisher's file has changed: look at its page before trusting it."
            )
        part.replace(archive)
        show(f"{archive.name}: SHA-256 {pooch.file_hash(str(archive))}")
    if folder:
        show(f"{archive.name}: unpacking")
        _unpack(archive, target)
    show(f"{target.name}: done")


def _bring(url: str, part: Path) -> None:
    """Download to ``part``, going on where an earlier attempt stopped, as long as each attempt brings something."""
    while True:
        done = part.stat().st_size if part.exists() else 0
        try:
            with part.open("ab") as out:
                _get(url, out, done)
            return
        except DownloadError:
            size = part.stat().st_size
            if size == done or 0 < size < done:  # 0: the rest was refused, so the whole is asked for next
                raise


def _get(url: str, out: IO[bytes], done: int = 0) -> None:
    """Append what an address sends to ``out``: its rest from byte ``done`` on or, where that is not to be had, all of it."""

    def inspect(response: Any, **_: Any) -> None:
        if response.status_code in (200, 206):
            if "text/html" in response.headers.get("Content-Type", ""):
                raise DownloadError(f"{url} sent a web page in place of the file; open it in a browser to see what it asks for.")
            if hasattr(out, "name"):
                _require_space(Path(out.name), int(response.headers.get("Content-Length", 0)))
        if response.status_code in (200, 416) and done:
            out.truncate(0)

    headers = {"User-Agent": "melanoma_lib", "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    bar = sys.stderr.isatty()
    download = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, headers=headers, hooks={"response": inspect})
    try:
        download(url, out, None)
    except OSError as error:  # those of the network among them
        if error.errno is not None:
            raise
        raise DownloadError(f"{url} cannot be fetched ({error}). Check the network, or the proxy in https_proxy.") from error


def _require_space(file: Path, needed: int) -> None:
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{file.name} needs {needed:,} bytes, {free:,} are free")


def _unpack(archive: Path, target: Path) -> None:
    """Unpack into a temporary folder, then rename: the target is there whole or not at all. The archive goes."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.filename.startswith("__MACOSX")]
            _require_space(target, sum(member.file_size for member in members))
            content.extractall(temporary, members)  # never outside: it drops "..", drives and leading slashes
        inner = temporary / target.name
        (inner if inner.is_dir() else temporary).replace(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        archive.unlink()
        raise DownloadError(f"{archive.name} is no sound zip file ({error}); it has been deleted, run this again.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    archive.unlink()


def _fetch_collection(root: Path, name: str, show: Callable[[str], None]) -> None:
    if importlib.util.find_spec("isic_cli") is None:
        raise DownloadError("isic-cli is not installed; `pip install isic-cli` and run this again.")
    number = _collection_id(name)
    show(f"Collection {name!r} has the number {number} today. isic-cli fetches what is not here yet.")
    command = [sys.executable, "-m", "isic_cli.cli", "image", "download", "--collections", str(number), str(root)]
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # without a terminal it asks nothing
    table = root / "metadata.csv"
    if status or not table.is_file():
        raise DownloadError(f"isic-cli ended with status {status} before it was done; run this again to go on.")
    wanted = set(read_table(table, needs=("isic_id",))["isic_id"])
    absent = sorted(wanted - set(list_files([root])))
    if absent:
        raise DownloadError(f"{len(absent)} of {len(wanted)} images did not come ({listed(absent)}); run this again to go on.")


def _collection_id(name: str) -> int:
    """Number of a collection, looked up by its name since numbers change."""
    found, address = [], f"{ARCHIVE}/collections/"
    while address:
        with _understood(address) as page:
            found += [(entry["name"], entry["id"]) for entry in page["results"]]
            address = page["next"]
    numbers = [number for title, number in found if title.casefold() == name.casefold()]
    if len(numbers) != 1:
        titles = [title for title, _ in found]
        near = difflib.get_close_matches(name, titles, n=5, cutoff=0.4) or sorted(titles)[:5]
        raise DownloadError(f"{len(numbers)} of {len(found)} public collections are called {name!r}; similar names: {near}.")
    return numbers[0]
