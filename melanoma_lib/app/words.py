"""Answers as the page shows them: the numbers put into the HTML of ``words.html.j2``, escaped."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

FOLDER = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def percent(share: float | None) -> str:
    """A share for people: whole percents, one decimal below ten, never a rounded 0% or 100%."""
    if share is None or share != share:
        return "unknown"
    if share < 0.001:
        return "<0.1%"
    if share > 0.99:
        return ">99%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


TEMPLATES.filters["percent"] = percent


def html(part: str, *values: Any) -> str:
    """A part of the page, a macro of ``words.html.j2``, with its values put in."""
    return str(getattr(TEMPLATES.get_template("words.html.j2").module, part)(*values))


def pictures_html(shown: np.ndarray, values: np.ndarray, doubtful_sign: bool, layer: str, method: str) -> str:
    """An image, shape ``(H, W, 3)``, and its heatmap, shape ``(h, w)``, with what the colours mean and do not mean."""
    from melanoma_lib.explain import METHOD_NAMES
    from melanoma_lib.explain.figures import signed_overlay

    row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
    peak = {"across": (column + 0.5) / values.shape[1], "down": (row + 0.5) / values.shape[0], "size": np.abs(values).max()}
    images = data_uri(shown), data_uri(signed_overlay(shown, values))
    return html("pictures", images, peak, values.shape, layer, method, METHOD_NAMES[method], doubtful_sign)


def data_uri(pixels: np.ndarray) -> str:
    """A JPEG file of uint8 pixels as an address that holds it, so that nothing is fetched and nothing written."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
