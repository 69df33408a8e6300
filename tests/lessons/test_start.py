import numpy as np
import pytest

from melanoma_lib.errors import DataError
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


def test_a_case_is_chosen_by_id_or_is_the_melanoma_of_median_risk(cases):
    assert start.choose_case(cases, cases["image_id"].iloc[3])["image_id"] == cases["image_id"].iloc[3]
    middle = start.choose_case(cases)
    risks = cases.loc[cases["target"] == 1, "risk"]
    assert middle["target"] == 1
    assert (risks < middle["risk"]).sum() <= len(risks) // 2 >= (risks > middle["risk"]).sum()
    with pytest.raises(DataError, match="no tested case has image_id 'nobody'"):
        start.choose_case(cases, "nobody")


def test_the_figures_say_what_they_show(tiny_run, cases):
    case = start.choose_case(cases)
    assert start.case_heatmap(tiny_run, case).alt_text
    higher = np.mean(cases.loc[cases["target"] == 1, "risk"] >= case["risk"])
    assert f"of the melanomas {higher:.0%}" in start.risk_figure(cases, case).alt_text
