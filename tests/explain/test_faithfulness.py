import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.cam_mult_image import multiply_tensor_with_cam
from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, RemoveLeastRelevantFirst, RemoveMostRelevantFirst, ROADCombined
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc

from melanoma_lib.explain import heatmaps
from melanoma_lib.explain.faithfulness import Perturbed, deletion_insertion, removal_ranks, road
from tests.explain.nets import cases, small_net
from tests.explain.peers import held


class Linear(torch.nn.Module):
    """A logit that is a weighted sum of the pixels of the first channel, plus the metadata."""

    def __init__(self, weights, bend=0.0):
        super().__init__()
        self.weights, self.bend = torch.nn.Parameter(weights), bend

    def forward(self, image, metadata):
        logit = (image[:, 0] * self.weights).sum((1, 2))
        return logit + self.bend * logit**2 + (0 if metadata is None else metadata.sum(1))


def linear_case(side=8, n=3, seed=0):
    """A linear model and images whose mean is 0, so that the mean baseline is nothing at all."""
    torch.manual_seed(seed)
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
    rising = whole - taken[:, ::-1]  # the least relevant are those that are left when the most relevant are gone
    np.testing.assert_allclose(found.most, offset + whole - taken, atol=1e-4)
    np.testing.assert_allclose(found.least, offset + whole - rising, atol=1e-4)
    np.testing.assert_allclose(found.shares, np.linspace(0, 1, steps + 1))
    assert steps == 1 or (found.gain() > 0).all()
    areas = [auc(found.shares, curve) for curve in 1 / (1 + np.exp(-(offset + whole - taken)))]
    np.testing.assert_allclose(found.deletion, areas, atol=1e-5)
    areas = [auc(found.shares, curve) for curve in 1 / (1 + np.exp(-(offset + taken)))]  # inserted step by step
    np.testing.assert_allclose(found.insertion, areas, atol=1e-5)


def test_the_best_map_of_a_linear_model_gains_most_and_its_opposite_loses_as_much():
    model, image, metadata = linear_case()
    best = (image[:, 0] * model.weights).detach()
    maps = torch.stack([best, -best, torch.randn_like(best)], 1)
    for found in (deletion_insertion(model, image, metadata, maps, baseline="mean"), road(model, image, metadata, maps)):
        first, last, chance = found.gain().T
        np.testing.assert_allclose(last, -first, atol=1e-4)
        assert (first > np.abs(chance)).all()


def test_metadata_cancel_in_the_logit_but_not_in_the_probability():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    maps = np.random.default_rng(0).normal(size=(2, 5, 5))
    for score in (deletion_insertion, road):
        first, second = (score(model, image, each, maps) for each in (metadata, metadata + 9))
        np.testing.assert_allclose(first.gain(), second.gain(), atol=1e-6)
        assert np.abs(first.gain("probability") - second.gain("probability")).max() > 1e-5


@pytest.mark.parametrize("score", [deletion_insertion, road])
def test_a_constant_map_scores_nothing_and_the_mean_over_random_orders_is_nothing(score):
    model, image, metadata = linear_case()
    model.bend = 0.3
    constant = score(model, image, metadata, np.full((3, 2, 3, 3), 0.7))
    np.testing.assert_allclose(constant.gain(), 0, atol=1e-5)
    np.testing.assert_allclose(constant.gain("probability"), 0, atol=1e-5)
    orders = score(model, image, metadata, torch.randn(3, 400, 8, 8))
    error = orders.gain().std(1) / np.sqrt(400)
    assert (np.abs(orders.gain().mean(1)) < 4 * error).all()
    draws = np.stack([score(model, image, metadata, np.ones((3, 8, 8)), seed=seed).most for seed in range(200)])
    spread = np.hypot(draws.std(0) / np.sqrt(200), orders.most.std(1) / np.sqrt(400))
    assert (np.abs(draws.mean(0) - orders.most.mean(1)) <= 4 * spread + 1e-4).all()  # a tie is a random order


@pytest.mark.parametrize("baseline", ["blur", "mean"])
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
def test_curves_are_those_of_altering_one_image_at_a_time(backbone, baseline):
    model, (image, metadata) = small_net(backbone), cases(backbone)
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


def percentile(share, pixels=4096):
    """What makes pytorch-grad-cam remove exactly as many pixels as we do: a level between two of them."""
    return 100 * (1 - (round(share * pixels) - 0.5) / (pixels - 1))


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_road_agrees_with_pytorch_grad_cam(backbone, direction):
    model, (image, metadata) = small_net(backbone), cases(backbone)
    maps = np.random.default_rng(0).permuted(np.tile(np.arange(4096, dtype=np.float32) / 4096, (2, 1)), axis=1).reshape(2, 64, 64)
    shares, target = (0.1, 0.4, 0.8), [lambda logit: direction * logit] * 2
    found = road(model, image, metadata, maps, direction, shares, noise=0)
    for curve, remover in ((found.most, RemoveMostRelevantFirst), (found.least, RemoveLeastRelevantFirst)):
        for at, share in enumerate(shares):
            metric = PerturbationConfidenceMetric(remover(percentile(share), NoisyLinearImputer(noise=0)))
            theirs = metric(image, maps, target, held(model, metadata), return_diff=False)
            np.testing.assert_allclose(curve[:, at], theirs, atol=2e-4)


