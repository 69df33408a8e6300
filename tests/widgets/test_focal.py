"""FocalLossExplorer: its numbers against high precision, its values, its answers without a page."""

import numpy as np
import pytest

from melanoma_lib.losses import FocalLoss
from melanoma_lib.widgets import FocalLossExplorer
from melanoma_lib.widgets.focal import PRESETS, focal_numbers
from tests.test_losses import exact

NUMBERS = ("melanoma_loss", "other_loss", "melanoma_slope", "other_slope", "risk")


@pytest.mark.parametrize(("alpha", "gamma"), [(None, 0.0), (None, 2.0), (0.25, 2.0), (0.9, 0.5), (0.05, 5.0)])
def test_numbers_are_those_of_the_definition_at_any_logit(alpha, gamma):
    logits = [-40.0, -12.0, -3.3, -0.2, 0.0, 1.7, 9.0, 30.0]
    given = focal_numbers(alpha, gamma, logits)
    melanoma, other = (np.array([exact(logit, target, alpha, gamma) for logit in logits]).T for target in (1, 0))
    risk = other[1] / (other[1] - melanoma[1])  # where risk * slope of a melanoma + (1 - risk) * slope of another = 0
    wanted = (melanoma[0], other[0], melanoma[1], other[1], risk)
    for name, expected in zip(NUMBERS, wanted, strict=True):
        # An output is a float64: near 1 its complement, and so a risk's last digits, are lost.
        np.testing.assert_allclose(given[name], expected, rtol=1e-9, atol=1e-14 if name == "risk" else 1e-300)


def test_a_page_without_a_kernel_gets_the_presets_with_their_numbers():
    data, metadata = FocalLossExplorer()._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    alt = metadata["image/png"]["alt"]
    for name, (alpha, gamma) in PRESETS.items():
        (melanoma, *_), (other, *_) = (exact(0.0, target, alpha, gamma) for target in (1, 0))
        risk = FocalLoss(alpha, gamma).true_risk(0.5)
        assert f"{name}: loss of a melanoma {melanoma:.3f}, of another lesion {other:.3f}, risk {risk:.2f}" in alt
