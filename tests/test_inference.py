import numpy as np
import pytest
import torch

from melanoma_lib.inference import predict_logits
from tests.explain.nets import cases, small_net

NET = "test_efficientnet"


def batches(image, metadata, size, with_image=True):
    for start in range(0, len(metadata), size):
        rows = slice(start, start + size)
        yield {"metadata": metadata[rows]} | ({"image": image[rows]} if with_image else {})


@pytest.mark.parametrize("modalities", ["image+metadata", "image", "metadata"])
@pytest.mark.parametrize("size", [3, 100])
def test_batching_changes_neither_order_nor_logits(modalities, size):
    model, (image, metadata) = small_net(NET, modalities=modalities), cases(NET, 7)
    logits = predict_logits(model, batches(image, metadata, size, with_image="image" in modalities))
    with torch.no_grad():
        expected = torch.cat([model.eval()(image[i : i + 1], metadata[i : i + 1]) for i in range(7)])
    assert (logits.dtype, logits.shape) == (np.float64, (7,))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_every_part_of_the_model_is_left_in_the_mode_it_was_in():
    model, (image, metadata) = small_net(NET).train(), cases(NET, 7)
    model.image_branch.eval()  # as while only the head learns
    modes = [module.training for module in model.modules()]
    predict_logits(model, batches(image, metadata, 3))
    with pytest.raises(ValueError, match="metadata expects"):
        predict_logits(model, batches(image, metadata[:, :3], 3))
    assert [module.training for module in model.modules()] == modes
