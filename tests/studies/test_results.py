import json

import numpy as np
import pytest

from melanoma_lib.errors import StudyError
from melanoma_lib.studies.results import ResultTable, interval_text, load_results, save_results


def table(**changes):
    values = {"name": "trial", "title": "A trial", "command": "python -m melanoma_lib study trial", "rows": [{"auroc": 0.9}]}
    return ResultTable(**(values | changes))


def test_a_table_comes_back_as_it_was_saved(tmp_path):
    saved = table(
        rows=[{"auroc": np.float32(0.5), "n": np.int64(7), "undefined": float("nan"), "deep": {"low": [np.float64(1)]}}]
    )
    path = save_results(saved, tmp_path)
    assert load_results("trial", tmp_path).rows == [{"auroc": 0.5, "n": 7, "undefined": None, "deep": {"low": [1.0]}}]
    assert json.loads(path.read_text())["command"] == saved.command
    assert {file.name for file in tmp_path.iterdir()} == {"trial.json"}


@pytest.mark.parametrize(
    "rows", [[{"image_id": "ISIC_1"}], [{"by": {"target": 1}}], [{"folds": [{"risk": 0.1}]}], [{"auroc": float("inf")}]]
)
def test_figures_of_single_cases_and_infinite_ones_are_refused(rows, tmp_path):
    with pytest.raises(StudyError, match=r"leave out|finite"):
        save_results(table(rows=rows), tmp_path)
    assert not list(tmp_path.iterdir())


def test_details_are_held_to_the_same_rule(tmp_path):
    with pytest.raises(StudyError, match="group_id"):
        save_results(table(details={"worst": {"group_id": "HAM_1"}}), tmp_path)


def test_a_missing_table_names_those_there(tmp_path):
    save_results(table(), tmp_path)
    with pytest.raises(StudyError, match="trial"):
        load_results("league", tmp_path)


def test_a_foreign_file_is_no_table(tmp_path):
    (tmp_path / "league.json").write_text('{"rows": 1}')
    with pytest.raises(StudyError, match="no result table"):
        load_results("league", tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"value": 0.9061, "low": 0.892, "high": 0.9187}, "0.906 [0.892, 0.919]"),
        ({"value": 0.5, "low": None, "high": None}, "0.500"),
        ({"value": None, "low": None, "high": None}, "–"),
        (None, "–"),
    ],
)
def test_intervals_read_as_text(value, text):
    assert interval_text(value) == text
