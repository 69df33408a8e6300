"""Exercises of the focal-loss lesson: the loss, a probe for other people's losses, the decoder, and weights of a sampler."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from melanoma_lib import losses
from melanoma_lib.classroom.checks.engine import Exercise, ask, not_yet

SETTINGS = ((0.25, 2.0), (0.8, 1.0), (0.6, 0.5))  # alpha and gamma
LOGITS = 1.5 * torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
TARGETS = (torch.arange(12) % 3 == 0).double()


def _focal(
    logits, targets, alpha, gamma, weigh=lambda y, a: torch.where(y == 1, a, 1 - a), factor=lambda p, p_t, g: (1 - p_t) ** g,
    seen=lambda z: z, average=True, last=torch.mean,
):  # fmt: skip
    """Focal loss as its formula stands; on request cross-entropy is averaged before it is modulated."""
    p = torch.sigmoid(seen(logits))
    p_t = torch.where(targets == 1, p, 1 - p)
    if not average:
        p_t = torch.exp(torch.log(p_t).mean())
    return last(-weigh(targets, alpha) * factor(p, p_t, gamma) * torch.log(p_t))


def _look_closer(compute: Callable) -> None:
    """The gradient, and logits at which a sigmoid is 0 or 1."""
    extremes = itertools.product((-100.0, -30.0, 0.0, 30.0, 100.0), (1.0, 0.0), (0.25,), (2.0, 0.5))
    for z, y, alpha, gamma in [(LOGITS, TARGETS, *setting) for setting in SETTINGS] + list(extremes):
        logits, targets = torch.as_tensor(z).reshape(-1), torch.as_tensor(y).reshape(-1)
        mine, right = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss, wanted = ask(compute, mine, targets, alpha, gamma, copies=False), losses.focal_loss(right, targets, alpha, gamma)
        wanted.backward()
        if getattr(loss, "requires_grad", False):
            loss.backward()
        if mine.grad is None:
            not_yet("its result has no gradient: stay with torch from the logits to the loss, without .item(), numpy or no_grad")
        where = f"at logit {z}, target {y} and gamma {gamma}"
        if not torch.isfinite(loss):
            not_yet(f"{where} the loss is {loss.item()}: the sigmoid has become 0 or 1. Use F.logsigmoid for ln p_t")
        if not torch.isfinite(mine.grad).all():
            not_yet(f"{where} the gradient is not finite. Write (1 - p_t)^gamma as exp(gamma * ln(1 - p_t)), with F.logsigmoid")
        if not torch.isclose(loss, wanted, rtol=1e-3, atol=1e-12):
            not_yet(f"{where} the loss is {loss:.4g}, not {wanted:.4g}: what is in a logarithm must not be clamped or added to")
        if not torch.allclose(mine.grad, right.grad, rtol=1e-5 if len(logits) > 1 else 1e-3, atol=1e-6):  # 1: float32's ends
            not_yet("the values are right, the gradient is not: the modulating factor must not be detached, it learns as well")


focal_loss = Exercise(
    reference=_focal,
    inputs=[(LOGITS, TARGETS, alpha, gamma) for alpha, gamma in SETTINGS],
    returns="a tensor with one number, the mean over the cases",
    success="right in value and gradient, and finite at logits of ±100, for gamma below 1 too",
    slips={
        "alpha is on the wrong class: it weighs the melanomas": {"weigh": lambda y, a: torch.where(y == 1, 1 - a, a)},
        "alpha weighs every case alike: the other lesions weigh 1 - alpha": {"weigh": lambda y, a: a},
        "alpha has no effect: melanomas weigh alpha, other lesions 1 - alpha": {"weigh": lambda y, a: 1.0},
        "the other lesions cost nothing: their term is missing": {"weigh": lambda y, a: a * y},
        "gamma has no effect: the factor (1 - p_t)^gamma is missing": {"factor": lambda p, p_t, g: 1.0},
        "the factor is (1 - p_t)^gamma, not p_t^gamma": {"factor": lambda p, p_t, g: p_t**g},
        "the factor is (1 - p)^gamma for both classes; for the other lesions 1 - p_t is p":
            {"factor": lambda p, p_t, g: (1 - p) ** g},
        "the sigmoid is taken twice: the loss takes it itself": {"seen": torch.sigmoid},
        "the mean is taken too early: modulate each case first (reduction='none'), then average": {"average": False},
        "the sign is wrong: a logarithm of p_t is negative, a loss is not": {"last": lambda each: -each.mean()},
        "that is the sum over the cases; training needs their mean": {"last": torch.sum},
        "that is a loss for each case; training needs one number, their mean": {"last": lambda each: each},
    },
    after=_look_closer,
)  # fmt: skip


def _black_box(alpha: float, melanoma_gamma: float, other_gamma: float) -> Callable:
    """A focal loss whose classes may differ in gamma; at p = 1/2 their losses are then still in the ratio of the weights."""

    def loss(logits, targets):
        melanoma = targets == 1
        signed = torch.where(melanoma, logits, -logits)
        gamma = torch.where(melanoma, melanoma_gamma, other_gamma)
        weight = torch.where(melanoma, alpha, 1 - alpha) * 2 ** (gamma - melanoma_gamma)
        return (-weight * torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)).mean()

    loss.truth = (alpha, melanoma_gamma, other_gamma)
    return loss


def _read(loss, of_alpha=lambda alpha: alpha, of_gammas=lambda m, o: (m, o)):
    alpha, *gammas = loss.truth
    return of_alpha(alpha), *of_gammas(*gammas)


_FACTOR = "comes out negative: the factor is (1 - p_t), not p_t, to its power"
probe = Exercise(
    reference=_read,
    inputs=[(_black_box(*truth),) for truth in ((0.25, 2.0, 2.0), (0.8, 1.0, 1.0), (0.4, 0.5, 0.5), (0.6, 3.0, 0.5))],
    returns=("alpha", "gamma of melanomas", "gamma of other lesions"),
    success="alpha and both gammas can be read off any loss, without looking at its code",
    slips={
        "alpha is read off the other lesions: it is the weight of the melanomas": {"of_alpha": lambda alpha: 1 - alpha},
        "alpha is the melanomas' share of both weights, not their ratio": {"of_alpha": lambda alpha: _odds(alpha)},
        f"the gamma of the melanomas {_FACTOR}": {"of_gammas": lambda m, o: (-m, o)},
        f"the gamma of the other lesions {_FACTOR}": {"of_gammas": lambda m, o: (m, -o)},
        "the two gammas are swapped: melanomas first, then other lesions": {"of_gammas": lambda m, o: (o, m)},
        "the classes may differ in gamma: read each off two losses of its own class": {"of_gammas": lambda m, o: (m, m)},
    },
    hint="For alpha, compare the two classes where p is 1/2; for gamma, look for a ratio of losses that leaves the power alone",
)  # fmt: skip


def _odds(share):
    return share / (1 - share)


def _slope(p: float, gamma: float, sign: int = 1) -> float:
    """A of the decoder at p, B at 1 - p."""
    return (1 - p) ** gamma / p - sign * gamma * (1 - p) ** (gamma - 1) * math.log(p)


def _decoded(output, alpha, gamma, sign=1, last=lambda odds: odds / (1 + odds)):
    return last(_slope(1 - output, gamma, sign) / _slope(output, gamma, sign) / _odds(alpha))


decoder = Exercise(
    reference=_decoded,
    inputs=[(p, alpha, gamma) for alpha, gamma in (*SETTINGS, (0.9, 3.0)) for p in (0.06, 0.3, 0.5, 0.85)],
    returns="one number, the risk",
    success="the closed form: an output of 0.5 with alpha 0.25 means a risk of 75%",
    slips={
        "that is the output itself; it would be the risk if the loss were plain cross-entropy": lambda p, a, g: p,
        "alpha is not decoded: the odds also carry (1 - alpha) / alpha": lambda p, a, g: _decoded(p, 0.5, g),
        "the weights are upside down: with a large alpha, an output means less risk": lambda p, a, g: _decoded(p, 1 - a, g),
        "gamma is not decoded: this undoes the weights alone": lambda p, a, g: 1 / (1 + _odds(a) / _odds(p)),
        "A and B have changed places: the odds are (1 - alpha) / alpha x B / A": lambda p, a, g: _decoded(1 - p, a, g),
        "it gives the risk of *no* melanoma: the odds are upside down": {"last": lambda odds: 1 / (1 + odds)},
        "A and B each have two terms: the one with the logarithm is missing": {"sign": 0},
        "both terms of A and of B are positive: ln p is negative, so that the second one adds": {"sign": -1},
        "these are the odds; the risk is odds / (1 + odds)": {"last": lambda odds: odds},
    },
)


def _drawn(targets, share, of_class=lambda share, n: share / n, swapped=False):
    share = 1 - share if swapped else share
    return np.where(targets == 1, of_class(share, sum(targets == 1)), of_class(1 - share, sum(targets == 0)))


def _in_proportion(answer, targets, share):
    weights = np.asarray(answer(targets, share), dtype=float)
    return weights / weights.sum()


draw_weights = Exercise(
    reference=_drawn,
    inputs=[(np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 0]), share) for share in (0.5, 0.3, 0.7)],
    use=_in_proportion,
    returns="one weight a case",
    success="melanomas are drawn with the share that was asked for, whatever their number",
    slips={
        "each class weighs its share: divide by the number of cases of the class": {"of_class": lambda share, n: share},
        "the share is on the wrong class: it is that of the melanomas": {"swapped": True},
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

    return {
        "Ada": made(1 - alpha, alpha, lambda _, cross_entropy: torch.exp(-cross_entropy)),
        "Ben": made(alpha, alpha, lambda _, cross_entropy: torch.exp(-cross_entropy)),
        "Cleo": made(alpha, 1 - alpha, lambda logits, _: torch.sigmoid(logits)),
    }
