"""What to know about a case table before training on it: counts, gaps, cameras, leakage, repeats."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.data.images import read_upright
from melanoma_lib.data.schema import listed, validate_cases
from melanoma_lib.data.sources import on_disk
from melanoma_lib.data.splits import SPLITS, audit_leakage
from melanoma_lib.errors import CorruptImageError
from melanoma_lib.utils import progress_bar

GAPS = ["patient_id", "lesion_id", "age_approx", "sex", "anatom_site_general_challenge", "acquisition", "mask_path"]
HASH_SIDE = 16  # 16 x 16 frequencies give 256 bits
# Chosen on HAM10000: 110 of the 111 pairs so found share a lesion, and the last is one lesion listed twice; at 64 bits most are
# two lesions.
MAX_BITS = 30
BLOCK = 64  # images compared with all others at a time: with 33,000 images 70 MB
SHOWN = ("display.max_rows", 20, "display.max_columns", None, "display.width", 160, "display.float_format", "{:.2%}".format)
NOTES = {"leakage": ": share of test images with another image of the same unit in training"}


class CaseAudit(dict[str, "pd.Series | pd.DataFrame | str"]):
    """Findings by their title; ``print`` it for a report in plain text.

    A gap that differs by class is itself a signal. Where cameras or clinics differ in prevalence, a model can learn the camera.
    A pair of repeated photographs in two groups may end up in training and test.
    """

    def __repr__(self) -> str:
        with pd.option_context(*SHOWN):
            texts = {title + NOTES.get(title, ""): str(found) if len(found) else "none" for title, found in self.items()}
        return "\n\n".join(map("\n".join, texts.items()))


def audit_cases(cases: pd.DataFrame, n_splits: int = 10, show_progress: bool = False) -> CaseAudit:
    """Look a case table over before anything is trained on it, and those of its images that are there.

    Returns:
        ``case table``; ``counts``; ``missing values`` (share of empty cells by class); ``acquisition`` (each camera or clinic);
        ``leakage`` (of :func:`audit_leakage`); ``repeated photographs`` (of :func:`find_duplicates`, those in two groups
        first); ``unreadable files``.
    """
    facts = dict(cases.attrs)
    cases = validate_cases(cases)
    empty, melanoma = cases[GAPS].isna(), cases["target"] == 1
    groups = cases.groupby("group_id")["target"].max().value_counts()  # of each class
    present = cases[on_disk(cases["image_path"])]
    pairs, unreadable = find_duplicates(present, show_progress)
    cameras = cases.groupby(cases["acquisition"].fillna("not recorded"))["target"]
    cameras = cameras.agg(images="size", melanomas="sum", prevalence="mean").sort_values("images", ascending=False)
    counts = {
        "images": len(cases),
        "groups": groups.sum(),
        "patients": cases["patient_id"].nunique(),
        "lesions": cases["lesion_id"].nunique(),
        "melanoma images": melanoma.sum(),
        "groups with melanoma": groups.get(1, 0),
        "prevalence": melanoma.mean(),
        "accuracy of calling no image melanoma": 1 - melanoma.mean(),
        "image files compared": len(present),
        "repeated photographs": len(pairs),
        "of these in two groups": (~pairs["same_group"]).sum(),
    } | {f"rows left out: {reason}": count for reason, count in facts.get("dropped_rows", {}).items()}
    leakage = "not measured: fewer than three groups of a class"
    if len(groups) == 2 and groups.min() >= len(SPLITS):
        leakage = audit_leakage(cases, n_splits=n_splits)
    gaps = {"all": empty.mean(), "melanoma": empty[melanoma].mean(), "other": empty[~melanoma].mean()}
    return CaseAudit({
        "case table": f"{facts.get('source', '')} {facts.get('table', '')}".strip() or "not read from a file",
        "counts": pd.Series(counts, dtype=object),  # whole numbers stay whole
        "missing values": pd.DataFrame(gaps),
        "acquisition": cameras.rename_axis(None),
        "leakage": leakage,
        "repeated photographs": pairs.sort_values("same_group", kind="stable", ignore_index=True),
        "unreadable files": listed(unreadable) or "none",
    })  # fmt: skip


def find_duplicates(cases: pd.DataFrame, show_progress: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Find images that are the same photograph, by a perceptual hash of 256 bits (imagehash's ``phash``).

    Colour, brightness, size and compression may differ; turned, mirrored or cropped copies are not found. Images of one colour
    have nothing to compare and are left out.

    Returns:
        The pairs, as ids ``image`` and ``other`` with the ``bits`` that their hashes differ in, at most ``MAX_BITS``, and whether
        they are of the ``same_group`` and ``same_class``; and the ids of files that are no readable image.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("comparing images", len(cases), show_progress) as advance:
        hashes = []
        for found in pool.map(_hash, cases["image_path"]):
            hashes.append(found)
            advance()
    hashes = pd.Series(hashes, index=cases["image_id"], dtype=object)
    unreadable = hashes.index[hashes.isna()].tolist()
    comparable = hashes.map(lambda found: found is not None and found.any()).to_numpy(bool)
    rows, compared = [], cases[comparable]
    for i, j, distance in _close_pairs(np.array([*hashes[comparable]], np.uint8).reshape(-1, HASH_SIDE**2 // 8)):
        one, other = compared.iloc[i], compared.iloc[j]
        same = (one[name] == other[name] for name in ("group_id", "target"))
        rows.append((one["image_id"], other["image_id"], distance, *same))
    columns = {"image": str, "other": str, "bits": int, "same_group": bool, "same_class": bool}
    return pd.DataFrame(rows, columns=[*columns]).astype(columns), unreadable


def _hash(path: str | Path) -> np.ndarray | None:
    """Perceptual hash, uint8 (32,), all zeros for an image of one colour; None for what is no image."""
    import imagehash

    try:
        grey = read_upright(Path(path), 128, "L").convert("L")
    except CorruptImageError:
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
