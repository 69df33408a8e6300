"""What the training lesson asks about drawing and stopping is checked against torch's sampler and Lightning's callback."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import EarlyStopping

from melanoma_lib.classroom import checks_recipe as checks
from melanoma_lib.classroom.checks import NotYet


def weights(melanoma, other):
    """Weights of the two classes, from cases, melanomas and share."""

    def compute(targets, share):
        n, m = len(targets), int(targets.sum())
        return np.where(targets == 1, melanoma(n, m, share), other(n, m, share))

    return compute


right_weights = weights(lambda n, m, share: share / m, lambda n, m, share: (1 - share) / (n - m))

WRONG_WEIGHTS = {
    "nothing": (lambda targets, share: None, "got shape"),
    "words": (lambda targets, share: "heavy", "expected weights"),
    "one a class": (lambda targets, share: [1 - share, share], "one a case, not one a class"),
    "negative": (lambda targets, share: share - targets, "numbers from 0"),
    "uneven": (lambda targets, share: np.arange(len(targets)) + 1.0, "no reason"),
    "undivided": (weights(lambda n, m, s: s, lambda n, m, s: 1 - s), "brings it along"),
    "even classes": (weights(lambda n, m, s: 1 / m, lambda n, m, s: 1 / (n - m)), "half melanomas"),
    "swapped": (weights(lambda n, m, s: (1 - s) / m, lambda n, m, s: s / (n - m)), "classes are swapped"),
    "plain": (lambda targets, share: np.ones(len(targets)), "as often as they are"),
    "others stay": (weights(lambda n, m, s: s / (m / n), lambda n, m, s: 1), "still weigh 1"),
    "multiplied": (weights(lambda n, m, s: s * m, lambda n, m, s: (1 - s) * (n - m)), "by its own cases"),
    "crossed": (weights(lambda n, m, s: s / (n - m), lambda n, m, s: (1 - s) / m), "by its own cases"),
    "a fixed weight": (weights(lambda n, m, s: 3, lambda n, m, s: 1), "was asked for"),
}


@pytest.mark.parametrize("factor", [1, 1000])
def test_weights_of_any_sum_pass_and_draw_what_they_promise(factor, capsys):
    checks.draw_weights(lambda targets, share: factor * right_weights(targets, share))
    assert capsys.readouterr().out.startswith("✓")
    targets = np.arange(500) < 40
    sampler = torch.utils.data.WeightedRandomSampler(
        right_weights(targets, 0.3), 40_000, generator=torch.Generator().manual_seed(0)
    )
    assert targets[list(sampler)].mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_wrong_weights_are_diagnosed(name):
    wrong, diagnosis = WRONG_WEIGHTS[name]
    with pytest.raises(NotYet, match=diagnosis):
        checks.draw_weights(wrong)


def by_lightning(scores, patience):
    """What Lightning's own callback does, epoch by epoch."""
    stopping = EarlyStopping("score", patience=patience, mode="max", verbose=False)
    best, highest = 0, -np.inf
    for epoch, score in enumerate(scores, start=1):
        if score > highest:
            best, highest = epoch, score
        stop, _ = stopping._evaluate_stopping_criteria(torch.tensor(score))
        if stop:
            return best, epoch
    return best, len(scores)


def test_the_rule_is_lightnings(capsys):
    checks.kept_epoch(by_lightning)
    assert capsys.readouterr().out.startswith("✓")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.5, 0.6, 0.7, 0.8]), min_size=1, max_size=12), st.integers(1, 5))
def test_the_checks_own_rule_is_lightnings_on_any_course(scores, patience):
    assert checks._stopped(scores, patience) == by_lightning(scores, patience)


def loop(better=lambda score, best, previous: score > best, spare=0, reset=True):
    """The loop that readers write, with knobs for its faults."""

    def choose(scores, patience):
        best, waited = 0, 0
        for epoch in range(1, len(scores)):
            if better(scores[epoch], scores[best], scores[epoch - 1]):
                best, waited = epoch, 0 if reset else waited
            else:
                waited += 1
            if waited >= patience + spare:
                return best + 1, epoch + 1
        return best + 1, len(scores)

    return choose


def waits_on_the_previous(scores, patience):
    waited = 0
    for epoch in range(1, len(scores)):
        waited = 0 if scores[epoch] > scores[epoch - 1] else waited + 1
        if waited == patience:
            break
    return int(np.argmax(scores[: epoch + 1])) + 1, epoch + 1


def changed(change):
    return lambda scores, patience: change(*loop()(scores, patience))


WRONG_EPOCHS = {
    "nothing": (lambda scores, patience: None, "expected two epochs"),
    "one": (lambda scores, patience: 3, "expected two epochs"),
    "all epochs": (lambda scores, patience: (int(np.argmax(scores)) + 1, len(scores)), "patience is not used"),
    "hindsight": (lambda s, patience: (b := int(np.argmax(s)) + 1, min(b + patience, len(s))), "knows the future"),
    "best of all": (lambda s, patience: (int(np.argmax(s)) + 1, loop()(s, patience)[1]), "never trained too"),
    "from 0": (changed(lambda best, last: (best - 1, last - 1)), "epochs are counted from 0"),
    "best from 0": (changed(lambda best, last: (best - 1, last)), "best epoch is counted from 0"),
    "last from 0": (changed(lambda best, last: (best, last - 1)), "last epoch is counted from 0"),
    "too patient": (loop(spare=1), "one epoch too long"),
    "the last": (changed(lambda best, last: (last, last)), "keeps the last epoch"),
    "swapped": (changed(lambda best, last: (last, best)), "the two are swapped"),
    "ties": (loop(lambda score, best, previous: score >= best), "use >"),
    "previous": (waits_on_the_previous, "worse than the one before"),
    "above the previous": (loop(lambda score, best, previous: score > previous), "need not be the best"),
    "no reset": (loop(reset=False), "does not give the patience back"),
    "lowest": (loop(lambda score, best, previous: score < best), "right for a loss"),
    "any": (lambda scores, patience: (1, 1), "expected to keep 3 and to stop after 6"),
}


def test_the_readers_loop_passes(capsys):
    checks.kept_epoch(loop())
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize("name", WRONG_EPOCHS)
def test_wrong_epochs_are_diagnosed(name):
    wrong, diagnosis = WRONG_EPOCHS[name]
    with pytest.raises(NotYet, match=diagnosis):
        checks.kept_epoch(wrong)
