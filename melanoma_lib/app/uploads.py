"""Bytes from a stranger to a picture: what the page reads, what it refuses, and how cases are kept between requests."""

import io
import math
import secrets
import threading
import time
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from melanoma_lib.data.images import read_square, read_upright
from melanoma_lib.errors import CorruptImageError, DataError

MAX_BYTES = 20 * 1024**2  # the largest dermoscopy photographs of ISIC take about 10 MB
MAX_PIXELS = 50_000_000  # 150 MB once decoded; the sensors of phones and cameras, binned or not, mostly stay below
MIN_SIDE = 32
SHOWN_SIDE = 640  # pixels of the longer side of what the page shows
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")  # decoders that a stranger's bytes may reach; JPEG brings MPO
TOO_LARGE = f"The file has {{:.0f}} MB; this page takes up to {MAX_BYTES / 1024**2:.0f} MB. Save it smaller, as JPEG."
TOO_MANY = f"The image has too many pixels ({{}}); this page takes up to {MAX_PIXELS / 1e6:.0f} million. Save it smaller."
READS = "JPEG, PNG, TIFF, BMP, WebP or GIF"
NO_IMAGE = f"This is not an image that can be read. Save it as {READS}; a phone's HEIC or AVIF, or a page of a PDF, as JPEG."
DAMAGED = "The file is damaged or cut short: it does not decode to its end. Copy or export it again."
MOST_CASES = 100  # kept at a time, about 2 MB each at 256 pixels
SECONDS = 1800.0  # that a case is kept without being asked for

GREY = "The image has no colours, which the model was trained on."
STRANGE = "The file keeps its colours as {}, made for printing or for few shades; turned into RGB they may be off."
CLEAR = "Part of the image is transparent; the model sees the colours stored beneath."
warnings.filterwarnings("ignore", module=r"PIL\.")  # of bombs, refused below, and of odd EXIF, of which only the turn counts


def open_upload(data: bytes, side: int, local: bool = False) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Read a file of unknown origin, once it is known to be harmless: kind, frames and pixels are looked at before decoding.

    Returns:
        The whole frame squashed to a square as in training, uint8, shape ``(side, side, 3)``; upright for the page, at most
        ``SHOWN_SIDE`` pixels a side, uint8, shape ``(h, w, 3)``, or None of a ``local`` file, which may be of any size; and
        notes on how it was read, for the user.

    Raises:
        CorruptImageError: if the bytes are no photograph that can be read whole; the message is for the user.
    """
    if not data:
        raise CorruptImageError("The file is empty. Choose a photograph of the lesion.")
    if len(data) > MAX_BYTES and not local:
        raise CorruptImageError(TOO_LARGE.format(len(data) / 1024**2))
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            notes = _inspect(image, local)
            if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 128:
                notes += (CLEAR,)
        square = read_square(io.BytesIO(data), side)
        if local:
            return square, None, notes
        shown = read_upright(io.BytesIO(data), SHOWN_SIDE)
    except UnidentifiedImageError:
        raise CorruptImageError(NO_IMAGE) from None
    except Image.DecompressionBombError:
        raise CorruptImageError(TOO_MANY.format("more than twice what Pillow takes for honest")) from None
    except Exception as error:  # damaged files make decoders raise all kinds of errors
        if isinstance(error, CorruptImageError) and not error.__cause__:
            raise  # refused below, in words of its own
        raise CorruptImageError(DAMAGED) from error
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return square, np.asarray(shown), notes


def _inspect(image: Image.Image, local: bool) -> tuple[str, ...]:
    """Refuse by the header alone; else what to tell about a picture of unusual kind."""
    width, height = image.size
    if width * height > MAX_PIXELS and not local:
        raise CorruptImageError(TOO_MANY.format(f"{width:,} x {height:,}"))
    if min(width, height) < MIN_SIDE:
        raise CorruptImageError(f"The image has {width} x {height} pixels; each side needs {MIN_SIDE}. Choose a larger one.")
    if getattr(image, "is_animated", False) and image.format != "MPO":  # phones store a preview as a second picture
        raise CorruptImageError("The file holds several pictures (an animation or pages). Save one of them as JPEG or PNG.")
    if image.mode in ("I", "F"):
        raise CorruptImageError(f"The image has pixels of kind {image.mode!r} of unknown range. Save it with 8 bits a colour.")
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return ()
    return (GREY if image.mode[0] in "L1I" and image.mode != "LAB" else STRANGE.format(image.mode),)


class Store:
    """Cases in memory, by a name that cannot be guessed; the one that was not asked for longest makes room."""

    def __init__(self, most: int = MOST_CASES, seconds: float = SECONDS) -> None:
        self.most, self.seconds, self._lock = most, seconds, threading.Lock()
        self._cases: dict[str, tuple[float, Any]] = {}  # last asked for, case; the latest at the end
        self._tidies = False  # whether somebody will look for old ones

    def put(self, case: Any) -> str:
        """Keep a case under a new name."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._keep(token, case)
            self._tidy_later()
        return token

    def get(self, token: str) -> Any:
        """The case of a name; DataError if it is no longer, or never was, kept."""
        with self._lock:
            since, case = self._cases.pop(token, (-math.inf, None))
            if time.monotonic() - since > self.seconds:
                raise DataError("This image is no longer held in memory (uploads are kept for half an hour). Choose it again.")
            self._keep(token, case)
        return case

    def drop(self, token: str) -> None:
        """Forget a case; a name that is not known is no error."""
        with self._lock:
            self._cases.pop(token, None)

    def _keep(self, token: str, case: Any) -> None:
        now = time.monotonic()
        kept = [item for item in self._cases.items() if now - item[1][0] <= self.seconds]
        self._cases = dict([*kept, (token, (now, case))][-self.most :])

    def _tidy_later(self) -> None:
        if self._cases and not self._tidies:
            self._tidies, timer = True, threading.Timer(self.seconds / 10, self._tidy)
            timer.daemon = True
            timer.start()

    def _tidy(self) -> None:
        """Forget what was not asked for in time, though nobody comes any more."""
        with self._lock:
            now, self._tidies = time.monotonic(), False
            self._cases = {token: kept for token, kept in self._cases.items() if now - kept[0] <= self.seconds}
            self._tidy_later()
