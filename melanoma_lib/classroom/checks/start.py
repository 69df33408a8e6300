"""Exercises of the first lesson: a decision, its rates, counts, the PPV, and the way from a picture to an answer."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from melanoma_lib.classroom.checks.engine import Exercise


class Parts(NamedTuple):
    """What leads from one picture to an answer, each part as the run needs it."""

    prepare: Callable[[np.ndarray], Any]  # from uint8 pixels, shape (S, S, 3), to what the model takes
    logit: Callable[[Any], float]  # of a prepared picture; what is known of the patient is already in it
    calibrate: Callable[[float], float]  # from a logit to a risk in [0, 1]
    threshold: float  # chosen for probabilities, that is, for sigmoids of logits


PARTS = Parts(lambda x: (x - 128.0) / 64, lambda image: 2 * image.mean(), lambda z: expit(0.7 * z - 1.2), 0.5)


def rates_of(targets, flagged, first="tpr", second="tnr"):
    """Sensitivity and specificity, or two other rates."""
    melanoma = targets == 1
    tp, tn = (flagged & melanoma).sum(), (~flagged & ~melanoma).sum()
    rates = {"tpr": (tp, melanoma), "tnr": (tn, ~melanoma), "ppv": (tp, flagged), "npv": (tn, ~flagged)}
    return tuple(count / of.sum() for count, of in (rates[first], rates[second]))


def _counts(n, sensitivity, specificity, prevalence, of_positives=None, of_negatives=None, swap=False):
    positives, negatives = n * (of_positives or prevalence), n * (of_negatives or 1 - prevalence)
    tp, tn = positives * sensitivity, negatives * (1 - specificity if swap else specificity)
    return tp, positives - tp, negatives - tn, tn


def _ppv(sensitivity, specificity, prevalence, **faults):
    tp, _, fp, _ = _counts(1, sensitivity, specificity, prevalence, **faults)
    return tp / (tp + fp)


def _answer(pixels, parts, prepare=None, risk=None, by_risk=False, threshold=None, sign=operator.ge):
    logit = parts.logit((prepare or parts.prepare)(pixels))
    compared = parts.calibrate(logit) if by_risk else expit(logit)
    return (risk or parts.calibrate)(logit), sign(compared, threshold or parts.threshold)


decision = Exercise(
    reference=lambda probability, threshold, compare=operator.ge: compare(probability, threshold),
    inputs=[(0.9, 0.2), (0.1, 0.2), (0.3, 0.35), (0.6, 0.7), (0.8, 0.7), (0.25, 0.25)],
    success="the second argument decides, and a probability that equals the threshold is flagged, too",
    slips={
        "a probability equal to the threshold is not flagged: use >=": {"compare": operator.gt},
        "it is the same for every threshold, perhaps 0.5: use the second argument": {"compare": lambda p, _: p >= 0.5},
    },
)

rates = Exercise(
    reference=rates_of,
    inputs=[(np.repeat([0, 1], [7, 4]), np.array([1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0], bool))],
    names="sensitivity, specificity",
    success="one rate among the melanomas, one among the other lesions, so that neither depends on how common melanomas are",
    slips={
        "the first is the precision, a share of the flagged; sensitivity is one of the melanomas": {"first": "ppv"},
        "these are shares of the flagged and of the rest, not of a class": {"first": "ppv", "second": "npv"},
        "sensitivity and specificity are swapped: confusion_matrix sorts 0 before 1": {"first": "tnr", "second": "tpr"},
    },
)

natural_counts = Exercise(
    reference=_counts,
    inputs=[(10_000, 0.95, 0.64, 0.02), (1_000, 0.8, 0.9, 0.1), (200, 1.0, 0.5, 0.25)],  # every count is a whole number
    names="true positives, false negatives, false positives, true negatives",
    success="melanomas flagged and not flagged, other lesions flagged and not flagged: together they are all lesions",
    slips={
        "false positives and true negatives come from the other lesions, n * (1 - prevalence)": {"of_negatives": 1.0},
        "each rate is taken of all lesions: split them by the prevalence": {"of_positives": 1.0, "of_negatives": 1.0},
        "the specificity is the share of true negatives; the false positives are the rest": {"swap": True},
    },
)

ppv = Exercise(
    reference=_ppv,
    inputs=[(0.95, 0.641, 0.0176), (0.95, 0.641, 0.45), (0.8, 0.9, 0.1)],
    success="of the flagged, the share that are melanomas: it falls with the prevalence, at the same sensitivity",
    slips={
        "the false-positive rate is 1 - specificity, not the specificity": {"swap": True},
        "it leaves out the prevalence: this holds where half are melanomas": {"of_positives": 0.5, "of_negatives": 0.5},
    },
)

whole_answer = Exercise(
    reference=_answer,
    inputs=[(np.full((2, 2, 3), x), PARTS._replace(threshold=t)) for x in range(0, 256, 16) for t in (0.1, 0.25, 0.5)],
    names="risk, flagged",
    success="prepared as in training, a risk that is calibrated, and a decision by the run's own threshold",
    slips={
        "the model gets pixels / 255: parts.prepare scales them as training did": {"prepare": lambda x: x / 255},
        "the sigmoid of the logit is no risk: use parts.calibrate(logit)": {"risk": expit},
        "the risk is compared, but the threshold was chosen for the sigmoid of the logit": {"by_risk": True},
        "the threshold is 0.5, which nobody has chosen: parts.threshold is that of this run": {"threshold": 0.5},
        "a probability equal to the threshold is not flagged: use >=": {"sign": operator.gt},
    },
)
