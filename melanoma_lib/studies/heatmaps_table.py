"""What a league of heatmaps says of a run, as a table that may be quoted.

Educational, not for diagnosis.
"""

from typing import Any

import pandas as pd

from melanoma_lib.errors import StudyError
from melanoma_lib.explain.league import COLUMNS, League
from melanoma_lib.explain.league_words import LOST, OWN, PLACES, WON, in_sum, label, last_stage, listed, name_of
from melanoma_lib.runs import Run
from melanoma_lib.studies.results import ResultTable, interval_text

ASKED = (*PLACES, "deletion_insertion", "road")
CONTROLS = ("random", "edges", "centre", "uniform")
FACTS = ("run", "n", "melanomas", "groups", "layers", "methods", "n_faithful", "n_road", "n_sanity")


def heatmaps_table(run: Run, league: League) -> ResultTable:
    """Grades of all maps and controls, without what the README and a slide do not need.

    Args:
        run: whose maps were graded.
        league: of the run, on any number of cases.
    """
    settings, scores = run.settings, league.scores
    kept = scores[scores["score"].isin([*ASKED, "class_swap", last_stage(scores["score"])])]
    rows = kept.drop(columns=["melanomas", "others"]).to_dict("records")
    return ResultTable(
        name="heatmaps",
        title=f"Heatmaps of {settings.backbone} at {settings.image_size} px on {settings.source}",
        command=f"python -m melanoma_lib study heatmaps RUN --cases {league.facts['n']}",
        rows=[{key: _short(value) for key, value in row.items()} for row in rows],
        notes=[
            "vs_centre: paired difference to the centre prior, whose interval holds for all maps of the score at once; "
            f"{OWN} is itself a difference, to the map's own values arranged around the middle.",
            "One trained model, one shuffle of its weights. Intervals (95%) resample patients or lesions.",
        ],
        details={name: league.facts[name] for name in FACTS},
    )


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def league_of(table: ResultTable) -> League:
    """The league again, as far as the table keeps it; figures and words take it.

    Raises:
        StudyError: if the table is not the heatmap study's.
    """
    try:
        scores = pd.DataFrame(table.rows).reindex(columns=list(COLUMNS)).astype(COLUMNS)
        return League({name: table.details[name] for name in FACTS}, scores)
    except (KeyError, ValueError, TypeError) as error:
        raise StudyError(f"table {table.name} is not as study heatmaps writes it ({error}); make it again") from error


def heatmaps_headline(table: ResultTable) -> str:
    """The exam question by question, and who passes all of it, in Markdown.

    Raises:
        StudyError: if the table is not the heatmap study's.
    """
    league = league_of(table)
    facts, scores = league.facts, league.scores
    maps = scores[scores["layer"] != ""]
    lines = ["| score | against | cases | controls | better | worse | highest |", "|---|---|---:|---|---:|---:|---|"]
    lines += [_line(name, league.score(name)) for name in ASKED if name in set(scores["score"])]
    said = [
        listed("ignores the class", maps, "class_swap", "draw the same for melanoma and for benign"),
        listed("ignores the model", maps, last_stage(scores["score"]), "stay much the same when all weights are shuffled"),
        in_sum(scores),
    ]
    about = (
        f"Every layer and method of one run ({table.title.removeprefix('Heatmaps of ')}), graded against maps that have seen no "
        f"model: {facts['n']} test images with outlined lesions ({facts['melanomas']} melanomas, {facts['groups']} lesions), "
        f"{len(facts['layers'])} layers x {len(facts['methods'])} methods. How many maps are better or worse than the control "
        "named, by intervals that hold for all maps of a score at once:"
    )
    moral = (
        "Lesions lie in the middle of their pictures, so a spot in the middle that has seen nothing lies on them as well, the "
        "more so the narrower it is. One model, one shuffle; lesson 05 says what may be concluded."
    )
    return "\n".join([about, "", *lines, "", " ".join(filter(None, said)), "", moral])


def _line(name: str, rows: pd.DataFrame) -> str:
    maps, controls = rows[[layer != "" for layer, _ in rows.index]], rows.loc[""]
    best = maps.loc[maps["value"].idxmax()]
    values = ", ".join(f"{control} {controls.loc[control, 'value']:.2f}" for control in CONTROLS if control in controls.index)
    better, worse = ((maps["verdict"] == verdict).sum() for verdict in (WON, LOST))
    return (
        f"| {label(name)} | {'own values centred' if name == OWN else 'centre prior'} | {int(maps['cases'].max())} | {values} | "
        f"{better} of {len(maps)} | {worse} | "
        f"{name_of(*best.name)}, {interval_text(best[['value', 'low', 'high']].to_dict(), digits=2)} |"
    )
