"""Pairs differ in the artefact and nowhere else; decisions that flip are counted as by hand."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.images import read_square
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.evaluation import wilson_interval
from melanoma_lib.lessons.artefact_pairs import ALL, OFF, ON, ArtefactEffect, artefact_pair
from tests.data.builders import case_table, pixels

WORLD = SyntheticDermoscopy(n_patients=12, seed=3, image_size=48)


@pytest.fixture
def photographs(tmp_path):
    """Three photographs of 4:3, the lesion of the first outlined, of the second in a corner, of the third not at all."""
    cases = case_table([0, 1, 0], image_path=[str(tmp_path / f"{i}.png") for i in range(3)])
    for i, path in enumerate(cases["image_path"]):
        Image.fromarray(pixels(60, 80, seed=i)).save(path)
    for i, mask in enumerate((np.ones((60, 80), bool), np.zeros((60, 80), bool))):
        mask[0, 0] = True
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"mask_{i}.png")
    cases["mask_path"] = [str(tmp_path / "mask_0.png"), str(tmp_path / "mask_1.png"), None]
    return cases


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_pairs_differ_inside_the_artefact_and_nowhere_else(artefact, photographs):
    for case in (photographs.iloc[0], photographs.iloc[2]):
        pair, again = (artefact_pair(case, artefact, 48) for _ in range(2))
        assert np.array_equal(pair.painted, again.painted) and np.array_equal(pair.without, read_square(case["image_path"], 48))
        assert np.array_equal((pair.without != pair.painted).any(axis=-1), pair.where) and pair.where.any()
    present = WORLD.cases[f"truth_artefact_{artefact}"].to_numpy()
    for index in [*np.flatnonzero(present)[:2], *np.flatnonzero(~present)[:2]]:
        pair, whole = artefact_pair(WORLD.cases.iloc[index], artefact, 48, WORLD), WORLD.render(index)
        assert np.array_equal(pair.without[~pair.where], pair.painted[~pair.where]) and np.array_equal(pair.lesion, whole.mask)
        if present[index]:
            assert np.array_equal(pair.where, whole.artefacts[artefact])
            assert np.array_equal(pair.painted[pair.where], whole.image[pair.where])
        else:
            assert np.array_equal(pair.without, whole.image)


def effect_of(before, after, risks=None, on_lesion=None):
    """An effect of two cases a group whose decisions are given."""
    n = len(before)
    without, with_ = risks or (np.zeros(n), np.zeros(n))
    table = pd.DataFrame({"image_id": [f"i{i}" for i in range(n)], "group_id": np.arange(n) // 2, "target": 0, "area": 0.1})
    table["on_lesion"] = pd.array([None] * n if on_lesion is None else on_lesion, dtype="boolean")
    table = table.assign(logit_without=without, logit_with=with_, risk_without=without, risk_with=with_)
    return ArtefactEffect(
        "ink", 0.5, 0.5, table.assign(flagged_without=np.array(before, bool), flagged_with=np.array(after, bool))
    )


def test_flips_counted_by_hand_and_by_part():
    before, after = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 1, 1, 1, 1]
    found = effect_of(before, after).intervals(n=50)
    assert [found[name].value for name in ("flips", "raised", "lowered")] == [4 / 10, 3 / 5, 1 / 5]
    never = effect_of([0] * 40, [0] * 40).intervals(n=50)  # no flip at all is no certainty
    assert never["flips"] == wilson_interval(0, 20) and np.isnan(never["lowered"].value)
    effect = effect_of([0, 0, 0, 0], [1, 0, 1, 1], on_lesion=[True, False, None, True])
    assert [len(effect.rows(part)) for part in (ALL, ON, OFF)] == [4, 2, 1]
    assert effect.intervals(ON, n=20)["flips"].value == 1 and effect.intervals(OFF, n=20)["flips"].value == 0
