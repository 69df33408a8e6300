"""Self-supervised warm start: only unlabelled training images are seen, the weights are used."""

import hashlib
import math

import numpy as np
import pytest
import torch

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.errors import SettingsError, WeightsUnavailableError
from melanoma_lib.module import MelanomaModule
from melanoma_lib.settings import Settings
from melanoma_lib.studies.selfsupervised import Pretraining, pairs_found, pretrain
from melanoma_lib.training import train

HOW = Pretraining(side=32, epochs=2, batch_size=64)
needs_lightly = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("lightly"), reason="lightly is not installed: pip install .[selfsupervised]"
)


class Watched:
    """Pixels that remember which rows were looked at."""

    def __init__(self, pixels: np.memmap) -> None:
        self.pixels, self.filename, self.seen = pixels, pixels.filename, set()

    def __getitem__(self, row: int) -> np.ndarray:
        self.seen.add(int(row))
        return self.pixels[row]


@pytest.fixture(scope="module")
def settings(tiny_settings, tmp_path_factory):
    return tiny_settings.with_changes(runs_dir=tmp_path_factory.mktemp("selfsupervised"), max_epochs=1)


@pytest.fixture(scope="module")
def data(settings):
    data = DermoscopyDataModule(settings)
    data._pixels = Watched(data.pixels())
    return data


@pytest.fixture(scope="module")
def warm(settings, data):
    return pretrain(settings, HOW, data)


def test_pairs_found_is_brute_force():
    spots = np.random.default_rng(0).normal(size=(20, 3))
    unit, hits = spots / np.linalg.norm(spots, axis=1, keepdims=True), 0
    for i in range(20):
        others = [j for j in range(20) if j != i]
        hits += max(others, key=lambda j: unit[i] @ unit[j]) == (i + 10) % 20
    assert pairs_found(torch.from_numpy(spots)) == pytest.approx(hits / 20)
    assert pairs_found(torch.eye(4).repeat(2, 1)) == 1.0


@needs_lightly
def test_only_training_images_are_seen_and_told_apart(warm, data):
    assert data._pixels.seen == set(data.rows("train"))
    assert [row["epoch"] for row in warm.history] == [1, 2]
    assert warm.history[-1]["loss"] < min(warm.history[0]["loss"], math.log(2 * 64 - 1))  # the loss of chance
    assert warm.history[-1]["found"] > 5 / (2 * 64 - 1)


@needs_lightly
def test_a_training_starts_from_the_weights_and_holds_its_early_stages(settings, data, warm):
    begun = settings.with_changes(init_weights=warm.file)
    expected = torch.load(warm.file, weights_only=True)
    module = MelanomaModule(begun, data.encoder.n_features, 0.2)
    assert all(torch.equal(value, expected[name]) for name, value in module.model.image_branch.state_dict().items())
    run = train(begun)
    trained = run.model().image_branch.state_dict()
    assert torch.equal(trained["conv_stem.weight"], expected["conv_stem.weight"])
    assert not torch.equal(trained["conv_head.weight"], expected["conv_head.weight"])
    assert run.settings.fingerprint() == begun.fingerprint() != settings.fingerprint()


def test_weights_that_are_not_what_their_name_says_are_refused(tiny_settings, tmp_path):
    file = tmp_path / "simclr-0123456789ab.pt"
    settings = tiny_settings.with_changes(init_weights=file, runs_dir=tmp_path)
    with pytest.raises(WeightsUnavailableError, match="does not exist"):
        train(settings)
    torch.save({}, file)
    with pytest.raises(WeightsUnavailableError, match="not the file its name stands for"):
        train(settings.with_changes(resume=True))
    other = file.rename(tmp_path / f"simclr-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}.pt")
    with pytest.raises(WeightsUnavailableError, match="of this backbone"):
        MelanomaModule(settings.with_changes(init_weights=other), 4, 0.2)


def test_the_fingerprint_follows_the_weights_not_their_folder():
    base, here, there = (Settings(init_weights=path) for path in (None, "/a/w-01234567.pt", "/b/w-01234567.pt"))
    assert here.fingerprint() == there.fingerprint() != base.fingerprint()
    assert Settings(init_weights="/a/w-89abcdef.pt").fingerprint() != here.fingerprint()
    assert "init_weights" not in base.shaping()
    with pytest.raises(SettingsError, match=r"SHA-256.*selfsupervised"):
        Settings(init_weights="/a/weights.pt")
