"""A league's numbers in words: verdicts, a table to read, and a conclusion that follows from them."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from melanoma_lib.explain.league_statistics import MIN_GROUPS, Means

TOO_FEW = f"fewer than {MIN_GROUPS} groups"
UNTOLD = "not told apart"
LEGEND = (
    "energy: share on the lesion; gain: of deletion and insertion, in logits; − centre: paired difference to the centre prior; "
    "− centred: to the map's own values, arranged around the middle, so that its width cannot help it; "
    "similarities, as rank correlations with the map itself: both classes, of the map against melanoma; shuffled, once all "
    "weights are; other case, of another case's map; mirrored, of the image mirrored and turned. Intervals: 95%."
)
LABELS = {
    "energy_in_mask": "energy on the lesion",
    "energy_beyond_centred": "energy beyond the same values centred",
    "pointing_game": "peak on the lesion",
    "rank_accuracy": "rank accuracy",
    "overlap": "overlap with the lesion",
    "deletion": "deletion",
    "insertion": "insertion",
    "deletion_insertion": "deletion/insertion gain",
    "road": "ROAD gain",
}


OWN = "energy_beyond_centred"  # its rival is no fixed spot, but the map itself, arranged around the middle
PLACES = ("energy_in_mask", OWN, "pointing_game", "rank_accuracy", "overlap")  # scores of where a map lies
WON, LOST = "better", "worse"
PASSES, FAILS, OPEN = "passes", "fails", "not settled"
# The questions: the score, and the verdicts that pass and fail it; None stands for the last stage of shuffled weights.
EXAM = {
    "on the lesion": ("energy_in_mask", WON, LOST),
    "well placed": (OWN, WON, LOST),
    "faithful": ("deletion_insertion", WON, LOST),
    "knows the class": ("class_swap", "knows the class", "ignores the class"),
    "needs the model": (None, "changes with it", "ignores the model"),
}
# What makes a map a statement about the model; the others ask where it points, and a faithful map may point elsewhere.
ABOUT_THE_MODEL = ["faithful", "knows the class", "needs the model"]


def label(score: str) -> str:
    """A score's name for people."""
    if score.startswith("energy_on_"):
        return f"energy on {score.removeprefix('energy_on_')} beside the lesion"
    return LABELS.get(score, score.replace("_", " "))


def last_stage(names: Iterable[str]) -> str | None:
    """Score that holds the similarity after all weights are shuffled; None if that was not tested."""
    return next((name for name in reversed(list(names)) if name.startswith("cascade:")), None)


def exam_table(scores: pd.DataFrame) -> pd.DataFrame:
    """How each map did in the questions of ``EXAM``, as far as they were asked.

    Args:
        scores: of a league.

    Returns:
        One row a map, by layer and method, one column a question: ``PASSES`` or ``FAILS`` where the interval says so, else
        ``OPEN``.
    """
    maps, columns = scores[scores["layer"] != ""], {}
    for question, (score, passing, failing) in EXAM.items():
        rows = maps[maps["score"] == (score or last_stage(scores["score"]))].set_index(["layer", "method"])
        if not rows.empty:
            columns[question] = rows["verdict"].map({passing: PASSES, failing: FAILS}).fillna(OPEN)
    return pd.DataFrame(columns).fillna(OPEN)


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
    for name, title, rival, verdict in (
        ("energy_in_mask", "energy", "centre", "on the lesion"),
        (OWN, "energy", "centred", "well placed"),
        ("deletion_insertion", "gain", "centre", "faithful"),
    ):
        if name in by_score:
            rows = by_score[name]
            if name != OWN:  # which is a difference itself
                columns[title] = _with_ends(rows, "value", "low", "high")
            columns[f"{title} − {rival}"] = _with_ends(rows, "vs_centre", "vs_centre_low", "vs_centre_high", "+")
            columns[verdict] = rows["verdict"]
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
    stage = last_stage(scores["score"])
    said.append(listed("ignores the class", maps, "class_swap", "draw the same for melanoma and for benign"))
    said.append(listed("ignores the model", maps, stage, "stay much the same when all weights are shuffled"))
    said.append(in_sum(scores))
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
    rival, it = ("their own values around the middle", "them") if name == OWN else ("the centre prior", "it")
    return (
        f"{known}{better} of {len(rows)} maps beat {rival}, {worse} are worse, {len(rows) - better - worse} cannot be "
        f"told from {it}; highest {name_of(best['layer'], best['method'])} with {best['value']:.2f}, difference "
        f"{best['vs_centre']:+.2f} "
        f"[{best['vs_centre_low']:+.2f}, {best['vs_centre_high']:+.2f}].{_edges(name, rows, controls)}"
        f"{_unsettled(name, controls)}"
    )


