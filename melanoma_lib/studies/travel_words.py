"""What the travel study found abroad, in sentences that follow from its table alone.

Educational, not for diagnosis.
"""

from collections.abc import Sequence
from math import inf, log, nan
from typing import Any

from melanoma_lib.evaluation import Interval
from melanoma_lib.studies.recalibration import AS_IT_IS, BOTH, INTERCEPT, LOCAL_THRESHOLD, PRIOR
from melanoma_lib.studies.results import ResultTable, interval_text

FACTOR = 2.0  # observed over expected from 1 / FACTOR to FACTOR counts as near
RATIO = "observed_over_expected"
NEARLY_ALL, NEARLY_NONE = 0.9, 0.2  # share of melanomas found, and of others not flagged

Row = dict[str, Any]  # of a table; an interval is one too: value, low, high


def external_words(table: ResultTable) -> str:
    """Ranking, decisions and risks abroad.

    Args:
        table: of ``travel_table.travel``.
    """
    mean, sample = table.rows[0], table.details["sample"]
    here, abroad, home = sample["here"], mean["auroc_abroad"], mean["auroc_home"]
    whose = f"ISIC 2020's {sample['table']['patients']:,} patients" if "table" in sample else "the patients of ISIC 2020"
    ill, ranks = round(here["patients"] * here["patients_with_melanoma"]), side_of(abroad, 0.5)
    parts = [
        f"Asked about {here['images']:,} images of {here['patients']:,} of {whose}, {here['melanomas']:,} of them melanomas "
        f"(from {ill:,} patients): AUROC {interval_text(abroad)}; at home {interval_text(home)}.",
        _ranking_words(abroad, home),
    ]
    if alone := table.details.get("metadata_alone"):
        gain, side = interval_text(alone["gain"], sign="+"), side_of(alone["gain"])
        if side:
            parts.append(f"It ranks {'better' if side > 0 else 'worse'} than age, sex and site alone, by {gain}.")
        else:
            start = "Nor do they show" if ranks == 0 else "These cases do not show"
            parts.append(f"{start} that it ranks better than age, sex and site alone (difference {gain}).")
    return " ".join([*parts, _decision_words(mean), _risk_words(_calibrated(table, AS_IT_IS), here, ranks > 0)])


def _ranking_words(abroad: Row, home: Row) -> str:
    side = side_of(abroad, 0.5)
    if side > 0:
        worse = ", but worse than at home" if apart(abroad, home) < 0 else ""
        return f"The interval lies above 0.5: the model ranks these cases better than chance{worse}."
    if side < 0:
        return "The interval lies below 0.5: the model ranks these cases the wrong way round."
    why = "The interval includes 0.5" if known(abroad) else "The cases are too few for an interval"
    return f"{why}: these cases do not show that the model ranks at all."


def _decision_words(mean: Row) -> str:
    home, abroad = mean["sensitivity_home"], mean["sensitivity_abroad"]
    verdict = {
        -1: "That sensitivity did not travel.",
        0: "These cases do not tell the two sensitivities apart.",
        1: "That is more than at home.",
    }
    return (
        f"At the threshold that finds {percent(home)} of the melanomas at home it found {percent(abroad)} here and flagged "
        f"{percent(_rest(mean['specificity_abroad']))} of the others. {verdict[apart(abroad, home)]}"
    )


def _risk_words(row: Row, here: Row, ranks: bool) -> str:
    ratio = row[RATIO]
    text = (
        f"The risks promised {here['melanomas'] / ratio['value']:.1f} melanomas where there were {here['melanomas']:,} "
        f"(observed over expected {interval_text(ratio, 2)}):"
    )
    if side := side_of(ratio, 1.0):
        return f"{text} on average they are too {'low' if side > 0 else 'high'}."
    trap = "" if ranks else ", but that does not say who is ill"
    return f"{text} on average they are not shown to be wrong{trap}."


def recalibration_words(table: ResultTable) -> str:
    """What few local patients mend: the level of the risks, their slope, the threshold.

    Args:
        table: of ``travel_table.travel``.

    Raises:
        ValueError: if there were too few patients to learn from some and test on others.
    """
    found = table.details["few_cases"]
    if not found:
        raise ValueError("this table has no draws of local patients: there were too few patients abroad")
    return "\n\n".join([_level_words(found), _reversal_words(found), _threshold_words(found)])


def _level_words(found: Sequence[Row]) -> str:
    fits, kept = (_defined(found, method, RATIO) for method in (INTERCEPT, AS_IT_IS))
    if not fits or not kept:
        return "No draw of local patients determined an intercept, which would shift all risks alike."
    spread = []
    for row in _ends(fits):
        idle = f"; {1 - row['fitted']:.0%} of draws had none" if row["fitted"] < 0.995 else ""
        spread.append(f"{_reach(row)} with {row['patients']} patients ({row['melanomas']:.1f} melanomas{idle})")
    near = next((row["patients"] for i, row in enumerate(fits) if all(_worst(later) <= FACTOR for later in fits[i:])), None)
    until = f"From {near} patients on it stays" if near else "No number of patients tried keeps it"
    gamble = "; here, not to correct was the smaller gamble" if _worst(fits[-1]) > _worst(kept[-1]) else ""
    return (
        f"Shifting all risks to fit a few local patients should bring observed over expected to 1. In 95% of draws it lay "
        f"between {', '.join(spread)}; uncorrected, {_reach(kept[-1])}. {until} within a factor of {FACTOR:g}{gamble}."
    )


