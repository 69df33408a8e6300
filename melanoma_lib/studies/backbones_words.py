"""What the league's numbers say: the table to read and the recommendation, from the result table alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from melanoma_lib.studies.results import ResultTable, interval_text

IMAGENET, SCRATCH, OWN = "ImageNet", "from scratch", "own weights"
DECIDED = ("sensitivity", "specificity")
FROZEN, METADATA = "frozen features, logistic regression", "metadata alone, logistic regression"
MAC = "A MAC is one multiplication with an addition."
GPU_SIZE = 224  # pixels; of the league that a graphics card makes affordable

Row = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """What one metric recommends.

    Attributes:
        best: row with the highest value.
        level: rows whose paired difference to the best has an interval that includes 0, the best among them.
        chosen: the cheapest of those by MACs an image; among equally cheap ones the better.
    """

    best: Row
    level: list[Row]
    chosen: Row


def choose(rows: Sequence[Row], metric: str) -> Choice:
    """The cheapest row that these cases do not tell from the best.

    Args:
        rows: of the league.
        metric: ``auroc`` or ``specificity_at``.
    """
    best = max(rows, key=lambda row: row[metric]["value"])
    level = [row for row in rows if row is best or _reaches_zero(row[f"behind_{metric}"])]
    return Choice(best, level, min(level, key=lambda row: (row["macs"], -row[metric]["value"])))


def _reaches_zero(behind: dict[str, float | None]) -> bool:
    return behind["high"] is None or behind["high"] >= 0  # an unknown interval excludes nobody


def recommend(table: ResultTable) -> str:
    """Which model to take, why, and what these numbers cannot say: paragraphs that follow from the table alone."""
    details, rows = table.details, table.rows
    by_ranking, by_specificity = choose(rows, "auroc"), choose(rows, "specificity_at")
    share = f"{details['min_sensitivity']:.0%}"
    parts = [
        _ranking_words(by_ranking, details),
        _specificity_words(by_specificity, by_ranking.chosen, share),
        _threshold_words(_taken(by_ranking, by_specificity), details["min_sensitivity"]),
        _size_words(rows),
        _weights_words(rows),
        _card_words(rows, details),
    ]
    return "\n\n".join(part for part in parts if part)


def _ranking_words(choice: Choice, details: dict[str, Any]) -> str:
    cases = f"{details['n_cases']:,} test images ({details['n_melanomas']:,} of melanomas)"
    text = f"Highest AUROC: {choice.best['name']}, {interval_text(choice.best['auroc'])}, on {cases}."
    others = [row for row in choice.level if row is not choice.best]
    first = f"On these cases the first choice: {choice.chosen['name']}, {_price(choice.chosen)}"
    flattered = f"its lead is flattered by having been chosen on them. {MAC}"
    if not others:
        return f"{text} The intervals of all paired differences to it exclude 0. {first}; {flattered}"
    text += f" These cases do not tell it from {_listed([row['name'] for row in others])}."
    if choice.chosen is choice.best:
        return f"{text} None of them is cheaper. {first}; {flattered}"
    behind = interval_text(choice.chosen["behind_auroc"], sign="+")
    return (
        f"{text} {first}, the cheapest of them; the best needs {_price(choice.best)}. Its AUROC differs from the best by "
        f"{behind}, so a loss of {_loss(choice.chosen['behind_auroc'])} is not excluded; both were picked on these cases, which "
        f"flatters them. {MAC}"
    )


def _specificity_words(choice: Choice, taken: Row, share: str) -> str:
    metric = "specificity_at"
    text = (
        f"Sensitivity first: at {share} sensitivity on the test cases' own ROC, the highest specificity is that of "
        f"{choice.best['name']}, {interval_text(choice.best[metric])}"
    )
    if taken is choice.best:
        return f"{text}: the recommended one."
    if any(row is taken for row in choice.level):
        return f"{text}; the recommended {taken['name']}, {interval_text(taken[metric])}, is not told from it and stays."
    if choice.chosen is choice.best:
        return f"{text}. Where every missed melanoma counts, it comes before {taken['name']}, {interval_text(taken[metric])}."
    return (
        f"{text}. The cheapest that is not told from it is {choice.chosen['name']}, {interval_text(choice.chosen[metric])}; "
        f"where every missed melanoma counts, that one comes before {taken['name']}, {interval_text(taken[metric])}."
    )


def _taken(by_ranking: Choice, by_specificity: Choice) -> list[Row]:
    """The recommended row, and the alternative where there is one."""
    taken = by_ranking.chosen
    return [taken] if any(row is taken for row in by_specificity.level) else [taken, by_specificity.chosen]


def _threshold_words(taken: Sequence[Row], wanted: float) -> str:
    said = "; ".join(
        f"{row['name']} then has sensitivity {interval_text(row['sensitivity'])} and specificity "
        f"{interval_text(row['specificity'])} on the test cases"
        for row in taken
    )
    text = f"In use the threshold comes from validation, chosen for a sensitivity of {wanted:.0%}: {said}."
    short = [row["name"] for row in taken if row["sensitivity"]["high"] is not None and row["sensitivity"]["high"] < wanted]
    return f"{text} {_listed(short)} did not keep the promise: choose the threshold with a margin." if short else text


def _weights_words(rows: Sequence[Row]) -> str:
    """What ImageNet's weights were worth, where the table holds the default with and without them."""
    default = next(row for row in rows if row["default"])
    twins = [row for row in rows if row["weights"] == SCRATCH and _same_but_weights(row, default)]
    bare = [row["name"] for row in rows if row["weights"] == SCRATCH and row["epochs"]]
    if not twins or default["weights"] != IMAGENET:
        return ""
    gain = twins[0]["gain_auroc"]
    worth = {"value": -gain["value"], "low": _negative(gain["high"]), "high": _negative(gain["low"])}
    network = default["name"].partition(" (")[0]
    return (
        f"At the same budget, starting from ImageNet's weights was worth {interval_text(worth, sign='+')} AUROC to {network}. "
        f"What {_listed(bare)} reach here, they reach without such weights: these rows rank "
        "backbones that start from nothing on these cases, not what the backbones can do with weights."
    )


