"""The checks of the focal-loss lesson pass what is right and name what is wrong."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from melanoma_lib import losses
from melanoma_lib.classroom import checks_focal as checks
from melanoma_lib.classroom.checks import NotYet
from melanoma_lib.evaluation import carry_risk
from melanoma_lib.lessons.focal import colleagues
from melanoma_lib.losses import FocalLoss


def focal(*faults: str):
    """A focal loss with the faults that are asked for."""

    def compute(logits, targets, alpha, gamma):
        if "twice" in faults:
            logits = torch.sigmoid(logits)
        melanoma = targets == 1
        if "typed" in faults or "epsilon" in faults or "power" in faults:
            p = torch.sigmoid(logits)
            p_t = torch.where(melanoma, p, 1 - p)
            log_p_t = F.logsigmoid(torch.where(melanoma, logits, -logits)) if "power" in faults else torch.log(p_t)
            log_p_t = torch.log(p_t + 1e-8) if "epsilon" in faults else log_p_t
            factor = (1 - p_t + (1e-8 if "epsilon" in faults else 0)) ** gamma
        else:
            signed = torch.where(melanoma, logits, -logits)
            log_p_t, log_miss = F.logsigmoid(signed), F.logsigmoid(-signed)
            if "early" in faults:
                log_p_t = log_p_t.mean()
                log_miss = torch.log(1 - log_p_t.exp())
            if "hard down" in faults:
                log_miss = log_p_t
            if "one minus p" in faults:
                log_miss = F.logsigmoid(-logits)
            factor = torch.exp(gamma * log_miss)
        if "no gamma" in faults:
            factor = torch.ones_like(factor)
        if "detached" in faults:
            factor = factor.detach()
        weights = (1 - alpha, alpha) if "inverted" in faults else (alpha, alpha) if "scalar" in faults else (alpha, 1 - alpha)
        weight = 1.0 if "no alpha" in faults else torch.where(melanoma, *weights)
        each = -weight * factor * log_p_t
        if "positives" in faults:
            each = torch.where(melanoma, each, 0.0)
        if "log2" in faults:
            each = each / math.log(2)
        if "log10" in faults:
            each = each / math.log(10)
        if "sign" in faults:
            each = -each
        if "each" in faults:
            return each
        loss = each.sum() if "sum" in faults else each.mean()
        if "float" in faults:
            return float(loss.detach())
        return loss.detach() if "no gradient" in faults else loss

    return compute


def test_the_right_loss_passes(capsys):
    checks.focal_loss(focal())
    checks.focal_loss(losses.focal_loss)
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    ("faults", "diagnosis"),
    [
        (["inverted"], "wrong class"),
        (["scalar"], "every case alike"),
        (["no alpha"], "alpha has no effect"),
        (["no gamma"], "gamma has no effect"),
        (["no alpha", "no gamma"], "that is cross-entropy"),
        (["hard down"], "plays the hard cases down"),
        (["one minus p"], "for the other lesions 1 - p_t is p"),
        (["positives"], "other lesions cost nothing"),
        (["twice"], "sigmoid is taken twice"),
        (["early"], "mean is taken too early"),
        (["sign"], "sign is wrong"),
        (["sum"], "the sum over the cases"),
        (["each"], r"\(12,\) numbers for 12 cases"),
        (["float"], "expected a tensor"),
        (["no gradient"], "has no gradient"),
        (["log2"], "base 2"),
        (["log10"], "base 10"),
        (["detached"], "must not be detached"),
        (["typed"], "Use F.logsigmoid"),
        (["power"], "gradient of nan"),
        (["epsilon"], "clamped or added to"),
        (["inverted", "sum"], "alpha 0.25, gamma 2.0 and the check's 12 cases"),
    ],
)
def test_wrong_losses_are_diagnosed(faults, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.focal_loss(focal(*faults))


def reader(alpha=lambda a: a, first=lambda g: g, second=lambda g: g, swap=False, whole=False):
    """A probe whose readings are distorted as asked for."""

    def read(loss):
        def at(p_t, target):
            logit = math.log(p_t / (1 - p_t)) * (1 if target else -1)
            return float(loss(torch.tensor([logit], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)))

        def gamma(target):
            ratio = at(0.8, target) / at(0.5, target) * math.log(0.5) / math.log(0.8)
            return math.log(ratio) / math.log(0.4)

        melanoma, other = at(0.5, 1.0), at(0.5, 0.0)
        share = melanoma if whole else melanoma / (melanoma + other)
        gammas = first(gamma(1.0)), second(gamma(1.0) if swap == "same" else gamma(0.0))
        return alpha(share), *(gammas[::-1] if swap is True else gammas)

    return read


def test_the_right_probe_passes_and_finds_the_colleagues_faults(capsys):
    checks.probe(reader())
    assert capsys.readouterr().out.startswith("✓")
    read = {name: reader()(loss) for name, loss in colleagues(0.75, 2.0).items()}
    assert read["Ada"] == pytest.approx((0.25, 2, 2))
    assert read["Ben"] == pytest.approx((0.5, 2, 2))
    assert read["Cleo"][:2] == pytest.approx((0.75, 2))
    assert read["Cleo"][2] < 0


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (reader(alpha=lambda a: 1 - a), "read off the other lesions"),
        (reader(alpha=lambda a: a / (1 - a)), "not the ratio"),
        (reader(whole=True), "Divide by the sum"),
        (reader(alpha=lambda a: 0.3), "is read as 0.300"),
        (reader(first=lambda g: -g), "melanomas comes out negative"),
        (reader(second=lambda g: -g), "other lesions comes out negative"),
        (reader(second=lambda g: g + 1), "other lesions is read as 3.000"),
        (reader(swap=True), "swapped"),
        (reader(swap="same"), "own class"),
        (lambda loss: 0.25, "expected three numbers"),
    ],
)
def test_wrong_probes_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.probe(wrong)


def decode(p, alpha, gamma):
    q = 1 - p
    a = q**gamma / p - gamma * q ** (gamma - 1) * math.log(p)
    b = p**gamma / q - gamma * p ** (gamma - 1) * math.log(q)
    return (1 - alpha) / alpha * b / a


def test_the_right_decoder_passes(capsys):
    checks.decoder(lambda p, a, g: decode(p, a, g) / (1 + decode(p, a, g)))
    checks.decoder(lambda p, a, g: np.asarray(FocalLoss(a, g).true_risk(p)))
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda p, a, g: p, "output itself"),
        (lambda p, a, g: FocalLoss(None, g).true_risk(p), "alpha is not decoded"),
        (lambda p, a, g: FocalLoss(1 - a, g).true_risk(p), "weights are upside down"),
        (lambda p, a, g: FocalLoss(a, 0.0).true_risk(p), "gamma is not decoded"),
        (lambda p, a, g: 1 - FocalLoss(a, g).true_risk(p), "decoder is upside down"),
        (lambda p, a, g: None, "does your function return something"),
        (decode, "odds of the risk"),
        (lambda p, a, g: FocalLoss(a, g).optimal_output(p), "runs backwards"),
        (lambda p, a, g: 1 / (1 + a / (1 - a) * ((1 - p) ** g / p) / (p**g / (1 - p))), "two terms"),
        (
            lambda p, a, g: 1 / (1 + a / (1 - a)
                * ((1 - p) ** g / p + g * (1 - p) ** (g - 1) * math.log(p))
                / (p**g / (1 - p) + g * p ** (g - 1) * math.log(1 - p))),
            "both terms",
        ),
        (lambda p, a, g: 0.6, "is read as 0.6000; it means 0.7500"),
    ],
)  # fmt: skip
def test_wrong_decoders_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.decoder(wrong)


def test_undone_sampling_passes(capsys):
    checks.undone_sampling(carry_risk)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (lambda r, d, p: r, "nothing was undone"),
        (lambda r, d, p: None, "does your function return something"),
        (lambda r, d, p: carry_risk(r, p, d), "upside down"),
        (lambda r, d, p: r * p / d, "scaling the risk"),
        (lambda r, d, p: 1 / (1 + (1 - r) / r * d / p), "not the prevalences themselves"),
        (lambda r, d, p: carry_risk(r, d, p) / (1 - carry_risk(r, d, p)), "these are the odds"),
        (lambda r, d, p: carry_risk(r, 0.5, p), "half and half"),
        (lambda r, d, p: 0.2, "becomes 0.2000 where 10% are; it is 0.1000"),
    ],
)
def test_wrong_undoing_is_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.undone_sampling(wrong)


@pytest.mark.parametrize("check", [checks.focal_loss, checks.probe, checks.decoder, checks.undone_sampling])
def test_a_stub_fails_as_itself(check):
    def stub(*_):
        raise NotImplementedError("your turn")

    with pytest.raises(NotImplementedError, match="your turn"):
        check(stub)
