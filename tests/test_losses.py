import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torchvision.ops import sigmoid_focal_loss

from melanoma_lib.losses import FocalLoss, focal_loss

ALPHA = st.none() | st.floats(0.02, 0.98)
GAMMA = st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0, 5.0]) | st.floats(0, 6)
RISK = st.floats(0.005, 0.995)


def batch(n=64, scale=4.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, generator=generator, dtype=dtype)
    return logits, torch.randint(0, 2, (n,), generator=generator).to(dtype)


def exact(logit, target, alpha, gamma):
    """The definition, ``-alpha_t (1 - p_t)^gamma ln p_t``, and its slope in the logit, to sixty digits."""
    with mpmath.workdps(60):

        def loss(z):
            p_t = 1 / (1 + mpmath.exp(-z if target else z))
            weight = 1 if alpha is None else alpha if target else 1 - mpmath.mpf(alpha)
            return -weight * (1 - p_t) ** mpmath.mpf(gamma) * mpmath.log(p_t)

        return float(loss(mpmath.mpf(logit))), float(mpmath.diff(loss, mpmath.mpf(logit)))


@settings(max_examples=30)
@given(ALPHA | st.sampled_from([0.0, 1.0]), GAMMA.filter(lambda gamma: gamma == 0 or gamma >= 1), st.integers(0, 2**31))
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torchvision(reduction, alpha, gamma, seed):
    logits, targets = batch(seed=seed)
    expected = sigmoid_focal_loss(logits, targets, -1 if alpha is None else alpha, gamma, reduction)
    torch.testing.assert_close(focal_loss(logits, targets, alpha, gamma, reduction), expected)
    torch.testing.assert_close(FocalLoss(alpha, gamma, reduction)(logits, targets), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 0.999, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])  # 0.9 has no exact float32
def test_values_and_gradients_are_finite_and_exact_at_any_logit(alpha, gamma, dtype):
    cases = [(z, t) for z in (-1000, -100, -30, -3, -1e-3, 0, 0.5, 8, 30, 100, 1000) for t in (0, 1)]
    logits = torch.tensor([z for z, _ in cases], dtype=dtype, requires_grad=True)
    targets = torch.tensor([t for _, t in cases], dtype=dtype)
    losses = focal_loss(logits, targets, alpha, gamma, "none")
    losses.sum().backward()
    values, slopes = np.array([exact(z, t, alpha, gamma) for z, t in zip(logits.tolist(), targets.tolist(), strict=True)]).T
    close = {"rtol": 1e-4, "atol": 1e-37} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-300}
    torch.testing.assert_close(losses.detach().double(), torch.from_numpy(values), **close)
    torch.testing.assert_close(logits.grad.double(), torch.from_numpy(slopes), **close)


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan")])
def test_a_target_that_is_no_class_and_shapes_that_differ_are_errors(value):
    with pytest.raises(ValueError, match=f"0 .*1 .*got {value}"):
        focal_loss(torch.zeros(3), torch.tensor([0.0, 1.0, value]))
    with pytest.raises(ValueError, match=r"\(3,\).*\(3, 1\)"):  # no broadcast
        focal_loss(torch.zeros(3), torch.zeros(3, 1))


@pytest.mark.parametrize(("name", "value"), [("alpha", 1.01), ("alpha", float("nan")), ("gamma", -0.1), ("gamma", float("inf"))])
def test_parameters_out_of_range_are_an_error_that_names_them(name, value):
    for make in (FocalLoss, lambda **parameters: focal_loss(torch.zeros(1), torch.zeros(1), **parameters)):
        with pytest.raises(ValueError, match=f"{name} .*{value}"):
            make(**{name: value})


def expected_loss(logit, risk, alpha, gamma):
    """Expected loss of one answer at a risk, in numpy's 80-bit floats, from the definition."""
    p = 1 / (1 + np.exp(-np.longdouble(logit)))
    q = 1 / (1 + np.exp(np.longdouble(logit)))
    positive, negative = (1, 1) if alpha is None else (alpha, 1 - alpha)
    return -risk * positive * q**gamma * np.log(p) - (1 - risk) * negative * p**gamma * np.log(q)


@settings(max_examples=200)
@given(RISK, ALPHA, GAMMA)
@example(0.75, 0.25, 2.0)
@example(0.995, 0.02, 0.0)
def test_optimal_output_minimises_the_expected_loss(risk, alpha, gamma):
    best = minimize_scalar(expected_loss, args=(risk, alpha, gamma), bounds=(-25, 25), method="bounded", options={"xatol": 1e-9})
    output = FocalLoss(alpha, gamma).optimal_probability(risk)
    assert output == pytest.approx(1 / (1 + np.exp(-best.x)), abs=1e-4)  # a flat minimum is known to half the digits
    logit = np.log(output / (1 - output))
    assert expected_loss(logit, risk, alpha, gamma) <= best.fun * (1 + 1e-12)


@settings(max_examples=200)
@given(st.floats(1e-6, 0.95), ALPHA, GAMMA)
def test_output_and_risk_are_each_others_inverse(value, alpha, gamma):
    loss = FocalLoss(alpha, gamma)
    assert loss.optimal_probability(loss.true_risk(value)) == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert loss.true_risk(loss.optimal_probability(value)) == pytest.approx(value, rel=1e-6, abs=1e-9)
    for convert in (loss.true_risk, loss.optimal_probability):
        assert (np.diff(found := convert([0, 5e-324, 1e-30, value, 1])) >= 0).all() and (found[0], found[-1]) == (0, 1)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), [0.2, 7.0]])
def test_what_is_no_probability_is_an_error(value):
    shown = value[1] if isinstance(value, list) else value
    for convert in (FocalLoss().true_risk, FocalLoss().optimal_probability):
        with pytest.raises(ValueError, match=rf"\[0, 1\], got {shown}"):
            convert(value)
