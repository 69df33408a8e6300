"""What layers put out and how the score depends on it, from one forward and at most one backward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from melanoma_lib.explain.layers import CamLayer
from melanoma_lib.model import MelanomaNet


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards, whatever happened, each part is in the mode it was in."""
    training = [module for module in model.modules() if module.training]  # a frozen branch may not be among them
    model.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def hooked(layers: Sequence[CamLayer], hook: Callable[[CamLayer, Tensor], Tensor]) -> Iterator[None]:
    """Inside, the model goes on with what ``hook(layer, output)`` returns after each of the layers."""
    handles = [layer.module.register_forward_hook(partial(_replace, hook, layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replace(hook: Callable, layer: CamLayer, _module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
    return hook(layer, output)


def activations_and_gradients(
    model: MelanomaNet,
    layers: Sequence[CamLayer],
    image: Tensor,
    metadata: Tensor | None,
    direction: int | None,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Activations of the layers and gradients of the score towards them.

    Args:
        model: inside :func:`undisturbed`.
        layers: at least one.
        image: shape ``(B, 3, H, W)``.
        metadata: shape ``(B, M)`` or None.
        direction: sign of the logit in the score, or None for no gradients and no backward pass.

    Returns:
        For each layer a tensor of shape ``(B, C, h, w)``, and again; the second is None without direction.

    Raises:
        ValueError: if a logit is not finite.
    """
    caught: dict[str, Tensor] = {}

    def catch(layer: CamLayer, output: Tensor) -> Tensor:
        if direction is not None and not output.requires_grad:
            # The graph starts at the earliest of the layers, be parameters frozen or not, and needs no memory before it.
            torch.set_grad_enabled(True)
            output = output.detach().requires_grad_()
        caught[layer.name] = output
        return output.clone()  # an activation that works in place further on alters the copy, not what was caught

    with hooked(layers, catch), torch.no_grad():  # on leaving, grad mode is what it was, although the hook switched it on
        logit = model(image, metadata)  # (B,)
    if not torch.isfinite(logit).all():
        raise ValueError(f"expected finite logits, got {logit.tolist()}; look for NaN in image, metadata and weights")
    outputs = [caught[layer.name] for layer in layers]
    activations = [layer.as_maps(output.detach(), image.shape[-2:]) for layer, output in zip(layers, outputs, strict=True)]
    if direction is None:
        return activations, [None] * len(layers)
    # In evaluation mode cases do not mix, so one backward pass holds each case's own gradient.
    gradients = torch.autograd.grad(logit, outputs, torch.full_like(logit, direction))
    return activations, [layer.as_maps(each, image.shape[-2:]) for layer, each in zip(layers, gradients, strict=True)]
