"""Our model of two inputs for packages that pass on one: what is asked of pytorch-grad-cam goes through here."""

import copy
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from melanoma_lib.explain.layers import cam_layers
from melanoma_lib.model import MelanomaNet

PUBLISHED = {  # classes of pytorch-grad-cam
    "gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "layercam": "LayerCAM", "xgradcam": "XGradCAM", "hirescam": "HiResCAM",
    "eigencam": "EigenCAM", "eigengradcam": "EigenGradCAM", "scorecam": "ScoreCAM",
}  # fmt: skip


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


def published_maps(
    method: str, model: MelanomaNet, layers: Sequence[str], image: Tensor, metadata: Tensor | None, direction: int
) -> dict[str, np.ndarray]:
    """Maps of some layers as pytorch-grad-cam gives them, float32 in [0, 1], shape ``(B, H, W)`` each.

    Arguments are those of :func:`~melanoma_lib.explain.heatmaps`, ``method`` one of ``PUBLISHED``; ValueError if a logit is not
    finite. A copy of the model is asked, since an interrupted call would leave its hooks behind.
    """
    import pytorch_grad_cam  # seven seconds

    target, maps, silent = lambda logit: direction * logit, {layer: [] for layer in layers}, SimpleNamespace(tqdm=iter)
    with torch.inference_mode(False), torch.enable_grad(), mock.patch.object(pytorch_grad_cam.score_cam, "tqdm", silent):
        twin = copy.deepcopy(model).eval().requires_grad_(True)  # the package refuses frozen models
        for case in range(len(image)):
            one = image[case : case + 1].clone()  # an inference tensor would stop the backward pass
            alone = ImageOnly(twin, None if metadata is None else metadata[case : case + 1].clone())
            if not torch.isfinite(logit := alone(one)).all():
                raise ValueError(f"expected finite logits, got {logit.item()}; look for NaN in image, metadata and weights")
            for layer, found in maps.items():
                grid = cam_layers(twin)[layer]
                as_maps = partial(grid.as_maps, image_size=image.shape[2:])
                with getattr(pytorch_grad_cam, PUBLISHED[method])(alone, [grid.module], as_maps) as cam:
                    found.append(cam(one, [target])[0])
    return {layer: np.stack(found) for layer, found in maps.items()}
