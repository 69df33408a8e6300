from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import jaccard_score

from melanoma_lib.explain import score_heatmap
from melanoma_lib.explain.controls import centre
from melanoma_lib.explain.exam import (
    SCORES,
    energy_beyond_centred,
    energy_in_mask,
    overlap,
    pointing_game,
    rank_accuracy,
    score_heatmaps,
)

LESION = np.array([[True, True, False], [True, False, False]])


# Of the six pixels two are nearest to the middle, one of them on the lesion, and four farther off, two of them on it: the same
# values, arranged around the middle, always put half of their energy on the lesion.
@pytest.mark.parametrize(
    ("heatmap", "energy", "hit", "ranks", "union"),
    [
        ([[4, 2, 1], [0, 1, 0]], 6 / 8, 1, 2 / 3, 2 / 3),  # a third place shared by two pixels, neither of them on the lesion
        ([[1, 2, 3], [0, 0, 0]], 3 / 6, 0, 2 / 3, 1 / 4),
        ([[-9, -9, 1], [-9, 1, 0]], 0, 0, 0, 0),  # what speaks against counts nowhere
        ([[2, 1, 2], [2, 0, 2]], 5 / 9, 2 / 4, 3 * 2 / 4 / 3, 3 / 5),  # four peaks of equal height, two of them on the lesion
        ([[5, 5, 5], [5, 5, 5]], 3 / 6, 3 / 6, 3 / 6, 3 / 6),  # a uniform map scores what the mask covers
        ([[0, -1, -2], [0, 0, -3]], np.nan, np.nan, (2 + 0) / 3, np.nan),  # without positive part there are ranks still
        ([[-1, -1, -1], [-1, -1, -1]], np.nan, np.nan, 3 / 6, np.nan),
    ],
)
def test_scores_by_hand(heatmap, energy, hit, ranks, union):
    found = score_heatmap(np.array(heatmap, np.float32), LESION)
    expected = {"energy_in_mask": energy, "energy_beyond_centred": energy - 0.5}
    expected |= {"pointing_game": hit, "rank_accuracy": ranks, "overlap": union}
    assert found == pytest.approx(expected, nan_ok=True)


@given(st.data())
def test_centred_energy_is_that_of_a_map_arranged_around_the_middle_in_any_order_of_equals(data):
    heatmap = data.draw(arrays(np.float32, (2, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])))
    mask = data.draw(arrays(bool, (2, 3)).filter(np.any))
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


@pytest.mark.parametrize("width", [0.02, 0.1, 0.5, 5])
def test_no_spot_in_the_middle_beats_itself_however_narrow(width):
    mask = np.random.default_rng(4).random((40, 30)) < 0.3
    mask[15:25, 10:20] = True
    down, across = np.meshgrid((np.arange(40) + 0.5) / 40 - 0.5, (np.arange(30) + 0.5) / 30 - 0.5, indexing="ij")
    spot = np.exp(-(down**2 + across**2) / (2 * width**2))
    assert energy_beyond_centred(spot, mask) == pytest.approx(0, abs=1e-9)
    beside = np.roll(mask, 15, axis=0)
    assert energy_beyond_centred(np.roll(spot, 15, axis=0), beside) > 0  # a spot on a lesion that lies elsewhere gains


@pytest.mark.parametrize("size", [(64, 64), (40, 30), (7, 13)])
def test_a_uniform_map_and_the_centre_prior_gain_exactly_nothing(size):
    rng = np.random.default_rng(7)
    for _ in range(20):
        mask = rng.random(size) < 0.4
        for heatmap in (np.full(size, 0.3), centre(np.zeros((*size, 3), np.uint8))):
            assert energy_beyond_centred(heatmap, mask) == 0  # not nearly: with enough cases that would be a verdict


