"""Answers of the app against what the run itself predicted, and what it says of images it was never tested on."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from melanoma_lib.app.files import WITHHELD, answer_files, gather
from melanoma_lib.app.page import Page, html
from melanoma_lib.app.service import Patient, Service, similar_cases
from melanoma_lib.app.unlike import REFERENCE, Reference
from melanoma_lib.app.uploads import Store
from melanoma_lib.errors import DataError, ExportError, ForeignThresholdError, RunError
from melanoma_lib.evaluation import wilson_interval
from melanoma_lib.explain import heatmaps
from melanoma_lib.inference.document import PAINTING
from melanoma_lib.runs.run import OPERATING_POINT, SETTINGS, Run
from melanoma_lib.training import train
from tests.app.conftest import MARKS
from tests.app.pictures import encoded

COLUMNS = ["age_approx", "sex", "anatom_site_general_challenge"]


def patient_of(case) -> Patient:
    return Patient(*(None if value != value else value for value in case[COLUMNS]))


def painted(lesion: bytes) -> bytes:
    return lesion.replace(*MARKS[::-1])


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


def test_a_backbone_without_a_layer_to_draw_is_answered_all_the_same(app_run, lesion, monkeypatch):
    monkeypatch.setattr("melanoma_lib.explain.layers._describe", lambda backbone: {})
    monkeypatch.setattr(Service, "learn_training", lambda self: None)
    service, store = Service(app_run), Store()
    token = store.put(service.admit(lesion))
    _, answer, _, pictures = Page(service, store).respond(token, "", "unknown", "unknown", None, None, None, "")
    assert "Uncalibrated probability" in answer and "no layer" in pictures


def test_rates_and_risk_carried_to_a_prevalence(service, test_cases):
    case, tested = admitted(service, test_cases[0].iloc[0]), service.run.metrics["at_threshold"]
    answer = service.ask(*case, prevalence=0.03)
    assert answer["test_counts"] == {name: tested[name] for name in ("tp", "fp", "tn", "fn")}
    sensitivity, specificity = tested["sensitivity"]["value"], tested["specificity"]["value"]
    true, false = sensitivity * 0.03, (1 - specificity) * 0.97
    assert answer["ppv_at_prevalence"] == pytest.approx(true / (true + false))
    assert answer["of_thousand"] == {"tp": round(1000 * true), "fn": 30 - round(1000 * true), "fp": round(1000 * false),
                                     "tn": 970 - round(1000 * false)}  # fmt: skip
    own = service.run.predictions("val")["target"].mean()
    rare, alike, common = (service.ask(*case, prevalence=share)["risk_at_prevalence"] for share in (own / 2, own, (1 + own) / 2))
    assert alike == pytest.approx(answer["risk"])
    assert rare < alike < common


def test_a_rate_that_no_test_case_defines_is_null(app_run, lesion):
    service = Service(app_run)
    reading = service.predictor.reading
    nobody = {**reading.test["at_threshold"], "tp": 0, "fp": 0, "tn": 30, "fn": 10}
    service.predictor.reading = replace(reading, test={**reading.test, "at_threshold": nobody})
    answer = service.ask(service.admit(lesion), Patient())
    assert json.loads(json.dumps(answer, allow_nan=False))["ppv_at_prevalence"] is None
    assert "unknown" in html("meaning", "token", answer)


def test_similar_cases_by_brute_force():
    rng = np.random.default_rng(0)
    test = np.column_stack([rng.random(400), rng.random(400) < 0.3])
    for risk in (0.0, 0.31, 1.0):
        found = similar_cases(test, risk)
        nearest = sorted(test.tolist(), key=lambda row: abs(row[0] - risk))[: 400 // 8]
        assert (found["n"], found["melanomas"]) == (50, sum(row[1] for row in nearest))
        assert (found["risk_from"], found["risk_to"]) == (min(nearest)[0], max(nearest)[0])
        assert found["observed"] == wilson_interval(found["melanomas"], 50).to_dict()
    assert similar_cases(test[:7], 0.5)["n"] == 7


def test_unknown_metadata_changes_the_answer_and_wrong_metadata_is_refused(service, lesion):
    case = service.admit(lesion)
    assert service.ask(case, Patient(80, "male", "torso"))["logit"] != service.ask(case, Patient())["logit"]
    for wrong in (Patient(age=-5), Patient(age="old"), Patient(sex="robot"), Patient(site="moon")):
        with pytest.raises(DataError):
            service.ask(case, wrong)
    with pytest.raises(DataError, match="choose one first"):
        service.ask(None, Patient())


def test_many_at_once_get_the_answers_and_heatmaps_of_one_after_the_other(service, test_cases):
    rows = [case for _, case in test_cases[0].head(12).iterrows()]

    def ask(case):
        values, _ = service.heatmap(*admitted(service, case), service.first_layer, "gradcam")
        return service.ask(*admitted(service, case))["logit"], float(values.sum())

    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_allclose(list(pool.map(ask, rows)), [ask(case) for case in rows], rtol=1e-4, atol=1e-6)
    case, patient = admitted(service, rows[3])
    metadata = torch.from_numpy(service.run.encoder.transform(test_cases[0][3:4]))
    for method in service.methods:
        for layer in service.layers:
            expected = heatmaps(service.model, torch.from_numpy(case.pixels[None]), metadata, layer, method)[layer][0]
            found, _ = service.heatmap(case, patient, layer, method)
            np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, float(np.abs(expected).max())))


def test_most_test_images_pass_and_what_is_no_skin_does_not(service, test_cases):
    cases = test_cases[0]
    warned = [bool(service.admit(Path(path).read_bytes()).warnings) for path in cases["image_path"]]
    assert np.mean(warned) < 0.15  # few images, few limits: an eighth is far from what a fair limit would give
    rows, columns = np.mgrid[:200, :200]
    strange = {
        "too dark": np.zeros((200, 200, 3)),
        "too bright": np.full((200, 200, 3), 255),
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
    again = Reference.of(copy)
    assert again.far == service.reference.far
    np.testing.assert_array_equal(again.features, service.reference.features)
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
    early = service.admit(lesion)
    assert any("prepares the comparison" in note for note in early.notes)
    service.learn_training()
    assert service.reference is None and "gone" in service.lacks
    answer = service.ask(service.admit(lesion), Patient())
    assert any("gone" in note for note in answer["notes"])


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
        assert 0 <= service.ask(case, Patient())["risk"] <= 1
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
    assert len([page.case(token) for token in page.names]) == 3
    mark = mine[20 : mine.index(b"photograph: ") + 12 + 64]
    photograph = encoded(np.full((90, 90, 3), (200, 150, 130), np.uint8), "JPEG")
    brightened = mine[:-300] + bytes([mine[-300] ^ 1]) + mine[-299:]
    for data in (lesion, photograph, photograph[:20] + mark + photograph[20:], brightened):
        with pytest.raises(DataError, match="trained on synthetic cases"):
            service.admit(data)


def test_a_model_of_photographs_relies_on_nothing_painted(service, lesion, app_run):
    page = Page(service, Store())
    (token,) = page.names
    for case in (page.case(token), service.admit(painted(lesion))):
        assert PAINTING in case.warnings and not service.ask(case, Patient())["reliable"]
    Path("painted.jpg").write_bytes(painted(lesion))
    assert answer_files(app_run, gather([Path("painted.jpg")]), show_progress=False)["decision"].tolist() == [WITHHELD]


def test_a_case_keeps_nothing_of_the_file(service, lesion):
    case = service.admit(lesion[:2] + b"\xff\xfe\x00\x0eMARKER-IN-IT" + lesion[2:])  # a JPEG comment
    kept = [case.shown.tobytes(), case.pixels.tobytes(), *map(str.encode, (*case.notes, *case.warnings))]
    assert not any(b"MARKER-IN-IT" in part for part in kept)
