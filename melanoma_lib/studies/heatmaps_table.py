"""What a league of heatmaps says of a run, as a table that may be quoted.

Educational, not for diagnosis.
"""

from typing import Any

import pandas as pd

from melanoma_lib.errors import StudyError
from melanoma_lib.explain.league import COLUMNS, League
from melanoma_lib.explain.league_exam import LOST, OWN, PLACES, WON, last_stage
from melanoma_lib.explain.league_words import TOO_FEW, ignorant, in_sum, label, name_of, rival, warnings_of
from melanoma_lib.runs import Run
from melanoma_lib.studies.results import ResultTable, interval_text

ASKED = (*PLACES, "deletion_insertion", "road")
CONTROLS = ("random", "edges", "centre", "outline")
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
    by_score = {name: scores[scores["score"] == name] for name in ASKED if name in set(scores["score"])}
    lines = ["| score | against | cases | controls | better | worse | highest |", "|---|---|---:|---|---:|---:|---|"]
    lines += [_line(name, rows) for name, rows in by_score.items()]
    warned = [
        f"- {label(name)}: {' '.join(found)}" for name, rows in by_score.items() if (found := warnings_of(name, *_apart(rows)))
    ]
    model = table.title.removeprefix("Heatmaps of ")
    about = (
        f"Every layer and method of one run ({model}), graded on {facts['n']} test images with outlined lesions "
        f"({facts['melanomas']} of them melanomas; {facts['groups']} patients or lesions). {len(facts['layers'])} layers x "
        f"{len(facts['methods'])} methods; *better* and *worse* by intervals that hold for all maps of a score at once. The "
        "*centre prior* is a blurred spot that has seen nothing; *their own values around the middle* are the maps themselves, "
        "the highest values put in the middle; the *outline* is the lesion as a map."
    )
    said = " ".join([*ignorant(scores), in_sum(scores)]).strip()
    return "\n\n".join(filter(None, [about, "\n".join(lines), "\n".join(warned), said, _moral(by_score)]))


def _moral(by_score: dict[str, pd.DataFrame]) -> str:
    """What follows for maps that lie on lesions, where lesions lie in the middle and no map does better than that."""
    controls, own = _apart(by_score["energy_in_mask"])[1], _apart(by_score[OWN])[0]
    central = controls.loc["centre", "low"] > controls.loc["uniform", "high"] and not (own["verdict"] == WON).any()
    place = (
        "Lesions lie in the middle of their pictures, so such spots lie on them, the narrower the more. A map on the lesion is "
        "therefore no evidence that it follows the lesion. "
    )
    return (
        f"{place if central else ''}Which pixels matter to the model is another question (deletion/insertion, ROAD). One model, "
        "one shuffle; lesson 05 says what may be concluded."
    )


def _apart(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One score's rows of graded maps, and those of controls by method."""
    is_control = rows["layer"] == ""
    return rows[~is_control & (rows["cases"] > 0)], rows[is_control].set_index("method")


def _line(name: str, rows: pd.DataFrame) -> str:
    maps, controls = _apart(rows)
    best = maps.loc[maps["value"].idxmax()]
    values = ", ".join(f"{control} {controls.loc[control, 'value']:.2f}" for control in CONTROLS if control in controls.index)
    better, worse = ((maps["verdict"] == verdict).sum() for verdict in (WON, LOST))
    told = f"{better} of {len(maps)} | {worse}" if (maps["verdict"] != TOO_FEW).any() else f"{TOO_FEW} | –"
    return (
        f"| {label(name)} | {rival(name)} | {int(maps['cases'].max())} | {values} | {told} | "
        f"{name_of(best['layer'], best['method'])}, {interval_text(best[['value', 'low', 'high']].to_dict(), digits=2)} |"
    )
