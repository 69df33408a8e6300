"""pytorch-grad-cam asked for the kit's maps: the peer of the benchmark and the oracle of the tests."""

import numpy as np

PEERS = {  # methods that both have and that need no further pass for each channel
    "eigencam": "EigenCAM",
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "layercam": "LayerCAM",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "eigengradcam": "EigenGradCAM",
}
NAMELESS_SIGN = ("eigencam", "eigengradcam")  # of which pytorch-grad-cam leaves the sign to the decomposition


def peer_maps(method: str, model, image, metadata, layer: str, direction: int = 1) -> np.ndarray:
    """The finished maps of one layer as pytorch-grad-cam gives them.

    Args:
        method: one of ``PEERS``.
        model: a :class:`~melanoma_lib.model.MelanomaNet` in evaluation mode.
        image: tensor, shape ``(B, 3, H, W)``.
        metadata: tensor, shape ``(B, n_metadata)``, held by a wrapper because pytorch-grad-cam passes on one input.
        layer: name from :func:`~melanoma_lib.explain.cam_layers`.
        direction: 1 or -1.

    Returns:
        Shape ``(B, H, W)``, negative values cut off, each map stretched to [0, 1].
    """
    import pytorch_grad_cam

    from melanoma_lib.explain import cam_layers

    found = cam_layers(model)[layer]
    engine = getattr(pytorch_grad_cam, PEERS[method])(
        held(model, metadata), [found.module], reshape_transform=lambda output: found.as_maps(output, image.shape[2:])
    )
    with engine:
        return engine(image, targets=[lambda logit: direction * logit] * len(image))


def held(model, metadata):
    """The model with its metadata held, as a module of one input, which is all that pytorch-grad-cam can pass on."""
    import torch

    class Held(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return model(image, metadata if len(image) == len(metadata) else metadata.expand(len(image), -1))

    return Held()


def stretched(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What pytorch-grad-cam makes of signed maps: no negatives, stretched to [0, 1], enlarged, stretched again.

    Args:
        maps: shape ``(B, h, w)``.
        size: width and height wanted.

    Returns:
        Shape ``(B, height, width)``.
    """
    from pytorch_grad_cam.utils.image import scale_cam_image

    return scale_cam_image(np.maximum(scale_cam_image(np.maximum(maps, 0), size), 0))


def largest_difference(ours: np.ndarray, theirs: np.ndarray, method: str) -> np.ndarray:
    """How far maps lie apart at most, case by case, up to the sign of the maps where a component has none.

    Args:
        ours: signed maps, shape ``(B, h, w)``.
        theirs: finished maps of pytorch-grad-cam, shape ``(B, H, W)``.
        method: of both.

    Returns:
        Shape ``(B,)``.
    """
    size = theirs.shape[:0:-1]
    found = np.abs(stretched(ours, size) - theirs).max((1, 2))
    return np.minimum(found, np.abs(stretched(-ours, size) - theirs).max((1, 2))) if method in NAMELESS_SIGN else found
