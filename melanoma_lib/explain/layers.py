"""Which layers of a backbone give a heatmap: their names, how coarse they are, and which one to show first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch
from torch import Tensor, nn

from melanoma_lib.errors import ExplanationError
from melanoma_lib.model import MelanomaNet

MIN_GRID = 7  # points a side below which a map only says "somewhere here"
METHOD_NAMES = {
    "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "layercam": "LayerCAM", "xgradcam": "XGrad-CAM", "hirescam": "HiResCAM",
    "eigencam": "EigenCAM", "eigengradcam": "EigenGradCAM", "scorecam": "Score-CAM",
}  # fmt: skip


@dataclass(frozen=True)
class CamLayer:
    """A layer of the image branch whose output is a grid of points, each described by its channels."""

    name: str  # of the module within model.image_branch
    module: nn.Module
    stride: int  # pixels of the image between two neighbouring points
    channels: int  # values a point has
    layout: str  # of the module's output: NCHW, NHWC, or NLC for the tokens of a transformer
    prefix: int  # tokens that precede those of the image, such as the class token; 0 except for NLC

    def as_maps(self, output: Tensor, image_size: tuple[int, int]) -> Tensor:
        """What the module put out for images of this height and width as one map per channel, shape ``(B, channels, h, w)``."""
        if self.layout == "NCHW":
            return output
        if self.layout == "NLC":
            height, width = image_size
            tokens = output[:, self.prefix :]  # (B, prefix + h * w, C) -> (B, h * w, C)
            rows = round(math.sqrt(tokens.shape[1] * height / width))
            output = tokens.unflatten(1, (rows, -1))  # -> (B, h, w, C)
        return output.movedim(-1, 1)  # (B, h, w, C) -> (B, C, h, w)


class CamLayers(dict[str, CamLayer]):
    """Layers by name, early to late; printed, they are a table."""

    @property
    def table(self) -> pd.DataFrame:
        """``stride`` in pixels and number of ``channels`` by layer."""
        rows = [(name, layer.stride, layer.channels) for name, layer in self.items()]
        return pd.DataFrame(rows, columns=["layer", "stride", "channels"]).set_index("layer")

    def __repr__(self) -> str:
        return self.table.to_string()

    def _repr_html_(self) -> str:
        return self.table.to_html()


def cam_layers(model: MelanomaNet) -> CamLayers:
    """Layers that :func:`~melanoma_lib.explain.heatmaps` can draw, early to late.

    They are the ends of the stages as timm's ``feature_info`` lists them (the blocks, for a vision transformer), and the map that
    the pooling averages where this is yet another one (``bn2`` of an EfficientNet). Of a transformer that answers from its class
    token the last block stands with its first norm: past its attention, the image's own tokens no longer reach the logit.

    Raises:
        ExplanationError: if the model has no image branch, or none of the layers puts out a grid in the order of the image.
    """
    if model.image_branch is None:
        raise ExplanationError("heatmaps need a model that looks at images: train one with modalities image+metadata or image")
    if not (described := _describe(model.backbone)):
        raise ExplanationError(
            f"backbone {model.backbone!r} has no layer whose points lie in the order of the image; convolutional networks, "
            "ConvNeXt, Swin and plain vision transformers have"
        )
    return CamLayers({name: CamLayer(name, model.image_branch.get_submodule(name), **facts) for name, facts in described.items()})


def default_layer(layers: Mapping[str, CamLayer], image_size: int) -> str:
    """The last layer whose grid, on images of this many pixels a side, is fine enough to point; the first where none is."""
    fine = [name for name, layer in layers.items() if layer.stride * MIN_GRID <= image_size]
    return (fine or list(layers)[:1])[-1]


@cache
def _describe(backbone: str) -> dict[str, dict]:
    """Facts of each usable layer, from sending an image through a copy of the backbone that has shapes but no numbers."""
    import timm

    outputs: dict[str, object] = {}
    with torch.device("meta"), torch.no_grad():
        net = timm.create_model(backbone, pretrained=False, num_classes=0).eval()
        for name, module in net.named_modules():
            module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.update({name: output}))
        _, *size = net.pretrained_cfg.get("input_size") or (3, 224, 224)
        pooled = net.forward_features(torch.empty(1, 3, *size))
    stages = [] if hasattr(net, "reroll") else getattr(net, "feature_info", [])  # Hiera orders its tokens by windows
    from_token = getattr(net, "global_pool", None) == "token"
    found: dict[str, dict] = {}
    for stage in stages:
        name = stage["module"]
        facts = _facts(outputs.get(name), stage["num_chs"], stage["reduction"], size)
        if facts and facts["prefix"] and from_token and stage is stages[-1]:
            name = f"{name}.norm1"
        if facts and name in outputs:
            found[name] = facts
    # The map that the pooling averages, by the outermost module that puts it out, if it is a new one on the last one's grid.
    name = next((name for name, output in reversed(outputs.items()) if output is pooled), None)
    if found and name and not any(outputs[other] is pooled for other in found) and not (from_token and pooled.ndim == 3):
        last, known = next(reversed(found.items()))
        if pooled.numel() // net.num_features == outputs[last].numel() // known["channels"]:
            found |= {name: facts} if (facts := _facts(pooled, net.num_features, known["stride"], size)) else {}
    return found


def _facts(output: object, channels: int, stride: int, image_size: list[int]) -> dict | None:
    """What there is to know of a module's output, or None if it is no grid with these channels."""
    shape, layout, prefix = getattr(output, "shape", ()), None, 0
    if len(shape) == 4:
        layout = "NCHW" if shape[1] == channels else "NHWC" if shape[3] == channels else None
    elif len(shape) == 3 and shape[2] == channels:
        prefix = shape[1] - math.prod(math.ceil(side / stride) for side in image_size)
        layout = "NLC" if prefix >= 0 else None
    return {"stride": stride, "channels": channels, "layout": layout, "prefix": prefix} if layout else None
