"""The README's numbers of real data, written from the committed tables.

Educational, not for diagnosis.
"""

from pathlib import Path

from melanoma_lib.errors import StudyError
from melanoma_lib.studies.backbones_words import as_markdown, operating_markdown, recommend
from melanoma_lib.studies.folds_table import folds_markdown
from melanoma_lib.studies.heatmaps_table import heatmaps_headline
from melanoma_lib.studies.results import ResultTable, interval_text, load_results

MEASURES = ("auroc", "sensitivity", "specificity")
ABOVE, BELOW = 1, -1  # of zero


def headlines(folder: Path | None = None) -> str:
    """Cross-validation, travel, backbones and heatmaps, in Markdown.

    Args:
        folder: of the tables ``folds``, ``travel``, ``league`` and ``heatmaps``; default: the committed ones.

    Raises:
        StudyError: if one is missing.
    """
    folds, travel, league, heatmaps = (load_results(name, folder) for name in ("folds", "travel", "league", "heatmaps"))
    decisions = f"<details><summary>Sensitivity and specificity</summary>\n\n{operating_markdown(league)}\n\n</details>"
    views = " --tta" if len(folds.rows) > 1 else ""
    made = f"Made by `{folds.command}` and `python -m melanoma_lib study folds RUN{views}`."
    parts = [
        f"### {folds.title}\n\n{folds_markdown(folds)}\n\n{made}",
        f"### Does it travel?\n\n{travel_headline(travel)}",
        f"### Which backbone?\n\n![What each backbone is worth and costs, with the Pareto front](docs/results/league.png)\n\n"
        f"{as_markdown(league)}\n\n{decisions}\n\n{recommend(league)}\n\nMade by `{league.command}`; costs, notes and the "
        "command of every row are in `docs/results/league.json` and lesson 06.",
        "### Do the heatmaps deserve belief?\n\n![Layers against methods, with a mark for each question that a map passes, fails "
        f"or leaves open](docs/results/heatmaps.png)\n\n{heatmaps_headline(heatmaps)}\n\nMade by `{heatmaps.command}`.",
    ]
    return "\n\n".join(parts)


def travel_headline(table: ResultTable) -> str:
    """What ranking and decisions are worth at home, within one camera, and in another collection.

    Where the study had no models of metadata alone, or the home collection names no sources, nothing is said of them.

    Raises:
        StudyError: if the table is not the travel study's.
    """
    try:
        mean, here = table.rows[0], table.details["sample"]["here"]
        within, alone = table.details.get("within_sources"), table.details.get("metadata_alone")
        rows = [("HAM10000, out of fold", *(mean[f"{name}_home"] for name in MEASURES))]
        if within:
            rows.append(("of those, pairs of one source", within["within"], None, None))
        rows.append(("ISIC 2020, same models and thresholds", *(mean[f"{name}_abroad"] for name in MEASURES)))
        if alone:
            rows.append(("ISIC 2020, metadata alone", alone["auroc"], None, None))
        said = [
            f"ISIC 2020: the {here['images']:,} images of {here['patients']} patients, {here['melanomas']} of them melanomas.",
            _gain_of_pictures(alone["gain"]) if alone else "",
            _of_sources(within) if within else "",
            _verdict(mean),
        ]
    except (KeyError, IndexError) as error:
        raise StudyError(f"table {table.name} is not as study travel writes it, {error} is missing; make it again") from error
    lines = ["| cases | AUROC | sensitivity | specificity |", "|---|---:|---:|---:|"]
    lines += ["| " + " | ".join([name, *map(interval_text, values)]) + " |" for name, *values in rows]
    return "\n".join(
        [
            *lines,
            "",
            " ".join(filter(None, said)),
            "",
            f"Made by `python -m melanoma_lib study travel RUN{' --metadata RUN...' if alone else ''}`; recalibration, skin tone "
            "and artefacts are in `docs/results/travel.json` and lesson 06.",
        ]
    )


def _gain_of_pictures(gain: dict) -> str:
    text = f"{interval_text(gain, sign='+')} AUROC"
    if _surely(gain, ABOVE):
        return f"Over metadata alone the pictures gain {text} there."
    if _surely(gain, BELOW):
        return f"With the pictures the models rank worse there than metadata alone: {text}."
    return f"These cases do not show that the pictures add to metadata alone: {text}."


def _of_sources(within: dict) -> str:
    verb = "lifts it by" if _surely(within["excess"], ABOVE) else "changes it by"
    return (
        f"At home, {within['share_between']:.0%} of the pairs that an AUROC counts are across sources, which {verb} "
        f"{interval_text(within['excess'], sign='+')}; the source alone, without a look at the lesion, ranks with "
        f"{interval_text(within['source_alone'])}."
    )


def _verdict(mean: dict) -> str:
    """What the intervals say of the AUROC at home and abroad; that they differ does not say why."""
    home, abroad = mean["auroc_home"], mean["auroc_abroad"]
    if not (_known(home) and _known(abroad)):
        return "Without an interval for both AUROCs, home and abroad cannot be compared."
    if abroad["high"] < home["low"]:
        return (
            "The home number did not hold there; whether the cases are harder or the model is lost, this test cannot tell. No "
            "number from home may be promised elsewhere."
        )
    if abroad["low"] > home["high"]:
        return (
            "The AUROC is higher there than at home; whether the cases are easier or the model is better on them, this test "
            "cannot tell."
        )
    return "The intervals do not tell home from abroad, which is no proof that the home number holds there."


def _known(interval: dict | None) -> bool:
    return interval is not None and None not in (interval.get("low"), interval.get("high"))


def _surely(interval: dict | None, side: int) -> bool:
    """Whether an interval lies wholly ``ABOVE`` or ``BELOW`` zero; never where its ends are not known."""
    return _known(interval) and min(side * interval["low"], side * interval["high"]) > 0
