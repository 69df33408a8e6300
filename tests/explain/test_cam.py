import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_grad_cam import AblationCAM, AblationLayer, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

from melanoma_lib.explain import CAM_METHODS, cam_layers, heatmaps
from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.methods import eigencam, eigengradcam, principal_map
from melanoma_lib.model import MelanomaNet
from tests.explain.nets import BACKBONES, N_METADATA, cases, small_net
from tests.explain.peers import NAMELESS_SIGN, PEERS, held, largest_difference, peer_maps, stretched

# Layers from which every way on starts with a layer norm: gradient times activation sums to nothing.
BEFORE_A_NORM = {
    "test_convnext": ("stages.0", "stages.1", "stages.2"),
    "test_vit": ("blocks.4",),
    "test_mambaout": ("stages.0", "stages.1", "stages.2"),
}


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("method", PEERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_agree_with_pytorch_grad_cam(backbone, method, direction):
    model, (image, metadata) = small_net(backbone), cases(backbone)
    ours = heatmaps(model, image, metadata, method=method, direction=direction)
    for name in cam_layers(model):
        if method == "hirescam" and name in BEFORE_A_NORM.get(backbone, ()):
            np.testing.assert_array_equal(ours[name], 0)  # theirs is rounding error, stretched to [0, 1]
            continue
        theirs = peer_maps(method, model, image, metadata, name, direction)
        np.testing.assert_array_less(largest_difference(ours[name], theirs, method), 1e-4, err_msg=name)


@pytest.fixture(scope="module")
def fine_tuned():
    """ImageNet weights and a few steps towards telling bright images from dark ones."""
    torch.manual_seed(0)
    model = MelanomaNet("tf_efficientnet_lite0", N_METADATA).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before, losses = model.image_branch.conv_stem.weight.detach().clone(), []
    for _ in range(6):
        target = torch.arange(8) % 2.0
        image = 0.3 * torch.randn(8, 3, 64, 64) + (target - 0.5)[:, None, None, None]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(image, torch.randn(8, N_METADATA)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and not torch.equal(model.image_branch.conv_stem.weight, before)
    return model.eval()


@pytest.mark.parametrize("method", PEERS)
@pytest.mark.parametrize("trained", ["fine_tuned", "tiny_run"])
def test_maps_of_a_trained_model_agree_with_pytorch_grad_cam(trained, method, request):
    model = request.getfixturevalue(trained)
    model = model.model() if trained == "tiny_run" else model
    generator = torch.Generator().manual_seed(2)
    image, metadata = torch.randn(3, 3, 96, 96, generator=generator), torch.randn(3, model.n_metadata, generator=generator)
    ours = heatmaps(model, image, metadata, method=method)
    for name in cam_layers(model):
        theirs = peer_maps(method, model, image, metadata, name)
        np.testing.assert_array_less(largest_difference(ours[name], theirs, method), 1e-4, err_msg=name)


class Zeroed(AblationLayer):
    """Ablation to zero as published, on whichever axis the channels lie."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def set_next_batch(self, input_batch_index, activations, num_channels_to_ablate):
        self.activations = torch.stack([activations[input_batch_index]] * num_channels_to_ablate)

    def __call__(self, _):
        for copy, channel in enumerate(self.indices[: len(self.activations)]):
            self.activations[copy].movedim(self.layer.channel_axis - (self.layer.channel_axis > 0), 0)[channel] = 0
        return self.activations


def assert_asking_again_agrees(method, model, image, metadata, direction):
    """Raw maps of every layer, from pytorch-grad-cam's own weights and the layer's true activations."""
    layers, caught = cam_layers(model), {}
    handles = [
        layer.module.register_forward_hook(lambda _module, _inputs, output, name=name: caught.update({name: output}))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        scores = direction * model(image, metadata).numpy()
    for handle in handles:
        handle.remove()
    found = heatmaps(model, image, metadata, method=method, direction=direction)
    for name, layer in layers.items():
        activations = layer.as_maps(caught[name], image.shape[2:]).numpy()
        for case, score in enumerate(scores):
            one, alone = slice(case, case + 1), held(model, metadata[case : case + 1])
            engine = ScoreCAM(alone, []) if method == "scorecam" else AblationCAM(alone, [], ablation_layer=Zeroed(layer))
            targets = [lambda logit: direction * logit]
            (theirs,) = engine.get_cam_image(image[one], layer.module, targets, activations[one], None)
            sign = np.sign(score) if method == "ablationcam" else 1  # they divide by the score, we by its size
            np.testing.assert_allclose(found[name][case], sign * theirs, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.mark.parametrize("direction", [1, -1])  # of which one goes against the logit
@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_that_ask_again_agree_with_pytorch_grad_cam(backbone, method, direction):
    assert_asking_again_agrees(method, small_net(backbone), *cases(backbone), direction)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_maps_of_a_trained_model_that_ask_again_agree_with_pytorch_grad_cam(tiny_run, method):
    model = tiny_run.model()
    generator = torch.Generator().manual_seed(3)
    image, metadata = torch.randn(2, 3, 64, 64, generator=generator), torch.randn(2, model.n_metadata, generator=generator)
    assert_asking_again_agrees(method, model, image, metadata, 1)


def test_ablation_to_zero_is_the_default_of_pytorch_grad_cam_after_a_relu():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet", n=1)
    layer = cam_layers(model)["layer2"]
    ours = heatmaps(model, image, metadata, layers="layer2", method="ablationcam")["layer2"]
    with AblationCAM(held(model, metadata), [layer.module]) as engine:
        theirs = engine(image, targets=[lambda logit: logit])
    sign = np.sign(model(image, metadata).item())
    np.testing.assert_allclose(stretched(sign * ours, (64, 64)), theirs, atol=1e-4)


@pytest.mark.parametrize("method", ["eigencam", "gradcam", "eigengradcam"])
def test_all_layers_take_one_forward_and_at_most_one_backward_pass(method, monkeypatch):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    forward, backward, asked = [], [], torch.autograd.grad
    model.register_forward_hook(lambda *_: forward.append(1))
    for layer in cam_layers(model).values():
        layer.module.register_forward_hook(lambda *_: forward.append(1))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: backward.append(1) or asked(*a, **k))
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_, **__: pytest.fail("a second way back"))
    found = heatmaps(model, image, metadata, method=method)
    assert len(found) == 5 and len(forward) == 6
    assert len(backward) == (method != "eigencam")


def state(model):
    """All that a call must leave alone."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modes": [module.training for module in model.modules()],
        "modules": [id(module) for module in model.modules()],
        "hooks": [len(getattr(module, kind)) for module in model.modules() for kind in hooks],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [None if parameter.grad is None else bytes(parameter.grad.numpy()) for parameter in model.parameters()],
        "values": {name: bytes(value.numpy()) for name, value in model.state_dict().items()},
        "parameters": [id(parameter) for parameter in model.parameters()],
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def untidy_net():
    """Half frozen, half in training, with gradients of an earlier step."""
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    model(image, metadata).sum().backward()
    model.train()
    model.image_branch.blocks.eval()
    model.image_branch.blocks.requires_grad_(False)
    return model, image, metadata


@pytest.mark.parametrize("method", CAM_METHODS)
def test_the_model_is_left_as_it_was(method):
    model, image, metadata = untidy_net()
    before = state(model)
    found = heatmaps(model, image, metadata, layers=["blocks.3", "blocks.1"], method=method)
    assert state(model) == before
    assert list(found) == ["blocks.3", "blocks.1"]
    assert all(heatmap.dtype == np.float32 and np.isfinite(heatmap).all() for heatmap in found.values())


@pytest.mark.parametrize(
    ("method", "call"),
    [("eigencam", 1), ("gradcam", 1), ("scorecam", 1), ("scorecam", 3), ("ablationcam", 2), ("ablationcam", 3)],
)
@pytest.mark.parametrize("part", ["image_branch.blocks.4", "head"])
def test_the_model_is_left_as_it_was_when_a_call_fails(method, call, part):
    model, image, metadata = untidy_net()
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == call:
            raise RuntimeError("out of memory")

    model.get_submodule(part).register_forward_pre_hook(fail)
    before = state(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        heatmaps(model, image, metadata, layers=["blocks.1"], method=method)
    assert state(model) == before


@pytest.mark.parametrize("method", ["gradcam", "eigengradcam", "scorecam"])
def test_frozen_training_channels_last_and_gradient_free_callers_change_nothing(method):
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")

    def maps():
        return heatmaps(model, image, metadata, layers=["blocks.0", "blocks.3"], method=method)

    expected = maps()

    def check(found):
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-4 * np.abs(expected[name]).max())

    with torch.no_grad():
        check(maps())
    with torch.inference_mode():
        image, metadata = image.clone(), metadata.clone()  # inference tensors, which refuse to be part of a graph
        check(maps())
    image, metadata = cases("test_efficientnet")
    check(heatmaps(model.train(), image, metadata, layers=["blocks.3", "blocks.0"], method=method))
    model.requires_grad_(False)
    check(maps())
    model.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    check(maps())


def test_a_step_in_place_after_the_layer_does_not_change_what_was_caught():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    expected = heatmaps(model, image, metadata, layers=["layer1"])["layer1"]

    def spoil(_module, inputs):
        inputs[0].mul_(-2).cos_()

    model.image_branch.layer2.register_forward_pre_hook(spoil)
    np.testing.assert_array_equal(heatmaps(model, image, metadata, layers=["layer1"])["layer1"], expected)
    assert np.isfinite(heatmaps(model, image, metadata, layers=["layer1"], method="gradcam")["layer1"]).all()


def test_each_case_has_its_own_map_and_metadata():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet", n=3)
    for method in ("hirescam", "eigencam", "ablationcam", "scorecam"):
        together = heatmaps(model, image, metadata, layers="blocks.3", method=method)["blocks.3"]
        alone = [heatmaps(model, image[i : i + 1], metadata[i : i + 1], "blocks.3", method)["blocks.3"][0] for i in range(3)]
        np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4 * np.abs(together).max())
    other = heatmaps(model, image, metadata + 3, layers="blocks.3", method="ablationcam")["blocks.3"]
    assert np.abs(other - heatmaps(model, image, metadata, "blocks.3", "ablationcam")["blocks.3"]).max() > 1e-4


def test_directions():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    for method in ("gradcam", "hirescam", "xgradcam", "ablationcam", "eigengradcam"):
        up, down = (heatmaps(model, image, metadata, "layer3", method, direction)["layer3"] for direction in (1, -1))
        np.testing.assert_allclose(up, -down, atol=1e-5 * np.abs(up).max())
    up, down = (heatmaps(model, image, metadata, "layer3", "layercam", direction)["layer3"] for direction in (1, -1))
    assert (up >= 0).all() and (down >= 0).all()  # positive gradients, after a ReLU
    gradient_times_activation = heatmaps(model, image, metadata, "layer3", "hirescam")["layer3"]
    np.testing.assert_allclose(up - down, gradient_times_activation, atol=1e-6 * up.max())
    up, down = (heatmaps(model, image, metadata, "layer3", "eigencam", direction)["layer3"] for direction in (1, -1))
    np.testing.assert_array_equal(up, down)  # it ignores the class


def test_hirescam_and_gradcam_are_one_where_a_pooling_and_a_linear_layer_follow():
    model, (image, metadata) = small_net("test_efficientnet"), cases("test_efficientnet")
    maps = [heatmaps(model, image, metadata, "bn2", method)["bn2"] for method in ("hirescam", "gradcam")]
    np.testing.assert_allclose(*maps, atol=1e-6)
    # and their mean is the image's linear share of the logit
    width = model.image_branch.head_hidden_size
    share = model.image_branch(image) @ model.head[-1].weight[0, :width]
    np.testing.assert_allclose(maps[0].sum((1, 2)), share.detach(), rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_gradient_reaches_every_layer_offered(backbone):
    model, (image, metadata) = small_net(backbone), cases(backbone)
    for name, heatmap in heatmaps(model, image, metadata, method="gradcam").items():
        assert np.abs(heatmap).max() > 1e-8, name


@pytest.mark.parametrize("method", CAM_METHODS)
def test_a_model_that_is_dead_or_an_image_that_is_flat_gives_finite_maps(method):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    flat = torch.full_like(image, 0.5)
    for name, heatmap in heatmaps(model, flat, metadata, ["layer1", "layer4"], method).items():
        assert np.isfinite(heatmap).all(), name
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = heatmaps(model, image, metadata, ["layer1", "layer4"], method)
    for name, heatmap in found.items():
        np.testing.assert_array_equal(heatmap, 0, err_msg=name)
        assert found.doubtful_sign[name].all() == (method in NAMELESS_SIGN)


def test_an_image_model_needs_no_metadata():
    model, (image, _) = small_net("test_resnet", modalities="image"), cases("test_resnet")
    for method in ("gradcam", "scorecam", "ablationcam"):
        assert heatmaps(model, image, None, ["layer4"], method)["layer4"].shape == (2, 2, 2)


def test_sizes():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    coarse = heatmaps(model, image, metadata, "layer2", "gradcam")["layer2"]
    assert coarse.shape == (2, 8, 8)
    for size, shape in ((50, (50, 50)), ((30, 70), (30, 70))):
        fine = heatmaps(model, image, metadata, "layer2", "gradcam", size=size)["layer2"]
        assert fine.shape == (2, *shape) and fine.dtype == np.float32
        np.testing.assert_array_equal(fine[0], resize_heatmap(coarse[0], size))
    positive = np.abs(coarse)
    mine = np.stack([resize_heatmap(heatmap, (64, 64)) for heatmap in positive])
    np.testing.assert_allclose(scale_cam_image(mine), stretched(positive, (64, 64)), atol=3e-4)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_the_first_component_is_that_of_the_full_decomposition(channels, height, width, seed):
    features = np.random.default_rng(seed).normal(size=(2, channels, height, width)).astype(np.float32)
    expected = get_2d_projection(features)
    orientation = torch.tensor(features).norm(dim=1)
    found, alignment = principal_map(torch.tensor(features), orientation)
    for mine, theirs, towards, aligned in zip(found.numpy(), expected, orientation.numpy(), alignment, strict=True):
        errors = np.abs(mine - theirs).max(), np.abs(mine + theirs).max()
        # Two components of nearly the same strength may trade places; the strength itself may not change.
        assert min(errors) < 1e-3 or abs((mine**2).sum() - (theirs**2).sum()) < 1e-3 * (theirs**2).sum()
        if height * width > 2 and aligned > 1e-3:
            assert np.corrcoef(mine.ravel(), towards.ravel())[0, 1] == pytest.approx(aligned.item(), abs=1e-3)


def test_eigencam_is_positive_where_the_layer_responds_and_admits_when_it_cannot_tell():
    clear = torch.zeros(4, 6, 6)
    clear[:, 1:3, 1:3] = torch.tensor([3.0, -1, 2, -5])[:, None, None]
    even = torch.ones(4, 6, 6)
    even[:, :, 3:] = -1  # both halves respond equally strongly, in opposite directions
    maps, alignment = eigencam(torch.stack([clear, even]))
    assert (maps[0, 1:3, 1:3] > 0).all() and (maps[0, 4:] < 0).all()
    assert alignment[0] > 0.99 and alignment[1] < 0.01


def test_a_sum_that_is_rounding_error_orients_nothing():
    generator = torch.Generator().manual_seed(0)
    product = torch.randn(2, 8, 5, 5, generator=generator)
    product[0] -= product[0].mean(0, keepdim=True)  # as where a layer norm follows
    _, alignment = eigengradcam(torch.ones_like(product), product)
    assert alignment[0] == 0 and alignment[1] > 0


def test_doubtful_signs_are_told_by_case():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet", n=4)
    found = heatmaps(model, image, metadata)
    assert found.doubtful_sign.keys() == found.keys()
    assert all(doubt.shape == (4,) and doubt.dtype == bool for doubt in found.doubtful_sign.values())
    assert not np.any(list(heatmaps(model, image, metadata, method="gradcam").doubtful_sign.values()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "layer9"}, r"\['act1', 'layer1', 'layer2', 'layer3', 'layer4'\], got \['layer9'\]"),
        ({"layers": ["layer1", "fc"]}, r"got \['fc'\]"),
        ({"layers": []}, r"got \[\]"),
        ({"method": "smoothgrad"}, "method: expected one of .*'scorecam'.*got 'smoothgrad'"),
        ({"direction": 0}, "direction: expected 1"),
    ],
)
def test_errors_name_what_works(options, message):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    with pytest.raises(ValueError, match=message):
        heatmaps(model, image, metadata, **options)


def test_a_logit_that_is_no_number_is_an_error():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    image[1, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="expected finite logits"):
        heatmaps(model, image, metadata)
    with pytest.raises(ValueError, match="metadata only"):
        heatmaps(small_net("test_resnet", modalities="metadata"), None, metadata)
