"""The predictor: the run's own risks from files, without PyTorch, and clear words where it cannot answer."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lib.data.images import backbone_normalisation, prepare_image, stored_side
from melanoma_lib.errors import CorruptImageError, DataError, ExportError
from melanoma_lib.export import write_export
from melanoma_lib.inference import Predictor
from melanoma_lib.inference.document import Preprocessing
from melanoma_lib.reports.report import predict_with_views

from .models import document_of, model_of, picture

ROOT = Path(__file__).parents[2]
BLOCKED = "torch torchvision timm pytorch_lightning pydantic pydantic_settings scipy sklearn matplotlib onnx onnxscript"
PROGRAM = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set({blocked!r}.split()):
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
from melanoma_lib.inference.predictor import Predictor
print(repr(Predictor({path!r}).predict([{image!r}], [{{"age": 61, "sex": "male", "site": "torso"}}])["risk"][0]))
"""


@pytest.fixture(scope="module")
def test_cases(tiny_run) -> pd.DataFrame:
    cases = tiny_run.cases().query("split == 'test'").reset_index(drop=True)
    pd.testing.assert_series_equal(cases["image_id"], tiny_run.predictions("test")["image_id"], check_dtype=False)
    return cases


@pytest.mark.parametrize("kind", ["file", "directory", "run"])
def test_run_and_file_answer_what_the_run_predicted(kind, exported, tiny_run, test_cases):
    predictor = Predictor({"file": exported, "directory": str(tiny_run.path), "run": tiny_run}[kind])
    expected, threshold = tiny_run.predictions("test"), tiny_run.operating_point.threshold
    found = predictor.predict(list(test_cases["image_path"]), test_cases)
    pd.testing.assert_frame_equal(predictor.predict_cases(test_cases), found, atol=1e-5)
    for name in ("logit", "probability", "risk"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)
    assert found["flagged"].tolist() == (expected["probability"] >= threshold).tolist()
    assert found["flagged"].nunique() == 2
    some = test_cases.iloc[[3, 1]]
    rows = [{"age": case.age_approx, "sex": case.sex, "site": case.anatom_site_general_challenge} for case in some.itertuples()]
    by_rows = predictor.predict(list(some["image_path"]), rows)
    np.testing.assert_allclose(by_rows["risk"], expected["risk"].iloc[[3, 1]], atol=1e-5)
    assert predictor.predict(list(some["image_path"]), some).index.tolist() == [3, 1]


def test_only_what_is_there_to_be_seen_is_asked_about(exported, tiny_run, test_cases, tmp_path, caplog):
    predictor, images = Predictor(exported), list(test_cases["image_path"][:2])
    alone = predictor.logits(predictor.prepare(images[0])[None], tiny_run.encoder.missing[None])
    assert predictor.predict(images)["logit"][0] == pytest.approx(alone[0], abs=1e-5)  # nothing known is what is called missing
    assert len(predictor.predict([])) == 0
    for given, named in (
        ((images, [{"Age": 3}]), "columns age, sex, site"),
        ((images, [{"age": 3}]), "as many"),
        ((None, None), "as many"),
        ((None, [{"age": 3}]), "looks at an image"),
        ((images[:1], [{"sex": "divers"}]), "sex .*'divers'"),  # further ones: tests of the encoder
        (([np.zeros((4, 4, 3))],), "array of uint8"),
    ):
        with pytest.raises(DataError, match=named):
            predictor.predict(*given)
    predictor.predict(images[:1], [{"age": 50, "gender": "female"}])
    assert "no sex and site, which counts as missing; not read: {'gender'}" in caplog.text
    for image in (b"", b"no image", picture((90, 90))[:500], tmp_path / "absent.jpg"):
        with pytest.raises(CorruptImageError):
            predictor.predict([image])
    for modalities, wrong in (("metadata", ([b""], None)), ("image", ([b""], [{"age": 3}]))):
        model = model_of("test_efficientnet", modalities)
        write_export(tmp_path / "model.pt", model, document_of(model, 32), "torchscript")
        with pytest.raises(DataError, match=f"looks at .*{modalities} alone"):
            Predictor(tmp_path / "model.pt").predict(*wrong)


def test_eight_views_have_their_own_logits_calibration_and_threshold(exported, tiny_run, test_cases, tmp_path):
    plain, averaged = Predictor(exported), Predictor(exported, tta=True)
    assert (plain.views, averaged.views) == (1, 8)
    oracle = predict_with_views(tiny_run)["test"]
    found = averaged.predict_cases(test_cases)
    for name in ("logit", "risk"):
        np.testing.assert_allclose(found[name], oracle[name], rtol=0, atol=1e-5)
    assert averaged.reading.threshold != plain.reading.threshold
    model = model_of("test_efficientnet", "metadata")
    (reading,) = document_of(model, 32).readings.values()
    for kept, tta, advice in (("1", True, "--tta"), ("8", False, "tta=True")):
        write_export(tmp_path / "one.pt", model, document_of(model, 32, readings={kept: reading}), "torchscript")
        assert Predictor(tmp_path / "one.pt").views == int(kept)
        with pytest.raises(ExportError, match=advice):
            Predictor(tmp_path / "one.pt", tta=tta)


def test_it_needs_no_pytorch(exported, tmp_path):
    image = tmp_path / "case.jpg"
    image.write_bytes(picture((90, 70)))
    program = PROGRAM.format(blocked=BLOCKED, path=str(exported), image=str(image))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here = Predictor(exported).predict([image], [{"age": 61, "sex": "male", "site": "torso"}])
    assert float(done.stdout.strip().removeprefix("np.float64(").removesuffix(")")) == pytest.approx(here["risk"][0], abs=1e-9)


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "convnext_tiny"])
@pytest.mark.parametrize("size", [(600, 450), (450, 600), (100, 37), (20, 20)])
def test_pixels_are_those_of_the_kit(backbone, size):
    data = picture(size)
    expected = prepare_image(io.BytesIO(data), backbone, 64).numpy()
    found = Preprocessing(stored_side(64), 64, **backbone_normalisation(backbone)).prepare(io.BytesIO(data))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_an_image_may_come_as_path_bytes_pillow_image_or_array(exported, tmp_path):
    predictor, data = Predictor(exported), picture((80, 60), kind="PNG")
    (tmp_path / "case.png").write_bytes(data)
    opened = Image.open(io.BytesIO(data))
    asked = [tmp_path / "case.png", str(tmp_path / "case.png"), data, opened, np.asarray(opened)]
    assert predictor.predict(asked)["logit"].round(5).nunique() == 1
    opened = Image.open(io.BytesIO(picture((800, 600))))
    predictor.predict([opened])
    assert opened.size == (800, 600)  # left as it was


def test_a_model_of_synthetic_cases_answers_those_alone(tiny_run, test_cases):
    predictor, painted = Predictor(tiny_run), Path(test_cases["image_path"][0])
    assert predictor.predict([painted, painted.read_bytes()])["logit"].round(5).nunique() == 1
    for other in (picture((90, 90)), Image.open(painted), np.asarray(Image.open(painted))):
        with pytest.raises(DataError, match="trained on synthetic cases"):
            predictor.predict([other])
