"""Pairs differ where they should, and what is said of a run's answers to them is what counting by hand gives."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.images import backbone_normalisation, read_square, stored_side
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError
from melanoma_lib.evaluation import Calibrator, resample_groups, wilson_interval
from melanoma_lib.explain import cam_layers, heatmaps
from melanoma_lib.lessons import artefact_pairs
from melanoma_lib.lessons.artefact_pairs import (
    ALL,
    OFF,
    ON,
    ArtefactEffect,
    artefact_effect,
    artefact_pair,
    effect_by_run,
    energy_by_run,
)
from melanoma_lib.studies import artefact_effect as effects_module
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


def same_outside(pair):
    return np.array_equal(pair.without[~pair.where], pair.painted[~pair.where])


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_pairs_differ_inside_the_artefact_and_nowhere_else(artefact, photographs):
    for case in (photographs.iloc[0], photographs.iloc[2]):
        pair = artefact_pair(case, artefact, 48)
        assert pair.where.any() and same_outside(pair)
        assert (pair.without != pair.painted)[pair.where].any(axis=-1).all()  # more than VISIBLE levels survive rounding
        assert np.array_equal(pair.without, read_square(case["image_path"], 48))


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_a_synthetic_pair_is_the_case_itself_with_the_artefact_added_or_removed(artefact):
    present = WORLD.cases[f"truth_artefact_{artefact}"].to_numpy()
    for index in [*np.flatnonzero(present)[:2], *np.flatnonzero(~present)[:2]]:
        case, whole = WORLD.cases.iloc[index], WORLD.render(index)
        pair = artefact_pair(case, artefact, 48, WORLD)
        assert same_outside(pair)
        assert np.array_equal(pair.lesion, whole.mask)
        if not present[index]:
            assert np.array_equal(pair.without, whole.image)
        else:
            assert np.array_equal(pair.where, whole.artefacts[artefact])
            assert np.array_equal(pair.painted[pair.where], whole.image[pair.where])
            assert np.abs(pair.painted.astype(int) - whole.image).max() <= 3  # outside: what is too faint for the mask


def test_a_pasted_artefact_depends_on_the_image_id_alone(photographs):
    first, again = (artefact_pair(photographs.iloc[0], "ink", 64) for _ in range(2))
    other = artefact_pair(photographs.iloc[0].replace("image_0", "image_9"), "ink", 64)
    assert np.array_equal(first.painted, again.painted)
    assert np.array_equal(first.without, other.without) and not np.array_equal(first.where, other.where)


def test_touching_the_lesion_is_known_only_with_a_mask(photographs):
    touches = [artefact_pair(case, "vignette", 64).touches for _, case in photographs.iterrows()]
    assert touches == [True, True, None]  # the rim covers the corner pixel
    assert artefact_pair(photographs.iloc[1], "ruler", 64).touches is False


def test_bad_pairs_are_refused(photographs):
    with pytest.raises(ValueError, match=r"artefact: expected one of .*'ruler'.*got 'rular'"):
        artefact_pair(photographs.iloc[0], "rular", 48)
    with pytest.raises(ValueError, match="side: expected the generator's 48, got 64"):
        artefact_pair(WORLD.cases.iloc[0], "ink", 64, WORLD)
    with pytest.raises(DataError, match="no case 'image_0'"):
        artefact_pair(photographs.iloc[0], "ink", 48, WORLD)


class OnePixel(nn.Module):
    """A model whose logit is the red of one pixel, as it comes in, times a weight."""

    def __init__(self, row: int, column: int, weight: float) -> None:
        super().__init__()
        self.row, self.column, self.weight = row, column, nn.Parameter(torch.tensor(weight))

    def forward(self, image, _metadata):
        return self.weight * image[:, 0, self.row, self.column]


def test_the_effect_on_a_model_that_reads_one_pixel_is_known(photographs, tiny_run):
    settings, side = tiny_run.settings, stored_side(tiny_run.settings.image_size)
    run = SimpleNamespace(
        settings=settings, encoder=tiny_run.encoder, calibrator=Calibrator(0.5, -1.0),
        operating_point=SimpleNamespace(threshold=0.4), path="one pixel",
    )  # fmt: skip
    effect = artefact_effect(run, photographs, "vignette", model=OnePixel(0, 0, 3.0))
    facts = backbone_normalisation(settings.backbone)
    expected = []
    for _, case in photographs.iterrows():
        pair = artefact_pair(case, "vignette", side)
        for picture in (pair.without, pair.painted):
            small = Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC)
            expected.append(3.0 * (np.asarray(small)[0, 0, 0] / 255 - facts["mean"][0]) / facts["std"][0])
    logits = effect.table[["logit_without", "logit_with"]].to_numpy()
    np.testing.assert_allclose(logits, np.reshape(expected, (3, 2)), atol=0.05 * 3)  # one grey level either way
    assert (logits[:, 1] < logits[:, 0]).all()  # the rim is dark
    np.testing.assert_allclose(effect.table["risk_with"], 1 / (1 + np.exp(1.0 - 0.5 * logits[:, 1])))
    assert effect.table["flagged_with"].tolist() == (1 / (1 + np.exp(-logits[:, 1])) >= 0.4).tolist()
    assert effect.threshold_risk == pytest.approx(1 / (1 + np.exp(1.0 - 0.5 * np.log(0.4 / 0.6))))
    untouched = artefact_effect(run, photographs, "vignette", model=OnePixel(16, 16, 3.0))  # the middle is not under the rim
    assert untouched.intervals()["logit"].value == untouched.intervals()["flips"].value == 0


def test_without_the_artefact_a_run_answers_what_it_has_stored(tiny_run):
    cases = tiny_run.cases()
    cases = cases[cases["split"] == "test"]
    effect = artefact_effect(tiny_run, cases, "ruler")
    stored = tiny_run.predictions("test")
    np.testing.assert_allclose(effect.table["logit_without"], stored["logit"], atol=1e-4)
    np.testing.assert_allclose(effect.table["risk_without"], stored["risk"], atol=1e-4)
    assert effect.table["image_id"].tolist() == stored["image_id"].tolist()


def effect_of(before, after, groups=None, risks=None, on_lesion=None):
    """An effect whose decisions are given."""
    n = len(before)
    without, with_ = risks or (np.zeros(n), np.zeros(n))
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)],
            "group_id": range(n) if groups is None else groups,
            "target": 0,
            "area": 0.1,
            "on_lesion": pd.array([None] * n if on_lesion is None else on_lesion, dtype="boolean"),
            "logit_without": without,
            "logit_with": with_,
            "risk_without": without,
            "risk_with": with_,
            "flagged_without": np.array(before, bool),
            "flagged_with": np.array(after, bool),
        }
    )
    return ArtefactEffect("ink", 0.5, 0.5, table)


def test_flips_counted_by_hand():
    #                 stays    raised   lowered  stays
    before, after = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 1, 1, 1, 1]
    found = effect_of(before, after).intervals(n=50)
    assert found["flips"].value == 4 / 10
    assert found["raised"].value == 3 / 5
    assert found["lowered"].value == 1 / 5


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4), st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_means_are_those_of_plain_loops(rows):
    before, after, groups, without, with_ = zip(*rows, strict=True)
    found = effect_of(before, after, groups, (np.array(without), np.array(with_))).intervals(n=20)
    changes = [b - a for a, b in zip(without, with_, strict=True)]
    assert found["risk"].value == pytest.approx(sum(changes) / len(rows))
    assert found["abs_risk"].value == pytest.approx(sum(map(abs, changes)) / len(rows))
    raised, lowered = (sum(a == start and b != start for a, b in zip(before, after, strict=True)) for start in (False, True))
    assert found["flips"].value * len(rows) == pytest.approx(raised + lowered)
    for name, count, concerned in (("raised", raised, len(rows) - sum(before)), ("lowered", lowered, sum(before))):
        assert found[name].value == pytest.approx(count / concerned) if concerned else np.isnan(found[name].value)


def test_intervals_resample_whole_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), rng.integers(1, 6, 25))
    before, after = rng.random(groups.size) < 0.4, rng.random(groups.size) < 0.5
    found = effect_of(before, after, groups).intervals(n=300, seed=7)["flips"]
    flips, replicates = before != after, []
    for weights in np.concatenate(list(resample_groups(25, 300, 7, 50))):
        drawn = [flip for group, weight in enumerate(weights) for flip in list(flips[groups == group]) * weight]
        replicates.append(np.mean(drawn))
    np.testing.assert_allclose((found.low, found.high), np.quantile(replicates, [0.025, 0.975]))


def test_no_flip_at_all_is_no_certainty():
    found = effect_of([0] * 40, [0] * 40, np.arange(40) // 2).intervals(n=50)
    assert found["flips"] == wilson_interval(0, 20)
    assert found["flips"].high > 0.1
    assert np.isnan(found["lowered"].value)  # none was flagged


def test_parts_leave_out_cases_without_a_mask():
    effect = effect_of([0, 0, 0, 0], [1, 0, 1, 1], on_lesion=[True, False, None, True])
    assert [len(effect.rows(part)) for part in (ALL, ON, OFF)] == [4, 2, 1]
    assert effect.intervals(ON, n=20)["flips"].value == 1
    assert effect.intervals(OFF, n=20)["flips"].value == 0
    unknown = effect_of([0], [1])
    assert all(np.isnan(interval.value) for interval in unknown.intervals(OFF).values())
    table = artefact_pairs.effect_table([effect, unknown], n=20)
    assert table[["part", "cases"]].values.tolist() == [[ALL, 4], [OFF, 1], [ON, 2], [ALL, 1]]
    with pytest.raises(ValueError, match="part: expected one of"):
        effect.rows("beside")


def verdict(change: float, spread: float = 0.0, n: int = 200, flips: int = 0) -> str:
    risks = 0.5 + change + spread * np.where(np.arange(n) % 2, 1, -1)
    effect = effect_of(np.zeros(n), np.arange(n) < flips, risks=(np.full(n, 0.5), risks))
    return artefact_pairs.verdict(effect, n=200)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_model_passes_only_where_the_change_of_risk_is_shown_to_be_small(sign):
    assert verdict(sign * 0.01, 0.1) == "passes"
    assert verdict(sign * 0.2, 0.1) == "fails"
    assert verdict(sign * 0.05, 0.3) == "not settled"  # the limit lies within the interval
    assert verdict(sign * 0.01, 0.1, n=8) == "not settled"  # too few to show anything
    assert verdict(sign * 0.01, 0.1, flips=80) == "passes"  # to and fro is no shortcut


@pytest.fixture
def tested(tiny_run):
    cases = tiny_run.cases()
    return cases[cases["split"] == "test"].iloc[:5]


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_energy_on_the_artefact_is_what_summing_by_hand_gives(tiny_run, tested, method):
    generator = SyntheticDermoscopy(80, 0, stored_side(32))
    model = tiny_run.model()
    layer = artefact_pairs.pointing_layer(tiny_run, model)
    assert cam_layers(model)[layer].stride * 7 <= 32
    energies = energy_by_run({"it": tiny_run}, tested, "ink", generator, method=method)["it"]
    from melanoma_lib.data.images import evaluation_transform

    transform = evaluation_transform(tiny_run.settings.backbone, 32)
    for (_, case), (_, row) in zip(tested.iterrows(), energies.iterrows(), strict=True):
        pair = artefact_pair(case, "ink", stored_side(32), generator)
        assert row["area"] == pair.where.sum() / pair.where.size
        for picture, column in ((pair.painted, "energy_with"), (pair.without, "energy_without")):
            image = transform(Image.fromarray(picture))[None]
            metadata = torch.from_numpy(tiny_run.encoder.transform(case.to_frame().T))
            positive = heatmaps(model, image, metadata, layer, method, size=39)[layer][0].clip(0)
            if positive.any() and pair.where.any():
                assert row[column] == pytest.approx(positive[pair.where].sum() / positive.sum(), rel=1e-3)
            else:
                assert np.isnan(row[column])


def test_mean_energies_count_only_cases_in_which_both_are_known():
    table = pd.DataFrame({"group_id": list("abc"), "area": [0.1, 0.2, 0.9], "energy_with": [0.5, 0.7, np.nan]})
    found = artefact_pairs.energy_intervals(table.assign(energy_without=[0.1, 0.3, 0.3]), n=20)
    assert {name: round(one.value, 9) for name, one in found.items()} == {"area": 0.15, "energy_with": 0.6, "energy_without": 0.2}
    empty = artefact_pairs.energy_intervals(table.assign(energy_without=np.nan), n=20)
    assert all(np.isnan(one.value) for one in empty.values())


def test_nothing_to_ask_is_refused(tiny_run, tested):
    with pytest.raises(ValueError, match="cases: expected at least one"):
        artefact_effect(tiny_run, tested.iloc[:0], "ink")
    blind = SimpleNamespace(settings=tiny_run.settings.with_changes(modalities="metadata"), path="blind")
    for function in (effect_by_run, energy_by_run):
        with pytest.raises(ValueError, match="blind looks at metadata only"):
            function({"it": tiny_run, "blind": blind}, tested, "ink")


def test_several_runs_are_asked_about_the_same_pairs_each_painted_once(tiny_run, tested, monkeypatch):
    generator, painted = SyntheticDermoscopy(80, 0, stored_side(32)), []
    models = {"one": tiny_run.model(), "two": OnePixel(3, 3, 2.0)}
    alone = {name: artefact_effect(tiny_run, tested, "ink", generator, model) for name, model in models.items()}
    original = effects_module.artefact_pair
    monkeypatch.setattr(effects_module, "artefact_pair", lambda case, *rest: painted.append(1) or original(case, *rest))
    together = effect_by_run({"one": tiny_run, "two": tiny_run}, tested, "ink", generator, models)
    assert len(painted) == len(tested)
    for name, effect in together.items():
        pd.testing.assert_frame_equal(effect.table, alone[name].table)
    assert not together["one"].table.equals(together["two"].table)


def test_runs_that_are_shown_other_pictures_are_refused(tiny_run, tested):
    for changes in ({"image_size": 64}, {"backbone": "tf_efficientnet_lite0"}):
        other = SimpleNamespace(settings=tiny_run.settings.with_changes(**changes), path="other")
        with pytest.raises(ValueError, match="all to be shown pictures alike"):
            effect_by_run({"it": tiny_run, "other": other}, tested, "ink")
