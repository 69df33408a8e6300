"""Benchmarks: the ratio is the kit's over the peer's, and each contender really runs."""

from statistics import median

import pytest

from melanoma_lib import bench
from melanoma_lib.bench import Rates


def test_ratio_is_the_median_of_the_rounds_ratios():
    kit, peer = [10.0, 30.0, 20.0], [20.0, 10.0, 20.0]
    rates = Rates("title", {"kit": kit, "peer": peer})
    assert rates.ratio("peer") == median([0.5, 3.0, 1.0])
    assert rates.ratio("kit") == 1
    assert "peer" in str(rates)


def test_training_benchmark_runs_all_three_contenders(tiny_settings, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "STEPS", 2)
    seen = []
    monkeypatch.setattr(bench, "timed", lambda action: seen.append(action) or (action(), 2.0)[1])
    text = bench.bench_training(tiny_settings)
    assert len(seen) == 2 * 3  # bare loop and fixed batch in each of three rounds, the first unmeasured
    rate = 2 * tiny_settings.batch_size / 2.0
    rows = {line[:44].strip(): line[44:].split() for line in text.splitlines()[2:]}
    assert len(rows) == 3
    assert [float(row[0]) for name, row in rows.items() if not name.startswith("kit")] == [pytest.approx(rate)] * 2


def test_loading_benchmark_runs_on_every_published_size(tiny_settings, monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "N_LOADED", 4)
    monkeypatch.setattr(bench, "PUBLISHED_SIZES", {"small": (60, 40), "large": (300, 200)})
    text = bench.bench_loading(tiny_settings)
    assert text.count("Pillow decode") == 4
    assert "large: 300x200 JPEG, training transform" in text
