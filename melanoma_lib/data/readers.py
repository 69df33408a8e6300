"""One reader per source: a publisher's table in, the kit's columns out, with errors that name file, row and value.

Every reader takes the path of its main table and returns every case column but files and groups, indexed by line in the
file. What is only known once the diagnosis is (how it was confirmed, the thickness) is left behind.
"""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.data.metadata import MISSING, NAMES
from melanoma_lib.data.schema import CASE_COLUMNS, TEXT, TEXT_COLUMNS, listed, require
from melanoma_lib.errors import DataError

log = logging.getLogger("melanoma_lib")
MARKS = "\t;|,"  # what separates cells: the one that is most frequent in the header
IMAGE_COLUMNS = ("image", "image_id", "isic_id", "image_name")
ENDING = r"(?i)\.(jpe?g|png)$"


def read_table(path: Path, needs: Sequence[str]) -> pd.DataFrame:
    """Read a comma, semicolon, tab or pipe separated UTF-8 table, with or without byte order mark, as text.

    Cells are stripped ("" for empty), column names in lower case, rows indexed by line number; empty lines and Excel's
    ``sep=;`` are left out. Decimal commas become points, where commas do not separate cells. Names of images are in
    Unicode's composed form, and without the ending of the file if their column is one that it ``needs``.
    DataError if it has no rows, a row too long or with a blank image name, a column twice, or lacks one it ``needs``.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "").lstrip('"')
            file.seek(0)
            mark = max(MARKS, key=first.count)
            reader = csv.reader(file, delimiter=mark, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again, or save it as CSV UTF-8.") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if first.lower().startswith("sep="):  # how Excel is told what separates cells
        lines = lines[1:]
    if len(lines) < 2:
        raise DataError(f"{path} cannot be read: expected a header and rows, found {len(lines)} filled lines.")
    (_, header), *rows = lines
    names, width = [name.lower() for name in header], len(header)
    for number, cells in rows:
        if any(cells[width:]):
            raise DataError(f"{path}, row {number}: {len(cells)} cells, {width} columns; quote a cell that holds {mark!r}.")
    full = [(cells + [""] * width)[:width] for _, cells in rows]
    table = pd.DataFrame(full, index=[number for number, _ in rows], columns=names, dtype=TEXT)
    if again := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{path}: column {listed(again)} is there twice, letter case aside; keep one.")
    if missing := [column for column in needs if column not in names]:
        raise DataError(f"{path}: column {listed(missing)} missing; expected {listed(needs)}, found {listed(names)}.")
    if mark != ",":  # as where Excel writes 55,5
        table = table.replace(r"^(\d+),(\d{1,2})$", r"\1.\2", regex=True)
    for column in table.columns.intersection(IMAGE_COLUMNS):
        require(table[column] != "", table[column], path, "the name of an image")
        table[column] = composed = table[column].str.normalize("NFC")  # macOS takes letters and their dots apart
        if column in needs:
            table[column] = composed.str.replace(ENDING, "", regex=True)
    return table


def _optional(table: pd.DataFrame, column: str) -> pd.Series:
    """A column with its missing values as NaN; all NaN where the table has no such column."""
    if column not in table:
        return pd.Series(np.nan, index=table.index, dtype=TEXT)
    return table[column].mask(table[column].str.casefold().isin(MISSING)).astype(TEXT)


def _translate(values: pd.Series, vocabulary: str, path: Path) -> pd.Series:
    """Look every value up in the named table of ``vocabulary.toml``, whatever its letter case; missing ones stay missing."""
    names, keys = NAMES[vocabulary], values.str.casefold()
    wanted = f"one of {listed(sorted(names))}, or what {vocabulary} in melanoma_lib/data/vocabulary.toml is extended by"
    require(keys.isin(list(names)) | values.isna(), values, path, wanted)
    return keys.map(names)


def resolve(root: Path, relative: str) -> Path | None:
    """The path below root that matches whatever its letter case, or None."""
    for part in Path(relative).parts:
        exact = [root / part] if (root / part).exists() else []
        if not (match := exact or sorted(path for path in root.glob("*") if path.name.casefold() == part.casefold())):
            return None
        root = match[0]
    return root


def read_synthetic(path: Path) -> pd.DataFrame:
    """The table that ``SyntheticDermoscopy.write`` leaves."""
    lines = read_table(path, needs=CASE_COLUMNS).index
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str)).set_index(lines)


def read_ham10000(path: Path) -> pd.DataFrame:
    """Kaggle's table or the Dataverse one, which adds the camera in ``dataset``. No patient is named: lesions are the groups."""
    table = read_table(path, needs=("lesion_id", "image_id", "dx", "age", "sex", "localization"))
    return _case_rows(
        table,
        path,
        age="age",
        image_id=table["image_id"],
        anatom_site_general_challenge=_translate(_optional(table, "localization"), "HAM10000_SITES", path),
        target=_translate(table["dx"], "HAM10000_DIAGNOSES", path),
        diagnosis=table["dx"],
        acquisition=_optional(table, "dataset"),
    )


