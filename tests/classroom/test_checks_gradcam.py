"""The check of Grad-CAM by hand passes what is right and names what is wrong."""

import pytest
import torch
from torch.nn import functional as F

from melanoma_lib.classroom import checks_gradcam as checks
from melanoma_lib.classroom.checks import NotYet


def caught(model, layer, image, metadata, score=lambda logit: logit.sum()):
    """Activations and gradients the way a student gets them."""
    kept = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logit = model(image, metadata)
    hook.remove()
    return kept[0], torch.autograd.grad(score(logit), kept[0])[0]


def by_autograd(model, layer, image, metadata):
    a, g = caught(model, layer, image, metadata)
    return (g.mean((2, 3), keepdim=True) * a).sum(1).detach()


def by_backward(model, layer, image, metadata):
    """The recipe of most tutorials: two hooks, one case at a time, numpy at the end."""
    maps = []
    for i in range(len(image)):
        seen = {}
        hooks = [
            layer.register_forward_hook(lambda module, inputs, output, seen=seen: seen.update(a=output)),
            layer.register_full_backward_hook(lambda module, gin, gout, seen=seen: seen.update(g=gout[0])),
        ]
        model(image[i : i + 1], metadata[i : i + 1]).backward()
        for hook in hooks:
            hook.remove()
        maps.append(torch.einsum("c,chw->hw", seen["g"][0].mean((1, 2)), seen["a"][0]).detach().numpy())
    return maps


def changed(make):
    """A solution whose last line is another one."""
    return lambda *arguments: make(*caught(*arguments))


def finished(finish):
    return lambda *arguments: finish(by_autograd(*arguments))


def scored(score):
    def compute(*arguments):
        a, g = caught(*arguments, score=score)
        return (g.mean((2, 3), keepdim=True) * a).sum(1)

    return compute


def stretched(maps):
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("right", [by_autograd, by_backward])
def test_right_maps_pass(right, capsys):
    checks.grad_cam(right)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("wrong", "diagnosis"),
    [
        (changed(lambda a, g: (g * a).sum(1)), "the mean over the grid is forgotten"),
        (changed(lambda a, g: (g.sum((2, 3), keepdim=True) * a).sum(1)), "summed over the grid"),
        (changed(lambda a, g: (g.mean((2, 3), keepdim=True) * a).mean(1)), "the channels are averaged"),
        (changed(lambda a, g: (g.mean((0, 2, 3), keepdim=True) * a).sum(1)), "who else is in the batch"),
        (changed(lambda a, g: g.sum(1)), "the activations are missing"),
        (changed(lambda a, g: a.sum(1)), "the weights are missing"),
        (changed(lambda a, g: (g.mean((2, 3), keepdim=True) * a).relu().sum(1)), "ReLU came before the sum"),
        (changed(lambda a, g: (g.mean((2, 3), keepdim=True).relu() * a).sum(1)), "weights went through a ReLU"),
        (changed(lambda a, g: (g.relu().mean((2, 3), keepdim=True) * a).sum(1)), "gradients went through a ReLU"),
        (changed(lambda a, g: g.mean((2, 3), keepdim=True) * a), "a map for each channel"),
        (changed(lambda a, g: g.mean((2, 3))), "those are the weights"),
        (changed(lambda a, g: (g.mean((2, 3), keepdim=True) * a).sum((1, 2))), "it returns shape"),
        (scored(lambda logit: torch.sigmoid(logit).sum()), "gradient of the probability"),
        (scored(lambda logit: logit.mean()), "gradient of the mean logit"),
        (scored(lambda logit: -logit.sum()), "the direction is wrong"),
        (scored(lambda logit: F.binary_cross_entropy_with_logits(logit, torch.zeros_like(logit)) * 7), "no mistake that gives"),
        (finished(torch.relu), "hides the sign"),
        (finished(torch.abs), "absolute value hides"),
        (finished(stretched), "stretched to 0"),
        (finished(lambda maps: maps.relu() / maps.relu().amax((1, 2), keepdim=True)), "divided by its largest value"),
        (finished(lambda maps: maps / maps.abs().amax((1, 2), keepdim=True)), "divided by its largest magnitude"),
        (finished(lambda maps: F.interpolate(maps[:, None], (48, 48))[:, 0]), "at the resolution of its layer"),
        (finished(lambda maps: maps[0]), r"expected \(3,"),
        (finished(lambda maps: maps / 0), "not finite"),
        (finished(lambda maps: None), "end with a return"),
        (finished(lambda maps: "map"), "got str"),
    ],
)
def test_wrong_maps_are_diagnosed(wrong, diagnosis):
    with pytest.raises(NotYet, match=diagnosis):
        checks.grad_cam(wrong)


def test_two_mistakes_are_told_together():
    with pytest.raises(NotYet) as told:
        checks.grad_cam(lambda *arguments: scored(lambda logit: torch.sigmoid(logit).sum())(*arguments).relu())
    assert "gradient of the probability" in str(told.value)
    assert "hides the sign" in str(told.value)


def test_a_hook_left_behind_is_told():
    def forgetful(model, layer, image, metadata):
        layer.register_forward_hook(lambda module, inputs, output: None)
        return by_autograd(model, layer, image, metadata)

    with pytest.raises(NotYet, match="still on the layer"):
        checks.grad_cam(forgetful)


def test_every_pair_of_mistakes_gives_other_maps():
    model, image, metadata = checks._small_model()
    facts = checks._facts(model, image, metadata)
    plain = [(name, maps) for name, maps in checks._gradcam_mistakes(facts) if "; and " not in name]
    for i, (name, maps) in enumerate(plain):
        twins = [other for other, wrong in plain[i + 1 :] if checks._alike(maps, wrong)]
        assert not twins, (name, twins)
