"""Many image files at once: a row an image, with what the model says of it, or why it says nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import pandas as pd
from joblib import Parallel, delayed

from melanoma_lib.app.service import Patient, Service
from melanoma_lib.data.metadata import MAX_AGE, MISSING, NAMES
from melanoma_lib.data.readers import read_table
from melanoma_lib.data.schema import listed
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
    """The images that are meant, with what a table knows of each; DataError if there are none, or a table cannot be read.

    Args:
        given: images, folders of them (subfolders included), and tables with ``HEADS``. With images or folders a table tells
            of those, by file name with or without suffix; tables alone name images by paths relative to their own folder, or
            by the names of files somewhere below it. Rows of one image that differ are refused.

    Returns:
        ``image`` (path), the case table's age, sex and site, and ``notes`` on values that are not known and count as missing.
    """
    if lost := [path for path in given if not path.exists() and path.suffix.lower() not in IMAGES]:
        raise DataError(f"{lost[0]} does not exist; expected images, folders of them, tables")
    if strange := [path for path in given if path.is_file() and path.suffix.lower() not in (*IMAGES, *TABLES)]:
        raise DataError(f"{strange[0]} is no image ({', '.join(IMAGES)}), and no table (save it as CSV)")
    tables = [path for path in given if path.suffix.lower() in TABLES and path.is_file()]
    known = pd.concat([pd.DataFrame(columns=[*COLUMNS.values(), "notes"]), *map(_read_patients, tables)])
    folders = [path for path in given if path not in tables] or sorted({path.parent for path in tables})
    found = {path: _images_in(path, told=path in given) if path.is_dir() else [path] for path in folders}
    images = list(dict.fromkeys(file for files in found.values() for file in files))
    empty = [path for path, files in found.items() if path in given and not files]
    if empty or not any(path.exists() for path in given):
        raise DataError(f"{listed(empty or given)}: found none of {', '.join(IMAGES)}, nor settings.json of a run directory")
    names = [(normalize("NFC", path.name), normalize("NFC", path.stem)) for path in images]
    keys = pd.Index([name if name in known.index else stem for name, stem in names])
    if tables:
        by = known["image"].map(str) if len(tables) == len(given) else known.index.where(known.index.isin(keys))
        differing = known.groupby(by)[list(COLUMNS.values())].nunique(dropna=False).gt(1).any(axis=1)
        if differing.any():
            raise DataError(f"{listed(differing.index[differing])}: rows of one image differ in age, sex or site; keep one")
    if len(tables) == len(given):
        files = pd.Series(images * 2, [*sum(zip(*names, strict=True), ())]).loc[lambda one: ~one.index.duplicated(keep=False)]
        named = [path if path.is_file() else files.get(path.name, path) for path in known["image"]]
        stems = pd.Index([stem for _, stem in names])
        lost = [not path.is_file() and path.stem in stems[stems.duplicated()] for path in named]
        known.loc[lost, "notes"] = "Several files have this name: tell the folder, too."
        return known.assign(image=named).drop_duplicates("image", ignore_index=True)
    known = known[~known.index.duplicated()]
    if unused := len(known) - known.index.isin([name for both in names for name in both]).sum():
        log.warning("%d of %d images that the tables name are not among those given", unused, len(known))
    if len(twins := keys[keys.duplicated() & keys.isin(known.index)]):
        raise DataError(f"{listed(twins)}: a row of the table fits several images; give their folders one at a time")
    cases = known.reindex(keys)
    unlisted = "no table names this image; age, sex and site count as missing" if tables else ""
    return cases.assign(image=images, notes=cases["notes"].fillna(unlisted)).reset_index(drop=True)


def _images_in(folder: Path, told: bool) -> list[Path]:
    """Images in a folder and below; where it is to be ``told``, other files are logged, such as DICOM without an ending."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    others = {file for file in files if file.suffix.lower() not in IMAGES}
    if told and others:
        endings = listed(sorted({file.suffix or "none" for file in others}))
        log.warning("%s: %d files are not read, as they are no images by their ending: %s", folder, len(others), endings)
    return [file for file in files if file not in others]


