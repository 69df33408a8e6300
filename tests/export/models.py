"""Small models and their records, to be exported in the tests."""

import torch
from PIL import Image

from melanoma_lib.data.images import backbone_normalisation, stored_side
from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.inference.document import Document, Preprocessing, Reading
from melanoma_lib.model import MelanomaNet
from tests.data.builders import encoded, pixels

ENCODER = MetadataEncoder(age_mean=50, age_std=15)


def model_of(backbone: str, modalities: str = "image+metadata") -> MelanomaNet:
    """A model whose logits of different cases differ visibly, with batch statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    model = MelanomaNet(backbone, ENCODER.n_features, False, modalities, metadata_hidden=8)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.head[-1].weight.data.normal_()
    return model.eval()


def document_of(model: MelanomaNet, image_size: int, **changes) -> Document:
    """A record that fits the model; its numbers are invented."""
    reading = Reading(
        slope=1.5, intercept=-0.25, threshold=0.4, rule="invented", sensitivity=0.95, specificity=0.6, prevalence=0.1,
        checkpoint_sha256="c" * 64, predictions_sha256="p" * 64,
        test={"at_threshold": {"tp": 9, "fp": 3, "tn": 7, "fn": 1, "sensitivity": {}, "specificity": {}}},
    )  # fmt: skip
    shape = Preprocessing(stored_side(image_size), image_size, **backbone_normalisation(model.backbone))
    values = {
        "run": "tiny", "source": "ham10000", "licence": "none", "backbone": model.backbone, "modalities": model.modalities,
        "checkpoint_sha256": "c" * 64, "kit": "0", "readings": {"1": reading},
        "preprocessing": shape if "image" in model.modalities else None,
        "encoder": ENCODER if "metadata" in model.modalities else None,
    }  # fmt: skip
    return Document(**values | changes)


def picture(size: tuple[int, int], kind: str = "JPEG") -> bytes:
    """An image file of smooth noise."""
    return encoded(Image.fromarray(pixels(9, 12)).resize(size, Image.Resampling.BICUBIC), kind)
