"""Exercises of the first lesson: a decision, its rates, counts, the PPV, and the whole way from a picture to an answer."""

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from melanoma_lib.classroom.checks.engine import Exercise


@dataclass(frozen=True)
class Parts:
    """What leads from one picture to an answer, each part as the run needs it.

    Attributes:
        prepare: from uint8 pixels, shape ``(S, S, 3)``, to what the model takes.
        logit: of a prepared picture; what is known of the patient is already in it.
        calibrate: from a logit to a risk in [0, 1].
        threshold: chosen for probabilities, that is, for sigmoids of logits.
    """

    prepare: Callable[[np.ndarray], Any]
    logit: Callable[[Any], float]
    calibrate: Callable[[float], float]
    threshold: float


decision = Exercise(
    reference=lambda probability, threshold, compare=operator.ge: compare(probability, threshold),
    inputs=[(0.9, 0.2), (0.1, 0.2), (0.3, 0.35), (0.6, 0.7), (0.8, 0.7), (0.25, 0.25)],
    returns="True or False",
    success="the second argument decides, and a probability that equals the threshold is flagged, too",
    slips={
        "a probability equal to the threshold is not flagged: 'sensitivity >= 95% at t' flags it, so use >=":
            {"compare": operator.gt},
        "it answers the same for every threshold, perhaps 0.5: use the second argument": lambda p, _: p >= 0.5,
        "the comparison is the wrong way round: high probabilities are not flagged": {"compare": operator.lt},
    },
    hint="Does your function compare its first argument with its second?",
)  # fmt: skip


def rates_of(melanoma, flagged):
    """What two boolean arrays, or columns, give whoever divides rightly or wrongly."""
    tp, tn = (flagged & melanoma).sum(), (~flagged & ~melanoma).sum()
    tpr, tnr = tp / melanoma.sum(), tn / (~melanoma).sum()
    return {
        "tp": tp, "tn": tn, "tpr": tpr, "tnr": tnr, "fnr": 1 - tpr, "fpr": 1 - tnr,
        "ppv": tp / flagged.sum(), "npv": tn / (~flagged).sum(), "accuracy": (flagged == melanoma).mean(),
    }  # fmt: skip


def _rates(targets, called, first="tpr", second="tnr"):
    rates = rates_of(targets == 1, called)
    return rates[first], rates[second]


rates = Exercise(
    reference=_rates,
    inputs=[
        (np.repeat([1, 0], [10, 30]), np.r_[np.ones(8, bool), np.zeros(2, bool), np.ones(12, bool), np.zeros(18, bool)]),
        (np.repeat([0, 1], [5, 4]), np.array([1, 0, 0, 0, 0, 1, 1, 1, 0], bool)),
    ],
    returns=("sensitivity", "specificity"),
    success="one rate among the melanomas, one among the other lesions, so that neither depends on how common melanomas are",
    slips={
        "the first is the precision, a share of the flagged cases; sensitivity is a share of the melanomas": {"first": "ppv"},
        "the first is the accuracy of all cases; sensitivity looks at the melanomas alone": {"first": "accuracy"},
        "these are shares of the flagged and of the rest, not of a class": {"first": "ppv", "second": "npv"},
        "these are counts: divide each by the cases of its class": {"first": "tp", "second": "tn"},
        "the first is the share of melanomas that are not flagged; sensitivity is the rest": {"first": "fnr"},
        "the second is the share of other lesions that are flagged; specificity is the rest": {"second": "fpr"},
        "sensitivity and specificity are swapped. confusion_matrix sorts 0 before 1": {"first": "tnr", "second": "tpr"},
    },
    hint="scikit-learn's confusion_matrix(targets, called).ravel() gives tn, fp, fn, tp",
)


def _counts(n, sensitivity, specificity, prevalence, of_positives=None, of_negatives=None, order=(0, 1, 2, 3)):
    positives, negatives = n * (of_positives or prevalence), n * (of_negatives or 1 - prevalence)
    tp, tn = positives * sensitivity, negatives * specificity
    return [(tp, positives - tp, negatives - tn, tn)[place] for place in order]


