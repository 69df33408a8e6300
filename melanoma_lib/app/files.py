"""Many image files at once: a row an image, with what the model says of it, or why it says nothing."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from melanoma_lib.data.images import read_square
from melanoma_lib.data.readers import read_table
from melanoma_lib.data.schema import listed
from melanoma_lib.data.vocabulary import (
    HAM10000_SITES,
    ISIC_ARCHIVE_SITE_LEVELS,
    ISIC_SITES,
    MAX_AGE,
    MISSING,
    SEX_NAMES,
)
from melanoma_lib.errors import DataError, KitError
from melanoma_lib.inference.predictor import COLUMNS, Predictor
from melanoma_lib.utils import progress_bar

if TYPE_CHECKING:
    from melanoma_lib.runs import Run

log = logging.getLogger("melanoma_lib")

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
TABLES = (".csv", ".tsv", ".tab", ".txt", "")  # HAM10000's own has no suffix
# What tables call the image and what is known of the patient; the first that is there counts.
HEADS = {
    "image": ("image", "image_id", "isic_id", "image_name"),
    "age": ("age", "age_approx"),
    "sex": ("sex",),
    "site": ("site", "anatom_site_general_challenge", "anatom_site_general", "localization"),
}
SITES = HAM10000_SITES | ISIC_SITES | ISIC_ARCHIVE_SITE_LEVELS
FLAGGED, NOT_FLAGGED, WITHHELD, UNREAD = "flagged", "not flagged", "no answer to rely on", "not read"
BATCH = 32


def gather(given: Sequence[Path]) -> pd.DataFrame:
    """The images that are meant, with what tables know of each.

    Args:
        given: images, folders of them (subfolders included), and tables with ``HEADS``. With images or folders a table tells of
            those, by file name with or without suffix; tables alone name the images, which lie beside or below them.

    Returns:
        ``image`` (path), the case table's age, sex and site, and ``notes`` on values that are not known and count as missing.

    Raises:
        DataError: if there is no image, or a table cannot be read or names none.
    """
    paths, tables = [], []
    for path in given:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES and not file.name.startswith("."))
            if not files:
                raise DataError(f"{path} holds no image; expected files that end in {', '.join(IMAGES)}")
            paths += files
        elif path.suffix.lower() in TABLES and path.is_file():
            tables.append((path, _read_patients(path)))
        else:
            paths.append(path)
    known = {name: patient for _, patients in reversed(tables) for name, patient in patients.items()}
    if not paths:
        for table, patients in tables:
            beside = {file.name: file for file in table.parent.rglob("*") if file.suffix.lower() in IMAGES}
            beside |= {file.stem: file for file in beside.values()}
            paths += [beside.get(name, table.parent / name) for name in patients]
    unlisted = {"notes": "no table names this image; age, sex and site count as missing"} if known else {}
    rows = [{"image": path, "notes": ""} | known.get(path.name, known.get(path.stem, unlisted)) for path in dict.fromkeys(paths)]
    return pd.DataFrame(rows).reindex(columns=["image", *COLUMNS.values(), "notes"])


def _read_patients(path: Path) -> dict[str, dict[str, Any]]:
    """Age, sex, site and notes by the image's name."""
    table = read_table(path, ())
    heads = {name: next((head for head in heads if head in table), None) for name, heads in HEADS.items()}
    if heads["image"] is None:
        raise DataError(f"{path}: expected a column {' or '.join(HEADS['image'])}, found {listed(table.columns)}")
    patients: dict[str, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        said = {name: row[head] for name, head in heads.items() if head}
        patients.setdefault(said.pop("image"), _patient(said))
    if (more := len(table) - len(patients)) > 0:
        log.warning("%s: %d rows name an image again; the first one counts", path, more)
    return patients


def _patient(said: dict[str, str]) -> dict[str, Any]:
    """The kit's values of a table's words; what it does not know is missing, and noted."""
    known, strange = {}, []
    for name, word in said.items():
        value = _years(word) if name == "age" else {"sex": SEX_NAMES, "site": SITES}[name].get(word.lower())
        if value is not None:
            known[COLUMNS[name]] = value
        elif word.lower() not in MISSING:
            strange.append(f"{name} {word!r} is not known and counts as missing")
    return known | {"notes": "; ".join(strange)}


def _years(word: str) -> float | None:
    try:
        years = float(word)
    except ValueError:
        return None
    return years if math.isfinite(years) and 0 <= years <= MAX_AGE else None


def answer_files(source: Run | Path, cases: pd.DataFrame, tta: bool = False, show_progress: bool = True) -> pd.DataFrame:
    """Ask a run, or an exported file, about images; one that cannot be read is a row with its reason.

    Args:
        source: a run, or the path of an exported file, which cannot tell whether an image is unlike those of training.
        cases: from :func:`gather`.
        tta: average eight views, with a calibration and threshold of their own.
        show_progress: show a bar.

    Returns:
        ``image``, ``probability`` (sigmoid of the logit, uncalibrated), ``risk`` (calibrated), ``decision`` and ``warnings``.
        Where the image is unlike those of training the decision is ``WITHHELD``. Educational, not for diagnosis.

    Raises:
        ExportError: if the file has no reading of eight views.
        DataError: if eight views of a run were never calibrated and its images are gone.
    """
    predictor, unlike = _open(source, tta)
    parts = []
    with progress_bar("predicting", len(cases), show_progress) as advance:
        for start in range(0, len(cases), BATCH):
            parts.append(_answer_some(predictor, unlike, cases.iloc[start : start + BATCH]))
            for _ in range(len(parts[-1])):
                advance()
    return pd.concat(parts)


def _open(source: Run | Path, tta: bool) -> tuple[Predictor, Any]:
    """Who is asked, and a function from squares and pixels to warnings, one list an image; None where nothing is known."""
    if isinstance(source, Path):
        return Predictor(source, tta=tta or None), None
    from melanoma_lib.app.unlike import REFERENCE, Reference, layer_features

    model, reference = source.model(), None
    predictor = Predictor(source, model=model)
    if predictor.document.preprocessing is None:
        return predictor, None
    if (kept := source.path / REFERENCE).is_file():
        reference = Reference.load(kept, predictor.document.checkpoint_sha256)
    else:
        log.info("images are not compared with those of training: %s is not there yet, the first start of app writes it", kept)
    if tta and predictor.views == 1:
        if reference is None or reference.views is None:
            from melanoma_lib.export.writer import describe_run

            predictor = predictor.averaging(describe_run(source, tta=True).readings["8"])
        else:
            predictor = predictor.averaging(reference.views)
    if reference is None:
        return predictor, None

    def unlike(squares: Sequence[np.ndarray], pixels: np.ndarray) -> Iterator[tuple[str, ...]]:
        import torch

        return map(reference.warnings, squares, layer_features(model, torch.from_numpy(pixels)))

    return predictor, unlike


def _answer_some(predictor: Predictor, unlike: Any, cases: pd.DataFrame) -> pd.DataFrame:
    document = predictor.document

    def read(path: Path) -> np.ndarray | str:
        try:
            if not path.is_file():
                raise DataError("there is no such file")
            square = read_square(path, document.preprocessing.stored_side)
            document.refuse_photograph(path)
        except (KitError, OSError) as error:
            return str(error)
        return square

    squares: list[np.ndarray | str] = [""] * len(cases)
    if document.preprocessing is not None:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            squares = list(pool.map(read, cases["image"]))
    reasons = [one if isinstance(one, str) else "" for one in squares]
    table = pd.DataFrame({"image": cases["image"].map(str), "decision": UNREAD, "warnings": reasons})
    good = table["warnings"] == ""
    if good.any():
        inputs, warned = {}, [()] * int(good.sum())
        if document.encoder is not None:
            inputs["metadata"] = document.encoder.transform(cases[good])
        if document.preprocessing is not None:
            kept = [one for one in squares if not isinstance(one, str)]
            inputs["image"] = np.stack([predictor.prepare(square) for square in kept])  # (B, 3, S, S)
            warned = list(unlike(kept, inputs["image"])) if unlike else warned
        said = predictor.reading.answers(predictor.logits(**inputs))
        notes = cases.loc[good, "notes"] if document.encoder is not None else [""] * len(warned)
        table.loc[good, "probability"], table.loc[good, "risk"] = said["probability"], said["risk"]
        decided = np.where(said["flagged"], FLAGGED, NOT_FLAGGED)
        table.loc[good, "decision"] = [WITHHELD if why else one for why, one in zip(warned, decided, strict=True)]
        told = [" ".join([*why, note]).strip() for why, note in zip(warned, notes, strict=True)]
        table.loc[good, "warnings"] = told
    return table.reindex(columns=["image", "probability", "risk", "decision", "warnings"])
