"""Many image files at once: a row an image, with what the model says of it, or why it says nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from melanoma_lib.data import vocabulary
from melanoma_lib.data.images import read_square
from melanoma_lib.data.readers import read_table
from melanoma_lib.data.schema import listed
from melanoma_lib.errors import DataError, KitError
from melanoma_lib.inference.predictor import COLUMNS, Predictor
from melanoma_lib.utils import progress_bar

if TYPE_CHECKING:
    from melanoma_lib.app.unlike import Reference
    from melanoma_lib.model import MelanomaNet
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
SITES = vocabulary.HAM10000_SITES | vocabulary.ISIC_SITES | vocabulary.ISIC_ARCHIVE_SITE_LEVELS
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
    tables = {path: _read_patients(path) for path in given if path.suffix.lower() in TABLES and path.is_file()}
    paths: list[Path] = []
    for path in given:
        if path.is_dir() and not (files := _images_in(path)):
            raise DataError(f"{path} holds no image; expected files that end in {', '.join(IMAGES)}")
        paths += files if path.is_dir() else [path] if path not in tables else []
    if not paths:
        for path, patients in tables.items():
            beside = {name: file for file in _images_in(path.parent) for name in (file.stem, file.name)}
            paths += [beside.get(name, path.parent / name) for name in patients.index]
    known = pd.concat([pd.DataFrame(columns=[*COLUMNS.values(), "notes"]), *tables.values()])
    known, paths = known[~known.index.duplicated()], list(dict.fromkeys(paths))
    cases = known.reindex([path.name if path.name in known.index else path.stem for path in paths]).reset_index(drop=True)
    unlisted = "" if known.empty else "no table names this image; age, sex and site count as missing"
    return cases.assign(image=paths, notes=cases["notes"].fillna(unlisted))


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGES and not file.name.startswith("."))


def _read_patients(path: Path) -> pd.DataFrame:
    """Age, sex, site and notes by the image's name; a word that the kit does not know is missing, and noted."""
    table = read_table(path, ())
    heads = {name: next((head for head in heads if head in table), None) for name, heads in HEADS.items()}
    if heads["image"] is None:
        raise DataError(f"{path}: expected a column {' or '.join(HEADS['image'])}, found {listed(table.columns)}")
    table = table.set_index(heads.pop("image"))
    if table.index.has_duplicates:
        log.warning("%s: some images are named again; the first row of each counts", path)
    found = pd.DataFrame({"notes": ""}, index=table.index)
    for name, column in COLUMNS.items():
        words = table[heads[name]] if heads[name] else pd.Series("", table.index)
        if name == "age":
            years = pd.to_numeric(words, errors="coerce")
            found[column] = years.where(years.between(0, vocabulary.MAX_AGE))
        else:
            found[column] = words.str.lower().map(vocabulary.SEX_NAMES if name == "sex" else SITES)
        strange = found[column].isna() & ~words.str.lower().isin(vocabulary.MISSING)
        found.loc[strange, "notes"] += f"{name} '" + words[strange] + "' is not known and counts as missing. "
    return found.assign(notes=found["notes"].str.strip())


def answer_files(source: Run | Path, cases: pd.DataFrame, tta: bool = False, show_progress: bool = True) -> pd.DataFrame:
    """Ask about images; one that cannot be read is a row with its reason.

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
    model = reference = None
    if isinstance(source, Path):
        predictor = Predictor(source, tta=tta or None)
    else:
        from melanoma_lib.app.unlike import REFERENCE, Reference

        predictor = Predictor(source, model=(model := source.model()))
        if (source.path / REFERENCE).is_file():
            reference = Reference.of(source)
        elif predictor.document.preprocessing is not None:  # to look at training now would take minutes
            log.info("images are not compared with those of training: the first start of app writes %s", source.path / REFERENCE)
        if tta and predictor.views == 1 and predictor.document.preprocessing is not None:
            from melanoma_lib.export.writer import describe_run

            reading = reference.views if reference else describe_run(source, tta=True).readings["8"]
            predictor = predictor.averaging(reading)
    parts = []
    with progress_bar("predicting", len(cases), show_progress) as advance:
        for start in range(0, len(cases), BATCH):
            parts.append(_answer_some(predictor, model, reference, cases.iloc[start : start + BATCH]))
            for _ in range(len(parts[-1])):
                advance()
    return pd.concat(parts)


def _answer_some(
    predictor: Predictor, model: MelanomaNet | None, reference: Reference | None, cases: pd.DataFrame
) -> pd.DataFrame:
    document, inputs = predictor.document, {}
    table = pd.DataFrame({"image": cases["image"].map(str), "decision": UNREAD, "warnings": ""})

    def read(path: Path) -> np.ndarray | str:
        try:
            if not path.is_file():
                raise DataError("there is no such file")
            square = read_square(path, document.preprocessing.stored_side)
            document.refuse_photograph(path)
        except (KitError, OSError) as error:
            return str(error)
        return square

    if document.preprocessing is not None:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            squares = list(pool.map(read, cases["image"]))
        table["warnings"] = [one if isinstance(one, str) else "" for one in squares]
        squares = [one for one in squares if not isinstance(one, str)]
    good = table["warnings"] == ""
    unlike = [document.warnings(path) if document.preprocessing else () for path in cases["image"][good]]
    if good.any():
        if document.preprocessing is not None:
            inputs["image"] = np.stack([predictor.prepare(square) for square in squares])  # (B, 3, S, S)
        if document.encoder is not None:
            inputs["metadata"] = document.encoder.transform(cases[good])
            table.loc[good, "warnings"] = cases["notes"]
        said = pd.DataFrame(predictor.reading.answers(predictor.logits(**inputs)), index=table.index[good])
        table.loc[good, ["probability", "risk"]] = said[["probability", "risk"]]
        table.loc[good, "decision"] = said["flagged"].map({True: FLAGGED, False: NOT_FLAGGED})
    if good.any() and reference is not None:
        from melanoma_lib.app.unlike import layer_features

        features = layer_features(model, inputs["image"])
        unlike = [(*own, *reference.warnings(*both)) for own, *both in zip(unlike, squares, features, strict=True)]
    for row, why in zip(table.index[good], unlike, strict=True):
        if why:
            table.loc[row, ["decision", "warnings"]] = WITHHELD, " ".join([*why, table.at[row, "warnings"]]).strip()
    return table.reindex(columns=["image", "probability", "risk", "decision", "warnings"])