def _unsettled(name: str, controls: pd.DataFrame) -> str:
    """A warning where not even noise can be told from the centre prior, so that nobody can fail or win; empty where it can."""
    noise = controls.loc[("random", name)] if ("random", name) in controls.index else None
    if noise is None or noise["verdict"] != UNTOLD:
        return ""
    return " Not even the random map can be told from the centre prior: not to win here is no fail, it is not settled."


def _edges(name: str, rows: pd.DataFrame, controls: pd.DataFrame) -> str:
    """A warning where a map that has seen no model would win as well; empty where it does not."""
    edges = controls.loc[("edges", name)] if ("edges", name) in controls.index else None
    if edges is None or edges["verdict"] != WON:
        return ""
    above = (rows["low"] > edges["high"]).sum()
    return f" So do plain edges, which have seen no model; {above} maps lie above these, intervals apart."


def _artefact(name: str, rows: pd.DataFrame, controls: pd.DataFrame) -> str:
    if (rows["verdict"] == TOO_FEW).all():
        return ""
    best, centre, uniform = rows.loc[rows["value"].idxmax()], *(controls.loc[(c, name), "value"] for c in ("centre", "uniform"))
    return (
        f"{label(name)[0].upper()}{label(name)[1:]} ({rows['cases'].max()} cases): {(rows['verdict'] == 'more').sum()} of "
        f"{len(rows)} maps put more there than the centre prior does ({centre:.2f}; a uniform map {uniform:.2f}); "
        f"most {name_of(best['layer'], best['method'])}, {best['value']:.2f}."
    )


def listed(verdict: str, maps: pd.DataFrame, score: str | None, what: str) -> str:
    """How many maps have a verdict, and which; empty where nobody asked."""
    rows = maps[maps["score"] == score]
    if rows.empty:
        return ""
    found = rows[rows["verdict"] == verdict]
    unclear = (rows["verdict"] == "unclear").sum()
    names = f" ({_by_method(found)})" if len(found) else ""
    return f"{len(found)} of {len(rows)} maps {what}{names}" + (f"; of {unclear} it is unclear." if unclear else ".")


def speaks_of_the_model(told: pd.DataFrame) -> pd.Series:
    """Which maps pass all that makes them a statement about the model; none where not all was asked.

    Args:
        told: of :func:`exam_table`.

    Returns:
        Booleans, one a map.
    """
    return (told.reindex(columns=ABOUT_THE_MODEL) == PASSES).all(axis=1)


def in_sum(scores: pd.DataFrame) -> str:
    """Which maps pass what makes them a statement about the model, and how they stand by place; empty where not all was asked."""
    told = exam_table(scores)
    if not set(ABOUT_THE_MODEL) <= set(told.columns):
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
            also.append(f"{label(score)} {(rows.loc[passed, 'verdict'] == WON).sum()}")
    return f"{said}: {_by_method(passed.to_frame(index=False))}. How many of these win by the other scores: {_and(also)}."


def _by_method(rows: pd.DataFrame) -> str:
    """Maps as a list: each method once, with its layers."""
    return "; ".join(f"{method} of {_and(own['layer'])}" for method, own in rows.groupby("method", sort=False))


def _and(words: Iterable[str]) -> str:
    return ", ".join(words)