natural_counts = Exercise(
    reference=_counts,
    inputs=[(10_000, 0.95, 0.64, 0.02), (1_000, 0.8, 0.9, 0.1), (200, 1.0, 0.5, 0.25)],  # every count is a whole number
    returns=("true positives", "false negatives", "false positives", "true negatives"),
    success="melanomas flagged and not flagged, other lesions flagged and not flagged: together they are all lesions",
    slips={
        "each rate is taken of all lesions: first split them by the prevalence": {"of_positives": 1.0, "of_negatives": 1.0},
        "false positives and true negatives come from the other lesions, n * (1 - prevalence)": {"of_negatives": 1.0},
        "these are shares: multiply by n": lambda n, *rates: _counts(1, *rates),
        "true positives and false negatives are swapped: the sensitivity is the share flagged": {"order": (1, 0, 2, 3)},
        "the specificity is the share of true negatives; the false positives are the rest": {"order": (0, 1, 3, 2)},
    },
)


def _ppv(sensitivity, specificity, prevalence):
    return sensitivity * prevalence / (sensitivity * prevalence + (1 - specificity) * (1 - prevalence))


ppv = Exercise(
    reference=_ppv,
    inputs=[(0.95, 0.641, 0.0176), (0.95, 0.641, 0.45), (0.8, 0.9, 0.1), (1.0, 0.5, 0.5)],
    returns="one number, the PPV",
    success="of the flagged, the share that are melanomas: it falls with the prevalence, at the same sensitivity",
    slips={
        "the false-positive rate is 1 - specificity, not the specificity": lambda se, sp, pr: _ppv(se, 1 - sp, pr),
        "it leaves out the prevalence: that is the PPV where half are melanomas": lambda se, sp, pr: _ppv(se, sp, 0.5),
        "it is in percent: a share lies between 0 and 1": lambda se, sp, pr: 100 * _ppv(se, sp, pr),
        "that is the sensitivity. PPV asks: of the flagged, how many are melanomas?": lambda se, sp, pr: se,
        "weigh false positives by the share of other lesions": lambda se, sp, pr: se * pr / (se * pr + 1 - sp),
    },
)


def _sigmoid(logit):
    return float(1 / (1 + np.exp(-logit)))


def _answer(
    pixels, parts,
    image=lambda pixels, parts: parts.prepare(pixels),
    risk=lambda logit, parts: parts.calibrate(logit),
    compared=lambda logit, parts: _sigmoid(logit),
    threshold=lambda parts: parts.threshold,
    sign=operator.ge,
):  # fmt: skip
    logit = parts.logit(image(pixels, parts))
    return risk(logit, parts), sign(compared(logit, parts), threshold(parts))


def _grey_pictures():
    """Pictures and parts; some probabilities, risks and logits are exactly a threshold, however they come about."""
    thresholds = (0.1, 0.25, 1 / (1 + np.exp(1.2)), 0.5, 0.6, 0.75, 0.95)
    for grey, threshold in itertools.product((0, 60, 96, 120, 128, 136, 150, 200, 255), thresholds):
        parts = Parts(
            prepare=lambda pixels: (np.asarray(pixels, float) - 128) / 64,
            logit=lambda image: 2.0 * float(np.mean(image)),
            calibrate=lambda logit: _sigmoid(0.7 * logit - 1.2),
            threshold=threshold,
        )
        yield np.full((2, 2, 3), grey, np.uint8), parts


whole_answer = Exercise(
    reference=_answer,
    inputs=lambda: [*_grey_pictures()],
    returns=("risk", "flagged"),
    success="prepared as in training, a risk that is calibrated, and a decision by the run's own threshold",
    hunt=True,
    slips={
        "the model gets pixels / 255: parts.prepare scales them as training did": {"image": lambda pixels, _: pixels / 255},
        "the model gets raw pixels, 0 to 255: parts.prepare scales them as training did": {"image": lambda pixels, _: pixels},
        "the sigmoid of the logit is no risk: use parts.calibrate(logit)": {"risk": lambda logit, _: _sigmoid(logit)},
        "parts.calibrate takes the logit, not the probability": {"risk": lambda logit, parts: parts.calibrate(_sigmoid(logit))},
        "the risk is compared with the threshold, which was chosen for probabilities: compare the sigmoid of the logit":
            {"compared": lambda logit, parts: parts.calibrate(logit)},
        "the threshold is 0.5, which nobody has chosen: parts.threshold is that of this run": {"threshold": lambda _: 0.5},
        "a probability equal to the threshold is not flagged: use >=": {"sign": operator.gt},
        "low probabilities are flagged: the comparison is the wrong way round": {"sign": operator.lt},
    },
    hint="The way is prepare, logit, then calibrate for the risk, and the sigmoid for the probability",
)  # fmt: skip
