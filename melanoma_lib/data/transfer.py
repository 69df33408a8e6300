"""Bringing one file over: resumed, checked, unpacked whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import stat
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from melanoma_lib.data.catalogue import RemoteFile
from melanoma_lib.errors import DownloadError
from melanoma_lib.utils import progress_bar, write_text

CHUNK = 2**20
TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 5  # connections that end early before giving up; each goes on where the last one stopped
CHECKSUMS = "SHA256SUMS"  # in the form `sha256sum --check` reads


def fetch_file(file: RemoteFile, root: Path, show: Callable[[str], None]) -> None:
    """Download, check and, for a zip, unpack one file, unless it is there already.

    Args:
        file: what to fetch.
        root: existing folder to put it in. A ``.part`` file there is what an earlier call left, and is gone on with.
        show: receives each message.

    Raises:
        DownloadError: no connection, absent file, wrong checksum, unsafe or broken archive.
        OSError: the disk is full or refuses; what has come is kept.
    """
    target = root / (file.folder or file.name)
    if target.exists():
        show(f"{target.name}: already here")
        return
    archive = root / file.name
    if not archive.exists():
        part = archive.with_name(archive.name + ".part")
        _download(file.url, part)
        _check(part, file)
        part.replace(archive)
        _version_of(part).unlink(missing_ok=True)
    new_sum = _hash(archive, "sha256") if not file.md5 and file.name not in _known_sums(root) else None
    if file.folder:
        _unpack(archive, target)
        archive.unlink()
    if new_sum:  # only now, so that a file that cannot be unpacked is not what later downloads must agree with
        lines = [f"{digest}  {name}" for name, digest in (_known_sums(root) | {file.name: new_sum}).items()]
        write_text(root / CHECKSUMS, "\n".join(lines) + "\n")
        show(f"{file.name}: the publisher states no checksum; trusted as it came, its SHA-256 is now in {root / CHECKSUMS}")
    show(f"{target.name}: done")


def _version_of(part: Path) -> Path:
    """Beside a partial file: the publisher's mark of the version it comes from."""
    return part.with_name(part.name + ".version")


def _download(url: str, part: Path) -> None:
    """Bring ``part`` to full length, going on where an earlier attempt stopped."""
    version = _version_of(part)
    cut = None
    for _ in range(ATTEMPTS):
        done = part.stat().st_size if part.exists() and version.exists() else 0
        headers = {"Range": f"bytes={done}-", "If-Range": version.read_text(encoding="utf-8")} if done else {}
        with open_url(url, headers) as reply:
            if reply.status == 416 and reply.headers.get("Content-Range") == f"bytes */{done}":
                return  # stopped between the last byte and the check
            if reply.status == 416:
                version.unlink()
                continue
            if reply.status != 206:  # the whole file: at first, or because the publisher's copy has changed meanwhile
                done = 0
            mark = reply.headers.get("ETag") or reply.headers.get("Last-Modified")
            if mark and not mark.startswith("W/"):
                write_text(version, mark)
            else:
                version.unlink(missing_ok=True)  # nothing to tell versions apart by: begin anew next time
            cut = _receive(reply, part, done)
        if cut is None:
            return
    kept = part.stat().st_size if version.exists() else 0
    raise DownloadError(f"{url}: cut {ATTEMPTS} times (last: {cut}); {kept:,} bytes are kept, run this again to go on.")


def _receive(reply: http.client.HTTPResponse, part: Path, done: int) -> str | None:
    """Append the reply to ``part`` from byte ``done``; what cut it short, or None when it is all there."""
    length = reply.headers.get("Content-Length")
    whole = done + int(length) if length else None
    _require_space(part.parent, (whole or 0) - done, f"the rest of {part.stem}")
    with part.open("ab") as out, progress_bar(f"{part.stem} (MiB)", (whole or 0) // CHUNK + 1, sys.stderr.isatty()) as advance:
        out.truncate(done)
        for _ in range(done // CHUNK):
            advance()
        while True:
            try:
                chunk = reply.read(CHUNK)
            except (http.client.HTTPException, OSError) as error:
                return str(error) or type(error).__name__
            if not chunk:
                break
            out.write(chunk)
            done += len(chunk)
            advance()
    return f"{done:,} of {whole:,} bytes" if whole is not None and done != whole else None


def _require_space(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{what} needs {needed:,} bytes, {free:,} are free")


def _known_sums(root: Path) -> dict[str, str]:
    """File name -> SHA-256 as recorded at the first download."""
    path = root / CHECKSUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise DownloadError(f"{path} is damaged: expected a SHA-256 and a file name in each line; correct or delete it.")
    return {name.lstrip("*"): digest for digest, name in pairs}


def _check(part: Path, file: RemoteFile) -> None:
    known = _known_sums(part.parent)
    if file.md5:
        method, expected, authority = "md5", file.md5, "the publisher states"
    elif file.name in known:
        method, expected, authority = "sha256", known[file.name], f"{CHECKSUMS} recorded at an earlier download"
    else:
        return
    actual = _hash(part, method)
    if actual != expected:
        part.unlink()
        raise DownloadError(
            f"{file.name} came with {method} {actual}, but {authority} {expected}; it has been deleted. Run this again; if it "
            "stays so, the publisher's file has changed: compare with the page below before trusting it."
        )


def _hash(path: Path, method: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, method).hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    """Unpack into a temporary folder, then rename: the target is there whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
    try:
        with zipfile.ZipFile(archive) as content:
            members = [(entry, _inside(entry, archive, target.name)) for entry in content.infolist() if not entry.is_dir()]
            members = [(entry, path) for entry, path in members if path.parts[0] != "__MACOSX" and path.name != ".DS_Store"]
            _require_space(archive.parent, sum(entry.file_size for entry, _ in members), f"unpacking {archive.name}")
            temporary.mkdir()
            with progress_bar(f"unpacking {archive.name}", len(members), sys.stderr.isatty()) as advance:
                for entry, path in members:
                    (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                    with content.open(entry) as source, (temporary / path).open("wb") as out:
                        shutil.copyfileobj(source, out, CHUNK)
                    advance()
        temporary.replace(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DownloadError(f"{archive} is no sound zip file ({error}); delete it and run this again.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _inside(entry: zipfile.ZipInfo, archive: Path, folder: str) -> PurePosixPath:
    """Where an entry goes below the target; an entry that points elsewhere condemns the archive."""
    path = PurePosixPath(entry.filename)
    link = stat.S_ISLNK(entry.external_attr >> 16)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in path.parts[0] or link:
        raise DownloadError(
            f"{archive} holds {entry.filename!r}, which points outside its folder; nothing was unpacked. Delete it."
        )
    return PurePosixPath(*path.parts[1:]) if path.parts[0] == folder and len(path.parts) > 1 else path


def open_url(url: str, headers: dict[str, str]) -> Any:
    """Open an address, with what can go wrong in words.

    Args:
        url: address.
        headers: sent along.

    Returns:
        The response, a context manager; also when the server answers 416, which only whoever asked for a range can judge.

    Raises:
        DownloadError: no connection, or any other answer that is an error.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "melanoma_lib"} | headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}.") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(f"{url}: no connection ({reason}). Check the network, or the proxy in https_proxy.") from error
