"""The case table: one row per image, the only form in which cases travel through the kit."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from melanoma_lib.data.metadata import MAX_AGE, SEXES, SITES
from melanoma_lib.errors import DataError

CASE_COLUMNS = (
    "image_id",
    "image_path",
    "patient_id",
    "lesion_id",
    "group_id",
    "age_approx",
    "sex",
    "anatom_site_general_challenge",
    "target",
    "diagnosis",
    "acquisition",
    "mask_path",
)
TEXT_COLUMNS = tuple(column for column in CASE_COLUMNS if column not in ("age_approx", "target"))

# What is only known once the answer is: how it was confirmed, how thick the melanoma was, the diagnosis itself.
LEAKY_COLUMNS = frozenset(
    """
    target diagnosis dx dx_type benign_malignant diagnosis_1 diagnosis_2 diagnosis_3 diagnosis_4 diagnosis_5
    diagnosis_confirm_type concomitant_biopsy melanocytic mel_class mel_mitotic_index mel_thick_mm mel_type mel_ulcer
    nevus_type true_risk
    """.split()  # noqa: SIM905
)

# Missing text is NaN, so comparisons give plain False, never NA; pandas 2.2 has that with pyarrow alone.
TEXT = pd.StringDtype("pyarrow_numpy") if pd.__version__.startswith("2.2.") else pd.StringDtype(na_value=np.nan)


def listed(items: Collection[object], most: int = 10) -> str:
    """The first few items for an error message, and how many more there are."""
    shown = ", ".join(map(repr, list(items)[:most]))
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def is_leaky(column: str) -> bool:
    """Whether a column, in any letter case, gives the answer away: ``LEAKY_COLUMNS`` and the generator's ``truth_*``."""
    name = column.strip().lower()
    return name in LEAKY_COLUMNS or name.startswith("truth_")


def group_ids(cases: pd.DataFrame) -> pd.Series:
    """The unit that must never straddle a split: the patient, else the lesion, else the image.

    A lesion whose patient is known on any of its rows takes that patient on all of them, so a gap in one row cannot tear
    the lesion apart. The kind is part of the id (``patient:IP_1``), so ids of different kinds cannot collide.

    Returns:
        Text series named ``group_id`` on the index of ``cases``.
    """
    patient_of_lesion = cases.dropna(subset=["lesion_id", "patient_id"]).groupby("lesion_id")["patient_id"].first()
    patient = cases["patient_id"].astype(TEXT)
    patient = patient.fillna(cases["lesion_id"].map(patient_of_lesion).astype(TEXT))
    group = "patient:" + patient
    group = group.fillna("lesion:" + cases["lesion_id"].astype(TEXT))
    return group.fillna("image:" + cases["image_id"].astype(TEXT)).astype(TEXT).rename("group_id")


def validate_cases(cases: pd.DataFrame, origin: str = "case table") -> pd.DataFrame:
    """Check a case table against the schema and bring it to one column order and one set of types.

    A table with a single class passes: whether that is a fault depends on what is done with it.

    Args:
        cases: the table, with at least ``CASE_COLUMNS``; further columns are kept behind them.
        origin: where the table came from, named first in every error.

    Returns:
        A copy: text columns as ``TEXT`` with NaN for missing, ``age_approx`` float64 years, ``target`` int64 0/1.

    Raises:
        DataError: for a missing column, an empty table, a repeated image, a value outside the schema (column, row and
            value are named), or a patient or lesion spread over several groups.
    """
    missing = [column for column in CASE_COLUMNS if column not in cases.columns]
    if missing:
        raise DataError(
            f"{origin}: column {listed(missing)} missing; a case table has {', '.join(CASE_COLUMNS)}, "
            f"this one {listed(cases.columns)}."
        )
    if cases.empty:
        raise DataError(f"{origin}: the table has a header but no rows; at least one case is needed.")
    if not cases.index.is_unique:
        raise DataError(f"{origin}: the row labels repeat; call reset_index(drop=True) first.")
    columns = [*CASE_COLUMNS, *cases.columns.difference(CASE_COLUMNS, sort=False)]
    typed = cases[columns].astype(dict.fromkeys(TEXT_COLUMNS, TEXT))
    for column in ("age_approx", "target"):
        typed[column] = _numbers(typed[column], column, origin)
    _check_values(typed, origin)
    again = typed[typed["image_id"].duplicated(keep=False)]
    if len(again):
        targets = again.groupby("image_id")["target"]
        name = targets.nunique().idxmax()  # one that contradicts itself, if any does
        rows = targets.get_group(name).astype(int).to_dict()
        raise DataError(
            f"{origin}: expected each image once; {name!r} is in the rows {listed(rows)} with target {listed(rows.values())}. "
            f"{targets.ngroups} images are repeated, {(targets.nunique() > 1).sum()} with contradictory targets."
        )
    _check_groups(typed, origin)
    return typed.astype({"target": "int64"})


def _numbers(values: pd.Series, column: str, origin: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    bad = numbers.isna() & values.notna()
    if bad.any():
        row = bad.idxmax()
        raise DataError(f"{origin}: column {column!r}, row {row}: {values[row]!r} is not a number.")
    return numbers


def _check_values(cases: pd.DataFrame, origin: str) -> None:
    import pandera.errors  # half a second, and only the loading of data needs it
    import pandera.pandas as pa

    filled = pa.Check(lambda text: text.str.strip() != "", error="filled text")
    required, optional = pa.Column(checks=filled), pa.Column(checks=filled, nullable=True)
    site = pa.Check.isin(SITES, error=f"one of {list(SITES)} or missing")
    risk = pa.Check.in_range(0, 1, error="a probability from 0 to 1")
    age = pa.Check.in_range(0, MAX_AGE, error=f"years from 0 to {MAX_AGE:g}, or missing")
    schema = pa.DataFrameSchema(
        dict.fromkeys(("image_id", "image_path", "group_id", "diagnosis"), required)
        | dict.fromkeys(("patient_id", "lesion_id", "acquisition", "mask_path"), optional)
        | {
            "age_approx": pa.Column(checks=age, nullable=True),
            "sex": pa.Column(checks=pa.Check.isin(SEXES, error=f"one of {list(SEXES)} or missing"), nullable=True),
            "anatom_site_general_challenge": pa.Column(checks=site, nullable=True),
            "target": pa.Column(checks=pa.Check.isin((0, 1), error="1 (melanoma) or 0 (not)")),
            "true_risk": pa.Column(float, checks=risk, required=False),
        }
    )
    try:
        schema.validate(cases, lazy=True)
    except pandera.errors.SchemaErrors as error:
        failures = error.failure_cases.sort_values("index", kind="stable")
        first = [
            f"  column {f.column!r}, row {f.index}: {f.failure_case!r}; expected {f.check.replace('not_nullable', 'a value')}"
            for f in failures.head(5).itertuples(index=False)
        ]
        raise DataError("\n".join([f"{origin}: {len(failures)} values do not fit the case table, such as", *first])) from None


def _check_groups(cases: pd.DataFrame, origin: str) -> None:
    for unit in ("patient_id", "lesion_id"):
        spread = cases.groupby(unit)["group_id"].nunique()
        if (spread > 1).any():
            name = spread.idxmax()
            groups = sorted(cases.loc[cases[unit] == name, "group_id"].unique())
            raise DataError(
                f"{origin}: {unit} {name!r} is spread over the groups {listed(groups)}; one group must hold all of its images "
                "or a split could tear it apart. Correct the ids, or build the column with group_ids()."
            )
