"""Ingredients: gains against scikit-learn, the noise of seeds against simulation, words against the numbers they follow from."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import Interval
from melanoma_lib.settings import Settings
from melanoma_lib.studies import ingredients
from melanoma_lib.studies.ingredients import (
    averaged,
    compare_ingredients,
    eight_viewed,
    finished_parts,
    scored_run,
    settings_of,
    train_parts,
    variants_of,
)
from melanoma_lib.studies.ingredients_figures import ingredients_figure
from melanoma_lib.studies.ingredients_table import (
    CHANGE,
    DEFAULT,
    PREDICTION,
    SEED,
    Scored,
    conclusion,
    ingredients_report,
    seed_noise,
    table_of,
)
from melanoma_lib.studies.results import load_results, save_results

SETTINGS = Settings(n_resamples=100, folds=5, fold=1)


def scored(name: str = "one", kind: str = CHANGE, signal: float = 1.0, seed: int = 0, n: int = 300, removes: str = "") -> Scored:
    """Cases of two images a lesion, every fifth lesion a melanoma; what is measured of them depends on the seed alone."""
    rng, tables = np.random.default_rng(seed), {}
    for split in ("val", "test"):
        lesion = np.arange(n) // 2
        target = (lesion % 5 == 0).astype(int)
        logit = signal * target + rng.normal(size=n) - 1
        cases = {"image_id": [f"{split}{i}" for i in range(n)], "group_id": [f"{split}{i}" for i in lesion], "age_approx": 50.0}
        cases |= {"sex": "male", "anatom_site_general_challenge": "torso", "target": target}
        table = pd.DataFrame(cases)
        tables[split] = table.assign(logit=logit, probability=expit(logit), risk=expit(logit))
    return Scored(name, kind, tables, 60.0, removes=removes)


def auroc(one: Scored) -> float:
    return roc_auc_score(one.tables["test"]["target"], one.tables["test"]["logit"])


@pytest.mark.parametrize("side", [32, 64, 96, 224])
def test_every_variant_differs_from_the_recipe_in_its_changes_alone_and_all_by_name(side):
    recipe = SETTINGS.with_changes(image_size=side)
    variants = variants_of(recipe)
    assert (variants[0].part, variants[0].changes) == ("default", {})
    assert len({v.part for v in variants}) == len({v.name for v in variants}) == len(variants) >= 9
    assert ("sizes" in {v.part for v in variants}) == (side > 64)
    for variant in variants[1:]:
        changed = recipe.with_changes(**variant.changes)
        different = {name for name in Settings.model_fields if getattr(changed, name) != getattr(recipe, name)}
        assert different == set(variant.changes) != set()
        assert changed.fingerprint() != recipe.fingerprint()
        assert (variant.kind == SEED) == (different == {"seed"})


def test_an_ingredient_that_the_recipe_lacks_is_not_left_out():
    bare = SETTINGS.with_changes(
        ema_decay=0, diagnosis_weight=0, loss="bce", small_epochs=0, metadata_dropout=0, pretrained=False, augmentation="strong"
    )
    assert [v.part for v in variants_of(bare)] == ["default", "seed1", "seed2", "288px", "384px"]


def test_seeds_share_the_split_of_the_recipe_with_folds_and_without(tmp_path):
    for base in (Settings(runs_dir=tmp_path), SETTINGS.with_changes(runs_dir=tmp_path)):
        own, other = (settings_of(base, v) for v in variants_of(base)[:2])
        assert own.run_path == base.run_path != other.run_path
        assert (other.run_dir is None) == bool(base.folds)  # without folds its name must not be that of another split
    named = settings_of(SETTINGS.with_changes(run_dir=tmp_path / "mine"), variants_of(SETTINGS)[3])
    assert named.run_dir is None


@pytest.mark.parametrize("n", [2, 3, 5])
def test_one_more_training_lies_within_the_limit_in_95_of_100_cases(n):
    draws = np.random.default_rng(n).normal(0.9, 0.01, size=(2000, n + 1))
    within = [abs(row[-1] - row[:-1].mean()) <= seed_noise(list(row[:-1]))["limit"] for row in draws]
    assert np.mean(within) == pytest.approx(0.95, abs=0.02)


def test_the_noise_of_one_seed_is_not_known():
    assert set(seed_noise([0.9]).values()) == {None}
    noise = seed_noise([0.90, 0.91, 0.95])
    assert noise["spread"] == pytest.approx(0.05)
    assert noise["deviation"] == pytest.approx(np.std([0.90, 0.91, 0.95], ddof=1))


@pytest.mark.parametrize(
    ("low", "high", "limit", "kind", "removes", "said"),
    [
        (-0.01, 0.02, 0.001, CHANGE, False, "not shown to help"),
        (0.0, 0.02, 0.001, CHANGE, False, "not shown to help"),
        (-0.02, 0.01, 0.001, CHANGE, True, "the ingredient is not shown to help"),
        (0.01, 0.03, 0.001, CHANGE, False, "helps"),
        (-0.03, -0.01, 0.001, CHANGE, False, "harms"),
        (-0.03, -0.01, 0.001, CHANGE, True, "the ingredient helps"),
        (0.01, 0.03, 0.001, CHANGE, True, "better without the ingredient"),
        (0.01, 0.03, 0.02, CHANGE, False, "helps on these cases, but no more than another seed may: not settled"),
        (0.01, 0.03, None, CHANGE, False, "helps on these cases, but no more than another seed may: not settled"),
        (0.01, 0.03, 0.02, PREDICTION, False, "helps"),  # of the same trainings: no seed differs
        (0.01, 0.03, 0.001, SEED, False, "nothing but the seed differs: the noise of training"),
    ],
)
def test_the_conclusion_follows_from_interval_and_noise(low, high, limit, kind, removes, said):
    assert conclusion(Interval((low + high) / 2, low, high), limit, kind, removes) == said


def test_an_ensemble_is_the_mean_logit_calibrated_on_validation():
    members = [scored(seed=seed) for seed in range(3)]
    both = averaged("all", members)
    for split in ("val", "test"):
        mean = np.mean([one.tables[split]["logit"] for one in members], axis=0)
        np.testing.assert_allclose(both.tables[split]["logit"], mean)
    val, test = both.tables["val"], both.tables["test"]
    oracle = LogisticRegression(C=np.inf).fit(val[["logit"]], val["target"])
    np.testing.assert_allclose(test["risk"], oracle.predict_proba(test[["logit"]])[:, 1], atol=1e-3)
    assert (both.passes, both.seconds, both.members, both.kind) == (3, 180.0, 3, PREDICTION)
    with pytest.raises(StudyError, match="other val cases"):
        averaged("all", [members[0], scored(n=200)])


def test_gains_are_differences_of_scikit_learns_aurocs():
    rows = [
        scored("default recipe", DEFAULT),
        scored("another seed", SEED, seed=1),
        scored("weaker", CHANGE, 0.2, 2, removes="it"),
    ]
    rows.append(averaged("both", rows[:2]))
    table = table_of(SETTINGS, rows)
    seeds = np.mean([auroc(one) for one in rows[:2]])
    for one, row in zip(rows, table.rows, strict=True):
        assert row["auroc"]["value"] == pytest.approx(auroc(one))
        assert row["fair_gain"]["value"] == pytest.approx(auroc(one) - seeds)
        if one.kind != DEFAULT:
            assert row["gain"]["value"] == pytest.approx(auroc(one) - auroc(rows[0]))
            assert row["delong"]["difference"] == pytest.approx(row["gain"]["value"])
    assert table.rows[2]["conclusion"].startswith("the ingredient helps")
    assert table.details["noise"]["spread"] == pytest.approx(abs(auroc(rows[0]) - auroc(rows[1])))
    with pytest.raises(StudyError, match="other test cases"):
        table_of(SETTINGS, [rows[0], scored(n=200)])


def test_the_table_is_fit_to_be_committed_and_drawn(tmp_path):
    rows = [scored("default recipe", DEFAULT), scored("another seed", SEED, seed=1), scored("weaker", CHANGE, 0.2, 2)]
    save_results(table_of(SETTINGS, rows), tmp_path)
    table = load_results("ingredients", tmp_path)
    assert table.command == "python -m melanoma_lib study ingredients --folds 5 --fold 1 --n-resamples 100"
    figure = ingredients_figure(table)
    for row in table.rows:
        assert f"{row['fair_gain']['value']:+.3f}" in figure.alt_text
        assert f"| {row['name']} | {row['auroc']['value']:.3f}" in ingredients_report(table)
    drawn = {text.get_text() for text in figure.axes[0].texts}
    assert {"minutes\nof training", "passes\nan image"} <= drawn
    assert {f"{row['fair_gain']['value']:+.3f}" for row in table.rows} <= drawn


def test_the_band_says_from_how_many_seeds_and_by_which_rule_and_for_whom_it_is_not():
    rows = [scored("default recipe", DEFAULT), *(scored(f"another seed: {seed}", SEED, seed=seed) for seed in (1, 2))]
    table = table_of(SETTINGS, [*rows, averaged("all", rows)])
    figure, noise = ingredients_figure(table), table.details["noise"]
    found = re.search(
        r"It rests on 3 seeds: .*, ([\d.]+), times the t quantile for 2 degrees of freedom, ([\d.]+),", figure.alt_text
    )
    deviation, quantile = float(found[1]), float(found[2])
    assert quantile == pytest.approx(stats.t.interval(0.95, 2)[1], abs=0.005)
    assert deviation * quantile * np.sqrt(4 / 3) == pytest.approx(noise["limit"], rel=0.01)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "what another seed may change, from 3 seeds" in legend
    assert any("predicted otherwise: the band does not apply" in words for words in legend)
    assert "It does not apply to rows of the same trainings" in figure.alt_text


def test_without_further_seeds_no_single_training_is_settled():
    table = table_of(SETTINGS, [scored("default recipe", DEFAULT, 3.0), scored("weaker", CHANGE, 0.2, 2)])
    assert table.rows[1]["conclusion"].endswith("not settled")
    alt_text = ingredients_figure(table).alt_text
    assert "weaker" in alt_text and "no band" in alt_text


@pytest.fixture(scope="module")
def tiny_study(tiny_settings):
    return train_parts(tiny_settings, ["default", "seed1", "ema"])


def test_parts_are_trained_once_on_the_recipes_split(tiny_study, tiny_run, tiny_settings):
    assert tiny_study["default"].path == tiny_settings.run_path
    assert train_parts(tiny_settings, ["default"])["default"].history.equals(tiny_study["default"].history)
    for run in tiny_study.values():
        pd.testing.assert_frame_equal(run.splits, tiny_run.splits)
    assert tiny_study["seed1"].settings.seed == 1
    assert not tiny_study["seed1"].predictions("test")["logit"].equals(tiny_run.predictions("test")["logit"])
    assert {part: run.path for part, run in finished_parts(tiny_settings).items()} == {p: r.path for p, r in tiny_study.items()}


def test_unknown_parts_and_a_missing_default_are_named(tiny_settings, tmp_path):
    with pytest.raises(StudyError, match=r"emma.*default.*ema"):
        train_parts(tiny_settings, ["emma"])
    with pytest.raises(StudyError, match="not trained"):
        finished_parts(tiny_settings.with_changes(runs_dir=tmp_path))


def test_views_are_the_reports_own_and_computed_once(tiny_study, tiny_settings, monkeypatch):
    run, variant = tiny_study["default"], variants_of(tiny_settings)[0]
    expected = ingredients.predict_with_views(run)
    viewed = eight_viewed(run, scored_run(run, variant))
    monkeypatch.setattr(ingredients, "predict_with_views", lambda _: pytest.fail("computed again"))
    again = eight_viewed(run, scored_run(run, variant))
    for one in (viewed, again):
        for split in ("val", "test"):
            np.testing.assert_allclose(one.tables[split][["logit", "risk"]], expected[split][["logit", "risk"]], atol=1e-9)
    assert viewed.passes == 8


def test_the_whole_study_compares_trainings_and_what_can_be_had_at_prediction(tiny_study, tiny_settings):
    table = compare_ingredients(tiny_settings, tiny_study)
    names = ["default recipe", "another seed: 1", "without weight averaging", "8 views an image", "2 seeds averaged"]
    assert [row["name"] for row in table.rows] == [*names, "2 seeds averaged, 8 views"]
    assert [row["passes"] for row in table.rows] == [1, 1, 1, 8, 2, 16]
    assert table.rows[3]["compared_with"] == "the same model, one view"
    json.dumps(table.details)


def test_runs_that_average_views_count_their_passes_and_are_not_viewed_again(tiny_study, tiny_settings, monkeypatch):
    viewing = tiny_settings.with_changes(tta=True)
    for run in tiny_study.values():
        monkeypatch.setitem(vars(run), "settings", run.settings.with_changes(tta=True))
    monkeypatch.setattr(ingredients, "eight_viewed", lambda *_: pytest.fail("viewed again"))
    table = compare_ingredients(viewing, tiny_study)
    names = ["default recipe", "another seed: 1", "without weight averaging", "2 seeds averaged"]
    assert [(row["name"], row["passes"]) for row in table.rows] == list(zip(names, (8, 8, 8, 16), strict=True))


def test_parts_and_finished_together_are_refused(monkeypatch, capsys):
    for name in ("train_parts", "finished_parts"):
        monkeypatch.setattr(ingredients, name, lambda *_: pytest.fail("went on"))
    assert main(["study", "ingredients", "--finished", "--parts", "ema"]) == 1
    assert "give one of them" in capsys.readouterr().err
