from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.bench import bench_thresholds, growth, thresholds
from melanoma_lib.bench.thresholds import Duel, duel_at, duel_bootstrap, duel_curve, predictions
from melanoma_lib.settings import Settings

SMALL = {"ROUNDS": 2, "N_PREDICTIONS": 2000, "N_REPLICATES": 30, "ISIC2020": (3000, 190, 55)}


@pytest.fixture
def small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(thresholds, name, value)
    monkeypatch.setattr(growth, "ROUNDS", 1)
    monkeypatch.setattr(growth, "SIZES", (100, 1000))


def test_predictions_have_the_shape_of_isic_2020():
    targets, scores, groups = predictions(33_126, seed=0)
    assert (targets.size, targets.sum(), np.unique(groups).size) == (33_126, 584, 2_056)
    assert np.unique(scores).size < scores.size / 2  # ties
    assert 0.8 < roc_auc_score(targets, scores) < 0.99
    assert np.bincount(groups).max() > 3 * np.bincount(groups).mean()
    assert not np.array_equal(scores, predictions(33_126, seed=1).scores)


@pytest.mark.parametrize("duel", [duel_at, duel_curve, lambda cases: duel_bootstrap(cases, 0)], ids=["at", "curve", "bootstrap"])
def test_kit_and_scikit_learn_agree(duel, small):
    result = duel(predictions(3000, 0))
    assert len(result.kit) == len(result.peer) == 2
    assert result.difference < 1e-12


def test_a_wrong_answer_is_not_met_however_fast(small, monkeypatch):
    monkeypatch.setattr(thresholds, "resample_groups", lambda n_groups, n, seed, block: [np.ones((n, n_groups), dtype=int)])
    result = duel_bootstrap(predictions(3000, 0), 0)
    assert result.difference > 1e-3  # scikit-learn saw other resamples
    assert "MISSED" in str(Duel("work", [1e-9], [1.0], 50.0, result.difference))


def test_a_goal_is_a_ratio_of_rounds():
    duel = Duel("work", kit=[1.0, 1.0, 2.0], peer=[30.0, 50.0, 110.0], goal=50.0, difference=0.0)
    assert duel.ratio == 50
    assert " met" in str(duel)
    assert "MISSED" in str(Duel("work", duel.kit, duel.peer, 50.1, 0.0))


def test_the_command_prints_the_table_and_writes_the_figure_with_its_words(small, capsys):
    assert main(["bench", "thresholds"]) == 0
    printed = capsys.readouterr().out
    for words in ("one threshold on 2,000 predictions", "30 replicates, 3,000 rows, 190 patients", "computed 6 of the 30"):
        assert words in printed
    assert Image.open("reports/bench_thresholds.png").size[0] > 500
    assert "1,000" in Path("reports/bench_thresholds.txt").read_text(encoding="utf-8")


def test_the_figure_goes_where_it_is_asked_for(small, tmp_path):
    assert str(tmp_path / "kept" / "bench_thresholds.png") in bench_thresholds(Settings(), tmp_path / "kept")
    assert (tmp_path / "kept" / "bench_thresholds.png").exists()