def read_isic2019(path: Path) -> pd.DataFrame:
    """Metadata and, from the file beside it, the one-hot diagnoses."""
    table = read_table(path, needs=("image", "age_approx", "anatom_site_general", "lesion_id", "sex"))
    names, truth_name = list(NAMES["ISIC_2019_DIAGNOSES"]), "ISIC_2019_Training_GroundTruth.csv"
    truth_path = _beside(path, truth_name) or path.with_name(truth_name)
    truth = read_table(truth_path, needs=("image", *names))
    require(table["image"].isin(truth["image"]), table["image"], path, f"an image of {truth_path.name}")
    truth["diagnosis"] = _one_hot(truth, names, truth_path)
    table = _with_columns(table, truth, truth_path, "image", "diagnosis")
    return _case_rows(
        table,
        path,
        image_id=table["image"],
        anatom_site_general_challenge=_translate(_optional(table, "anatom_site_general"), "ISIC_SITES", path),
        target=_translate(table["diagnosis"], "ISIC_2019_DIAGNOSES", path),
        diagnosis=table["diagnosis"],
        # BCN, HAM or MSK: the collection a lesion id starts with is the only trace of the clinic
        acquisition=_optional(table, "lesion_id").str.extract(r"^([A-Za-z]+)\d*_", expand=False),
    )


def _one_hot(table: pd.DataFrame, names: list[str], path: Path, rest: str | None = None) -> pd.Series:
    """The one of the columns ``names`` that is 1 in each row; where none is, ``rest`` if it is given."""
    marks = table[names].apply(pd.to_numeric, errors="coerce")
    sums = marks.sum(axis=1)
    fits = marks.isin((0, 1)).all(axis=1) & (sums.isin((0, 1)) if rest else sums == 1)
    found = table[names].apply(list, axis=1).rename(listed(names))
    require(fits, found, path, f"{'at most one' if rest else 'one'} 1 among zeros")
    return marks.idxmax(axis=1).where(sums == 1, rest)


def read_isic2018(path: Path) -> pd.DataFrame:
    """One part of the challenge's task 3: its one-hot table, or the Dataverse's in the form of HAM10000, which has metadata.

    The training part is HAM10000, with several images of many lesions, so it is refused without its table of lesions.
    """
    table, names = read_table(path, needs=()), list(NAMES["HAM10000_DIAGNOSES"])
    if "dx" in table:
        return read_ham10000(path)
    table = read_table(path, needs=("image", *names))
    if "training" in path.name.casefold():
        name = "ISIC2018_Task3_Training_LesionGroupings.csv"
        lesions = _beside(path, name) or path.with_name(name)
        table = _with_columns(table, read_table(lesions, ("image", "lesion_id")), lesions, "image", "lesion_id")
    diagnosis = _one_hot(table, names, path)
    target = diagnosis.map(NAMES["HAM10000_DIAGNOSES"])
    return _case_rows(table, path, image_id=table["image"], target=target, diagnosis=diagnosis)


def read_isic2017(path: Path) -> pd.DataFrame:
    """One part of the challenge: melanoma, seborrheic keratosis, or neither: nevus. Age and sex where their table is there."""
    names, age = ["melanoma", "seborrheic_keratosis"], "age_approximate"
    table = read_table(path, needs=("image_id", *names))
    data = path.stem[: path.stem.casefold().index("_part3")] + "_Data"
    if metadata := _beside(path, f"{data}/{data}_metadata.csv") or _beside(path, f"{data}_metadata.csv"):
        table = _with_columns(table, read_table(metadata, ("image_id", age, "sex")), metadata, "image_id", age, "sex")
    diagnosis = _one_hot(table, names, path, rest="nevus").str.replace("_", " ")
    target = (diagnosis == "melanoma").astype("int64")
    return _case_rows(table, path, age, image_id=table["image_id"], target=target, diagnosis=diagnosis)


