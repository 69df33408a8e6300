"""A league's numbers in words: verdicts, a table to read, and a conclusion that follows from them."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from melanoma_lib.explain.league_statistics import MIN_GROUPS, Means

TOO_FEW = f"fewer than {MIN_GROUPS} groups"
UNTOLD = "not told apart"
LEGEND = (
    "energy: share on the lesion; gain: of deletion and insertion, in logits; − centre: paired difference to the centre prior; "
    "similarities, as rank correlations with the map itself: both classes, of the map against melanoma; shuffled, once all "
    "weights are; other case, of another case's map; mirrored, of the image mirrored and turned. Intervals: 95%."
)
LABELS = {
    "energy_in_mask": "energy on the lesion",
    "pointing_game": "peak on the lesion",
    "rank_accuracy": "rank accuracy",
    "overlap": "overlap with the lesion",
    "deletion": "deletion",
    "insertion": "insertion",
    "deletion_insertion": "deletion/insertion gain",
    "road": "ROAD gain",
}


PLACES = ("energy_in_mask", "pointing_game", "rank_accuracy", "overlap")  # scores of where a map lies
ENTRY = ("energy_in_mask", "deletion_insertion")  # what a map has to win to pass


def label(score: str) -> str:
    """A score's name for people."""
    if score.startswith("energy_on_"):
        return f"energy on {score.removeprefix('energy_on_')} beside the lesion"
    return LABELS.get(score, score.replace("_", " "))


def last_stage(names: Iterable[str]) -> str | None:
    """Score that holds the similarity after all weights are shuffled; None if that was not tested."""
    return next((name for name in reversed(list(names)) if name.startswith("cascade:")), None)


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
    for name, title, verdict in (("energy_in_mask", "energy", "on the lesion"), ("deletion_insertion", "gain", "faithful")):
        if name in by_score:
            rows = by_score[name]
            columns[title] = _with_ends(rows, "value", "low", "high")
            columns[f"{title} − centre"] = _with_ends(rows, "vs_centre", "vs_centre_low", "vs_centre_high", "+")
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
    said.append(_listed("ignores the class", maps, "class_swap", "draw the same for melanoma and for benign"))
    said.append(_listed("ignores the model", maps, stage, "stay much the same when all weights are shuffled"))
    said.append(_survivors(maps, stage))
    said.append(
        "The centre prior has seen neither model nor image: to beat it on the lesion is the least a map can do, and tells where "
        "the map points, not that the model uses what lies there. Intervals of differences hold for all maps of a score at once, "
        "not between scores. One trained model, one shuffle of its weights. Educational, not for diagnosis."
    )
    return " ".join(part for part in said if part)


def _against_centre(name: str, rows: pd.DataFrame, controls: pd.DataFrame) -> str:
    title = f"{label(name)[0].upper()}{label(name)[1:]}"
    values = ", ".join(f"{control} {controls.loc[(control, name), 'value']:.2f}" for control in dict(controls.index))
    known = f"{title} ({rows['cases'].max()} cases; controls: {values}): "
    if (rows["verdict"] == TOO_FEW).all():
        return f"{known}{TOO_FEW}, too few for a verdict."
    better, worse = ((rows["verdict"] == word).sum() for word in ("better", "worse"))
    best = rows.loc[rows["value"].idxmax()]
    return (
        f"{known}{better} of {len(rows)} maps beat the centre prior, {worse} are worse, {len(rows) - better - worse} cannot be "
        f"told from it; highest {name_of(best['layer'], best['method'])} with {best['value']:.2f}, difference "
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
    if edges is None or edges["verdict"] != "better":
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


def _listed(verdict: str, maps: pd.DataFrame, score: str | None, what: str) -> str:
    rows = maps[maps["score"] == score]
    if rows.empty:
        return ""
    found = rows[rows["verdict"] == verdict]
    unclear = (rows["verdict"] == "unclear").sum()
    names = f" ({_by_method(found)})" if len(found) else ""
    return f"{len(found)} of {len(rows)} maps {what}{names}" + (f"; of {unclear} it is unclear." if unclear else ".")


def _survivors(maps: pd.DataFrame, stage: str | None) -> str:
    """Which maps pass all that was asked of them; empty where not all was asked."""
    wanted = dict.fromkeys(ENTRY, "better") | {"class_swap": "knows the class", stage: "changes with it"}
    if not set(wanted) <= set(maps["score"]):
        return ""
    passed = None
    for score, verdict in wanted.items():
        rows = maps[(maps["score"] == score) & (maps["verdict"] == verdict)]
        own = set(zip(rows["layer"], rows["method"], strict=True))
        passed = own if passed is None else passed & own
    kept = maps[(maps["score"] == "energy_in_mask")]
    kept = kept[[pair in passed for pair in zip(kept["layer"], kept["method"], strict=True)]]
    said = (
        f"{len(kept) or 'None'} of {(maps['score'] == 'energy_in_mask').sum()} maps beat the centre prior both on the lesion, by "
        "energy, and by deletion/insertion, know the class and change with the model"
    )
    if kept.empty:
        return f"{said}.{_failed(maps, stage)}"
    also = []
    for score in (*PLACES, "road"):
        rows = maps[(maps["score"] == score) & (maps["verdict"] == "better")]
        if score not in ENTRY and (maps["score"] == score).any():
            also.append(f"{label(score)} {sum(pair in passed for pair in zip(rows['layer'], rows['method'], strict=True))}")
    return f"{said}: {_by_method(kept)}. Of these beat it by the other scores: {_and(also)}."


def _failed(maps: pd.DataFrame, stage: str) -> str:
    """Of the maps none of which passed: how many fail something for certain, and of how many it is not settled."""
    fails = dict.fromkeys(ENTRY, "worse") | {"class_swap": "ignores the class", stage: "ignores the model"}
    failing = maps[[fails.get(score) == verdict for score, verdict in zip(maps["score"], maps["verdict"], strict=True)]]
    failed, asked = len(failing.groupby(["layer", "method"])), (maps["score"] == ENTRY[0]).sum()
    return f" {failed} fail at least one of the four for certain; of {asked - failed} it is not settled."


def _by_method(rows: pd.DataFrame) -> str:
    """Maps as a list: each method once, with its layers."""
    return "; ".join(f"{method} of {_and(own['layer'])}" for method, own in rows.groupby("method", sort=False))


def _and(words: Iterable[str]) -> str:
    return ", ".join(words)
