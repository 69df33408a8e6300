"""The checks of the training lesson pass what is right and name what is wrong."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from melanoma_lib.classroom import checks_training
from melanoma_lib.classroom.checks import NotYet


@pytest.mark.parametrize(
    "right", [lambda p: math.log(p / (1 - p)), lambda p: torch.logit(torch.tensor(p)), lambda p: -np.log(1 / p - 1)]
)
def test_the_logit_passes(right, capsys):
    checks_training.starting_bias(right)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda p: p, "prevalence itself"),
        (lambda p: 1 - p, "accuracy"),
        (lambda p: p / (1 - p), "logarithm"),
        (lambda p: math.log((1 - p) / p), "upside down"),
        (math.log, "not of the odds"),
        (lambda p: math.log10(p / (1 - p)), "base 10"),
        (lambda p: math.log2(p / (1 - p)), "base 2"),
        (lambda p: 1 / (1 + math.exp(-p)), "inverse"),
        (lambda p: -2.0, "whatever the prevalence"),
        (lambda p: 0.9 * math.log(p / (1 - p)), "the sigmoid makes"),
        (lambda p: None, "does your function return something"),
        (lambda p: "logit", "expected one number"),
    ],
)
def test_wrong_biases_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks_training.starting_bias(wrong)


def loop(*faults: str):
    """A training loop with the faults that are asked for."""

    def fit(head, optimiser, splits, epochs):
        aurocs = []
        if "mode once" in faults:
            head.train()
        for _ in range(epochs):
            x, y = splits["train"]
            if "mode once" not in faults:
                head.train()
            logits = head(x).squeeze(1)
            if "sigmoid" in faults:
                logits = torch.sigmoid(logits)
            if "square" in faults:
                loss = ((torch.sigmoid(logits) - y) ** 2).mean()
            else:
                loss = F.binary_cross_entropy_with_logits(logits, y)
            if "zero" not in faults:
                optimiser.zero_grad()
            if "still" not in faults:
                loss.backward()
                optimiser.step()
            if "scored before" in faults or "train for val" in faults:
                head.eval()
                with torch.no_grad():
                    head(splits["val"][0])
            x, y = splits["test" if "test" in faults else "train" if {"no val", "train for val"} & set(faults) else "val"]
            if "mode" not in faults:
                head.eval()
            with torch.set_grad_enabled("gradients" in faults):
                scores = head(x).detach().squeeze(1)
            scores = -scores if "negated" in faults else (scores > 0).float() if "decisions" in faults else scores
            aurocs.append(roc_auc_score(y, scores))
            if "accuracy" in faults:
                aurocs[-1] = float(((scores > 0) == (y == 1)).float().mean())
            elif "loss" in faults:
                aurocs[-1] = -3.0 - len(aurocs)
            elif "constant" in faults:
                aurocs[-1] = 0.9
            elif "not a number" in faults:
                aurocs[-1] = math.nan
        best = int(np.argmax(aurocs)) + 1
        if "from 0" in faults:
            best -= 1
        if "last" in faults:
            best = 1 + int(np.argmin(aurocs))
        if "one" in faults:
            return best
        return best, aurocs[1:] if "short" in faults else aurocs

    return fit


@pytest.mark.parametrize("more", [(), ("scored before",)])
def test_the_right_loop_passes(more, capsys):
    checks_training.training_loop(loop(*more))
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("fault", "diagnosis"),
    [
        ("sigmoid", "gets probabilities"),
        ("zero", "pile up"),
        ("still", "does not learn"),
        ("square", "mean cross-entropy"),
        ("mode", "training mode"),
        ("mode once", "every epoch"),
        ("gradients", "no_grad"),
        ("test", "test split"),
        ("no val", "never scores"),
        ("from 0", "counted from 0"),
        ("last", "the best, the highest"),
        ("one", "expected the best epoch"),
        ("short", "4 AUROCs for 5"),
        ("train for val", "those of the training cases"),
        ("negated", "upside down"),
        ("decisions", "those of decisions"),
        ("accuracy", "accuracies"),
        ("loss", "-4 as an AUROC, which lies between 0 and 1"),
        ("not a number", "nan as an AUROC"),
        ("constant", "not those of the logits"),
    ],
)
def test_each_fault_is_named_alone(fault, diagnosis):
    with pytest.raises(NotYet, match=diagnosis) as caught:
        checks_training.training_loop(loop(fault))
    assert str(caught.value).startswith("one fault is left")


def test_the_colleagues_loop_has_its_faults_named_together():
    with pytest.raises(NotYet) as caught:
        checks_training.training_loop(loop("sigmoid", "mode", "gradients", "test"))
    for words in ("4 faults", "gets probabilities", "training mode", "no_grad", "test split"):
        assert words in str(caught.value)


def test_a_function_that_fails_fails_as_itself():
    with pytest.raises(ZeroDivisionError):
        checks_training.training_loop(lambda *_: 1 / 0)
