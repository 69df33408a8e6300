import errno

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS, VISIBLE
from melanoma_lib.data.images import is_painted
from melanoma_lib.data.population import draw_lesions
from melanoma_lib.data.synthetic import SyntheticDermoscopy, painted_jpeg
from melanoma_lib.errors import DataError

SIZE = 64
RISKS = ("true_risk", "truth_risk_image", "truth_risk_metadata")


@pytest.fixture(scope="module")
def data():
    return SyntheticDermoscopy(n_patients=40, seed=3, image_size=SIZE)


@pytest.mark.parametrize("risk", RISKS)
def test_risks_are_calibrated_posteriors(risk):
    population = draw_lesions(60_000, seed=11, prevalence=0.2)
    groups = population.groupby(pd.qcut(population[risk], 25, duplicates="drop"), observed=True)
    table = groups.agg(observed=("target", "mean"), expected=(risk, "mean"), n=("target", "size"))
    z = (table["observed"] - table["expected"]) / np.sqrt(table["expected"] * (1 - table["expected"]) / table["n"])
    assert len(table) >= 20
    assert (z**2).mean() < 2  # 1 expected; 2 is beyond the 99.9th percentile of chi-square / 25
    assert np.abs(z).max() < 4.5


def test_a_case_depends_on_seed_and_index_alone(data):
    other = SyntheticDermoscopy(n_patients=90, seed=3, image_size=SIZE)
    pd.testing.assert_frame_equal(other.cases.head(len(data)), data.cases)
    forwards = [data.render(i).image for i in range(6)]
    backwards = [other.render(i).image for i in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert not np.array_equal(SyntheticDermoscopy(n_patients=40, seed=4, image_size=SIZE).render(0).image, forwards[0])


@pytest.mark.parametrize("name", ARTEFACTS)
def test_artefact_masks_sit_where_pixels_changed(data, name):
    seen = 0
    for index in range(8):
        listed = {name for name in ARTEFACTS if data.cases[f"truth_artefact_{name}"].iloc[index]}
        assert set(data.render(index).artefacts) == listed
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


@pytest.mark.parametrize("tie", [0.9, 0.4, -0.7, 1.0, -1.0, 0.0])
def test_shortcut_moves_the_classes_apart_by_its_value_and_changes_nothing_else(tie):
    plain = SyntheticDermoscopy(2500, seed=1).cases
    tied = SyntheticDermoscopy(2500, seed=1, shortcut={"ruler": tie}).cases
    share = tied.groupby("target")["truth_artefact_ruler"].mean()
    assert share[1] - share[0] == pytest.approx(tie, abs=0.04)
    pd.testing.assert_frame_equal(plain.drop(columns="truth_artefact_ruler"), tied.drop(columns="truth_artefact_ruler"))


@pytest.mark.parametrize(
    ("knobs", "error", "message"),
    [
        ({"n_patients": 0}, ValueError, "n_patients of at least 1.* got 0, 0"),
        ({"seed": -1}, ValueError, "seed of at least 0.* got 600, -1"),
        ({"prevalence": float("nan")}, ValueError, "prevalence between 0 and 1.* and nan"),
        ({"shortcut": {"rular": 0.5}}, ValueError, "'ruler'.* got {'rular': 0.5}"),
        ({"shortcut": {"ruler": 1.2}}, ValueError, "tie from -1 to 1 .* got {'ruler': 1.2}"),
        ({"image_size": "128"}, TypeError, "integer"),
    ],
)
def test_bad_knobs_are_refused(knobs, error, message):
    with pytest.raises(error, match=message):
        SyntheticDermoscopy(**knobs)


def test_written_files_hold_the_cases_and_are_left_alone(tmp_path):
    data = SyntheticDermoscopy(n_patients=8, seed=9, image_size=SIZE, shortcut={"hair": 0.8})
    root = data.write(tmp_path / "deep" / "cases")
    for index, row in enumerate(pd.read_csv(root / "cases.csv").itertuples()):
        case = data.render(index)
        image = np.asarray(Image.open(root / row.image_path))
        assert np.abs(image.astype(int) - case.image).mean() < 4  # JPEG
        assert np.array_equal(np.asarray(Image.open(root / row.mask_path)) == 255, case.mask)
    again = SyntheticDermoscopy.of_folder(root)
    assert again.fingerprint == data.fingerprint
    pd.testing.assert_frame_equal(again.cases, data.cases)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert data.write(root) == root
    with pytest.raises(DataError, match="already exists and holds something else"):
        SyntheticDermoscopy(n_patients=8, seed=10, image_size=SIZE).write(root)
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_a_part_of_the_cases_lies_beside_until_all_are_there(tmp_path):
    data = SyntheticDermoscopy(n_patients=12, seed=9, image_size=32)
    wanted = data.cases["image_id"].iloc[[9, 2]].tolist()
    part = data.write(tmp_path / "cases", only=wanted)
    assert part.parent == tmp_path and part != tmp_path / "cases"
    assert pd.read_csv(part / "cases.csv")["image_id"].tolist() == wanted[::-1]
    assert data.write(tmp_path / "cases", only=set(wanted)) == part
    assert data.write(tmp_path / "cases", only=wanted[:1]) != part
    whole = data.write(tmp_path / "cases")
    for file in part.rglob("*/*.*"):
        assert (whole / file.relative_to(part)).read_bytes() == file.read_bytes()
    assert data.write(tmp_path / "cases", only=wanted) == whole


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_broken_write_leaves_nothing(tmp_path, monkeypatch, failure):
    data = SyntheticDermoscopy(n_patients=5, image_size=32)
    render = data.render

    def fail(index):
        if index == 3:
            raise failure
        return render(index)

    monkeypatch.setattr(data, "render", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else DataError):
        data.write(tmp_path / "cases")
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_an_error_and_stays(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    data = SyntheticDermoscopy(n_patients=1, image_size=32)
    for where, message in {"thesis.txt/cases": "cannot write synthetic cases", "thesis.txt": "exists", ".": "exists"}.items():
        with pytest.raises(DataError, match=message):
            data.write(tmp_path / where)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["years of work"]
    assert SyntheticDermoscopy.of_folder(tmp_path) is None
    for text in ("no json", "[]", "{}", '{"n_patients": -1, "seed": 0, "image_size": 64, "shortcut": {}, "prevalence": 0.2}'):
        (tmp_path / "generator.json").write_text(text)
        with pytest.raises(DataError, match=r"generator.json: expected the knobs"):
            SyntheticDermoscopy.of_folder(tmp_path)


def test_a_picture_is_known_as_painted_without_a_change_of_its_pixels(data, tmp_path):
    image = data.render(0).image
    plain, marked = tmp_path / "plain.jpg", tmp_path / "marked.jpg"
    Image.fromarray(image).save(plain, quality=94, subsampling=0)
    marked.write_bytes(painted_jpeg(image))
    np.testing.assert_array_equal(np.asarray(Image.open(marked)), np.asarray(Image.open(plain)))
    assert is_painted(marked) and is_painted(marked.read_bytes())
    assert not any(map(is_painted, (plain, b"", Image.open(marked))))
    Image.open(marked).save(plain, quality=94, comment=Image.open(marked).info["comment"])  # what an editor may leave
    assert not is_painted(plain)