def test_road_of_heatmaps_is_twice_the_combined_score_of_pytorch_grad_cam():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    maps = heatmaps(model, image, metadata, "blocks.0", "gradcam", size=64)["blocks.0"]
    shares = (0.2, 0.4, 0.6, 0.8)
    torch.manual_seed(0)
    combined = ROADCombined([20, 40, 60, 80])(image, maps, [lambda logit: logit] * 2, held(model, metadata))
    found = road(model, image, metadata, maps, shares=shares)
    mean = (found.least - found.most).mean(-1)  # theirs is a mean over the shares, ours an area
    spread = np.std(
        [(lambda each: each.least - each.most)(road(model, image, metadata, maps, shares=shares, seed=s)) for s in range(8)], 0
    )
    np.testing.assert_allclose(mean / 2, combined, atol=4 * spread.max() + 1e-3)


def test_multiplying_by_the_map_is_insertion_into_nothing():
    model, image, metadata = linear_case()
    maps = (torch.randn(3, 8, 8) > 0).float()  # of two levels: kept or not
    kept = multiply_tensor_with_cam(image, maps[:, None])
    for case in range(3):
        share = 1 - float(maps[case].mean())
        steps = 64
        found = deletion_insertion(
            model, image[case : case + 1], metadata[case : case + 1], maps[case : case + 1], steps=steps, baseline="mean"
        )
        expected = model(kept[case : case + 1], metadata[case : case + 1]).item()
        assert found.least[0, round(share * steps)] == pytest.approx(expected, abs=1e-4)


def test_noise_is_repeatable_and_of_the_size_asked_for():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    maps = np.random.default_rng(0).normal(size=(2, 8, 8))
    quiet, once, again, other = (
        road(model, image, metadata, maps, noise=n, seed=s) for n, s in ((0, 0), (0.1, 0), (0.1, 0), (0.1, 1))
    )
    np.testing.assert_array_equal(once.most, again.most)
    assert (once.most != other.most).all() and (once.most != quiet.most).all()
    linear, picture, held = Linear(torch.ones(8, 8)), torch.zeros(1, 3, 8, 8), None
    draws = [
        road(linear, picture, held, np.ones((1, 8, 8)), shares=[0.5], noise=0.5, seed=seed).most.item() for seed in range(400)
    ]
    assert np.std(draws) == pytest.approx(0.5 * np.sqrt(32), rel=0.15)  # the sum of 32 noisy pixels


def test_ranks_are_permutations_in_the_order_of_the_map():
    maps = torch.tensor(np.random.default_rng(0).choice([-1.0, 0, 0, 0, 2, 5], (4, 50)))
    most, least = removal_ranks(maps)
    for values, first, last in zip(maps, most, least, strict=True):
        assert sorted(first.tolist()) == sorted(last.tolist()) == list(range(50))
        assert (values[first.argsort()].diff() <= 0).all() and (values[last.argsort()].diff() >= 0).all()
        tied = values == 0
        assert torch.equal(first[tied].argsort(), last[tied].argsort())  # equals go in the same order at both ends
    assert not torch.equal(removal_ranks(torch.zeros(50))[0], torch.arange(50))


def test_one_map_and_several_agree_and_the_model_is_left_alone():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    model.image_branch.train()
    model.head.eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps = np.random.default_rng(0).normal(size=(2, 40, 4, 4))  # more than one chunk
    for score in (deletion_insertion, road):
        together = score(model, image, metadata, maps)
        for which in (0, 39):
            alone = score(model, image, metadata, torch.from_numpy(maps[:, which]))
            np.testing.assert_allclose(alone.most, together.most[:, which], atol=1e-5)
            assert alone.gain().shape == (2,) and together.gain().shape == (2, 40)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_metadata_is_asked_without():
    model = small_net("test_resnet", modalities="image")
    image, _ = cases("test_resnet")
    maps = np.random.default_rng(0).normal(size=(2, 4, 4))
    assert np.isfinite(deletion_insertion(model, image, None, maps).gain()).all()
    assert np.isfinite(road(model, image, None, maps).gain()).all()


def test_areas_by_hand():
    found = Perturbed(np.array([0.1, 0.3, 0.9]), np.array([[2.0, 0, -800]]), np.array([[2.0, 4, 4]]))
    np.testing.assert_allclose(found.area("most"), [(0.2 * 1 + 0.6 * -400) / 0.8])
    np.testing.assert_allclose(found.gain(), [(0.2 * 3 + 0.6 * 4) / 0.8 - (0.2 * 1 + 0.6 * -400) / 0.8])
    sure = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(found.scores("most", "probability"), [[sure, 0.5, 0]], atol=1e-15)
    np.testing.assert_allclose(Perturbed(np.array([0.5]), found.most[:, :1], found.least[:, 1:2]).gain(), [2.0])
    with pytest.raises(ValueError, match="got 'last' of 'logit'"):
        found.area("last")


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
