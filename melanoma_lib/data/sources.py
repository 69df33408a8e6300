"""From the files of each data set to the one case table."""

import difflib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pandas as pd

from melanoma_lib.data import readers
from melanoma_lib.data.readers import resolve
from melanoma_lib.data.schema import TEXT, group_ids, listed, validate_cases
from melanoma_lib.errors import DataError

log = logging.getLogger("melanoma_lib")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
STRANGERS = {  # collections that people take for one of these, by a file of theirs
    "train-image.hdf5": "It looks like ISIC 2024: crops of whole-body photographs, no dermoscopy, which the kit does not read.",
    "hmnist_*.csv": "HMNIST tables hold thumbnails of 28 or 8 pixels; HAM10000_metadata and the photographs are needed.",
}
MANY = 0.2  # share of cases without age, sex or site that is told


@dataclass(frozen=True)
class _Source:
    """Where a data set keeps its things; names are matched whatever their letter case."""

    tables: tuple[str, ...]  # editions of the main table, the fullest first; finding one is what tells the source
    read: Callable[[Path], pd.DataFrame]
    images: tuple[str, ...] = ("images",)  # folders searched for images, first hit wins
    masks: tuple[str, ...] = ("masks",)  # folders searched for lesion masks named <image_id>_segmentation.png or <image_id>.png
    parts: bool = False  # tables of different names are parts of one collection, and all that are there are read


def load_cases(
    source: str,
    root: str | Path,
    missing_images: Literal["error", "drop", "keep"] = "error",
    image_dirs: Sequence[str | Path] = (),
) -> pd.DataFrame:
    """Read one data set into the validated case table.

    Args:
        source: one of ``SOURCES``.
        root: folder that holds the source's table, laid out as the publisher's archive unpacks.
        missing_images: refuse cases whose image file is absent, leave them out and say how many, or keep them, with the path
            where the image belongs, for work on the table alone.
        image_dirs: further folders to search for images; ISIC 2019 can take its HAM10000 part from HAM10000's.

    Returns:
        The table described in ``data.schema``, one row per image, with ``RangeIndex``. ``attrs`` holds ``source``, ``table``
        (the file or files read), ``absent_images`` and ``dropped_images`` (numbers) and ``dropped_rows`` (reason: number, for
        rows left out on principle). Columns of the file that give the answer away are left behind.

    Raises:
        DataError: unknown source, wrong folder, unreadable or empty table, missing column, value outside the schema.
        DataError: a site, sex or diagnosis is one that ``vocabulary.toml`` does not know; or image files are absent and
            ``missing_images`` is ``"error"``, or none is there to go on with.
    """
    if source not in SOURCES:
        raise DataError(f"source {source!r} is not known; expected one of {list(SOURCES)}.")
    root, spec, further = Path(root).expanduser(), SOURCES[source], [Path(folder) for folder in image_dirs]
    if absent := [str(folder) for folder in further if not folder.is_dir()]:
        raise DataError(f"image_dirs: {listed(absent)} does not exist or is not a folder.")
    tables = _locate(root, source)
    table = ", ".join(map(str, tables))
    parts = [spec.read(part) for part in tables]
    rows = pd.concat(parts)
    if len(parts) > 1:  # errors then name the file of a row, too
        rows.index = [f"{path.name}:{line}" for path, part in zip(tables, parts, strict=True) for line in part.index]
    rows, absent = _with_files(rows.assign(group_id=group_ids(rows)), root, spec, further)
    cases = validate_cases(rows, origin=table)
    if absent.any() and missing_images != "keep":
        searched = [str(folder) for folder in (*(root / name for name in spec.images), *further)]
        _report_missing(cases.loc[absent, "image_id"], len(cases), searched, missing_images, root)
        cases = cases[~absent]
    cases = cases.reset_index(drop=True)
    if alone := int(cases["group_id"].str.startswith("image:").sum()):
        log.warning("%s: %d of %d cases name neither patient nor lesion; each counts as its own group", table, alone, len(cases))
    gaps = cases[["age_approx", "sex", "anatom_site_general_challenge"]].isna().sum()
    if (many := gaps[gaps > MANY * len(cases)]).any():
        log.warning("%s: of %d cases, the number without a value is %s", table, len(cases), many.to_dict())
    cases.attrs = {
        "source": source,
        "table": table,
        "absent_images": int(absent.sum()),
        "dropped_images": 0 if missing_images == "keep" else int(absent.sum()),
        "dropped_rows": parts[0].attrs.get("dropped_rows", {}),  # of a collection in parts, none are
    }
    return cases


def _report_missing(names: pd.Series, total: int, searched: list[str], policy: str, root: Path) -> None:
    """Warn of absent images or, where the policy is to refuse them or none is there, raise."""
    if policy == "drop" and len(names) < total:
        log.warning("left out %d of %d cases whose image file is absent (%s)", len(names), total, listed(names))
        return
    problem = f"{len(names)} of {total} images are absent ({listed(names)}); searched {searched}."
    if file := next(root.rglob(f"{escape(names.iloc[0])}.*"), None):
        readable = file.suffix.lower() in IMAGE_SUFFIXES
        cure = "name its folder and others like it with image_dirs" if readable else "JPEG and PNG are read; get or make those"
        problem += f" There is {file}: {cure}."
    if len(names) < total:
        problem += f" To go on with the {total - len(names)} others: --missing-images drop, in Python missing_images='drop'."
    raise DataError(f"{problem} Put the images into one of these folders, or name theirs with image_dirs.")


