"""Exercises of the threshold lesson: a threshold from a ROC curve, a formula for costs, and a report to mend."""

import operator

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks.engine import Exercise
from melanoma_lib.classroom.checks.start import rates_of


def _choose(targets, scores, sensitivity, drop=False, reaches=operator.ge, rate="tpr", pick=np.argmax, digits=12):
    """What ``roc_curve`` gives whoever reads it with these slips; ``pick`` takes one of the points that reach the target."""
    from sklearn.metrics import roc_curve

    fpr, tpr, thresholds = roc_curve(targets, scores, drop_intermediate=drop)
    return round(float(thresholds[pick(reaches({"tpr": tpr, "fpr": fpr}[rate], sensitivity))]), digits)


def _ranked(top):
    """Targets and scores up to ``top`` without ties: runs of positives between negatives, so that dropped points are missed."""
    targets = np.array([1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    scores = np.linspace(top, 0.04, targets.size).round(4) - 0.001
    order = np.random.default_rng(0).permutation(targets.size)
    return targets[order], scores[order]


choose = Exercise(
    reference=_choose,
    inputs=lambda: [(*_ranked(top), sensitivity) for top, sensitivity in ((0.97, 0.5), (0.93, 0.3), (0.89, 0.72), (0.85, 0.9))],
    returns="one number, the threshold",
    success="the highest threshold that reaches the sensitivity, among all thresholds that the cases have",
    slips={
        "it is too low: roc_curve leaves out points of the curve. See drop_intermediate in roc_curve?": {"drop": True},
        "a sensitivity that equals the one asked for is enough: use >=": {"reaches": operator.gt},
        "that is the lowest threshold, which flags every case: thresholds descend, so take the first that reaches it":
            {"pick": lambda hits: np.flatnonzero(hits)[-1]},
        "that is the threshold before: its sensitivity is still too low": {"pick": lambda hits: np.argmax(hits) - 1},
        "that is a place in the array: take the threshold there": lambda t, s, wanted: np.sum(s > _choose(t, s, wanted)) + 1,
        "the false positive rate reaches it there: roc_curve returns fpr, tpr, thresholds": {"rate": "fpr"},
        "that is a quantile: between two scores it interpolates": lambda t, s, wanted: np.quantile(s[t == 1], 1 - wanted),
        "it is rounded: round what you print, not what you use": {"digits": 2},
    },
    hint="roc_curve(..., drop_intermediate=False) has a point for every score; thresholds descend",
    tolerance=1e-9,
)  # fmt: skip

cost_threshold = Exercise(
    reference=lambda fn_cost, fp_cost: fp_cost / (fp_cost + fn_cost),
    inputs=[(20.0, 1.0), (1.0, 4.0), (50.0, 3.0)],
    returns="one number, the risk",
    success="at this risk flagging and not flagging cost the same on average; above it, flag",
    slips={
        "the ratio is upside down: the dearer a false negative, the lower the threshold": lambda fn, fp: fn / (fn + fp),
        "these are odds, 1 to 20 for example; the risk that belongs to odds o is o / (1 + o)": lambda fn, fp: fp / fn,
        "these are odds, and upside down: solve risk x fn_cost = (1 - risk) x fp_cost for the risk": lambda fn, fp: fn / fp,
        "nothing is subtracted: a true positive saves fn_cost, a false positive costs fp_cost": lambda fn, fp: fp / (fn - fp),
    },
    hint="At the right risk, risk x fn_cost and (1 - risk) x fp_cost are the same",
)


def threshold_for(sensitivity, targets, scores):
    """The highest threshold that flags this share of the melanomas."""
    melanomas = np.sort(np.asarray(scores)[np.asarray(targets) == 1])
    return float(melanomas[int((1 - sensitivity) * len(melanomas) + 1e-9)])


def _report(validation, test, target, choose_on=0, digits=12, called=operator.ge, rates_on=1, first="tpr", second="tnr"):
    samples = validation, test, pd.concat([validation, test])
    chosen, used = samples[choose_on], samples[rates_on]
    threshold = round(threshold_for(target, chosen["target"], chosen["probability"]), digits)
    rates = rates_of(used["target"] == 1, called(used["probability"], threshold))
    return threshold, rates[first], rates[second]


def _two_samples():
    """Validation and test scores, with test cases at the thresholds that the rule, or the rule rounded, chooses."""
    rng, samples = np.random.default_rng(6), []
    for n, n_melanoma, shift in ((241, 41, 0.0), (251, 51, -0.06)):
        targets = (np.arange(n) < n_melanoma).astype(int)
        scores = np.clip(rng.normal(0.3 + 0.3 * targets + shift, 0.13), 0.01, 0.99).round(7)
        samples.append(pd.DataFrame({"target": targets, "probability": scores}))
    chosen = [_report(*samples, target)[0] for target in (0.9, 0.8)]
    negatives = [*chosen, *chosen, *np.arange(20, 61) / 100]  # two to a melanoma, so that > changes the accuracy too
    ties = pd.DataFrame({"target": [1] * len(chosen) + [0] * len(negatives), "probability": [*chosen, *negatives]})
    return samples[0], pd.concat([samples[1], ties], ignore_index=True)


honest_report = Exercise(
    reference=_report,
    inputs=lambda: [(*_two_samples(), target) for target in (0.9, 0.8)],
    returns=("threshold", "sensitivity", "specificity"),
    success="chosen on validation, used as it is, and every rate counted on test",
    hunt=True,
    slips={
        "the threshold is chosen on test, where its sensitivity is then what was asked for. Choose on validation":
            {"choose_on": 1},
        "the threshold is chosen on validation and test together. Choose on validation alone": {"choose_on": 2},
        "the threshold is rounded, which moves it past cases: round what you print": {"digits": 2},
        "a score equal to the threshold counts as negative: use >=, as the rule does": {"called": operator.gt},
        "its rates are those of validation, where the threshold was chosen: report on test": {"rates_on": 0},
        "its sensitivity is the PPV: divide by the melanomas, not by what is flagged": {"first": "ppv"},
        "its specificity is the NPV: divide by the other lesions, not by what is not flagged": {"second": "npv"},
        "its specificity is the false-positive rate, 1 - specificity": {"second": "fpr"},
        "its specificity is the accuracy: count the other lesions only": {"second": "accuracy"},
        "sensitivity and specificity are swapped": {"first": "tnr", "second": "tpr"},
    },
    hint="The rule takes the highest threshold whose sensitivity on validation reaches the target",
    tolerance=1e-9,
)  # fmt: skip
