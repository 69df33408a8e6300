"""Many image files at once: a row an image, with what the model says of it, or why it says nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from melanoma_lib.app.service import Case, Patient, Service
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
BATCH = 32


def gather(given: Sequence[Path]) -> pd.DataFrame:
    """The images that are meant, with what tables know of each.

    Args:
        given: images, folders of them (subfolders included), and tables with ``HEADS``, which tell of images by file name, with
            or without suffix.

    Returns:
        ``image`` (path), the case table's age, sex and site, and ``notes`` on values that are not known and count as missing.

    Raises:
        DataError: if there is no image, or a table cannot be read or names none.
    """
    tables = {path: _read_patients(path) for path in given if path.suffix.lower() in TABLES and path.is_file()}
    paths: dict[Path, None] = {}
    for path in given:
        found = sorted(path.rglob("*")) if path.is_dir() else []
        images = [file for file in found if file.suffix.lower() in IMAGES and not file.name.startswith(".")]
        paths |= dict.fromkeys(images if path.is_dir() or path in tables else [path])
    if not paths:
        asked, endings = ", ".join(map(str, given)), ", ".join(IMAGES)
        raise DataError(f"{asked} holds no image; expected files, or folders with files, that end in {endings}")
    known = pd.concat([pd.DataFrame(columns=[*COLUMNS.values(), "notes"]), *tables.values()])
    known = known[~known.index.duplicated()]
    cases = known.reindex([path.name if path.name in known.index else path.stem for path in paths]).reset_index(drop=True)
    unlisted = "no table names this image; age, sex and site count as missing" if tables else ""
    return cases.assign(image=list(paths), notes=cases["notes"].fillna(unlisted))


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
        DataError: if eight views were never calibrated, and a run's images, from which that could be done, are gone.
    """
    service, rows = Service(source), []
    service.load()
    if tta and 8 not in service.predictors:
        service.learn_training()
    if service.lacks and isinstance(source, Run):  # to look at training now would take minutes
        log.info("images are not compared with those of training; the first start of app prepares that")
    with progress_bar("predicting", len(cases), show_progress) as advance:
        for start in range(0, len(cases), BATCH):
            for row in _answer_some(service, cases.iloc[start : start + BATCH], tta):
                rows.append(row)
                advance()
    return pd.DataFrame(rows, columns=["image", "probability", "risk", "decision", "warnings"])


def _answer_some(service: Service, cases: pd.DataFrame, tta: bool) -> Iterator[dict]:
    document = service.document

    def read(path: Path) -> Case | str | None:
        try:
            return service.read(path.read_bytes()) if document.preprocessing is not None else None
        except (KitError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(read, cases["image"]))
    good = [place for place, one in enumerate(found) if not isinstance(one, str)]
    if good:
        known = cases.iloc[good][list(COLUMNS.values())].itertuples(index=False)
        patients = [Patient(*row) if document.encoder else Patient() for row in known]
        shown = service.compare([found[place] for place in good])
        _, said = service.answers(shown, patients, tta)
        answered = zip(shown, pd.DataFrame(said).itertuples(), strict=True)
    for case, read_as in zip(cases.itertuples(), found, strict=True):
        row = {"image": str(case.image), "decision": UNREAD, "warnings": read_as}
        if not isinstance(read_as, str):
            picture, answer = next(answered)
            warnings, notes = (picture.warnings, picture.notes) if picture else ((), ())
            decision = WITHHELD if warnings else FLAGGED if answer.flagged else NOT_FLAGGED
            told = " ".join([*warnings, *notes, case.notes if document.encoder else ""]).strip()
            row |= {"probability": answer.probability, "risk": answer.risk, "decision": decision, "warnings": told}
        yield row
