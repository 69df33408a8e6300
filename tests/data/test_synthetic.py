import dataclasses
import errno
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from scipy.special import expit, logit

from melanoma_lib.data.artefacts import ARTEFACTS, VISIBLE
from melanoma_lib.data.optics import CAMERAS
from melanoma_lib.data.painting import Lesion, Skin, paint_case
from melanoma_lib.data.population import draw_lesions
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.data.textures import texture_bank
from melanoma_lib.errors import DataError

SIZE = 64
RISKS = ("true_risk", "truth_risk_image", "truth_risk_metadata")


@pytest.fixture(scope="module")
def data():
    return SyntheticDermoscopy(n_patients=40, seed=3, image_size=SIZE)


@pytest.fixture(scope="module")
def population():
    return draw_lesions(60_000, seed=11, prevalence=0.2)


# the population ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prevalence", [0.02, 0.2, 0.6])
def test_prevalence_is_what_was_asked_for(prevalence):
    target = draw_lesions(40_000, seed=5, prevalence=prevalence)["target"]
    standard_error = np.sqrt(prevalence * (1 - prevalence) / len(target))
    assert abs(target.mean() - prevalence) < 4 * standard_error


@pytest.mark.parametrize("risk", RISKS)
def test_risks_are_calibrated_posteriors(population, risk):
    bins = pd.qcut(population[risk], 25, duplicates="drop")
    groups = population.groupby(bins, observed=True)
    table = groups.agg(observed=("target", "mean"), expected=(risk, "mean"), n=("target", "size"))
    z = (table["observed"] - table["expected"]) / np.sqrt(table["expected"] * (1 - table["expected"]) / table["n"])
    assert len(table) >= 20
    assert (z**2).mean() < 2  # 1 expected; 2 is beyond the 99.9th percentile of chi-square / 25
    assert np.abs(z).max() < 4.5


