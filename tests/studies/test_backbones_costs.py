import pytest
import torch
from torch import nn

from melanoma_lib.model import MelanomaNet
from melanoma_lib.studies.backbones_costs import Costs, macs_of, measure


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("size", [32, 64])
def test_macs_are_those_of_every_convolution_and_matrix(backbone, size):
    model, counted = MelanomaNet(backbone, 9, pretrained=False), []

    def count(module, inputs, output):
        if isinstance(module, nn.Conv2d):
            counted.append(output.numel() * module.weight[0].numel())  # (out, in / groups, k, k)
        else:
            counted.append(output.numel() * module.in_features)

    hooks = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    model.eval()(torch.zeros(1, 3, size, size), torch.zeros(1, 9))
    for hook in hooks:
        hook.remove()
    assert macs_of(model, size, 9) == sum(counted)


def test_every_network_takes_its_turn(tiny_settings):
    trained = {"plain": tiny_settings, "held": tiny_settings.with_changes(pretrained=True)}
    costs = measure(trained, {"frozen": tiny_settings.with_changes(modalities="image")}, n_metadata=9, rounds=2)
    assert list(costs) == ["plain", "held", "frozen"]
    assert [len(costs[name].training) for name in trained] == [2, 2] and costs["frozen"].training is None
    assert costs["plain"].inference is costs["held"].inference and len(costs["plain"].inference) == 4  # one network, one speed
    assert len(costs["frozen"].inference) == 2
    assert min(costs["plain"].inference) > 0 and costs["plain"].macs > costs["frozen"].macs
    expected = MelanomaNet(tiny_settings.backbone, 9, pretrained=False, metadata_hidden=tiny_settings.metadata_hidden)
    assert costs["plain"].parameters == sum(weights.numel() for weights in expected.parameters())


def test_a_row_holds_median_and_range_and_none_where_nothing_was_measured():
    row = Costs(7, 5, None, [3.0, 1.0, 2.0]).to_row()
    assert row == {"parameters": 7, "macs": 5, "training_rate": None, "inference_rate": {"value": 2.0, "low": 1.0, "high": 3.0}}
