"""Logits of many cases: the one prediction loop behind training, evaluation and the app."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from melanoma_lib.data.images import eight_views
from melanoma_lib.model import MelanomaNet


def prediction_device() -> torch.device:
    """Where to predict: a CUDA device when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


def predict_logits(model: MelanomaNet, batches: Iterable[dict[str, torch.Tensor]], tta: bool = False) -> np.ndarray:
    """Logit of every case of the batches, in their order.

    Args:
        model: put into evaluation mode for the pass; afterwards each part is back in the mode it was in.
        batches: dictionaries with ``image`` ``(B, 3, S, S)`` and ``metadata`` ``(B, M)``, as far as the model looks at them.
        tta: average the logits of the eight flips and quarter turns of each image.

    Returns:
        float64 logits, shape ``(N,)``.

    Raises:
        ValueError: if there is no batch, or a batch does not fit the model.
    """
    device, parts = next(model.parameters()).device, []
    with undisturbed(model), torch.inference_mode():
        for batch in batches:
            image, metadata = (None if (part := batch.get(name)) is None else part.to(device) for name in ("image", "metadata"))
            views = [image] if image is None or not tta else eight_views(image)
            parts.append(torch.stack([model(view, metadata) for view in views]).mean(dim=0).cpu().double())  # (8, B) -> (B,)
    if not parts:
        raise ValueError("expected at least one batch of cases to predict, got none")
    return torch.cat(parts).numpy()
