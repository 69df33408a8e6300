import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.errors import StudyError
from melanoma_lib.folds import cross_validate
from melanoma_lib.studies.folds_table import folds_markdown, folds_table
from melanoma_lib.studies.results import load_results, save_results


@pytest.fixture(scope="module")
def gathered(tiny_settings, tmp_path_factory):
    runs = tmp_path_factory.mktemp("folds_table")
    return cross_validate(tiny_settings.with_changes(folds=2, modalities="metadata", max_epochs=2, runs_dir=runs))


def test_the_table_says_what_the_predictions_say(gathered, tmp_path):
    table = load_results(save_results(folds_table(gathered), tmp_path).stem, tmp_path)
    test = gathered.predictions("test")
    by_fold = [roc_auc_score(part["target"], part["probability"]) for _, part in test.groupby("fold")]
    (row,) = table.rows
    assert row["auroc"]["value"] == pytest.approx(np.mean(by_fold))
    assert row["brier"]["value"] == pytest.approx(np.mean((test["risk"] - test["target"]) ** 2))
    flagged = test["probability"] >= gathered.operating_point.threshold
    assert row["sensitivity"]["value"] == pytest.approx(flagged[test["target"] == 1].mean())
    text = folds_markdown(table)
    assert f"from {min(by_fold):.3f} to {max(by_fold):.3f}" in text
    assert f"{len(test):,} images" in text
    assert "--folds 2" in table.command
    assert "--runs-dir" not in table.command


def test_a_run_that_averages_views_is_named_so_and_not_asked_again(gathered, monkeypatch):
    monkeypatch.setitem(vars(gathered), "settings", gathered.settings.with_changes(tta=True))
    monkeypatch.setattr("melanoma_lib.studies.folds_table.evaluate_run", lambda *_, **__: pytest.fail("predicted again"))
    for views in (False, True):
        (row,) = folds_table(gathered, views).rows
        assert row["name"] == "eight views, averaged"


def test_one_training_is_no_cross_validation(tiny_run):
    with pytest.raises(StudyError, match="train --folds"):
        folds_table(tiny_run)


def test_the_command_writes_the_table_with_both_rows(gathered, capsys):
    assert main(["study", "folds", str(gathered.path), "--tta"]) == 0
    assert "eight views" in capsys.readouterr().out
    one, eight = load_results("folds").rows
    assert one["auroc"]["value"] == pytest.approx(eight["auroc"]["value"]), "metadata look the same from all sides"