def _size_words(rows: Sequence[Row]) -> str:
    """What other image sizes gave the default's network, where the table holds them."""
    default = next(row for row in rows if row["default"])
    same = [row for row in rows if row["epochs"] and all(row[name] == default[name] for name in ("backbone", "weights"))]
    said = [
        f"{row['image_size']} px{_other_training(row, default)} "
        f"{interval_text(row['gain_auroc'], sign='+')} AUROC at {row['macs'] / default['macs']:.1f} times the MACs an image"
        for row in same
        if row["image_size"] != default["image_size"]
    ]
    return f"Against the default's {default['image_size']} px the same network gained at {'; at '.join(said)}." if said else ""


def _other_training(row: Row, default: Row) -> str:
    """What else differed between the two trainings, so that nobody credits the size with all of it."""
    mine, theirs = (dict(re.findall(r"--([\w-]+) (\S+)", one["command"])) for one in (row, default))
    names = {name for name in mine | theirs if mine.get(name) != theirs.get(name)} - {"image-size", "max-epochs"}
    further = f"; different, too: {', '.join(sorted(names))}" if names else ""
    if row["epochs"] == default["epochs"]:
        return f" ({further.removeprefix('; ')})" if further else ""
    return f" and {row['epochs']} epochs (the default had {default['epochs']}{further})"


def _same_but_weights(row: Row, default: Row) -> bool:
    return all(row[name] == default[name] for name in ("backbone", "image_size", "epochs"))


def _card_words(rows: Sequence[Row], details: dict[str, Any]) -> str:
    trained = [row for row in rows if row["epochs"] is not None]
    size = min(row["image_size"] for row in trained)
    factor = (GPU_SIZE / size) ** 2
    folds = details["folds"] if details["fold"] else 1
    what = f"All {folds} folds" if folds > 1 else "The same"
    return (
        "A machine with a graphics card and timm's hub would change three things: weights for every backbone, larger images, and "
        f"all folds with several seeds. {what} at {GPU_SIZE} px take about {factor * folds:,.0f} times the MACs of the "
        f"trainings at {size} px. Until then no interval here holds the luck of the seed: each row is one training a fold."
    )


def _price(row: Row) -> str:
    words = f"{_millions(row['macs'])} million MACs an image"
    return f"{words}, {row['inference_rate']['value']:,.0f} images a second" if row["inference_rate"] else words


def _loss(behind: dict[str, float | None]) -> str:
    return "unknown size" if behind["low"] is None else f"{-behind['low']:.3f}"


def _negative(number: float | None) -> float | None:
    return None if number is None else -number


def _millions(number: int) -> str:
    if number < 1e4:
        return "< 0.01"
    return f"{number / 1e6:,.0f}" if number >= 1e7 else f"{number / 1e6:.2g}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def specificity_head(table: ResultTable) -> str:
    """What ``specificity_at`` is, with the sensitivity that the league asks for."""
    return f"specificity at {table.details['min_sensitivity']:.0%} sensitivity"