def test_the_lesion_itself_gains_what_a_disc_of_its_size_in_the_middle_misses():
    mask = np.zeros((64, 64), bool)
    mask[:20, :30] = True
    down, across = np.indices(mask.shape) - 31.5
    nearest = np.argsort((down**2 + across**2).ravel(), kind="stable")[: mask.sum()]
    missed = 1 - mask.ravel()[nearest].mean()
    assert energy_beyond_centred(mask.astype(np.float32), mask) == pytest.approx(missed, abs=0.01)  # the last ring is shared


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


@given(st.data())
def test_rank_accuracy_is_the_mean_over_all_orders_of_equals(data):
    heatmap = data.draw(arrays(np.float32, (2, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])))
    mask = data.draw(arrays(bool, (2, 3)).filter(np.any))
    values, inside, size = heatmap.ravel(), mask.ravel(), int(mask.sum())
    ordered = [order for order in permutations(range(6)) if (np.diff(values[list(order)]) <= 0).all()]
    expected = np.mean([inside[list(order[:size])].mean() for order in ordered])
    assert rank_accuracy(heatmap, mask) == pytest.approx(expected)
    assert rank_accuracy(7 * heatmap - 3, mask) == pytest.approx(expected)  # neither unit nor zero matters


@given(st.data())
def test_overlap_is_the_jaccard_score_of_scikit_learn(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    heatmap = data.draw(arrays(np.float32, shape, elements=st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0])))
    mask = data.draw(arrays(bool, shape).filter(np.any))
    if heatmap.max() <= 0:
        assert np.isnan(overlap(heatmap, mask))
    else:
        hot = heatmap >= heatmap.max() / 2
        assert overlap(heatmap, mask) == pytest.approx(jaccard_score(mask.ravel(), hot.ravel()))


def test_many_maps_of_a_case_score_as_each_alone():
    rng = np.random.default_rng(0)
    maps, mask = rng.normal(size=(3, 4, 9, 7)), rng.random((9, 7)) < 0.3
    maps[0, 0], maps[1, 2] = 0, -np.abs(maps[1, 2])
    found = score_heatmaps(maps, mask)
    assert tuple(found) == SCORES
    for place in np.ndindex(3, 4):
        each = score_heatmap(maps[place], mask)
        assert {name: scores[place] for name, scores in found.items()} == pytest.approx(each, nan_ok=True)
        assert each["rank_accuracy"] == pytest.approx(rank_accuracy(maps[place], mask))


def test_huge_and_tiny_values_are_scored_alike():
    rng = np.random.default_rng(1)
    heatmap, mask = rng.normal(size=(8, 8)), rng.random((8, 8)) < 0.5
    expected = score_heatmap(heatmap, mask)
    for unit in (1e-300, 1e307):
        assert score_heatmap(heatmap * unit, mask) == pytest.approx(expected)


def test_a_map_in_random_order_scores_the_share_of_the_lesion():
    rng = np.random.default_rng(2)
    mask = rng.random((16, 16)) < 0.3
    found = score_heatmaps(rng.random((4000, 16, 16)), mask)
    for name in ("energy_in_mask", "pointing_game", "rank_accuracy"):
        error = found[name].std() / np.sqrt(4000)
        assert found[name].mean() == pytest.approx(mask.mean(), abs=4 * error), name


@pytest.mark.parametrize(
    ("heatmap", "mask", "message"),
    [
        (np.ones((3, 2)), LESION, r"got \(3, 2\) and \(2, 3\); ask heatmaps for size=mask.shape"),
        (np.ones((1, 2, 3)), LESION[None], r"expected the shape \(H, W\), got \(1, 2, 3\)"),
        (np.ones((2, 3)), np.zeros((2, 3), bool), "some of them True, got bool with 0"),
        (np.ones((2, 3)), LESION * np.uint8(255), "expected booleans"),
        (np.full((2, 3), np.nan), LESION, "finite values, got 6"),
    ],
)
def test_misfits_are_errors(heatmap, mask, message):
    with pytest.raises(ValueError, match=message):
        score_heatmap(heatmap, mask)


def test_a_stack_of_maps_is_not_a_heatmap():
    with pytest.raises(ValueError, match="score_heatmaps takes several"):
        rank_accuracy(np.ones((1, 2, 3)), LESION)
