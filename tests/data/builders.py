"""Small case tables and images for tests."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from melanoma_lib.data.schema import group_ids


def case_table(targets, lesions=None, patients=None, **columns) -> pd.DataFrame:
    """A valid case table with one row per target; ids not given are missing."""
    n = len(targets)
    cases = pd.DataFrame(
        {
            "image_id": [f"image_{i}" for i in range(n)],
            "image_path": [f"/nowhere/image_{i}.jpg" for i in range(n)],
            "patient_id": [None] * n if patients is None else list(patients),
            "lesion_id": [None] * n if lesions is None else list(lesions),
            "age_approx": 50.0,
            "sex": "female",
            "anatom_site_general_challenge": "torso",
            "target": list(targets),
            "diagnosis": np.where(np.asarray(targets) == 1, "melanoma", "nevus"),
            "acquisition": None,
            "mask_path": None,
        }
    )
    cases["group_id"] = group_ids(cases)
    return cases.assign(**columns)


def pixels(height=20, width=30, seed=0) -> np.ndarray:
    """Colour noise, uint8, shape ``(height, width, 3)``."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    """An image file."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def write_isic2020(root: Path) -> Path:
    """ISIC 2020 in small: 40 patients in the table, of which the images of 30 are there, 15 with a melanoma."""
    (root / "jpeg" / "train").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for patient in range(40):
        for image in range(3):
            melanoma = int(patient % 2 == 0 and image == 0)
            name = f"ISIC_{patient:03d}{image}"
            words = {"diagnosis": "melanoma" if melanoma else "nevus", "benign_malignant": "malignant" if melanoma else "benign"}
            rows.append(
                {"image_name": name, "patient_id": f"IP_{patient:03d}", "sex": "female", "age_approx": 40 + patient}
                | {"anatom_site_general_challenge": "torso", "target": melanoma} | words
            )  # fmt: skip
            if patient < 30:
                picture = np.clip(rng.normal((210, 170, 150), 25, (40, 60, 3)) - 60 * melanoma, 0, 255)
                Image.fromarray(picture.astype(np.uint8)).save(root / "jpeg" / "train" / f"{name}.jpg")
    pd.DataFrame(rows).to_csv(root / "train.csv", index=False)
    return root
