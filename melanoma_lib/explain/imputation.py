"""Missing pixels filled with what their neighbours let one expect: the linear imputation of ROAD, for a batch of images."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

MAX_STEPS = 500
TOLERANCE = 1e-5  # of the residual's length beside that of the right-hand side; errors stay far below the noise of ROAD
COARSEST = 4  # points a side at which the pyramid of the preconditioner stops
SLOPE = 0.25  # resistance of a hat function far from known pixels
TOGETHER = 4  # images solved at once: few enough to stay near the processor


def impute(image: Tensor, missing: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Every missing pixel becomes the weighted mean of its eight neighbours, themselves missing or not.

    The equations of an image are solved by conjugate gradients. Alone these need hundreds of steps, because what is known creeps
    into a hole one pixel a step; a pyramid of coarser grids carries it there at once and leaves some dozens.

    Args:
        image: shape ``(N, C, H, W)``.
        missing: boolean, shape ``(N, H, W)``; of each image at least one pixel is there.
        tolerance: at which the solution is accepted, relative.

    Returns:
        Images with the missing pixels filled, shape ``(N, C, H, W)``, in the precision given.

    Raises:
        ValueError: if shapes do not fit or an image has no pixel left.
        ArithmeticError: if the equations are not solved in 500 steps, as when a value is not finite.

    Source: Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods", section 4: weights 1/6
    beside and 1/12 across corners, shared out among the others at the border. Preconditioner: Bramble, Pasciak and Xu 1990,
    "Parallel multilevel preconditioners".
    """
    if image.ndim != 4 or missing.shape != (len(image), *image.shape[2:]) or missing.dtype != torch.bool:
        raise ValueError(
            "expected images (N, C, H, W) and booleans (N, H, W), "
            f"got {tuple(image.shape)} and {missing.dtype} {tuple(missing.shape)}"
        )
    if missing.flatten(1).all(1).any():
        raise ValueError("missing: expected at least one pixel that is there, got an image without; remove a smaller share")
    hole = missing[:, None].to(image.dtype)  # (N, 1, H, W)
    share = _neighbours(torch.ones_like(hole[:1]))  # (1, 1, H, W): weights that lie inside the image
    filled = []
    for own, part in zip(image.split(TOGETHER), hole.split(TOGETHER), strict=True):
        known = own * (1 - part)
        filled.append(known + _solve(part, share, part * _neighbours(known), tolerance))
    return torch.cat(filled)


def _solve(hole: Tensor, share: Tensor, target: Tensor, tolerance: float) -> Tensor:
    """``x`` with ``share * x - neighbours(x) = target`` inside the hole and 0 outside, shape ``(N, C, H, W)``.

    The channels of an image share their steps.
    """
    scales = _scales(hole, share)
    solution, residual = torch.zeros_like(target), target
    goal = tolerance**2 * _dot(target, target)
    direction = better = hole * _precondition(residual, scales)
    slope = _dot(residual, better)
    for _ in range(MAX_STEPS):
        if (_dot(residual, residual) <= goal).all():
            return solution
        image = hole * (share * direction - _neighbours(direction))
        step = _quotient(slope, _dot(direction, image))
        solution = solution + step * direction
        residual = residual - step * image
        better = hole * _precondition(residual, scales)
        before, slope = slope, _dot(residual, better)
        direction = better + _quotient(slope, before) * direction
    raise ArithmeticError(f"missing pixels could not be filled in {MAX_STEPS} steps; look for values that are not finite")


def _neighbours(values: Tensor) -> Tensor:
    """Weighted sum over the eight neighbours, nothing beyond the border: [1, 2, 1] down and across, less the middle, over 12."""
    padded = functional.pad(values, (0, 0, 1, 1))
    down = padded[..., :-2, :] + padded[..., 2:, :] + 2 * values
    padded = functional.pad(down, (1, 1))
    return (padded[..., :-2] + padded[..., 2:] + 2 * down - 4 * values) / 12


def _scales(hole: Tensor, share: Tensor) -> list[Tensor]:
    """How stiff the points of each grid are, fine to coarse, from shape ``(N, 1, H, W)`` down to a few points.

    A hat function on a grid resists by its own slope, the same on all grids of a plane, and by the known pixels it borders on.
    """
    scales, to_known = [share], hole * (share - _neighbours(hole))
    while min(to_known.shape[-2:]) > COARSEST:
        to_known = _coarser(to_known)
        scales.append(SLOPE + to_known)
    return scales


def _precondition(residual: Tensor, scales: list[Tensor]) -> Tensor:
    """About what solves the equations for this right-hand side: on each grid as if its points were alone, summed up."""
    own = residual / scales[0]
    if len(scales) == 1:
        return own
    return own.add_(_finer(_precondition(_coarser(residual), scales[1:]), residual.shape[-2:]))


def _coarser(values: Tensor) -> Tensor:
    """Half as many points a side: the transpose of :func:`_finer`."""
    down, across = (_hats(side, values) for side in values.shape[-2:])
    return down.T @ values @ across  # (h, H) @ (N, C, H, W) @ (W, w) -> (N, C, h, w)


def _finer(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Twice as many points a side, linearly between those that there are."""
    down, across = (_hats(side, values) for side in size)
    return down @ values @ across.T


def _hats(side: int, like: Tensor) -> Tensor:
    """What each point of a line takes from each of half as many, shape ``(side, half)``; such products beat convolving."""
    return _cached_hats(side, like.dtype, like.device)


@cache
def _cached_hats(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    half = (side + 1) // 2
    where = (torch.arange(side, dtype=dtype, device=device) - 0.5) / 2  # in units of the coarse grid
    return (1 - (where.clamp(0, half - 1)[:, None] - torch.arange(half, dtype=dtype, device=device)).abs()).clamp_min(0)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Scalar product of each image, shape ``(N, 1, 1, 1)``."""
    return (first * second).flatten(1).sum(1)[:, None, None, None]


def _quotient(first: Tensor, second: Tensor) -> Tensor:
    """0 where there is nothing left to divide by: an image that is solved stands still."""
    return torch.where(second > 0, first / second, 0)
