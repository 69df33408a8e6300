import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from melanoma_lib.explain import score_heatmap
from melanoma_lib.explain.exam import energy_in_mask, pointing_game

LESION = np.array([[True, True, False], [True, False, False]])


@pytest.mark.parametrize(
    ("heatmap", "energy", "hit"),
    [
        ([[4, 2, 1], [0, 1, 0]], 6 / 8, 1),
        ([[1, 2, 3], [0, 0, 0]], 3 / 6, 0),
        ([[-9, -9, 1], [-9, 1, 0]], 0, 0),  # what speaks against counts nowhere
        ([[2, 1, 2], [2, 0, 2]], 5 / 9, 2 / 4),  # four peaks of equal height, two of them on the lesion
        ([[5, 5, 5], [5, 5, 5]], 3 / 6, 3 / 6),  # a uniform map scores what the mask covers
        ([[0, -1, -2], [0, 0, -3]], np.nan, np.nan),
    ],
)
def test_scores_by_hand(heatmap, energy, hit):
    found = score_heatmap(np.array(heatmap, np.float32), LESION)
    assert found == pytest.approx({"energy_in_mask": energy, "pointing_game": hit}, nan_ok=True)


@given(st.data())
def test_scores_are_those_of_a_count_pixel_by_pixel(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    heatmap = data.draw(arrays(np.float32, shape, elements=st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0])))
    mask = data.draw(arrays(bool, shape).filter(np.any))
    inside = outside = 0.0
    for row, column in np.ndindex(shape):
        value = max(float(heatmap[row, column]), 0.0)
        inside, outside = (inside + value, outside) if mask[row, column] else (inside, outside + value)
    energy = energy_in_mask(heatmap, mask)
    assert np.isnan(energy) if inside + outside == 0 else energy == pytest.approx(inside / (inside + outside))
    assert energy_in_mask(heatmap * 1e-20, mask) == pytest.approx(energy, nan_ok=True)  # the unit does not matter
    peaks = [mask[place] for place in np.ndindex(shape) if heatmap[place] == heatmap.max()]
    hit = pointing_game(heatmap, mask)
    assert np.isnan(hit) if heatmap.max() <= 0 else hit == pytest.approx(sum(peaks) / len(peaks))


@pytest.mark.parametrize(
    ("heatmap", "mask", "message"),
    [
        (np.ones((3, 2)), LESION, r"got \(3, 2\) and \(2, 3\); ask heatmaps for size=mask.shape"),
        (np.ones((1, 2, 3)), LESION[None], "same shape"),
        (np.ones((2, 3)), np.zeros((2, 3), bool), "some of them True, got bool with 0"),
        (np.ones((2, 3)), LESION * np.uint8(255), "expected booleans"),
        (np.full((2, 3), np.nan), LESION, "finite values, got 6"),
    ],
)
def test_misfits_are_errors(heatmap, mask, message):
    with pytest.raises(ValueError, match=message):
        score_heatmap(heatmap, mask)
