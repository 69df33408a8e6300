"""The threshold lesson's decisions, costs and contract, against brute force, scikit-learn and the run's own files."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from melanoma_lib.evaluation import Calibrator, OperatingCurve, subgroup_table
from melanoma_lib.lessons import threshold
from melanoma_lib.runs import CHECKPOINT, OPERATING_POINT, PREDICTIONS, sha256


def predictions(seed, n=120, digits=2, prevalence=0.2):
    """Targets of both classes and scores in [0, 1] with many ties."""
    rng = np.random.default_rng(seed)
    targets = rng.random(n) < prevalence
    targets[:2] = True, False
    return targets.astype(int), np.clip(rng.normal(0.35 + 0.2 * targets, 0.15), 0, 1).round(digits)


# --- decisions ---


@pytest.mark.parametrize("seed", range(4))
def test_a_decision_table_says_what_scikit_learn_counts(seed):
    targets, scores = predictions(seed)
    calibrator = Calibrator(slope=1.7, intercept=-0.4)
    cuts = {"low": 0.2, "a score": scores[5], "high": 0.6}
    table = threshold.decision_table(OperatingCurve(targets, scores), cuts, calibrator, costs=(20, 3))
    assert list(table.index) == list(cuts)
    for name, cut in cuts.items():
        tn, fp, fn, tp = confusion_matrix(targets, scores >= cut).ravel()
        row = table.loc[name]
        assert row["sensitivity"] == pytest.approx(tp / (tp + fn))
        assert row["specificity"] == pytest.approx(tn / (tn + fp))
        assert row["PPV"] == pytest.approx(tp / (tp + fp))
        assert row["false alarms per melanoma found"] == pytest.approx(fp / tp)
        assert row["cost of 1,000 lesions"] == pytest.approx(1000 * (20 * fn + 3 * fp) / len(targets))
        risk = 1 / (1 + np.exp(-(1.7 * np.log(cut / (1 - cut)) - 0.4)))
        assert row["calibrated risk"] == pytest.approx(risk)
        assert row["implied price"] == pytest.approx((1 - risk) / risk)


@pytest.mark.parametrize("risk", [1e-6, 1 / 21, 0.5, 0.999])
def test_an_output_for_a_risk_is_translated_back_into_it(risk):
    calibrator = Calibrator(slope=2.8, intercept=-0.14)
    output = threshold.output_for_risk(calibrator, risk)
    assert calibrator.risk(np.log(output / (1 - output))) == pytest.approx(risk)


def test_the_figures_say_the_numbers_that_they_draw(tiny_run):
    targets, scores = predictions(3)
    curve, calibrator = OperatingCurve(targets, scores), Calibrator(2.0, -0.5)
    tn, fp, fn, tp = confusion_matrix(targets, scores >= 0.4).ravel()
    text = threshold.score_figure(targets, scores, {"0.4": 0.4}).alt_text
    assert f"at 0.4 {tp} of {tp + fn} melanomas and {fp} of {fp + tn} others" in text
    text = threshold.cost_figure(curve, calibrator, 20, 1).alt_text
    assert f"an output taken for a risk, a threshold of 0.048, {1000 * curve.expected_cost(1 / 21, 20, 1):,.0f}" in text
    with pytest.raises(ValueError, match=r"expected a positive slope, got 0"):
        threshold.cost_figure(curve, Calibrator(0.0, 0.2), 20, 1)
    point = curve.at(0.4)
    assert f"PPV {point.ppv_at(0.02):.1%}, NPV" in threshold.prevalence_figure(point, {"rare": 0.02}).alt_text
    table = subgroup_table(tiny_run.predictions("val"), 0.3, n=50)
    text = threshold.subgroup_figure(table, 0.3).alt_text
    assert "nan" not in text
    assert text.count("undefined") == table[["sensitivity", "specificity"]].isna().to_numpy().sum() > 0


# --- the contract ---


def test_a_copy_is_accepted_and_gone_afterwards_and_the_run_untouched(tiny_run):
    before = {file.name: sha256(file) for file in tiny_run.path.rglob("*") if file.is_file()}
    with threshold.copy_of(tiny_run) as copy:
        place = copy.path
        assert threshold.verdict(copy) == f"accepted: threshold {tiny_run.operating_point.threshold:.3f}"
        threshold.change_one_answer(copy)
        threshold.change_one_weight(copy)
    assert not place.exists()
    assert {file.name: sha256(file) for file in tiny_run.path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("cheat", "file"), [(threshold.change_one_answer, PREDICTIONS.format("val")), (threshold.change_one_weight, CHECKPOINT)]
)
def test_a_cheated_copy_is_refused_by_name_and_without_its_place(tiny_run, cheat, file):
    with threshold.copy_of(tiny_run) as copy:
        cheat(copy)
        said = threshold.verdict(copy)
    assert said.startswith("refused: operating_point.json")
    assert file in said
    assert str(copy.path) not in said


def test_a_threshold_from_another_run_is_refused(tiny_run):
    with threshold.copy_of(tiny_run) as copy, threshold.copy_of(tiny_run) as other:
        threshold.change_one_weight(other)
        foreign = json.loads((other.path / OPERATING_POINT).read_text()) | {"checkpoint_sha256": sha256(other.path / CHECKPOINT)}
        (other.path / OPERATING_POINT).write_text(json.dumps(foreign))
        assert threshold.verdict(other).startswith("accepted")
        shutil.copyfile(other.path / OPERATING_POINT, copy.path / OPERATING_POINT)
        assert threshold.verdict(copy).startswith("refused")
