"""Several processes train what one would: the same split, every case once, the same metrics, one run."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.data import datamodule
from melanoma_lib.data.datamodule import EpochSampler
from melanoma_lib.data.images import evaluation_pixels
from melanoma_lib.errors import SettingsError
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.training import processes, train
from tests.command_line import words_of

# The command line, without augmentation (which differs between one process and several) and with a note of each step's cases.
COMMAND = """
import json, sys
from melanoma_lib.__main__ import main
from melanoma_lib.data import datamodule
from melanoma_lib.data.images import evaluation_pixels
from melanoma_lib.training.module import MelanomaModule

step = MelanomaModule.training_step

def noted(self, batch, number):
    with open(f"rows-{self.global_rank}.jsonl", "a") as file:
        print(json.dumps(batch["row"].tolist()), file=file)
    return step(self, batch, number)

MelanomaModule.training_step = noted
datamodule.training_transform = lambda backbone, image_size, _: evaluation_pixels(backbone, image_size)
sys.exit(main())
"""


@pytest.mark.slow
def test_two_processes_train_and_leave_what_one_does(tiny_settings, tmp_path, monkeypatch):
    """No batch statistics and no dropout, so that a step does not depend on how its cases are shared out."""
    recipe = tiny_settings.with_changes(
        backbone="test_convnext", modalities="image", dropout=0.0, drop_path=0.0, sampler="weighted", head_epochs=1
    )
    monkeypatch.setattr(datamodule, "training_transform", lambda backbone, size, _: evaluation_pixels(backbone, size))
    one = train(recipe.with_changes(runs_dir=tmp_path / "alone"))
    (tmp_path / "command.py").write_text(COMMAND)
    words = words_of(recipe.with_changes(runs_dir=tmp_path / "together", cache_dir=tmp_path / "cache", devices=2))
    command = [sys.executable, str(tmp_path / "command.py"), "train", *words]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("finished") == 1

    two = Run(tmp_path / "together" / one.path.name)
    assert two.settings.devices == 2
    assert [path.name for path in (tmp_path / "together").glob("[!.]*")] == [one.path.name]
    assert sorted(p.name for p in two.path.rglob("*")) == sorted(p.name for p in one.path.rglob("*"))
    pd.testing.assert_frame_equal(two.splits, one.splits)
    for split in ("val", "test"):
        mine, theirs = two.predictions(split), one.predictions(split)
        assert mine["image_id"].tolist() == theirs["image_id"].tolist()
        np.testing.assert_allclose(mine["logit"], theirs["logit"], atol=1e-3)
    assert np.ptp(one.predictions("test")["logit"]) > 0.02  # a tolerance that a constant would not meet by luck
    columns = [name for name in one.history if name != "seconds"]
    np.testing.assert_allclose(two.history[columns], one.history[columns], atol=2e-3)

    shares = [[json.loads(line) for line in (tmp_path / f"rows-{rank}.jsonl").read_text().splitlines()] for rank in (0, 1)]
    targets, train_rows = (two.splits["target"] == 1).to_numpy(), np.flatnonzero(two.splits["split"] == "train")
    sampler = EpochSampler(targets, train_rows, "weighted", recipe.batch_size, recipe.seed, recipe.sampled_prevalence)
    whole = []
    for epoch in range(len(one.history)):
        sampler.set_epoch(epoch)
        whole += [draw.rows for draw in sampler]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    assert {len(rows) for share in shares for rows in share} == {recipe.batch_size // 2}


@given(
    st.lists(st.integers(0, 1), min_size=8, max_size=150),
    st.sampled_from(["plain", "weighted", "oversample", "ordered"]),
    st.sampled_from([(1, 3), (2, 4), (3, 6), (4, 4), (4, 12)]),
    st.integers(0, 3),
)
def test_shares_are_disjoint_and_complete(targets, mode, sizes, epoch):
    size, batch = sizes
    targets = np.array([0, 1, *targets])
    samplers = [EpochSampler(targets, np.arange(len(targets)), mode, batch, 5, 0.4, rank, size) for rank in range(size)]
    single = EpochSampler(targets, np.arange(len(targets)), mode, batch, 5, 0.4)
    for sampler in (*samplers, single):
        sampler.set_epoch(epoch)
    shares, whole = [list(sampler) for sampler in samplers], list(single)
    assert {len(share) for share in shares} == {len(samplers[0])}  # or one would wait for the others for ever
    assert all(draw.rows for share in shares for draw in share)
    joined = [[row for draw in step for row in draw.rows] for step in zip(*shares, strict=True)]
    if mode == "ordered":
        assert [row for rows in joined for row in rows] == list(range(len(targets)))
    else:
        assert joined == [draw.rows for draw in whole]
        assert [draw.seed for draw in shares[0]] == [draw.seed for draw in whole]
        assert all(len({draw.seed for draw in step}) == size for step in zip(*shares, strict=True))


def test_torchruns_processes_are_counted_and_what_does_not_fit_is_refused(monkeypatch):
    assert processes(Settings()) == (1, 1)
    assert processes(Settings(devices=2)) == (2, 1)
    with pytest.raises(SettingsError, match=r"torchrun --nnodes 3 --nproc-per-node 2"):
        processes(Settings(nodes=3, devices=2))
    with pytest.raises(SettingsError, match="multiple of 4"):
        processes(Settings(devices=4, batch_size=30))
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert processes(Settings()) == (1, 1)  # somebody else's variables
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert processes(Settings()) == processes(Settings(devices=4)) == (4, 2)
    with pytest.raises(SettingsError, match="torchrun started 4 on each of 2 machines"):
        processes(Settings(devices=3))
