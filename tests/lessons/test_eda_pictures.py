import numpy as np
import pytest
from PIL import Image

from melanoma_lib.lessons import eda_pictures
from melanoma_lib.lessons.eda_pictures import LOOK
from tests.data.builders import case_table


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
