"""Each benchmark runs, at a size that shows only that it still can."""

import importlib

import pytest

TINY = ["--backbone", "test_efficientnet", "--image-size", "32"]
WORDS = {
    "training": [*TINY, "--n-patients", "40", "--rounds", "1"],
    "loading": ["--image-size", "32", "--n-patients", "20", "--rounds", "1"],
    "thresholds": ["--n", "4000", "--replicates", "20", "--rounds", "1"],
    "heatmaps": [*TINY, "--n-images", "2", "--rounds", "1"],
    "inference": [*TINY, "--rounds", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_a_benchmark_prints_ratios_to_its_peer(name, capsys):
    found = importlib.import_module(f"tests.bench.{name}").main(WORDS[name])
    shown = capsys.readouterr().out
    for seconds in found:
        assert len(seconds.columns) == 2 and (seconds > 0).all(axis=None)
        assert seconds.columns[1] in shown
