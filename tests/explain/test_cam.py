"""Heatmaps against pytorch-grad-cam, on small random nets of every kind and on trained ones; and the model left as it was."""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pytorch_grad_cam import EigenCAM, GradCAM, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget

from melanoma_lib.explain import CAM_METHODS, ImageOnly, cam_layers, heatmaps
from melanoma_lib.explain.formulas import eigencam
from tests.explain.nets import BACKBONES, cases, small_net

NAMELESS_SIGN = ("eigencam", "eigengradcam")  # of which pytorch-grad-cam leaves the sign to the decomposition
# Layers from which every way on starts with a layer norm: gradient times activation sums to nothing.
BEFORE_A_NORM = {
    "test_convnext": ("stages.0", "stages.1", "stages.2"),
    "test_vit": ("blocks.4",),
    "test_mambaout": ("stages.0", "stages.1", "stages.2"),
}


def stretched(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What pytorch-grad-cam makes of signed maps ``(B, h, w)``: no negatives, stretched to [0, 1], enlarged, stretched again."""
    return scale_cam_image(np.maximum(scale_cam_image(np.maximum(maps, 0), size), 0))


def largest_difference(ours: np.ndarray, theirs: np.ndarray, signs: tuple[int, ...]) -> np.ndarray:
    """How far signed maps ``(B, h, w)`` lie from finished ones ``(B, H, W)``, by case, with the sign that fits better."""
    return np.min([np.abs(stretched(sign * ours, theirs.shape[:0:-1]) - theirs).max((1, 2)) for sign in signs], axis=0)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("method", CAM_METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_agree_with_pytorch_grad_cam(backbone, method, direction):
    model, (image, metadata) = small_net(backbone), cases(backbone)
    ours = heatmaps(model, image, metadata, method=method, direction=direction)
    published = heatmaps(model, image, metadata, method=method, direction=direction, as_published=True)
    for name, theirs in published.items():
        assert method == "hirescam" or np.abs(ours[name]).max() > 1e-8, name  # the gradient reaches every layer offered
        if method == "hirescam" and name in BEFORE_A_NORM.get(backbone, ()):
            np.testing.assert_array_equal(ours[name], 0)  # theirs is rounding error, stretched to [0, 1]
            continue
        signs = (1, -1) if method in NAMELESS_SIGN else (1,)
        np.testing.assert_array_less(largest_difference(ours[name], theirs, signs), 1e-4, err_msg=name)


@pytest.mark.parametrize(("method", "engine"), [("gradcam", GradCAM), ("eigencam", EigenCAM), ("scorecam", ScoreCAM)])
def test_maps_as_published_are_those_a_reader_of_pytorch_grad_cam_gets(method, engine):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    found = heatmaps(model, image, metadata, ["layer3", "layer2"], method, direction=-1, as_published=True)
    assert list(found) == ["layer3", "layer2"] and found["layer2"].shape == (2, 64, 64)
    with engine(ImageOnly(model, metadata[1:]), [cam_layers(model)["layer2"].module]) as cam:
        theirs = cam(image[1:], [BinaryClassifierOutputTarget(0)])
    np.testing.assert_allclose(found["layer2"][1], theirs[0], atol=1e-4)


def state(model):
    """All that a call must leave alone."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [(id(one), one.training, *(len(getattr(one, kind)) for kind in hooks)) for one in model.modules()]
    gradients = [(one.requires_grad, one.grad is not None and bytes(one.grad.numpy())) for one in model.parameters()]
    return modules, gradients, {name: bytes(value.numpy()) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("method", "published"), [*((method, False) for method in CAM_METHODS), ("scorecam", True)])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was_also_by_a_call_that_fails(method, published, fails, capfd):
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    model(image, metadata).sum().backward()  # gradients of an earlier step
    model.train()
    model.image_branch.blocks.eval().requires_grad_(False)

    def fail(*_):
        raise RuntimeError("out of memory")

    if fails:
        model.head.register_forward_pre_hook(fail)
    before = state(model)
    with pytest.raises(RuntimeError, match="out of memory") if fails else nullcontext():
        found = heatmaps(model, image, metadata, ["blocks.3", "blocks.1"], method, as_published=published)
        assert list(found) == ["blocks.3", "blocks.1"]
        assert all(heatmap.dtype == np.float32 and np.isfinite(heatmap).all() for heatmap in found.values())
    assert state(model) == before
    assert capfd.readouterr().err == ""  # pytorch-grad-cam would draw a bar


@pytest.mark.parametrize(("method", "published"), [("gradcam", False), ("eigengradcam", False), ("scorecam", True)])
def test_frozen_training_and_gradient_free_callers_change_nothing(method, published):
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    options = {"layers": ["blocks.0", "blocks.3"], "method": method, "as_published": published}
    expected = heatmaps(model, image, metadata, **options)
    with torch.inference_mode():  # inference tensors refuse to be part of a graph
        found = [heatmaps(model, image.clone(), metadata.clone(), **options)]
    model.train().requires_grad_(False)
    found += [heatmaps(model, image, metadata, **options)]
    for maps, (name, wanted) in itertools.product(found, expected.items()):
        np.testing.assert_allclose(maps[name], wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("method", CAM_METHODS)
def test_a_model_that_is_dead_or_an_image_that_is_flat_gives_finite_maps(method):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    flat = heatmaps(model, torch.full_like(image, 0.5), metadata, "layer4", method)["layer4"]
    assert np.isfinite(flat).all()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = heatmaps(model, image, metadata, "layer4", method)
    np.testing.assert_array_equal(found["layer4"], 0)
    assert found.doubtful_sign["layer4"].all() == (method in NAMELESS_SIGN)


def test_eigen_maps_are_positive_where_the_layer_responds_and_admit_when_they_cannot_tell():
    clear, even = torch.zeros(4, 6, 6), torch.ones(4, 6, 6)
    clear[:, 1:3, 1:3] = torch.tensor([3.0, -1, 2, -5])[:, None, None]
    even[:, :, 3:] = -1  # both halves respond equally strongly, in opposite directions
    maps, alignment = eigencam(torch.stack([clear, even]))
    assert (maps[0, 1:3, 1:3] > 0).all() and (maps[0, 4:] < 0).all()
    assert alignment[0] > 0.99 and alignment[1] < 0.01


def test_errors_name_what_works():
    given = small_net("test_resnet"), *cases("test_resnet")
    with pytest.raises(ValueError, match=r"\['act1', 'layer1', 'layer2', 'layer3', 'layer4'\], got \['layer9'\]"):
        heatmaps(*given, layers="layer9")
    with pytest.raises(ValueError, match=r"method: expected one of .*'gradcam'.*got 'scorecam'"):
        heatmaps(*given, method="scorecam")
