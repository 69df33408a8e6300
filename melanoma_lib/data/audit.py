"""What to know about a case table before training on it: counts, gaps, cameras, leakage, contradictions, repeats."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from melanoma_lib.data.schema import is_leaky, listed, validate_cases
from melanoma_lib.data.sources import on_disk
from melanoma_lib.data.splits import SPLITS, audit_leakage
from melanoma_lib.utils import progress_bar

GAPS = ["patient_id", "lesion_id", "age_approx", "sex", "anatom_site_general_challenge", "acquisition", "mask_path"]
STEADY = (  # what one lesion or one patient cannot have two of
    ("lesion_id", "target"),
    ("lesion_id", "diagnosis"),
    ("lesion_id", "sex"),
    ("lesion_id", "anatom_site_general_challenge"),
    ("patient_id", "sex"),
)
SIZES = {"1": 1, "2": 2, "3-5": 5, "6-10": 10, "11-50": 50, "51+": np.inf}  # images of a unit, at most
HASH_SIDE = 16  # 16 x 16 frequencies give 256 bits
# Chosen on HAM10000: 110 of the 111 pairs so found share a lesion, and the last is one lesion listed twice; at 64 bits most are
# two lesions.
MAX_BITS = 30
BLOCK = 64  # images compared with all others at a time: with 33,000 images 70 MB


@dataclass(frozen=True, repr=False, eq=False)
class CaseAudit:
    """Findings about one case table; ``print`` it for a report in plain text.

    A gap that differs by class is itself a signal. Where cameras or clinics differ in prevalence, a model can learn the camera.
    """

    table: str  # the source and its file, as far as attrs tells
    counts: pd.Series  # images, groups, patients, lesions, melanomas, prevalence, and what is absent or was left out
    missing: pd.DataFrame  # share of empty cells of each column in all images, in melanoma and in other
    acquisition: pd.DataFrame  # images, melanomas and prevalence of each camera or clinic
    sizes: pd.DataFrame  # a column a kind of unit; rows "1", "2", "3-5" … count units with so many images, "largest" is the most
    contradictions: pd.DataFrame  # unit and column of which some unit has two values, how many such units, and their first ids
    leaky_columns: list[str]  # of the source: they give the answer away
    leakage: pd.DataFrame | None  # of audit_leakage; None where the table is too small or has one class
    duplicates: pd.DataFrame | None  # pairs of the same photograph, as find_duplicates tells them; None where not looked at
    unreadable: list[str]  # image ids whose file is no readable image

    def __repr__(self) -> str:
        return "\n\n".join(f"{title}\n{text}" for title, text in _report(self))


def audit_cases(
    cases: pd.DataFrame, images: bool = True, seed: int = 0, n_splits: int = 10, show_progress: bool = False
) -> CaseAudit:
    """Look a case table over before anything is trained on it.

    Args:
        cases: case table, as ``load_cases`` returns it (``missing_images="keep"`` audits a table without its images).
        images: also open the image files that are there, and look for repeats.
        seed: first seed of the splits that measure leakage.
        n_splits: number of those splits.
        show_progress: draw a bar while images are compared.

    Raises:
        DataError: the table breaks the schema.
    """
    facts = dict(cases.attrs)
    cases = validate_cases(cases)
    empty, melanoma = cases[GAPS].isna(), cases["target"] == 1
    groups = cases.groupby("group_id")["target"].max().value_counts()  # of each class
    present = cases[on_disk(cases["image_path"])] if images else cases.iloc[:0]
    pairs, unreadable = find_duplicates(present, show_progress)
    cameras = cases.groupby(cases["acquisition"].fillna("not recorded"))["target"]
    counts = {
        "images": len(cases),
        "groups": groups.sum(),
        "patients": cases["patient_id"].nunique(),
        "lesions": cases["lesion_id"].nunique(),
        "melanoma images": melanoma.sum(),
        "groups with melanoma": groups.get(1, 0),
        "prevalence": melanoma.mean(),
        "accuracy of calling no image melanoma": 1 - melanoma.mean(),
        "absent image files": facts.get("absent_images", 0),
    } | {f"rows left out: {reason}": count for reason, count in facts.get("dropped_rows", {}).items()}
    return CaseAudit(
        table=f"{facts.get('source', '')} {facts.get('table', '')}".strip(),
        counts=pd.Series(counts, dtype=object),  # whole numbers stay whole
        missing=pd.DataFrame({"all": empty.mean(), "melanoma": empty[melanoma].mean(), "other": empty[~melanoma].mean()}),
        acquisition=cameras.agg(images="size", melanomas="sum", prevalence="mean").sort_values("images", ascending=False),
        sizes=pd.DataFrame({unit: _sizes(cases[unit]) for unit in ("lesion_id", "patient_id") if cases[unit].notna().any()}),
        contradictions=_contradictions(cases),
        leaky_columns=facts.get("leaky_columns", sorted(filter(is_leaky, cases.columns))),
        leakage=audit_leakage(cases, seed=seed, n_splits=n_splits) if len(groups) == 2 and groups.min() >= len(SPLITS) else None,
        duplicates=pairs if len(present) else None,
        unreadable=unreadable,
    )


def _sizes(ids: pd.Series) -> pd.Series:
    counts = ids.value_counts()
    binned = pd.cut(counts, [0, *SIZES.values()], labels=[*SIZES]).value_counts(sort=False)
    return pd.concat([binned, pd.Series({"largest": counts.max()})])


def _contradictions(cases: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for unit, column in STEADY:
        values = cases.groupby(unit)[column].nunique()
        twofold = values.index[values > 1]
        if len(twofold):
            rows.append((unit, column, len(twofold), ", ".join(twofold[:3])))
    return pd.DataFrame(rows, columns=["unit", "column", "units", "examples"])


def _report(audit: CaseAudit) -> Iterator[tuple[str, str]]:
    """Title and text of each section of the printed report."""
    percent = {"float_format": "{:.1%}".format}
    yield f"Case table {audit.table}".rstrip(), audit.counts.to_string(float_format="{:.2%}".format)
    yield "Missing values", audit.missing.to_string(na_rep="", **percent)
    cameras = audit.acquisition.rename(index=lambda name: name if len(name) <= 60 else name[:59] + "…").rename_axis(None)
    yield "Acquisition", _head(cameras, **percent)
    yield "Images of one unit", "no lesion or patient ids" if audit.sizes.empty else audit.sizes.T.to_string()
    yield (
        "Leakage: share of the test set with another image of the same unit in training",
        "not measured: fewer than three groups of a class" if audit.leakage is None
        else audit.leakage.to_string(na_rep="no ids", **percent),
    )  # fmt: skip
    yield "Contradictions", "none" if audit.contradictions.empty else audit.contradictions.to_string(index=False)
    text = "not looked for: no image was opened"
    if audit.duplicates is not None:
        pairs, crossing = audit.duplicates, audit.duplicates[~audit.duplicates["same_group"]]
        text = f"{len(pairs)} pairs, {pairs['same_file'].sum()} of them identical files, {len(crossing)} across groups"
        if len(crossing):  # a split could put one of them into training and the other into test
            text += f"\n{_head(crossing.drop(columns='same_group'), index=False)}"
    yield "Repeated photographs", text
    if audit.unreadable:
        yield f"{len(audit.unreadable)} files are no readable image", listed(audit.unreadable)
    truths = [column for column in audit.leaky_columns if column.startswith("truth_")]
    others = [column for column in audit.leaky_columns if column not in truths]
    yield (
        "Columns that give the answer away (never inputs of a model)",
        ", ".join(others + [f"truth_* ({len(truths)} columns)"] * bool(truths)) or "none",
    )


def _head(table: pd.DataFrame, **options) -> str:
    return table.head(10).to_string(**options) + (f"\nand {len(table) - 10} more" if len(table) > 10 else "")


def find_duplicates(cases: pd.DataFrame, show_progress: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Find images that are the same photograph, by a perceptual hash of 256 bits (imagehash's ``phash``).

    Colour, brightness, size and compression may differ; turned, mirrored or cropped copies are not found. Images of one colour
    have nothing to compare and are left out.

    Returns:
        The pairs, as ids ``image`` and ``other`` with the ``bits`` that their hashes differ in, at most ``MAX_BITS``, whether
        they are the ``same_file`` byte for byte, and of the ``same_group`` and ``same_class``; and the ids of files that are no
        readable image.
    """
    bits, unreadable = np.zeros((len(cases), HASH_SIDE**2 // 8), np.uint8), []
    ids, paths, groups, targets = (list(cases[name]) for name in ("image_id", "image_path", "group_id", "target"))
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("comparing images", len(paths), show_progress) as advance:
        for i, seen in enumerate(pool.map(_hash, paths)):
            if seen is None:
                unreadable.append(ids[i])
            else:
                bits[i] = seen
            advance()
    comparable = bits.any(axis=1)
    rows = [
        (ids[i], ids[j], distance, distance == 0 and filecmp.cmp(paths[i], paths[j], shallow=False),
         groups[i] == groups[j], targets[i] == targets[j])
        for i, j, distance in _close_pairs(bits)
        if comparable[i] and comparable[j]
    ]  # fmt: skip
    columns = {"image": str, "other": str, "bits": int, "same_file": bool, "same_group": bool, "same_class": bool}
    return pd.DataFrame(rows, columns=[*columns]).astype(columns), unreadable


def _hash(path: str | Path) -> np.ndarray | None:
    """Perceptual hash, uint8 (32,), all zeros for an image of one colour; None for what is no image."""
    import imagehash

    try:
        with Image.open(path) as image:
            image.draft("L", (128, 128))  # lets JPEG decode at a fraction of its size
            grey = image.convert("L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # reported by the caller as unreadable
    flat = len(set(grey.getextrema())) == 1
    return np.packbits(np.zeros(HASH_SIDE**2, bool) if flat else imagehash.phash(grey, HASH_SIDE).hash.ravel())


def _close_pairs(bits: np.ndarray) -> Iterator[tuple[int, int, int]]:
    words = bits.view(np.uint64)  # (N, 4)
    for start in range(0, len(words), BLOCK):
        block = words[start : start + BLOCK, None]
        distance = np.bitwise_count(block ^ words[None, start:]).sum(axis=-1, dtype=np.uint16)  # (BLOCK, N - start)
        for i, j in zip(*np.nonzero(distance <= MAX_BITS), strict=True):
            if i < j:
                yield start + int(i), start + int(j), int(distance[i, j])