def test_risk_given_one_part_matches_brute_force_over_the_other(population):
    sample = population.head(3000)
    # effects are additive in log-odds: all pairs of an image with the metadata of everybody else
    for known, other in (("truth_risk_image", "truth_risk_metadata"), ("truth_risk_metadata", "truth_risk_image")):
        same = sample[known].rank(method="first").iloc[:: len(sample) // 20].index
        # logit(true) = known effect + other effect; the other's effect is recovered through a pair that shares it
        reference = sample.index[0]
        own = logit(sample["true_risk"]) - _effect_of(sample, known, reference)
        for row in same:
            brute = expit(own + _effect_of(sample.loc[[row]], known, reference).iloc[0]).mean()
            assert sample.loc[row, known] == pytest.approx(brute, abs=0.02), (known, other)


def _effect_of(table, risk, reference):
    """The image or metadata part of the log-odds, summed from the factors independently of the code under test's total."""
    from melanoma_lib.data.population import IMAGE_FACTORS, METADATA_FACTORS

    if risk == "truth_risk_image":
        parts = [factor.effect(table[f"truth_{name}"].to_numpy()) for name, factor in IMAGE_FACTORS.items()]
    else:
        parts = [
            factor.effect(table[name].astype(object).where(table[name].notna(), None).to_numpy())
            for name, factor in METADATA_FACTORS.items()
        ]
    return pd.Series(np.sum(parts, axis=0), index=table.index)


def test_bayes_auroc_lies_where_the_lessons_expect_it():
    ceiling = SyntheticDermoscopy(10).bayes_auroc(n_patients=20_000)
    assert 0.67 < ceiling["metadata"] < 0.72
    assert 0.88 < ceiling["image"] < 0.93
    assert 0.93 < ceiling["both"] < 0.96


def test_metadata_and_image_factors_are_independent(population):
    for factor in ("truth_asymmetry", "truth_border", "truth_veil", "truth_colours", "truth_skin_tone"):
        assert abs(population[factor].corr(population["age_approx"])) < 0.02


def test_case_table_has_the_promised_structure(data):
    cases = data.cases
    assert len(cases) == len(data)
    assert cases.groupby("lesion_id")["patient_id"].nunique().eq(1).all()
    assert cases.groupby("patient_id")["group_id"].nunique().eq(1).all()
    assert cases["group_id"].nunique() == data.n_patients
    assert cases.groupby("patient_id")["lesion_id"].nunique().between(1, 4).all()
    assert cases.groupby("lesion_id").size().between(1, 3).all()
    assert set(cases["acquisition"]) == set(CAMERAS)
    assert (cases["diagnosis"].eq("melanoma") == cases["target"].eq(1)).all()


def test_metadata_is_missing_now_and_then(population):
    for column in ("age_approx", "sex", "anatom_site_general_challenge"):
        assert 0.01 < population[column].isna().mean() < 0.08


def test_photographs_of_a_lesion_share_its_factors_but_differ(data):
    shared = ["target", *RISKS, *(c for c in data.cases if c.startswith("truth_") and not c.startswith("truth_artefact_"))]
    by_lesion = data.cases.groupby("lesion_id")
    assert by_lesion[shared].nunique(dropna=False).eq(1).all(axis=None)
    first, second = by_lesion.indices[by_lesion.size().idxmax()][:2]
    assert not np.array_equal(data.render(first, ()).mask, data.render(second, ()).mask)


# determinism ---------------------------------------------------------------------------------------------------------


def test_a_case_depends_on_seed_and_index_alone(data):
    other = SyntheticDermoscopy(n_patients=90, seed=3, image_size=SIZE)
    pd.testing.assert_frame_equal(other.cases.head(len(data)), data.cases)
    forwards = [data.render(i).image for i in range(6)]
    backwards = [other.render(i).image for i in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_seeds_differ(data):
    other = SyntheticDermoscopy(n_patients=40, seed=4, image_size=SIZE)
    assert not np.array_equal(other.render(0).image, data.render(0).image)
    assert not set(other.cases["image_id"]) & set(data.cases["image_id"])
    assert other.fingerprint != data.fingerprint


def test_other_processes_write_the_same_bytes(tmp_path):
    data = SyntheticDermoscopy(n_patients=6, seed=8, image_size=32)
    here, there = data.write(tmp_path / "here"), data.write(tmp_path / "there", workers=2)
    files = sorted(p.relative_to(here) for p in here.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(there) for p in there.rglob("*") if p.is_file())
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in files)


@pytest.mark.parametrize("tie", [{"ink": 0.9}, {"hair": -1.0, "ruler": 0.5}, {}])
def test_what_a_twin_shares_is_copied_byte_for_byte(tmp_path, monkeypatch, tie):
    twin = SyntheticDermoscopy(n_patients=20, seed=8, image_size=32).write(tmp_path / "twin")
    data = SyntheticDermoscopy(n_patients=20, seed=8, image_size=32, shortcut=tie)
    alone = data.write(tmp_path / "alone")
    painted, render = [], data.render
    monkeypatch.setattr(data, "render", lambda index: painted.append(index) or render(index))
    beside = data.write(tmp_path / "beside", twin=twin)
    files = sorted(p.relative_to(alone) for p in alone.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(beside) for p in beside.rglob("*") if p.is_file())
    assert all((alone / name).read_bytes() == (beside / name).read_bytes() for name in files)
    assert len(painted) < len(data) and bool(painted) == bool(tie)


def test_a_twin_that_differs_in_more_is_refused(tmp_path):
    data = SyntheticDermoscopy(n_patients=2, seed=8, image_size=32)
    other = SyntheticDermoscopy(n_patients=2, seed=9, image_size=32).write(tmp_path / "other")
    with pytest.raises(ValueError, match=r"differs in \['seed'\]"):
        data.write(tmp_path / "cases", twin=other)
    with pytest.raises(DataError, match="expected a folder of synthetic cases"):
        data.write(tmp_path / "cases", twin=tmp_path)
    for gone in ("masks", "cases.csv"):
        shutil.move(other / gone, tmp_path / "gone")
        with pytest.raises(DataError, match="No such file"):
            SyntheticDermoscopy(n_patients=2, seed=9, image_size=32).write(tmp_path / "cases", twin=other)
        shutil.move(tmp_path / "gone", other / gone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


# pictures ------------------------------------------------------------------------------------------------------------


def test_rendered_cases_are_sane(data):
    contrast = []
    for index in range(40):
        case = data.render(index, ())
        assert case.image.shape == (SIZE, SIZE, 3)
        assert case.image.dtype == np.uint8
        assert case.mask.shape == (SIZE, SIZE)
        assert 0.01 < case.mask.mean() < 0.9
        grey = case.image.mean(axis=-1)
        contrast.append(grey[~case.mask].mean() - grey[case.mask].mean())
        row, column = ndimage.center_of_mass(case.mask)
        assert max(abs(row / SIZE - 0.5), abs(column / SIZE - 0.5)) < 0.3
    assert np.mean(np.array(contrast) > 3) > 0.95  # lesions are darker than the skin around them


@pytest.mark.parametrize("size", [32, 100, 224])
def test_any_size_shows_the_same_scene(size):
    small, large = (SyntheticDermoscopy(n_patients=5, seed=2, image_size=s).render(1, ()) for s in (size, 128))
    resized = np.asarray(Image.fromarray(large.image).resize((size, size), Image.Resampling.BOX), float)
    assert small.image.shape == (size, size, 3)
    assert np.abs(ndimage.gaussian_filter(small.image - resized, (size / 32, size / 32, 0))).mean() < 8


@pytest.mark.parametrize("name", ARTEFACTS)
def test_artefact_masks_sit_where_pixels_changed(data, name):
    seen = 0
    for index in range(8):
        clean, dirty = data.render(index, ()), data.render(index, (name,))
        assert list(dirty.artefacts) == [name]
        assert np.array_equal(clean.mask, dirty.mask)
        where = dirty.artefacts[name]
        change = np.abs(clean.image.astype(int) - dirty.image).max(axis=-1)
        assert change[~where].max(initial=0) <= VISIBLE + 1  # one more for rounding
        if where.any():
            seen += 1
            assert np.median(change[where]) > VISIBLE
    assert seen >= 6


def test_default_artefacts_are_those_of_the_table(data):
    for index in range(20):
        listed = {name for name in ARTEFACTS if data.cases[f"truth_artefact_{name}"].iloc[index]}
        assert set(data.render(index).artefacts) == listed


def test_one_artefact_does_not_move_another(data):
    alone, together = data.render(0, ("ruler",)), data.render(0, ("ink", "ruler"))
    assert (alone.artefacts["ruler"] == together.artefacts["ruler"]).mean() > 0.99


def _paint(lesion, seed):
    skin = Skin(tone=0.08, blood=0.2, freckles=0.0)
    rngs = np.random.default_rng(seed), np.random.default_rng(seed + 1000)
    return paint_case(lesion, skin, CAMERAS["wide_field"], texture_bank(), *rngs, 128)


PLAIN = Lesion("melanocytic", 0.0, 0.0, 1, 0.0, 0.0, 0.0, 0.0, 0.0)


def _raggedness(image, mask):
    edge = mask & ~ndimage.binary_erosion(mask)
    return edge.sum() / np.sqrt(mask.sum())


def _lopsidedness(image, mask):
    """Share of the lesion that has no counterpart when it is turned by half around its centre."""
    row, column = ndimage.center_of_mass(mask)
    turned = ndimage.shift(mask[::-1, ::-1].astype(float), (2 * row - 127, 2 * column - 127), order=0) > 0.5
    return (mask ^ turned).sum() / mask.sum()


def _blueness(image, mask):
    return (image[2] - image[0])[mask].max()


def _darkness(image, mask):
    return -np.percentile(image.mean(axis=0)[mask], 5)


def _unevenness(image, mask):
    return (image.mean(axis=0) - ndimage.gaussian_filter(image.mean(axis=0), 4))[ndimage.binary_erosion(mask, iterations=3)].std()


def _lightness(image, mask):
    return np.percentile(image[1][mask], 95) - image[1][~mask].mean()


@pytest.mark.parametrize(
    ("factor", "value", "measure"),
    [
        ("asymmetry", 1.0, _lopsidedness),
        ("border", 1.0, _raggedness),
        ("colours", 4, _darkness),
        ("veil", 1.0, _blueness),
        ("regression", 1.0, _lightness),
        ("streaks", 1.0, _unevenness),
        ("network", 1.0, _unevenness),
        ("globules", 1.0, _unevenness),
    ],
)
def test_every_factor_is_visible(factor, value, measure):
    changed = dataclasses.replace(PLAIN, **{factor: value})
    without, with_it = ([measure(*_paint(lesion, seed)) for seed in range(12)] for lesion in (PLAIN, changed))
    assert np.mean(np.array(with_it) > np.array(without)) >= 0.75


# shortcuts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", [0.9, 0.4, -0.7, 1.0, -1.0])
def test_shortcut_moves_the_classes_apart_by_its_value(tie):
    plain = SyntheticDermoscopy(2500, seed=1).cases
    tied = SyntheticDermoscopy(2500, seed=1, shortcut={"ruler": tie}).cases
    share = tied.groupby("target")["truth_artefact_ruler"].mean()
    assert share[1] - share[0] == pytest.approx(tie, abs=0.04)
    pd.testing.assert_frame_equal(plain.drop(columns="truth_artefact_ruler"), tied.drop(columns="truth_artefact_ruler"))


def test_artefacts_do_not_know_the_label_without_a_shortcut():
    cases = SyntheticDermoscopy(4000, seed=1).cases
    for name in ARTEFACTS:
        share = cases.groupby("target")[f"truth_artefact_{name}"].mean()
        assert abs(share[1] - share[0]) < 0.03


def test_shortcut_leaves_the_lesion_alone():
    plain, tied = (SyntheticDermoscopy(20, seed=1, image_size=SIZE, shortcut=s) for s in (None, {"patch": 1.0}))
    row = int(np.flatnonzero(tied.cases["truth_artefact_patch"] & ~plain.cases["truth_artefact_patch"])[0])
    before, after = plain.render(row), tied.render(row)
    assert np.array_equal(before.mask, after.mask)
    untouched = ~after.artefacts["patch"]
    assert np.abs(before.image.astype(int) - after.image)[untouched].max() <= VISIBLE + 1


# knobs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"n_patients": 0}, "n_patients must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"image_size": 16}, "image_size must be at least 32"),
        ({"prevalence": 0.0}, "prevalence must lie between 0 and 1"),
        ({"prevalence": 1.5}, "prevalence must lie between 0 and 1"),
        ({"prevalence": float("nan")}, "prevalence must lie between 0 and 1"),
        ({"shortcut": {"rular": 0.5}}, "unknown artefact 'rular'.*ruler"),
        ({"shortcut": {"ruler": 1.2}}, "'ruler' must lie between -1 and 1, got 1.2"),
        ({"shortcut": {"ruler": float("nan")}}, "must lie between -1 and 1"),
    ],
)
def test_bad_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        SyntheticDermoscopy(**knobs)


