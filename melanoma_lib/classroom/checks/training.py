"""Exercises of the training lesson: how often to draw, where to start, when to stop, and a loop to mend."""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from melanoma_lib.classroom.checks.engine import Exercise, order
from melanoma_lib.classroom.checks.threshold import auroc


def _by_class(melanoma: Callable, other: Callable) -> Callable:
    """Weights from the number of cases, the melanomas among them, and the share to be drawn."""

    def compute(targets, share):
        n, m = len(targets), int(targets.sum())
        return np.where(targets == 1, melanoma(n, m, share), other(n, m, share))

    return compute


draw_weights = Exercise(
    reference=_by_class(lambda n, m, s: s / m, lambda n, m, s: (1 - s) / (n - m)),
    inputs=[
        (np.random.default_rng(n).permutation((np.arange(n) < m).astype(int)), share)
        for n, m, share in ((60, 12, 0.3), (200, 20, 0.5), (50, 30, 0.2))
    ],
    returns="weights, one a case",
    success="a case drawn is a melanoma as often as was asked for, and each melanoma is as likely as the next",
    view=lambda weights: weights / weights.sum(),
    slips={
        "that is the weight of a whole class: divide it by the cases of its class": _by_class(
            lambda n, m, s: s, lambda n, m, s: 1 - s
        ),
        "that draws half melanomas, whatever share was asked for": _by_class(lambda n, m, s: 1 / m, lambda n, m, s: 1 / (n - m)),
        "the classes are swapped": _by_class(lambda n, m, s: (1 - s) / m, lambda n, m, s: s / (n - m)),
        "all weigh alike, so melanomas come as often as they are": _by_class(lambda *_: 1.0, lambda *_: 1.0),
        "the others weigh (1 - share) / (1 - prevalence), not 1": _by_class(lambda n, m, s: s / (m / n), lambda *_: 1.0),
        "that is one weight a class: hand each case that of its class, with np.where(targets == 1, …, …)": lambda _, s: [
            1 - s,
            s,
        ],
    },
    hint="All melanomas together weigh `share` of the sum, and cases of one class weigh the same",
)

LOGIT = "The bias stands before the sigmoid: which number does the sigmoid turn into the prevalence?"
starting_bias = Exercise(
    reference=lambda prevalence: math.log(prevalence / (1 - prevalence)),
    inputs=[(0.018,), (0.111,), (0.3,), (0.8,)],
    returns="one number, the bias",
    success="sigmoid(bias) is the prevalence: the untrained model starts with the base rate, not with 50%",
    slips={
        f"that is the prevalence itself, a probability. {LOGIT}": lambda p: p,
        "these are the odds; the logit is their logarithm": lambda p: p / (1 - p),
        "the odds are upside down: the model would start by expecting melanoma almost everywhere": lambda p: math.log(
            (1 - p) / p
        ),
        "that is ln(prevalence): the logarithm of the probability, not of the odds": math.log,
        "take the natural logarithm, not that of base 10": lambda p: math.log10(p / (1 - p)),
    },
    hint=LOGIT,
)


def _stopped(scores: Sequence[float], patience: int, ties=False, reset=True, previous=False, more=0):
    """The epoch kept and the last one trained, as Lightning's EarlyStopping counts, with the faults that are asked for."""
    best, waited, compared = 1, 0, scores[0]
    for epoch, score in enumerate(scores[1:], start=2):
        if better := score >= compared if ties else score > compared:
            best, compared = epoch, score
        elif previous:
            compared = score
        waited = (0 if reset else waited) if better else waited + 1
        if waited >= patience + more:
            return best, epoch
    return best, len(scores)


def _best(scores: Sequence[float]) -> int:
    return int(np.argmax(scores)) + 1


kept_epoch = Exercise(
    reference=_stopped,
    inputs=[
        ((0.60, 0.70, 0.72, 0.71, 0.70, 0.69, 0.90), 3),
        ((0.60, 0.70, 0.70, 0.65, 0.66, 0.80), 2),
        ((0.50, 0.60, 0.55, 0.65, 0.62, 0.64, 0.63, 0.62), 3),
        ((0.80, 0.70, 0.60, 0.50), 1),
        ((0.50, 0.60, 0.55), 4),
    ],
    returns=("kept", "last"),
    success="the best epoch so far is kept, and after so many epochs without a better one there is no next",
    slips={
        "it never stops: the best of all epochs is kept, but patience is not used": lambda s, _: (_best(s), len(s)),
        "it knows the future: go through the epochs one after the other": lambda s, p: (_best(s), min(_best(s) + p, len(s))),
        "the best is looked for among all scores, those never trained too": lambda s, p: (_best(s), _stopped(s, p)[1]),
        "it keeps the last epoch: patience has run out by then": lambda s, p: (_stopped(s, p)[1],) * 2,
        "it waits one epoch too long: with a patience of 1, the first epoch that is no better is the last": {"more": 1},
        "a score above the one before it need not be the best: compare it with the best so far": {"previous": True},
        "an equal score counts as better, so that training goes on without getting better: use >": {"ties": True},
        "a better epoch does not give the patience back: start counting again at 0": {"reset": False},
    },
    finishes={
        "epochs are counted from 0; the first epoch is 1": lambda epochs: np.subtract(epochs, 1),
        "the two are swapped: first the epoch that is kept, then the last one": order(1, 0),
    },
)

