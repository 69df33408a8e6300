"""What was found at home, by source, skin tone and artefact, in sentences that follow from the tables alone.

Educational, not for diagnosis.
"""

from collections.abc import Sequence

from melanoma_lib.studies.results import ResultTable, interval_text
from melanoma_lib.studies.skin_tone import TONES
from melanoma_lib.studies.travel_home import ALL, CLASSES, NO_TONE
from melanoma_lib.studies.travel_words import Row, apart, known, listed, named_sources, percent, side_of, value_of

HARDLY = 0.01  # share of the photographs below which tones are hardly there
DARKER = ("brown", "dark")


def within_words(table: ResultTable) -> str:
    """What pairs across sources add to the AUROC, what the source alone ranks, what one threshold does in each source.

    Args:
        table: of ``travel_table.travel``, of a collection whose sources are named.

    Raises:
        ValueError: if they are not.
    """
    found = named_sources(table)
    excess = interval_text(found["excess"], sign="+")
    verdict = {
        1: f"Counting across sources lifts it, by {excess}.",
        0: f"Counting across sources is not shown to change it ({excess}).",
        -1: f"Counting across sources lowers it ({excess}).",
    }
    alone = {
        1: "so where a picture comes from is a clue by itself",
        0: "so the source by itself is not shown to be a clue",
        -1: "so the source by itself misleads",
    }
    parts = [
        "An AUROC asks of every pair, a melanoma and another lesion, which one gets the higher score; "
        f"{found['share_between']:.0%} of the pairs are across sources. Over all pairs it is {interval_text(found['pooled'])}, "
        f"over pairs within a source {interval_text(found['within'])}. {verdict[side_of(found['excess'])]}",
        "The source alone, without a look at the lesion, ranks with "
        f"{interval_text(found['source_alone'])}, {alone[side_of(found['source_alone'], 0.5)]}.",
    ]
    rows = sorted(
        (row for row in found["sources"] if value_of(row["sensitivity"]) is not None), key=lambda row: row["sensitivity"]["value"]
    )
    if len(rows) > 1:
        low, high = rows[0], rows[-1]
        gap = "" if apart(low["sensitivity"], high["sensitivity"]) < 0 else ", which these cases do not tell apart"
        shown = [f"{percent(row['sensitivity'])} in {row['source']} ({row['melanomas']:,} melanomas)" for row in (low, high)]
        parts.append(f"The stored thresholds have sensitivity from {shown[0]} to {shown[1]}{gap}.")
    return " ".join(parts)


def tone_words(table: ResultTable) -> str:
    """Which skin tones are hardly there at home, which pictures have none, how far the proxy can be trusted.

    Args:
        table: of ``travel_table.travel``.
    """
    tone = table.details["tone"]
    rows = {row["tone"]: row for row in tone["performance"]["home"]}
    images, melanomas = ({name: rows[name][key] for name in rows} for key in ("images", "melanomas"))
    total = sum(images.values())
    hardly = [name for name in TONES if images.get(name, 0) < HARDLY * total]
    few = f"Every tone group has at least {HARDLY:.0%} of the {total:,} photographs at home."
    if hardly:
        few = f"Hardly there: {listed([_counted(name, images, melanomas, total) for name in hardly])}."
    darker = sum(images.get(name, 0) for name in DARKER)
    seen = f"{darker / total:.1%} of the {total:,} photographs at home"
    if darker < HARDLY * total:
        dark = f"As far as this proxy sees, dark skin is hardly there ({seen}): these rows cannot say how the model does there."
    else:
        dark = f"Brown and dark tones make up {seen}, as far as this proxy sees."
    none = images.get(NO_TONE, 0) / total
    return " ".join([few, dark, _no_tone_words(none), _proxy_words(tone["checks"])])


def _counted(name: str, images: dict[str, int], melanomas: dict[str, int], total: int) -> str:
    return (
        f"{name} ({images.get(name, 0):,} photographs, {images.get(name, 0) / total:.1%}; {melanomas.get(name, 0):,} melanomas)"
    )


def _no_tone_words(share: float) -> str:
    if not share:
        return "Every photograph has a tone."
    return (
        f'"{NO_TONE.capitalize()}" ({share:.0%}) means that the background has a hue that no skin has, from lamp or white '
        "balance, or is hardly visible: no tone is guessed."
    )


def _proxy_words(checks: Row) -> str:
    text = "The proxy measures the picture's colour, not the person's skin"
    lights = [row for row in checks["lights"] if row["other_tone"] is not None]
    if not lights:
        return f"{text}."
    most = max(lights, key=lambda row: row["other_tone"])
    return f"{text}: light that is {most['light']} alone moves {most['other_tone']:.0%} of the photographs to another group."


