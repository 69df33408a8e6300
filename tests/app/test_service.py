"""Answers of the app against what the run itself predicted, and what it says of images it was never tested on."""

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from melanoma_lib.app.files import WITHHELD, answer_files, gather
from melanoma_lib.app.page import Page
from melanoma_lib.app.service import Patient, Service, similar_cases
from melanoma_lib.app.uploads import Store
from melanoma_lib.errors import DataError, ExportError, ForeignThresholdError, RunError
from melanoma_lib.evaluation import wilson_interval
from melanoma_lib.explain import heatmaps
from melanoma_lib.explain.unlike import REFERENCE, Reference
from melanoma_lib.inference.document import PAINTING
from melanoma_lib.runs.run import OPERATING_POINT, SETTINGS, Run
from melanoma_lib.training import train
from tests.app.conftest import painted
from tests.app.pictures import encoded

COLUMNS = ["age_approx", "sex", "anatom_site_general_challenge"]


def patient_of(case) -> Patient:
    return Patient(*(None if value != value else value for value in case[COLUMNS]))


def admitted(service: Service, case) -> tuple:
    return service.admit(Path(case["image_path"]).read_bytes()), patient_of(case)


def test_the_app_answers_what_the_run_predicted_by_either_backend(service, app_run, test_cases):
    cases, predictions = test_cases
    given = [service.ask(*admitted(service, case)) for _, case in cases.iterrows()]
    for name in ("logit", "probability", "risk"):
        np.testing.assert_allclose([one[name] for one in given], predictions[name], atol=1e-5, rtol=0)
    threshold = service.run.operating_point.threshold
    assert [one["flagged"] for one in given] == [bool(p >= threshold) for p in predictions["probability"]]
    onnx = Service(app_run, "onnx")
    theirs = [onnx.ask(*admitted(onnx, case))["risk"] for _, case in cases.head(12).iterrows()]
    np.testing.assert_allclose(theirs, predictions["risk"].head(12), atol=1e-4)
    assert onnx.facts()["backend"] == "ONNX Runtime"


def test_rates_and_risk_carried_to_a_prevalence(service, test_cases, monkeypatch):
    case, tested = admitted(service, test_cases[0].iloc[0]), service.run.metrics["at_threshold"]
    answer = service.ask(*case, prevalence=0.03)
    assert answer["test_counts"] == {name: tested[name] for name in ("tp", "fp", "tn", "fn")}
    sensitivity, specificity = tested["sensitivity"]["value"], tested["specificity"]["value"]
    true, false = sensitivity * 0.03, (1 - specificity) * 0.97
    assert answer["ppv_at_prevalence"] == pytest.approx(true / (true + false))
    assert (answer["of_thousand"]["tp"], answer["of_thousand"]["fp"]) == (round(1000 * true), round(1000 * false))
    own = service.run.predictions("val")["target"].mean()
    rare, alike, common = (service.ask(*case, prevalence=share)["risk_at_prevalence"] for share in (own / 2, own, (1 + own) / 2))
    low, high = (answer["similar_test_cases"]["observed"][end] for end in ("low", "high"))
    assert alike == pytest.approx(answer["risk_shown"]) and answer["risk_shown"] == min(max(answer["risk"], low), high)
    assert rare < alike < common
    carried = service.ask(*case, prevalence=own)["risk_at_prevalence_interval"]
    assert (carried["low"], carried["high"]) == pytest.approx((low, high))
    nearest = np.column_stack([np.full(200, 1e-6), np.zeros(200)])  # of two hundred as safe ones none was a melanoma
    with monkeypatch.context() as patched:
        patched.setattr(service, "test", nearest)
        assert service.ask(*case)["risk_shown"] == max(1 / 200, min(answer["risk"], wilson_interval(0, 200).high))
    reading = service.predictor.reading  # of a test in which nothing is flagged the PPV is null
    nobody = {**tested, "tp": 0, "fp": 0, "tn": 30, "fn": 10}
    monkeypatch.setattr(service.predictor, "reading", replace(reading, test={**reading.test, "at_threshold": nobody}))
    assert json.loads(json.dumps(service.ask(*case), allow_nan=False))["ppv_at_prevalence"] is None


def test_similar_cases_by_brute_force():
    rng = np.random.default_rng(0)
    test = np.column_stack([(scores := rng.random(400)), (rng.random(400) < 0.3) & (scores > 0.1)])
    for risk in (1e-6, 0.31, 0.9, 1 - 1e-6):
        away = sorted((abs(math.log(p / (1 - p)) - math.log(risk / (1 - risk))), p, target) for p, target in test.tolist())
        kept = [row for place, row in enumerate(away) if row[0] <= 0.5 or place < 30]
        if not any(row[2] for row in kept):
            kept = [row for place, row in enumerate(away) if row[0] <= 0.5 or place < 100]
        found = similar_cases(test, risk)
        assert (found["n"], found["melanomas"]) == (len(kept), sum(row[2] for row in kept))
        assert (found["risk_from"], found["risk_to"]) == (min(row[1] for row in kept), max(row[1] for row in kept))
        assert found["observed"] == wilson_interval(found["melanomas"], found["n"]).to_dict()
    assert similar_cases(test[:7], 0.5)["n"] == 7


