"""A league's numbers in words: verdicts, a table to read, and a conclusion that follows from them."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from melanoma_lib.explain.league_exam import (
    ABOUT_THE_MODEL,
    EXAM,
    FAILS,
    LOST,
    OWN,
    PLACES,
    WON,
    asked_of_the_model,
    exam_table,
    last_stage,
    of_maps,
    speaks_of_the_model,
)
from melanoma_lib.explain.league_statistics import MIN_GROUPS, Means

TOO_FEW = f"fewer than {MIN_GROUPS} groups"
UNTOLD = "not told apart"
LEGEND = (
    "energy: share on the lesion; gain: of deletion and insertion, in logits; − centre: paired difference to the centre prior; "
    "− centred: to the map's own values, arranged around the middle: 0 is as good as the middle, or flat, and chance lies below; "
    "similarities, as rank correlations with the map itself: both classes, of the map against melanoma; shuffled, once all "
    "weights are; other case, of another case's map; mirrored, of the image mirrored and turned. Intervals: 95%."
)
UNITS = {"energy_in_mask": "energy", OWN: "energy", "deletion_insertion": "gain"}  # of the columns of the table
LABELS = {
    "energy_in_mask": "energy on the lesion",
    OWN: "energy beyond the same values centred",
    "pointing_game": "peak on the lesion",
    "rank_accuracy": "rank accuracy",
    "overlap": "overlap with the lesion",
    "deletion": "deletion",
    "insertion": "insertion",
    "deletion_insertion": "deletion/insertion gain",
    "road": "ROAD gain",
}


def label(score: str) -> str:
    """A score's name for people."""
    if score.startswith("energy_on_"):
        return f"energy on {score.removeprefix('energy_on_')} beside the lesion"
    return LABELS.get(score, score.replace("_", " "))


def rival(score: str) -> str:
    """What maps are compared with in a score, in words."""
    return "their own values around the middle" if score == OWN else "the centre prior"


def judge(against: Means, above: str, below: str, otherwise: str) -> list[str]:
    """A word for each interval of a difference: all above 0, all below 0, neither; or that there is none."""
    words = np.select(
        [against.cases == 0, np.isnan(against.low), against.low > 0, against.high < 0],
        ["not graded", TOO_FEW, above, below],
        otherwise,
    )
    return [str(word) for word in words]


def name_of(layer: str, method: str) -> str:
    """A map's name: method and layer, or the control's."""
    return f"{method} of {layer}" if layer else f"{method} (control)"


