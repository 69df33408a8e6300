"""Checks of the focal-loss lesson's exercises."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from melanoma_lib.classroom.checks import not_yet, numbers, passed

SETTINGS = ((0.25, 2.0), (0.8, 1.0), (0.6, 0.5))  # alpha and gamma
EXTREMES = (-100.0, -30.0, 0.0, 30.0, 100.0)  # logits


def focal_loss(compute: Callable) -> None:
    """Hold ``compute(logits, targets, alpha, gamma)`` to the mean focal loss: its values, its gradient, and its extremes.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    import torch

    from melanoma_lib import losses

    generator = torch.Generator().manual_seed(2)
    logits = 1.5 * torch.randn(12, generator=generator, dtype=torch.float64)
    targets = (torch.arange(12) % 3 == 0).double()
    given, right, slopes = [], [], []
    for alpha, gamma in SETTINGS:
        z, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss = compute(z, targets, alpha, gamma)
        _require_number(loss, len(logits))
        expected = losses.focal_loss(ours, targets, alpha, gamma)
        expected.backward()
        given.append(loss.item())
        right.append(expected.item())
        if not loss.requires_grad:
            not_yet("its result has no gradient: stay with torch from the logits to the loss, without .item(), numpy or no_grad")
        loss.backward()
        slopes.append(float((z.grad - ours.grad).abs().max()))
    if not _same(given, right):
        for diagnosis, mistake in _loss_mistakes(logits, targets).items():
            if _same(given, [mistake(alpha, gamma) for alpha, gamma in SETTINGS]):
                not_yet(diagnosis)
        not_yet(
            f"for alpha {SETTINGS[0][0]}, gamma {SETTINGS[0][1]} and the check's 12 cases: {given[0]:.5f}, not {right[0]:.5f}"
        )
    if max(slopes) > 1e-6:
        not_yet("the values are right, the gradient is not: the modulating factor must not be detached, it learns as well")
    _check_extremes(compute)
    passed("right in value and gradient, and finite at logits of ±100, for gamma below 1 too")


def _require_number(loss: object, n: int) -> None:
    shape = getattr(loss, "shape", None)
    if shape is None:
        not_yet(f"it returns {loss!r}; expected a tensor with one number, the mean over the cases")
    if len(shape):
        not_yet(f"it returns {tuple(shape)} numbers for {n} cases; training wants one: their mean")


def _loss_mistakes(logits, targets) -> dict[str, Callable[[float, float], float]]:
    import torch
    from torch.nn import functional as F

    melanoma, p = targets == 1, torch.sigmoid(logits)
    p_t = torch.where(melanoma, p, 1 - p)
    cross_entropy = -torch.log(p_t)
    twice = torch.where(melanoma, torch.sigmoid(p), 1 - torch.sigmoid(p))

    def weight(alpha: float):
        return torch.where(melanoma, alpha, 1 - alpha)

    def mean(make: Callable) -> Callable[[float, float], float]:
        return lambda alpha, gamma: float(make(alpha, gamma).mean())

    right = mean(lambda a, g: weight(a) * (1 - p_t) ** g * cross_entropy)
    plain = float(F.binary_cross_entropy_with_logits(logits, targets))
    return {
        "alpha is on the wrong class: it weighs the melanomas, 1 - alpha the other lesions": mean(
            lambda a, g: weight(1 - a) * (1 - p_t) ** g * cross_entropy
        ),
        "alpha weighs every case alike, which changes nothing but the learning rate: the other lesions weigh 1 - alpha": mean(
            lambda a, g: a * (1 - p_t) ** g * cross_entropy
        ),
        "alpha has no effect: melanomas weigh alpha, other lesions 1 - alpha": mean(lambda a, g: (1 - p_t) ** g * cross_entropy),
        "gamma has no effect: this is weighted cross-entropy": mean(lambda a, g: weight(a) * cross_entropy),
        "that is cross-entropy, without alpha and gamma": lambda a, g: plain,
        "the factor is p_t to the power of gamma, which plays the hard cases down; it is (1 - p_t)": mean(
            lambda a, g: weight(a) * p_t**g * cross_entropy
        ),
        "the factor is (1 - p) to the power of gamma for both classes; for the other lesions 1 - p_t is p": mean(
            lambda a, g: weight(a) * (1 - p) ** g * cross_entropy
        ),
        "the other lesions cost nothing: their term, with p to the power of gamma and ln(1 - p), is missing": mean(
            lambda a, g: torch.where(melanoma, weight(a) * (1 - p_t) ** g * cross_entropy, 0.0)
        ),
        "the sigmoid is taken twice: a loss that takes the sigmoid itself was given probabilities": mean(
            lambda a, g: weight(a) * (1 - twice) ** g * -torch.log(twice)
        ),
        "the mean is taken too early: each case has a factor of its own, so modulate first (reduction='none'), then average": (
            lambda a, g: float((weight(a) * (1 - math.exp(-plain)) ** g * plain).mean())
        ),
        "the sign is wrong: a logarithm of p_t is negative, a loss is not": lambda a, g: -right(a, g),
        "that is the sum over the cases; training wants their mean, so that the batch size does not matter": lambda a, g: (
            right(a, g) * len(logits)
        ),
        "take the natural logarithm, not that of base 2": lambda a, g: right(a, g) / math.log(2),
        "take the natural logarithm, not that of base 10": lambda a, g: right(a, g) / math.log(10),
    }


