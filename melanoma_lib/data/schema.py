"""The case table: one row per image, the only form in which cases travel through the kit."""

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

# Missing text is NaN, so comparisons give plain False, never NA; pandas 2.2 has that with pyarrow alone.
TEXT = pd.StringDtype("pyarrow_numpy") if pd.__version__.startswith("2.2.") else pd.StringDtype(na_value=np.nan)


def listed(items: Collection[object], most: int = 10) -> str:
    """The first few items for an error message, and how many more there are."""
    shown = ", ".join(map(repr, list(items)[:most]))
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def group_ids(cases: pd.DataFrame) -> pd.Series:
    """The unit that must never straddle a split: the patient, else the lesion, else the image; a text series ``group_id``.

    A lesion whose patient is known on any of its rows takes that patient on all of them. The kind is part of the id
    (``patient:IP_1``), so ids of different kinds cannot collide.
    """
    patient_of_lesion = cases.dropna(subset=["lesion_id", "patient_id"]).groupby("lesion_id")["patient_id"].first()
    patient = cases["patient_id"].astype(TEXT)
    patient = patient.fillna(cases["lesion_id"].map(patient_of_lesion).astype(TEXT))
    group = "patient:" + patient
    group = group.fillna("lesion:" + cases["lesion_id"].astype(TEXT))
    return group.fillna("image:" + cases["image_id"].astype(TEXT)).astype(TEXT).rename("group_id")


def validate_cases(cases: pd.DataFrame, origin: str = "case table") -> pd.DataFrame:
    """Check a case table against the schema and bring it to one column order and one set of types; one class alone passes.

    Columns beyond ``CASE_COLUMNS`` are kept behind them. Errors begin with ``origin``.

    Returns:
        A copy: text columns as ``TEXT`` with NaN for missing, ``age_approx`` float64 years, ``target`` int64 0/1.

    Raises:
        DataError: for a missing column, an empty table, a repeated image, a value outside the schema (column, row and
            value are named), or a patient or lesion spread over several groups.
    """
    if missing := [column for column in CASE_COLUMNS if column not in cases.columns]:
        raise DataError(f"{origin}: column {listed(missing)} missing; expected {', '.join(CASE_COLUMNS)}.")
    if cases.empty or not cases.index.is_unique:
        raise DataError(f"{origin}: expected rows with unique labels, got {len(cases)} rows; call reset_index(drop=True) if any.")
    columns = [*CASE_COLUMNS, *cases.columns.difference(CASE_COLUMNS, sort=False)]
    typed = cases[columns].astype(dict.fromkeys(TEXT_COLUMNS, TEXT))
    for column in ("age_approx", "target"):
        numbers = pd.to_numeric(typed[column], errors="coerce").astype("float64")
        require(numbers.notna() | typed[column].isna(), typed[column], origin, "a number")
        typed[column] = numbers
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


def require(fits: pd.Series, values: pd.Series, origin: object, wanted: str) -> None:
    """Raise a DataError, which names the first row that does not fit, unless all do."""
    if not fits.all():
        where = f"column {values.name!r}, row {(row := fits.idxmin())}"
        raise DataError(f"{origin}: {where}: {str(values[row])!r}; expected {wanted} ({(~fits).sum()} such rows).")


def _check_values(cases: pd.DataFrame, origin: str) -> None:
    for column in TEXT_COLUMNS:
        require(cases[column].isna() | (cases[column].str.strip() != ""), cases[column], origin, "filled text")
    for column in ("image_id", "image_path", "group_id", "diagnosis", "target"):
        require(cases[column].notna(), cases[column], origin, "a value")
    for column, names in (("sex", SEXES), ("anatom_site_general_challenge", SITES)):
        require(cases[column].isna() | cases[column].isin(names), cases[column], origin, f"one of {list(names)} or missing")
    age = cases["age_approx"]
    require(age.isna() | age.between(0, MAX_AGE), age, origin, f"years from 0 to {MAX_AGE:g}, or missing")
    require(cases["target"].isin((0, 1)), cases["target"], origin, "1 (melanoma) or 0 (not)")


def _check_groups(cases: pd.DataFrame, origin: str) -> None:
    for unit in ("patient_id", "lesion_id"):
        spread = cases.groupby(unit)["group_id"].nunique()
        if (spread > 1).any():
            name = spread.idxmax()
            groups = sorted(cases.loc[cases[unit] == name, "group_id"].unique())
            raise DataError(f"{origin}: {unit} {name!r} is spread over the groups {listed(groups)}; group_ids() makes them anew.")
