"""Costs, recomputed by hand from a run's files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.bench.costs import ISIC_2024, cost_of
from melanoma_lib.errors import RunError
from melanoma_lib.training import train


def test_costs_are_those_of_the_history(tiny_run):
    cost = cost_of([tiny_run])
    splits, history = (pd.read_csv(tiny_run.path / f"{name}.csv") for name in ("splits", "history"))
    seen = (splits["split"] != "test").sum()
    seconds = np.sort(history["seconds"] / seen)
    assert cost.per_image == pytest.approx((seconds[0], seconds[1], seconds[2]))
    whole = cost.hours(len(splits))[1] * 3600  # a run of as many images takes what it took
    assert whole == pytest.approx(len(history) * np.median(history["seconds"]))


def test_caches_have_the_size_that_they_have_on_disk(tiny_run):
    files = [file for name in ("images", "evaluation") for file in Path(tiny_run.settings.cache_dir).glob(f"{name}-*.npy")]
    arrays = [np.load(file, mmap_mode="r") for file in files]
    mine = [array for array in arrays if len(array) == len(tiny_run.splits) and array.shape[1] in (32, 39)]
    assert cost_of([tiny_run]).cache_bytes(len(tiny_run.splits)) == sum(array.nbytes for array in mine[:2])


def test_the_command_prints_what_was_measured_and_projected(tiny_run, capsys):
    assert main(["costs", str(tiny_run.path)]) == 0
    said = capsys.readouterr().out
    cost = cost_of([tiny_run])
    assert f"projected to {ISIC_2024:,} images" in said
    assert f"{cost.hours(ISIC_2024)[1]:.1f} hours" in said
    assert f"{cost.cache_bytes(ISIC_2024) / 1e9:.1f} GB" in said


def test_runs_of_another_recipe_are_refused(tiny_run, tiny_settings, tmp_path):
    other = train(tiny_settings.with_changes(run_dir=tmp_path / "run", modalities="metadata", max_epochs=1))
    assert cost_of([other]).cache_bytes(1000) == 0
    with pytest.raises(RunError, match="more than the seed"):
        cost_of([tiny_run, other])
    with pytest.raises(RunError, match="got none"):
        cost_of([])
