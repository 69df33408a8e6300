"""Batches: what is in them, in which order, and that nothing but seed and epoch decides."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.data.datamodule import DermoscopyDataModule, EpochSampler, cases_for, source_root
from melanoma_lib.data.images import prepare_image, stored_side
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError
from melanoma_lib.settings import Settings


@pytest.fixture(scope="module")
def data(tiny_settings):
    return DermoscopyDataModule(tiny_settings)


def test_evaluation_batches_are_the_files_through_the_one_transform(data):
    settings, cases = data.settings, data.cases
    seen = []
    for batch in data.test_dataloader():
        for row, image, metadata, target in zip(*(batch[k] for k in ("row", "image", "metadata", "target")), strict=True):
            case = cases.iloc[int(row)]
            assert torch.equal(image, prepare_image(case["image_path"], settings.backbone, settings.image_size))
            assert float(target) == case["target"]
            assert np.array_equal(metadata, data.encoder.transform(cases.iloc[[int(row)]])[0])
            seen.append(int(row))
    assert seen == np.flatnonzero(cases["split"] == "test").tolist()


def test_batches_do_not_depend_on_workers(data):
    with_workers = DermoscopyDataModule(data.settings.with_changes(num_workers=2), data.cases).train_dataloader()
    torch.testing.assert_close(list(with_workers), list(data.train_dataloader()), rtol=0, atol=0)


def test_metadata_dropout_hides_whole_cases_at_its_rate(data):
    module = DermoscopyDataModule(data.settings.with_changes(metadata_dropout=0.5), data.cases)
    loader = module.train_dataloader()
    hidden = total = 0
    for epoch in range(6):
        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            given_rows = module.encoder.transform(module.cases.iloc[batch["row"].numpy()])
            same = (batch["metadata"].numpy() == given_rows).all(axis=1)
            nothing = (batch["metadata"].numpy() == module.encoder.missing).all(axis=1)
            assert (same | nothing).all()
            hidden, total = hidden + nothing.sum(), total + len(nothing)
    assert abs(hidden / total - 0.5) < 4 * np.sqrt(0.25 / total)


def test_a_split_that_straddles_or_lacks_a_class_is_refused_before_training(data):
    group = data.cases["group_id"].value_counts().index[0]
    cases = data.cases.copy()
    cases.loc[cases.index[cases["group_id"] == group][:2], "split"] = ["train", "test"]
    with pytest.raises(DataError, match=str(group)):
        DermoscopyDataModule(data.settings, cases)
    healthy = data.cases[~((data.cases["split"] == "test") & (data.cases["target"] == 1))]
    with pytest.raises(DataError, match="'test' needs melanomas"):
        DermoscopyDataModule(data.settings, healthy)


@pytest.fixture
def tied(tmp_path):
    """A data set with artefacts tied to the label in a folder of its own, and settings that fit it."""
    data = SyntheticDermoscopy(20, 1, stored_side(32), {"ruler": -0.5}, 0.3)
    folder = data.write(tmp_path / "tied")
    return data, Settings(source="synthetic", data_dir=folder, image_size=32, n_patients=20, data_seed=1)


def test_a_written_folder_is_a_source_as_it_is(tied):
    data, settings = tied
    assert source_root(settings) == settings.data_dir
    assert cases_for(settings)["truth_artefact_ruler"].tolist() == data.cases["truth_artefact_ruler"].tolist()
    assert not (settings.data_dir / SyntheticDermoscopy(20, 1, stored_side(32)).fingerprint).exists()
    with pytest.raises(DataError, match=r"holds .*'n_patients': 20.* need .*'n_patients': 21.*name the folder above it"):
        source_root(settings.with_changes(n_patients=21))
    pd.read_csv(settings.data_dir / "cases.csv").assign(target=0).to_csv(settings.data_dir / "cases.csv", index=False)
    with pytest.raises(DataError, match="every case has target 0"):
        cases_for(settings)


@given(st.lists(st.integers(0, 1), max_size=200), st.integers(0, 5), st.integers(2, 40))
def test_plain_draws_each_row_at_most_once_and_oversampling_balances(targets, seed, size):
    targets = np.array([0, 1, *targets])
    rows = np.arange(len(targets)) * 3  # rows of a larger table
    sampler = EpochSampler(np.repeat(targets, 3), rows, "plain", size, seed)
    batches = [draw.rows for draw in sampler]
    flat = [row for batch in batches for row in batch]
    assert len(batches) == len(sampler) == max(1, len(rows) // size)
    assert len(set(flat)) == len(flat) and set(flat) <= set(rows.tolist())
    assert len(rows) < size or {len(batch) for batch in batches} == {size}
    order = np.array([row for draw in EpochSampler(targets, np.arange(len(targets)), "oversample", 1, seed) for row in draw.rows])
    assert targets[order].mean() == 0.5
    assert set(order) == set(range(len(targets)))
    counts = np.bincount(order, minlength=len(targets))
    for label in (0, 1):
        assert np.ptp(counts[targets == label]) <= 1
