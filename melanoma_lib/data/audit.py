"""What to know about a case table before training on it: counts, gaps, cameras, leakage, contradictions, repeats."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from melanoma_lib.data.duplicates import find_duplicates
from melanoma_lib.data.schema import is_leaky, validate_cases
from melanoma_lib.data.splits import LeakageAudit, audit_leakage

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

GAPS = ("patient_id", "lesion_id", "age_approx", "sex", "anatom_site_general_challenge", "acquisition", "mask_path")
STEADY = {  # what one lesion or one patient cannot have two of
    "lesion_id": ("target", "diagnosis", "sex", "anatom_site_general_challenge"),
    "patient_id": ("sex",),
}
SIZES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 50), (51, None))


@dataclass(frozen=True)
class CaseAudit:
    """Findings about one case table; print it for a report of 100 columns, ``to_dict`` for JSON.

    Attributes:
        source: the table's origin, as far as ``attrs`` tells.
        counts: images, absent images, groups, patients, lesions, melanomas (images), groups with a melanoma, prevalence.
        missing: column -> share of empty cells in ``all`` images, in ``melanoma`` and in ``other``: a gap that differs by
            class is itself a signal.
        acquisition: name -> images, melanomas and prevalence: where cameras differ in prevalence, a model can learn the camera.
        sizes: unit -> {"1": units with one image, "3-5": …, "largest": images of the largest}.
        contradictions: "lesion_id: target" -> {"units": how many have two values, "examples": ids}.
        leaky_columns: columns of the source that give the answer away.
        leakage: what an image-level split would leak; None where the table is too small or has one class.
        duplicates: repeated photographs by image id, and the pairs that cross groups; None where images were not looked at.
    """

    source: dict[str, Any]
    counts: dict[str, float]
    missing: dict[str, dict[str, float]]
    acquisition: dict[str, dict[str, float]]
    sizes: dict[str, dict[str, int]]
    contradictions: dict[str, dict[str, Any]]
    leaky_columns: list[str]
    leakage: LeakageAudit | None
    duplicates: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"leakage": self.leakage.to_dict() if self.leakage else None}

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=100, file=io.StringIO(), force_terminal=False)
        console.print(self)
        return console.file.getvalue().rstrip()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw the report with rich."""
        yield from _render(self)


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

    Returns:
        The findings.

    Raises:
        DataError: the table breaks the schema.
    """
    facts = dict(cases.attrs)
    cases = validate_cases(cases)
    melanoma = cases["target"] == 1
    present = cases[_present(cases["image_path"])] if images else cases.iloc[:0]
    return CaseAudit(
        source={
            key: facts[key] for key in ("source", "table", "absent_images", "dropped_images", "dropped_rows") if key in facts
        },
        counts=_counts(cases),
        missing={column: _by_class(cases[column].isna(), melanoma) for column in GAPS},
        acquisition=_acquisitions(cases),
        sizes={unit: _sizes(cases[unit]) for unit in ("lesion_id", "patient_id") if cases[unit].notna().any()},
        contradictions=_contradictions(cases),
        leaky_columns=facts.get("leaky_columns", sorted(filter(is_leaky, cases.columns))),
        leakage=_leakage(cases, seed, n_splits),
        duplicates=_duplicates(present, show_progress) if len(present) else None,
    )


def _present(paths: pd.Series) -> pd.Series:
    folders = {path.parent for path in map(Path, paths)}
    files = {str(file) for folder in folders if folder.is_dir() for file in folder.iterdir()}
    return paths.map(lambda path: str(Path(path)) in files)


def _counts(cases: pd.DataFrame) -> dict[str, float]:
    with_melanoma = cases.groupby("group_id")["target"].max()
    return {
        "images": len(cases),
        "groups": len(with_melanoma),
        "patients": cases["patient_id"].nunique(),
        "lesions": cases["lesion_id"].nunique(),
        "melanoma images": int(cases["target"].sum()),
        "groups with melanoma": int(with_melanoma.sum()),
        "prevalence": float(cases["target"].mean()),
    }


def _by_class(flag: pd.Series, melanoma: pd.Series) -> dict[str, float]:
    shares = {"all": flag.mean(), "melanoma": flag[melanoma].mean(), "other": flag[~melanoma].mean()}
    return {name: float(share) for name, share in shares.items() if not np.isnan(share)}


def _acquisitions(cases: pd.DataFrame) -> dict[str, dict[str, float]]:
    table = cases.groupby(cases["acquisition"].fillna("not recorded"))["target"].agg(["size", "sum", "mean"])
    table.columns = ["images", "melanomas", "prevalence"]
    return {str(name): row for name, row in table.sort_values("images", ascending=False).to_dict("index").items()}


def _sizes(ids: pd.Series) -> dict[str, int]:
    counts = ids.value_counts()
    bins = {
        (f"{low}" if low == high else f"{low}-{high}" if high else f"{low}+"): int(counts.between(low, high or np.inf).sum())
        for low, high in SIZES
    }
    return bins | {"largest": int(counts.max())}


def _contradictions(cases: pd.DataFrame) -> dict[str, dict[str, Any]]:
    found = {}
    for unit, columns in STEADY.items():
        for column in columns:
            values = cases.groupby(unit)[column].nunique()
            twofold = values.index[values > 1]
            if len(twofold):
                found[f"{unit}: {column}"] = {"units": len(twofold), "examples": list(twofold[:3])}
    return found


def _leakage(cases: pd.DataFrame, seed: int, n_splits: int) -> LeakageAudit | None:
    by_class = cases.groupby("group_id")["target"].max().value_counts()
    if len(by_class) < 2 or by_class.min() < 3:
        return None
    return audit_leakage(cases, seed=seed, n_splits=n_splits)


def _duplicates(cases: pd.DataFrame, show_progress: bool) -> dict[str, Any]:
    found = find_duplicates(list(cases["image_path"]), show_progress)
    names, groups = cases["image_id"].to_numpy(), cases["group_id"].to_numpy()
    targets = cases["target"].to_numpy()
    pairs = [(copies[0], other, 1.0) for copies in found.exact for other in copies[1:]] + found.near
    crossing = [
        {"images": [str(names[i]), str(names[j])], "correlation": r, "same_class": bool(targets[i] == targets[j])}
        for i, j, r in pairs
        if groups[i] != groups[j]
    ]
    return {
        "compared": found.compared,
        "unreadable": [str(names[i]) for i in found.unreadable],
        "exact": [[str(names[i]) for i in copies] for copies in found.exact],
        "near": [[str(names[i]), str(names[j]), r] for i, j, r in found.near],
        "crossing_groups": crossing,
    }


# --- the report ---------------------------------------------------------------------------------------------------------


def _render(audit: CaseAudit) -> Iterator[RenderableType]:
    from rich.markup import escape

    c, source = audit.counts, audit.source
    yield f"[bold]Case table {escape(source.get('source', ''))}[/] {escape(source.get('table', ''))}"
    yield (
        f"{c['images']:,} images, {c['melanoma images']:,} of melanoma (prevalence {c['prevalence']:.2%}): "
        f"calling everything benign is {1 - c['prevalence']:.1%} accurate."
    )
    ids = ", ".join(f"{c[unit]:,} {unit}" if c[unit] else f"no {unit[:-1]} ids" for unit in ("patients", "lesions"))
    yield f"{c['groups']:,} groups that must not straddle a split ({ids}); {c['groups with melanoma']:,} hold a melanoma."
    if source.get("absent_images"):
        yield f"{source['absent_images']:,} image files are absent."
    for reason, count in source.get("dropped_rows", {}).items():
        yield f"{count:,} rows left out: {reason}."
    yield from _table("Missing values", ("column", "all", "melanoma", "other"), _missing_rows(audit))
    yield from _table("Acquisition", ("camera or clinic", "images", "melanomas", "prevalence"), _acquisition_rows(audit))
    if audit.sizes:
        labels = list(next(iter(audit.sizes.values())))
        rows = [(unit.removesuffix("_id"), *(f"{sizes[label]:,}" for label in labels)) for unit, sizes in audit.sizes.items()]
        yield from _table("How many images they have", ("units with", *labels), rows)
    yield "\n[bold]Leakage[/]"
    yield escape(str(audit.leakage)) if audit.leakage else "Not measured: fewer than three groups of a class."
    yield "\n[bold]Contradictions[/]"
    yield from _contradiction_lines(audit.contradictions)
    yield "\n[bold]Repeated photographs[/]"
    yield from _duplicate_lines(audit.duplicates)
    yield "\n[bold]Columns that give the answer away[/] (never inputs of a model)"
    truths = [column for column in audit.leaky_columns if column.startswith("truth_")]
    others = [column for column in audit.leaky_columns if column not in truths]
    yield escape(", ".join(others + [f"truth_* ({len(truths)} columns)"] * bool(truths)) or "none")


def _table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[RenderableType]:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    yield f"\n[bold]{title}[/]"
    yield table


def _missing_rows(audit: CaseAudit) -> list[tuple[str, ...]]:
    kinds = ("all", "melanoma", "other")
    return [(column, *(f"{shares[k]:.1%}" if k in shares else "" for k in kinds)) for column, shares in audit.missing.items()]


def _acquisition_rows(audit: CaseAudit, most: int = 12) -> list[tuple[str, ...]]:
    rows = [
        (name, f"{row['images']:,}", f"{row['melanomas']:,}", f"{row['prevalence']:.1%}")
        for name, row in audit.acquisition.items()
    ]
    return rows[:most] + ([(f"and {len(rows) - most} more", "", "", "")] if len(rows) > most else [])


def _contradiction_lines(contradictions: dict[str, dict[str, Any]]) -> Iterator[str]:
    from rich.markup import escape

    for what, found in contradictions.items():
        unit, column = what.split(": ")
        examples = escape(", ".join(found["examples"]))
        yield f"{column} differs between images of one {unit.removesuffix('_id')} in {found['units']:,} cases, such as {examples}"
    if not contradictions:
        yield "None among the images that share a lesion or patient id."


def _duplicate_lines(found: dict[str, Any] | None, most: int = 8) -> Iterator[str]:
    from rich.markup import escape

    if found is None:
        yield "Not looked for: no image was opened."
        return
    exact, near, crossing = found["exact"], found["near"], found["crossing_groups"]
    yield f"{found['compared']:,} images compared: {len(exact)} sets of identical files, {len(near)} nearly identical pairs,"
    risk = ", where a split could put one into training and one into test:" if crossing else "."
    yield f"{len(crossing)} of them across groups{risk}"
    for pair in crossing[:most]:
        classes = "same class" if pair["same_class"] else "melanoma and not"
        yield escape(f"  {' and '.join(pair['images'])} (correlation {pair['correlation']:.2f}, {classes})")
    if len(crossing) > most:
        yield f"  and {len(crossing) - most} more"
    if found["unreadable"]:
        yield f"{len(found['unreadable'])} files are no readable image: {escape(', '.join(found['unreadable'][:5]))}"
