"""Exercises of the focal-loss lesson: the loss, a probe for other people's losses, the decoder, a sampler's weights."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from melanoma_lib.classroom.checks.engine import Exercise, plain

SETTINGS = ((0.25, 2.0), (0.8, 1.0), (0.6, 0.5))  # alpha and gamma
TRUTHS = ((0.25, 2.0, 2.0), (0.8, 1.0, 1.0), (0.6, 3.0, 0.5))  # alpha and both gammas
LOGITS = 1.5 * torch.randn(15, generator=torch.Generator().manual_seed(2))
EXTREMES = torch.tensor([-100.0, -30.0, 0.0, 30.0, 100.0]).repeat_interleave(3)  # where a sigmoid becomes 0 or 1
TARGETS = (torch.arange(15) % 3 == 0).float()


def _focal(logits, targets, alpha, gamma, of=lambda a: (a, 1 - a), miss=lambda z, s: F.logsigmoid(-s), last=torch.mean):
    signed = torch.where(targets == 1, logits, -logits)
    weight = torch.where(targets == 1, *of(alpha))
    return last(-weight * torch.exp(gamma * miss(logits, signed)) * F.logsigmoid(signed))


def _with_gradient(loss, logits, targets, alpha, gamma):
    value = loss(logits.requires_grad_(), targets, alpha, gamma)
    gradient = torch.autograd.grad(value, logits)[0]
    return value, gradient[targets == 1].sum(), gradient[targets == 0].sum()


def _decoded(output, alpha, gamma, sign=1, a_over_b=False, last=lambda odds: odds / (1 + odds)):
    def slope(p):  # A of the decoder at p, B at 1 - p
        return (1 - p) ** gamma / p - sign * gamma * (1 - p) ** (gamma - 1) * math.log(p)

    return last((1 - alpha) / alpha * (slope(1 - output) / slope(output)) ** (-1 if a_over_b else 1))


def _loss(weights, gammas, p_t=lambda logits, cross_entropy: torch.exp(-cross_entropy), truth=None):
    """A loss with two weights and two gammas, those of the melanomas first."""

    def loss(logits, targets):
        cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        weight, gamma = torch.where(targets == 1, *weights), torch.where(targets == 1, *gammas)
        return (weight * (1 - p_t(logits, cross_entropy)) ** gamma * cross_entropy).mean()

    loss.truth = truth
    return loss


def colleagues(alpha: float, gamma: float) -> dict[str, Callable]:
    """Three losses by name, each meant as focal loss of logits and float targets ``(N,)``, each with one fault."""
    gammas = gamma, gamma
    cleo = _loss((alpha, 1 - alpha), gammas, lambda logits, _: torch.sigmoid(logits))
    return {"Ada": _loss((1 - alpha, alpha), gammas), "Ben": _loss((alpha, alpha), gammas), "Cleo": cleo}


focal_loss = Exercise(
    reference=_focal,
    inputs=[(logits, TARGETS, *setting) for logits in (LOGITS, EXTREMES) for setting in SETTINGS],
    use=_with_gradient,
    names="loss, gradient of the melanomas, gradient of the other lesions",
    success="right in value and gradient, and finite at logits of ±100, for gamma below 1 too",
    slips={
        "alpha is on the wrong class: it weighs the melanomas": {"of": lambda a: (1 - a, a)},
        "alpha weighs every case alike: the other lesions weigh 1 - alpha": {"of": lambda a: (a, a)},
        "gamma has no effect: the factor (1 - p_t)^gamma is missing": {"miss": lambda z, s: 0 * s},
        "the factor is not (1 - p)^gamma for both classes: take p_t": {"miss": lambda z, s: F.logsigmoid(-z)},
        "that is the sum over the cases; training needs their mean": {"last": torch.sum},
    },
    hint="Use F.logsigmoid: at ±100 a sigmoid is 0 or 1, and must not be clamped. Return the mean, made by torch",
)

probe = Exercise(
    reference=lambda loss, read=lambda a, m, o: (a, m, o): read(*loss.truth),
    inputs=[(_loss((a * 2**m, (1 - a) * 2**o), (m, o), truth=(a, m, o)),) for a, m, o in TRUTHS],
    names="alpha, gamma of melanomas, gamma of other lesions",
    success="alpha and both gammas can be read off any loss, without looking at its code",
    slips={
        "alpha is that of the other lesions: it weighs the melanomas": {"read": lambda a, m, o: (1 - a, m, o)},
        "the two gammas are swapped: melanomas first, then other lesions": {"read": lambda a, m, o: (a, o, m)},
        "the classes may differ in gamma: read each off its own class": {"read": lambda a, m, o: (a, m, m)},
    },
    hint="Alpha still holds gamma unless p_t is 1/2 in both classes; for gamma, divide two losses of one class",
)

decoder = Exercise(
    reference=_decoded,
    inputs=[(p, alpha, gamma) for alpha, gamma in (*SETTINGS, (0.9, 3.0)) for p in (0.06, 0.3, 0.5, 0.85)],
    success="the closed form: an output of 0.5 with alpha 0.25 means a risk of 75%",
    slips={
        "A and B have changed places: the odds are (1 - alpha) / alpha x B / A": {"a_over_b": True},
        "A and B each have two terms: the one with the logarithm is missing": {"sign": 0},
        "both terms of A and of B are positive: ln p is negative, so that the second one adds": {"sign": -1},
        "these are the odds; the risk is odds / (1 + odds)": {"last": lambda odds: odds},
    },
)

draw_weights = Exercise(
    reference=lambda y, share, n=sum: np.where(y == 1, share / n(y == 1), (1 - share) / n(y == 0)),
    inputs=[(np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 0]), share) for share in (0.5, 0.3, 0.7)],
    use=lambda answer, targets, share: (weights := plain(answer(targets, share))) / weights.sum(),
    success="melanomas are drawn with the share that was asked for, whatever their number",
    slips={
        "each class weighs its share: divide by the number of cases of the class": {"n": lambda of_class: 1},
    },
)
