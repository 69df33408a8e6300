"""Checks of the training lesson's exercises."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from melanoma_lib.classroom.checks import not_yet, numbers, passed

PREVALENCES = (0.018, 0.111, 0.3, 0.5, 0.8)
LOGIT = "The bias stands before the sigmoid: which number does the sigmoid turn into the prevalence?"
EPOCHS, STEP = 5, 2.0
SIZES = {"train": 40, "val": 30, "test": 20}  # different, so that a batch shows which split it is


class Pass(NamedTuple):
    """What went through the head at once: of which split, how, and what came out."""

    split: str
    training: bool
    gradients: bool
    logits: np.ndarray  # (n,)


def starting_bias(compute: Callable[[float], float]) -> None:
    """Hold ``compute(prevalence)`` to the logit: the bias from which the sigmoid answers the prevalence.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    given = [numbers(compute(prevalence), 1, "one number, the bias")[0] for prevalence in PREVALENCES]
    mistakes = {
        f"that is the prevalence itself, a probability. {LOGIT}": lambda p: p,
        f"that is the accuracy of always answering benign. {LOGIT}": lambda p: 1 - p,
        "these are the odds; the logit is their logarithm": lambda p: p / (1 - p),
        "the odds are upside down, so the model would start by expecting melanoma almost everywhere: sigmoid(bias) gives "
        "1 - prevalence": lambda p: math.log((1 - p) / p),
        "that is ln(prevalence): the logarithm of the probability, not of the odds": math.log,
        "the sigmoid is e to the power of …: take the natural logarithm, not that of base 10": lambda p: math.log10(p / (1 - p)),
        "the sigmoid is e to the power of …: take the natural logarithm, not that of base 2": lambda p: math.log2(p / (1 - p)),
        "that is the sigmoid of the prevalence; what is needed is its inverse": lambda p: 1 / (1 + math.exp(-p)),
    }
    for diagnosis, mistake in mistakes.items():
        if _same(given, [mistake(prevalence) for prevalence in PREVALENCES]):
            not_yet(diagnosis)
    if len(set(given)) == 1:
        not_yet(f"it answers {given[0]:.3f} whatever the prevalence is; use the argument")
    if not _same(given, [math.log(p / (1 - p)) for p in PREVALENCES]):
        start = 1 / (1 + math.exp(-given[0]))
        not_yet(f"for a prevalence of {PREVALENCES[0]} it gives {given[0]:.3f}, from which the sigmoid makes {start:.3f}")
    passed("sigmoid(bias) is the prevalence: the untrained model starts with the base rate, not with 50%")


def training_loop(fit: Callable) -> None:
    """Watch ``fit(head, optimiser, splits, epochs)`` at work and name every fault that is left.

    Args:
        fit: trains on the whole training split once an epoch with cross-entropy on the logits; returns the best epoch, counted
            from 1, and the validation AUROC of each.

    Raises:
        NotYet: with all faults found.
    """
    import torch

    head, splits, seen = _watched_head()
    answer = fit(head, torch.optim.SGD(head.parameters(), lr=STEP), splits, EPOCHS)
    faults = [*_faults_of_learning(head, seen), *_faults_of_scoring(seen), *_faults_of_answer(answer, splits, seen)]
    if faults:
        count = "one fault is" if len(faults) == 1 else f"{len(faults)} faults are"
        not_yet(f"{count} left:\n" + "\n".join(f"  · {fault}" for fault in faults))
    passed(
        "it learns from logits, scores without dropout or gradients, and chooses its epoch on validation; the test stays closed"
    )


def _watched_head():
    """A small head on small splits, and a list that fills with what passes through it."""
    import torch

    rng, seen = np.random.default_rng(12), []
    head = torch.nn.Sequential(torch.nn.Dropout(0.0), torch.nn.Linear(3, 1))
    with torch.no_grad():
        head[1].weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]))
        head[1].bias.zero_()
    splits = {}
    for name, n in SIZES.items():
        y = (np.arange(n) % 3 == 0).astype(np.float32)
        x = rng.normal(size=(n, 3)) + y[:, None] * np.array([0.3, 0.6, -0.3])
        splits[name] = torch.tensor(x, dtype=torch.float32), torch.from_numpy(y)

    def watch(module, inputs, output):
        name = next((split for split, n in SIZES.items() if n == len(inputs[0])), "train")
        seen.append(Pass(name, module.training, torch.is_grad_enabled(), output.detach().numpy().ravel().copy()))

    head.register_forward_hook(watch)
    return head, splits, seen