def _check_extremes(compute: Callable) -> None:
    import torch

    from melanoma_lib import losses

    for gamma in (2.0, 0.5):
        for target, name in ((1.0, "a melanoma"), (0.0, "another lesion")):
            for value in EXTREMES:
                logit, targets = torch.tensor([value], requires_grad=True), torch.tensor([target])
                loss = compute(logit, targets, 0.25, gamma)
                loss.backward()
                where = f"at a logit of {value:+.0f} and gamma {gamma}, {name}"
                if not torch.isfinite(loss):
                    not_yet(f"{where} has a loss of {loss.item()}: the sigmoid has become 0 or 1. Use F.logsigmoid for ln p_t")
                if not torch.isfinite(logit.grad).all():
                    not_yet(
                        f"{where} has a gradient of {float(logit.grad)}: a power or logarithm of 0 was differentiated. Write "
                        "(1 - p_t)^gamma as exp(gamma * ln(1 - p_t)), with F.logsigmoid once more"
                    )
                expected = float(losses.focal_loss(torch.tensor([value]), targets, 0.25, gamma))
                if not math.isclose(loss.item(), expected, rel_tol=1e-3, abs_tol=1e-12):
                    not_yet(
                        f"{where} has a loss of {loss.item():.4g}, not {expected:.4g}: something inside the logarithm was "
                        "clamped or added to, so that a sure mistake teaches nothing"
                    )


def probe(read: Callable) -> None:
    """Hold ``read(loss)`` to reading alpha, the gamma of melanomas and the gamma of other lesions off a loss from outside.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    truths = ((0.25, 2.0, 2.0), (0.8, 1.0, 1.0), (0.4, 0.5, 0.5), (0.7, 1.5, 1.5))
    given = [_three(read(_black_box(*truth))) for truth in truths]
    columns, right = list(zip(*given, strict=True)), list(zip(*truths, strict=True))
    alphas = {
        "alpha is read off the other lesions: it is the weight of the melanomas": lambda a: 1 - a,
        "alpha is the melanomas' share of both weights, not the ratio of the two": lambda a: a / (1 - a),
    }
    if not _same(columns[0], right[0]):
        for diagnosis, mistake in alphas.items():
            if _same(columns[0], [mistake(a) for a in right[0]]):
                not_yet(diagnosis)
        scaled = [a * 0.5**g * math.log(2) for a, g, _ in truths]
        if _same(columns[0], scaled):
            not_yet("that is a melanoma's loss at logit 0: it holds gamma too. Divide by the sum of both classes' losses there")
        not_yet(f"a loss with alpha {truths[0][0]} is read as {columns[0][0]:.3f}; compare the two classes where p is 1/2")
    for name, column, wanted in zip(("melanomas", "other lesions"), columns[1:], right[1:], strict=True):
        if not _same(column, wanted):
            if _same(column, [-g for g in wanted]):
                not_yet(f"the gamma of the {name} comes out negative: the factor is (1 - p_t), not p_t, to its power")
            not_yet(
                f"a gamma of {wanted[0]} of the {name} is read as {column[0]:.3f}; which ratio of losses leaves the power alone?"
            )
    odd = (0.6, 3.0, 0.5)
    _, first, second = _three(read(_black_box(*odd, balanced=True)))
    if _same([first, second], [odd[2], odd[1]]):
        not_yet("the two gammas are swapped: melanomas first, then other lesions")
    if not _same([first, second], odd[1:]):
        not_yet("the classes may differ in gamma: read each off two losses of its own class, so that any weight cancels")
    passed("alpha and both gammas can be read off any loss, without looking at its code")


def _three(answer: object) -> tuple[float, float, float]:
    try:
        alpha, first, second = answer
        return float(alpha), float(first), float(second)
    except (TypeError, ValueError):
        not_yet(f"it returns {answer!r}; expected three numbers: alpha, gamma of melanomas, gamma of other lesions")


def _black_box(alpha: float, melanoma_gamma: float, other_gamma: float, balanced: bool = False) -> Callable:
    """A focal loss whose classes may differ in gamma; ``balanced`` keeps their losses at p = 1/2 in the ratio of the weights."""
    import torch
    from torch.nn import functional as F

    def loss(logits, targets):
        melanoma = targets == 1
        signed = torch.where(melanoma, logits, -logits)
        gamma = torch.where(melanoma, melanoma_gamma, other_gamma)
        weight = torch.where(melanoma, alpha, 1 - alpha) * (2**gamma if balanced else 1)
        return (-weight * torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)).mean()

    return loss


def decoder(decode: Callable) -> None:
    """Hold ``decode(output, alpha, gamma)`` to the risk that an output of focal loss stands for.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    from melanoma_lib.losses import FocalLoss

    points = [(p, alpha, gamma) for alpha, gamma in (*SETTINGS, (0.9, 3.0)) for p in (0.06, 0.3, 0.5, 0.85)]
    given = [numbers(decode(*point), 1, "one number, the risk")[0] for point in points]
    right = [FocalLoss(alpha, gamma).true_risk(p) for p, alpha, gamma in points]
    mistakes = {
        "that is the output itself; it would be the risk if the loss were plain cross-entropy": lambda p, a, g: p,
        "alpha is not decoded: the odds also carry (1 - alpha) / alpha": lambda p, a, g: FocalLoss(None, g).true_risk(p),
        "the weights are upside down: a large alpha pushes outputs up, so the same output means less risk": lambda p, a, g: (
            FocalLoss(1 - a, g).true_risk(p)
        ),
        "gamma is not decoded: this undoes the weights alone": lambda p, a, g: FocalLoss(a, 0.0).true_risk(p),
        "the decoder is upside down: it gives the risk of *no* melanoma; the odds are B / A, not A / B": lambda p, a, g: (
            1 - FocalLoss(a, g).true_risk(p)
        ),
        "these are the odds of the risk; the risk is odds / (1 + odds)": lambda p, a, g: _odds(FocalLoss(a, g).true_risk(p)),
        "it runs backwards: this is the output at a given risk, not the risk at a given output": lambda p, a, g: FocalLoss(
            a, g
        ).optimal_output(p),
        "A and B each have two terms: the factor depends on p as well, and its derivative is missing": lambda p, a, g: _share(
            (1 - a) / a * (p**g / (1 - p)) / ((1 - p) ** g / p)
        ),
        "both terms of A and of B are positive: ln p is negative, so -gamma (1 - p)^(gamma - 1) ln p adds": lambda p, a, g: (
            _share((1 - a) / a * _pull(1 - p, g, -1) / _pull(p, g, -1))
        ),
    }
    if not _same(given, right):
        for diagnosis, mistake in mistakes.items():
            if _same(given, [mistake(*point) for point in points]):
                not_yet(diagnosis)
        p, alpha, gamma = points[2]
        not_yet(f"with alpha {alpha} and gamma {gamma}, an output of {p} is read as {given[2]:.4f}; it means {right[2]:.4f}")
    passed("the closed form: an output of 0.5 with alpha 0.25 means a risk of 75%")


