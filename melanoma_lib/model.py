"""MelanomaNet: a timm image branch and a metadata branch, concatenated into one logit."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Modalities = Literal["image+metadata", "image", "metadata"]


class MelanomaNet(nn.Module):
    """Fusion model with one logit; either branch can be left out for ablations.

    Args:
        backbone: name of a timm model.
        n_metadata: width of the encoded metadata.
        pretrained: start the image branch from ImageNet weights.
        modalities: which branches the model has.
        metadata_hidden: width of the metadata branch, or of each of its layers.
        dropout: rate in the metadata branch and before the logit.
        drop_path: stochastic depth rate of the image branch, ignored by backbones without it.
        prior: what the untrained model answers on average, in (0, 1), so that the first steps do not unlearn a wrong base rate;
            with focal loss ``FocalLoss.optimal_probability(prevalence)``.

    Raises:
        WeightsUnavailableError: if pretrained weights are asked for and not to be had.
        SettingsError: if timm knows no such backbone.
        ValueError: if prior is not strictly between 0 and 1.
    """

    def __init__(
        self,
        backbone: str,
        n_metadata: int,
        pretrained: bool = True,
        modalities: Modalities = "image+metadata",
        metadata_hidden: int | Sequence[int] = 64,
        dropout: float = 0.2,
        drop_path: float = 0.0,
        prior: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.n_metadata, self.modalities = backbone, n_metadata, modalities
        self.image_branch = image_branch(backbone, pretrained, drop_path) if "image" in modalities else None
        self.metadata_branch, self.n_features = None, 0
        if self.image_branch is not None:
            self.n_features += self.image_branch.head_hidden_size
        if "metadata" in modalities:
            widths = (n_metadata, *([metadata_hidden] if isinstance(metadata_hidden, int) else metadata_hidden))
            layers = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(widths)]
            self.metadata_branch = nn.Sequential(*chain(*layers))
            self.n_features += widths[-1]
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.n_features, 1))
        if prior is not None:
            if not 0 < prior < 1:
                raise ValueError(f"prior expects a probability strictly between 0 and 1, got {prior}")
            nn.init.constant_(self.head[-1].bias, math.log(prior / (1 - prior)))

    def forward(self, image: Tensor | None, metadata: Tensor | None) -> Tensor:
        """Logits of melanoma, shape ``(B,)``, from normalised images ``(B, 3, H, W)`` and encoded metadata ``(B, n_metadata)``.

        What no branch looks at may be None; ValueError if an input that a branch needs is missing or misshapen.
        """
        return self.head(self.features(image, metadata)).squeeze(1)  # (B, n_features) -> (B, 1) -> (B,)

    def features(self, image: Tensor | None, metadata: Tensor | None) -> Tensor:
        """What the branches give the head, side by side, shape ``(B, n_features)``; inputs and errors as of :meth:`forward`."""
        features = []
        if self.image_branch is not None:
            if image is None or image.ndim != 4 or image.shape[1] != 3:
                raise ValueError(f"image expects shape (B, 3, H, W), got {None if image is None else tuple(image.shape)}")
            features.append(self.image_branch(image))  # (B, 3, H, W) -> (B, F)
        if self.metadata_branch is not None:
            if metadata is None or metadata.ndim != 2 or metadata.shape[1] != self.n_metadata:
                got = None if metadata is None else tuple(metadata.shape)
                raise ValueError(f"metadata expects shape (B, {self.n_metadata}), got {got}")
            features.append(self.metadata_branch(metadata))  # (B, M) -> (B, width)
        return torch.cat(features, dim=1)  # (B, F), (B, width) -> (B, n_features)


def image_branch(backbone: str, pretrained: bool, drop_path: float = 0.0) -> nn.Module:
    """The image branch: a timm model that ends in pooled features, shape ``(B, head_hidden_size)``."""
    import timm

    from melanoma_lib.weights import pretrained_backbone, timm_config

    timm_config(backbone)  # a misspelt name is an error of its own, not one of missing weights
    make = pretrained_backbone if pretrained else partial(timm.create_model, pretrained=False, num_classes=0)
    if drop_path:
        try:
            return make(backbone, drop_path_rate=drop_path)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            if "drop_path_rate" not in str(error):
                raise
    return make(backbone)


def size_problem(backbone: str, image_size: int) -> str:
    """Why a backbone takes no images of this many pixels a side, empty where it does; found out without weights and numbers."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # a training draws the same numbers, asked or not
        branch = image_branch(backbone, pretrained=False)
        try:
            found = tuple(branch(torch.empty(2, 3, image_size, image_size)).shape)
        except Exception as error:  # of whatever kind the model's own code raises
            found = f"{type(error).__name__}: {error}".splitlines()[0]
    if found == (2, branch.head_hidden_size):
        return ""
    made_for = branch.pretrained_cfg["input_size"][-1]
    return f"{backbone} takes no images of {image_size} pixels ({found}); it was made for {made_for}: --image-size {made_for}"


def hold_early(branch: nn.Module, stride: int) -> None:
    """Keep the early stages of an image branch as they are: no gradients, batch statistics as pretrained.

    The last stage held of the timm model works at a reduction of the image's side by ``stride``, or finer; 0 holds nothing. Edges
    and colours, learnt from a million photographs, serve skin as well.
    """
    modules, stages = dict(branch.named_modules()), getattr(branch, "feature_info", [])
    held = [info["module"] for info in stages if info["reduction"] <= stride and info["module"] in modules]
    if not held:  # some models have no so early stage, or name none of their modules
        return
    last = max(i for i, name in enumerate(modules) if name == held[-1] or name.startswith(f"{held[-1]}."))
    for module in list(modules.values())[: last + 1]:
        for parameter in module.parameters(recurse=False):  # its own: a container may hold later stages too
            parameter.requires_grad_(False)
        module.training = module is branch and module.training