def _faults_of_learning(head, seen: list[Pass]) -> list[str]:
    weights = head[1].weight.detach().numpy().ravel()
    faults = []
    if not np.allclose(weights, _learned(), atol=1e-4):
        if np.allclose(weights, _learned(epochs=0), atol=1e-4):
            faults.append(
                "the head does not learn: its weights are as they were; loss.backward() and optimiser.step() are missing"
            )
        elif np.allclose(weights, _learned(twice=True), atol=1e-4):
            faults.append(
                "the loss gets probabilities: binary_cross_entropy_with_logits takes the sigmoid itself, and a second one "
                "flattens all gradients. It runs, and it learns badly"
            )
        elif np.allclose(weights, _learned(keep=True), atol=1e-4):
            faults.append("gradients of earlier epochs pile up: call optimiser.zero_grad() before loss.backward()")
        elif np.allclose(weights, _learned(keep=True, twice=True), atol=1e-4):
            faults += ["the loss gets probabilities, and takes the sigmoid itself", "optimiser.zero_grad() is missing"]
        else:
            faults.append(
                "the head does not become what one step an epoch on the mean cross-entropy of the training logits makes of it"
            )
    if any(one.split == "train" and one.gradients and not one.training for one in seen):
        faults.append("it learns in evaluation mode, without dropout: call head.train() at the start of every epoch")
    return faults


def _faults_of_scoring(seen: list[Pass]) -> list[str]:
    faults, scoring = [], [one for one in seen if one.split != "train"]
    if any(one.split == "test" for one in seen):
        faults.append("it looks at the test split: an epoch chosen there makes the test score too good. Choose on splits['val']")
    if not scoring:
        faults.append("it never scores splits['val']")
    if any(one.training for one in scoring):
        faults.append("it scores in training mode, with features dropped at random: call head.eval() before scoring")
    if any(one.gradients for one in scoring):
        faults.append("it scores with gradients, which costs memory for nothing: put the scoring under torch.no_grad()")
    return faults


def _faults_of_answer(answer: Any, splits: dict, seen: list[Pass]) -> list[str]:
    try:
        best, aurocs = answer
        best, aurocs = int(best), [float(auroc) for auroc in aurocs]
    except (TypeError, ValueError):
        return [f"it returns {answer!r}; expected the best epoch and the AUROC of each epoch"]
    if len(aurocs) != EPOCHS:
        return [f"it returns {len(aurocs)} AUROCs for {EPOCHS} epochs"]
    faults, wanted = _faults_of_aurocs(aurocs, splits, seen), int(np.argmax(aurocs)) + 1
    if best == wanted - 1:
        faults.append("the best epoch is counted from 0; the first epoch is 1")
    elif best != wanted:
        faults.append(f"it calls epoch {best} the best, the highest of its AUROCs is that of epoch {wanted}")
    return faults


def _faults_of_aurocs(aurocs: list[float], splits: dict, seen: list[Pass]) -> list[str]:
    """Hold the AUROCs to those of what the head answered on validation; where it was not asked, that is told already."""
    from melanoma_lib.evaluation import OperatingCurve

    y = {name: targets.numpy() for name, (_, targets) in splits.items()}
    val, train = ([one.logits for one in seen if one.split == name] for name in ("val", "train"))
    scored = [OperatingCurve(y["val"], logits).auroc for logits in val]
    if not val or _in_order(aurocs, scored):
        return []
    mistakes = {
        "its AUROCs are those of the training cases, which the head has learned; return those of splits['val']": [
            OperatingCurve(y["train"], logits).auroc for logits in train if len(logits) == len(y["train"])
        ],
        "its AUROCs are upside down: 1 - AUROC is that of the negated logits; the higher the logit, the likelier melanoma": [
            1 - auroc for auroc in scored
        ],
        "its AUROCs are those of decisions: rank by the logits themselves, not by which are above 0": [
            OperatingCurve(y["val"], logits > 0).auroc for logits in val
        ],
        "it returns accuracies, which a rare class flatters; return the AUROC of splits['val'] in each epoch": [
            float(np.mean((logits > 0) == (y["val"] == 1))) for logits in val
        ],
    }
    for diagnosis, mistaken in mistakes.items():
        if _in_order(aurocs, mistaken):
            return [diagnosis]
    if impossible := [auroc for auroc in aurocs if not 0 <= auroc <= 1]:
        return [f"it returns {impossible[0]:.3g} as an AUROC, which lies between 0 and 1; score the logits of splits['val']"]
    return [
        "its AUROCs are not those of the logits that the head gave on splits['val']: it returns "
        f"{', '.join(f'{auroc:.4f}' for auroc in aurocs)}, the logits give {', '.join(f'{auroc:.4f}' for auroc in scored)}"
    ]


def _in_order(given: list[float], seen: list[float]) -> bool:
    """Whether all of one are among the other in their order: a loop may score more often than it must."""
    rest = iter(seen)
    return all(any(abs(one - other) < 1e-6 for other in rest) for one in given)


def _learned(epochs: int = EPOCHS, twice: bool = False, keep: bool = False) -> np.ndarray:
    """Weights after plain gradient descent, with a second sigmoid or gradients that pile up on request."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    head, splits, _ = _watched_head()
    optimiser, (x, y) = torch.optim.SGD(head.parameters(), lr=STEP), splits["train"]
    for _ in range(epochs):
        if not keep:
            optimiser.zero_grad()
        logits = head(x).squeeze(1)
        binary_cross_entropy_with_logits(torch.sigmoid(logits) if twice else logits, y).backward()
        optimiser.step()
    return head[1].weight.detach().numpy().ravel()


def _same(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) < 1e-4 for a, b in zip(one, other, strict=True))
