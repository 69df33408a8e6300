"""A travelling run answers abroad as it does at home, and the tables say what counting by hand says."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import build_parser, main
from melanoma_lib.data import load_cases
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import Calibrator
from melanoma_lib.studies import travel_figures, travel_table
from melanoma_lib.studies.results import ResultTable, load_results
from melanoma_lib.studies.travel import (
    Traveller,
    averaged,
    external_rows,
    gain_over,
    predict_cases,
    recalibrated,
    sample_facts,
    single_runs,
    with_margin,
)
from melanoma_lib.studies.travel_home import NO_TONE, by_tone, within_sources
from melanoma_lib.studies.travel_home_words import stress_words, tone_words, within_words
from melanoma_lib.studies.travel_table import pictures_in_both
from melanoma_lib.studies.travel_words import external_words, prior_words, recalibration_words
from tests.data.builders import case_table

FIGURES = ("external", "recalibration", "within", "tone", "stress")
WORDS = (external_words, recalibration_words, prior_words, within_words, tone_words, stress_words)


@pytest.fixture(scope="module")
def isic2020(tmp_path_factory):
    """ISIC 2020 in small: 40 patients in the table, of which the images of 30 are there, 15 with a melanoma."""
    root = tmp_path_factory.mktemp("isic2020")
    (root / "jpeg" / "train").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for patient in range(40):
        for image in range(3):
            melanoma = int(patient % 2 == 0 and image == 0)
            name = f"ISIC_{patient:03d}{image}"
            words = {"diagnosis": "melanoma" if melanoma else "nevus", "benign_malignant": "malignant" if melanoma else "benign"}
            rows.append(
                {"image_name": name, "patient_id": f"IP_{patient:03d}", "sex": "female", "age_approx": 40 + patient}
                | {"anatom_site_general_challenge": "torso", "target": melanoma} | words
            )  # fmt: skip
            if patient < 30:
                picture = np.clip(rng.normal((210, 170, 150), 25, (40, 60, 3)) - 60 * melanoma, 0, 255)
                Image.fromarray(picture.astype(np.uint8)).save(root / "jpeg" / "train" / f"{name}.jpg")
    pd.DataFrame(rows).to_csv(root / "train.csv", index=False)
    return root


def test_a_run_answers_its_own_test_cases_as_it_did(tiny_run):
    cases = tiny_run.cases()
    cases = cases[cases["split"] == "test"].reset_index(drop=True)
    found, stored = predict_cases(tiny_run, cases, tiny_run.settings.cache_dir), tiny_run.predictions("test")
    np.testing.assert_allclose(found["logit"], stored["logit"], atol=1e-5)
    np.testing.assert_allclose(expit(found["log_odds"]), stored["risk"], atol=1e-6)
    if tiny_run.calibrator.slope > 0:
        clear = found["margin"].abs() > 1e-5
        decided = (stored["probability"] >= tiny_run.operating_point.threshold)[clear]
        assert ((found["margin"] >= 0)[clear] == decided).all()


def traveller(seed, slope=2.0, threshold=0.3, n=240, lift=1.0, sources=None):
    """A model whose logits are drawn; its home has two sources of unlike prevalence."""
    rng = np.random.default_rng(seed)

    def table(prefix, prevalence, per_group):
        targets = (rng.random(n) < prevalence).astype(int)
        ids = [f"{prefix}{i}" for i in range(n)]
        groups = [f"{prefix}g{i // per_group:03d}" for i in range(n)]
        logits = rng.normal(lift * targets - 0.5, 0.6)
        return pd.DataFrame({"image_id": ids, "group_id": groups, "target": targets, "logit": logits})

    calibrator = Calibrator(slope, -0.5)
    home = table("h", np.tile([0.4, 0.05], n // 2), 1)
    run = SimpleNamespace(
        calibrator=calibrator, operating_point=SimpleNamespace(threshold=threshold), path="fake",
        settings=SimpleNamespace(seed=seed, fold=0, shaping=lambda: {"seed": seed, "image_size": 96}), is_cross_validation=False,
        predictions=lambda split: home, splits=home[["image_id", "target"]].assign(split="train"),
    )  # fmt: skip
    rng = np.random.default_rng(99 if seed else 0)  # the same cases abroad, with scores of their own
    abroad = table("a", 0.15, 4)
    abroad["target"] = table("a", 0.15, 4)["target"]
    make = lambda part: with_margin(part.assign(risk=calibrator.risk(part["logit"])), run)  # noqa: E731
    return Traveller(run, make(home), make(abroad))


def test_a_margin_is_the_models_own_decision_whatever_its_scale():
    one = traveller(1, slope=3.0, threshold=0.2)
    assert ((one.home["margin"] >= 0) == (expit(one.home["logit"]) >= 0.2)).all()
    np.testing.assert_allclose(expit(one.home["log_odds"]), one.home["risk"])
    assert one.cut == pytest.approx(3.0 * logit(0.2) - 0.5)
    upside_down = SimpleNamespace(calibrator=Calibrator(-1, 0), operating_point=SimpleNamespace(threshold=0.5), path="x")
    with pytest.raises(StudyError, match="ranks or decides nothing"):
        with_margin(one.home, upside_down)


def test_rows_hold_the_models_and_their_average():
    two = [traveller(1), traveller(1, slope=1.5)]
    two[1].abroad["margin"] += np.random.default_rng(0).normal(0, 0.5, 240)
    rows = external_rows(two, n=60)
    assert [row["model"] for row in rows] == ["mean of 2 models", "2 models averaged", "seed 1", "seed 1"]
    aurocs = [roc_auc_score(one.abroad["target"], one.abroad["margin"]) for one in two]
    assert rows[0]["auroc_abroad"]["value"] == pytest.approx(np.mean(aurocs))
    found = np.mean([(one.home["margin"] >= 0)[one.home["target"] == 1].mean() for one in two])  # as many cases in each
    assert rows[0]["sensitivity_home"]["value"] == pytest.approx(found)
    margin = (two[0].abroad["margin"] + two[1].abroad["margin"]) / 2
    table = averaged(two)
    np.testing.assert_allclose(table["margin"], margin)
    flagged = margin >= 0
    melanoma = table["target"] == 1
    assert rows[1]["sensitivity_abroad"]["value"] == pytest.approx(flagged[melanoma].mean())
    assert rows[1]["specificity_abroad"]["value"] == pytest.approx((~flagged)[~melanoma].mean())
    assert rows[1]["ppv_abroad"]["value"] == pytest.approx(melanoma[flagged].mean())
    assert rows[1]["observed_over_expected_abroad"]["value"] == pytest.approx(melanoma.sum() / table["risk"].sum())
    assert len(external_rows(two[:1], n=20)) == 2  # one model needs no average


def test_the_gain_over_a_baseline_is_a_difference_of_means():
    strong, weak = [traveller(1), traveller(1, slope=1.0)], [traveller(1)]
    weak[0].abroad["log_odds"] = np.random.default_rng(5).normal(size=240)
    found = gain_over(strong, weak, n=50)
    targets = weak[0].abroad["target"]
    base = roc_auc_score(targets, weak[0].abroad["log_odds"])
    assert found["auroc"]["value"] == pytest.approx(base)
    mean = np.mean([roc_auc_score(targets, one.abroad["margin"]) for one in strong])
    assert found["gain"]["value"] == pytest.approx(mean - base)


def test_recalibration_on_all_cases_meets_its_closed_forms():
    travellers = [traveller(1)]
    rows, shift = recalibrated(travellers, 0.05, n=60)
    by_method = {row["method"]: row for row in rows}
    here = travellers[0].home["target"].mean()
    assert shift["prior_shift"] == pytest.approx(logit(0.05) - logit(here))
    fitted = by_method["intercept"]
    assert fitted["map_intercept"] == pytest.approx(shift["needed_shift"]["value"])
    assert fitted["observed_over_expected"]["value"] == pytest.approx(1, abs=1e-6)
    both = by_method["slope and intercept"]
    assert (both["slope"]["value"], both["intercept"]["value"]) == (pytest.approx(1, abs=1e-3), pytest.approx(0, abs=1e-3))
    assert both["brier"]["value"] <= fitted["brier"]["value"] <= by_method["as it is"]["brier"]["value"] + 1e-9
    assert shift["needed_shift"]["low"] < shift["needed_shift"]["value"] < shift["needed_shift"]["high"]


def test_sources_are_taken_apart_and_the_source_alone_is_scored():
    travellers = [traveller(1), traveller(2)]
    ids = [f"h{i}" for i in range(240)]
    cases = case_table([0, 1] * 120, image_id=ids, acquisition=["clinic", "screening"] * 120)
    found = within_sources(travellers, cases, n=60)
    for row, first in zip(found["sources"], (0, 1), strict=True):
        aurocs = [roc_auc_score(one.home["target"][first::2], one.home["margin"][first::2]) for one in travellers]
        assert row["auroc"]["value"] == pytest.approx(np.mean(aurocs))
    alone = []
    for one in travellers:
        share = [one.home["target"][::2].mean(), one.home["target"][1::2].mean()] * 120
        alone.append(roc_auc_score(one.home["target"], share))
    assert found["source_alone"]["value"] == pytest.approx(np.mean(alone))
    assert within_sources(travellers, cases.assign(acquisition=None)) == {}


def test_a_source_of_few_melanomas_has_an_auroc_and_no_interval():
    travellers = [traveller(1), traveller(1)]
    for one in travellers:
        one.home["target"] = np.where(np.arange(240) < 4, 1, one.home["target"] * (np.arange(240) >= 60))
    ids = [f"h{i}" for i in range(240)]
    cases = case_table(travellers[0].home["target"], image_id=ids, acquisition=["attic"] * 60 + ["clinic"] * 180)
    found = within_sources(travellers, cases, n=60)
    attic, clinic = found["sources"]
    aurocs = [roc_auc_score(one.home["target"][:60], one.home["margin"][:60]) for one in travellers]
    assert (attic["auroc"]["value"], attic["auroc"]["low"], attic["auroc"]["high"]) == (
        pytest.approx(np.mean(aurocs)),
        None,
        None,
    )
    assert attic["note"].startswith("4 melanoma and 56 benign groups")  # two models ask about the same lesions
    assert clinic["auroc"]["low"] < clinic["auroc"]["value"] and clinic["note"] == found["note"] == ""
    assert found["within"]["low"] is not None
    few = within_sources([Traveller(one.run, one.home[:60], one.abroad) for one in travellers], cases, n=60)
    assert few["note"] and {few[name]["low"] for name in ("pooled", "excess", "source_alone")} == {None}
    table = ResultTable("travel", "", "", [], details={"within_sources": found})
    assert (
        f"attic ({attic['prevalence']:.1%} melanoma) {attic['auroc']['value']:.3f};"
        in travel_figures.within_figure(table).alt_text
    )


def test_tones_are_counted_once_and_decided_by_each_model():
    one = traveller(1)
    ids = one.home["image_id"]
    tones = pd.Series(np.where(np.arange(240) < 100, "light", None), index=ids)
    rows = by_tone([one.home, one.home], tones, n=30)
    assert [row["tone"] for row in rows] == ["light", NO_TONE]
    assert [row["images"] for row in rows] == [100, 140]
    light = one.home.iloc[:100]
    assert rows[0]["melanomas"] == light["target"].sum()
    assert rows[0]["sensitivity"]["value"] == pytest.approx((light["margin"] >= 0)[light["target"] == 1].mean())


def test_the_sample_is_compared_with_its_table(isic2020):
    cases = load_cases("isic2020", isic2020, missing_images="drop")
    facts = sample_facts(isic2020, cases)
    assert facts["here"] == {
        "images": 90, "patients": 30, "melanomas": 15, "prevalence": 15 / 90, "patients_with_melanoma": 0.5,
        "images_a_patient": 3,
    }  # fmt: skip
    assert facts["table"]["patients"] == 40 and facts["whole_patients"] == 1


def test_a_picture_in_both_collections_is_found(isic2020, tmp_path):
    cases = load_cases("isic2020", isic2020, missing_images="drop")
    assert pictures_in_both(cases.iloc[:10], cases.iloc[10:40]) == 0
    assert pictures_in_both(cases.iloc[:10], cases.iloc[8:40].assign(image_id=lambda table: table["image_id"] + "x")) == 2


def test_runs_of_several_recipes_are_refused(tiny_run):
    other = SimpleNamespace(
        is_cross_validation=False, path="other", settings=tiny_run.settings.with_changes(image_size=64, seed=3)
    )
    with pytest.raises(StudyError, match=r"other differs from .* in image_size"):
        single_runs([tiny_run, other])
    with pytest.raises(StudyError, match="at least one"):
        single_runs([])
    folds = SimpleNamespace(is_cross_validation=True, folds=[tiny_run, tiny_run])
    assert single_runs([folds]) == [tiny_run, tiny_run]


def test_one_command_leaves_a_table_that_draws_itself(tiny_run, isic2020, tmp_path, capsys, monkeypatch):
    if tiny_run.calibrator.slope <= 0:
        monkeypatch.setattr(type(tiny_run), "calibrator", Calibrator(1.0, 0.0))
    assert main(["study", "travel", str(tiny_run.path), "--data-dir-2020", str(isic2020), "--stressed", "6"]) == 0
    printed = capsys.readouterr().out
    assert "mean of 1 models" in printed and "not for diagnosis" in printed
    table = load_results("travel", tmp_path / "docs" / "results")
    assert str(tmp_path) not in table.command and table.command.startswith("python -m melanoma_lib study travel runs/")
    assert table.command.endswith(" --data-dir-2020 FOLDER --stressed 6")
    auroc = table.rows[0]["auroc_abroad"]["value"]
    assert f"{auroc:.3f}" in printed
    assert table.details["sample"]["here"]["images"] == 90
    for name in FIGURES:
        figure = getattr(travel_figures, f"{name}_figure")(table)
        figure.canvas.draw()
        assert len(figure.alt_text) > 80
    title = travel_figures.external_figure(table).axes[0].get_title(loc="left")
    assert title.endswith(f"for sensitivity {tiny_run.settings.min_sensitivity:g}")
    assert f"{auroc:.3f}" in travel_figures.external_figure(table).alt_text and f"AUROC {auroc:.3f}" in external_words(table)
    for words in WORDS:
        assert len(words(table)) > 80 and not {"nan", "None", "inf"} & set(re.findall(r"\w+", words(table)))


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        ([], {}, (None, None, 2000, 0)),
        ([], {"SEED": "5", "DATA_DIR": "/nowhere", "N_RESAMPLES": "300"}, (Path("/nowhere"), None, 300, 5)),
        (["--seed", "7", "--cache-dir", "/there"], {"SEED": "5", "CACHE_DIR": "/here"}, (None, Path("/there"), 2000, 7)),
        (["--n-resamples", "400"], {"CACHE_DIR": "/here"}, (None, Path("/here"), 400, 0)),
    ],
)
def test_the_command_takes_its_settings_from_words_and_environment(tiny_run, monkeypatch, words, variables, expected):
    asked = []

    def travelled(runs, abroad, home, cache_dir, metadata, stressed, n, seed, show):
        asked.append((home, cache_dir, n, seed))
        raise StudyError("enough")

    monkeypatch.setattr(travel_table, "travel", travelled)
    for name, value in variables.items():
        monkeypatch.setenv(f"MELANOMA_{name}", value)
    assert main(["study", "travel", str(tiny_run.path), *words]) == 1
    assert asked == [expected]


def test_a_seed_that_is_no_number_is_told(tiny_run, capsys):
    assert main(["study", "travel", str(tiny_run.path), "--seed", "abc"]) == 1
    assert "seed" in capsys.readouterr().err


def test_the_stored_command_says_what_was_asked_and_no_folder_of_this_machine():
    run = SimpleNamespace(path=Path("/secret/runs/one"))
    command = travel_table._command([run], [run], Path("data/isic2020"), 150, 2000, 0)
    assert command == "python -m melanoma_lib study travel runs/one --metadata runs/one"
    command = travel_table._command([run], [], Path("/secret/isic2020"), 0, 500, 3)
    assert command == (
        "python -m melanoma_lib study travel runs/one --data-dir-2020 FOLDER --stressed 0 --n-resamples 500 --seed 3"
    )
    parsed = build_parser().parse_args(command.split()[3:])
    assert (parsed.stressed, parsed.setting_n_resamples, parsed.setting_seed) == (0, "500", "3")


def test_runs_trained_abroad_or_without_pictures_are_refused(tiny_run, isic2020, capsys, monkeypatch):
    blind = tiny_run.settings.with_changes(modalities="metadata")
    monkeypatch.setattr(type(tiny_run), "settings", blind)
    assert main(["study", "travel", str(tiny_run.path), "--data-dir-2020", str(isic2020)]) == 1
    assert "image branch" in capsys.readouterr().err
