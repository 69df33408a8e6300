"""Exercises of the threshold lesson: four counts, two formulas, and a report to mend."""

import operator

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks.engine import Exercise, order

# All four counts differ, at 0.5 too, and a melanoma and two others score exactly 0.35.
TARGETS = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
SCORES = np.array([0.9, 0.8, 0.6, 0.55, 0.35, 0.1, 0.7, 0.35, 0.35, 0.3, 0.3, 0.25, 0.2, 0.1, 0.05, 0.0])


def _count(targets, scores, cut, called=operator.ge):
    called, melanoma = called(scores, cut), targets == 1
    return [int(cell.sum()) for cell in (called & melanoma, called & ~melanoma, ~called & ~melanoma, ~called & melanoma)]


counting = Exercise(
    reference=_count,
    inputs=[(TARGETS, SCORES, cut) for cut in (0.35, 0.65, 0.2)],
    returns=("tp", "fp", "tn", "fn"),
    success="all four cells, with a score equal to the threshold on the positive side",
    slips={
        "a case whose score equals the threshold is called melanoma: use >=, not >. A threshold is often the score of a "
        "melanoma, and > loses that very melanoma": {"called": operator.gt},
        "it always cuts at 0.5: use the third argument": {"called": lambda scores, _: scores >= 0.5},
        "low scores are called melanoma: the comparison is the wrong way round": {"called": operator.le},
    },
    finishes={
        "fp and fn are swapped: fp is a lesion called melanoma that is none, fn a missed melanoma": order(0, 3, 2, 1),
        "the counts are right, their order is not: tp, fp, tn, fn was asked for, and this is tn, fp, fn, tp, as scikit-learn's "
        "confusion_matrix(...).ravel() has it": order(2, 1, 3, 0),
        "tp and tn are swapped: tp are the melanomas called melanoma": order(2, 1, 0, 3),
        "these are shares; counts of cases are whole numbers: do not divide yet": lambda counts: np.divide(counts, 16),
    },
    hint="The four add up to 16",
)

cost_threshold = Exercise(
    reference=lambda fn_cost, fp_cost: fp_cost / (fp_cost + fn_cost),
    inputs=[(20.0, 1.0), (1.0, 4.0), (50.0, 3.0)],
    returns="one number, the risk",
    success="at this risk an alarm and an all-clear cost the same; above it, flag",
    slips={
        "the ratio is upside down: the dearer a missed melanoma, the lower must the risk be at which you act": (
            lambda fn, fp: fn / (fn + fp)
        ),
        "these are odds, 1 to 20 for example; the risk that belongs to odds o is o / (1 + o)": lambda fn, fp: fp / fn,
        "these are odds, and upside down: solve risk x fn_cost = (1 - risk) x fp_cost for the risk": lambda fn, fp: fn / fp,
        "that is 0.5 whatever the costs; it is right only where both errors cost the same": lambda fn, fp: 0.5,
        "nothing is subtracted: an alarm on a melanoma saves fn_cost, another costs fp_cost": lambda fn, fp: fp / (fn - fp),
    },
    hint="At the right risk, risk x fn_cost and (1 - risk) x fp_cost are the same",
)


def odds(share):
    """Odds of a share."""
    return share / (1 - share)


def share(odds):
    """Share that belongs to odds."""
    return odds / (1 + odds)


carried_ppv = Exercise(
    reference=lambda ppv, here, there: odds(ppv) * odds(there) / odds(here),
    finish=share,
    inputs=[(0.40, 0.19, 0.0176), (0.70, 0.10, 0.45), (0.3, 0.25, 0.05)],
    returns="one number, the PPV",
    success="an alarm multiplies the odds by one factor; what it starts from is the place",
    slips={
        "it reports the PPV of here as that of there: that holds only where the prevalence is the same": lambda p, a, b: odds(p),
        "the PPV is scaled by the ratio of prevalences, which can exceed 1: scale its odds": lambda p, a, b: odds(p * b / a),
        "upside down: where melanoma is rarer, the PPV must be lower": lambda p, a, b: odds(p) * odds(a) / odds(b),
        "the PPV is in odds, but the prevalences are not: use odds for both": lambda p, a, b: odds(p) * b / a,
        "the prevalences are in odds, but the PPV is not: use ppv / (1 - ppv)": lambda p, a, b: p * odds(b) / odds(a),
    },
    finishes={"that is the odds, not yet the share: o / (1 + o)": lambda odds: odds},
)


