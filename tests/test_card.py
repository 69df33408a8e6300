"""The model card: numbers recomputed from the run's predictions and split; nothing of another model gets in."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.export import card_text, differences, shared_by_image_split, write_card
from melanoma_lib.runs import Run


def test_tables_hold_what_scikit_learn_finds_and_no_folder_of_this_machine(tiny_run):
    assert str(tiny_run.path.parent) not in card_text(tiny_run)
    rows, test, point = {}, tiny_run.predictions("test"), tiny_run.operating_point
    for line in card_text(tiny_run).splitlines():
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows.setdefault(first, cells)
    expected = {"AUROC": roc_auc_score, "average precision": average_precision_score, "brier": brier_score_loss}
    for name, score in expected.items():
        found = float(rows[name][0].split()[0])
        assert found == pytest.approx(score(test["target"], test["probability"]), abs=6e-4)
    for column, threshold in enumerate((0.5, point.threshold)):
        tn, fp, fn, tp = confusion_matrix(test["target"], test["probability"] >= threshold).ravel()
        assert rows["TP / FP / TN / FN"][column] == f"{tp} / {fp} / {tn} / {fn}"
        assert float(rows["specificity"][column].split()[0]) == pytest.approx(tn / (tn + fp), abs=6e-4)
    for name, part in tiny_run.splits.groupby("split"):
        counts = (len(part), part["group_id"].nunique(), part["target"].sum())
        assert rows[name] == [*map(str, counts), f"{part['target'].mean():.1%}"]


def test_the_share_an_image_split_would_leak_is_that_of_many_random_splits(tiny_run):
    splits, rng, leaked = tiny_run.splits, np.random.default_rng(0), []
    for _ in range(2000):
        trained = rng.random(len(splits)) < (splits["split"] == "train").mean()
        tested = splits[~trained & (splits["target"] == 1)]
        leaked += tested["group_id"].isin(splits.loc[trained, "group_id"]).tolist()
    assert shared_by_image_split(splits) == pytest.approx(np.mean(leaked), abs=0.01)


def test_check_finds_a_changed_card_and_a_changed_run(own_run, capsys):
    path = write_card(own_run)
    assert main(["card", str(own_run.path), "--check"]) == 0
    path.write_text(path.read_text(encoding="utf-8").replace("seed | 0", "seed | 1"), encoding="utf-8")
    assert main(["card", str(own_run.path), "--check"]) == 1
    assert "+| seed | 0 |" in capsys.readouterr().out
    write_card(own_run)
    (own_run.path / "metrics.json").write_text(json.dumps(own_run.metrics | {"n": 12345}))
    assert any("12345 images" in line for line in differences(Run(own_run.path)))
