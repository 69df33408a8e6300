"""A head retrained for an explorer: its state against scikit-learn, its answers without a page."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from melanoma_lib.errors import DataError, SettingsError
from melanoma_lib.heads import FeatureTable, HeadSettings, train_head
from melanoma_lib.losses import FocalLoss
from melanoma_lib.widgets import FocalLossExplorer
from melanoma_lib.widgets.head import BINS, head_state

QUICK = HeadSettings(epochs=3)


def random_table(n: int = 900, n_image: int = 20, n_metadata: int = 6, seed: int = 0) -> FeatureTable:
    """Features of which a few say something of the target."""
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < 0.2).astype(int)
    features = rng.normal(size=(n, n_image + n_metadata)) + target[:, None] * np.linspace(0.8, 0, n_image + n_metadata)
    names = [f"c{i}" for i in range(n)]
    split = np.array(["train", "train", "train", "val", "test"])[np.arange(n) % 5]
    cases = pd.DataFrame({"image_id": names, "group_id": names, "split": split, "target": target})
    return FeatureTable(cases, features.astype(np.float32), n_image)


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    return random_table()


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, alpha=0.8, gamma=0.0, dropout=0.5, learning_rate=0.05)])
def test_state_is_what_scikit_learn_says_of_the_validation_scores(table, settings):
    state, scores = head_state(table, settings), train_head(table, settings).of("val")
    called = scores["probability"] >= 0.5
    (tn, fp), (fn, tp) = confusion_matrix(scores["target"], called, labels=[0, 1])
    assert state["auroc"] == pytest.approx(roc_auc_score(scores["target"], scores["probability"]))
    assert state["f1"] == pytest.approx(f1_score(scores["target"], called))
    assert (state["sensitivity"], state["specificity"]) == pytest.approx((tp / (tp + fn), tn / (tn + fp)))
    assert state["true_risk"] == FocalLoss(settings.alpha, settings.gamma).true_risk(0.5)
    assert state["n"] == [tp + fn, tn + fp]
    melanomas = scores.loc[scores["target"] == 1, "probability"]
    expected = [((melanomas >= k / BINS) & (melanomas < (k + 1) / BINS)).mean() for k in range(BINS)]
    assert state["shares"][0] == pytest.approx(expected, abs=1e-4)
    assert [sum(shares) for shares in state["shares"]] == pytest.approx([1, 1], abs=BINS * 1e-4)
    assert [len(losses) for losses in state["losses"]] == [settings.epochs] * 2


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"gamma": -1.0}, {"epochs": 3}])
def test_a_wrong_request_is_shown_and_counts_as_answered(table, wrong):
    explorer = FocalLossExplorer(table, QUICK)
    before = explorer.state
    with pytest.raises(SettingsError):
        explorer.request = {"alpha": None, "gamma": 2.0, "number": 7} | wrong
    assert next(iter(wrong)) in explorer.problem
    assert (explorer.answered, explorer.state) == (7, before)
    explorer.request = {"alpha": None, "gamma": 1.0, "number": 8}
    assert (explorer.answered, explorer.problem) == (8, "")


def test_features_of_one_branch_say_what_is_missing(table):
    with pytest.raises(DataError, match="image\\+metadata"):
        FocalLossExplorer(replace(table, n_image=table.features.shape[1]), QUICK)
