"""Eight bits: another model, with numbers of its own, whose cost is what independent code finds."""

import json

import numpy as np
import onnx
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from melanoma_lib.errors import ExportError
from melanoma_lib.export import Predictor, export_int8, read_export
from melanoma_lib.export.int8 import INT8_NAME


@pytest.fixture(scope="module")
def small(tiny_run, tmp_path_factory):
    return export_int8(tiny_run, tmp_path_factory.mktemp("int8") / INT8_NAME, n_calibration=40)


def test_convolutions_work_in_eight_bits_and_the_file_says_so(small):
    path, _ = small
    graph = onnx.load(path).graph
    kinds = [node.op_type for node in graph.node]
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    inputs = [made_by.get(name) for node in graph.node if node.op_type == "Conv" for name in node.input[:2]]
    assert kinds.count("Conv") > 5
    assert set(inputs) == {"DequantizeLinear"}
    assert "BatchNormalization" not in kinds
    assert read_export(path).document.precision == "int8"


def test_the_cost_is_what_the_file_does_on_the_test_images(small, tiny_run):
    path, cost = small
    predictor, expected = Predictor(path), tiny_run.predictions("test")
    cases = tiny_run.cases().query("split == 'test'")
    names = ["image_path", "age_approx", "sex", "anatom_site_general_challenge"]
    given = [cases[name].astype(object).where(cases[name].notna(), None).tolist() for name in names]
    found = predictor.predict_batch(*given)
    logits = np.array([case.logit for case in found])
    auroc = roc_auc_score(expected["target"], logits)
    assert cost.int8.auroc == pytest.approx(auroc, abs=1e-3)
    assert cost.float32.auroc == pytest.approx(roc_auc_score(expected["target"], expected["logit"]))
    assert cost.gain["auroc"].value == pytest.approx(cost.int8.auroc - cost.float32.auroc)
    assert cost.gain["auroc"].low <= cost.gain["auroc"].value <= cost.gain["auroc"].high
    assert cost.largest_logit_difference == pytest.approx(np.abs(logits - expected["logit"]).max(), abs=1e-4)
    assert cost.largest_logit_difference > 1e-4  # eight bits do leave a trace
    other = [case.flagged for case in found] != (expected["probability"] >= tiny_run.operating_point.threshold)
    assert cost.disagreement == pytest.approx(np.mean(other), abs=0.02)
    assert cost.int8.megabytes == pytest.approx(path.stat().st_size / 1e6)
    called = expected["probability"] >= tiny_run.operating_point.threshold
    assert cost.float32.sensitivity == pytest.approx(recall_score(expected["target"], called))


def test_it_has_a_threshold_of_its_own_that_reaches_the_sensitivity(small, tiny_run):
    reading = Predictor(small[0]).reading
    assert reading.threshold != tiny_run.operating_point.threshold
    assert reading.predictions_sha256 != tiny_run.operating_point.predictions_sha256
    assert reading.sensitivity >= tiny_run.settings.min_sensitivity
    assert reading.test["auroc"]["value"] == pytest.approx(small[1].int8.auroc)


def test_the_cost_is_printed_and_kept(small):
    path, cost = small
    kept = json.loads(path.with_suffix(".json").read_text())
    assert kept["int8"]["auroc"] == cost.int8.auroc
    assert kept["gain"]["auroc"]["low"] == cost.gain["auroc"].low
    assert f"{cost.gain['auroc'].value:+.4f}" in str(cost)


def test_a_model_of_metadata_alone_has_nothing_to_gain(tiny_settings, tmp_path):
    from melanoma_lib.training import train

    run = train(tiny_settings.with_changes(modalities="metadata", max_epochs=1, runs_dir=tmp_path))
    with pytest.raises(ExportError, match="metadata alone"):
        export_int8(run)
