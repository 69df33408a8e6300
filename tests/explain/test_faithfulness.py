"""Deletion and insertion against one image at a time and scikit-learn; ROAD against pytorch-grad-cam."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, RemoveLeastRelevantFirst, RemoveMostRelevantFirst
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from sklearn.metrics import auc

from melanoma_lib.explain import ImageOnly
from melanoma_lib.explain.faithfulness import deletion_insertion, road
from tests.explain.nets import cases, small_net


@pytest.mark.parametrize("score", [deletion_insertion, road])
def test_a_constant_map_gains_nothing_and_chance_gains_nothing_on_average(score):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    np.testing.assert_allclose(score(model, image, metadata, np.full((2, 2, 3, 3), 0.7)).gain(), 0, atol=1e-5)
    torch.manual_seed(0)
    gain = score(model, image, metadata, torch.randn(2, 30, 8, 8)).gain()
    assert (np.abs(gain.mean(1)) < 4 * gain.std(1) / np.sqrt(30)).all()


@pytest.mark.parametrize(("baseline", "direction"), [("blur", 1), ("mean", -1)])
def test_curves_and_areas_are_those_of_altering_one_image_at_a_time(baseline, direction):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    maps = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    found = deletion_insertion(model, image, metadata, maps, direction, 5, baseline)
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
                    assert curve[case, which, at] == pytest.approx(direction * float(logit[0]), abs=1e-4)
            for area, curve in ((found.deletion, found.most), (found.insertion, found.least)):
                assert area[case, which] == pytest.approx(auc(found.shares, expit(curve[case, which])), abs=1e-5)
    np.testing.assert_allclose(found.shares, np.linspace(0, 1, 6))


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
    class Sum(torch.nn.Linear):  # for its weights: a model has a device
        def forward(self, image, metadata):
            return image[:, 0].sum((1, 2))

    total, picture, maps = Sum(1, 1), torch.zeros(1, 3, 8, 8), np.ones((1, 8, 8))
    draws = [road(total, picture, None, maps, shares=[0.5], noise=0.5, seed=seed).most.item() for seed in range(200)]
    assert road(total, picture, None, maps, shares=[0.5], noise=0.5, seed=7).most.item() == draws[7]
    assert np.std(draws) == pytest.approx(0.5 * np.sqrt(32), rel=0.2)  # the sum of 32 noisy pixels


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
        ({"maps": np.ones((2, 0, 4, 4))}, "expected shape"),
        ({"maps": np.full((2, 4, 4), np.nan)}, "finite values, got 32"),
        ({"direction": 0}, "expected 1 .melanoma. or -1"),
        ({"image": torch.full((2, 3, 64, 64), torch.inf), "baseline": "mean"}, "finite logits"),
        ({"steps": 0}, "at least 1, got 0"),
        ({"baseline": "black"}, "expected blur or mean, got 'black'"),
        ({"shares": [0.5, 0.5]}, "expected increasing"),
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
