"""One place that says what an array of answers or scores, or a table of cases, must look like."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


def check_targets(targets: ArrayLike, both_classes: bool = True) -> NDArray[np.bool_]:
    """Turn 0/1 answers into booleans, or say what is wrong with them.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``, N at least 1.
        both_classes: refuse answers that hold one class only.

    Raises:
        ValueError: if the array is not one-dimensional, is empty, holds anything but 0 and 1, or one class only.
    """
    array = np.asarray(targets)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"targets: expected a non-empty array of shape (N,), got shape {array.shape}")
    answers = array == 1
    wrong = ~(answers | (array == 0))
    if wrong.any():
        where = int(np.argmax(wrong))
        raise ValueError(f"targets: expected only 0 and 1, got {array[where]!r} at position {where}")
    if both_classes and (answers.all() or not answers.any()):
        raise ValueError(
            f"targets: expected both classes, got {int(answers.sum())} melanomas among {answers.size} cases; "
            "with one class only, ranking and sensitivity or specificity are undefined"
        )
    return answers


def check_scores(scores: ArrayLike, n: int, name: str = "scores", unit_interval: bool = False) -> NDArray[np.float64]:
    """Turn scores into finite float64 of shape ``(n,)``, or say what is wrong with them.

    Args:
        scores: one number a case; shape ``(n,)``.
        n: number of cases the scores must match.
        name: what the message calls them.
        unit_interval: refuse values outside [0, 1].

    Raises:
        ValueError: if the shape differs, or a value is NaN, infinite or (on request) outside [0, 1].
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},) to match targets, got {array.shape}")
    wrong = ~np.isfinite(array)
    if wrong.any():
        where = int(np.argmax(wrong))
        raise ValueError(f"{name}: expected finite numbers, got {array[where]} at position {where} ({wrong.sum()} in all)")
    if unit_interval and (array.min() < 0 or array.max() > 1):
        raise ValueError(f"{name}: expected probabilities in [0, 1], got {array.min():.4g} to {array.max():.4g}")
    return array


def check_fraction(value: float, name: str, zero: bool = False, one: bool = False) -> float:
    """Return ``value`` if it lies between 0 and 1, the ends included only where allowed.

    Raises:
        ValueError: if it lies outside, or is NaN.
    """
    if not (0 < value < 1 or (zero and value == 0) or (one and value == 1)):
        raise ValueError(f"{name}: expected a number in {'[' if zero else '('}0, 1{']' if one else ')'}, got {value}")
    return float(value)


def require_columns(table: pd.DataFrame, columns: tuple[str, ...], name: str = "predictions") -> None:
    """Refuse what is no table, lacks a column or has no rows.

    Raises:
        TypeError: if it is no DataFrame.
        ValueError: naming what is missing and what came.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{name}: expected a DataFrame, one row an image, got {type(table).__name__}")
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{name}: expected columns {list(columns)}, missing {missing}; got {list(table.columns)}")
    if table.empty:
        raise ValueError(f"{name}: expected at least one row, got an empty table")
