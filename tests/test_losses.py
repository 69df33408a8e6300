import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch.nn.functional import binary_cross_entropy_with_logits
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


def test_without_gamma_and_alpha_it_is_cross_entropy_in_value_and_gradient():
    logits, targets = batch(scale=20)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    focal_loss(ours, targets, alpha=None, gamma=0).backward()
    binary_cross_entropy_with_logits(theirs, targets).backward()
    torch.testing.assert_close(focal_loss(logits, targets, None, 0), binary_cross_entropy_with_logits(logits, targets))
    torch.testing.assert_close(ours.grad, theirs.grad)


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


def test_targets_may_be_integers_or_booleans_and_logits_of_any_shape():
    logits, targets = batch(24)
    expected = focal_loss(logits, targets, reduction="none")
    for kind in (torch.int64, torch.bool, torch.float32):
        torch.testing.assert_close(focal_loss(logits, targets.to(kind), reduction="none"), expected)
    square = focal_loss(logits.view(2, 3, 4), targets.view(2, 3, 4), reduction="none")
    torch.testing.assert_close(square, expected.view(2, 3, 4))


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan")])
def test_a_target_that_is_no_class_is_an_error(value):
    with pytest.raises(ValueError, match=f"0 .*1 .*got {value}"):
        focal_loss(torch.zeros(3), torch.tensor([0.0, 1.0, value]))


@pytest.mark.parametrize("shape", [(3, 1), (1,), (2,), ()])
def test_shapes_that_differ_are_an_error_not_a_broadcast(shape):
    with pytest.raises(ValueError, match=r"\(3,\)") as caught:
        focal_loss(torch.zeros(3), torch.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"alpha": 1.01},
        {"alpha": -1},
        {"alpha": float("nan")},
        {"gamma": -0.1},
        {"gamma": float("inf")},
        {"gamma": float("nan")},
    ],
)
def test_parameters_out_of_range_are_an_error_that_names_them(parameters):
    ((name, value),) = parameters.items()
    for make in (lambda: FocalLoss(**parameters), lambda: focal_loss(torch.zeros(1), torch.zeros(1), **parameters)):
        with pytest.raises(ValueError, match=f"{name} .*{value}"):
            make()


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
    output = FocalLoss(alpha, gamma).optimal_output(risk)
    assert output == pytest.approx(1 / (1 + np.exp(-best.x)), abs=1e-4)  # a flat minimum is known to half the digits
    logit = np.log(output / (1 - output))
    assert expected_loss(logit, risk, alpha, gamma) <= best.fun * (1 + 1e-12)


@settings(max_examples=200)
@given(st.floats(1e-6, 0.95), ALPHA, GAMMA)
def test_output_and_risk_are_each_others_inverse(value, alpha, gamma):
    loss = FocalLoss(alpha, gamma)
    assert loss.optimal_output(loss.true_risk(value)) == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert loss.true_risk(loss.optimal_output(value)) == pytest.approx(value, rel=1e-6, abs=1e-9)


@given(ALPHA, GAMMA)
def test_the_risk_rises_with_the_output_from_nought_to_one(alpha, gamma):
    outputs = np.concatenate([[0, 5e-324, 1e-300], np.logspace(-30, -4, 50), np.linspace(0.001, 1, 500)])
    risks = FocalLoss(alpha, gamma).true_risk(outputs)
    assert (np.diff(risks) >= 0).all()
    assert (np.diff(risks[(outputs > 1e-4) & (outputs < 0.95)]) > 0).all()  # beyond, float64 runs out of digits below 1
    assert (risks[0], risks[-1]) == (0, 1)
    answers = FocalLoss(alpha, gamma).optimal_output(outputs)
    assert (np.diff(answers) >= 0).all()
    assert (answers[0], answers[-1]) == (0, 1)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), [0.2, 7.0]])
def test_what_is_no_probability_is_an_error(value):
    shown = value[1] if isinstance(value, list) else value
    for convert in (FocalLoss().true_risk, FocalLoss().optimal_output):
        with pytest.raises(ValueError, match=rf"\[0, 1\], got {shown}"):
            convert(value)
