from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from melanoma_lib.data import SyntheticDermoscopy, load_cases
from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.errors import CorruptImageError
from melanoma_lib.lessons import eda_pictures
from melanoma_lib.lessons.eda_pictures import LOOK
from tests.data.builders import case_table, pixels
from tests.lessons.test_eda import legible


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "synthetic"
    return load_cases("synthetic", SyntheticDermoscopy(60, image_size=32).write(root))


@pytest.fixture(scope="module")
def pictures(cases):
    return eda_pictures.look_at_pictures(cases)


@pytest.fixture(scope="module")
def unlabelled(pictures):
    kept = [column for column in pictures.table if not column.startswith("truth_")]
    return eda_pictures.Pictures(pictures.table[kept], pictures.colours)


def look(tmp_path, *arrays):
    """What is measured of these arrays, saved without loss."""
    paths = []
    for i, array in enumerate(arrays):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.asarray(array, np.uint8)).save(paths[-1])
    return eda_pictures.look_at_pictures(case_table([0] * len(arrays), image_path=paths))


def plain(colour, side=LOOK):
    return np.full((side, side, 3), colour, np.uint8)


def test_numbers_of_plain_pictures(tmp_path):
    table = look(tmp_path, plain((204, 102, 51)), plain((10, 20, 200)), plain((250, 240, 245)), plain((0, 0, 0))).table
    assert table.loc[0, ["red", "green", "blue"]].tolist() == pytest.approx([0.8, 0.4, 0.2])
    assert table["brightness"].tolist() == pytest.approx([119 / 255, 230 / 3 / 255, 245 / 255, 0])
    assert table["bluish"].tolist() == [0, 1, 0, 0]
    assert table["overexposed"].tolist() == [0, 0, 1, 0]
    assert table["dark corners"].tolist() == [0, 0, 0, 1]


