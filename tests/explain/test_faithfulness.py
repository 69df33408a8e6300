"""Deletion and insertion against a linear model and one image at a time; ROAD against pytorch-grad-cam."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, RemoveLeastRelevantFirst, RemoveMostRelevantFirst
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc

from melanoma_lib.explain import ImageOnly
from melanoma_lib.explain.faithfulness import deletion_insertion, removal_ranks, road
from tests.explain.nets import cases, small_net


class Linear(torch.nn.Module):
    """A logit that is a weighted sum of the pixels of the first channel, plus the metadata."""

    def __init__(self, weights, bend=0.0):
        super().__init__()
        self.weights, self.bend = torch.nn.Parameter(weights), bend

    def forward(self, image, metadata):
        logit = (image[:, 0] * self.weights).sum((1, 2))
        return logit + self.bend * logit**2 + (0 if metadata is None else metadata.sum(1))


def linear_case(side=8, n=3):
    """A linear model and images whose mean is 0, so that the mean baseline is nothing at all."""
    torch.manual_seed(0)
    image = torch.randn(n, 3, side, side)
    return Linear(torch.randn(side, side)), image - image.mean((2, 3), keepdim=True), torch.randn(n, 4)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("steps", [1, 4, 64])
def test_the_curves_of_a_linear_model_are_known(steps, direction):
    model, image, metadata = linear_case()
    contributions = direction * (image[:, 0] * model.weights).detach().double()  # what a pixel adds to the score
    found = deletion_insertion(model, image, metadata, contributions, direction, steps, "mean")
    falling = contributions.flatten(1).sort(1, descending=True).values.numpy()
    taken = np.concatenate([np.zeros((3, 1)), np.cumsum(falling, 1)], 1)[:, np.round(np.linspace(0, 64, steps + 1)).astype(int)]
    offset, whole = direction * metadata.sum(1, keepdim=True).double().numpy(), falling.sum(1, keepdims=True)
    np.testing.assert_allclose(found.most, offset + whole - taken, atol=1e-4)
    np.testing.assert_allclose(found.least, offset + taken[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(found.shares, np.linspace(0, 1, steps + 1))
    areas = [auc(found.shares, curve) for curve in 1 / (1 + np.exp(-(offset + whole - taken)))]
    np.testing.assert_allclose(found.deletion, areas, atol=1e-5)
    areas = [auc(found.shares, curve) for curve in 1 / (1 + np.exp(-(offset + taken)))]  # inserted step by step
    np.testing.assert_allclose(found.insertion, areas, atol=1e-5)


@pytest.mark.parametrize("score", [deletion_insertion, road])
def test_the_best_map_gains_most_its_opposite_loses_as_much_and_chance_gains_nothing(score):
    model, image, metadata = linear_case()
    best = (image[:, 0] * model.weights).detach()
    baseline = {"baseline": "mean"} if score is deletion_insertion else {}
    first, last, chance = (
        score(model, image, metadata, torch.stack([best, -best, torch.randn_like(best)], 1), **baseline).gain().T
    )
    np.testing.assert_allclose(last, -first, atol=1e-4)
    assert (first > np.abs(chance)).all()
    model.bend = 0.3
    np.testing.assert_allclose(score(model, image, metadata, np.full((3, 2, 3, 3), 0.7)).gain(), 0, atol=1e-5)  # a constant map
    orders = score(model, image, metadata, torch.randn(3, 60, 8, 8))
    error = orders.gain().std(1) / np.sqrt(60)
    assert (np.abs(orders.gain().mean(1)) < 4 * error).all()


@pytest.mark.parametrize("baseline", ["blur", "mean"])
def test_curves_are_those_of_altering_one_image_at_a_time(baseline):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    maps = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    found = deletion_insertion(model, image, metadata, maps, -1, 5, baseline)
    assert found.most.shape == found.least.shape == (2, 3, 6)
    for case in range(2):
        nothing = image[case].mean((1, 2), keepdim=True).expand(3, 64, 64).numpy()
        if baseline == "blur":
            nothing = np.stack([gaussian_filter(channel, 4.0, mode="reflect") for channel in image[case].numpy()])
        for which in range(3):
            order = np.argsort(-maps[case, which].ravel())
            for at, share in enumerate(found.shares):
                n = round(share * 4096)
                for curve, gone in ((found.most, order[:n]), (found.least, order[4096 - n :])):
                    altered = image[case].numpy().reshape(3, -1).copy()
                    altered[:, gone] = nothing.reshape(3, -1)[:, gone]
                    with torch.no_grad():
                        logit = model(torch.from_numpy(altered).view(1, 3, 64, 64), metadata[case : case + 1])
                    assert curve[case, which, at] == pytest.approx(-float(logit[0]), abs=1e-4)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext"])
def test_road_is_the_score_of_pytorch_grad_cam(backbone, direction):
    model, (image, metadata) = small_net(backbone), cases(backbone)
    maps = np.random.default_rng(0).permuted(np.tile(np.arange(4096, dtype=np.float32) / 4096, (2, 1)), axis=1).reshape(2, 64, 64)
    shares, target = (0.1, 0.4, 0.8), [lambda logit: direction * logit] * 2
    found = road(model, image, metadata, maps, direction, shares, noise=0)
    for curve, remover in ((found.most, RemoveMostRelevantFirst), (found.least, RemoveLeastRelevantFirst)):
        for at, share in enumerate(shares):
            percentile = 100 * (1 - (round(share * 4096) - 0.5) / 4095)  # between two pixels: as many go as with us
            metric = PerturbationConfidenceMetric(remover(percentile, NoisyLinearImputer(noise=0)))
            theirs = metric(image, maps, target, ImageOnly(model, metadata), return_diff=False)
            np.testing.assert_allclose(curve[:, at], theirs, atol=2e-4)


def test_noise_is_repeatable_and_of_the_size_asked_for():
    linear, picture, maps = Linear(torch.ones(8, 8)), torch.zeros(1, 3, 8, 8), np.ones((1, 8, 8))
    draws = [road(linear, picture, None, maps, shares=[0.5], noise=0.5, seed=seed).most.item() for seed in range(200)]
    assert road(linear, picture, None, maps, shares=[0.5], noise=0.5, seed=7).most.item() == draws[7]
    assert np.std(draws) == pytest.approx(0.5 * np.sqrt(32), rel=0.2)  # the sum of 32 noisy pixels


def test_ranks_are_permutations_in_the_order_of_the_map():
    maps = torch.tensor(np.random.default_rng(0).choice([-1.0, 0, 0, 0, 2, 5], (4, 50)))
    for values, first, last in zip(maps, *removal_ranks(maps), strict=True):
        assert sorted(first.tolist()) == sorted(last.tolist()) == list(range(50))
        assert (values[first.argsort()].diff() <= 0).all() and (values[last.argsort()].diff() >= 0).all()
        assert torch.equal(first[values == 0].argsort(), last[values == 0].argsort())  # equals go in one order at both ends
    assert not torch.equal(removal_ranks(torch.zeros(50))[0], torch.arange(50))


@pytest.mark.parametrize("score", [deletion_insertion, road])
def test_one_map_and_several_agree_metadata_cancel_and_the_model_is_left_alone(score):
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    model.image_branch.train()
    model.head.eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    together, alone = score(model, image, metadata, maps), score(model, image, metadata + 9, torch.from_numpy(maps[:, 2]))
    np.testing.assert_allclose(alone.gain(), together.gain()[:, 2], atol=1e-5)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": np.ones((3, 4, 4))}, r"got \(3, 4, 4\) for \(2, 3, 64, 64\)"),
        ({"maps": np.ones((2, 4))}, "expected shape"),
        ({"maps": np.ones((2, 0, 4, 4))}, "expected shape"),
        ({"maps": np.full((2, 4, 4), np.nan)}, "finite values, got 32"),
        ({"direction": 0}, "expected 1 .melanoma. or -1"),
        ({"image": torch.full((2, 3, 64, 64), torch.inf), "baseline": "mean"}, "finite logits"),
        ({"steps": 0}, "at least 1, got 0"),
        ({"baseline": "black"}, "expected blur or mean, got 'black'"),
        ({"shares": [0.5, 0.5]}, "expected increasing"),
        ({"shares": []}, "expected increasing"),
        ({"shares": [0.5, 1.0]}, "keep one"),
        ({"shares": [0.0, 0.5]}, "remove a pixel"),
        ({"noise": -1}, "expected 0 or more"),
    ],
)
def test_bad_input_is_an_error(change, message):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    score = road if {"shares", "noise"} & set(change) else deletion_insertion
    with pytest.raises(ValueError, match=message):
        score(**{"model": model, "image": image, "metadata": metadata, "maps": np.ones((2, 4, 4))} | change)
