import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from melanoma_lib.explain import cam_layers, heatmaps
from melanoma_lib.explain.cam import heatmaps_by_method
from melanoma_lib.explain.sanity import _stages, cascade, class_swap, flip_repeatability, spearman
from tests.explain.nets import BACKBONES, cases, small_net


@given(arrays(np.float32, (3, 7), elements=st.sampled_from([-2.0, 0.0, 0.5, 1.0])), st.integers(0, 99))
def test_spearman_is_that_of_scipy(first, seed):
    second = np.random.default_rng(seed).choice([1.0, 2, 3, 4], (3, 7))
    for found, a, b in zip(spearman(first, second), first, second, strict=True):
        if len(set(a)) == 1 or len(set(b)) == 1:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(spearmanr(a, b).statistic)
    assert np.isin(spearman(first, first), [1]).sum() == sum(len(set(row)) > 1 for row in first)


def test_which_methods_know_the_direction():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    methods = ("gradcam", "gradcam++", "layercam", "xgradcam", "hirescam", "eigencam", "eigengradcam")
    found = class_swap(model, image, metadata, methods=methods)
    assert list(found) == list(methods) and all(list(by_layer) == list(cam_layers(model)) for by_layer in found.values())
    for layer in cam_layers(model):
        for method in ("gradcam", "xgradcam", "hirescam"):
            np.testing.assert_allclose(found[method][layer], -1)
        np.testing.assert_allclose(found["eigencam"][layer], 1)
        np.testing.assert_allclose(found["eigengradcam"][layer], -1, atol=1e-4)
        first, second = (heatmaps(model, image, metadata, layer, "layercam", direction)[layer] for direction in (1, -1))
        expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(found["layercam"][layer], expected)


@pytest.mark.parametrize("move", ["mirror", "upside_down", "quarter_turn"])
def test_repeatability_is_that_of_maps_moved_by_hand(move):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    there = {"mirror": np.fliplr, "upside_down": np.flipud, "quarter_turn": np.rot90}[move]
    back = {"mirror": np.fliplr, "upside_down": np.flipud, "quarter_turn": lambda each: np.rot90(each, 3)}[move]
    moved = torch.from_numpy(np.stack([np.stack([there(channel) for channel in each]) for each in image.numpy()]).copy())
    found = flip_repeatability(model, image, metadata, methods=["gradcam"], direction=-1, moves=[move])["gradcam"]
    first, second = (heatmaps(model, each, metadata, method="gradcam", direction=-1) for each in (image, moved))
    for layer in cam_layers(model):
        expected = [spearmanr(a.ravel(), back(b).ravel()).statistic for a, b in zip(first[layer], second[layer], strict=True)]
        np.testing.assert_allclose(found[layer], expected)
    assert max(np.abs(1 - each).max() for each in found.values()) > 0.01  # a random network has an upside