def test_only_the_corners_count_as_corners(tmp_path):
    one, cross = plain(200), plain(0)
    one[: LOOK // 8, : LOOK // 8] = 0
    for rows in (slice(0, LOOK // 8), slice(-LOOK // 8, None)):
        for columns in (slice(0, LOOK // 8), slice(-LOOK // 8, None)):
            cross[rows, columns] = 200
    assert look(tmp_path, one, cross).table["dark corners"].tolist() == [0.25, 0]


def test_size_is_that_of_the_file(tmp_path):
    table = look(tmp_path, pixels(90, 120), pixels(40, 30)).table
    assert table[["width", "height"]].to_numpy().tolist() == [[120, 90], [30, 40]]


def test_colours_are_a_histogram_that_ignores_how_the_camera_was_held(tmp_path):
    array = pixels(LOOK, LOOK, seed=3)
    colours = look(tmp_path, array, np.rot90(array), array[:, ::-1], 255 - array).colours
    np.testing.assert_allclose(np.linalg.norm(colours, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(colours[1:3], colours[[0, 0]])
    assert np.abs(colours[3] - colours[0]).max() > 0.01
    counts, _ = np.histogramdd(array.reshape(-1, 3), bins=[np.arange(7) * 256 / 6] * 3)
    np.testing.assert_allclose(colours[0] ** 2, counts.ravel() / LOOK**2, atol=1e-6)


def test_an_unreadable_picture_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(CorruptImageError, match=r"broken\.jpg"):
        eda_pictures.look_at_pictures(case_table([0], image_path=[str(tmp_path / "broken.jpg")]))


@given(seed=st.integers(0, 999), n=st.integers(2, 120))
def test_a_sample_takes_whole_groups_half_of_them_with_melanoma(seed, n):
    rng = np.random.default_rng(seed)
    lesions = rng.integers(0, 40, 100).astype(str)
    table = case_table((rng.random(100) < 0.2).astype(int), lesions=lesions)
    sample = eda_pictures._sample_groups(table, n, seed)
    whole = table["group_id"].isin(sample["group_id"])
    assert sample.index.tolist() == table.index[whole].tolist()
    largest = table["group_id"].value_counts().max()
    assert len(sample) < n + largest
    with_melanoma = table.groupby("group_id")["target"].transform("max") == 1
    assert with_melanoma[sample.index].sum() >= min(n // 2, with_melanoma.sum())
    pd.testing.assert_frame_equal(sample, eda_pictures._sample_groups(table, n, seed))


def test_everything_is_opened_where_there_is_room(cases, pictures):
    assert sorted(pictures.table["image_id"]) == sorted(cases["image_id"])


def test_absent_files_are_passed_over(cases):
    half = cases.assign(image_path=[path if i % 2 else path + ".gone" for i, path in enumerate(cases["image_path"])])
    assert eda_pictures.with_picture(half)["image_id"].tolist() == cases["image_id"].iloc[1::2].tolist()
    assert len(eda_pictures.look_at_pictures(half).table) == len(cases) // 2


def test_the_quiz_shows_each_group_once_and_hides_what_the_answers_tell(cases):
    quiz, answers = (eda_pictures.contact_sheet(cases, answers=told) for told in (False, True))
    titles = [[axes.get_title(loc="left") for axes in figure.axes] for figure in (quiz, answers)]
    assert titles[0] == [str(i) for i in range(1, 13)]
    assert sum("melanoma" in title for title in titles[1]) == 6
    assert "melanoma" not in " ".join(titles[0])
    for one, other in zip(quiz.axes, answers.axes, strict=True):
        np.testing.assert_array_equal(one.images[0].get_array(), other.images[0].get_array())


def test_the_quiz_finds_its_melanomas_among_patients_who_have_mostly_other_lesions():
    rng = np.random.default_rng(0)
    table = case_table((rng.random(400) < 0.1).astype(int), patients=rng.integers(0, 20, 400).astype(str), image_path=__file__)
    chosen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eda_pictures, "_sheet", lambda rows, *_: chosen.append(rows) or eda_pictures.nothing_to_show("1"))
        eda_pictures.contact_sheet(table)
    assert chosen[0]["target"].sum() == 6
    assert chosen[0]["group_id"].nunique() == len(chosen[0]) == 12


def test_siblings_stand_in_one_row(cases):
    figure = eda_pictures.siblings_figure(cases)
    rows = figure.alt_text.partition(". ")[2].split("; ")
    assert len(rows) == 3
    for row in rows:
        diagnoses = row.removesuffix(".").partition(": ")[2].split(", ")
        assert len(diagnoses) > 1
        assert len(set(diagnoses)) == 1  # one lesion, one diagnosis
    patients = cases.assign(lesion_id=np.nan)
    assert "one patient" in eda_pictures.siblings_figure(patients).alt_text
    assert "No two pictures" in eda_pictures.siblings_figure(patients.assign(patient_id=np.nan)).alt_text


def test_known_artefacts_are_taken_from_the_table_and_outlined_where_they_are(pictures):
    flags, known = eda_pictures.artefact_flags(pictures.table)
    assert known
    assert set(flags) == set(ARTEFACTS)
    figure = eda_pictures.artefact_figure(pictures)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(ARTEFACTS) * 2
    for axes in figure.axes:
        (outline,) = axes.collections
        assert outline.get_paths()[0].vertices.size > 0
        low, high = np.min(outline.get_paths()[0].vertices), np.max(outline.get_paths()[0].vertices)
        assert -1 <= low < high <= eda_pictures.SHOW


def test_without_labels_stand_ins_are_measured_and_called_so(unlabelled):
    flags, known = eda_pictures.artefact_flags(unlabelled.table)
    assert not known
    for name, limit in eda_pictures.STANDS_OUT.items():
        assert flags[name].tolist() == (unlabelled.table[name] > limit).tolist()
    assert "labels none" in eda_pictures.artefact_figure(unlabelled).alt_text
    assert "not labelled" in eda_pictures.artefact_shares_figure(unlabelled).alt_text


def test_dark_corners_find_the_rims_that_were_painted(pictures):
    rims = pictures.table["truth_artefact_vignette"].astype(bool)
    assert pictures.table.loc[rims, "dark corners"].median() > 0.5
    assert pictures.table.loc[~rims, "dark corners"].median() < 0.05


def test_extremes_are_sorted_and_one_a_group(pictures):
    text = eda_pictures.extremes_figure(pictures).alt_text
    for name in eda_pictures.STANDS_OUT:
        shares = [int(part.strip(" %;.")) for part in text.partition(name)[2].split(";")[0].split(",")]
        best = pictures.table.groupby("group_id")[name].max().nlargest(6)
        assert shares == [round(100 * share) for share in best]


FIGURES = {
    "quiz": lambda cases, *_: eda_pictures.contact_sheet(cases),
    "answers": lambda cases, *_: eda_pictures.contact_sheet(cases, answers=True),
    "siblings": lambda cases, *_: eda_pictures.siblings_figure(cases),
    "colours": lambda _, known, __: eda_pictures.colour_figure(known),
    "extremes": lambda _, known, __: eda_pictures.extremes_figure(known),
    "artefacts": lambda _, known, __: eda_pictures.artefact_figure(known),
    "artefacts unlabelled": lambda _, __, unlabelled: eda_pictures.artefact_figure(unlabelled),
    "artefact shares": lambda _, known, __: eda_pictures.artefact_shares_figure(known),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_described_and_legible_when_projected(name, cases, pictures, unlabelled):
    legible(FIGURES[name](cases, pictures, unlabelled))


def test_a_table_without_pictures_says_so(cases):
    gone = cases.assign(image_path="nowhere/" + cases["image_path"].map(lambda path: Path(path).name))
    nothing = eda_pictures.look_at_pictures(gone)
    assert nothing.colours.shape == (0, 216)
    assert set(eda_pictures.MEASURED) <= set(nothing.table)
    for figure in (
        eda_pictures.contact_sheet(gone, answers=True),
        eda_pictures.colour_figure(nothing),
        eda_pictures.extremes_figure(nothing),
        eda_pictures.artefact_figure(nothing),
        eda_pictures.artefact_shares_figure(nothing),
    ):
        assert figure.alt_text == eda_pictures.NO_PICTURE
    assert "No two pictures" in eda_pictures.siblings_figure(gone).alt_text
