import pytest

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
