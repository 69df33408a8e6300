"""Checks of the first lesson's exercises."""

from collections.abc import Callable

from melanoma_lib.classroom.checks import not_yet, passed

POINTS = ((0.95, 0.641, 0.0176), (0.95, 0.641, 0.45), (0.8, 0.9, 0.1), (1.0, 0.5, 0.5))


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
    given = [float(compute(*point)) for point in POINTS]
    for diagnosis, mistake in mistakes.items():
        if _same(given, [mistake(*point) for point in POINTS]):
            not_yet(diagnosis)
    right = [se * pr / (se * pr + (1 - sp) * (1 - pr)) for se, sp, pr in POINTS]
    if not _same(given, right):
        (se, sp, pr), mine, wanted = POINTS[0], given[0], right[0]
        not_yet(f"for sensitivity {se}, specificity {sp}, prevalence {pr} it gives {mine:.3f}, Bayes' rule {wanted:.3f}")
    passed("of the flagged, the share that are melanomas: it falls with the prevalence, at the same sensitivity")


def _same(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) < 1e-6 for a, b in zip(one, other, strict=True))
