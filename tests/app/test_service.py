"""Answers of the app against what the run itself predicted, and what it says of images it was never tested on."""

import json
import shutil
import time
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
from melanoma_lib.evaluation import OperatingCurve, wilson_interval
from melanoma_lib.explain import heatmaps
from melanoma_lib.inference.document import PAINTING
from melanoma_lib.reports.report import predict_with_views
from melanoma_lib.runs.run import CHECKPOINT, OPERATING_POINT, SETTINGS, Run
from melanoma_lib.training import train
from tests.app.conftest import MARKS
from tests.app.pictures import encoded

COLUMNS = ["age_approx", "sex", "anatom_site_general_challenge"]


def patient_of(case) -> Patient:
    return Patient(*(None if value != value else value for value in case[COLUMNS]))


def answers(service: Service, cases, tta: bool = False):
    admitted = [(service.admit(Path(case["image_path"]).read_bytes()), patient_of(case)) for _, case in cases.iterrows()]
    return [service.ask(case, patient, tta) for case, patient in admitted]


def test_the_app_answers_what_the_run_predicted(service, test_cases):
    cases, predictions = test_cases
    given = answers(service, cases)
    for name in ("logit", "probability", "risk"):
        np.testing.assert_allclose([one[name] for one in given], predictions[name], atol=1e-5, rtol=0)
    threshold = service.run.operating_point.threshold
    assert [one["flagged"] for one in given] == [bool(p >= threshold) for p in predictions["probability"]]
    assert {one["views"] for one in given} == {1}


def test_both_backends_give_the_same_answers(service, app_run, test_cases):
    onnx, cases = Service(app_run, "onnx"), test_cases[0].head(12)
    for tta in (False, True):
        mine, theirs = ([[one["logit"], one["risk"]] for one in answers(backend, cases, tta)] for backend in (service, onnx))
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert onnx.facts()["backend"] == "ONNX Runtime"


def test_a_backbone_without_a_layer_to_draw_is_answered_all_the_same(app_run, lesion, tmp_path, monkeypatch):
    own = Run(shutil.copytree(app_run.path, tmp_path / "own"))
    (own.path / REFERENCE).unlink()
    monkeypatch.setattr("melanoma_lib.explain.layers._describe", lambda backbone: {})
    service, store = Service(own), Store()
    service.load()
    token, page = store.put(service.admit(lesion)), Page(service, store)
    assert "Uncalibrated probability" in page.answer(token, "", "", "", False, None)[0]
    assert "no layer" in page.pictures(token, "", "", "", None, None)
    page.choices()


def test_eight_views_have_a_calibration_and_threshold_of_their_own(service, tiny_run, test_cases):
    expected, given = predict_with_views(tiny_run), answers(service, test_cases[0], tta=True)
    for name in ("logit", "risk"):
        np.testing.assert_allclose([one[name] for one in given], expected["test"][name], atol=1e-5)
    curve = OperatingCurve(expected["val"]["target"], expected["val"]["probability"])
    assert given[0]["threshold"] == curve.for_sensitivity(service.run.settings.min_sensitivity).threshold
    assert given[0]["threshold"] != service.run.operating_point.threshold


def test_rates_and_frequencies_are_those_of_the_test_split(service, test_cases):
    predictions = test_cases[1]
    point = OperatingCurve(predictions["target"], predictions["probability"]).at(service.run.operating_point.threshold)
    case = test_cases[0].iloc[0]
    admitted, patient = service.admit(Path(case["image_path"]).read_bytes()), patient_of(case)
    answer = service.ask(admitted, patient, prevalence=0.03)
    assert answer["test_counts"] == {name: getattr(point, name) for name in ("tp", "fp", "tn", "fn")}
    assert answer["of_thousand"] == {name: getattr(point.per_thousand(0.03), name) for name in ("tp", "fp", "tn", "fn")}
    assert answer["sensitivity"]["value"] == point.sensitivity
    expected = point.sensitivity * 0.03 / (point.sensitivity * 0.03 + (1 - point.specificity) * 0.97)
    assert answer["ppv_at_prevalence"] == pytest.approx(expected)
    own = service.run.predictions("val")["target"].mean()
    rare, alike, common = (
        service.ask(admitted, patient, prevalence=share)["risk_at_prevalence"] for share in (own / 2, own, (1 + own) / 2)
    )
    assert alike == pytest.approx(answer["risk"])
    assert rare < alike < common


