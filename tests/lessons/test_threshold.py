"""The threshold lesson's decisions, costs and contract, against brute force, scikit-learn and the run's own files."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from melanoma_lib.errors import ForeignThresholdError
from melanoma_lib.evaluation import Calibrator, OperatingCurve, bootstrap_intervals
from melanoma_lib.lessons import threshold
from melanoma_lib.runs import CHECKPOINT, OPERATING_POINT, PREDICTIONS, Run, sha256


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
    assert set(table) == set(threshold.FORMATS)
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


def test_flagging_nobody_is_a_row_with_dashes():
    targets, scores = predictions(0)
    table = threshold.decision_table(OperatingCurve(targets, scores), {"nobody": np.inf}, Calibrator(1.0, 0.0), (20, 1))
    row = threshold.printed(table).loc["nobody"]
    assert (row["sensitivity"], row["specificity"], row["PPV"]) == ("0.0%", "100.0%", "–")
    assert row["false alarms per melanoma found"] == "–"
    assert table.loc["nobody", "cost of 1,000 lesions"] == pytest.approx(20_000 * targets.mean())


def test_six_rules_choose_what_the_curve_chooses():
    targets, scores = predictions(1)
    curve = OperatingCurve(targets, scores)
    rules = threshold.six_rules(curve, 12, 1)
    assert list(rules.values()) == [
        0.5,
        *(
            point.threshold
            for point in (curve.for_sensitivity(0.9), curve.for_sensitivity(0.95), curve.max_youden(), curve.max_f1())
        ),
        curve.min_cost(12, 1).threshold,
    ]
    assert list(rules)[-1] == "cost 12 to 1"


# --- costs ---


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("prevalence", [None, 0.0176, 0.45])
def test_the_cheapest_threshold_is_the_curves_own_or_nobody(seed, prevalence):
    targets, scores = predictions(seed)
    curve = OperatingCurve(targets, scores)
    for fn_cost, fp_cost in ((20, 1), (1, 1), (1, 30)):
        found = threshold.cheapest_threshold(curve, fn_cost, fp_cost, prevalence)
        try:
            assert found == curve.min_cost(fn_cost, fp_cost, prevalence).threshold
        except ValueError as error:
            assert "flagging nobody" in str(error)
            assert found == np.inf


def test_expected_cost_counts_errors_and_moves_with_the_prevalence():
    targets, scores = predictions(2)
    curve = OperatingCurve(targets, scores)
    cuts = np.array([-np.inf, 0.3, 0.41, np.inf])
    errors = [(20 * ((scores < t) & (targets == 1)).sum() + ((scores >= t) & (targets == 0)).sum()) / len(targets) for t in cuts]
    np.testing.assert_allclose(threshold.expected_cost(curve, cuts, 20, 1), errors)
    # At another prevalence: the same as weighting the classes anew.
    weight = np.where(targets == 1, 0.1 / targets.mean(), 0.9 / (1 - targets.mean()))
    wrong = (scores >= 0.3) != (targets == 1)
    anew = (weight * wrong * np.where(targets == 1, 20, 1)).mean()
    assert threshold.expected_cost(curve, 0.3, 20, 1, prevalence=0.1) == pytest.approx(anew)
    with pytest.raises(ValueError, match="prevalence"):
        threshold.expected_cost(curve, 0.3, 20, 1, prevalence=0)


def test_where_the_risk_is_known_the_formula_is_the_cheapest_cut():
    rng = np.random.default_rng(0)
    risk = rng.beta(1, 5, 400_000)
    curve = OperatingCurve(rng.random(risk.size) < risk, risk)
    formula = 1 / 21
    cost = threshold.expected_cost(curve, np.array([formula / 2, formula, 2 * formula]), 20, 1)
    assert cost[1] < cost[0] and cost[1] < cost[2]
    assert threshold.cheapest_threshold(curve, 20, 1) == pytest.approx(formula, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_net_benefit_is_the_cost_in_other_units(seed):
    targets, risks = predictions(seed)
    curve, cut = OperatingCurve(targets, risks), 1 / 21
    cost = threshold.expected_cost(curve, cut, 20, 1)
    assert curve.net_benefit([cut])[0] == pytest.approx(curve.prevalence - cost / 20)


@pytest.mark.parametrize("risk", [1e-6, 1 / 21, 0.5, 0.999])
def test_an_output_for_a_risk_is_translated_back_into_it(risk):
    calibrator = Calibrator(slope=2.8, intercept=-0.14)
    output = threshold.output_for_risk(calibrator, risk)
    assert calibrator.risk(np.log(output / (1 - output))) == pytest.approx(risk)


def test_a_risk_out_of_range_or_a_reversed_calibrator_is_refused():
    with pytest.raises(ValueError, match=r"risk: expected a number in \(0, 1\), got 1"):
        threshold.output_for_risk(Calibrator(1.0, 0.0), 1)
    with pytest.raises(ValueError, match=r"expected a positive slope, got -0\.5"):
        threshold.output_for_risk(Calibrator(-0.5, 0.0), 0.1)


# --- how sure, and once on test ---


def test_intervals_differ_by_what_is_resampled_and_by_nothing_else(tiny_run):
    cases = tiny_run.predictions("val")
    found = threshold.intervals_by_unit(cases, 0.3, n=200, seed=3)
    for place, unit in enumerate(("image_id", "group_id")):
        wanted = bootstrap_intervals(cases["target"], cases["probability"], cases[unit], 0.3, 200, 3)
        assert {name: pair[place] for name, pair in found.items()} == {name: wanted[name] for name in found}


def test_the_test_column_repeats_what_the_run_wrote_down(tiny_run):
    table = threshold.applied_once(tiny_run)
    kept, (on_validation, on_test) = tiny_run.metrics, table.columns
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        assert table.loc[threshold.NAMES.get(name, name), on_test].startswith(f"{kept['at_threshold'][name]['value']:.3f}")
    auroc = kept["auroc"]
    assert table.loc["AUROC", on_test] == f"{auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}]"
    assert table.loc["images", on_test] == str(kept["n"])
    assert table.loc["sensitivity", on_validation].startswith(f"{tiny_run.operating_point.sensitivity:.3f}")


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
        with pytest.raises(ForeignThresholdError):
            threshold.applied_once(Run(copy.path))
    assert said.startswith("refused: operating_point.json")
    assert file in said.replace("\n", " ")
    assert str(copy.path) not in said.replace("\n", "")
    assert max(map(len, said.splitlines())) <= threshold.LINE


def test_cheats_are_small_and_leave_a_run_that_works(tiny_run):
    original, weights = tiny_run.predictions("val"), tiny_run.model().state_dict()
    with threshold.copy_of(tiny_run) as copy:
        threshold.change_one_answer(copy)
        threshold.change_one_weight(copy)
        changed, other = copy.predictions("val"), copy.model().state_dict()
    off = (changed["probability"] - original["probability"]).abs()
    assert off[0] == pytest.approx(0.01)
    assert (off[1:] == 0).all()
    assert sum(int((weights[name] != other[name]).sum()) for name in weights) == 1


def test_a_threshold_from_another_run_is_refused(tiny_run):
    with threshold.copy_of(tiny_run) as copy, threshold.copy_of(tiny_run) as other:
        threshold.change_one_weight(other)
        foreign = json.loads((other.path / OPERATING_POINT).read_text()) | {"checkpoint_sha256": sha256(other.path / CHECKPOINT)}
        (other.path / OPERATING_POINT).write_text(json.dumps(foreign))
        assert threshold.verdict(other).startswith("accepted")
        shutil.copyfile(other.path / OPERATING_POINT, copy.path / OPERATING_POINT)
        assert threshold.verdict(copy).startswith("refused")