def stress_words(table: ResultTable) -> str:
    """Which pasted artefact flips most decisions and which moves the mean risk most, among melanomas and among others.

    Args:
        table: of ``travel_table.travel``, with artefacts.

    Raises:
        ValueError: if the artefacts were left out.
    """
    found = [row for row in table.details.get("stress", ()) if row["part"] == ALL and value_of(row["flips"]) is not None]
    if not found:
        raise ValueError("this table has no artefacts; make it with --stressed above 0")
    parts = ["An artefact was pasted on photographs that the model had been asked about without it."]
    by_class = {kind: [row for row in found if row["class"] == kind] for kind in CLASSES}
    parts += [_class_words(rows, "melanomas" if kind == "melanoma" else "others") for kind, rows in by_class.items() if rows]
    if any(row["class"] == "melanoma" and side_of(row["risk_change"]) < 0 for row in found):
        parts.append("Where the risk of melanomas falls, some may be missed.")
    return " ".join(parts)


def _class_words(rows: Sequence[Row], name: str) -> str:
    flips = max(rows, key=lambda row: (row["flips"]["value"], abs(row["risk_change"]["value"])))
    moves = max(rows, key=lambda row: abs(row["risk_change"]["value"]))
    among = f"Among {flips['images']:,} {name}"
    if not flips["flips"]["value"]:
        return f"{among} none flips a decision; the mean risk moves most with {moves['artefact']}: {_change_words(moves)}."
    text = f"{among} {flips['artefact']} flips most decisions, {percent(flips['flips'])}, and {_change_words(flips)}"
    return f"{text}." if moves is flips else f"{text}; {moves['artefact']} {_change_words(moves)}, the largest change."


def _change_words(row: Row) -> str:
    change, side = row["risk_change"], side_of(row["risk_change"])
    points = interval_text({end: None if change[end] is None else 100 * change[end] for end in ("value", "low", "high")}, 1, "+")
    verb = {1: "raises the mean risk", -1: "lowers the mean risk", 0: "is not shown to move the mean risk"}[side]
    return f"{verb} ({points} percentage points)"


def sources_words(table: ResultTable) -> str:
    """Which source loses most when no model has seen it, which losses are not settled, where sensitivity rises.

    Args:
        table: of ``sources_out.compare_sources``.
    """
    rows, details = [row for row in table.rows if value_of(row["auroc_change"]) is not None], table.details
    if not rows:
        return "No source has both melanomas and others to rank: nothing can be said of what it loses."
    parts, (worst, *others) = [], sorted(rows, key=_change)
    if _change(worst) >= 0:
        parts.append("No source's AUROC is lower where it was left out of training.")
    else:
        near = [row["source"] for row in others if _meet(worst["auroc_change"], row["auroc_change"])]
        overlap = f"; the interval overlaps with that of {listed(near)}" if near else ""
        parts.append(
            f"Left out of training, {worst['source']} loses most AUROC: {interval_text(worst['auroc_change'], sign='+')} "
            f"({worst['melanomas']:,} melanomas{overlap})."
        )
    sure = [row for row in rows if known(row["auroc_change"])]
    for side, text in ((-1, "A loss is shown for"), (1, "A gain is shown for"), (0, "The interval includes 0 for")):
        if names := [row["source"] for row in sure if side_of(row["auroc_change"]) == side]:
            parts.append(f"{text} {listed(names)}.")
    if few := [row["source"] for row in rows if row not in sure]:
        parts.append(f"Too few lesions for an interval: {listed(few)}.")
    parts += [_rise_words(row) for row in rows if side_of(row["sensitivity_change"]) > 0]
    parts.append(
        f"Each training had {details['train']['size']:,} images of {details['image_size']} pixels and at most "
        f"{details['max_epochs']} epochs: read the gap between the marks of a source, not the level, which larger trainings move."
    )
    return " ".join(parts)


def _meet(one: Row, other: Row) -> bool:
    return known(one) and known(other) and not apart(one, other)


def _change(row: Row) -> float:
    return row["auroc_change"]["value"]


def _rise_words(row: Row) -> str:
    before, after = (row[f"sensitivity_{side}"]["value"] for side in ("seen", "unseen"))
    text = f"Sensitivity in {row['source']} rose without it, from {before:.0%} to {after:.0%} ({row['melanomas']:,} melanomas)"
    if side_of(row["specificity_change"]) >= 0:
        return f"{text}."
    first, then = (row[f"specificity_{side}"]["value"] for side in ("seen", "unseen"))
    return f"{text}; specificity fell from {first:.0%} to {then:.0%}: the model that does not know it flags more of everything."
