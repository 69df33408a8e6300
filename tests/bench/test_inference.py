import pytest

from melanoma_lib.bench import bench_inference, inference
from melanoma_lib.bench.inference import InferenceTimes, take_turns, times_as_fast
from melanoma_lib.errors import SettingsError


def test_contenders_take_turns_on_the_same_batches():
    seen = []
    contenders = {name: lambda batch, name=name: seen.append((name, batch)) for name in ("kit", "peer")}
    seconds = take_turns(contenders, ["a", "b", "c"], 4)
    assert {name: len(rounds) for name, rounds in seconds.items()} == {"kit": 4, "peer": 4}
    assert [name for name, _ in seen] == ["kit", "peer"] * 6  # two rounds before count for nothing
    assert [batch for name, batch in seen if name == "peer"] == [batch for name, batch in seen if name == "kit"]


def test_a_ratio_compares_within_rounds():
    seconds = {"torch": [2.0, 6.0, 3.0], "onnx": [1.0, 2.0, 6.0]}
    assert times_as_fast(seconds, "onnx") == 2.0
    assert times_as_fast(seconds, "torch") == 1.0
    text = str(InferenceTimes("title", seconds, seconds, 6, {"torch": 0.0, "onnx": 1e-6}))
    assert "1.0e-06" in text
    assert "3 img/s" in text


@pytest.mark.parametrize("trained", [False, True])
def test_both_are_measured_and_agree(tiny_settings, tiny_run, monkeypatch, trained):
    monkeypatch.setattr(inference, "ROUNDS", 3)
    monkeypatch.setattr(inference, "BATCH_ROUNDS", 2)
    settings = tiny_settings.with_changes(run_dir=tiny_run.path) if trained else tiny_settings
    text = bench_inference(settings)
    off = {line[:32].strip(): float(line.split()[-1]) for line in text.splitlines()[2:4]}
    assert list(off) == [inference.TORCH, inference.FLOAT]
    assert off[inference.TORCH] == 0
    assert off[inference.FLOAT] < 1e-4
    assert (tiny_run.path.name in text) == trained


def test_metadata_alone_is_refused(tiny_settings):
    with pytest.raises(SettingsError, match="image branch"):
        bench_inference(tiny_settings.with_changes(modalities="metadata"))
