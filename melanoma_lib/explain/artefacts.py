"""The same picture without and with an artefact: does a run's answer change when nothing else does?"""

import hashlib
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from melanoma_lib.data.artefacts import ARTEFACTS, paint_artefact
from melanoma_lib.data.images import read_square, stored_side
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError
from melanoma_lib.inference import Predictor

BATCH = 32  # pairs held at once


class Pair(NamedTuple):
    """One case twice; outside ``where`` the two pictures are the same, pixel by pixel."""

    without: np.ndarray  # uint8, shape (H, H, 3)
    painted: np.ndarray  # the same with the artefact
    where: np.ndarray  # the artefact's pixels, boolean, shape (H, H)
    lesion: np.ndarray | None  # the lesion's, boolean, shape (H, H); None where nobody outlined it


def artefact_pair(case: pd.Series, artefact: str, run) -> Pair:
    """A case without and with one of ``ARTEFACTS``, at the size at which the run's images are stored.

    A synthetic case is painted anew, so that the artefact can be removed as well as added. On a photograph it is pasted over
    whatever lies there; where depends on the image's id alone.

    Raises:
        ValueError: for an unknown artefact.
        DataError: if the run's synthetic patients do not include the case.
        CorruptImageError: if an image or mask cannot be read.
    """
    if artefact not in ARTEFACTS:
        raise ValueError(f"artefact: expected one of {list(ARTEFACTS)}, got {artefact!r}")
    settings = run.settings
    side = stored_side(settings.image_size)
    if settings.source == "synthetic":
        generator, places = _generator(settings.n_patients, settings.data_seed, side)
        if (index := places.get(case["image_id"])) is None:
            raise DataError(f"{run.path} knows no synthetic case {case['image_id']!r}; take cases of its own patients")
        others = [name for name in ARTEFACTS if case[f"truth_artefact_{name}"] and name != artefact]
        clean, painted = generator.render(index, others), generator.render(index, [*others, artefact])
        where, without, lesion, picture = painted.artefacts[artefact], clean.image, clean.mask, painted.image
    else:
        without = read_square(case["image_path"], side)
        lesion = read_square(case["mask_path"], side)[..., 0] > 127 if isinstance(case["mask_path"], str) else None
        digest = hashlib.sha256(f"{artefact} {case['image_id']}".encode()).digest()
        canvas = np.ascontiguousarray(without.transpose(2, 0, 1), np.float32)  # (H, H, 3) -> (3, H, H)
        where = paint_artefact(artefact, canvas, np.random.default_rng(int.from_bytes(digest[:8], "big")))
        picture = np.clip(np.rint(canvas), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    # What the painter changed too faintly for its own mask is left out, so that the pair differs within the mask alone.
    return Pair(without, np.where(where[..., None], picture, without), where, lesion)


def paired_artefacts(cases: pd.DataFrame, artefact: str, run, model=None) -> pd.DataFrame:
    """A run's answers to each of its cases without and with an artefact; ``model`` saves loading ``run.model()`` again.

    A changed answer alone does not prove a shortcut: paint changes pixels, perhaps those that show the melanoma. Look at cases
    whose lesion it does not touch, and compare with a model that had no reason to learn it.

    Returns:
        A row a case: ``image_id``, ``group_id``, ``target``; ``area``, the share of the picture that the artefact covers;
        ``on_lesion``, whether it touches the lesion (NA without a mask); and ``logit_``, ``risk_`` (calibrated) and ``flagged_``
        (at the run's threshold), each ``without`` and ``with``.

    Raises:
        ValueError: if there are no cases or the run looks at no image; else as :func:`artefact_pair`.
        ForeignThresholdError: if the stored threshold belongs to another model.
    """
    if cases.empty or "image" not in run.settings.modalities:
        raise ValueError(f"expected cases and a run that looks at images, got {len(cases)} cases and {run.settings.modalities!r}")
    predictor, parts = Predictor(run, model=model), []
    for start in range(0, len(cases), BATCH):
        rows = cases.iloc[start : start + BATCH].reset_index(drop=True)
        pairs = [artefact_pair(case, artefact, run) for _, case in rows.iterrows()]
        touches = [None if pair.lesion is None else bool((pair.where & pair.lesion).any()) for pair in pairs]
        part = rows[["image_id", "group_id", "target"]].assign(
            area=[pair.where.mean() for pair in pairs], on_lesion=pd.array(touches, dtype="boolean")
        )
        for name, pictures in (("without", [p.without for p in pairs]), ("with", [p.painted for p in pairs])):
            answers = predictor.predict_cases(rows.assign(image_path=pictures))
            part = part.join(answers[["logit", "risk", "flagged"]].add_suffix(f"_{name}"))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


@cache
def _generator(n_patients: int, seed: int, side: int) -> tuple[SyntheticDermoscopy, dict[str, int]]:
    generator = SyntheticDermoscopy(n_patients, seed, side)
    return generator, {name: place for place, name in enumerate(generator.cases["image_id"])}
