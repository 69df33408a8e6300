import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from melanoma_lib.data import SyntheticDermoscopy, audit_leakage
from melanoma_lib.evaluation import Interval
from melanoma_lib.lessons import leakage
from melanoma_lib.lessons.eda_pictures import Pictures
from tests.data.builders import case_table
from tests.lessons.test_eda import legible

CASES = SyntheticDermoscopy(n_patients=120).cases


def world(n_groups=150, seed=0, remembered=True):
    """Pictures whose colours tell the group, or nothing, and never the class."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 4)
    targets = np.repeat(rng.integers(0, 2, n_groups), 4)
    own = rng.normal(size=(n_groups, 20))[groups] if remembered else rng.normal(size=(groups.size, 20))
    colours = own + 0.05 * rng.normal(size=own.shape)
    return Pictures(case_table(targets, lesions=groups.astype(str)), colours.astype(np.float32))


def test_every_split_is_audited_by_itself():
    table = leakage.leakage_over_splits(CASES, n_splits=4, seed=2)
    audit = audit_leakage(CASES, seed=2, n_splits=4)
    assert table["by_image"].mean() == pytest.approx(audit.by_image["group"]["melanomas"])
    assert table["by_image"].nunique() > 1
    assert table["by_group"].tolist() == [0] * 4
    single = audit_leakage(CASES, seed=5, n_splits=1)
    assert table["by_image"].iloc[3] == single.by_image["group"]["melanomas"]


@given(seed=st.integers(0, 10_000), n_groups=st.integers(6, 40))
def test_a_sibling_split_tests_half_of_each_tested_group(seed, n_groups):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups)).astype(str)
    targets = rng.integers(0, 2, groups.size)
    test, siblings, strangers = leakage._sibling_split(targets, groups, np.random.default_rng(seed))
    assert sorted([*test, *siblings, *strangers]) == list(range(groups.size))
    assert set(groups[siblings]) <= set(groups[test])
    assert not set(groups[test]) & set(groups[strangers])
    for name in set(groups[test]):
        assert (groups[test] == name).sum() == max((groups == name).sum() // 2, 1)
    melanoma = pd.Series(targets).groupby(groups).max()
    tested = melanoma[sorted(set(groups[test]))]
    for kind in (0, 1):
        assert (tested == kind).sum() == -(-(melanoma == kind).sum() // 3)  # a third of each stratum, rounded up


@given(seed=st.integers(0, 10_000))
def test_siblings_take_the_place_of_strangers_of_their_class(seed):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, 60)
    rows = rng.permutation(60)
    siblings, strangers = rows[: rng.integers(0, 25)], rows[25:]
    mixed = leakage._swap_in(siblings, strangers, targets, rng)
    assert len(mixed) == len(set(mixed)) == len(strangers)
    assert set(mixed) <= {*siblings, *strangers}
    for kind in (0, 1):
        assert (targets[mixed] == kind).sum() == (targets[strangers] == kind).sum()
        family = set(siblings[targets[siblings] == kind])
        assert len(family & set(mixed)) == min(len(family), (targets[strangers] == kind).sum())


def test_a_world_that_can_be_remembered_pays_for_the_leak():
    effect = leakage.sibling_effect(world(), n_splits=4, n=200)
    assert effect.recognised == 1
    assert (effect.with_siblings > 0.97).all()
    assert abs(effect.strangers_only.mean() - 0.5) < 0.1
    assert effect.gain.low > 0.3
    assert effect.gain.value == pytest.approx((effect.with_siblings - effect.strangers_only).mean())


def test_a_world_without_memory_does_not():
    effect = leakage.sibling_effect(world(remembered=False), n_splits=6, n=200)
    assert effect.recognised < 0.03
    assert effect.gain.low < 0 < effect.gain.high


def test_colours_that_tell_the_class_are_judged_alike():
    pictures = world(remembered=False)
    informed = pictures.colours + 1.5 * pictures.table["target"].to_numpy(np.float32)[:, None]
    effect = leakage.sibling_effect(Pictures(pictures.table, informed), n_splits=3, n=200)
    best = roc_auc_score(pictures.table["target"], informed.mean(axis=1))
    assert effect.strangers_only.mean() == pytest.approx(best, abs=0.05)
    assert abs(effect.gain.value) < 0.02


def test_too_little_is_not_measured():
    few = world(n_groups=16)
    assert few.table["target"].sum() < leakage.FEW
    assert leakage.sibling_effect(few) is None
    lonely = world()
    lonely.table["group_id"] = lonely.table["image_id"]
    assert leakage.sibling_effect(lonely) is None
    assert "Not measured" in leakage.sibling_figure(None).alt_text


def test_the_figures_draw_every_split():
    splits = pd.DataFrame({"by_image": [0.5, 0.7, 0.6], "by_group": [0.0, 0.0, 0.0]})
    figure = leakage.leakage_figure(splits, guess=0.25, unit="lesion")
    legible(figure)
    dots = [line.get_xdata().tolist() for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert dots == [[0.5, 0.7, 0.6], [0, 0, 0]]
    assert "0.600 (0.500 to 0.700)" in figure.alt_text
    legible(leakage.leakage_figure(splits))
    effect = leakage.SiblingEffect(np.array([0.8, 0.9]), np.array([0.7, 0.8]), Interval(0.1, 0.05, 0.15), 0.25)
    figure = leakage.sibling_figure(effect)
    legible(figure)
    lines = {tuple(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines >= {(0.7, 0.8), (0.8, 0.9)}
    assert "+0.100 [+0.050, +0.150]" in figure.alt_text
