"""Heatmaps: every layer of a model from one pass, against pytorch-grad-cam, which is called once for each layer.

    python -m tests.bench.heatmaps --backbone efficientnet_b0 --image-size 256 --n-images 8

Weights are random, since the time does not depend on them. That both give the same maps is held by the tests of `explain`.
"""

from functools import partial

import pandas as pd
import pytorch_grad_cam
import torch

from melanoma_lib.explain import ImageOnly, cam_layers, heatmaps
from melanoma_lib.explain.cam import PUBLISHED
from melanoma_lib.model import MelanomaNet
from tests.bench.turns import options, take_turns

N_METADATA = 5


def main(words: list[str] | None = None) -> list[pd.DataFrame]:
    given = options(__doc__, words, backbone="efficientnet_b0", image_size=128, n_images=4, rounds=3, threads=1)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model = MelanomaNet(given.backbone, N_METADATA, pretrained=False).eval()
    image, metadata = torch.randn(given.n_images, 3, given.image_size, given.image_size), torch.randn(given.n_images, N_METADATA)
    layers, found = cam_layers(model).values(), []

    def published(method):
        for layer in layers:
            as_maps = partial(layer.as_maps, image_size=image.shape[2:])
            with getattr(pytorch_grad_cam, PUBLISHED[method])(ImageOnly(model, metadata), [layer.module], as_maps) as cam:
                cam(image, targets=[lambda logit: logit] * len(image))

    for method in ("gradcam", "layercam", "eigencam"):
        ours = partial(heatmaps, model, image, metadata, None, method, size=given.image_size)
        what = f"{method}, {len(layers)} layers of {given.backbone}, {given.n_images} images of {given.image_size} px"
        found.append(take_turns(what, {"kit": ours, "pytorch-grad-cam": partial(published, method)}, given.rounds))
    return found


if __name__ == "__main__":
    main()
