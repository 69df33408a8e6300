"""The cross-validation lesson: splits against scikit-learn, a leak that is put in, folds that keep apart."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from melanoma_lib.data import split_cases
from melanoma_lib.errors import RunError
from melanoma_lib.evaluation import OperatingCurve
from melanoma_lib.lessons import cross_validation, cross_validation_figures
from melanoma_lib.lessons.cross_validation import QuickCases, fold_aurocs, fold_table, moved_scales, out_of_fold, roles_of


def made_up(signal=0.8, memory=0.0, n_groups=150, seed=0):
    """Groups of two pictures; ``memory`` is how much of its features a group's pictures share and no other has."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 2)
    target = np.repeat(rng.random(n_groups) < 0.4, 2).astype(int)
    own = np.repeat(rng.normal(size=(n_groups, 60)), 2, axis=0)
    features = memory * own + 0.5 * rng.normal(size=(len(groups), 60))
    features[:, 0] += signal * target
    cases = pd.DataFrame(
        {"image_id": [f"i{i}" for i in range(len(groups))], "group_id": [f"patient:{g}" for g in groups], "target": target}
    )
    return QuickCases(cases, features.astype(np.float32), 55)


@pytest.fixture(scope="module")
def quick():
    return made_up()


def test_the_quick_model_is_scikit_learns_on_the_rows_and_columns_asked_for(quick):
    train = np.arange(len(quick.cases)) % 3 > 0
    for inputs, part in (("image+metadata", slice(None)), ("image", slice(0, 55)), ("metadata", slice(55, None))):
        converged = LogisticRegression(C=cross_validation.PENALTY, max_iter=10_000, tol=1e-8)
        model, features = make_pipeline(StandardScaler(), converged), quick.features.astype(np.float64)[:, part]
        expected = model.fit(features[train], quick.targets[train]).decision_function(features[~train])
        np.testing.assert_allclose(quick.logits(train, ~train, inputs), expected, rtol=1e-3, atol=1e-3)
    fitted = quick.fit(quick.cases[train])
    np.testing.assert_allclose(fitted(quick.cases[~train]), quick.logits(train, ~train), rtol=1e-6)


def test_every_split_is_a_grouped_one_and_scored_on_its_test(quick):
    splits = cross_validation.single_splits(quick, n=4, seed=3)
    for number, row in zip(range(3, 7), splits.itertuples(), strict=True):
        test = (split_cases(quick.cases, seed=number) == "test").to_numpy()
        assert row.auroc == pytest.approx(roc_auc_score(quick.targets[test], quick.logits(~test, test)))
        assert (row.melanomas, row.others) == (quick.targets[test].sum(), (1 - quick.targets[test]).sum())
    first = cross_validation.first_split(quick, seed=3, n=200)
    assert first.low < first.value < first.high
    assert first.value == pytest.approx(splits["auroc"][0])


@pytest.mark.parametrize("n", [1, 3, 11, 12])
def test_the_best_of_several_is_the_mean_over_all_draws(n):
    values = np.random.default_rng(0).normal(size=12)
    rng = np.random.default_rng(1)
    played = np.mean([rng.choice(values, n, replace=False).max() for _ in range(8000)])
    assert cross_validation.best_of(values, n) == pytest.approx(played, abs=0.03)
    assert cross_validation.best_of(values, 12) == pytest.approx(values.max())
    with pytest.raises(ValueError, match="expected 1 to 12, got 13"):
        cross_validation.best_of(values, 13)


def test_a_leak_that_is_there_is_found_and_one_that_is_not_is_not():
    leaky = cross_validation.leak(made_up(signal=0.15, memory=1.0), repeats=3, n=200)
    assert leaky.known > 0.5
    assert leaky.difference.low > 0.02
    assert leaky.difference.value == pytest.approx(np.mean(leaky.by_image - leaky.by_group), abs=1e-9)
    alone = made_up(memory=0.0)
    alone = replace(alone, cases=alone.cases.assign(group_id="image:" + alone.cases["image_id"]))
    honest = cross_validation.leak(alone, repeats=3, n=200)
    assert honest.known == 0
    assert honest.difference.low < 0 < honest.difference.high


