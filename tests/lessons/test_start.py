import numpy as np
import pytest

from melanoma_lib.errors import DataError, RunError
from melanoma_lib.lessons import start


@pytest.fixture(scope="module")
def cases(tiny_run):
    return start.tested_cases(tiny_run)


def test_tested_cases_are_the_runs_test_split_in_its_order(tiny_run, cases):
    predictions, splits = tiny_run.predictions("test"), tiny_run.splits.set_index("image_id")["split"]
    assert cases["image_id"].tolist() == predictions["image_id"].tolist()
    assert (cases["target"] == predictions["target"]).all()
    assert (splits[cases["image_id"]] == "test").all()


def test_a_case_predicted_from_its_file_gets_the_stored_answer(tiny_run, cases):
    model = tiny_run.model()
    for _, case in cases.sample(6, random_state=0).iterrows():
        reply = start.answer(tiny_run, case, model)
        assert reply.probability == pytest.approx(case["probability"], abs=1e-4)
        assert reply.risk == pytest.approx(case["risk"], abs=1e-4)
        assert reply.flagged == (case["probability"] >= tiny_run.operating_point.threshold)
        assert "not for diagnosis" in str(reply)


def test_an_answer_put_together_from_its_parts_is_the_runs_answer(tiny_run, cases):
    model = tiny_run.model()
    for _, case in cases.sample(3, random_state=1).iterrows():
        pixels, parts = start.taken_apart(tiny_run, case, model)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        logit = parts.logit(parts.prepare(pixels))
        reply = start.answer(tiny_run, case, model)
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(reply.probability, abs=1e-6)
        assert parts.calibrate(logit) == pytest.approx(reply.risk, abs=1e-6)
        assert parts.threshold == reply.threshold


def test_an_output_equal_to_the_threshold_is_flagged():
    assert start.Answer("a", 1, 0.25, 0.1, 0.25).flagged
    assert not start.Answer("a", 1, np.nextafter(0.25, 0), 0.1, 0.25).flagged


def test_a_case_is_chosen_by_id_or_is_the_melanoma_of_median_risk(cases):
    assert start.choose_case(cases, cases["image_id"].iloc[3])["image_id"] == cases["image_id"].iloc[3]
    middle = start.choose_case(cases)
    risks = cases.loc[cases["target"] == 1, "risk"]
    assert middle["target"] == 1
    assert (risks < middle["risk"]).sum() <= len(risks) // 2 >= (risks > middle["risk"]).sum()
    with pytest.raises(DataError, match="no tested case has image_id 'nobody'"):
        start.choose_case(cases, "nobody")


def test_cases_that_are_gone_are_told(tiny_run, cases, monkeypatch):
    from melanoma_lib.data import datamodule

    left = datamodule.cases_for(tiny_run.settings).query("image_id != @cases.image_id.iloc[0]")
    monkeypatch.setattr(datamodule, "cases_for", lambda settings: left)
    with pytest.raises(RunError, match="other cases"):
        start.tested_cases(tiny_run)


def test_the_risk_figure_counts_those_at_least_as_high(cases):
    chosen = start.Answer("a", 1, 0.5, float(cases["risk"].median()), 0.2)
    higher = np.mean(cases.loc[cases["target"] == 1, "risk"] >= chosen.risk)
    assert f"{higher:.0%} of the melanomas" in start.risk_figure(cases, chosen).alt_text


def test_the_heatmap_says_what_it_shows(tiny_run, cases):
    assert start.case_heatmap(tiny_run, start.choose_case(cases)).alt_text
