"""Files that a page on the open net would be sent, made from scratch."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from melanoma_lib.data.synthetic import SyntheticDermoscopy
from tests.data.builders import encoded

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><rect width="9" height="9"/></svg>'


def lesion(width: int = 160, height: int = 120) -> Image.Image:
    pixels = SyntheticDermoscopy(n_patients=3, seed=7, image_size=160).render(0).image
    return Image.fromarray(pixels).resize((width, height))


def png(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    header, rows = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), zlib.compress(bytes(height * (width // 8 + 1)), 9)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", rows), (b"IEND", b"")]
    parts = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def transparent() -> Image.Image:
    image = lesion().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 80, 120))
    return image


def exif(orientation: int, description: str = "") -> Image.Exif:
    made = Image.Exif()
    made[0x0112], made[0x010E] = orientation, description
    return made


def animation(kind: str) -> bytes:
    frames = [lesion(160, 120 - 4 * k).resize((160, 120)) for k in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


@dataclass(frozen=True)
class Fault:
    """What is sent, ``sees`` being a pattern of the error, note or warning; where accepted, there is an answer nevertheless."""

    what: str
    name: str
    make: Callable[[], bytes]
    sees: str
    accepted: bool = False


FAULTS = [
    Fault("text called .jpg", "lesion.jpg", lambda: b"this is no image\n" * 40, "not an image"),
    Fault("zero bytes", "empty.jpg", lambda: b"", "file is empty"),
    Fault("JPEG cut in half", "half.jpg", lambda: (f := encoded(lesion(), "JPEG"))[: len(f) // 2], "damaged or cut short"),
    Fault("PNG cut in half", "half.png", lambda: (f := encoded(lesion()))[: len(f) // 2], "damaged or cut short"),
    Fault("JPEG of twenty bytes", "start.jpg", lambda: encoded(lesion(), "JPEG")[:20], "not an image"),
    Fault("PNG of unknown parts", "parts.png", lambda: encoded(lesion()).replace(b"IDAT", b"IDAU"), "damaged|not an image"),
    Fault("16 bits a colour", "rgb16.png", lambda: cv2.imencode(
          ".png", np.asarray(lesion()).astype(np.uint16) * 257)[1].tobytes(), "", True),
    Fault("16-bit grey PNG", "grey16.png", lambda: encoded(np.asarray(lesion().convert("L")).astype(np.uint16) * 257),
          "has no colours", True),
    Fault("floating-point TIFF", "float.tif", lambda: encoded(lesion().convert("F"), "TIFF"), "unknown range"),
    Fault("CMYK JPEG", "print.jpg", lambda: encoded(lesion().convert("CMYK"), "JPEG"), "CMYK", True),
    Fault("palette of 256 colours", "palette.gif", lambda: encoded(lesion().quantize(), "GIF"), "few shades", True),
    Fault("half transparent PNG", "alpha.png", lambda: encoded(transparent()), "is transparent", True),
    Fault("turned by EXIF", "turned.jpg", lambda: encoded(lesion(), "JPEG", exif=exif(orientation=6)), "", True),
    Fault("animated GIF", "film.gif", lambda: animation("GIF"), "holds several pictures"),
    Fault("animated WebP", "film.webp", lambda: animation("WEBP"), "holds several pictures"),
    Fault("TIFF of three pages", "pages.tif", lambda: animation("TIFF"), "holds several pictures"),
    Fault("30,000 x 30,000 pixels in 110 kB", "bomb.png", lambda: png(30_000, 30_000), "too many pixels"),
    Fault("50 MB upload", "huge.jpg", lambda: encoded(lesion(), "JPEG") + bytes(50 * 1024**2), "has 50 MB; this page takes"),
    Fault("SVG with a script", "drawing.svg", lambda: SVG, "not an image"),
    Fault("SVG called .png", "drawing.png", lambda: SVG, "not an image"),
    Fault("PDF called .jpg", "scan.jpg", lambda: b"%PDF-1.7\n" + bytes(900), "not an image"),
    Fault("zip archive called .jpg", "lesions.jpg", lambda: b"PK\x03\x04" + bytes(900), "not an image"),
    Fault("PNG called .jpg", "really-png.jpg", lambda: encoded(lesion()), "", True),
    Fault("EXIF of 60 kB and orientation 99", "exif.jpg", lambda: encoded(
          lesion(), "JPEG", exif=exif(orientation=99, description="x" * 60_000)), "", True),
    Fault("HEIC of a phone", "phone.heic", lambda: b"\0\0\0\x18ftypheic" + bytes(900), "HEIC"),
    Fault("comment that unpacks to 80 MB", "comment.png", lambda: png(160, 120, (
          b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9))), "damaged|not an image"),
    Fault("one pixel", "dot.png", lambda: encoded(lesion(1, 1)), "each side needs 32"),
    Fault("strip of 40,000 x 4", "strip.png", lambda: encoded(lesion(40_000, 4)), "each side needs 32"),
    Fault("photograph in the dark", "dark.png", lambda: encoded(lesion().point(lambda v: v // 32)), "too dark", True),
    Fault("noise", "noise.png", lambda: encoded(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)), "noise", True),
]  # fmt: skip
# Fields of an API request beside the image, or its whole body, and the pattern of the refusal; empty where there is an answer.
API_FAULTS = [
    ("age -5", {"age": -5}, "age_approx expects years"),
    ("age 999", {"age": 999}, "age_approx expects years"),
    ("age as text", {"age": "old"}, "age: Input should be a valid number"),
    ("age NaN", {"age": float("nan")}, ""),
    ("sex that is not known", {"sex": "robot"}, "sex expects one of"),
    ("site that is not known", {"site": "../../etc/passwd"}, "expects one of"),
    ("prevalence 0", {"prevalence": 0}, "prevalence: Input should be greater than 0"),
    ("unknown field", {"threshold": 0.1}, "threshold: Extra inputs are not permitted"),
    ("image that is no base64", {"image": "data:image/png;base64,xx"}, "base64"),
    ("no JSON", b"\xff\xfe\x00", "Invalid JSON"),
    ("a JSON list", b"[1, 2]", "must be a JSON object"),
    ("100,000 brackets", b"[" * 100_000, "Invalid JSON"),
]