def test_many_at_once_get_the_answers_and_heatmaps_of_one_after_the_other(service, test_cases):
    rows = [case for _, case in test_cases[0].head(12).iterrows()]

    def ask(case):
        values, _ = service.heatmap(*admitted(service, case), service.first_layer, "gradcam")
        return service.ask(*admitted(service, case))["logit"], float(values.sum())

    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_allclose(list(pool.map(ask, rows)), [ask(case) for case in rows], rtol=1e-4, atol=1e-6)
    case, patient = admitted(service, rows[3])
    metadata = torch.from_numpy(service.run.encoder.transform(test_cases[0][3:4]))
    for layer in service.layers:
        expected = heatmaps(service.model, torch.from_numpy(case.pixels[None]), metadata, layer, "layercam")[layer][0]
        np.testing.assert_allclose(service.heatmap(case, patient, layer, "layercam")[0], expected, atol=1e-5)


def test_most_test_images_pass_and_what_is_no_skin_does_not(service, test_cases):
    cases = test_cases[0]
    warned = [bool(service.admit(Path(path).read_bytes()).warnings) for path in cases["image_path"]]
    assert np.mean(warned) < 0.15  # few images, few limits: an eighth is far from what a fair limit would give
    rows, columns = np.mgrid[:200, :200]
    strange = {
        "too dark": np.zeros((200, 200, 3)),
        "too green": np.stack([60 + 0 * rows, 150 + 30 * np.sin(rows / 9), 50 + 0 * rows], -1),
        "noise": np.random.default_rng(0).integers(0, 256, (200, 200, 3)),
        "unlike every image": 200 * np.stack([(rows // 20 + columns // 20) % 2] * 3, -1),
    }
    for words, pixels in strange.items():
        case = service.admit(encoded(pixels.astype(np.uint8)))
        assert any(words in text for text in case.warnings), (words, case.warnings)
        assert not service.ask(case, Patient())["reliable"]


def test_a_reference_is_kept_and_refused_for_another_model(app_run, service, tmp_path):
    copy = Run(shutil.copytree(app_run.path, tmp_path / "copy"))
    file = copy.path / REFERENCE
    assert Reference.of(copy).far == service.reference.far
    replace(service.reference, checkpoint_sha256="0" * 64).save(file)
    with pytest.raises(ForeignThresholdError, match="another checkpoint"):
        Reference.of(copy)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RunError, match="delete it"):
        Service(copy)


def test_a_run_without_its_images_answers_and_says_what_it_cannot_do(app_run, lesion, tmp_path):
    moved = Run(shutil.copytree(app_run.path, tmp_path / "moved"))
    (moved.path / REFERENCE).unlink()
    moved.settings = moved.settings.model_copy(update={"source": "ham10000", "data_dir": tmp_path / "gone"})
    service = Service(moved)
    assert any("prepares the comparison" in note for note in service.admit(lesion).notes)
    service.learn_training()
    assert service.reference is None and "gone" in service.lacks
    assert any("gone" in note for note in service.ask(service.admit(lesion), Patient())["notes"])


def test_a_foreign_threshold_or_export_is_refused(app_run, tmp_path):
    folder = shutil.copytree(app_run.path, tmp_path / "foreign")
    (folder / "model.onnx").unlink()
    with pytest.raises(ExportError, match="python -m melanoma_lib export"):
        Service(Run(folder), "onnx")
    stored = folder / OPERATING_POINT
    stored.write_text(stored.read_text().replace(app_run.operating_point.checkpoint_sha256, "0" * 64))
    with pytest.raises(ForeignThresholdError):
        Service(Run(folder))


@pytest.mark.parametrize("modalities", ["image", "metadata"])
def test_runs_of_one_branch(tiny_settings, modalities, lesion):
    service = Service(train(tiny_settings.model_copy(update={"modalities": modalities, "max_epochs": 1})))
    if modalities == "image":
        case = service.admit(painted(lesion))
        assert service.heatmap(case, Patient(), service.first_layer, "gradcam")[0].ndim == 2
        with pytest.raises(DataError, match="image alone"):
            service.ask(case, Patient(age=50))
        return
    predictions = service.run.predictions("test")
    given = [service.ask(None, patient_of(case))["logit"] for _, case in predictions.iterrows()]
    np.testing.assert_allclose(given, predictions["logit"], atol=1e-5)
    with pytest.raises(DataError, match="no image"):
        service.admit(lesion)


def test_a_model_of_synthetic_cases_answers_those_alone(app_run, lesion, tmp_path):
    folder = shutil.copytree(app_run.path, tmp_path / "synthetic")
    (folder / SETTINGS).write_text(app_run.settings.with_changes(source="synthetic").to_json())
    service, mine = Service(Run(folder)), painted(lesion)
    assert 0 < service.ask(service.admit(mine), Patient())["risk"] < 1
    page = Page(service, Store())
    assert all(service.ask(page.case(token), Patient()) for token in page.names)
    mark = mine[20 : mine.index(b"photograph: ") + 12 + 64]
    brightened = mine[:-300] + bytes([mine[-300] ^ 1]) + mine[-299:]
    for data in (lesion, lesion[:20] + mark + lesion[20:], brightened):
        with pytest.raises(DataError, match="trained on synthetic cases"):
            service.admit(data)


def test_a_model_of_photographs_relies_on_nothing_painted(service, lesion, app_run):
    page = Page(service, Store())
    (token,) = page.names
    for case in (page.case(token), service.admit(painted(lesion))):
        assert PAINTING in case.warnings and not service.ask(case, Patient())["reliable"]
    Path("painted.jpg").write_bytes(painted(lesion))
    assert answer_files(app_run, gather([Path("painted.jpg")]), show_progress=False)["decision"].tolist() == [WITHHELD]
