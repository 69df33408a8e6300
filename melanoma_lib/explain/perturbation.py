"""The two methods that take no gradient but ask the model again, once per channel: Score-CAM and Ablation-CAM.

Not borrowed from pytorch-grad-cam: its Ablation-CAM swaps a module of the model, which stays swapped after an interruption, and
where activations have both signs it pushes channels to -10,000,000 rather than to zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from melanoma_lib.explain.capture import hooked
from melanoma_lib.explain.layers import CamLayer
from melanoma_lib.model import MelanomaNet

CHUNK = 32  # altered copies of a case that pass the model together


@dataclass(frozen=True)
class Case:
    """One image with its metadata, and the model that is asked about altered copies of it.

    Attributes:
        model: inside :func:`~melanoma_lib.explain.capture.undisturbed`.
        image: shape ``(1, 3, H, W)``.
        metadata: shape ``(1, M)``, the same for every copy; None for a model that takes none.
        direction: sign of the logit in the score.
    """

    model: MelanomaNet
    image: Tensor
    metadata: Tensor | None
    direction: int

    def scores(self, image: Tensor, copies: int) -> Tensor:
        """Scores, shape ``(copies,)``, of as many images, or of one that a hook makes as many of."""
        metadata = None if self.metadata is None else self.metadata.expand(copies, -1)  # (1, M) -> (copies, M)
        return self.direction * self.model(image, metadata)


def score_weights(case: Case, layer: CamLayer, activations: Tensor) -> Tensor:
    """Weights of the channels by Score-CAM: the softmax of the scores of the image seen through each channel.

    Signed: weights are positive, so a negative value comes from a negative activation and is no evidence against.

    Args:
        case: to explain.
        layer: that put the activations out.
        activations: shape ``(C, h, w)``.

    Returns:
        Shape ``(C,)``, with sum 1.

    Source: Wang et al. 2020, "Score-CAM".
    """
    scores = []
    for channels in activations.split(CHUNK):
        masks = functional.interpolate(channels[:, None], case.image.shape[-2:], mode="bilinear", align_corners=True)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        masks = (masks - low) / (high - low + 1e-8)  # (n, 1, H, W)
        scores.append(case.scores(case.image * masks, len(channels)))  # (1, 3, H, W) * (n, 1, H, W) -> (n,)
    return torch.cat(scores).softmax(0)


def ablation_weights(case: Case, layer: CamLayer, activations: Tensor) -> Tensor:
    """Weights of the channels by Ablation-CAM: the share of the score that is lost when the channel is set to zero.

    Signed: positive is what raises the score. The share is taken of the score's size, where the paper divides by the score and so
    turns the map upside down whenever the model votes the other way.

    Args:
        case: to explain.
        layer: whose channels are ablated.
        activations: of the layer, shape ``(C, h, w)``.

    Returns:
        Shape ``(C,)``.

    Source: Desai and Ramaswamy 2020, "Ablation-CAM".
    """
    whole = case.scores(case.image, 1)  # (1,)
    without = []
    for channels in torch.arange(len(activations), device=activations.device).split(CHUNK):

        def ablate(layer: CamLayer, output: Tensor, channels: Tensor = channels) -> Tensor:
            copies = output.repeat_interleave(len(channels), dim=0)  # the image passes the layers before only once
            copies.movedim(layer.channel_axis, 1)[torch.arange(len(channels), device=channels.device), channels] = 0
            return copies

        with hooked([layer], ablate):
            without.append(case.scores(case.image, len(channels)))
    return (whole - torch.cat(without)) / whole.abs().clamp_min(1e-12)


WEIGHTS = {"scorecam": score_weights, "ablationcam": ablation_weights}
