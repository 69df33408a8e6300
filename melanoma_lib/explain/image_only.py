"""Our model of two inputs for packages that pass on one: what is asked of pytorch-grad-cam goes through here.

Score-CAM and Ablation-CAM ask the model again, once for each channel. pytorch-grad-cam computes their weights; its last step,
which cuts negatives off and stretches each map to [0, 1], is left out, so that these maps keep sign and size like all others.
"""

import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from melanoma_lib.explain.layers import CamLayer
from melanoma_lib.model import MelanomaNet


class ImageOnly(nn.Module):
    """A :class:`MelanomaNet` whose metadata are held, so that it takes an image alone.

    Pass targets to pytorch-grad-cam: without them it takes the logits of a batch for classes. One logit is what its
    ``BinaryClassifierOutputTarget`` expects.

    Args:
        model: with an image branch.
        metadata: shape ``(1, n_metadata)``, for every image alike, or ``(B, n_metadata)`` for batches of B; None for a model
            without metadata branch.
    """

    def __init__(self, model: MelanomaNet, metadata: Tensor | None) -> None:
        super().__init__()
        self.model, self.metadata = model, metadata

    def forward(self, image: Tensor) -> Tensor:
        """Logits, shape ``(B,)``, of images, shape ``(B, 3, H, W)``.

        Raises:
            ValueError: if there are neither one row of metadata nor as many as images.
        """
        metadata = self.metadata
        if metadata is not None and len(metadata) not in (1, len(image)):
            raise ValueError(f"metadata: expected one row, or one for each of {len(image)} images, got {len(metadata)}")
        return self.model(image, None if metadata is None else metadata.expand(len(image), -1))


def asked_map(
    method: str,
    model: MelanomaNet,
    layer: CamLayer,
    activations: Tensor,
    image: Tensor,
    metadata: Tensor | None,
    direction: int,
) -> Tensor:
    """Maps of Score-CAM or Ablation-CAM, shape ``(B, h, w)``.

    Score-CAM's weights are a softmax, so a negative value comes from a negative activation and is no evidence against.
    Ablation-CAM's are signed: positive is what raises the score. Its share is taken of the score's size; the paper divides by
    the score and so turns the map upside down whenever the model votes the other way.

    Args:
        method: ``scorecam`` or ``ablationcam``.
        model: inside :func:`~melanoma_lib.explain.cam.undisturbed`.
        layer: of the model.
        activations: of the layer, shape ``(B, C, h, w)``.
        image: shape ``(B, 3, H, W)``.
        metadata: shape ``(B, M)`` or None.
        direction: sign of the logit in the score.

    Source: Wang et al. 2020, "Score-CAM"; Desai and Ramaswamy 2020, "Ablation-CAM"; both as pytorch-grad-cam computes them.
    """
    from pytorch_grad_cam import AblationCAM, AblationLayer, ScoreCAM  # seven seconds
    from pytorch_grad_cam.utils.find_layers import replace_layer_recursive

    class ToZero(AblationLayer):
        """Channels set to zero, as published; the package's own pushes them to -10,000,000 where activations have both signs."""

        def set_next_batch(self, input_batch_index: int, activations: Tensor, num_channels_to_ablate: int) -> None:
            self.activations = torch.stack([activations[input_batch_index]] * num_channels_to_ablate)

        def __call__(self, _output: Tensor) -> Tensor:
            copies = torch.arange(len(self.activations))
            self.activations.movedim(layer.channel_axis, 1)[copies, self.indices[: len(copies)]] = 0
            return self.activations

    maps, ablation = [], ToZero()
    for case in range(len(image)):
        alone = ImageOnly(model, None if metadata is None else metadata[case : case + 1])
        engine = ScoreCAM(alone, []) if method == "scorecam" else AblationCAM(alone, [], ablation_layer=ablation)
        one, points = image[case : case + 1], activations[case : case + 1].cpu().numpy()
        silent, hooks = SimpleNamespace(tqdm=iter), layer.module._forward_hooks.copy()  # the package draws a bar for every call
        try:
            with mock.patch.object(sys.modules[type(engine).__module__], "tqdm", silent), np.errstate(all="ignore"):
                found = engine.get_cam_image(one, layer.module, [lambda logit: direction * logit], points, None)
        finally:  # when the package is interrupted, it leaves a hook or its own layer behind
            replace_layer_recursive(alone, ablation, layer.module)
            for name in layer.module._forward_hooks.keys() - hooks.keys():
                del layer.module._forward_hooks[name]
        if method == "ablationcam":
            found = np.sign(direction * alone(one).cpu().numpy()) * found
        maps.append(torch.from_numpy(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)))  # a score of 0 has no shares
    return torch.cat(maps).to(image.device)