@pytest.mark.parametrize("knobs", [{"n_patients": 2.5}, {"seed": True}, {"image_size": "128"}])
def test_knobs_of_the_wrong_type_are_refused(knobs):
    with pytest.raises(TypeError, match="must be a whole number"):
        SyntheticDermoscopy(**knobs)


def test_unknown_rows_and_artefacts_are_refused(data):
    for index in (-1, len(data)):
        with pytest.raises(IndexError, match="does not exist"):
            data.render(index)
    with pytest.raises(ValueError, match="unknown artefact"):
        data.render(0, ("confetti",))


# files ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    data = SyntheticDermoscopy(n_patients=8, seed=9, image_size=SIZE, shortcut={"hair": 0.8})
    return data, data.write(tmp_path_factory.mktemp("synthetic") / "deep" / "cases")


def test_written_files_hold_the_cases(written):
    data, root = written
    table = pd.read_csv(root / "cases.csv")
    assert list(table.columns) == list(data.cases.columns)
    assert np.allclose(table["true_risk"], data.cases["true_risk"])
    for index, row in enumerate(table.itertuples()):
        case = data.render(index)
        image = np.asarray(Image.open(root / row.image_path))
        assert np.abs(image.astype(int) - case.image).mean() < 4  # JPEG
        assert np.array_equal(np.asarray(Image.open(root / row.mask_path)) == 255, case.mask)
        bits = np.asarray(Image.open(root / "artefacts" / f"{row.image_id}.png"))
        for k, name in enumerate(ARTEFACTS):
            assert np.array_equal(bits >> k & 1 == 1, case.artefacts.get(name, np.zeros_like(case.mask)))
    assert json.loads((root / "generator.json").read_text())["shortcut"] == {"hair": 0.8}


