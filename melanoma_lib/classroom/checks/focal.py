"""Exercises of the focal-loss lesson: the loss, a probe for other people's losses, the decoder, and weights of a sampler."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from melanoma_lib import losses
from melanoma_lib.classroom.checks.engine import Exercise, ask, not_yet
from melanoma_lib.classroom.checks.threshold import odds, share

SETTINGS = ((0.25, 2.0), (0.8, 1.0), (0.6, 0.5))  # alpha and gamma
LOGITS = 1.5 * torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
TARGETS = (torch.arange(12) % 3 == 0).double()


def _p_t(logits, targets):
    p = torch.sigmoid(logits)
    return torch.where(targets == 1, p, 1 - p)


def _each(logits, targets, alpha, gamma, factor=None, weight=None):
    """Focal loss of each case as the formula stands, with another factor or weight on request."""
    p_t = _p_t(logits, targets)
    weight = torch.where(targets == 1, alpha, 1 - alpha) if weight is None else weight
    return -weight * ((1 - p_t) ** gamma if factor is None else factor) * torch.log(p_t)


def _mean_too_early(logits, targets, alpha, gamma):
    mean = F.binary_cross_entropy_with_logits(logits, targets)
    return torch.where(targets == 1, alpha, 1 - alpha) * (1 - torch.exp(-mean)) ** gamma * mean


def _look_closer(compute: Callable) -> None:
    """The gradient, and logits at which a sigmoid is 0 or 1."""
    for alpha, gamma in SETTINGS:
        mine, right = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
        loss = ask(compute, mine, TARGETS, alpha, gamma, copies=False)
        if not getattr(loss, "requires_grad", False):
            not_yet("its result has no gradient: stay with torch from the logits to the loss, without .item(), numpy or no_grad")
        loss.backward()
        losses.focal_loss(right, TARGETS, alpha, gamma).backward()
        if mine.grad is None or not torch.allclose(mine.grad, right.grad, atol=1e-6):
            not_yet("the values are right, the gradient is not: the modulating factor must not be detached, it learns as well")
    for gamma, target, value in itertools.product((2.0, 0.5), (1.0, 0.0), (-100.0, -30.0, 0.0, 30.0, 100.0)):
        logit, targets = torch.tensor([value], requires_grad=True), torch.tensor([target])
        loss = ask(compute, logit, targets, 0.25, gamma, copies=False)
        loss.backward()
        right = float(losses.focal_loss(torch.tensor([value]), targets, 0.25, gamma))
        where = f"a case with target {target:.0f}, logit {value:+.0f} and gamma {gamma} has a"
        if not torch.isfinite(loss):
            not_yet(f"{where} loss of {loss.item()}: the sigmoid has become 0 or 1. Use F.logsigmoid for ln p_t")
        if not torch.isfinite(logit.grad).all():
            not_yet(
                f"{where} gradient of {float(logit.grad)}: a power or logarithm of 0 was differentiated. Write (1 - p_t)^gamma "
                "as exp(gamma * ln(1 - p_t)), with F.logsigmoid once more"
            )
        if not math.isclose(loss.item(), right, rel_tol=1e-3, abs_tol=1e-12):
            not_yet(
                f"{where} loss of {loss.item():.4g}, not {right:.4g}: what is in the logarithm must not be clamped or added to"
            )


focal_loss = Exercise(
    reference=_each,
    finish=lambda each: each.mean(),
    inputs=[(LOGITS, TARGETS, alpha, gamma) for alpha, gamma in SETTINGS],
    returns="a tensor with one number, the mean over the cases",
    success="right in value and gradient, and finite at logits of ±100, for gamma below 1 too",
    slips={
        "alpha is on the wrong class: it weighs the melanomas": lambda z, y, a, g: _each(z, y, 1 - a, g),
        "alpha weighs every case alike: the other lesions weigh 1 - alpha": lambda z, y, a, g: _each(z, y, a, g, weight=a),
        "alpha has no effect: melanomas weigh alpha, other lesions 1 - alpha": lambda z, y, a, g: _each(z, y, a, g, weight=1),
        "gamma has no effect: this is weighted cross-entropy": lambda z, y, a, g: _each(z, y, a, 0.0),
        "that is cross-entropy, without alpha and gamma": lambda z, y, a, g: _each(z, y, a, 0.0, weight=1),
        "the factor is (1 - p_t)^gamma, not p_t^gamma": lambda z, y, a, g: _each(z, y, a, g, factor=_p_t(z, y) ** g),
        "the factor is (1 - p)^gamma for both classes; for the other lesions 1 - p_t is p": (
            lambda z, y, a, g: _each(z, y, a, g, factor=torch.sigmoid(-z) ** g)
        ),
        "the other lesions cost nothing: their term is missing": lambda z, y, a, g: _each(z, y, a, g) * y,
        "the sigmoid is taken twice: the loss takes it itself": lambda z, y, a, g: _each(torch.sigmoid(z), y, a, g),
        "the mean is taken too early: modulate each case first (reduction='none'), then average": _mean_too_early,
    },
    finishes={
        "the sign is wrong: a logarithm of p_t is negative, a loss is not": lambda each: -each.mean(),
        "that is the sum over the cases; training needs their mean": lambda each: each.sum(),
        "that is a loss for each case; training needs one number, their mean": lambda each: each,
    },
    after=_look_closer,
)


def _black_box(alpha: float, melanoma_gamma: float, other_gamma: float, balanced: bool = False) -> Callable:
    """A focal loss whose classes may differ in gamma; ``balanced`` keeps their losses at p = 1/2 in the ratio of the weights."""

    def loss(logits, targets):
        melanoma = targets == 1
        signed = torch.where(melanoma, logits, -logits)
        gamma = torch.where(melanoma, melanoma_gamma, other_gamma)
        weight = torch.where(melanoma, alpha, 1 - alpha) * (2**gamma if balanced else 1)
        return (-weight * torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)).mean()

    loss.truth = (alpha, melanoma_gamma, other_gamma)
    return loss


def _own_gammas(read: Callable) -> None:
    gammas = tuple(round(float(gamma), 4) for gamma in ask(read, _black_box(0.6, 3.0, 0.5, balanced=True))[1:])
    if gammas == (0.5, 3.0):
        not_yet("the two gammas are swapped: melanomas first, then other lesions")
    if gammas != (3.0, 0.5):
        not_yet("the classes may differ in gamma: read each off two losses of its own class, so that any weight cancels")


_FACTOR = "comes out negative: the factor is (1 - p_t), not p_t, to its power"
probe = Exercise(
    reference=lambda loss, alpha=lambda a, g: a: (alpha(*loss.truth[:2]), *loss.truth[1:]),
    inputs=[(_black_box(alpha, gamma, gamma),) for alpha, gamma in ((0.25, 2.0), (0.8, 1.0), (0.4, 0.5), (0.7, 1.5))],
    returns=("alpha", "gamma of melanomas", "gamma of other lesions"),
    success="alpha and both gammas can be read off any loss, without looking at its code",
    slips={
        "alpha is read off the other lesions: it is the weight of the melanomas": {"alpha": lambda a, g: 1 - a},
        "alpha is the melanomas' share of both weights, not the ratio of the two": {"alpha": lambda a, g: odds(a)},
        "its alpha is a melanoma's loss at logit 0, which holds gamma too. Divide by the sum of both classes' losses there": {
            "alpha": lambda a, g: a * 0.5**g * math.log(2)
        },
    },
    finishes={
        f"the gamma of the melanomas {_FACTOR}": lambda read: (read[0], -read[1], read[2]),
        f"the gamma of the other lesions {_FACTOR}": lambda read: (read[0], read[1], -read[2]),
    },
    after=_own_gammas,
    hint="For alpha, compare the two classes where p is 1/2; for gamma, look for a ratio of losses that leaves the power alone",
)


def _slope(p: float, gamma: float, sign: int = 1) -> float:
    """A of the decoder at p, B at 1 - p."""
    return (1 - p) ** gamma / p - sign * gamma * (1 - p) ** (gamma - 1) * math.log(p)


def _decoded(output, alpha, gamma, sign=1):
    return _slope(1 - output, gamma, sign) / _slope(output, gamma, sign) / odds(alpha)


decoder = Exercise(
    reference=_decoded,
    finish=share,
    inputs=[(p, alpha, gamma) for alpha, gamma in (*SETTINGS, (0.9, 3.0)) for p in (0.06, 0.3, 0.5, 0.85)],
    returns="one number, the risk",
    success="the closed form: an output of 0.5 with alpha 0.25 means a risk of 75%",
    slips={
        "that is the output itself; it would be the risk if the loss were plain cross-entropy": lambda p, a, g: odds(p),
        "alpha is not decoded: the odds also carry (1 - alpha) / alpha": lambda p, a, g: _decoded(p, 0.5, g),
        "the weights are upside down: with a large alpha, an output means less risk": lambda p, a, g: _decoded(p, 1 - a, g),
        "gamma is not decoded: this undoes the weights alone": lambda p, a, g: odds(p) / odds(a),
        "A and B have changed places: the odds are (1 - alpha) / alpha x B / A": lambda p, a, g: _decoded(1 - p, a, g),
        "it gives the risk of *no* melanoma: the odds are upside down": lambda p, a, g: 1 / _decoded(p, a, g),
        "A and B each have two terms: the one with the logarithm is missing": lambda p, a, g: odds(p) ** (g + 1) / odds(a),
        "both terms of A and of B are positive: ln p is negative, so that the second one adds": {"sign": -1},
    },
    finishes={"these are the odds; the risk is odds / (1 + odds)": lambda odds: odds},
)


def _drawn(targets, share, melanoma=lambda share, n, others: share / n, other=lambda share, n, others: (1 - share) / others):
    n = int(targets.sum())
    return np.where(targets == 1, melanoma(share, n, targets.size - n), other(share, n, targets.size - n))


draw_weights = Exercise(
    reference=_drawn,
    inputs=[(np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 0]), share) for share in (0.5, 0.3, 0.7)],
    returns="one weight a case",
    view=lambda weights: weights / weights.sum() if weights.ndim else weights,
    success="melanomas are drawn with the share that was asked for, whatever their number",
    slips={
        "each class weighs its share, but one class has more cases: divide by the number of cases of the class": {
            "melanoma": lambda share, n, others: share, "other": lambda share, n, others: 1 - share,
        },
        "the share is on the wrong class: it is that of the melanomas": {
            "melanoma": lambda share, n, others: (1 - share) / n, "other": lambda share, n, others: share / others,
        },
        "the classes come up equally often whatever the share: use the second argument": {
            "melanoma": lambda share, n, others: 1 / n, "other": lambda share, n, others: 1 / others,
        },
        "the counts are swapped: the melanomas' share is divided among the melanomas": {
            "melanoma": lambda share, n, others: share / others, "other": lambda share, n, others: (1 - share) / n,
        },
        "every case weighs the same": {"melanoma": lambda *_: 1.0, "other": lambda *_: 1.0},
    },
    hint="The weights of the melanomas add up to the share, those of the others to the rest",
)  # fmt: skip


def colleagues(alpha: float, gamma: float) -> dict[str, Callable]:
    """Three losses that run without a warning, each meant as focal loss with this alpha and gamma, each with one fault.

    Returns:
        By name of the colleague: loss of logits and float targets, shape ``(N,)`` each, averaged.
    """

    def made(of_melanomas: float, of_others: float, outputs: Callable) -> Callable:
        def loss(logits, targets):
            cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            weight = torch.where(targets == 1, of_melanomas, of_others)
            return (weight * (1 - outputs(logits, cross_entropy)) ** gamma * cross_entropy).mean()

        return loss

    def p_t(_, cross_entropy):
        return torch.exp(-cross_entropy)

    return {
        "Ada": made(1 - alpha, alpha, p_t),
        "Ben": made(alpha, alpha, p_t),
        "Cleo": made(alpha, 1 - alpha, lambda logits, _: torch.sigmoid(logits)),
    }
