"""Class swap and shuffled weights against scipy and against shuffling by hand."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from melanoma_lib.explain import cam_layers, heatmaps
from melanoma_lib.explain.sanity import _stages, cascade, class_swap, spearman
from tests.explain.nets import BACKBONES, cases, small_net


@given(arrays(np.float32, (3, 7), elements=st.sampled_from([-2.0, 0.0, 0.5, 1.0])), st.integers(0, 99))
def test_spearman_is_that_of_scipy(first, seed):
    second = np.random.default_rng(seed).choice([1.0, 2, 3, 4], (3, 7))
    for found, a, b in zip(spearman(first, second), first, second, strict=True):
        flat = len(set(a)) == 1 or len(set(b)) == 1
        assert np.isnan(found) if flat else found == pytest.approx(spearmanr(a, b).statistic)


def by_scipy(first, second):
    return [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]


def test_which_methods_know_the_direction():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    found = class_swap(model, image, metadata, methods=("gradcam", "layercam", "xgradcam", "eigencam", "eigengradcam"))
    for layer in cam_layers(model):
        for method, expected in {"gradcam": -1, "xgradcam": -1, "eigencam": 1, "eigengradcam": -1}.items():
            np.testing.assert_allclose(found[method][layer], expected, atol=1e-4)
        ways = [heatmaps(model, image, metadata, layer, "layercam", direction)[layer] for direction in (1, -1)]
        np.testing.assert_allclose(found["layercam"][layer], by_scipy(*ways))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_cascade_goes_from_the_head_to_the_stem_over_every_weight(backbone):
    model, (image, metadata) = small_net(backbone), cases(backbone)
    stages, layers = _stages(model), list(cam_layers(model))
    assert next(iter(stages)) == "head" and next(reversed(stages)) in ("stem", layers[0])
    assert [stage for stage in stages if stage in layers] == [layer for layer in reversed(layers) if layer in stages]
    covered = [tensor.data_ptr() for tensors in stages.values() for tensor in tensors]
    weights = [*model.image_branch.parameters(), *model.head.parameters()]
    assert len(covered) == len(set(covered)) and {weight.data_ptr() for weight in weights} <= set(covered)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = cascade(model, image, metadata, methods=["gradcam", "eigencam"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(found) == list(stages)
    for layer in layers:  # EigenCAM knows nothing of what comes after its layer; Grad-CAM needs the head
        reached = list(found).index(layer if layer in found else "stem")
        kept = [found[stage]["eigencam"][layer] for stage in list(found)[:reached]]
        np.testing.assert_allclose(kept, 1)
        assert not np.allclose(found["head"]["gradcam"][layer], 1, atol=1e-3)


def test_the_cascade_is_that_of_shuffling_by_hand():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    found = cascade(model, image, metadata, methods=["gradcam"], direction=-1, seed=5)
    twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(5)
    weight = twin.head[1].weight
    weight.data = weight.data[:, torch.randperm(weight.numel(), generator=generator)]
    first, second = (heatmaps(each, image, metadata, method="gradcam", direction=-1) for each in (model, twin))
    other = cascade(model, image, metadata, methods=["gradcam"], direction=-1, seed=6)
    for layer in first:
        np.testing.assert_allclose(found["head"]["gradcam"][layer], by_scipy(first[layer], second[layer]))
        assert (found["stem"]["gradcam"][layer] != other["stem"]["gradcam"][layer]).any()
