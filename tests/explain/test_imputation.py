import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.ndimage import gaussian_filter

from melanoma_lib.explain.imputation import _coarser, _finer, impute


def holes(n, size, share, smooth, seed=0):
    """Missing pixels: dust, or blobs as heatmaps make them."""
    values = gaussian_filter(np.random.default_rng(seed).standard_normal((n, *size)), (0, smooth, smooth))
    return torch.from_numpy(values >= np.quantile(values, 1 - share, axis=(1, 2), keepdims=True))


@pytest.mark.parametrize("smooth", [0, 3, 12])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("size", [(64, 64), (33, 50), (5, 90)])
def test_it_fills_as_the_sparse_solver_of_pytorch_grad_cam(size, share, smooth):
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 3, *size)).astype(np.float32))
    missing = holes(3, size, share, smooth)
    found = impute(image, missing, tolerance=1e-7)
    for own, hole, filled in zip(image, missing, found, strict=True):
        theirs = NoisyLinearImputer(noise=0)(own, (~hole).float())
        torch.testing.assert_close(filled, theirs, rtol=0, atol=1e-4)
    torch.testing.assert_close(impute(image, missing), found, rtol=0, atol=1e-3)  # a tenth of the noise of ROAD


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(2, 9), st.data())
def test_it_solves_the_equations_of_the_paper(height, width, data):
    pixels = height * width
    gone = data.draw(st.lists(st.booleans(), min_size=pixels, max_size=pixels).filter(lambda each: not all(each)))
    missing = np.array(gone).reshape(height, width)
    image = np.random.default_rng(pixels).normal(size=(height, width))
    matrix, right = np.eye(pixels), image.ravel().copy()
    for row, column in zip(*np.nonzero(missing), strict=True):
        here = row * width + column
        around = [(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across]
        around = [(r, c) for r, c in around if 0 <= r < height and 0 <= c < width]
        weights = np.array([1 / 6 if r == row or c == column else 1 / 12 for r, c in around])
        right[here] = 0
        for (r, c), weight in zip(around, weights / weights.sum(), strict=True):
            matrix[here, r * width + c] -= weight
    expected = np.linalg.solve(matrix, right).reshape(height, width)
    found = impute(torch.from_numpy(image)[None, None], torch.from_numpy(missing)[None], tolerance=1e-12)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-9)


def test_what_is_there_stays_and_flat_images_stay_flat():
    image = torch.randn(2, 3, 20, 20)
    missing = holes(2, (20, 20), 0.4, 2)
    kept = ~missing[:, None].expand_as(image)
    assert torch.equal(impute(image, missing)[kept], image[kept])
    assert torch.equal(impute(image, torch.zeros_like(missing)), image)
    torch.testing.assert_close(impute(torch.full_like(image, -1.5), missing), torch.full_like(image, -1.5), atol=1e-4, rtol=0)
    assert torch.equal(impute(torch.zeros_like(image), missing), torch.zeros_like(image))


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 5)])
def test_the_grids_are_transposes_of_each_other(size):
    fine = torch.randn(2, 3, *size, dtype=torch.float64)
    coarse = torch.randn(2, 3, (size[0] + 1) // 2, (size[1] + 1) // 2, dtype=torch.float64)
    torch.testing.assert_close((_coarser(fine) * coarse).sum(), (fine * _finer(coarse, size)).sum())
    torch.testing.assert_close(_finer(torch.ones_like(coarse), size), torch.ones_like(fine))


def test_bad_input_is_an_error():
    image = torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match="image without"):
        impute(image, torch.ones(2, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 8\) and torch.float32 \(2, 8, 8\)"):
        impute(image, torch.ones(2, 8, 8))
    with pytest.raises(ArithmeticError, match="not finite"):
        impute(torch.full_like(image, torch.nan), holes(2, (8, 8), 0.5, 0))