def test_a_symmetric_image_repeats_and_moves_are_averaged():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    layer = list(cam_layers(model))[1]
    each = [
        flip_repeatability(model, image, metadata, layer, moves=[move])["gradcam"][layer] for move in ("mirror", "upside_down")
    ]
    both = flip_repeatability(model, image, metadata, layer, moves=("mirror", "upside_down"))["gradcam"][layer]
    np.testing.assert_allclose(both, np.mean(each, axis=0))
    symmetric = image + image.flip(-1)
    maps = heatmaps(model, symmetric, metadata, layer, "gradcam")[layer]
    expected = [spearmanr(one.ravel(), one[:, ::-1].ravel()).statistic for one in maps]
    found = flip_repeatability(model, symmetric, metadata, layer, moves=["mirror"])["gradcam"][layer]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_cascade_goes_from_the_head_to_the_stem_over_every_weight(backbone):
    model, (image, metadata) = small_net(backbone), cases(backbone)
    stages = _stages(model)
    layers = list(cam_layers(model))
    assert next(iter(stages)) == "head" and next(reversed(stages)) in ("stem", layers[0])
    assert [stage for stage in stages if stage in layers] == [layer for layer in reversed(layers) if layer in stages]
    covered = [tensor.data_ptr() for tensors in stages.values() for tensor in tensors]
    weights = [*model.image_branch.parameters(), *model.head.parameters()]
    assert len(covered) == len(set(covered)) and {weight.data_ptr() for weight in weights} <= set(covered)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = cascade(model, image, metadata, methods=["gradcam", "eigencam"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.stages == tuple(stages)
    assert found.similarity["gradcam"][layers[0]].shape == (len(stages), 2)
    np.testing.assert_allclose(found.similarity["eigencam"][layers[-1]][0], 1)  # knows nothing of the head


def test_a_layer_keeps_its_eigencam_until_the_cascade_reaches_it_and_gradcam_feels_the_head():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    found = cascade(model, image, metadata, methods=["gradcam", "eigencam"], seed=3)
    for layer, by_stage in found.similarity["eigencam"].items():
        reached = found.stages.index(layer if layer in found.stages else "stem")  # act1 ends the stem
        np.testing.assert_allclose(by_stage[:reached], 1)
        assert (by_stage[reached:] < 0.999).all()
        assert (found.similarity["gradcam"][layer][0] < 0.999).all()


def test_the_cascade_is_that_of_shuffling_by_hand():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    found = cascade(model, image, metadata, methods=["gradcam"], direction=-1, seed=5)
    twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(5)
    weight, bias = twin.head[1].weight, twin.head[1].bias
    weight.data = weight.data[:, torch.randperm(weight.numel(), generator=generator)]
    torch.testing.assert_close(weight.sort().values, model.head[1].weight.sort().values, rtol=0, atol=0)
    assert torch.equal(bias, model.head[1].bias)
    first, second = (heatmaps_by_method(each, image, metadata, ["gradcam"], direction=-1)["gradcam"] for each in (model, twin))
    for layer, maps in first.items():
        expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, second[layer], strict=True)]
        np.testing.assert_allclose(found.similarity["gradcam"][layer][0], expected)
    again = cascade(model, image, metadata, methods=["gradcam"], direction=-1, seed=5)
    other = cascade(model, image, metadata, methods=["gradcam"], direction=-1, seed=6)
    for layer, by_stage in found.similarity["gradcam"].items():
        np.testing.assert_array_equal(by_stage, again.similarity["gradcam"][layer])
        assert (by_stage != other.similarity["gradcam"][layer]).any()


def test_the_model_is_left_alone_when_a_map_fails(monkeypatch):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = []

    def fail_later(*arguments):
        asked.append(arguments[0])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return heatmaps_by_method(*arguments)

    monkeypatch.setattr("melanoma_lib.explain.sanity.heatmaps_by_method", fail_later)
    with pytest.raises(KeyboardInterrupt):
        cascade(model, image, metadata)
    assert asked[0] is model and asked[2] is not model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_constant_map_has_no_similarity():
    model, (image, metadata) = small_net("test_convnext"), cases("test_convnext")
    layer = "stages.1"  # before a layer norm HiResCAM is 0 everywhere
    assert np.isnan(class_swap(model, image, metadata, layer, ["hirescam"])["hirescam"][layer]).all()
    assert np.isnan(flip_repeatability(model, image, metadata, layer, ["hirescam"])["hirescam"][layer]).all()


def test_bad_moves_are_errors():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    with pytest.raises(ValueError, match=r"expected some of \['mirror', 'upside_down', 'quarter_turn'\], got \['spin'\]"):
        flip_repeatability(model, image, metadata, moves=["mirror", "spin"])
    with pytest.raises(ValueError, match="expected some of"):
        flip_repeatability(model, image, metadata, moves=[])
    with pytest.raises(ValueError, match=r"needs square images, got \(64, 48\)"):
        flip_repeatability(model, image[..., :48], metadata)
