"""Bytes from a stranger to a picture: what the page reads, what it refuses, and how cases are kept between requests."""

import io
import secrets
import threading
import time
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from melanoma_lib.data.images import read_square
from melanoma_lib.errors import CorruptImageError, DataError

MAX_BYTES = 20 * 1024**2  # the largest dermoscopy photographs of ISIC take about 10 MB
MAX_PIXELS = 50_000_000  # 150 MB once decoded; the sensors of phones and cameras, binned or not, mostly stay below
MIN_SIDE = 32
SHOWN_SIDE = 640  # pixels of the longer side of what the page shows
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")  # decoders that a stranger's bytes may reach; JPEG brings MPO
TOO_LARGE = f"The file has {{:.0f}} MB; this page takes up to {MAX_BYTES / 1024**2:.0f} MB. Save it smaller, as JPEG."
TOO_MANY = f"The image has too many pixels ({{}}); this page takes up to {MAX_PIXELS / 1e6:.0f} million. Save it smaller."
READS = "JPEG, PNG, TIFF, BMP, WebP or GIF"
MOST_CASES = 100  # kept at a time, about 2 MB each at 256 pixels
SECONDS = 1800.0  # that a case is kept without being asked for

# What to tell about a picture of unusual kind, by Pillow's mode without the byte order.
NOTES = (
    dict.fromkeys(("CMYK", "YCbCr", "LAB"), "The file has colours made for printing ({mode}); turned into RGB they may be off.")
    | dict.fromkeys(("L", "LA", "1"), "The image has no colours, which the model was trained on.")
    | dict.fromkeys(("P", "PA"), "The file has a palette of at most 256 colours; fine shades are lost.")
    | {"I": "The file has 16 bits a pixel and no colours; it was reduced to 8 bits."}
)
warnings.filterwarnings("ignore", module=r"PIL\.")  # of bombs, refused below, and of odd EXIF, of which only the turn counts


def open_upload(data: bytes, side: int, local: bool = False) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Read a file of unknown origin, once it is known to be harmless: kind, frames and pixels are looked at before decoding.

    Args:
        data: the file.
        side: of the square that the network's input is made from.
        local: a file of this machine, of any size, that no page shows.

    Returns:
        The whole frame squashed to a square as in training, uint8, shape ``(side, side, 3)``; upright for the page, at most
        ``SHOWN_SIDE`` pixels a side, uint8, shape ``(h, w, 3)``, or None; and notes on how it was read, for the user.

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
            size = image.size[::-1] if image.getexif().get(0x0112) in (5, 6, 7, 8) else image.size  # lying on its side
            if image.has_transparency_data:
                counts = image.convert("RGBA").getchannel("A").histogram()
                if clear := sum(counts[:128]) / sum(counts):
                    notes += (f"{max(clear, 0.01):.0%} of the image is transparent; the model sees the colours stored beneath.",)
        square, shown = (read_square(io.BytesIO(data), pixels) if pixels else None for pixels in (side, not local and SHOWN_SIDE))
    except UnidentifiedImageError:
        raise CorruptImageError(
            f"This is not an image that can be read. The page reads {READS}, whatever the file is called; save pictures of "
            "another kind (HEIC or AVIF of a phone, a drawing, a page of a PDF) as JPEG."
        ) from None
    except Image.DecompressionBombError:
        raise CorruptImageError(TOO_MANY.format("more than twice what Pillow takes for honest")) from None
    except Exception as error:  # damaged files make decoders raise all kinds of errors
        if isinstance(error, CorruptImageError) and not error.__cause__:
            raise  # refused below, in words of its own
        raise CorruptImageError(
            "The file is damaged or cut short: it does not decode to its end. Copy or export it again."
        ) from error
    if shown is not None:
        scale = min(1, SHOWN_SIDE / max(size))
        shown = np.asarray(Image.fromarray(shown).resize([max(1, round(scale * length)) for length in size]))
    return square, shown, notes


def _inspect(image: Image.Image, local: bool) -> tuple[str, ...]:
    """Refuse by the header alone; else what to tell about a picture of unusual kind."""
    width, height = image.size
    if width * height > MAX_PIXELS and not local:
        raise CorruptImageError(TOO_MANY.format(f"{width:,} x {height:,}"))
    if min(width, height) < MIN_SIDE:
        raise CorruptImageError(
            f"The image has {width} x {height} pixels; fewer than {MIN_SIDE} a side show no lesion. Choose a larger one."
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones store a preview as a second picture
        raise CorruptImageError(
            f"The file holds {frames} pictures (an animation or pages). Save the one you mean as JPEG or PNG."
        )
    if image.mode in ("I", "F"):
        raise CorruptImageError(
            f"The image has pixels of kind {image.mode!r} whose brightest value is not known. Save it with 8 bits a colour."
        )
    mode = image.mode.partition(";")[0]
    return (NOTES[mode].format(mode=mode),) if mode in NOTES else ()


class Store:
    """Cases in memory, by a name that cannot be guessed; the one that was not asked for longest makes room."""

    def __init__(self, most: int = MOST_CASES, seconds: float = SECONDS) -> None:
        self.most, self.seconds, self._lock = most, seconds, threading.Lock()
        self._cases: dict[str, tuple[float, Any]] = {}  # last asked for, case; the latest at the end

    def put(self, case: Any) -> str:
        """Keep a case; returns its name."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._cases = dict([*self._fresh(), (token, (time.monotonic(), case))][-self.most :])
        return token

    def get(self, token: str) -> Any:
        """The case of a name; DataError if it is no longer, or never was, kept."""
        with self._lock:
            self._cases = dict(self._fresh())
            if token not in self._cases:
                raise DataError("This image is no longer held in memory (uploads are kept for half an hour). Choose it again.")
            _, case = self._cases.pop(token)
            self._cases[token] = (time.monotonic(), case)
        return case

    def drop(self, token: str) -> None:
        """Forget a case; a name that is not known is no error."""
        with self._lock:
            self._cases.pop(token, None)

    def _fresh(self) -> list[tuple[str, tuple[float, Any]]]:
        return [item for item in self._cases.items() if item[1][0] >= time.monotonic() - self.seconds]
