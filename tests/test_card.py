"""The model card: every number in it recomputed from the run's predictions and split, by scikit-learn or by hand."""

import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, matthews_corrcoef, roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.card import NAME, card_text, differences, write_card
from melanoma_lib.card.checklists import CLAIM, HUMAN, TRIPOD_AI, Checklist, checklist
from melanoma_lib.card.sections import _shared_by_image_split
from melanoma_lib.errors import CardError, ForeignThresholdError
from melanoma_lib.runs import Run


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """A copy of the tiny run that a test may change."""
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture(scope="module")
def rows(tiny_run):
    """Cells of the card's tables, by their first cell."""
    found = {}
    for line in card_text(tiny_run).splitlines():
        if line.startswith("| "):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(first, []).append(others)
    return found


def value(cell):
    """The number before its interval, and the interval's ends."""
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d+", cell)]
    if len(numbers) == 3:
        assert numbers[1] <= numbers[0] <= numbers[2]
    return numbers[0]


def test_ranking_and_calibration_are_scikit_learns(tiny_run, rows):
    test = tiny_run.predictions("test")
    assert value(rows["AUROC"][0][0]) == pytest.approx(roc_auc_score(test["target"], test["probability"]), abs=6e-4)
    precision = average_precision_score(test["target"], test["probability"])
    assert value(rows["average precision"][0][0]) == pytest.approx(precision, abs=6e-4)
    for cell, scale in zip(rows["brier"][0], ("probability", "risk"), strict=True):
        assert value(cell) == pytest.approx(brier_score_loss(test["target"], test[scale]), abs=6e-4)


def test_decisions_are_counted_at_both_cuts(tiny_run, rows):
    test, point = tiny_run.predictions("test"), json.loads((tiny_run.path / "operating_point.json").read_text())
    for column, cut in enumerate((0.5, point["threshold"])):
        called = test["probability"] >= cut
        tn, fp, fn, tp = confusion_matrix(test["target"], called).ravel()
        assert rows["TP / FP / TN / FN"][0][column] == f"{tp} / {fp} / {tn} / {fn}"
        expected = {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "accuracy": (tp + tn) / len(test)}
        expected |= {"MCC": matthews_corrcoef(test["target"], called)} if 0 < called.sum() < len(test) else {}
        for name, number in expected.items():
            assert value(rows[name][0][column]) == pytest.approx(number, abs=6e-4)
    assert rows["threshold on the output"][0][0] == f"{point['threshold']:.6f}"


def test_splits_are_counted_and_their_subgroups_too(tiny_run, rows):
    splits = tiny_run.splits
    for name, part in splits.groupby("split"):
        images, groups, melanomas, share = rows[name][0]
        assert (int(images), int(groups), int(melanomas)) == (len(part), part["group_id"].nunique(), part["target"].sum())
        assert share == f"{part['target'].mean():.1%}"
    test = tiny_run.predictions("test")
    for sex in ("female", "male"):
        (row,) = [others for first, (others, *_) in rows.items() if first.startswith(f"sex: {sex}")]
        assert [int(cell) for cell in row[:2]] == [(test["sex"] == sex).sum(), test.loc[test["sex"] == sex, "target"].sum()]


def test_the_share_an_image_split_would_leak_is_that_of_many_random_splits(tiny_run):
    splits, rng, leaked = tiny_run.splits, np.random.default_rng(0), []
    training = (splits["split"] == "train").mean()
    for _ in range(2000):
        trained = rng.random(len(splits)) < training
        known = set(splits.loc[trained, "group_id"])
        tested = splits[~trained & (splits["target"] == 1)]
        leaked += tested["group_id"].isin(known).tolist()
    assert _shared_by_image_split(splits) == pytest.approx(np.mean(leaked), abs=0.01)


def test_a_changed_file_of_the_run_changes_the_card(own_run):
    before = card_text(own_run)
    metrics = json.loads((own_run.path / "metrics.json").read_text())
    metrics["auroc"]["value"] -= 0.1
    (own_run.path / "metrics.json").write_text(json.dumps(metrics))
    assert card_text(Run(own_run.path)) != before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_a_number_changed_anywhere_is_found(own_run, data):
    text = card_text(own_run)
    at = data.draw(st.sampled_from([match.start() for match in re.finditer(r"\d", text)]))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != text[at]]))
    (own_run.path / NAME).write_text(text[:at] + other + text[at + 1 :], encoding="utf-8")
    assert len([line for line in differences(own_run) if line.startswith("-") and not line.startswith("---")]) == 1


def test_a_card_that_was_just_written_agrees(own_run, capsys):
    path = write_card(own_run)
    assert differences(own_run) == []
    assert main(["card", str(own_run.path), "--check"]) == 0
    path.write_text(path.read_text(encoding="utf-8").replace("seed | 0", "seed | 1"), encoding="utf-8")
    assert main(["card", str(own_run.path), "--check"]) == 1
    assert "+| seed | 0 |" in capsys.readouterr().out


def test_what_belongs_to_another_model_is_refused(own_run, tmp_path):
    with pytest.raises(CardError, match="no league in"):
        card_text(own_run, tmp_path / "league.json")
    foreign = {"facts": {"checkpoint_sha256": "0" * 64, "run": "somebody-elses"}, "scores": []}
    (own_run.path / "league.json").write_text(json.dumps(foreign))
    with pytest.raises(CardError, match="heatmaps of somebody-elses, another model"):
        card_text(own_run)
    (own_run.path / "league.json").unlink()
    point = json.loads((own_run.path / "operating_point.json").read_text())
    (own_run.path / "operating_point.json").write_text(json.dumps(point | {"checkpoint_sha256": "0" * 64}))
    with pytest.raises(ForeignThresholdError):
        write_card(Run(own_run.path))
    assert not (own_run.path / NAME).exists()


@pytest.mark.parametrize(("guideline", "n"), [(CLAIM, 44), (TRIPOD_AI, 27)])
def test_checklists_have_all_items_and_count_what_is_left(guideline, n):
    assert list(guideline.items) == [str(item + 1) for item in range(n)]
    with_league, without = checklist(guideline, True), checklist(guideline, False)
    for text in (with_league, without):
        total, answered, partly, left = map(int, re.findall(r"\d+", text.splitlines()[2]))
        assert total == n == answered + partly + left
        assert text.count(HUMAN) == left
    assert (with_league == without) == ("Heatmaps" not in str(guideline.items))


def test_an_item_that_no_section_answers_is_an_error():
    with pytest.raises(ValueError, match="the card has no section Results"):
        checklist(Checklist("made up", {"1": ("topic", "Results")}), True)


def test_the_card_warns_and_names_no_path(tiny_run):
    text = card_text(tiny_run)
    assert "Educational, not for diagnosis" in text and str(tiny_run.path.parent) not in text
