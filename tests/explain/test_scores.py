"""Scores against counts by hand, pixel by pixel, over all orders of equals and scikit-learn; controls against their formulas."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.signal import convolve2d
from sklearn.metrics import jaccard_score

from melanoma_lib.explain import score_heatmap
from melanoma_lib.explain.scores import (
    CONTROLS,
    SCORES,
    centre,
    edges,
    energy_beyond_centred,
    energy_in_mask,
    random_map,
    score_heatmaps,
)

LESION = np.array([[True, True, False], [True, False, False]])
small_maps = arrays(np.float32, (2, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
small_masks = arrays(bool, (2, 3)).filter(np.any)


@given(small_maps, small_masks)
def test_centred_energy_is_that_of_a_map_arranged_around_the_middle_in_any_order_of_equals(heatmap, mask):
    prior = centre(np.zeros((2, 3, 3), np.uint8)).ravel().round(5)  # float32: equals differ in the last digit
    highest_first = np.maximum(np.sort(heatmap.ravel())[::-1], 0)
    shares = []
    for places in permutations(range(6)):
        if (np.diff(prior[list(places)]) <= 0).all():
            arranged = np.zeros(6)
            arranged[list(places)] = highest_first
            shares.append(arranged[mask.ravel()].sum() / arranged.sum() if arranged.any() else np.nan)
    expected = energy_in_mask(heatmap, mask) - np.mean(shares)
    assert energy_beyond_centred(heatmap, mask) == pytest.approx(expected, nan_ok=True)


def test_an_even_map_and_the_prior_itself_gain_exactly_nothing():
    mask = np.random.default_rng(4).random((40, 30)) < 0.3
    for even in (np.full((40, 30), 0.3), centre(np.zeros((40, 30, 3), np.uint8))):
        assert energy_beyond_centred(even, mask) == 0  # not nearly: with enough cases that would be a verdict


@given(small_maps, small_masks)
def test_rank_accuracy_is_the_mean_over_all_orders_of_equals(heatmap, mask):
    values, inside, size = heatmap.ravel(), mask.ravel(), int(mask.sum())
    ordered = [order for order in permutations(range(6)) if (np.diff(values[list(order)]) <= 0).all()]
    expected = np.mean([inside[list(order[:size])].mean() for order in ordered])
    assert score_heatmap(heatmap, mask)["rank_accuracy"] == pytest.approx(expected)
    assert score_heatmap(7 * heatmap - 3, mask)["rank_accuracy"] == pytest.approx(expected)  # neither unit nor zero matters


@given(st.data())
def test_energy_peak_and_overlap_are_those_of_a_count_pixel_by_pixel(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    heatmap = data.draw(arrays(np.float32, shape, elements=st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0])))
    mask = data.draw(arrays(bool, shape).filter(np.any))
    found, positive = score_heatmap(heatmap, mask), np.maximum(heatmap, 0)
    units = np.array([1e-300, 1e300])[:, None, None]  # do not matter
    several = score_heatmaps(heatmap.astype(float) * units, mask)
    assert tuple(found) == SCORES
    assert {name: list(scores) for name, scores in several.items()} == {
        name: pytest.approx([score] * 2, nan_ok=True) for name, score in found.items()
    }
    if heatmap.max() <= 0:
        assert np.isnan([found["energy_in_mask"], found["pointing_game"], found["overlap"]]).all()
        return
    inside = sum(float(positive[place]) for place in np.ndindex(shape) if mask[place])
    peaks = [mask[place] for place in np.ndindex(shape) if heatmap[place] == heatmap.max()]
    assert found["energy_in_mask"] == pytest.approx(inside / positive.sum())
    assert found["pointing_game"] == pytest.approx(sum(peaks) / len(peaks))
    assert found["overlap"] == pytest.approx(jaccard_score(mask.ravel(), heatmap.ravel() >= heatmap.max() / 2))


@pytest.mark.parametrize(
    ("heatmap", "mask", "message"),
    [
        (np.ones((3, 2)), LESION, r"got \(3, 2\) and \(2, 3\); ask heatmaps for size=mask.shape"),
        (np.ones((1, 2, 3)), LESION, r"expected the shape \(H, W\), got \(1, 2, 3\)"),
        (np.ones((2, 3)), np.zeros((2, 3), bool), "some of them True, got bool with 0"),
        (np.ones((2, 3)), LESION * np.uint8(255), "expected booleans"),
        (np.full((2, 3), np.nan), LESION, "finite values, got 6"),
    ],
)
def test_misfits_are_errors(heatmap, mask, message):
    with pytest.raises(ValueError, match=message):
        score_heatmap(heatmap, mask)


# --- controls ---


def image(height=96, width=64):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_is_a_map_of_the_image(name):
    for size in ((96, 64), (31, 45), (1, 1)):
        found = CONTROLS[name](image(*size), np.random.default_rng(1))
        assert found.shape == size and found.dtype == np.float32 and np.isfinite(found).all()
    for bad in (image().astype(np.float32), image()[..., 0], image()[..., :2]):
        with pytest.raises(ValueError, match="expected RGB as uint8"):
            CONTROLS[name](bad, np.random.default_rng(0))


def test_random_maps_score_what_chance_scores():
    rng = np.random.default_rng(5)
    quarter, middle = np.zeros((2, 64, 64), bool)
    quarter[:32, :32] = middle[16:48, 16:48] = True
    maps = np.stack([random_map(image(64, 64), rng, stride=16) for _ in range(1000)])
    for mask, low, high in ((quarter, 0.25, 0.25), (middle, 0.18, 0.24)):  # the middle gets less than its share
        scores = score_heatmaps(maps, mask)["rank_accuracy"]
        error = scores.std() / np.sqrt(len(scores))
        assert low - 4 * error < scores.mean() < high + 4 * error


def test_edges_are_the_sobel_gradient_and_the_centre_falls_to_half_on_its_ellipse():
    picture = image(12, 10)
    grey = np.pad(picture @ np.array([0.299, 0.587, 0.114]), 1, mode="edge")
    kernel = np.outer([1, 2, 1], [-1, 0, 1]) / 8
    expected = np.hypot(convolve2d(grey, kernel, "valid"), convolve2d(grey, kernel.T, "valid"))
    np.testing.assert_allclose(edges(picture), expected, rtol=1e-4, atol=1e-4)
    found = centre(image(400, 200))
    assert (found >= 0.5).mean() == pytest.approx(np.pi * np.log(4) / 16, abs=2e-3)
    assert found[199, 0] == pytest.approx(np.exp(-2), rel=0.05)  # the border is two standard deviations away