EPOCHS = 4
SIZES = {"train": 40, "val": 30, "test": 20}  # different, so that a batch shows which split it is


def _head_and_splits():
    rng, splits = np.random.default_rng(12), {}
    for name, n in SIZES.items():
        y = (np.arange(n) % 3 == 0).astype(np.float32)
        x = rng.normal(size=(n, 3)) + y[:, None] * np.array([0.3, 0.6, -0.3])
        splits[name] = torch.tensor(x, dtype=torch.float32), torch.from_numpy(y)
    head = torch.nn.Sequential(torch.nn.Dropout(0.0), torch.nn.Linear(3, 1))
    with torch.no_grad():
        head[1].weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]))
        head[1].bias.zero_()
    return head, torch.optim.SGD(head.parameters(), lr=2.0), splits, EPOCHS


def _fit(
    head, optimiser, splits, epochs,
    twice=False, zero=True, learn=True, train=True, evaluate=True, grad=False, split="val", first=1,
):  # fmt: skip
    aurocs = []
    for _ in range(epochs):
        if train:
            head.train()
        x, y = splits["train"]
        logits = head(x).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(torch.sigmoid(logits) if twice else logits, y)
        if zero:
            optimiser.zero_grad()
        if learn:
            loss.backward()
            optimiser.step()
        if evaluate:
            head.eval()
        x, y = splits[split]
        with torch.set_grad_enabled(grad):
            aurocs.append(auroc(y.numpy(), head(x).detach().squeeze(1).numpy()))
    return int(np.argmax(aurocs)) + first, aurocs


def _watched(fit: Callable) -> Callable:
    """A loop that returns, beside its answer, what was seen of it at work."""

    @functools.wraps(fit)
    def run(head, optimiser, splits, epochs):
        seen = []

        def watch(module, inputs, output):
            seen.append((len(inputs[0]), module.training, torch.is_grad_enabled()))

        head.register_forward_hook(watch)
        answer = fit(head, optimiser, splits, epochs)
        try:
            best, aurocs = answer
        except (TypeError, ValueError):
            return answer
        learning = [mode for n, *mode in seen if n == SIZES["train"]]
        scoring = [mode for n, *mode in seen if n != SIZES["train"]]
        return [
            *head[1].weight.detach().ravel(),
            [False, True] in learning,
            any(n == SIZES["test"] for n, *_ in seen),
            not scoring,
            any(training for training, _ in scoring),
            any(gradients for _, gradients in scoring),
            best,
            *aurocs,
        ]

    return run


def _watched_fit(head, optimiser, splits, epochs, **faults):
    return _watched(functools.partial(_fit, **faults))(head, optimiser, splits, epochs)


_loop = Exercise(
    reference=_watched_fit,
    inputs=lambda: [_head_and_splits()],
    returns=(
        "weight 1", "weight 2", "weight 3", "learns in evaluation mode", "looks at test", "never scores val",
        "scores in training mode", "scores with gradients", "best epoch",
        *(f"AUROC of epoch {epoch}" for epoch in range(1, EPOCHS + 1)),
    ),
    success="it learns from logits, scores without dropout or gradients, chooses on validation; the test stays closed",
    hunt=True,
    slips={
        "the loss gets probabilities: binary_cross_entropy_with_logits takes the sigmoid itself": {"twice": True},
        "gradients of earlier epochs pile up: call optimiser.zero_grad() before loss.backward()": {"zero": False},
        "the head does not learn: is there a loss.backward() and an optimiser.step()?": {"learn": False},
        "it scores in training mode, with features dropped at random: call head.eval() before scoring": {"evaluate": False},
        "it learns in evaluation mode, without dropout: call head.train() at the start of every epoch": {"train": False},
        "it looks at the test split, which makes the test score too good. Choose on splits['val']": {"split": "test"},
        "it scores the training cases, which the head has learned, and never splits['val']": {"split": "train"},
        "it scores with gradients, which costs memory for nothing: put the scoring under torch.no_grad()": {"grad": True},
        "the best epoch is counted from 0; the first epoch is 1": {"first": 0},
    },
    tolerance=1e-4,
)  # fmt: skip


def training_loop(fit: Callable) -> None:
    """Watch ``fit(head, optimiser, splits, epochs)`` at work and name the first fault that is left.

    Args:
        fit: takes one step an epoch on the mean cross-entropy of all training logits; returns the best epoch, counted
            from 1, and the validation AUROC of each.

    Raises:
        NotYet: with what is wrong.
    """
    _loop(_watched(fit) if callable(fit) else fit)
