import pytest

from melanoma_lib.bench import bench_training, training
from melanoma_lib.model import MelanomaNet


def test_all_three_contenders_run_in_every_round(tiny_settings, monkeypatch):
    monkeypatch.setattr(training, "ROUNDS", 2)
    monkeypatch.setattr(training, "STEPS", 2)
    seen = []
    monkeypatch.setattr(training, "timed", lambda action: seen.append(action) or (action(), 2.0)[1])
    text = bench_training(tiny_settings)
    assert len(seen) == 2 * 3  # bare loop and fixed batch in each of three rounds, the first unmeasured
    rate = 2 * tiny_settings.batch_size / 2.0
    rows = {line[:44].strip(): line[44:].split() for line in text.splitlines()[2:]}
    assert len(rows) == 3
    assert [float(row[0]) for name, row in rows.items() if not name.startswith("kit")] == [pytest.approx(rate)] * 2


def test_all_three_contenders_pass_the_same_pixels(tiny_settings, monkeypatch):
    monkeypatch.setattr(training, "ROUNDS", 2)
    monkeypatch.setattr(training, "STEPS", 2)
    sides, features = set(), MelanomaNet.features

    def spied(model, image, metadata):
        sides.add(tuple(image.shape[-2:]))
        return features(model, image, metadata)

    monkeypatch.setattr(MelanomaNet, "features", spied)
    bench_training(tiny_settings.with_changes(image_size=96, small_epochs=0.6))
    assert sides == {(96, 96)}
