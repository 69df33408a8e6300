"""Layers put out what their description says, whatever the backbone."""

import pytest
import torch

from melanoma_lib.explain import cam_layers, default_layer
from melanoma_lib.explain.layers import CamLayer, _describe
from tests.explain.nets import BACKBONES, cases, small_net


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_layer_puts_out_what_its_description_says(backbone):
    model, (image, metadata) = small_net(backbone), cases(backbone)
    layers, outputs = cam_layers(model), {}
    for name, layer in layers.items():
        layer.module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.update({name: output}))
    model(image, metadata)
    assert list(outputs) == list(layers)  # early to late
    for name, layer in layers.items():
        side = BACKBONES[backbone] // layer.stride
        assert layer.as_maps(outputs[name], image.shape[2:]).shape == (2, layer.channels, side, side)


LASTS = {
    "densenet121": "features.norm5", "tf_efficientnetv2_s": "bn2", "convnext_tiny": "stages.3",
    "swin_tiny_patch4_window7_224": "norm", "vgg11": "features.20",
}  # fmt: skip


@pytest.mark.parametrize(("backbone", "last"), LASTS.items())
def test_known_families_have_layers_from_fine_to_coarse(backbone, last):
    layers = _describe(backbone)
    strides = [facts["stride"] for facts in layers.values()]
    assert len(layers) >= 4 and strides == sorted(strides) and strides[0] <= 4 and strides[-1] == 32
    assert list(layers)[-1] == last


@pytest.mark.parametrize(("image_size", "expected"), [(224, "layer4"), (128, "layer3"), (8, "act1")])
def test_the_default_layer_is_the_last_with_seven_points_a_side(image_size, expected):
    assert default_layer(cam_layers(small_net("test_resnet")), image_size) == expected


def test_tokens_become_a_grid_in_the_order_of_the_image():
    tokens = torch.arange(-1.0, 6)[None, :, None]  # class token, then 2 x 3
    maps = CamLayer("blocks", torch.nn.Identity(), 16, 1, layout="NLC", prefix=1).as_maps(tokens, (32, 48))
    torch.testing.assert_close(maps[0, 0], torch.tensor([[0.0, 1, 2], [3, 4, 5]]))