def _beside(path: Path, relative: str) -> Path | None:
    """A file that belongs to a table: beside it, or beside the folder that its archive unpacked to; else None."""
    return resolve(path.parent, relative) or resolve(path.parent.parent, relative)


def _with_columns(table: pd.DataFrame, other: pd.DataFrame, path: Path, key: str, *columns: str) -> pd.DataFrame:
    """The table with columns of another one, read from ``path``, matched by ``key``; "" where the other lacks a row."""
    require(~other[key].duplicated(), other[key], path, "each image once")
    return table.assign(**other.set_index(key)[[*columns]].reindex(table[key], fill_value="").set_index(table.index))


def read_isic2020(path: Path) -> pd.DataFrame:
    """Kaggle's ``train.csv`` or the challenge's own ground truth, which may add ``lesion_id``."""
    site = "anatom_site_general_challenge"
    table = read_table(path, needs=("image_name", "patient_id", "sex", "age_approx", site, "diagnosis", "target"))
    target = _translate(table["diagnosis"], "ISIC_2020_DIAGNOSES", path)
    said = pd.to_numeric(table["target"], errors="coerce")
    require(said == target, table["target"], path, "1 where the diagnosis is melanoma and 0 elsewhere")
    named = {site: _translate(_optional(table, site), "ISIC_SITES", path), "diagnosis": table["diagnosis"]}
    return _case_rows(table, path, image_id=table["image_name"], target=target, **named)


def read_isic_archive(path: Path) -> pd.DataFrame:
    """What isic-cli exports: only columns with some value. Undecided and non-dermoscopic rows are left out and counted."""
    table = read_table(path, needs=("isic_id", "diagnosis_1"))
    diagnoses, sites = ([_optional(table, f"{name}_{level}") for level in range(1, 6)] for name in ("diagnosis", "anatom_site"))
    pairs = (diagnoses[0] + ":" + diagnoses[1].fillna("")).rename("diagnosis_1:diagnosis_2")
    target = _translate(pairs, "ISIC_ARCHIVE_DIAGNOSES", path).astype("float64")  # NaN: undecided
    dermoscopic = _optional(table, "image_type").fillna("dermoscopic").str.casefold() == "dermoscopic"
    reasons = {"not a dermoscopic image": ~dermoscopic, "melanoma or not is undecided": dermoscopic & target.isna()}
    left_out = {reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()}
    keep = dermoscopic & target.notna()
    if not keep.any():
        raise DataError(f"{path}: none of the {len(table)} rows is a dermoscopic image with a decided diagnosis ({left_out}).")
    for reason, count in left_out.items():
        log.warning("left out %d of %d rows of %s: %s", count, len(table), path, reason)
    _translate(sites[0], "ISIC_ARCHIVE_SITE_LEVELS", path)  # of the deeper levels, names that say nothing of the site are many
    named = [level.str.casefold().map(NAMES["ISIC_ARCHIVE_SITE_LEVELS"]) for level in sites]
    rows = _case_rows(
        table,
        path,
        image_id=table["isic_id"],
        anatom_site_general_challenge=_last([*named, _translate(_optional(table, "anatom_site_general"), "ISIC_SITES", path)]),
        target=target,
        diagnosis=_last(diagnoses),
        acquisition=_optional(table, "attribution"),
    )
    rows.attrs["dropped_rows"] = left_out
    return rows[keep]


def _last(levels: Sequence[pd.Series]) -> pd.Series:
    return pd.concat([level.astype(TEXT) for level in levels], axis=1).ffill(axis=1).iloc[:, -1]


def _case_rows(table: pd.DataFrame, path: Path, age: str = "age_approx", **columns: pd.Series) -> pd.DataFrame:
    """The case table's columns: those given, and ids, age and sex from the columns of the file that bear them."""
    usual = {
        "patient_id": _optional(table, "patient_id"),
        "lesion_id": _optional(table, "lesion_id"),
        "age_approx": _optional(table, age).replace("85+", "85"),  # the archive caps ages so that nobody is recognised
        "sex": _translate(_optional(table, "sex"), "SEX_NAMES", path),
        "anatom_site_general_challenge": np.nan,
        "acquisition": np.nan,
    }
    return pd.DataFrame(usual | columns, index=table.index)
