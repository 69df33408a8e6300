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
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batching_changes_neither_order_nor_logits(modalities, size):
    model, (image, metadata) = small_net(NET, modalities=modalities), cases(NET, 7)
    logits = predict_logits(model, batches(image, metadata, size, with_image="image" in modalities))
    with torch.no_grad():
        expected = torch.cat([model.eval()(image[i : i + 1], metadata[i : i + 1]) for i in range(7)])
    assert (logits.dtype, logits.shape) == (np.float64, (7,))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_test_time_augmentation_is_the_mean_logit_of_the_eight_symmetries():
    model, (image, metadata) = small_net(NET), cases(NET, 7)
    views = [np.rot90(start, turns, (2, 3)).copy() for start in (image.numpy(), image.numpy()[..., ::-1]) for turns in range(4)]
    with torch.no_grad():
        expected = np.mean([model.eval()(torch.from_numpy(view), metadata).numpy() for view in views], axis=0)
    logits = predict_logits(model, batches(image, metadata, 3), tta=True)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(logits - predict_logits(model, batches(image, metadata, 3))).max() > 1e-4  # the views do differ


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_every_part_of_the_model_is_left_in_the_mode_it_was_in(training, fails):
    model, (image, metadata) = small_net(NET).train(training), cases(NET, 7)
    model.image_branch.eval()  # as while only the head learns
    modes = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(ValueError, match="metadata expects"):
            predict_logits(model, batches(image, metadata[:, :3], 3))
    else:
        predict_logits(model, batches(image, metadata, 3))
    assert [module.training for module in model.modules()] == modes


def test_no_case_at_all_is_an_error():
    with pytest.raises(ValueError, match="at least one batch"):
        predict_logits(small_net(NET, modalities="metadata"), [])
