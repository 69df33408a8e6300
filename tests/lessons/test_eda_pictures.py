from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_lib.data import SyntheticDermoscopy, load_cases
from melanoma_lib.data.artefacts import ARTEFACTS
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


def test_colours_are_a_histogram_that_ignores_how_the_camera_was_held(tmp_path):
    array = pixels(LOOK, LOOK, seed=3)
    colours = look(tmp_path, array, np.rot90(array), array[:, ::-1], 255 - array).colours
    np.testing.assert_allclose(np.linalg.norm(colours, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(colours[1:3], colours[[0, 0]])
    assert np.abs(colours[3] - colours[0]).max() > 0.01
    counts, _ = np.histogramdd(array.reshape(-1, 3), bins=[np.arange(7) * 256 / 6] * 3)
    np.testing.assert_allclose(colours[0] ** 2, counts.ravel() / LOOK**2, atol=1e-6)


def test_known_artefacts_are_taken_from_the_table_and_outlined_where_they_are(pictures):
    flags, known = eda_pictures.artefact_flags(pictures.table)
    assert known
    assert set(flags) == set(ARTEFACTS)
    figure = eda_pictures.artefact_figure(pictures)
    assert [axes.get_xlabel() for axes in figure.axes] == list(ARTEFACTS) * 2
    for axes in figure.axes:
        (outline,) = axes.collections
        assert outline.get_paths()[0].vertices.size > 0
        low, high = np.min(outline.get_paths()[0].vertices), np.max(outline.get_paths()[0].vertices)
        assert -1 <= low < high <= eda_pictures.SHOW


FIGURES = {
    "quiz": lambda cases, *_: eda_pictures.contact_sheet(cases),
    "answers": lambda cases, *_: eda_pictures.contact_sheet(cases, answers=True),
    "siblings": lambda cases, *_: eda_pictures.siblings_figure(cases),
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
        eda_pictures.extremes_figure(nothing),
        eda_pictures.artefact_figure(nothing),
        eda_pictures.artefact_shares_figure(nothing),
    ):
        assert figure.alt_text == eda_pictures.NO_PICTURE
    assert "No two pictures" in eda_pictures.siblings_figure(gone).alt_text
