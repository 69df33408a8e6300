"""Heatmaps: every layer of a model from one pass, against pytorch-grad-cam, which is called once for each layer.

    python -m tests.bench.heatmaps --method eigencam --backbone efficientnet_b0 --image-size 256 --n-images 8

Weights are random, since the time does not depend on them. That both give the same maps is held by the tests of `explain`.
"""

from functools import partial

import pandas as pd
import pytorch_grad_cam
import torch

from melanoma_lib.explain import ImageOnly, cam_layers, heatmaps
from melanoma_lib.explain.cam import PUBLISHED
from melanoma_lib.model import MelanomaNet
from tests.bench.turns import options, table, take_turns

N_METADATA = 5
METHODS = ("gradcam", "layercam", "eigencam")


def main(words: list[str] | None = None) -> dict[str, pd.DataFrame]:
    given = options(
        __doc__, words, method="", backbone="efficientnet_b0", image_size=128, n_images=4, rounds=3, seed=0, threads=1
    )
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    model = MelanomaNet(given.backbone, N_METADATA, pretrained=False).eval()
    image, metadata = torch.randn(given.n_images, 3, given.image_size, given.image_size), torch.randn(given.n_images, N_METADATA)
    layers, found = cam_layers(model).values(), {}
    for method in [given.method] if given.method else METHODS:
        contenders = {
            "kit": lambda _, method=method: heatmaps(model, image, metadata, None, method, size=given.image_size),
            "pytorch-grad-cam": lambda _, method=method: [published(method, model, layer, image, metadata) for layer in layers],
        }
        what = f"{method}, {len(layers)} layers of {given.backbone}, {given.n_images} images of {given.image_size} px"
        found[method] = take_turns(what, contenders, given.rounds)
        print(table(what, found[method]))
    return found


def published(method, model, layer, image, metadata):
    """The maps of one layer and all images at once."""
    as_maps = partial(layer.as_maps, image_size=image.shape[2:])
    with getattr(pytorch_grad_cam, PUBLISHED[method])(ImageOnly(model, metadata), [layer.module], as_maps) as cam:
        return cam(image, targets=[lambda logit: logit] * len(image))


if __name__ == "__main__":
    main()
