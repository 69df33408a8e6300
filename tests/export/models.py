"""Small models and their records, to be exported in the tests."""

import io

import numpy as np
import torch
from PIL import Image

from melanoma_lib.data.images import backbone_normalisation, stored_side
from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.inference.document import Document, Preprocessing, Reading
from melanoma_lib.model import MelanomaNet

ENCODER = MetadataEncoder(age_mean=50, age_std=15)


def model_of(backbone: str, modalities: str = "image+metadata", pretrained: bool = False) -> MelanomaNet:
    """A model whose logits of different cases differ visibly, with batch statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    model = MelanomaNet(backbone, ENCODER.n_features, pretrained, modalities, metadata_hidden=8)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not pretrained:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.head[-1].weight.data.normal_(std=model.n_features**-0.5 if pretrained else 1)  # logits as large as trained ones
    return model.eval()


def document_of(model: MelanomaNet, image_size: int, **changes) -> Document:
    """A record that fits the model; its numbers are invented."""
    reading = Reading(
        slope=1.5, intercept=-0.25, threshold=0.4, rule="invented", sensitivity=0.95, specificity=0.6, prevalence=0.1,
        checkpoint_sha256="c" * 64, predictions_sha256="p" * 64, test={"note": "invented"},
    )  # fmt: skip
    shape = Preprocessing(stored_side(image_size), image_size, **backbone_normalisation(model.backbone))
    values = {
        "run": "tiny", "source": "ham10000", "licence": "none", "backbone": model.backbone, "modalities": model.modalities,
        "checkpoint_sha256": "c" * 64, "kit": "0", "readings": {"1": reading},
        "preprocessing": shape if "image" in model.modalities else None,
        "encoder": ENCODER if "metadata" in model.modalities else None,
    }  # fmt: skip
    return Document(**values | changes)


def picture(size: tuple[int, int], mode: str = "RGB", seed: int = 0, orientation: int = 1, kind: str = "JPEG") -> bytes:
    """An image file of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()
