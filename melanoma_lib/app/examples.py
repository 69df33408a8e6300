"""Lesions to try the page with: painted at start, nobody's own."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from melanoma_lib.app.answers import Patient
from melanoma_lib.data.synthetic import SyntheticDermoscopy

SEED, PATIENTS, SIDE = 20, 40, 256
WANTED = ((1, 0.7), (0, 0.05), (1, 0.4), (0, 0.3))  # target and true risk that an example comes closest to


@dataclass(frozen=True)
class Example:
    """A painted lesion.

    Attributes:
        name: what the page calls it.
        data: a JPEG file.
        patient: who has it.
    """

    name: str
    data: bytes
    patient: Patient


def paint_examples() -> list[Example]:
    """Two melanomas, two other lesions, and a photograph in the dark, which the model should not answer."""
    generator = SyntheticDermoscopy(PATIENTS, SEED, SIDE)
    cases, made, taken = generator.cases, [], []
    for target, risk in WANTED:
        open_to = cases[(cases["target"] == target) & ~cases["lesion_id"].isin(taken)]
        row = (open_to["true_risk"] - risk).abs().idxmin()
        case = cases.loc[row]
        taken.append(case["lesion_id"])
        kind = "melanoma" if target else "not melanoma"
        name = f"Painted lesion, {kind}, true risk {case['true_risk']:.0%}"
        made.append(Example(name, _jpeg(generator.render(row).image), _patient(case)))
    dark = (generator.render(0).image * 0.04).astype(np.uint8)
    return [*made, Example("Painted lesion, photographed in the dark", _jpeg(dark), Patient())]


def _patient(case) -> Patient:
    known = {name: case[column] for name, column in (("sex", "sex"), ("site", "anatom_site_general_challenge"))}
    age = None if np.isnan(case["age_approx"]) else float(case["age_approx"])
    return Patient(age, **{name: value if isinstance(value, str) else None for name, value in known.items()})


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=94, subsampling=0)
    return file.getvalue()
