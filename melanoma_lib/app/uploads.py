"""Bytes from a stranger to a picture: what the page reads, what it refuses, and how pictures are kept between requests."""

import io
import secrets
import threading
import time
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from melanoma_lib.data.images import read_square
from melanoma_lib.errors import CorruptImageError, DataError

MAX_BYTES = 20 * 1024**2  # the largest dermoscopy photographs of ISIC take about 10 MB
MAX_PIXELS = 50_000_000  # 150 MB once decoded; the sensors of phones and cameras, binned or not, mostly stay below
MIN_SIDE = 32
SHOWN_SIDE = 640  # pixels of the longer side of what the page shows
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")  # decoders that a stranger's bytes may reach; JPEG brings MPO
READS = "JPEG, PNG, TIFF, BMP, WebP or GIF"
TWO_AT_A_TIME = threading.Semaphore(2)  # decoding: the memory of twenty large pictures at once is not there
MOST_CASES = 100  # kept at a time, about 2 MB each at 256 pixels
SECONDS = 1800.0  # that a case is kept without being asked for

# First bytes of what people send by mistake, and what it is.
MISTAKEN = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive or an office document",
    b"<svg": "an SVG drawing, not a photograph",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
HEIF = (b"heic", b"heix", b"hevc", b"mif1", b"heif", b"avif")


@dataclass(frozen=True)
class Upload:
    """A picture that was read.

    Attributes:
        data: the file as it came.
        shown: upright, at most ``SHOWN_SIDE`` pixels a side, uint8, shape ``(h, w, 3)``.
        notes: what a user should know of how it was read.
    """

    data: bytes
    shown: np.ndarray
    notes: tuple[str, ...]

    def square(self, side: int) -> np.ndarray:
        """The whole frame squashed to a square as in training, uint8, ``(side, side, 3)``; CorruptImageError if that fails."""
        with TWO_AT_A_TIME:
            try:
                return read_square(io.BytesIO(self.data), side)
            except Exception as error:  # damaged files make decoders raise all kinds of errors
                raise CorruptImageError(_unreadable(self.data)) from error


class Store:
    """Cases in memory, by a name that cannot be guessed; the one that was not asked for longest makes room."""

    def __init__(self, most: int = MOST_CASES, seconds: float = SECONDS) -> None:
        self.most, self.seconds = most, seconds
        self._cases: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Cases held now."""
        return len(self._cases)

    def put(self, case: Any) -> str:
        """Keep a case; returns its name."""
        token = secrets.token_urlsafe(16)
        self._renew(token, case)
        return token

    def get(self, token: str) -> Any:
        """The case of a name; DataError if it is no longer, or never was, kept."""
        return self._renew(token)

    def drop(self, token: str) -> None:
        """Forget a case; a name that is not known is no error."""
        with self._lock:
            self._cases.pop(token, None)

    def _renew(self, token: str, case: Any = None) -> Any:
        now = time.monotonic()
        with self._lock:
            while self._cases and next(iter(self._cases.values()))[0] < now - self.seconds:
                self._cases.popitem(last=False)
            if case is None and token not in self._cases:
                raise DataError("This image is no longer held in memory (uploads are kept for half an hour). Choose it again.")
            case = case or self._cases.pop(token)[1]
            self._cases[token] = (now, case)
            while len(self._cases) > self.most:
                self._cases.popitem(last=False)
        return case


def open_upload(data: bytes) -> Upload:
    """Read a file of unknown origin, once it is known to be harmless: kind, frames and pixels are looked at before decoding.

    Raises:
        CorruptImageError: if the bytes are no photograph that can be read whole; the message is for the user.
    """
    if not data:
        raise CorruptImageError("The file is empty. Choose a photograph of the lesion.")
    if len(data) > MAX_BYTES:
        raise too_large(len(data))
    with TWO_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bombs, refused below, and of odd EXIF, which is not read but for the turn
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                notes = _inspect(image)
                image.draft("RGB", (SHOWN_SIDE, SHOWN_SIDE))
                shown = _shown(image, notes)
        except CorruptImageError:
            raise
        except Image.DecompressionBombError:
            raise CorruptImageError(_too_many_pixels("more than twice what Pillow takes for honest")) from None
        except Exception as error:  # damaged files make decoders raise all kinds of errors
            raise CorruptImageError(_unreadable(data)) from error
    return Upload(data, shown, tuple(notes))


def too_large(n_bytes: int | None = None) -> CorruptImageError:
    """The refusal of a file beyond ``MAX_BYTES``; also for whoever stops reading at the limit and does not know the size."""
    size = f"has {n_bytes / 1024**2:.0f} MB" if n_bytes else "is too large"
    return CorruptImageError(f"The file {size}; this page takes up to {MAX_BYTES / 1024**2:.0f} MB. Save it smaller, as JPEG.")


def _inspect(image: Image.Image) -> list[str]:
    """Refuse by the header alone; else what to tell about a picture of unusual kind."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise CorruptImageError(_too_many_pixels(f"{width:,} x {height:,}"))
    if min(width, height) < MIN_SIDE:
        raise CorruptImageError(
            f"The image has {width} x {height} pixels; fewer than {MIN_SIDE} a side show no lesion. Choose a larger one."
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones store a preview as a second picture
        raise CorruptImageError(
            f"The file holds {frames} pictures (an animation or pages). Save the one you mean as JPEG or PNG."
        )
    notes = []
    if image.mode in ("CMYK", "YCbCr", "LAB"):
        notes.append(f"The file has {image.mode} colours, made for printing; turned into RGB they may be off.")
    if image.mode.startswith("I;16"):
        notes.append("The file has 16 bits a pixel and no colours; it was reduced to 8 bits.")
    elif image.mode in ("L", "LA", "1"):
        notes.append("The image has no colours, which the model was trained on.")
    if image.mode in ("P", "PA"):
        notes.append("The file has a palette of at most 256 colours; fine shades are lost.")
    return notes


def _shown(image: Image.Image, notes: list[str]) -> np.ndarray:
    """Upright and small, for the page. Adds to the notes what only the pixels tell."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        clear = float((np.asarray(upright.convert("RGBA").getchannel("A")) < 128).mean())
        if clear > 0:
            notes.append(f"{max(clear, 0.01):.0%} of the image is transparent; the model sees the colours stored beneath.")
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
    if upright.mode in ("I", "F"):
        raise CorruptImageError(
            f"The image has pixels of kind {upright.mode!r} whose brightest value is not known. Save it with 8 bits a colour."
        )
    upright = upright.convert("RGB")
    upright.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return np.asarray(upright)


def _too_many_pixels(size: str) -> str:
    return f"The image has too many pixels ({size}); this page takes up to {MAX_PIXELS / 1e6:.0f} million. Save it smaller."


def _unreadable(data: bytes) -> str:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.lower().startswith(b"<?xml"):
        start = b"<svg" if b"<svg" in data[:4096].lower() else start
    for first, what in MISTAKEN.items():
        if start[: len(first)].lower() == first.lower():
            return f"This is {what}. The page reads {READS}, whatever the file is called."
    if data[4:8] == b"ftyp" and data[8:12] in HEIF:
        return "This is a HEIC or AVIF picture, as newer phones store them; the page cannot read it. Save it as JPEG."
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            kind = image.format
    except Exception:  # not even the header can be read
        return f"This is not an image that can be read. The page reads {READS}, whatever the file is called."
    return f"The {kind} file is damaged or cut short: it does not decode to its end. Copy or export it again."
