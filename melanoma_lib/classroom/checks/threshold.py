"""Exercises of the threshold lesson: a threshold from a ROC curve, a formula for costs, and a report to mend."""

import operator

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from melanoma_lib.classroom.checks.engine import Exercise
from melanoma_lib.classroom.checks.start import rates_of


def threshold_for(targets, scores, sensitivity, drop=False, reaches=operator.ge, pick=np.argmax):
    """The highest threshold that reaches a sensitivity."""
    _, tpr, thresholds = roc_curve(targets, scores, drop_intermediate=drop)
    return thresholds[pick(reaches(tpr, sensitivity))]


def _report(validation, test, target, choose_on=0, digits=12, called=operator.ge, **rates):
    chosen = (validation, test)[choose_on]
    threshold = round(threshold_for(chosen["target"], chosen["probability"], target), digits)
    return threshold, *rates_of(test["target"], called(test["probability"], threshold), **rates)


def _scored(n, shift):
    targets = (np.arange(n) % 5 == 0).astype(int)
    scores = np.random.default_rng(n).normal(0.3 + 0.3 * targets + shift, 0.13).clip(0.01, 0.99)
    return pd.DataFrame({"target": targets, "probability": (200 * scores).round() / 200})


VALIDATION, TEST = _scored(240, 0.0), _scored(250, -0.06)

choose = Exercise(
    reference=threshold_for,
    inputs=[(*VALIDATION.to_numpy().T, wanted) for wanted in (*np.arange(4, 16) / 16, 0.9)],
    success="the highest threshold that reaches the sensitivity, among all thresholds that the cases have",
    slips={
        "it is too low: roc_curve leaves out points of the curve. See drop_intermediate in roc_curve?": {"drop": True},
        "a sensitivity that equals the one asked for is enough: use >=": {"reaches": operator.gt},
        "that flags every case: thresholds descend, take the first that reaches it": {"pick": lambda hits: -1},
    },
)

cost_threshold = Exercise(
    reference=lambda fn_cost, fp_cost, of=lambda fn, fp: fp / (fp + fn): of(fn_cost, fp_cost),
    inputs=[(20.0, 1.0), (1.0, 4.0), (50.0, 3.0)],
    success="at this risk flagging and not flagging cost the same on average; above it, flag",
    slips={
        "it is upside down: the dearer a false negative, the lower it is": {"of": lambda fn, fp: fn / (fn + fp)},
        "these are odds, as 1 to 20; the risk that belongs to odds o is o / (1 + o)": {"of": lambda fn, fp: fp / fn},
    },
)

honest_report = Exercise(
    reference=_report,
    inputs=[(VALIDATION, TEST, target) for target in (0.9, 0.8, 0.7)],
    names="threshold, sensitivity, specificity",
    success="chosen on validation, used as it is, and every rate counted on test",
    slips={
        "the threshold is chosen on test, where it reaches what was asked for. Choose on validation": {"choose_on": 1},
        "the threshold is rounded, which moves it past cases: round what you print": {"digits": 2},
        "a score equal to the threshold counts as negative: use >=, as the rule does": {"called": operator.gt},
        "its specificity is the NPV: divide by the other lesions, not by what is not flagged": {"second": "npv"},
    },
)