def _locate(root: Path, source: str) -> list[Path]:
    """The source's table, or those of its parts; of several editions the first that is there."""
    names = SOURCES[source].tables
    wanted, how = " or ".join(names), "data/README.md says how to get the files, some of them by `melanoma_lib data fetch`."
    if not root.is_dir():
        there = next(folder for folder in root.parents if folder.is_dir())
        near = [] if root.exists() else difflib.get_close_matches(root.relative_to(there).parts[0], _names(there), n=1)
        hint = f"There is {there / near[0]}; is that meant?" if near else how
        raise DataError(f"{root} does not exist or is no folder; expected that of {source}, with {wanted} in it. {hint}")
    editions: dict[str, Path] = {}
    for name in names:
        if (path := resolve(root, name)) and path.is_file():
            editions.setdefault(path.stem.casefold() if SOURCES[source].parts else "", path)
    if editions:
        return [*editions.values()]
    here = ", ".join(_names(root)[:10]) or "nothing"
    hint = _hint(root, source) or how
    raise DataError(f"{root} is no {source} folder: looked for {wanted}; found {here}. {hint}")


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def _hint(root: Path, source: str) -> str:
    def holds(folder: Path, name: str) -> bool:
        return any(resolve(folder, table) for table in SOURCES[name].tables)

    for name in SOURCES:
        if name != source and holds(root, name):
            return f"It looks like {name}; if so, set source to {name!r}."
    for folder in [*filter(Path.is_dir, map(root.joinpath, _names(root))), root.parent]:
        if holds(folder, source):
            return f"{folder} has it: use that folder."
    return next((what for pattern, what in STRANGERS.items() if any(root.glob(pattern))), "")


def list_files(folders: Iterable[Path | None], suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, str]:
    """Stem, composed -> path of the files directly in the folders, the first one winning; no file is looked at: fast."""
    files: dict[str, str] = {}
    for folder in folders:
        if folder is not None and folder.is_dir():
            for name in (name for name in _names(folder) if name.lower().endswith(suffixes)):
                stem = normalize("NFC", name.rpartition(".")[0])
                files.setdefault(stem, os.path.join(folder, name))  # noqa: PTH118 - ten times faster than Path
    return files


def on_disk(paths: pd.Series) -> pd.Series:
    """Whether each file is there, False for a missing path."""
    return paths.fillna("").map(os.path.isfile).astype(bool)  # several times faster than Path


def _with_files(rows: pd.DataFrame, root: Path, spec: _Source, further: list[Path]) -> tuple[pd.DataFrame, pd.Series]:
    """The rows with the paths of their images and masks, and which images are absent."""
    images = list_files([*(resolve(root, name) for name in spec.images), *further])
    masks = list_files((resolve(root, name) for name in spec.masks), (".png",))
    # ISIC 2019 marks images that were shrunk for the challenge; the archive's originals bear the plain id
    plain = rows["image_id"].str.removesuffix("_downsampled")
    found = rows["image_id"].map(images).astype(TEXT).fillna(plain.map(images).astype(TEXT))
    belongs = str(root / spec.images[0]) + os.sep + rows["image_id"] + ".jpg"
    mask = (plain + "_segmentation").map(masks).astype(TEXT).fillna(plain.map(masks).astype(TEXT))
    return rows.assign(image_path=found.fillna(belongs), mask_path=mask), found.isna()


_PARTS_2017 = tuple(f"ISIC-2017_{part}" for part in ("Training", "Validation", "Test_v2"))
_PARTS_2018 = tuple(f"ISIC2018_Task3_{part}" for part in ("Training", "Validation", "Test"))
_MASKS = ("HAM10000_segmentations_lesion_tschandl", "masks")
SOURCES: dict[str, _Source] = {
    "synthetic": _Source(("cases.csv",), readers.read_synthetic),
    "ham10000": _Source(
        ("HAM10000_metadata", "HAM10000_metadata.tab", "HAM10000_metadata.dataverse.csv", "HAM10000_metadata.csv"),
        readers.read_ham10000,
        images=("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images", "images"),
        masks=_MASKS,
    ),
    "isic2017": _Source(
        tuple(f"{part}_Part3_GroundTruth.csv" for part in _PARTS_2017),
        readers.read_isic2017,
        images=(*(f"{part}_Data" for part in _PARTS_2017), "images"),
        masks=(*(f"{part}_Part1_GroundTruth" for part in _PARTS_2017), "masks"),
        parts=True,
    ),
    "isic2018": _Source(
        (
            "ISIC2018_Task3_Test_GroundTruth.tab",  # the Dataverse's, with metadata
            *(f"{folder}{part}_GroundTruth.csv" for part in _PARTS_2018 for folder in ("", f"{part}_GroundTruth/")),
        ),
        readers.read_isic2018,
        images=(*(f"{part}_Input" for part in _PARTS_2018), "ISIC2018_Task3_Test_Images", "images"),
        masks=_MASKS,
        parts=True,
    ),
    "isic2019": _Source(
        ("ISIC_2019_Training_Metadata.csv",),
        readers.read_isic2019,
        images=("ISIC_2019_Training_Input", "ISIC_2019_Training_Input/ISIC_2019_Training_Input", "images"),
    ),
    "isic2020": _Source(
        ("ISIC_2020_Training_GroundTruth_v2.csv", "train.csv", "ISIC_2020_Training_GroundTruth.csv"),
        readers.read_isic2020,
        images=("jpeg/train", "train", "images"),
    ),
    "isic_archive": _Source(("metadata.csv",), readers.read_isic_archive, images=(".", "images")),
}
