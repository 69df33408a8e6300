"""Scores against counts by hand, pixel by pixel, over all orders of equals and scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc, jaccard_score

from melanoma_lib.explain import deletion_insertion, score_heatmap
from melanoma_lib.explain.scores import energy_in_mask
from tests.explain.nets import cases, small_net


def centre(height, width):
    """A Gaussian in the middle, its standard deviation a quarter of each side."""
    down, across = (np.exp(-8 * ((np.arange(side) + 0.5) / side - 0.5) ** 2) for side in (height, width))
    return np.outer(down, across)


small_maps = arrays(np.float32, (2, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
small_masks = arrays(bool, (2, 3)).filter(np.any)


@given(small_maps, small_masks)
def test_centred_energy_is_that_of_a_map_arranged_around_the_middle_in_any_order_of_equals(heatmap, mask):
    prior = centre(2, 3).ravel().round(5)  # equals differ in the last digit
    highest_first = np.maximum(np.sort(heatmap.ravel())[::-1], 0)
    shares = []
    for places in permutations(range(6)):
        if (np.diff(prior[list(places)]) <= 0).all():
            arranged = np.zeros(6)
            arranged[list(places)] = highest_first
            shares.append(arranged[mask.ravel()].sum() / arranged.sum() if arranged.any() else np.nan)
    expected = energy_in_mask(heatmap, mask) - np.mean(shares)
    assert score_heatmap(heatmap, mask)["energy_beyond_centred"] == pytest.approx(expected, nan_ok=True)


def test_an_even_map_and_the_prior_itself_gain_exactly_nothing():
    mask = np.random.default_rng(4).random((40, 30)) < 0.3
    for even in (np.full((40, 30), 0.3), centre(40, 30)):
        assert score_heatmap(even, mask)["energy_beyond_centred"] == 0  # not nearly: with enough cases that would be a verdict


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
    for unit in (1e-300, 1e300):  # does not matter
        assert score_heatmap(heatmap.astype(float) * unit, mask) == pytest.approx(found, nan_ok=True)
    if heatmap.max() <= 0:
        assert np.isnan([found["energy_in_mask"], found["pointing_game"], found["overlap"]]).all()
        return
    inside = sum(float(positive[place]) for place in np.ndindex(shape) if mask[place])
    peaks = [mask[place] for place in np.ndindex(shape) if heatmap[place] == heatmap.max()]
    assert found["energy_in_mask"] == pytest.approx(inside / positive.sum())
    assert found["pointing_game"] == pytest.approx(sum(peaks) / len(peaks))
    assert found["overlap"] == pytest.approx(jaccard_score(mask.ravel(), heatmap.ravel() >= heatmap.max() / 2))


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(2, 3\); ask heatmaps for size=mask.shape"):
        score_heatmap(np.ones((3, 2)), np.ones((2, 3), bool))


def test_a_constant_map_gains_nothing_and_chance_gains_nothing_on_average():
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    np.testing.assert_allclose(deletion_insertion(model, image, metadata, np.full((2, 2, 3, 3), 0.7)), 0, atol=1e-5)
    torch.manual_seed(0)
    gain = deletion_insertion(model, image, metadata, torch.randn(2, 30, 8, 8))
    assert (np.abs(gain.mean(1)) < 4 * gain.std(1) / np.sqrt(30)).all()


def test_the_gain_is_the_area_between_the_curves_of_altering_one_image_at_a_time():
    model, (image, metadata) = small_net("test_resnet").train(), cases("test_resnet")
    maps = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    found = deletion_insertion(model, image, metadata, maps, steps=5)
    assert model.training and deletion_insertion(model, image, metadata, maps[:, 1], steps=5) == pytest.approx(found[:, 1])
    model.eval()
    for case, which in np.ndindex(2, 3):
        blurred = np.stack([gaussian_filter(channel, 4.0, mode="reflect") for channel in image[case].numpy()])
        order, areas = np.argsort(-maps[case, which].ravel()), []
        for sequence in (order, order[::-1]):
            curve = []
            for share in np.linspace(0, 1, 6):
                altered, gone = image[case].numpy().reshape(3, -1).copy(), sequence[: round(share * 4096)]
                altered[:, gone] = blurred.reshape(3, -1)[:, gone]
                with torch.no_grad():
                    curve.append(float(model(torch.from_numpy(altered).view(1, 3, 64, 64), metadata[case : case + 1])))
            areas.append(auc(np.linspace(0, 1, 6), curve))
        assert found[case, which] == pytest.approx(areas[1] - areas[0], abs=1e-4)


@pytest.mark.parametrize("maps", [np.ones((3, 4, 4)), np.ones((2, 0, 4, 4)), np.full((2, 4, 4), np.nan)])
def test_maps_of_another_number_or_not_finite_are_refused(maps):
    model, (image, metadata) = small_net("test_resnet"), cases("test_resnet")
    with pytest.raises(ValueError, match="maps: expected finite ones"):
        deletion_insertion(model, image, metadata, maps)
