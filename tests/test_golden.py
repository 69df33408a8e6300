"""What must not move: old runs, a training's numbers and files, verbs, synthetic pixels and splits.

``tests/golden`` holds a run as version 0.1.0 of the kit left it, and numbers of that version. They are never made anew to
make a test pass: whoever must change them raises the version of what changed and says why.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_lib.data import MetadataEncoder, SyntheticDermoscopy, split_cases
from melanoma_lib.evaluation import OperatingCurve, evaluate_predictions
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings

GOLDEN = Path(__file__).parent / "golden"
OLD = GOLDEN / "run"
RUN_FILES = [
    "calibration.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "environment.json", "history.csv",
    "metadata_encoder.json", "metrics.json", "operating_point.json", "predictions_test.csv", "predictions_val.csv",
    "settings.json", "splits.csv",
]  # fmt: skip
VERBS = [
    "train", "evaluate", "compare", "explain", "data fetch", "data audit", "card", "export", "app", "doctor",
    "notebooks run", "notebooks refresh", "notebooks handout", "notebooks exercises", "notebooks sweep",
    "slides build",
]  # fmt: skip

EXPECTED = {
    "synthetic": {
        "pixels 0": "ec4164e70852",
        "pixels 1": "cbb370d01842",
        "pixels 2": "95a325c5bbb4",
        "pixels 17": "5d9d84fe4a4e",
        "pixels 40": "11c1bc4f7612",
        "pixels 63": "09617ebcb90b",
        "masks": "e0cffae13b06",
        "artefacts": "d1c481dcb45e",
        "risks": "5d27cccbd94b",
        "table": "d40b0b6884bf",
    },
    "splits": {"seed 0": "f95ead700f87", "seed 1": "20fefe5f4f6f", "seed 7": "364cebcfb1fa", "encoding": "0441ff01f37b"},
    "name": "ham10000-tf_efficientnet_lite0-image-160px-seed2-cca37b63",
}


def numbers_of(report: dict, path: str = "") -> dict[str, float]:
    """Every number of a nested report by its path."""
    found = {}
    for key, value in report.items():
        name = f"{path}/{key}"
        if isinstance(value, dict):
            found |= numbers_of(value, name)
        elif isinstance(value, list):
            found |= numbers_of({str(i): part for i, part in enumerate(value)}, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


@pytest.fixture(scope="module")
def old_cases(tiny_settings):
    """The cases that the old run was trained on, from wherever they lie now."""
    return Run(OLD).cases(settings=tiny_settings)


def test_an_old_run_loads_whole(old_cases):
    run = Run(OLD)
    assert run.settings.backbone == "test_efficientnet"
    assert run.settings.metadata_hidden == 8
    assert list(old_cases["split"]) == list(run.splits["split"])
    assert run.operating_point.threshold == json.loads((OLD / "operating_point.json").read_text())["threshold"]
    for split in ("val", "test"):
        told = run.predictions(split)
        np.testing.assert_allclose(run.calibrator.risk(told["logit"]), told["risk"], atol=5e-4)
        assert list(told["image_id"]) == list(old_cases.loc[old_cases["split"] == split, "image_id"])


def test_an_old_model_answers_as_it_did(old_cases, tiny_settings):
    import torch

    from melanoma_lib.data import DermoscopyDataModule

    run = Run(OLD)
    data = DermoscopyDataModule(tiny_settings, old_cases)
    with torch.inference_mode():
        model = run.model()
        logits = np.concatenate([model(batch["image"], batch["metadata"]).numpy() for batch in data.test_dataloader()])
    np.testing.assert_allclose(logits.ravel(), run.predictions("test")["logit"], atol=2e-4)


def test_metrics_of_old_predictions_keep_three_digits():
    run = Run(OLD)
    told = evaluate_predictions(run.predictions("test"), run.operating_point.threshold, run.settings.n_resamples)
    expected, found = numbers_of(run.metrics), numbers_of(told)
    assert (expected.pop("/at_half/f1/high"), found["/at_half/f1/high"] > 0.5) == (0, True)  # was [0, 0] of six melanomas
    del expected["/at_half/f1/resamples"]
    assert expected.keys() <= found.keys()
    assert {name: round(found[name], 3) for name in expected} == pytest.approx(
        {name: round(value, 3) for name, value in expected.items()}, abs=1.1e-3
    )
    curve = OperatingCurve(run.predictions("val")["target"], run.predictions("val")["probability"])
    assert curve.for_sensitivity(0.95).threshold == run.operating_point.threshold


def test_a_training_leaves_the_same_files_and_columns(tiny_run):
    files = sorted(str(file.relative_to(tiny_run.path)) for file in tiny_run.path.rglob("*") if file.is_file())
    assert set(RUN_FILES) <= set(files)
    for name in RUN_FILES:
        if name.endswith(".csv"):
            assert list(pd.read_csv(tiny_run.path / name)) == list(pd.read_csv(OLD / name)), name
        elif name.endswith(".json") and name != "metrics.json":
            assert set(json.loads((OLD / name).read_text())) <= set(json.loads((tiny_run.path / name).read_text())), name


def test_a_training_gives_the_same_numbers(tiny_run, tiny_settings):
    """Other processors round otherwise: a few steps on so small a model stay within a thousandth."""
    from melanoma_lib.training import train

    assert tiny_run.splits.equals(Run(OLD).splits)
    np.testing.assert_allclose(tiny_run.predictions("test")["logit"], Run(OLD).predictions("test")["logit"], atol=1e-3)
    runs_dir = tiny_settings.runs_dir.with_name("golden_metadata")
    alone = train(tiny_settings.with_changes(modalities="metadata", runs_dir=runs_dir))
    told = [
        pd.read_csv(GOLDEN / name)["logit"] for name in ("metadata_predictions_test.csv", "metadata_logits_other_processor.csv")
    ]
    assert min(abs(alone.predictions("test")["logit"] - logits).max() for logits in told) <= 1e-4  # one code, two processors
    expected = json.loads((GOLDEN / "metadata_metrics.json").read_text())
    for name in ("auroc", "average_precision"):
        assert alone.metrics[name]["value"] == pytest.approx(expected[name]["value"], abs=5e-4)


def test_every_verb_is_there(capsys):
    from melanoma_lib.__main__ import main

    assert [verb for verb in VERBS if main([*verb.split(), "--help"])] == []


def test_synthetic_tables_and_pixels_are_bit_for_bit_the_same():
    data = SyntheticDermoscopy(n_patients=40, seed=3, image_size=48, shortcut={"ruler": 0.6, "ink": -0.3})
    told = {f"pixels {row}": digest(data.render(row).image) for row in (0, 1, 2, 17, 40, 63)}
    told["masks"] = digest(np.stack([data.render(row).mask for row in range(12)]))
    told["artefacts"] = digest(data.cases[[name for name in data.cases if name.startswith("truth_artefact_")]].to_numpy(bool))
    told["risks"] = digest(data.cases["true_risk"].round(9).to_numpy(float))
    text = data.cases[["image_id", "patient_id", "lesion_id", "sex", "anatom_site_general_challenge", "target"]].to_csv(
        index=False
    )
    told["table"] = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert told == EXPECTED["synthetic"]


def test_splits_and_encoding_are_the_same():
    cases = SyntheticDermoscopy(n_patients=200, seed=1, image_size=32).cases
    told = {f"seed {seed}": digest(split_cases(cases, 0.15, 0.2, seed).to_numpy("U5")) for seed in (0, 1, 7)}
    encoder = MetadataEncoder.fit(cases)
    told["encoding"] = digest(np.asarray(encoder.transform(cases), dtype=np.float32).round(5))
    assert told == EXPECTED["splits"]


def test_a_run_is_named_as_before():
    settings = Settings(source="ham10000", backbone="tf_efficientnet_lite0", image_size=160, seed=2, modalities="image")
    assert settings.run_path.name == EXPECTED["name"]
