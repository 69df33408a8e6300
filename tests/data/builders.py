"""Small case tables and images for tests."""

import numpy as np
import pandas as pd

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
