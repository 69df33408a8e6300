"""The questions a league puts to each map, and what passes them."""

from collections.abc import Iterable

import pandas as pd

OWN = "energy_beyond_centred"  # its rival is no fixed spot, but the map itself, arranged around the middle
PLACES = ("energy_in_mask", OWN, "pointing_game", "rank_accuracy", "overlap")  # scores of where a map lies
WON, LOST = "better", "worse"
PASSES, FAILS, OPEN, NOT_ASKED = "passes", "fails", "not settled", ""
# The questions: the score, and the verdicts that pass and fail it; None stands for the last stage of shuffled weights.
EXAM = {
    "on the lesion": ("energy_in_mask", WON, LOST),
    "beyond itself centred": (OWN, WON, LOST),
    "faithful": ("deletion_insertion", WON, LOST),
    "knows the class": ("class_swap", "knows the class", "ignores the class"),
    "needs the model": (None, "changes with it", "ignores the model"),
}
# What makes a map a statement about the model; the others ask where it points, and a faithful map may point elsewhere.
ABOUT_THE_MODEL = ["faithful", "knows the class", "needs the model"]
# Verdicts that are none: of the centre prior on itself, of what was left out, of a control that is noise.
NO_ANSWER = ("the reference", "not graded", "changes by itself")


def last_stage(names: Iterable[str]) -> str | None:
    """Score that holds the similarity after all weights are shuffled; None if that was not tested."""
    return next((name for name in reversed(list(names)) if name.startswith("cascade:")), None)


def exam_table(scores: pd.DataFrame) -> pd.DataFrame:
    """How each map and control did in the questions of ``EXAM``, as far as they were asked.

    Args:
        scores: of a league.

    Returns:
        By layer and method, one column a question that was asked: ``PASSES`` or ``FAILS`` where the interval says so,
        ``NOT_ASKED`` of whom it was not asked, else ``OPEN``.
    """
    columns = {}
    for question, (score, passing, failing) in EXAM.items():
        rows = scores[scores["score"] == (score or last_stage(scores["score"]))].set_index(["layer", "method"])
        if not rows.empty:
            known = {passing: PASSES, failing: FAILS} | dict.fromkeys(NO_ANSWER, NOT_ASKED)
            columns[question] = rows["verdict"].map(known).fillna(OPEN)
    return pd.DataFrame(columns).fillna(NOT_ASKED)


def of_maps(told: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`exam_table` that are maps, controls left out."""
    return told[told.index.get_level_values("layer") != ""]


def asked_of_the_model(told: pd.DataFrame) -> pd.Series:
    """Of which rows all was asked that makes a map a statement about the model: booleans."""
    return (told.reindex(columns=ABOUT_THE_MODEL, fill_value=NOT_ASKED) != NOT_ASKED).all(axis=1)


def speaks_of_the_model(told: pd.DataFrame) -> pd.Series:
    """Which rows pass all that makes a map a statement about the model: booleans; none where not all was asked."""
    return (told.reindex(columns=ABOUT_THE_MODEL) == PASSES).all(axis=1)