def _pull(p: float, gamma: float, sign: int = 1) -> float:
    return (1 - p) ** gamma / p - sign * gamma * (1 - p) ** (gamma - 1) * math.log(p)


def _odds(p: float) -> float:
    return p / (1 - p)


def _share(odds: float) -> float:
    return odds / (1 + odds)


def undone_sampling(undo: Callable) -> None:
    """Hold ``undo(risk, drawn, prevalence)`` to Bayes' rule: the same evidence, another prior.

    Raises:
        NotYet: with the mistake that gives the numbers seen.
    """
    points = [(risk, drawn, prior) for drawn, prior in ((0.5, 0.1), (0.3, 0.19), (0.5, 0.018)) for risk in (0.1, 0.5, 0.9)]
    given = [numbers(undo(*point), 1, "one number, the risk")[0] for point in points]

    def right(risk: float, drawn: float, prior: float) -> float:
        return _share(_odds(risk) * _odds(prior) / _odds(drawn))

    mistakes: dict[str, Callable[[float, float, float], float]] = {
        "nothing was undone: it returns the risk it was given": lambda r, d, p: r,
        "upside down: drawing melanomas more often made risks too high, so they must come down": lambda r, d, p: right(r, p, d),
        "scaling the risk is not enough: scale the odds, risk / (1 - risk), and turn them back": lambda r, d, p: r * p / d,
        "the odds of both prevalences are needed, not the prevalences themselves": lambda r, d, p: _share(_odds(r) * p / d),
        "these are the odds; the risk is odds / (1 + odds)": lambda r, d, p: _odds(right(r, d, p)),
        "that takes the cases to be drawn half and half, whatever `drawn` says": lambda r, d, p: right(r, 0.5, p),
    }
    if not _same(given, [right(*point) for point in points]):
        for diagnosis, mistake in mistakes.items():
            if _same(given, [mistake(*point) for point in points]):
                not_yet(diagnosis)
        risk, drawn, prior = points[1]
        wanted = right(*points[1])
        not_yet(
            f"a risk of {risk} where {drawn:.0%} are melanomas becomes {given[1]:.4f} where {prior:.0%} are; it is {wanted:.4f}"
        )
    passed("the evidence stays, the prior changes: odds times the ratio of the two prior odds")


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return bool(np.allclose(one, other, rtol=1e-5, atol=1e-8))
