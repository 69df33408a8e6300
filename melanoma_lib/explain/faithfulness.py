"""Does the score fall when what a heatmap points at is taken away? Deletion and insertion, for many maps at once.

A share of the pixels is replaced by an image that stands for "nothing there", in the order of the map, most relevant first and
least relevant first. The model has seen no such image, so believe a verdict that holds for both kinds; pytorch-grad-cam's ROAD
fills the holes from their surroundings.

The score is the logit, times the direction: a probability saturates. The verdict is the area *between* the two curves: one curve
alone rewards whoever breaks the image fastest, and for pixels removed in a random order both are the same on average. Pixels of
equal relevance are removed in one random order, the same at both ends, so that a constant map scores exactly 0.

Sources: Petsiuk, Das and Saenko 2018, "RISE", deletion and insertion; Blücher, Vielhaben and Strodthoff 2024, "Decoupling pixel
flipping and occlusion strategy for consistent XAI benchmarks", the area between both orders.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from torch import Tensor
from torch.nn import functional

from melanoma_lib.inference import undisturbed
from melanoma_lib.model import MelanomaNet

BLUR = 1 / 16  # of the side: wide enough to dissolve pigment network, hair and rulers, while the lesion stays a shadow


@dataclass(frozen=True)
class Perturbed:
    """Scores of images from which more and more is removed, by two orders; with one map a case there is no axis ``K``.

    Attributes:
        shares: of the pixels removed, increasing, shape ``(S,)``.
        most: logit times direction without the most relevant pixels, shape ``(B, K, S)``: the deletion curve.
        least: the same without the least relevant ones: the insertion curve, read from its end.
    """

    shares: NDArray[np.float64]
    most: NDArray[np.float64]
    least: NDArray[np.float64]

    def gain(self) -> NDArray[np.float64]:
        """Area between the curves in logits, shape ``(B, K)``: 0 by chance, high is good, below 0 is worse than no map."""
        return self._area(self.least) - self._area(self.most)

    @property
    def deletion(self) -> NDArray[np.float64]:
        """Area under the probability as published, shape ``(B, K)``: low is good."""
        return self._area(expit(self.most))

    @property
    def insertion(self) -> NDArray[np.float64]:
        """Area under the probability as published, shape ``(B, K)``: high is good."""
        return self._area(expit(self.least))

    def _area(self, curve: NDArray[np.float64]) -> NDArray[np.float64]:
        """Area under a curve from share 0 to share 1: the mean on the way."""
        return np.trapezoid(curve, self.shares, axis=-1)


def deletion_insertion(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor | None,
    maps: ArrayLike | Tensor,
    direction: int = 1,
    steps: int = 10,
    baseline: Literal["blur", "mean"] = "blur",
    seed: int = 0,
) -> Perturbed:
    """Scores while an image turns into one that shows nothing, and back.

    Args:
        model: with an image branch; left as it was.
        image: normalised images, shape ``(B, 3, H, W)``.
        metadata: encoded metadata, shape ``(B, n_metadata)``; None for a model without metadata branch.
        maps: signed relevance for the direction, one map a case, shape ``(B, h, w)``, or several, shape ``(B, K, h, w)``;
            enlarged bilinearly to the image.
        direction: 1 for the score of melanoma, -1 for that of other lesions.
        steps: from the whole image to none of it; a map costs ``2 * (steps + 1)`` images.
        baseline: what stands for nothing: "blur", the image without detail, in which the lesion is still a shadow, or "mean",
            its mean colour, against which the border of what is removed is an edge of its own.
        seed: of the order among pixels of equal relevance.

    Returns:
        The curves, of ``steps + 1`` points from share 0 to share 1.

    Raises:
        ValueError: if an argument is not among those that work, maps do not fit the images, or a map or score is not finite.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if baseline not in ("blur", "mean"):
        raise ValueError(f"baseline: expected blur or mean, got {baseline!r}")
    if direction not in (1, -1):
        raise ValueError(f"direction: expected 1 (melanoma) or -1 (other lesion), got {direction!r}")
    maps = torch.as_tensor(maps, dtype=torch.float64, device="cpu")  # or rounding would order pixels of equal relevance
    if maps.ndim not in (3, 4) or len(maps) != len(image) or not maps.numel():
        raise ValueError(
            "maps: expected shape (B, h, w) or (B, K, h, w) for images (B, 3, H, W), "
            f"got {tuple(maps.shape)} for {tuple(image.shape)}"
        )
    if not torch.isfinite(maps).all():
        raise ValueError(f"maps: expected finite values, got {int((~torch.isfinite(maps)).sum())} that are not")
    stacked, size, device = maps.unsqueeze(1) if maps.ndim == 3 else maps, image.shape[-2:], next(model.parameters()).device
    enlarged = functional.interpolate(stacked, size, mode="bilinear", align_corners=False).float().flatten(2)  # (B, K, P)
    equals = torch.randperm(size.numel(), generator=torch.Generator().manual_seed(seed))  # the order of equals
    nothing = _blurred(image) if baseline == "blur" else image.mean((2, 3), keepdim=True).expand_as(image)
    shares = np.arange(steps + 1) / steps
    counts = torch.from_numpy(np.round(shares * size.numel()))[:, None]  # (S, 1)
    curves = np.empty((2, *stacked.shape[:2], steps + 1))
    with undisturbed(model):
        for end, case, one in np.ndindex(curves.shape[:3]):
            sequence = equals[enlarged[case, one, equals].argsort(descending=end == 0, stable=True)]  # stable: equals as they are
            rank = torch.empty_like(sequence).scatter_(0, sequence, torch.arange(len(sequence)))  # when each pixel goes
            removed = (rank < counts).view(-1, 1, *size).to(image.device)  # (S, 1, H, W)
            altered = torch.where(removed, nothing[case], image[case]).to(device)  # (S, 3, H, W)
            held = None if metadata is None else metadata[case : case + 1].expand(len(altered), -1).to(device)
            curves[end, case, one] = direction * model(altered, held).double().cpu().numpy()
    if not np.isfinite(curves).all():
        raise ValueError(
            f"expected finite logits, got {curves.ravel()[:9].tolist()}; look for NaN in image, metadata and weights"
        )
    most, least = curves if maps.ndim == 4 else curves[:, :, 0]
    return Perturbed(shares, most, least)


def _blurred(image: Tensor) -> Tensor:
    """Images behind a Gaussian whose standard deviation is a share of the side, mirrored at the border."""
    from scipy.ndimage import gaussian_filter

    sigma = (0, 0, BLUR * image.shape[-2], BLUR * image.shape[-1])
    return torch.from_numpy(gaussian_filter(image.cpu().numpy(), sigma, mode="reflect")).to(image.device)