def test_a_rate_that_no_test_case_defines_is_null(app_run, lesion):
    service = Service(app_run)
    service.load()
    reading = service.readings[1]
    nobody = {**reading.test["at_threshold"], "tp": 0, "fp": 0, "tn": 30, "fn": 10}
    service.readings = {1: replace(reading, test={**reading.test, "at_threshold": nobody})}
    answer = service.ask(service.admit(lesion), Patient())
    assert json.loads(json.dumps(answer, allow_nan=False))["ppv_at_prevalence"] is None
    assert answer["npv_at_prevalence"] == pytest.approx(0.9)
    assert "unknown" in html("meaning", answer)


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


def test_many_at_once_get_the_answers_of_one_after_the_other(service, test_cases):
    rows = [case for _, case in test_cases[0].head(12).iterrows()]

    def ask(case):
        admitted = service.admit(Path(case["image_path"]).read_bytes())
        values, _ = service.heatmap(admitted, patient_of(case), service.first_layer, "gradcam")
        return service.ask(admitted, patient_of(case))["logit"], float(values.sum())

    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_allclose(list(pool.map(ask, rows)), [ask(case) for case in rows], rtol=1e-4, atol=1e-6)


def test_heatmaps_are_those_of_explain(service, test_cases):
    case = test_cases[0].iloc[3]
    admitted = service.admit(Path(case["image_path"]).read_bytes())
    image, metadata = torch.from_numpy(admitted.pixels[None]), torch.from_numpy(service.run.encoder.transform(test_cases[0][3:4]))
    for method in service.methods:
        for layer in service.layers:
            expected = heatmaps(service.model, image, metadata, layer, method)[layer][0]
            found, _ = service.heatmap(admitted, patient_of(case), layer, method)
            np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, float(np.abs(expected).max())))
    for layer, method in (("nowhere", "gradcam"), (service.first_layer, "scorecam")):
        with pytest.raises(DataError, match="expect a layer"):
            service.heatmap(admitted, Patient(), layer, method)


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
    service.reference.save(file)
    again = Reference.of(copy)
    assert (again.views, again.far) == (service.reference.views, service.reference.far)
    np.testing.assert_array_equal(again.features, service.reference.features)
    replace(service.reference, checkpoint_sha256="0" * 64).save(file)
    with pytest.raises(ForeignThresholdError, match="another checkpoint"):
        Reference.of(copy)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RunError, match="delete it"):
        Reference.of(copy)


def test_a_run_without_its_images_says_what_it_cannot_do(app_run, lesion, tmp_path):
    moved = Run(shutil.copytree(app_run.path, tmp_path / "moved"))
    (moved.path / REFERENCE).unlink()
    moved.settings = moved.settings.model_copy(update={"source": "ham10000", "data_dir": tmp_path / "gone"})
    service = Service(moved)
    service.load()
    service.learn_training()
    assert service.reference is None
    assert "gone" in service.lacks
    case = service.admit(lesion)
    assert case.warnings == ()
    with pytest.raises(DataError, match=r"Eight views cannot be averaged.*gone"):
        service.ask(case, Patient(), tta=True)
    answer = service.ask(case, Patient())
    assert 0 < answer["risk"] < 1
    assert any("gone" in note for note in answer["notes"])


def test_a_foreign_threshold_or_export_is_refused(app_run, tmp_path):
    folder = shutil.copytree(app_run.path, tmp_path / "foreign")
    (folder / "model.onnx").unlink()
    with pytest.raises(ExportError, match="python -m melanoma_lib export"):
        Service(Run(folder), "onnx").load()
    with pytest.raises(DataError, match=r"backend expects one of .*, got 'tensorflow'"):
        Service(Run(folder), "tensorflow")
    stored = folder / OPERATING_POINT
    stored.write_text(stored.read_text().replace(app_run.operating_point.checkpoint_sha256, "0" * 64))
    with pytest.raises(ForeignThresholdError):
        Service(Run(folder))


