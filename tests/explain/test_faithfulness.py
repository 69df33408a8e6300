"""Deletion and insertion against one image at a time and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from sklearn.metrics import auc

from melanoma_lib.explain.faithfulness import deletion_insertion
from tests.explain.nets import cases, small_net


def test_a_constant_map_gains_nothing_and_chance_gains_nothing_on_average():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    np.testing.assert_allclose(deletion_insertion(model, image, metadata, np.full((2, 2, 3, 3), 0.7)).gain(), 0, atol=1e-5)
    torch.manual_seed(0)
    gain = deletion_insertion(model, image, metadata, torch.randn(2, 30, 8, 8)).gain()
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


def test_one_map_and_several_agree_metadata_cancel_and_the_model_is_left_alone():
    model, (image, metadata) = small_net("test_efficientnet").train(), cases("test_efficientnet")
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    together = deletion_insertion(model, image, metadata, maps)
    alone = deletion_insertion(model, image, metadata + 9, torch.from_numpy(maps[:, 2]))
    np.testing.assert_allclose(alone.gain(), together.gain()[:, 2], atol=1e-5)
    assert all(module.training for module in model.modules())


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \(3, 4, 4\) for \(2, 3, 64, 64\)"):
        deletion_insertion(small_net("test_resnet"), *cases("test_resnet"), np.ones((3, 4, 4)))
