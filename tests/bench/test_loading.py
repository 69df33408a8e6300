import re

import pytest

from melanoma_lib.bench import bench_loading, loading


def test_every_published_size_and_transform_is_measured(tiny_settings, monkeypatch):
    monkeypatch.setattr(loading, "ROUNDS", 1)
    monkeypatch.setattr(loading, "N_LOADED", 20)
    monkeypatch.setattr(loading, "PUBLISHED_SIZES", {"small": (60, 40), "large": (300, 200)})
    loaded = []
    monkeypatch.setattr(loading, "timed", lambda action: (action(), loaded.append(action), 0.5)[-1])
    text = bench_loading(tiny_settings)
    assert text.count("Pillow decode") == text.count("goal: at least 5 times") == 4
    assert "large: 300x200 JPEG, training transform" in text
    assert len(loaded) == 2 * 4
    # Augmented batches of 16 drop the incomplete second one; only images that came out are counted.
    rates = {contender: re.findall(rf"{contender}\D+([\d.]+)", text) for contender in ("kit, cached", "Pillow decode")}
    assert [float(rate) for rate in rates["kit, cached"]] == pytest.approx([16 / 0.5] * 4)
    assert [float(rate) for rate in rates["Pillow decode"]] == pytest.approx([20 / 0.5] * 4)
