"""Checks of the first lesson's exercises."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from melanoma_lib.classroom.checks import not_yet, numbers, passed

POINTS = ((0.95, 0.641, 0.0176), (0.95, 0.641, 0.45), (0.8, 0.9, 0.1), (1.0, 0.5, 0.5))

CLINICS = ((10_000, 0.95, 0.64, 0.02), (1_000, 0.8, 0.9, 0.1), (200, 1.0, 0.5, 0.25))  # every count is a whole number
# Some outputs, risks and logits are exactly a threshold, in whatever way they were come by.
GREYS, CUTS = (0, 60, 96, 120, 128, 136, 150, 200, 255), (0.1, 0.25, 1 / (1 + np.exp(1.2)), 0.5, 0.6, 0.75, 0.95)
Counts = tuple[float, ...]


@dataclass(frozen=True)
class Parts:
    """What leads from one picture to an answer, each part as the run needs it.

    Attributes:
        prepare: from uint8 pixels, shape ``(S, S, 3)``, to what the model takes.
        logit: of a prepared picture; what is known of the patient is already in it.
        calibrate: from a logit to a risk in [0, 1].
        threshold: chosen for outputs, that is, for sigmoids of logits.
    """

    prepare: Callable[[np.ndarray], Any]
    logit: Callable[[Any], float]
    calibrate: Callable[[float], float]
    threshold: float


def decision(decide: Callable[[float, float], bool]) -> None:
    """Hold ``decide(output, threshold)`` to the kit's rule: an output equal to the threshold is suspicious.

    Raises:
        NotYet: with what is wrong.
    """
    if not bool(decide(0.9, 0.2)) or bool(decide(0.1, 0.2)):
        if bool(decide(0.1, 0.2)) and not bool(decide(0.9, 0.2)):
            not_yet("the comparison is the wrong way round: high outputs are the suspicious ones")
        not_yet("0.9 at threshold 0.2 must be suspicious and 0.1 must not; does your function look at its second argument?")
    if bool(decide(0.3, 0.35)) or bool(decide(0.6, 0.7)):
        not_yet("it answers the same for every threshold, perhaps a fixed one such as 0.5; use the second argument")
    if not bool(decide(0.25, 0.25)):
        not_yet("an output equal to the threshold is missed: 'sensitivity >= 95% at t' counts it as found, so use >=")
    passed("high outputs are suspicious, and an output that equals the threshold is too")


def natural_counts(count: Callable[[int, float, float, float], Counts]) -> None:
    """Hold ``count(n, sensitivity, specificity, prevalence)`` to melanomas found and missed, false alarms and the cleared.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    given = [numbers(count(*clinic), 4, "four counts, found, missed, false alarms and cleared") for clinic in CLINICS]
    orders = {
        "": (0, 1, 2, 3),
        "found and missed are swapped: the sensitivity is the share of melanomas that are found": (1, 0, 2, 3),
        "the specificity is the share of other lesions that are cleared; the false alarms are the rest": (0, 1, 3, 2),
        "the counts are right, their order is not: found, missed, false alarms, cleared": (0, 2, 3, 1),  # as tp, fp, tn, fn
    }
    mistakes: dict[str, Callable[[int, float, float, float], Counts]] = {
        "": _expected_counts,
        "sensitivity is a share of the melanomas, specificity one of the other lesions, and each is taken of all lesions here: "
        "first split the lesions by the prevalence": lambda n, se, sp, pr: (n * se, n * (1 - se), n * (1 - sp), n * sp),
        "it counts false alarms and cleared among all lesions: they come from the others, n * (1 - prevalence)": (
            lambda n, se, sp, pr: (n * pr * se, n * pr * (1 - se), n * (1 - sp), n * sp)
        ),
        "these are shares: multiply by n": lambda n, *rates: tuple(count / n for count in _expected_counts(n, *rates)),
        "counts are cut off: int() makes 189 of 189.99999; leave them as they are, or use round()": (
            lambda *clinic: tuple(int(count) for count in _cut_off(*clinic))
        ),
    }
    for (swap, order), (diagnosis, mistake) in product(orders.items(), mistakes.items()):
        wrong = [tuple(mistake(*clinic)[place] for place in order) for clinic in CLINICS]
        if np.allclose(given, wrong, rtol=0, atol=1e-6):
            if swap or diagnosis:
                not_yet("; and ".join(text for text in (diagnosis, swap) if text))
            passed("melanomas found and missed, false alarms and all-clears: four kinds of lesions that add up to all")
            return
    n, se, sp, pr = CLINICS[0]
    wanted = ", ".join(f"{one:,.0f}" for one in _expected_counts(n, se, sp, pr))
    mine = ", ".join(f"{one:,.1f}" for one in given[0])
    not_yet(
        f"of {n:,} lesions at sensitivity {se}, specificity {sp} and prevalence {pr} it counts {mine}, which add up to "
        f"{sum(given[0]):,.1f}; expected {wanted}"
    )