def test_writing_again_changes_nothing_and_other_data_are_refused(written):
    data, root = written
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert data.write(root) == root
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    with pytest.raises(DataError, match="already exists and holds something else"):
        SyntheticDermoscopy(n_patients=8, seed=10, image_size=SIZE).write(root)
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*")}


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="already exists"):
        SyntheticDermoscopy(n_patients=1, image_size=32).write(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_broken_write_leaves_nothing(tmp_path, monkeypatch, failure):
    data = SyntheticDermoscopy(n_patients=5, image_size=32)
    render = data.render

    def fail(index):
        if index == 3:
            raise failure
        return render(index)

    monkeypatch.setattr(data, "render", fail)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else DataError
    with pytest.raises(expected):
        data.write(tmp_path / "cases")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write synthetic cases"):
        SyntheticDermoscopy(n_patients=1, image_size=32).write(tmp_path / "file" / "cases")
    with pytest.raises(DataError, match="already exists"):
        SyntheticDermoscopy(n_patients=1, image_size=32).write(tmp_path / "file")
    with pytest.raises(ValueError, match="workers must be at least 1"):
        SyntheticDermoscopy(n_patients=1, image_size=32).write(tmp_path / "cases", workers=0)


def test_a_written_folder_gives_back_its_generator(tmp_path):
    data = SyntheticDermoscopy(20, 1, 39, {"ruler": -0.5}, 0.3)
    again = SyntheticDermoscopy.of_folder(data.write(tmp_path / "tied"))
    assert again.knobs == data.knobs
    pd.testing.assert_frame_equal(again.cases, data.cases)
    assert SyntheticDermoscopy.of_folder(tmp_path) is None
    assert SyntheticDermoscopy.of_folder(tmp_path / "nowhere") is None


KNOBS = {"n_patients": 20, "seed": 0, "image_size": 64, "shortcut": {}, "prevalence": 0.2}


@pytest.mark.parametrize(
    "text", ["no json", "[]", "{}", *(json.dumps(KNOBS | wrong) for wrong in ({"n_patients": -1}, {"shortcut": ["ink"]}))]
)
def test_a_broken_description_is_named(tmp_path, text):
    (tmp_path / "generator.json").write_text(text)
    with pytest.raises(DataError, match=r"generator.json: expected the knobs"):
        SyntheticDermoscopy.of_folder(tmp_path)