def test_folds_answer_every_case_once_and_choose_on_validation(quick):
    roles = roles_of(quick.cases, 4, seed=1)
    answers = out_of_fold(quick, roles, 0.9)
    assert answers["image_id"].tolist() == quick.cases["image_id"].tolist()
    for fold, role in enumerate(roles, 1):
        assert role.groupby(quick.cases["group_id"]).nunique().max() == 1
        part = answers[answers["fold"] == fold]
        assert part.index.equals(quick.cases.index[role == "test"])
        train, val = ((role == name).to_numpy() for name in ("train", "val"))
        np.testing.assert_allclose(part["logit"], quick.logits(train, (role == "test").to_numpy()), rtol=1e-6)
        cut = OperatingCurve(quick.targets[val], quick.logits(train, val)).for_sensitivity(0.9).threshold
        assert (part["called"] == (part["logit"] >= cut)).all()
    table, first = fold_table(answers, n=100), answers[answers["fold"] == 1]
    assert table.loc["fold 1", "sensitivity"] == f"{first.loc[first['target'] == 1, 'called'].mean():.1%}"
    assert table["images"].iloc[:-1].str.replace(",", "").astype(int).sum() == len(answers)
    mean = table.loc["mean of folds"]
    assert mean["AUROC"].startswith(f"{fold_aurocs(answers)[0]:.3f} [")
    shares = [answers[(answers["fold"] == fold) & (answers["target"] == 1)]["called"].mean() for fold in range(1, 5)]
    assert mean["sensitivity"] == f"{np.mean(shares):.1%}"


def test_moved_scales_change_the_pooled_score_alone(quick):
    answers = out_of_fold(quick, roles_of(quick.cases), 0.9)
    mean, pooled = fold_aurocs(answers)
    by_hand = [roc_auc_score(part["target"], part["logit"]) for _, part in answers.groupby("fold")]
    assert mean == pytest.approx(np.mean(by_hand))
    assert pooled == pytest.approx(roc_auc_score(answers["target"], answers["logit"]))
    moved = moved_scales(answers, by=3.0)
    off = pd.Series(moved - answers["logit"]).groupby(answers["fold"]).agg(["min", "max"])
    np.testing.assert_allclose(off["min"], [0, 3, -3, 6, -6], atol=1e-9)
    np.testing.assert_allclose(off["min"], off["max"], atol=1e-9)
    mean_moved, pooled_moved = fold_aurocs(answers, moved)
    assert mean_moved == pytest.approx(mean)
    assert pooled_moved < pooled


def test_every_part_of_the_drawn_folds_has_one_role(quick):
    figure = cross_validation_figures.folds_figure(roles_of(quick.cases))
    drawn = [patch.get_facecolor() for patch in figure.axes[0].patches if patch.get_width() > 0]
    assert len(drawn) == 50
    assert [len([one for one in drawn if one == colour]) for colour in dict.fromkeys(drawn)] == [10, 5, 35]


# --- with a run ---------------------------------------------------------------------------------------------------------------


def test_the_quick_cases_of_a_run_are_its_own_and_found_again(tiny_run):
    quick = cross_validation.quick_cases(tiny_run.settings)
    again = cross_validation.quick_cases(tiny_run.settings)
    assert (quick.features == again.features).all() and np.isfinite(quick.features).all()
    assert quick.features.shape == (len(tiny_run.splits), quick.n_image + tiny_run.encoder.n_features)
    answers = cross_validation.quick_answers(quick, tiny_run)
    split = tiny_run.splits.set_index("image_id").loc[quick.cases["image_id"], "split"].to_numpy()
    expected = pd.Series(quick.logits(split == "train", split == "test"), quick.cases["image_id"][split == "test"])
    np.testing.assert_allclose(answers, expected.loc[tiny_run.predictions("test")["image_id"]], rtol=1e-6)
    fewer = QuickCases(quick.cases.iloc[:-1], quick.features[:-1], quick.n_image)
    with pytest.raises(RunError, match=re.escape(str(tiny_run.path))):
        cross_validation.quick_answers(fewer, tiny_run)