@pytest.mark.parametrize("modalities", ["image", "metadata"])
def test_runs_of_one_branch(tiny_settings, modalities, lesion):
    run = train(tiny_settings.model_copy(update={"modalities": modalities, "max_epochs": 1}))
    service = Service(run)
    if modalities == "image":
        case = service.admit(lesion.replace(*MARKS[::-1]))
        assert 0 <= service.ask(case, Patient())["risk"] <= 1
        assert service.heatmap(case, Patient(), service.first_layer, "gradcam")[0].ndim == 2
        with pytest.raises(DataError, match="image alone"):
            service.ask(case, Patient(age=50))
        return
    predictions = run.predictions("test")
    given = [service.ask(None, patient_of(case))["logit"] for _, case in predictions.iterrows()]
    np.testing.assert_allclose(given, predictions["logit"], atol=1e-5)
    assert service.ask(None, Patient(50), tta=True)["views"] == 1
    with pytest.raises(DataError, match="no image"):
        service.admit(lesion)
    assert service.layers == {}


def test_a_model_of_synthetic_cases_answers_those_alone(app_run, lesion, tmp_path):
    folder = shutil.copytree(app_run.path, tmp_path / "synthetic")
    (folder / SETTINGS).write_text(app_run.settings.with_changes(source="synthetic").to_json())
    service = Service(Run(folder))
    with pytest.raises(DataError, match="trained on synthetic cases"):
        service.admit(lesion)
    lesion = lesion.replace(*MARKS[::-1])
    assert 0 < service.ask(service.admit(lesion), Patient())["risk"] < 1
    page = Page(service, Store())
    assert len([page.case(token) for token in page.names]) == 5
    mark = lesion[20 : lesion.index(b"photograph: ") + 12 + 64]
    photograph = encoded(np.full((90, 90, 3), (200, 150, 130), np.uint8), "JPEG")
    brightened = lesion[:-300] + bytes([lesion[-300] ^ 1]) + lesion[-299:]
    for data in (photograph, photograph[:20] + mark + photograph[20:], brightened):
        with pytest.raises(DataError, match="trained on synthetic cases"):
            service.admit(data)


def test_a_model_of_photographs_relies_on_nothing_painted(service, lesion, app_run, test_cases):
    painted, page = lesion.replace(*MARKS[::-1]), Page(service, Store())
    assert service.admit(lesion).warnings == ()
    assert service.admit(painted).warnings == (PAINTING,)
    (token,) = page.names
    assert PAINTING in page.case(token).warnings
    assert not service.ask(page.case(token), Patient())["reliable"]
    file = Path("painted.jpg")
    file.write_bytes(painted)
    assert answer_files(app_run, gather([file]), show_progress=False)["decision"].tolist() == [WITHHELD]


def test_whoever_asks_before_the_model_is_loaded_waits_or_is_told(app_run, service, lesion, tmp_path):
    late = Service(app_run)
    loaded, load = [], late._load_run
    late._load_run = lambda: (loaded.append("begun"), time.sleep(0.3), load())
    with ThreadPoolExecutor(2) as pool:
        asked, chosen = pool.submit(lambda: late.ask(late.admit(lesion), Patient(50))), pool.submit(Page(late, Store()).choices)
        assert asked.result()["logit"] == service.ask(service.admit(lesion), Patient(50))["logit"]
        assert [value for _, value in chosen.result()[0]["choices"]] == list(service.layers)
    assert loaded == ["begun"]  # once for both
    folder = shutil.copytree(app_run.path, tmp_path / "run")
    (folder / REFERENCE).unlink()
    bare = Service(Run(folder))
    early = bare.admit(lesion)
    assert any("being prepared" in note for note in early.notes)
    bare.reference, bare.lacks = service.reference, ""  # what is known later says nothing of a case admitted before
    assert any("being prepared" in note for note in bare.ask(early, Patient())["notes"])
    assert bare.ask(bare.admit(lesion), Patient())["notes"] == []
    (folder / CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(ForeignThresholdError):
        Service(Run(folder))


def test_a_case_keeps_nothing_of_the_file(service, lesion):
    case = service.admit(lesion[:2] + b"\xff\xfe\x00\x0eMARKER-IN-IT" + lesion[2:])  # a JPEG comment
    kept = [case.shown.tobytes(), case.pixels.tobytes(), *map(str.encode, (*case.notes, *case.warnings))]
    assert not any(b"MARKER-IN-IT" in part for part in kept)
