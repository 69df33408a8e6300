"""The README's numbers of real data, written from the committed tables.

Educational, not for diagnosis.
"""

from pathlib import Path

from melanoma_lib.studies.backbones_words import as_markdown, recommend
from melanoma_lib.studies.folds_table import folds_markdown
from melanoma_lib.studies.results import ResultTable, interval_text, load_results


def headlines(folder: Path | None = None) -> str:
    """Cross-validation, travel and league, in Markdown.

    Args:
        folder: of the tables ``folds``, ``travel`` and ``league``; default: the committed ones.

    Raises:
        StudyError: if one is missing.
    """
    folds, travel, league = (load_results(name, folder) for name in ("folds", "travel", "league"))
    league_table = as_markdown(league).split("\n\n")[0]  # its costs and notes are in lesson 06
    made = f"Made by `{folds.command}` and `python -m melanoma_lib study folds RUN`."
    parts = [
        f"### {folds.title}\n\n{folds_markdown(folds)}\n\n{made}",
        f"### Does it travel?\n\n{travel_headline(travel)}",
        f"### Which backbone?\n\n![What each backbone is worth and costs, with the Pareto front](docs/results/league.png)\n\n"
        f"{league_table}\n\n{recommend(league)}\n\nMade by `{league.command}`; costs, notes and the "
        "command of every row are in `docs/results/league.json` and lesson 06.",
    ]
    return "\n\n".join(parts)


def travel_headline(table: ResultTable) -> str:
    """What ranking and decisions are worth at home, within one camera, and in another collection."""
    mean, details = table.rows[0], table.details
    here, within = details["sample"]["here"], details["within_sources"]
    rows = [
        ("HAM10000, out of fold", mean["auroc_home"], mean["sensitivity_home"], mean["specificity_home"]),
        ("of those, pairs of one source", within["within"], None, None),
        ("ISIC 2020, same models and thresholds", mean["auroc_abroad"], mean["sensitivity_abroad"], mean["specificity_abroad"]),
        ("ISIC 2020, metadata alone", details["metadata_alone"]["auroc"], None, None),
    ]
    lines = ["| cases | AUROC | sensitivity | specificity |", "|---|---:|---:|---:|"]
    lines += ["| " + " | ".join([name, *map(interval_text, values)]) + " |" for name, *values in rows]
    gain = details["metadata_alone"]["gain"]
    return "\n".join(
        [
            *lines,
            "",
            f"ISIC 2020: the {here['images']:,} images of {here['patients']} patients, {here['melanomas']} of them melanomas. "
            f"Over metadata alone the pictures gain {interval_text(gain, sign='+')} AUROC there. At home, "
            f"{within['share_between']:.0%} of the pairs that an AUROC counts are of two sources, which lifts it by "
            f"{interval_text(within['excess'], sign='+')}; the source alone, without a look at the lesion, ranks with "
            f"{interval_text(within['source_alone'])}. {_verdict(mean)}",
            "",
            "Made by `python -m melanoma_lib study travel RUN --metadata RUN...`; recalibration, skin tone and artefacts are in "
            "`docs/results/travel.json` and lesson 06.",
        ]
    )


def _verdict(mean: dict) -> str:
    if mean["auroc_abroad"]["high"] < mean["auroc_home"]["low"]:
        return "The model did not travel: no number from home may be promised elsewhere."
    return "The intervals do not tell home from abroad; few patients were asked."