def _expected_counts(n: int, sensitivity: float, specificity: float, prevalence: float) -> Counts:
    melanomas, others = n * prevalence, n * (1 - prevalence)
    return melanomas * sensitivity, melanomas * (1 - sensitivity), others * (1 - specificity), others * specificity


def _cut_off(n: int, se: float, sp: float, pr: float) -> Counts:
    """As readers write it who do not name the intermediate numbers: the rounding errors are those of this order."""
    return n * pr * se, n * pr * (1 - se), n * (1 - pr) * (1 - sp), n * (1 - pr) * sp


def ppv(compute: Callable[[float, float, float], float]) -> None:
    """Hold ``compute(sensitivity, specificity, prevalence)`` to Bayes' rule.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    mistakes = {
        "it takes the specificity for the false-positive rate; those wrongly flagged are 1 - specificity": lambda se, sp, pr: (
            se * pr / (se * pr + sp * (1 - pr))
        ),
        "it leaves the prevalence out: that is the PPV of a clinic where half of all lesions are melanomas": lambda se, sp, pr: (
            se / (se + 1 - sp)
        ),
        "it counts missed melanomas (1 - sensitivity) as false alarms": lambda se, sp, pr: (
            se * pr / (se * pr + (1 - se) * (1 - pr))
        ),
        "that is the sensitivity: of the melanomas, how many are flagged. PPV asks: of the flagged, how many are melanomas": (
            lambda se, sp, pr: se
        ),
        "it does not weigh false alarms by the share of other lesions, 1 - prevalence": lambda se, sp, pr: (
            se * pr / (se * pr + 1 - sp)
        ),
    }
    given = [numbers(compute(*point), 1, "one number, the PPV")[0] for point in POINTS]
    for diagnosis, mistake in mistakes.items():
        if _same(given, [mistake(*point) for point in POINTS]):
            not_yet(diagnosis)
    right = [se * pr / (se * pr + (1 - sp) * (1 - pr)) for se, sp, pr in POINTS]
    if not _same(given, right):
        (se, sp, pr), mine, wanted = POINTS[0], given[0], right[0]
        not_yet(f"for sensitivity {se}, specificity {sp}, prevalence {pr} it gives {mine:.3f}, Bayes' rule {wanted:.3f}")
    passed("of the flagged, the share that are melanomas: it falls with the prevalence, at the same sensitivity")


def whole_answer(answer: Callable[[np.ndarray, Parts], tuple[float, bool]]) -> None:
    """Name every fault left in ``answer(pixels, parts)``: the way from a picture to a risk and a decision.

    Args:
        answer: returns the calibrated risk, and whether the output, the sigmoid of the logit, reaches the threshold.

    Raises:
        NotYet: with all faults found.
    """
    probes = [(np.full((2, 2, 3), grey, np.uint8), _made_up_parts(cut)) for grey, cut in product(GREYS, CUTS)]
    given = [_risk_and_decision(answer(picture.copy(), parts)) for picture, parts in probes]
    suspects = sorted(product(IMAGES, RISKS, COMPARED, THRESHOLDS, SIGNS), key=lambda ways: sum(bool(way) for way in ways))
    for ways in suspects:  # the fewest faults that explain what was answered
        if all(_alike(mine, _answered(*probe, *ways)) for mine, probe in zip(given, probes, strict=True)):
            faults = [way for way in ways if way]
            break
    else:
        faults = [
            "the answers are none that these parts give: prepare, logit, then calibrate for the risk, the sigmoid for the output"
        ]
    if faults:
        count = "one fault is" if len(faults) == 1 else f"{len(faults)} faults are"
        not_yet(f"{count} left:\n" + "\n".join(f"  · {fault}" for fault in faults))
    passed("prepared as in training, a risk that is calibrated, and a decision by the run's own threshold")


IMAGES: dict[str, Callable[[np.ndarray, Parts], Any]] = {
    "": lambda pixels, parts: parts.prepare(pixels),
    "the model gets pixels / 255, which is not what it was trained on: parts.prepare(pixels) scales them as training did": (
        lambda pixels, parts: pixels / 255
    ),
    "the model gets raw pixels, from 0 to 255: parts.prepare(pixels) scales them as training did": lambda pixels, parts: pixels,
}
RISKS: dict[str, Callable[[float, Parts], float]] = {
    "": lambda logit, parts: parts.calibrate(logit),
    "the sigmoid of the logit is the model's output, not a risk: parts.calibrate(logit) makes one of the logit": (
        lambda logit, parts: _sigmoid(logit)
    ),
    "the output is calibrated, but parts.calibrate takes the logit": lambda logit, parts: parts.calibrate(_sigmoid(logit)),
    "the logit is reported as the risk; it is no probability at all": lambda logit, parts: logit,
}
COMPARED: dict[str, Callable[[float, Parts], float]] = {
    "": lambda logit, parts: _sigmoid(logit),
    "the risk is held against the threshold, which was chosen for outputs: compare the sigmoid of the logit": (
        lambda logit, parts: parts.calibrate(logit)
    ),
    "the logit is held against the threshold, which was chosen for outputs: compare the sigmoid of the logit": (
        lambda logit, parts: logit
    ),
}
THRESHOLDS: dict[str, Callable[[Parts], float]] = {
    "": lambda parts: parts.threshold,
    "it cuts at 0.5, a threshold that nobody has chosen: parts.threshold is that of this run": lambda parts: 0.5,
}
SIGNS: dict[str, Callable[[float, float], bool]] = {
    "": lambda one, threshold: one >= threshold,
    "an output equal to the threshold is let go: use >=": lambda one, threshold: one > threshold,
    "low outputs are called suspicious: the comparison is the wrong way round": lambda one, threshold: one < threshold,
}


def _made_up_parts(threshold: float) -> Parts:
    """Parts whose way from grey to answer is short: 0 for the logit of 128 prepared, and of black as it is."""
    return Parts(
        prepare=lambda pixels: (np.asarray(pixels, float) - 128) / 64,
        logit=lambda image: 2.0 * float(np.mean(image)),
        calibrate=lambda logit: _sigmoid(0.7 * logit - 1.2),
        threshold=threshold,
    )


def _answered(
    pixels: np.ndarray, parts: Parts, image: str, risk: str, compared: str, threshold: str, sign: str
) -> tuple[float, bool]:
    """What a function with these faults answers; an empty name is no fault."""
    logit = parts.logit(IMAGES[image](pixels, parts))
    return RISKS[risk](logit, parts), SIGNS[sign](COMPARED[compared](logit, parts), THRESHOLDS[threshold](parts))


def _alike(one: tuple[float, bool], other: tuple[float, bool]) -> bool:
    return one[1] == other[1] and abs(one[0] - other[0]) < 1e-6


def _risk_and_decision(answer: Any) -> tuple[float, bool]:
    try:
        risk, suspicious = answer
        return float(risk), bool(suspicious)
    except (TypeError, ValueError):
        not_yet(f"expected a risk and whether the case is suspicious, got {answer!r}")


def _sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _same(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) < 1e-6 for a, b in zip(one, other, strict=True))
