"""Fetching the real data: licence first, resumable, checksummed, unpacked whole or not at all."""

from __future__ import annotations

import difflib
import errno
import http.client
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from melanoma_lib.data import catalogue
from melanoma_lib.data.catalogue import OFFERS, RemoteFile
from melanoma_lib.data.tables import list_files, read_table
from melanoma_lib.data.transfer import fetch_file, open_url
from melanoma_lib.errors import DownloadError


def fetch(source: str, root: str | Path, collection: str | None = None, show: Callable[[str], None] = print) -> Path:
    """Fetch a data set into a folder that ``load_cases`` reads; what is there already is left alone.

    Licence and citation are shown before the first byte is asked for. Whatever stops a download (a cut, a full disk, a
    keystroke), the same call goes on where it stopped.

    Checksums: HAM10000's are published by the Dataverse and checked. The challenge archives have none: the first download
    is trusted, its SHA-256 written to ``SHA256SUMS``, and a later download must agree with it. Images of the ISIC Archive
    are compared in number with the exported metadata.

    Args:
        source: ``ham10000``, ``isic2019``, ``isic2020`` or ``isic_archive``.
        root: folder to put it in; made when absent.
        collection: for ``isic_archive``: name of the collection, looked up by name since ids drift; default BCN20000.
        show: receives each message.

    Returns:
        The folder.

    Raises:
        DownloadError: unknown source, no network, absent file, wrong checksum, unsafe or broken archive, full disk; the
            message ends with the way to do it by hand.
    """
    if source not in OFFERS:
        raise DownloadError(
            f"source {source!r} cannot be fetched; expected one of {list(OFFERS)}. Synthetic cases are generated."
        )
    root = Path(root).expanduser()
    show(str(OFFERS[source]))
    try:
        root.mkdir(parents=True, exist_ok=True)
        if source == "isic_archive":
            _fetch_collection(root, collection or catalogue.DEFAULT_COLLECTION, show)
        else:
            for file in _dataverse_files() if source == "ham10000" else _challenge_files(source):
                fetch_file(file, root, show)
    except DownloadError as error:
        raise DownloadError(f"{error}\nBy hand: {OFFERS[source].manual}, in {root}.\nPage: {OFFERS[source].page}") from error
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "see that the folder can be written to"
        raise DownloadError(
            f"cannot write to {root}: {error.strerror or error}; {remedy} and run this again to go on."
        ) from error
    return root


# --- what there is to fetch ---------------------------------------------------------------------------------------------


def _challenge_files(source: str) -> Iterator[RemoteFile]:
    for path, folder in catalogue.CHALLENGE_FILES[source]:
        yield RemoteFile(PurePosixPath(path).name, f"{catalogue.CHALLENGE}/{path}", folder)


def _dataverse_files() -> list[RemoteFile]:
    """The files of HAM10000 with the MD5 that the Dataverse reports; for tables, MD5 and download are those of the original."""
    address = f"{catalogue.DATAVERSE}/api/datasets/:persistentId/?persistentId={catalogue.HAM10000_DOI}"
    reply = _get_json(address)
    try:
        listed = {
            entry["label"].removesuffix(".tab").removesuffix(".csv"): entry["dataFile"]
            for entry in reply["data"]["latestVersion"]["files"]
        }
        return [
            RemoteFile(
                name,
                f"{catalogue.DATAVERSE}/api/access/datafile/{listed[name]['id']}" + ("" if folder else "?format=original"),
                folder,
                listed[name]["md5"],
            )
            for name, folder in catalogue.HAM10000_FILES.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{address} answered without {error}; the Dataverse may have changed its files or its form."
        ) from error


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
    listed = set(read_table(table, needs=("isic_id",))["isic_id"])
    absent = sorted(listed - set(list_files([root])))
    if absent:
        raise DownloadError(
            f"{len(absent)} of {len(listed)} images did not come ({', '.join(absent[:3])}); run this again to go on."
        )


def _collection_id(name: str) -> int:
    found, seen, address = [], [], f"{catalogue.ARCHIVE}/collections/"
    while address:
        page = _get_json(address)
        try:
            seen += [entry["name"] for entry in page["results"]]
            found += [entry["id"] for entry in page["results"] if entry["name"].casefold() == name.casefold()]
            address = page["next"]
        except (KeyError, TypeError, AttributeError) as error:
            raise DownloadError(f"{address} answered without {error}; the archive may have changed its form.") from error
    if len(found) != 1:
        near = difflib.get_close_matches(name, seen, n=5, cutoff=0.4) or sorted(seen)[:5]
        raise DownloadError(f"{len(found)} of {len(seen)} public collections are called {name!r}; similar names: {near}.")
    return found[0]


def _get_json(address: str) -> Any:
    try:
        with open_url(address, {"Accept": "application/json"}) as reply:
            return json.load(reply)
    except (ValueError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"{address} gave no readable answer ({error}); try again later.") from error
