"""Pairs differ where they should, and what a run's answers to them amount to is what counting by hand gives."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.images import backbone_normalisation, evaluation_transform, read_square, stored_side
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError
from melanoma_lib.evaluation import Calibrator, wilson_interval
from melanoma_lib.explain import cam_layers, default_layer, heatmaps
from melanoma_lib.lessons import artefact_pairs
from melanoma_lib.lessons.artefact_pairs import ALL, OFF, ON, ArtefactEffect, artefact_effect, artefact_pair
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


def test_touching_the_lesion_is_known_only_with_a_mask_and_bad_pairs_are_refused(photographs):
    touches = [artefact_pair(case, "vignette", 64).touches for _, case in photographs.iterrows()]
    assert touches == [True, True, None]  # the rim covers the corner pixel
    with pytest.raises(ValueError, match=r"artefact: expected one of .*'ruler'.*got 'rular'"):
        artefact_pair(photographs.iloc[0], "rular", 48)
    with pytest.raises(ValueError, match="side: expected the generator's 48, got 64"):
        artefact_pair(WORLD.cases.iloc[0], "ink", 64, WORLD)
    with pytest.raises(DataError, match="no case 'image_0'"):
        artefact_pair(photographs.iloc[0], "ink", 48, WORLD)


class OnePixel(nn.Module):
    """A model whose logit is the red of the first pixel, as it comes in, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, image, _metadata):
        return self.weight * image[:, 0, 0, 0]


def test_the_effect_on_a_model_that_reads_one_pixel_is_known(photographs, tiny_run):
    run = SimpleNamespace(
        settings=tiny_run.settings, encoder=tiny_run.encoder, calibrator=Calibrator(0.5, -1.0),
        operating_point=SimpleNamespace(threshold=0.4), path="one pixel",
    )  # fmt: skip
    effect, expected = artefact_effect(run, photographs, "vignette", model=OnePixel()), []
    facts = backbone_normalisation(tiny_run.settings.backbone)
    for _, case in photographs.iterrows():
        pair = artefact_pair(case, "vignette", stored_side(32))
        for picture in (pair.without, pair.painted):
            small = Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC)
            expected.append(3.0 * (np.asarray(small)[0, 0, 0] / 255 - facts["mean"][0]) / facts["std"][0])
    logits = effect.table[["logit_without", "logit_with"]].to_numpy()
    np.testing.assert_allclose(logits, np.reshape(expected, (3, 2)), atol=0.05 * 3)  # one grey level either way
    np.testing.assert_allclose(effect.table["risk_with"], 1 / (1 + np.exp(1.0 - 0.5 * logits[:, 1])))
    assert effect.table["flagged_with"].tolist() == (1 / (1 + np.exp(-logits[:, 1])) >= 0.4).tolist()
    assert effect.threshold_risk == pytest.approx(1 / (1 + np.exp(1.0 - 0.5 * np.log(0.4 / 0.6))))


def test_without_the_artefact_a_run_answers_what_it_has_stored(tiny_run):
    cases = tiny_run.cases().query("split == 'test'")
    effect, stored = artefact_effect(tiny_run, cases, "ruler"), tiny_run.predictions("test")
    np.testing.assert_allclose(effect.table[["logit_without", "risk_without"]], stored[["logit", "risk"]], atol=1e-4)
    assert "ruler" in artefact_pairs.slope_figure({"it": effect}).alt_text
    with pytest.raises(ValueError, match="cases: expected at least one"):
        artefact_effect(tiny_run, cases.iloc[:0], "ink")
    for change, message in (
        ({"modalities": "metadata"}, "it looks at metadata only"),
        ({"image_size": 64}, "shown pictures alike"),
    ):
        other = SimpleNamespace(settings=tiny_run.settings.with_changes(**change), path="it")
        with pytest.raises(ValueError, match=message):
            artefact_pairs.effect_by_run({"it": tiny_run, "other": other}, cases, "ink")


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


@pytest.mark.parametrize(
    ("change", "spread", "n", "expected"),
    [(0.01, 0.1, 200, "passes"), (0.2, 0.1, 200, "fails"), (0.05, 0.3, 200, "inconclusive"), (0.01, 0.1, 8, "inconclusive")],
)
def test_a_model_passes_only_where_the_change_of_risk_is_shown_to_be_small(change, spread, n, expected):
    for sign in (1, -1):
        after = 0.5 + sign * change + spread * np.where(np.arange(n) // 2 % 2, 1, -1)
        assert artefact_pairs.verdict(effect_of(np.zeros(n), np.arange(n) < 4, (np.full(n, 0.5), after)), n=200) == expected


def test_energy_on_the_artefact_is_what_summing_by_hand_gives(tiny_run):
    tested, generator = tiny_run.cases().query("split == 'test'").iloc[:5], SyntheticDermoscopy(80, 0, stored_side(32))
    model, transform = tiny_run.model(), evaluation_transform(tiny_run.settings.backbone, 32)
    layer = default_layer(cam_layers(model), 32)
    energies = artefact_pairs.energy_by_run({"it": tiny_run}, tested, "ink", generator)["it"]
    for (_, case), (_, row) in zip(tested.iterrows(), energies.iterrows(), strict=True):
        pair = artefact_pair(case, "ink", stored_side(32), generator)
        assert row["area"] == pair.where.sum() / pair.where.size
        for picture, column in ((pair.painted, "energy_with"), (pair.without, "energy_without")):
            metadata = torch.from_numpy(tiny_run.encoder.transform(case.to_frame().T))
            image = transform(Image.fromarray(picture))[None]
            positive = heatmaps(model, image, metadata, layer, "hirescam", size=39)[layer][0].clip(0)
            expected = positive[pair.where].sum() / positive.sum() if positive.any() and pair.where.any() else np.nan
            assert row[column] == pytest.approx(expected, rel=1e-3, nan_ok=True)
    table = pd.DataFrame({"group_id": list("abc"), "area": [0.1, 0.2, 0.9], "energy_with": [0.5, 0.7, np.nan]})
    found = artefact_pairs.energy_intervals(table.assign(energy_without=[0.1, 0.3, 0.3]), n=20)
    assert {name: round(one.value, 9) for name, one in found.items()} == {"area": 0.15, "energy_with": 0.6, "energy_without": 0.2}