def _reach(row: Row) -> str:
    return f"{row[f'{RATIO}_low']:.2f} and {row[f'{RATIO}_high']:.2f}"


def _worst(row: Row) -> float:
    """The factor by which the wider end is away from 1."""
    low = row[f"{RATIO}_low"]
    return max(row[f"{RATIO}_high"], 1 / low if low > 0 else inf)


def _reversal_words(found: Sequence[Row]) -> str:
    rows = [row for row in found if row["method"] == BOTH and row["reversed"] is not None]
    if not rows:
        return "No draw determined a slope."
    sizes = f"{listed([str(row['patients']) for row in rows])} patients"
    if not any(row["reversed"] for row in rows):
        return f"A slope fitted as well never turned the ranking round with {sizes}."
    shares = listed([f"{row['reversed']:.0%}" for row in rows])
    return f"A slope fitted as well turned the ranking round, high risks becoming low ones, in {shares} of fits to {sizes}."


def _threshold_words(found: Sequence[Row]) -> str:
    rows = [row for row in _defined(found, LOCAL_THRESHOLD, "sensitivity") if row["specificity"] is not None]
    if not rows:
        return "No draw held a melanoma to set a threshold by."
    first, *rest = [
        (f"{row['sensitivity']:.0%}", f"{1 - row['specificity']:.0%}", f"{row['patients']} patients") for row in _ends(rows)
    ]
    said = f"{first[0]} of the melanomas and flagged {first[1]} of the others when set on {first[2]}"
    said += "".join(f", {found} and {flagged} on {patients}" for found, flagged, patients in rest)
    dear = any(row["sensitivity"] >= NEARLY_ALL and row["specificity"] <= NEARLY_NONE for row in rows)
    lesson = " A threshold that finds every melanoma may do so by flagging nearly everybody." if dear else ""
    return f"A local threshold found {said} (medians).{lesson}"


def prior_words(table: ResultTable) -> str:
    """Whether knowing the prevalence alone mends the risks, and why not.

    Args:
        table: of ``travel_table.travel``.
    """
    shift, melanomas = table.details["shift"], table.details["sample"]["here"]["prevalence"]
    before, after = (_calibrated(table, method)[RATIO] for method in (AS_IT_IS, PRIOR))
    text = (
        f"Knowing the prevalence alone, {shift['prevalence_abroad']:.1%} here and {shift['prevalence_home']:.1%} at home, moves "
        f"observed over expected from {interval_text(before, 2)} to {interval_text(after, 2)}."
    )
    text += " That correction assumes that melanomas and moles look alike in both places and only their shares differ"
    if not side_of(after, 1.0):
        return f"{text}; these cases do not contradict it."
    if _off(after["value"]) < _off(before["value"]):
        return f"{text}. It brings the risks nearer and does not mend them: more than the shares differs."
    verb = "lowers" if shift["prior_shift"] < 0 else "raises"
    mean = f"{melanomas / before['value']:.1%}"
    return f"{text}. Here more than that differs: the mean risk was {mean} before any correction, and this one {verb} it too far."


# --- numbers -------------------------------------------------------------------------------------------------------------------


def named_sources(table: ResultTable) -> Row:
    """What the table holds by acquisition source.

    Raises:
        ValueError: if its collection's table names none.
    """
    if found := table.details["within_sources"]:
        return found
    raise ValueError("this table has no AUROC within sources: the collection's table does not name them")


def value_of(interval: Row | None) -> float | None:
    """None where there is no interval or its value is undefined."""
    return None if interval is None else interval["value"]


def known(interval: Row) -> bool:
    """Whether both ends are."""
    return interval.get("low") is not None and interval.get("high") is not None


def side_of(interval: Row, of: float = 0.0) -> int:
    """1 where the interval lies above a value, -1 below it, 0 where it includes it or is unknown."""
    return int(interval["low"] > of) - int(interval["high"] < of) if known(interval) else 0


def apart(one: Row, other: Row) -> int:
    """1 where the first interval lies above the second, -1 below it, 0 where they meet or one is unknown."""
    return int(one["low"] > other["high"]) - int(one["high"] < other["low"]) if known(one) and known(other) else 0


def percent(interval: Row) -> str:
    """A share as ``33% [16%, 46%]``; a dash for what is not known."""
    if interval["value"] is None:
        return "–"
    ends = (interval["low"], interval["high"]) if known(interval) else (nan, nan)
    return format(Interval(interval["value"], *ends), ".0%")


def _rest(share: Row) -> Row:
    """1 minus a share."""
    value, low, high = (None if share.get(end) is None else 1 - share[end] for end in ("value", "low", "high"))
    return {"value": value, "low": high, "high": low}


def _off(ratio: float) -> float:
    return abs(log(ratio)) if ratio > 0 else inf


def _calibrated(table: ResultTable, method: str) -> Row:
    return next(row for row in table.details["calibration"] if row["method"] == method)


def _defined(found: Sequence[Row], method: str, name: str) -> list[Row]:
    return [row for row in found if row["method"] == method and row[name] is not None]


def _ends(rows: Sequence[Row]) -> list[Row]:
    return [rows[0]] if len(rows) == 1 else [rows[0], rows[-1]]


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
