"""The cross-validation lesson: a leak that is put in is found, folds keep groups apart and choose on validation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from melanoma_lib.evaluation import OperatingCurve
from melanoma_lib.lessons import cross_validation
from melanoma_lib.lessons.cross_validation import QuickCases, fold_aurocs, fold_table, out_of_fold, roles_of


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
