import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.evaluation import Calibrator, OperatingCurve
from melanoma_lib.studies import baselines
from melanoma_lib.studies.baselines import STRENGTHS, fit_baseline, frozen_features, metadata_alone


@pytest.fixture(scope="module")
def cases(tiny_settings):
    return DermoscopyDataModule(tiny_settings).cases


def test_metadata_alone_is_the_logistic_regression_that_ranks_validation_best(cases):
    found = metadata_alone(cases, 0.9)
    parts = {split: cases[cases["split"] == split] for split in ("train", "val", "test")}
    encoder = MetadataEncoder.fit(parts["train"])
    x = {split: encoder.transform(part) for split, part in parts.items()}
    fits = {
        c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x["train"], parts["train"]["target"])
        for c in STRENGTHS
    }
    ranks = {c: roc_auc_score(parts["val"]["target"], fit.decision_function(x["val"])) for c, fit in fits.items()}
    best = found.strength
    assert ranks[best] == pytest.approx(max(ranks.values()), abs=1e-9)  # several penalties may rank alike
    logits = {split: fits[best].decision_function(x[split]) for split in ("val", "test")}
    np.testing.assert_allclose(found.part.table["logit"], logits["test"], atol=1e-6)
    calibrator = Calibrator.fit(logits["val"], parts["val"]["target"])
    np.testing.assert_allclose(found.part.table["risk"], calibrator.risk(logits["test"]), atol=1e-6)
    assert list(found.part.table["image_id"]) == list(parts["test"]["image_id"])
    assert found.n_coefficients == encoder.n_features + 1


def test_the_threshold_reaches_its_sensitivity_on_validation(cases):
    features = MetadataEncoder.fit(cases).transform(cases)
    swapped = cases.assign(split=cases["split"].map({"train": "train", "val": "test", "test": "val"}))
    threshold = fit_baseline(features, cases, 0.9).part.threshold
    # with C fixed, what is tested in the one is validation in the other
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "STRENGTHS", (fit_baseline(features, cases, 0.9).strength,))
        table = fit_baseline(features, swapped, 0.9).part.table
    assert OperatingCurve(table["target"], table["probability"]).for_sensitivity(0.9).threshold == threshold


def test_test_cases_shape_nothing_but_their_own_predictions(cases):
    features = np.random.default_rng(0).normal(size=(len(cases), 5)).astype(np.float32)
    other = features.copy()
    tested = (cases["split"] == "test").to_numpy()
    other[tested] += 100
    first, second = fit_baseline(features, cases, 0.9), fit_baseline(other, cases, 0.9)
    assert first.strength == second.strength and first.part.threshold == second.part.threshold


def test_frozen_features_are_computed_once_and_join_the_metadata(cases, tiny_settings, tmp_path, monkeypatch):
    settings = tiny_settings.with_changes(cache_dir=tmp_path)
    first = frozen_features(settings, cases)
    (kept,) = tmp_path.glob("features-*.npy")
    monkeypatch.setattr("melanoma_lib.heads._features", lambda *_: pytest.fail("computed again"))
    assert frozen_features(settings, cases).part.table.equals(first.part.table)
    image_only = frozen_features(settings.with_changes(modalities="image"), cases)
    n_image = np.load(kept).shape[1]
    assert image_only.n_coefficients == n_image + 1
    assert first.n_coefficients == n_image + 1 + MetadataEncoder.fit(cases).n_features
