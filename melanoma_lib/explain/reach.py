"""How far a point of a layer sees: the receptive field, carried along while a network runs."""

import math
from collections.abc import Iterable

from torch import Tensor
from torch.overrides import TorchFunctionMode

# What lets a point see all the others, or moves the grid in a way that window and stride do not tell.
_MIXING = {
    "scaled_dot_product_attention", "multi_head_attention_forward", "matmul", "__matmul__", "bmm", "einsum", "interpolate",
}  # fmt: skip
# Functions with a window: where their kernel, stride and dilation stand among the arguments; average pooling has no dilation.
_WINDOWED = {"conv2d": (1, 3, 5), "max_pool2d": (1, 2, 4), "avg_pool2d": (1, 2, 99)}


class ReceptiveFields(TorchFunctionMode):
    """Inside the ``with`` block every tensor that comes from :meth:`start` carries ``reach``: side and step, in pixels.

    The side is that of the square of the image a point sees through convolutions and pooling, counted along rows; infinite
    behind attention. The step is the distance of the squares of two neighbours. Means over the whole image, as in
    squeeze-and-excitation gates, are not counted: they tell a point how much, not where.

    Source: the recurrence of Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural networks".
    """

    @staticmethod
    def start(image: Tensor) -> Tensor:
        """The same tensor, from which reaches are counted."""
        image.reach = (1, 1)
        return image

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Run the function, then hand on the widest reach among its inputs, widened by its own window."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        reaches = [tensor.reach for tensor in _tensors([*args, *kwargs.values()]) if hasattr(tensor, "reach")]
        if reaches:
            side, step = (max(values) for values in zip(*reaches, strict=True))
            if func.__name__ in _MIXING:
                side = math.inf
            elif func.__name__ in _WINDOWED:
                kernel, stride, dilation = _window(func.__name__, args, kwargs)
                side, step = side + (kernel - 1) * dilation * step, step * stride
            for tensor in _tensors([result]):
                tensor.reach = (side, step)
        return result


def _window(function: str, args: tuple, kwargs: dict) -> tuple[int, int, int]:
    """Kernel, stride and dilation of a call along the rows."""
    given = dict(enumerate(args))
    at_kernel, at_stride, at_dilation = _WINDOWED[function]
    kernel = given.get(at_kernel, kwargs.get("weight", kwargs.get("kernel_size")))
    kernel = kernel.shape[-1] if isinstance(kernel, Tensor) else _along_rows(kernel)
    stride = given.get(at_stride, kwargs.get("stride"))
    if stride is None:
        stride = 1 if function == "conv2d" else kernel
    return kernel, _along_rows(stride), _along_rows(given.get(at_dilation, kwargs.get("dilation", 1)))


def _along_rows(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[-1]


def _tensors(values: Iterable[object]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
