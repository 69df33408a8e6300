"""Which cases a choice leaves, what they have in common, and what a page of them says: values in, state out."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lib.data.metadata import MAX_AGE, SEXES, SITES
from melanoma_lib.data.schema import CASE_COLUMNS
from melanoma_lib.evaluation.intervals import wilson_interval

MISSING = "missing"  # the choice of cases where a field is empty
FIELDS = {
    "target": "target",
    "sex": "sex",
    "age": "age_approx",
    "site": "anatom_site_general_challenge",
    "diagnosis": "diagnosis",
    "acquisition": "acquisition",
    "split": "split",
    "image": "image_file",
    "outcome": "outcome",
}
AGES = tuple(f"{years} to {years + 9}" for years in range(0, int(MAX_AGE) + 1, 10))
OUTCOMES = ("false negative", "false positive", "true positive", "true negative")
# known even where the table has no such case
VOCABULARY = {"target": (1, 0), "sex": SEXES, "age": AGES, "site": SITES, "outcome": OUTCOMES}
ORDERS = {"table": "as in the table", "worst": "worst errors first"}
LABELS = ("other lesion", "melanoma")  # by target
PATHS = ("image_path", "mask_path")  # shown by file name: a page that is passed on should not tell where it was made


def note_outcomes(cases: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The table with ``outcome``, one of ``OUTCOMES`` or empty, and ``from_threshold``, how far the probability lies from it."""
    if "probability" not in cases.columns:
        raise ValueError(f"threshold: expected a table with the column 'probability', got {list(cases.columns)}")
    melanoma, distance = cases["target"] == 1, cases["probability"] - threshold
    kinds = [(distance < 0) & melanoma, (distance >= 0) & ~melanoma, (distance >= 0) & melanoma, (distance < 0) & ~melanoma]
    outcome = pd.Series(np.select(kinds, OUTCOMES, ""), cases.index, dtype=object)
    return cases.assign(outcome=outcome.where(outcome != "", None), from_threshold=distance.abs())


def worst_first(cases: pd.DataFrame, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """The rows of `note_outcomes` with false negatives first, then false positives, the farthest off the threshold leading.

    Right answers follow, from the nearest to the farthest; cases without an answer end the list.
    """
    kind = cases["outcome"].iloc[rows].map(dict(zip(OUTCOMES, (0, 1, 2, 2), strict=True))).fillna(3).to_numpy()
    distance = cases["from_threshold"].iloc[rows].fillna(0).to_numpy()
    return rows[np.lexsort((np.where(kind < 2, -distance, distance), kind))]


def field_values(cases: pd.DataFrame, name: str) -> pd.Series:
    """What the cases have in one of ``FIELDS``, ages by decade; missing where it is not known."""
    values = cases[FIELDS[name]]
    return values.map(lambda years: AGES[int(years // 10)], na_action="ignore") if name == "age" else values


def filter_cases(cases: pd.DataFrame, **filters: Any) -> NDArray[np.intp]:
    """Positions of the cases that fit every filter, shape ``(n,)``, ascending; all without filters.

    Args:
        cases: case table.
        **filters: value by one of those of ``FIELDS`` that the table has, or ``"missing"`` for cases where it is empty; ages
            are decades such as ``"40 to 49"``. ValueError for another field, or a value that it cannot hold.
    """
    fits = np.ones(len(cases), dtype=bool)
    for name, wanted in filters.items():
        if FIELDS.get(name) not in cases.columns:
            raise ValueError(f"filter {name!r} is not known; expected some of {[*FIELDS]} that the table has")
        values = field_values(cases, name)
        known = [*(VOCABULARY.get(name) or sorted(values.dropna().unique())), MISSING]
        if wanted not in known:
            raise ValueError(f"{name} {wanted!r} is not known; expected one of {known}")
        fits &= (values.isna() if wanted == MISSING else values.isin([wanted])).to_numpy()
    return np.flatnonzero(fits)


def summary_of(cases: pd.DataFrame, rows: NDArray[np.intp], by_label: bool = False) -> str:
    """How many cases match, how many of them are melanoma, and from how many people and lesions they come, in words.

    The interval of the share is Wilson's, each patient or lesion one observation, since their images resemble each other. Chosen
    ``by_label`` or diagnosis, the share tells nothing and is left out.
    """
    matching = cases.iloc[rows]
    melanomas, groups = int(matching["target"].sum()), matching["group_id"].nunique()
    share = wilson_interval(melanomas / len(rows) * groups if groups else 0, groups)
    rate = "" if by_label else f" = {share.value:.1%} (95% confidence interval {share.low:.1%} to {share.high:.1%})"
    said = [f"{len(rows):,} of {len(cases):,} cases match"]
    said += [f"{melanomas:,} melanoma{rate}"] if len(rows) else []
    for unit in ("patient", "lesion"):
        count = matching[f"{unit}_id"].nunique()
        known = cases[f"{unit}_id"].notna().any()
        said.append(f"{count:,} {unit}{'' if count == 1 else 's'}" if known else f"{unit}s not recorded")
    return " · ".join(said)


def page_of(cases: pd.DataFrame, rows: NDArray[np.intp], page: int = 1, page_size: int = 24) -> dict[str, Any]:
    """One page, from 1, of the matching cases, in words; a number out of range gives the nearest page."""
    pages = max(1, math.ceil(len(rows) / page_size))
    page = min(max(page, 1), pages)
    shown = rows[(page - 1) * page_size : page * page_size]
    tiles = [
        {
            "image_id": case.image_id,
            "melanoma": bool(case.target),
            "person": f"{_word(case.age_approx, 'age', ' y')}, {_word(case.sex, 'sex')}",
            "site": _word(case.anatom_site_general_challenge, "site"),
            "diagnosis": case.diagnosis,
            "outcome": case.outcome if isinstance(case.outcome, str) else "",
            "answer": f"p = {case.probability:.3f}" if isinstance(case.outcome, str) else "",
        }
        for case in cases.iloc[shown].reindex(columns=[*CASE_COLUMNS, "outcome", "probability"]).itertuples()
    ]
    return {"page": page, "pages": pages, "rows": shown.tolist(), "tiles": tiles}


def _word(value: Any, name: str, unit: str = "") -> str:
    return f"{name} {MISSING}" if pd.isna(value) else f"{value:g}{unit}" if isinstance(value, float) else str(value)


def facts_of(cases: pd.DataFrame, row: int) -> dict[str, str]:
    """Everything the table holds about one case, as text by column; files by name only."""
    case = cases.iloc[row]
    values = {name: Path(value).name if name in PATHS and pd.notna(value) else value for name, value in case.items()}
    return {str(name): _word(value, "").strip() for name, value in values.items()}


def choices_of(cases: pd.DataFrame) -> list[dict[str, Any]]:
    """What the page offers: each ``field`` in which cases differ, with ``options`` of ``value`` and ``text``."""
    choices = []
    for name, column in FIELDS.items():
        if column not in cases.columns:
            continue
        counts = field_values(cases, name).astype(object).fillna(MISSING).value_counts()
        known = VOCABULARY.get(name, counts.index.drop(MISSING, errors="ignore"))
        present = [value for value in (*known, MISSING) if value in counts]
        texts = {value: LABELS[value] if name == "target" else value for value in present}
        options = [{"value": value, "text": f"{text} ({counts[value]:,})"} for value, text in texts.items()]
        choices += [{"field": name, "options": options}] if len(options) > 1 else []
    return choices