def in_words(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a map: values with their intervals and the verdicts, as text; ``LEGEND`` tells what the columns hold."""
    by_score = {name: rows.set_index(["layer", "method"]) for name, rows in scores.groupby("score", sort=False)}
    columns: dict[str, pd.Series] = {}
    for question, (name, *_) in EXAM.items():
        if name in by_score and name in UNITS:
            rows, unit = by_score[name], UNITS[name]
            if name != OWN:  # which is a difference itself
                columns[unit] = _with_ends(rows, "value", "low", "high")
            against = "centred" if name == OWN else "centre"
            columns[f"{unit} − {against}"] = _with_ends(rows, "vs_centre", "vs_centre_low", "vs_centre_high", "+")
            columns[question] = rows["verdict"]
    for name, title, verdict in (
        ("class_swap", "both classes", "class"),
        (last_stage(scores["score"]), "shuffled", "model"),
        ("stranger", "other case", ""),
        ("repeat", "mirrored", ""),
    ):
        if name in by_score:
            columns[title] = _with_ends(by_score[name], "value", "low", "high", "+")
            if verdict:
                columns[verdict] = by_score[name]["verdict"]
    table = pd.DataFrame(columns).reindex(by_score["energy_in_mask"].index).fillna("")
    table.insert(0, "map", [name_of(*index) for index in table.index])
    return table.reset_index(drop=True)


def _with_ends(rows: pd.DataFrame, value: str, low: str, high: str, sign: str = "") -> pd.Series:
    def text(row: pd.Series) -> str:
        if np.isnan(row[value]):
            return "–"
        ends = "" if np.isnan(row[low]) else f" [{row[low]:{sign}.2f}, {row[high]:{sign}.2f}]"
        return f"{row[value]:{sign}.2f}{ends}"

    return rows.apply(text, axis=1)


def conclusion(facts: dict, scores: pd.DataFrame) -> str:
    """One paragraph from the numbers, whatever they are."""
    maps = scores[(scores["layer"] != "") & (scores["cases"] > 0)]
    controls = scores[scores["layer"] == ""].set_index(["method", "score"])
    said = [
        f"{facts['n']} test cases of {facts['run']} ({facts['melanomas']} melanomas, {facts['n'] - facts['melanomas']} others, "
        f"{facts['groups']} groups), {len(facts['layers'])} layers, {len(facts['methods'])} methods."
    ]
    for name, rows in maps.groupby("score", sort=False):
        if name in (*PLACES, "deletion_insertion", "road"):
            said.append(_against_centre(name, rows, controls))
        elif name.startswith("energy_on_"):
            said.append(_artefact(name, rows, controls))
    said += [*ignorant(scores), in_sum(scores)]
    said.append(
        "The centre prior has seen neither model nor image. Where a map does not beat it by place, its lying on the lesion is no "
        "evidence; where it does, that tells where the map points, not that the model uses what lies there. Intervals of "
        "differences hold for all maps of a score at once, not between scores. One trained model, one shuffle of its weights. "
        "Educational, not for diagnosis."
    )
    return " ".join(part for part in said if part)


def _against_centre(name: str, rows: pd.DataFrame, controls: pd.DataFrame) -> str:
    title = f"{label(name)[0].upper()}{label(name)[1:]}"
    values = ", ".join(f"{control} {controls.loc[(control, name), 'value']:.2f}" for control in dict(controls.index))
    known = f"{title} ({rows['cases'].max()} cases; controls: {values}): "
    if (rows["verdict"] == TOO_FEW).all():
        return f"{known}{TOO_FEW}, too few for a verdict."
    better, worse = ((rows["verdict"] == word).sum() for word in (WON, LOST))
    best = rows.loc[rows["value"].idxmax()]
    unsettled, them = len(rows) - better - worse, "them" if name == OWN else "it"
    said = [
        f"{known}{better} of {len(rows)} maps beat {rival(name)}, {worse} are worse, {unsettled} cannot be told from {them}; "
        f"highest {name_of(best['layer'], best['method'])} with {best['value']:.2f}, difference {best['vs_centre']:+.2f} "
        f"[{best['vs_centre_low']:+.2f}, {best['vs_centre_high']:+.2f}]."
    ]
    return " ".join(said + warnings_of(name, rows, controls.xs(name, level="score")))


def warnings_of(score: str, maps: pd.DataFrame, controls: pd.DataFrame) -> list[str]:
    """What must be said beside one score's verdicts: that edges win as well, or that not even noise loses.

    Args:
        score: its name.
        maps: the score's rows of maps.
        controls: the score's rows of controls, by method.
    """
    said, edges, noise = [], controls.reindex(["edges"]).iloc[0], controls.reindex(["random"]).iloc[0]
    if edges["verdict"] == WON:
        above = (maps["low"] > edges["high"]).sum()
        said.append(
            f"Plain edges, which have seen no model, beat {rival(score)} as well; {above} maps lie above these, intervals apart."
        )
    if noise["verdict"] == UNTOLD:
        said.append(f"Not even the random map can be told from {rival(score)}: not to win here is no fail, it is not settled.")
    return said


def _artefact(name: str, rows: pd.DataFrame, controls: pd.DataFrame) -> str:
    if (rows["verdict"] == TOO_FEW).all():
        return ""
    best, centre, uniform = rows.loc[rows["value"].idxmax()], *(controls.loc[(c, name), "value"] for c in ("centre", "uniform"))
    return (
        f"{label(name)[0].upper()}{label(name)[1:]} ({rows['cases'].max()} cases): {(rows['verdict'] == 'more').sum()} of "
        f"{len(rows)} maps put more there than the centre prior does ({centre:.2f}; a uniform map {uniform:.2f}); "
        f"most {name_of(best['layer'], best['method'])}, {best['value']:.2f}."
    )


def ignorant(scores: pd.DataFrame) -> list[str]:
    """How many of the maps that were asked ignore class or model, and which: a sentence each."""
    maps, said = scores[(scores["layer"] != "") & (scores["cases"] > 0)], []
    for score, verdict, what in (
        ("class_swap", "ignores the class", "draw the same for melanoma and for benign"),
        (last_stage(scores["score"]), "ignores the model", "stay much the same when all weights are shuffled"),
    ):
        rows = maps[maps["score"] == score]
        if not rows.empty:
            found, unclear = rows[rows["verdict"] == verdict], (rows["verdict"] == "unclear").sum()
            names = f" ({_by_method(found)})" if len(found) else ""
            rest = f"; of {unclear} it is unclear." if unclear else "."
            said.append(f"{len(found)} of {len(rows)} maps {what}{names}{rest}")
    return said


def in_sum(scores: pd.DataFrame) -> str:
    """Which maps pass what makes them a statement about the model, and how they stand by place; empty where not all was asked."""
    told = of_maps(exam_table(scores))
    told = told[asked_of_the_model(told)]
    if told.empty:
        return ""
    passed = told.index[speaks_of_the_model(told)]
    said = (
        f"{len(passed) or 'None'} of {len(told)} maps beat the centre prior by deletion/insertion, know the class and change "
        "with the model"
    )
    if passed.empty:
        failed = (told[ABOUT_THE_MODEL] == FAILS).any(axis=1).sum()
        return f"{said}. {failed} fail at least one of these for certain; of {len(told) - failed} it is not settled."
    also = []
    for score in (*PLACES, "road"):
        rows = scores[(scores["score"] == score)].set_index(["layer", "method"])
        if not rows.empty:
            verdicts = rows.loc[passed, "verdict"]
            unsettled = (~verdicts.isin([WON, LOST])).sum()
            also.append(f"{label(score)} {(verdicts == WON).sum()}" + (f" ({unsettled} not settled)" if unsettled else ""))
    names = _by_method(passed.to_frame(index=False))
    return f"{said}: {names}. How many of these win by the other scores: {_and(also)}."


def _by_method(rows: pd.DataFrame) -> str:
    """Maps as a list: each method once, with its layers."""
    return "; ".join(f"{method} of {_and(own['layer'])}" for method, own in rows.groupby("method", sort=False))


def _and(words: Iterable[str]) -> str:
    return ", ".join(words)
