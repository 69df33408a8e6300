"""Many image files at once: a row an image, with what the model says of it, or why it says nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from melanoma_lib.app.service import Patient, Service
from melanoma_lib.data.readers import read_table
from melanoma_lib.data.schema import listed
from melanoma_lib.data.vocabulary import MAX_AGE, MISSING, NAMES
from melanoma_lib.errors import DataError, KitError
from melanoma_lib.inference.predictor import COLUMNS
from melanoma_lib.runs import Run
from melanoma_lib.utils import progress_bar

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
SITES = NAMES["HAM10000_SITES"] | NAMES["ISIC_SITES"] | NAMES["ISIC_ARCHIVE_SITE_LEVELS"]
FLAGGED, NOT_FLAGGED, WITHHELD, UNREAD = "flagged", "not flagged", "no answer to rely on", "not read"


def gather(given: Sequence[Path]) -> pd.DataFrame:
    """The images that are meant, with what tables know of each.

    Args:
        given: images, folders of them (subfolders included), and tables with ``HEADS``. With images or folders a table tells of
            those, by file name with or without suffix; tables alone name images by paths relative to their own folder, or by
            the names of files somewhere below it.

    Returns:
        ``image`` (path), the case table's age, sex and site, and ``notes`` on values that are not known and count as missing.

    Raises:
        DataError: if there is no image, or a table cannot be read or names none.
    """
    if not any(path.exists() for path in given):
        raise DataError(f"{', '.join(map(str, given))}: there is no such file or folder")
    tables = {path: _read_patients(path) for path in given if path.suffix.lower() in TABLES and path.is_file()}
    found = {path: _images_in(path) if path.is_dir() else [path] for path in given if path not in tables}
    if empty := [str(path) for path, files in found.items() if not files]:
        raise DataError(f"{', '.join(empty)} holds no image; expected files that end in {', '.join(IMAGES)}")
    if not found:
        for folder, table in ((path.parent, table) for path, table in tables.items()):
            below = {name: file for file in _images_in(folder) for name in (file.stem, file.name)}
            table["image"] = [
                folder / name if (folder / name).is_file() else below.get(name, folder / name) for name in table.index
            ]
        return pd.concat(tables.values()).drop_duplicates("image", ignore_index=True)
    images = list(dict.fromkeys(file for files in found.values() for file in files))
    known = pd.concat([pd.DataFrame(columns=[*COLUMNS.values(), "notes"]), *tables.values()])
    known.index = [Path(name).name for name in known.index]
    known = known[~known.index.duplicated()]
    cases = known.reindex([path.name if path.name in known.index else path.stem for path in images]).reset_index(drop=True)
    unlisted = "no table names this image; age, sex and site count as missing" if tables else ""
    return cases.assign(image=images, notes=cases["notes"].fillna(unlisted))


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGES and not file.name.startswith("."))


def _read_patients(path: Path) -> pd.DataFrame:
    """Age, sex, site and notes by the image's name; a word that the kit does not know is missing, and noted."""
    table = read_table(path, ())
    heads = {name: next((head for head in heads if head in table), None) for name, heads in HEADS.items()}
    for name in (name for name, head in heads.items() if head is None):
        if close := [(column, near[0]) for column in table if (near := get_close_matches(column, HEADS[name], 1, 0.8))]:
            raise DataError("{}: unknown column {!r}; did you mean {!r}?".format(path, *close[0]))
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
            found[column] = years.where(years.between(0, MAX_AGE))
        else:
            found[column] = words.str.lower().map(NAMES["SEX_NAMES"] if name == "sex" else SITES)
        strange = found[column].isna() & ~words.str.lower().isin(MISSING)
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
        DataError: if eight views have no calibration: an exported file's when it was written without, a run's when the images
            from which it could be made are gone.
    """
    service = Service(source)
    service.load()
    looks = service.document.preprocessing is not None
    if tta and 8 not in service.readings:
        service.learn_training()
    service.reading(tta)  # which is refused once, not with each image
    if looks and service.lacks and isinstance(source, Run):  # to look at training now would take minutes
        service.lacks = "the first start of app prepares the comparison"
        log.info("images are not compared with those of training; %s", service.lacks)

    def answer(case: NamedTuple) -> dict:
        row, patient = {"image": str(case.image)}, Patient(case.age_approx, case.sex, case.anatom_site_general_challenge)
        reads = service.document.encoder is not None
        try:
            picture = service.admit(case.image.read_bytes(), local=True) if looks else None
            said = service.ask(picture, patient if reads else Patient(), tta)
        except (KitError, OSError) as error:
            return row | {"decision": UNREAD, "warnings": str(error)}
        warnings, notes = (picture.warnings, picture.notes) if picture else ((), ())
        decision = WITHHELD if warnings else FLAGGED if said["flagged"] else NOT_FLAGGED
        told = " ".join([*warnings, *notes, case.notes if reads else ""]).strip()
        return row | {"probability": said["probability"], "risk": said["risk"], "decision": decision, "warnings": told}

    rows = []
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        progress_bar("predicting", len(cases), show_progress) as advance,
    ):
        for row in pool.map(answer, cases.itertuples()):
            rows.append(row)
            advance()
    return pd.DataFrame(rows, columns=["image", "probability", "risk", "decision", "warnings"])
