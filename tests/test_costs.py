"""Costs, recomputed by hand from a run's files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.errors import RunError
from melanoma_lib.reports.comparison import ISIC_2024, cost_table
from melanoma_lib.training import train


def test_costs_are_those_of_the_history_and_the_caches_of_the_disk(tiny_run, capsys):
    (row,) = cost_table([tiny_run], images := 1_000_000).to_dict("records")
    splits, history = (pd.read_csv(tiny_run.path / f"{name}.csv") for name in ("splits", "history"))
    seen = (splits["split"] != "test").sum()
    milliseconds = 1000 * history["seconds"] / seen
    found = [row["milliseconds"], row["milliseconds_low"], row["milliseconds_high"]]
    assert found == pytest.approx([milliseconds.median(), milliseconds.min(), milliseconds.max()], abs=0.006)
    whole = history["seconds"].median() * len(history) * images / len(splits) / 3600  # so many times what the run took
    assert row["hours"] == pytest.approx(whole, abs=0.06)
    files = [file for name in ("images", "evaluation") for file in Path(tiny_run.settings.cache_dir).glob(f"{name}-*.npy")]
    arrays = [np.load(file, mmap_mode="r") for file in files]
    bytes_an_image = {array.shape[1]: array[0].nbytes for array in arrays if array.shape[1] in (32, 39)}
    assert len(bytes_an_image) == 2
    assert row["cache_gigabytes"] == pytest.approx(sum(bytes_an_image.values()) * images / 1e9, abs=0.06)
    assert main(["costs", str(tiny_run.path)]) == 0
    said = capsys.readouterr().out
    assert str(ISIC_2024) in said and f"{row['milliseconds']:.2f}".rstrip("0") in said


def test_runs_of_another_recipe_are_refused(tiny_run, tiny_settings, tmp_path):
    other = train(tiny_settings.with_changes(run_dir=tmp_path / "run", modalities="metadata", max_epochs=1))
    assert cost_table([other])["cache_gigabytes"].item() == 0
    with pytest.raises(RunError, match="more than the seed"):
        cost_table([tiny_run, other])
    with pytest.raises(RunError, match="got none"):
        cost_table([])