def _read_patients(path: Path) -> pd.DataFrame:
    """Age, sex, site and notes by the image's file name; a word that the kit does not know is missing, and noted."""
    table = read_table(path, ())
    heads = {name: next((head for head in heads if head in table), None) for name, heads in HEADS.items()}
    for name in (name for name, head in heads.items() if head is None):
        if close := [(column, near[0]) for column in table if (near := get_close_matches(column, HEADS[name], 1, 0.8))]:
            raise DataError("{}: unknown column {!r}; did you mean {!r}?".format(path, *close[0]))
    if heads["image"] is None:
        raise DataError(f"{path}: expected a column {' or '.join(HEADS['image'])}, found {listed(table.columns)}")
    if absent := [name for name, head in heads.items() if head is None]:
        unread = listed(table.columns.difference([head for head in heads.values() if head])) or "none"
        log.warning("%s: no column for %s, which counts as missing; columns not read: %s", path, " and ".join(absent), unread)
    files = [path.parent / name for name in table[heads["image"]]]
    table.index = [file.name for file in files]
    found = pd.DataFrame({"image": files, "notes": ""}, index=table.index)
    for name, column in COLUMNS.items():
        words = table[heads[name]] if heads[name] else pd.Series("", table.index)
        if name == "age":
            years = pd.to_numeric(words.str.replace(",", ".").str.rstrip("+"), errors="coerce")  # 85+: ages are capped
            found[column] = years.where(years.between(0, MAX_AGE))
        else:
            found[column] = words.str.lower().map(NAMES["SEX_NAMES"] if name == "sex" else SITES)
        strange = found[column].isna() & ~words.str.lower().isin(MISSING)
        found.loc[strange, "notes"] += f"{name} '" + words[strange] + "' is not known and counts as missing. "
    return found.assign(notes=found["notes"].str.strip())


def answer_files(source: Run | Path, cases: pd.DataFrame, tta: bool = False, show_progress: bool = True) -> pd.DataFrame:
    """Ask a run, or an exported file, about images of :func:`gather`; one that cannot be read is a row with its reason.

    An exported file cannot tell whether an image is unlike those of training. With ``tta`` eight views are averaged; ExportError
    if run or file was made without.

    Returns:
        ``image``, ``probability`` (sigmoid of the logit, uncalibrated), ``risk`` (calibrated), ``decision`` and ``warnings``;
        then, the same in every row, ``model`` (name of the run), ``threshold`` on the probability, and ``prevalence``, at which
        the risk holds. Where the image is unlike those of training the decision is ``WITHHELD``. Educational, not for diagnosis.
    """
    service = Service(source, tta=tta or None)
    looks, reads = service.document.preprocessing is not None, service.document.encoder is not None
    nothing = cases[list(COLUMNS.values())].isna().all(axis=1)
    if nothing.all() and reads and not looks:
        raise DataError("the model looks at age, sex and site alone: give a table with a row an image or lesion that tells them")
    if not reads and not nothing.all():
        log.warning("the model looks at images alone; age, sex and site of the table are not used")
    cases = cases.assign(notes=cases["notes"].mask(nothing & (cases["notes"] == ""), "Age, sex and site are not known."))
    if service.predictor.reading.slope <= 0:
        log.warning("the calibration of this model failed: it gives every case the same risk")
    service.learn_training()

    def answer(case: NamedTuple) -> tuple:
        patient = Patient(case.age_approx, case.sex, case.anatom_site_general_challenge) if reads else Patient()
        try:
            picture = service.admit(case.image.read_bytes(), local=True) if looks else None
            said = service.ask(picture, patient)
        except (KitError, OSError) as error:
            return case.image, None, None, UNREAD, f"{error} {case.notes}".strip()
        decision = FLAGGED if said["flagged"] else NOT_FLAGGED
        told = " ".join([*said["warnings"], *said["notes"], case.notes if reads else ""]).strip()
        return case.image, said["probability"], said["risk"], decision if said["reliable"] else WITHHELD, told

    rows, pool = [], Parallel(-1, prefer="threads", return_as="generator")
    with progress_bar("predicting", len(cases), show_progress) as advance:
        for row in pool(delayed(answer)(case) for case in cases.itertuples()):
            rows.append(row)
            advance()
    table = pd.DataFrame(rows, columns=["image", "probability", "risk", "decision", "warnings"])
    reading, name = service.predictor.reading, service.document.run
    table = table.assign(model=name, threshold=reading.threshold, prevalence=reading.prevalence)
    return table.astype({"image": str, "probability": float, "risk": float})