def threshold_for(sensitivity, targets, scores):
    """The highest threshold that finds this share of the melanomas."""
    melanomas = np.sort(np.asarray(scores)[np.asarray(targets) == 1])
    return float(melanomas[int((1 - sensitivity) * len(melanomas) + 1e-9)])


def auroc(targets, scores):
    """AUROC by counting pairs; a tie counts half."""
    melanomas, others = scores[targets == 1], scores[targets == 0]
    return float((np.sign(melanomas[:, None] - others) + 1).mean() / 2)


def _report(validation, test, target, choose_on=0, digits=12, called=operator.ge, rates_on=1, first="tpr", second="tnr"):
    samples = validation, test, pd.concat([validation, test])
    chosen, used = samples[choose_on], samples[rates_on]
    cut = round(threshold_for(target, chosen["target"], chosen["probability"]), digits)
    tp, fp, tn, fn = _count(used["target"], used["probability"], cut, called)
    rates = {"tpr": tp / (tp + fn), "ppv": tp / (tp + fp), "tnr": tn / (tn + fp), "npv": tn / (tn + fn)}
    rates |= {"fpr": fp / (tn + fp), "accuracy": (tp + tn) / len(used)}
    return cut, rates[first], rates[second]


def _two_samples():
    """Validation and test scores, with test cases at the thresholds that the rule, or the rule rounded, chooses."""
    rng, samples = np.random.default_rng(6), []
    for n, n_melanoma, shift in ((241, 41, 0.0), (251, 51, -0.06)):
        targets = (np.arange(n) < n_melanoma).astype(int)
        scores = np.clip(rng.normal(0.3 + 0.3 * targets + shift, 0.13), 0.01, 0.99).round(7)
        samples.append(pd.DataFrame({"target": targets, "probability": scores}))
    chosen = [_report(*samples, target)[0] for target in (0.9, 0.8)]
    others = [*chosen, *chosen, *np.arange(20, 61) / 100]  # two others to a melanoma, so that > changes the accuracy too
    ties = pd.DataFrame({"target": [1] * len(chosen) + [0] * len(others), "probability": [*chosen, *others]})
    return samples[0], pd.concat([samples[1], ties], ignore_index=True)


_ROUNDED = "that moves it past cases, and past the sensitivity it was chosen for. Round what you print"
honest_report = Exercise(
    reference=_report,
    inputs=lambda: [(*_two_samples(), target) for target in (0.9, 0.8)],
    returns=("threshold", "sensitivity", "specificity"),
    success="chosen on validation, used as it is, and every rate counted on test",
    hunt=True,
    slips={
        "the threshold is chosen on the test cases, so the sensitivity it reports there is what was asked for, however bad the "
        "model is. Choose on validation": {"choose_on": 1},
        "the threshold is chosen on validation and test together. Choose on validation alone": {"choose_on": 2},
        **{f"the threshold is rounded to {n} digits: {_ROUNDED}": {"digits": n} for n in (1, 2, 3, 4)},
        "a score equal to the threshold counts as negative: use >=, as the rule that chose the threshold does": {
            "called": operator.gt
        },
        "its rates are those of validation, where the threshold was chosen: report on test": {"rates_on": 0},
        "its sensitivity is the PPV: divide by the melanomas, not by the alarms": {"first": "ppv"},
        "its specificity is the NPV: divide by the other lesions, not by the all-clears": {"second": "npv"},
        "its specificity is the false-positive rate, 1 - specificity": {"second": "fpr"},
        "its specificity is the accuracy: count the other lesions only": {"second": "accuracy"},
        "sensitivity and specificity are swapped": {"first": "tnr", "second": "tpr"},
    },
    hint="The rule takes the highest threshold whose sensitivity on validation reaches the target",
    tolerance=1e-9,
)
