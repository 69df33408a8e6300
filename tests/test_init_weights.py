"""A start from weights of one's own: they are used, checked against their name, and part of what identifies a run."""

import hashlib

import pytest
import torch

from melanoma_lib.errors import SettingsError, WeightsUnavailableError
from melanoma_lib.model import image_branch
from melanoma_lib.settings import Settings
from melanoma_lib.training import train
from melanoma_lib.training.module import MelanomaModule


def named(file):
    """A file of weights under the name that its digest gives it."""
    return file.rename(file.with_name(f"simclr-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}.pt"))


def test_a_training_starts_from_the_weights_and_holds_its_early_stages(tiny_settings, tmp_path):
    expected = image_branch("test_efficientnet", pretrained=False).state_dict()
    torch.save(expected, tmp_path / "weights.pt")
    begun = tiny_settings.with_changes(init_weights=named(tmp_path / "weights.pt"), max_epochs=1, runs_dir=tmp_path)
    module = MelanomaModule(begun, 4, 0.2)
    assert all(torch.equal(value, expected[name]) for name, value in module.model.image_branch.state_dict().items())
    run = train(begun)
    trained = run.model().image_branch.state_dict()
    assert torch.equal(trained["conv_stem.weight"], expected["conv_stem.weight"])
    assert not torch.equal(trained["conv_head.weight"], expected["conv_head.weight"])
    assert run.settings.fingerprint() == begun.fingerprint() != tiny_settings.fingerprint()


def test_weights_that_are_not_what_their_name_says_are_refused(tiny_settings, tmp_path):
    file = tmp_path / "simclr-0123456789ab.pt"
    settings = tiny_settings.with_changes(init_weights=file, runs_dir=tmp_path)
    with pytest.raises(WeightsUnavailableError, match="does not exist"):
        train(settings)
    torch.save({}, file)
    with pytest.raises(WeightsUnavailableError, match="not the file its name stands for"):
        train(settings.with_changes(resume=True))
    with pytest.raises(WeightsUnavailableError, match="of this backbone"):
        MelanomaModule(settings.with_changes(init_weights=named(file)), 4, 0.2)


def test_the_fingerprint_follows_the_weights_not_their_folder():
    base, here, there = (Settings(init_weights=path) for path in (None, "/a/w-01234567.pt", "/b/w-01234567.pt"))
    assert here.fingerprint() == there.fingerprint() != base.fingerprint()
    assert Settings(init_weights="/a/w-89abcdef.pt").fingerprint() != here.fingerprint()
    assert "init_weights" not in base.shaping()
    with pytest.raises(SettingsError, match=r"SHA-256.*self_supervised"):
        Settings(init_weights="/a/weights.pt")
