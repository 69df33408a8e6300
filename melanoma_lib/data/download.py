"""What can be fetched, as ``offers.toml`` says; and fetching it, checksummed, whole or not at all."""

import difflib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pooch

from melanoma_lib.data.readers import read_table
from melanoma_lib.data.schema import listed
from melanoma_lib.data.sources import list_files
from melanoma_lib.errors import DownloadError

DATAVERSE = "https://dataverse.harvard.edu"
CHALLENGE = "https://isic-challenge-data.s3.amazonaws.com"
ARCHIVE = "https://api.isic-archive.com/api/v2"
HAM10000_DOI = "doi:10.7910/DVN/DBW86T"


# By source: title, page, licence, cite and files, as offers.toml explains.
OFFERS = {
    source: SimpleNamespace(**offer)
    for source, offer in tomllib.loads(Path(__file__).with_name("offers.toml").read_text(encoding="utf-8")).items()
}


def fetch(source: str, root: str | Path, collection: str | None = None, show: Callable[[str], None] = print) -> Path:
    """Fetch one of ``OFFERS`` into a folder that ``load_cases`` reads, and return the folder.

    Licence and citation are shown before the first byte is asked for. Whatever stops a download, the same call goes on with
    the file that was not yet whole. HAM10000's checksums are published and checked; of the others, archives are checked as they
    are unpacked. The SHA-256 of each file is shown. ``collection``, one of the ISIC Archive's, is BCN20000 by default.

    Raises:
        DownloadError: unknown source, no network, absent file, wrong checksum, broken archive, full disk; the message ends with
            the way to do it by hand.
    """
    if source not in OFFERS:
        raise DownloadError(f"source {source!r} cannot be fetched; expected one of {list(OFFERS)}.")
    root, offer = Path(root).expanduser(), OFFERS[source]
    show("\n  ".join([f"{offer.title}\nPage: {offer.page}\nLicence: {offer.licence}\nPlease cite:", *offer.cite]))
    try:
        root.mkdir(parents=True, exist_ok=True)
        if source == "isic_archive":
            _fetch_collection(root, collection or "BCN20000", show)
        else:
            found = _dataverse_files() if source == "ham10000" else [(f"{CHALLENGE}/{path}", None) for path in offer.files]
            for (url, md5), (path, folder) in zip(found, offer.files.items(), strict=True):
                _fetch_file(url, root / PurePosixPath(path).name, folder, md5, show)
    except (DownloadError, OSError, ValueError, LookupError, TypeError) as error:  # the last three: an answer of another form
        files = [f"{PurePosixPath(name).name}, unpacked into {root / to}" if to else name for name, to in offer.files.items()]
        raise DownloadError(
            f"{source} was not fetched whole: {error!s:.500}\nCheck the network (https_proxy names a proxy), the free space and "
            f"that {root} can be written to, and run this again; what is there already is kept.\n"
            f"By hand: open {offer.page}, accept the terms and save in {root}: {'; '.join(files)}."
        ) from error
    return root


def _downloader() -> pooch.HTTPDownloader:
    headers = {"User-Agent": "melanoma_lib", "Accept-Encoding": "identity"}
    return pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, headers=headers)


def _ask(address: str) -> Any:
    reply = io.BytesIO()
    _downloader()(address, reply, None)
    return json.loads(reply.getvalue())


def _dataverse_files() -> list[tuple[str, str]]:
    """Address and MD5 of each file of HAM10000; for tables, the Dataverse states the MD5 of the original."""
    reply = _ask(f"{DATAVERSE}/api/datasets/:persistentId/?persistentId={HAM10000_DOI}")
    entries = reply["data"]["latestVersion"]["files"]
    listing = {entry["label"].removesuffix(".tab").removesuffix(".csv"): entry["dataFile"] for entry in entries}
    return [
        (f"{DATAVERSE}/api/access/datafile/{listing[name]['id']}{'' if folder else '?format=original'}", listing[name]["md5"])
        for name, folder in OFFERS["ham10000"].files.items()
    ]


def _fetch_file(url: str, file: Path, folder: str, md5: str | None, show: Callable[[str], None]) -> None:
    """A table stays as it comes; an archive gives way to the folder that it holds."""
    target = file.with_name(folder or file.name)
    if target.exists():
        show(f"{target.name}: already here")
        return
    show(f"{file.name}: from {url}")
    pooch.get_logger().setLevel("WARNING")
    pooch.retrieve(url, md5 and f"md5:{md5}", file.name, file.parent, downloader=_downloader())
    show(f"{file.name}: SHA-256 {pooch.file_hash(str(file))}")
    try:
        if folder:
            _unpack(file, target)
        elif file.read_bytes().startswith(b"<"):
            raise ValueError("a web page came in its place; open the address in a browser to see what it asks for")
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        file.unlink()
        raise DownloadError(f"{url} is not sound ({error}); what came has been deleted.") from error
    show(f"{target.name}: done")


def _unpack(archive: Path, target: Path) -> None:
    """Unpack beside the target, then rename: it is there whole or not at all. The archive goes."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(temporary)  # never outside: it drops "..", drives and leading slashes
        inner = temporary / target.name
        (inner if inner.is_dir() else temporary).replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    archive.unlink()


def _fetch_collection(root: Path, name: str, show: Callable[[str], None]) -> None:
    if importlib.util.find_spec("isic_cli") is None:
        raise DownloadError("isic-cli is not installed; `pip install isic-cli`.")
    found, address = [], f"{ARCHIVE}/collections/"
    while address:
        page = _ask(address)
        found, address = found + page["results"], page["next"]
    numbers = [entry["id"] for entry in found if entry["name"].casefold() == name.casefold()]  # they change, names do not
    if len(numbers) != 1:
        near = difflib.get_close_matches(name, [entry["name"] for entry in found], n=5, cutoff=0)
        raise DownloadError(f"{len(numbers)} public collections are called {name!r}; the nearest names: {listed(near)}.")
    command = [sys.executable, "-m", "isic_cli.cli", "image", "download", "--collections", str(numbers[0]), str(root)]
    show(f"Collection {name!r} has the number {numbers[0]} today. isic-cli fetches what is not here yet.")
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # without a terminal it asks nothing
    table = root / "metadata.csv"
    if status or not table.is_file():
        raise DownloadError(f"isic-cli ended with status {status} before it was done.")
    wanted = set(read_table(table, needs=("isic_id",))["isic_id"])
    if absent := sorted(wanted - set(list_files([root]))):
        raise DownloadError(f"{len(absent)} of {len(wanted)} images did not come ({listed(absent)}).")
