"""Focal loss on logits, and what its output means: a focal output is not a risk until it is decoded.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv:1708.02002). The decoder follows from setting the expected
loss's derivative to zero; Charoenphakdee et al. 2021 (arXiv:2011.09172) give the case without alpha.
"""

import math
from typing import Literal

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn
from torch.nn import functional

Reduction = Literal["mean", "sum", "none"]


def focal_loss(
    logits: Tensor, targets: Tensor, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "mean"
) -> Tensor:
    """Focal loss ``-alpha_t (1 - p_t)^gamma ln p_t`` of binary targets, computed on the logits.

    Works in the log domain throughout, so that values and gradients stay finite at any logit and for gamma below 1.

    Args:
        logits: real scores, shape ``(N,)`` or any other; sigmoid gives the output p.
        targets: 0 or 1, same shape.
        alpha: weight of the positives, negatives weigh ``1 - alpha``; None weighs both 1.
        gamma: how strongly easy cases are played down, at least 0; 0 without alpha is binary cross-entropy.
        reduction: ``mean``, ``sum``, or ``none``, which keeps the shape.

    Raises:
        ValueError: if shapes differ, a target is neither 0 nor 1, or alpha, gamma or reduction is out of range.
    """
    _check_parameters(alpha, gamma)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction expects mean, sum or none, got {reduction!r}")
    if logits.shape != targets.shape:
        raise ValueError(f"logits and targets need one shape, got {tuple(logits.shape)} and {tuple(targets.shape)}")
    positive = targets == 1
    if len(wrong := targets[~positive & (targets != 0)]):
        raise ValueError(f"targets expect 0 (not melanoma) or 1 (melanoma), got {wrong[0]}; did you pass probabilities?")
    signed = torch.where(positive, logits, -logits)  # p_t = sigmoid(signed)
    log_p_t, log_miss = functional.logsigmoid(signed), functional.logsigmoid(-signed)
    loss = -log_p_t if gamma == 0 else -log_p_t * torch.exp(gamma * log_miss)
    if alpha is not None:
        loss = torch.where(positive, alpha * loss, (1 - alpha) * loss)
    return {"mean": loss.mean, "sum": loss.sum, "none": lambda: loss}[reduction]()


class FocalLoss(nn.Module):
    """Focal loss as a module; see :func:`focal_loss` for the arguments.

    Example:
        >>> FocalLoss(alpha=None, gamma=2.0).true_risk(0.5)
        0.5
        >>> round(FocalLoss(alpha=0.25, gamma=2.0).true_risk(0.5), 6)
        0.75
    """

    def __init__(self, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        _check_parameters(alpha, gamma)
        self.alpha, self.gamma, self.reduction = alpha, gamma, reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of ``logits`` for ``targets``, both shape ``(N,)``."""
        return focal_loss(logits, targets, self.alpha, self.gamma, self.reduction)

    def true_risk(self, probability):
        """Risk that a perfectly trained model means by ``probability``.

        From ``d/dp [risk * l(p, 1) + (1 - risk) * l(p, 0)] = 0``: ``risk / (1 - risk) = (1 - alpha) / alpha * B / A`` with
        ``A = (1-p)^g / p - g (1-p)^(g-1) ln p`` and ``B = p^g / (1-p) - g p^(g-1) ln(1-p)``.

        Takes the sigmoid of the logit, in [0, 1], or ValueError; gives a float for a number, else a float64 array of that shape.
        """
        probability = _checked_probability(probability, "probability")
        tiny = np.finfo(np.float64).tiny  # keeps both logarithms finite and below zero
        log_p = np.log(np.maximum(probability, tiny)).clip(max=-tiny)
        log_q = np.log1p(-np.minimum(probability, 1 - 2**-53)).clip(max=-tiny)
        log_odds = self._log_gradient(log_q, log_p) - self._log_gradient(log_p, log_q)
        if self.alpha is not None:
            with np.errstate(divide="ignore"):  # a class without weight: the other one is always the better answer
                log_odds = log_odds + np.log(np.float64(1 - self.alpha) / self.alpha)
        risk = np.where(probability == 0, 0.0, np.where(probability == 1, 1.0, expit(log_odds)))
        return float(risk) if risk.ndim == 0 else risk

    def optimal_probability(self, true_risk):
        """Probability that minimises the expected loss at ``true_risk``: the inverse of :meth:`true_risk`, by bisection.

        Takes a probability of melanoma, or an array of them, and returns such; types and errors as there.
        """
        risk = _checked_probability(true_risk, "true_risk")
        low, high = np.full(risk.shape, -745.0), np.full(risk.shape, 745.0)  # beyond these exp leaves float64
        for _ in range(64):  # halves 1490 to below float64's resolution
            middle = (low + high) / 2
            above = self.true_risk(expit(middle)) > risk
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        probability = np.where(risk == 0, 0.0, np.where(risk == 1, 1.0, expit((low + high) / 2)))
        return float(probability) if probability.ndim == 0 else probability

    optimal_output = optimal_probability  # its former name

    def _log_gradient(self, log_p, log_miss):
        """``ln((1-p)^g / p - g (1-p)^(g-1) ln p)`` from ``ln p`` and ``ln(1-p)``; both terms are positive."""
        first = self.gamma * log_miss - log_p
        if self.gamma == 0:
            return first
        return np.logaddexp(first, math.log(self.gamma) + (self.gamma - 1) * log_miss + np.log(-log_p))


def _check_parameters(alpha: float | None, gamma: float) -> None:
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha expects a weight of the positives from 0 to 1, or None, got {alpha}")
    if not (math.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma expects a finite number of at least 0, got {gamma}")


def _checked_probability(values, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if len(wrong := values[~((values >= 0) & (values <= 1))]):  # NaN too
        raise ValueError(f"{name} expects probabilities in [0, 1], got {wrong[0]}")
    return values