def as_markdown(table: ResultTable) -> str:
    """What each model of the league is worth: ranking and risks, as a Markdown table."""
    heads = ["model", "AUROC", "AUROC minus the default's", "DeLong p (Holm)", "average precision", "Brier, calibrated"]
    worth = [
        [
            f"**{row['name']}** (default)" if row["default"] else row["name"],
            interval_text(row["auroc"]),
            interval_text(row["gain_auroc"], sign="+"),
            _p(row["delong_p_holm"]) if not row["default"] else "–",
            interval_text(row["average_precision"]),
            interval_text(row["brier"]),
        ]
        for row in table.rows
    ]
    return _markdown(heads, worth)


def operating_markdown(table: ResultTable) -> str:
    """What each model of the league decides, at one sensitivity and at its own threshold, as a Markdown table."""
    heads = ["model", f"{specificity_head(table)} (test ROC)", *(f"{name} at the threshold from validation" for name in DECIDED)]
    shown = ("specificity_at", *DECIDED)
    return _markdown(heads, [[row["name"], *(interval_text(row[name]) for name in shown)] for row in table.rows])


def costs_markdown(table: ResultTable) -> str:
    """What each model of the league costs, as a Markdown table."""
    heads = [
        "model", "parameters (million)", "MACs (million)", "training, images/s", "inference, images/s", "weights (MB)",
        "checkpoint (MB)", "training precision", "epochs",
    ]  # fmt: skip
    costs = [
        [
            row["name"],
            _millions(row["parameters"]),
            _millions(row["macs"]),
            _rate(row["training_rate"]),
            _rate(row["inference_rate"]),
            f"{row['weights_bytes'] / 1e6:.1f}" if row["weights_bytes"] else "–",
            f"{row['checkpoint_bytes'] / 1e6:.1f}" if row["checkpoint_bytes"] else "–",
            row["precision"] or "–",
            str(row["epochs"] or "–"),
        ]
        for row in table.rows
    ]
    return _markdown(heads, costs)


def league_report(table: ResultTable) -> str:
    """All that the league says, as text to read in a terminal or paste into a page (Markdown)."""
    tables = (as_markdown(table), operating_markdown(table), costs_markdown(table))
    notes = "\n".join(f"- {note}" for note in table.notes)
    return "\n\n".join([f"{table.title}. Educational, not for diagnosis.", *tables, notes, recommend(table)])


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)])


def _rate(rate: dict[str, float] | None) -> str:
    return f"{rate['value']:,.0f}" if rate else "–"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def notes_for(details: dict[str, Any], with_scratch: bool) -> list[str]:
    """What a reader must know to read the table rightly.

    Args:
        details: of the league's table.
        with_scratch: whether a network was trained without ImageNet's weights.
    """
    tested = f"fold {details['fold']} of {details['folds']}" if details["fold"] else f"all {details['folds']} folds (means)"
    where = tested if details["folds"] else "one test split"
    share = f"{details['min_sensitivity']:.0%}"
    notes = [
        f"All models are scored on {where}: {details['n_cases']:,} images of {details['n_groups']:,} lesions or patients, "
        f"{details['n_melanomas']:,} of the images melanomas. Intervals (95%) resample lesions or patients "
        f"{details['n_resamples']:,} times, the same ones for every model.",
        "Penalty or best epoch, calibration and threshold were chosen on the fold's validation cases.",
        f"Specificity at {share} sensitivity is read off the test cases' own ROC, so that models compare at one sensitivity; the "
        "threshold from validation is the one to be had in use, and its sensitivity on the test cases stands beside it.",
        "DeLong's test takes images to be independent, which several of one lesion are not; its p is adjusted for the number of "
        "comparisons (Holm). The paired interval of the difference resamples lesions and is the one to trust.",
        "The best is the best on these very cases, which flatters its lead over the others.",
        "One training each: the luck of the seed is in no interval. The recipe was found with EfficientNet-Lite0 on validation "
        "cases of other splits of HAM10000, some of which may test here; no other backbone was tuned.",
        "Images a second: a batch at the row's image size, all models taking turns on one machine, median of the rounds, "
        "training in the precision given, predicting in float32, without loading and augmentation. MAC: one multiplication with "
        "an addition, counted in convolutions and matrix products. The checkpoint also holds the optimiser's state.",
    ]
    if with_scratch:
        notes.insert(1, "From scratch: no ImageNet weights were to be had here; with them the same backbone may well do better.")
    return notes
