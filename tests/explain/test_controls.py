import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch.nn import functional

from melanoma_lib.explain.controls import CONTROLS, centre, edges, random_map
from melanoma_lib.explain.exam import score_heatmaps


def image(height=96, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("size", [(96, 64), (31, 45), (1, 1)])
def test_every_control_is_a_map_of_the_image(name, size):
    found = CONTROLS[name](image(*size), np.random.default_rng(1))
    assert found.shape == size and found.dtype == np.float32 and np.isfinite(found).all()
    np.testing.assert_array_equal(found, CONTROLS[name](image(*size), np.random.default_rng(1)))


def test_random_map_is_a_small_grid_enlarged():
    found = random_map(image(), np.random.default_rng(3), stride=16)
    grid = torch.from_numpy(np.random.default_rng(3).standard_normal((6, 4), np.float32))
    enlarged = functional.interpolate(grid[None, None], (96, 64), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(found, enlarged.numpy(), rtol=1e-6)
    assert not np.allclose(found, random_map(image(), np.random.default_rng(4), stride=16))


def test_random_maps_score_what_chance_scores():
    rng = np.random.default_rng(5)
    quarter, middle = np.zeros((2, 64, 64), bool)
    quarter[:32, :32] = middle[16:48, 16:48] = True
    maps = np.stack([random_map(image(64, 64), rng, stride=16) for _ in range(1000)])
    for mask, low, high in ((quarter, 0.25, 0.25), (middle, 0.18, 0.24)):  # as told: the middle gets less than its share
        scores = score_heatmaps(maps, mask)["rank_accuracy"]
        error = scores.std() / np.sqrt(len(scores))
        assert low - 4 * error < scores.mean() < high + 4 * error


def test_edges_are_the_sobel_gradient():
    picture = image(12, 10)
    grey = np.pad(picture @ np.array([0.299, 0.587, 0.114]), 1, mode="edge")
    kernel = np.outer([1, 2, 1], [-1, 0, 1]) / 8
    expected = np.hypot(convolve2d(grey, kernel, "valid"), convolve2d(grey, kernel.T, "valid"))
    np.testing.assert_allclose(edges(picture), expected, rtol=1e-4, atol=1e-4)
    ramp = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], 9, 0).repeat(3, 2)
    np.testing.assert_allclose(edges(ramp)[:, 1:-1], 5, rtol=1e-5)  # grey levels a pixel
    np.testing.assert_allclose(edges(np.full((9, 9, 3), 77, np.uint8)), 0, atol=1e-4)


def test_centre_falls_to_half_on_the_ellipse_told():
    found = centre(image(400, 200))
    assert (found >= 0.5).mean() == pytest.approx(np.pi * np.log(4) / 16, abs=2e-3)
    np.testing.assert_allclose(found, found[::-1, ::-1])
    assert found.max() == found[199, 99]
    assert found[199, 0] == pytest.approx(np.exp(-2), rel=0.05)  # the border is two standard deviations away


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("bad", [image().astype(np.float32), image()[..., 0], image()[..., :2]])
def test_other_images_are_errors(name, bad):
    with pytest.raises(ValueError, match="expected RGB as uint8"):
        CONTROLS[name](bad, np.random.default_rng(0))
