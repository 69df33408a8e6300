"""From what a layer put out, and how the score depends on it, to one map: the published methods, in a few lines each.

But for the eigen methods a map is ``sum over channels of weight * activation``, and the methods differ in the weight. All are
published with a ReLU at the end, which hides what speaks against the score; here that is left to whoever draws.

Activations and gradients have the shape ``(B, C, h, w)``; a map has ``(B, h, w)``, and no unit.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# A sum this small beside that of the magnitudes says nothing: before layer norms it is 1e-7 to 1e-4, elsewhere around 1e-2.
CANCELS = 5e-4


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weight: the channel's mean gradient. Signed: positive is what raises the score.

    Source: Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2 without the ReLU.
    """
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weight: the channel's positive gradients, the more of each the fewer they are.

    Signed: the ReLU inside the weight belongs to the method and stays, so only what raises the score is weighed; a negative value
    comes from a negative activation and is no evidence against. The formula is made for activations behind a ReLU; where they
    have both signs, its denominator can come close to zero and the map is ruled by a few exploding points.

    Source: Chattopadhay et al. 2018, "Grad-CAM++", equations 7 and 19.
    """
    squares = gradients**2
    # Next to a zero of the denominator the last digit decides: with numpy's order of summation it is that of pytorch-grad-cam.
    totals = torch.from_numpy(activations.cpu().numpy().sum((2, 3), keepdims=True)).to(activations.device)
    share = squares / (2 * squares + totals * (squares * gradients) + 1e-6)
    return ((gradients.relu() * share).sum((2, 3), keepdim=True) * activations).sum(1)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weight: each point's own positive gradient.

    Signed: as in Grad-CAM++ the ReLU on the gradients stays; after a ReLU layer the map has no negative values at all.

    Source: Jiang et al. 2021, "LayerCAM".
    """
    return (gradients.relu() * activations).sum(1)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weight: each point's own gradient. Signed: positive is what raises the score.

    On the map that the pooling averages, it equals Grad-CAM when a linear layer follows. Before a layer norm, as inside ConvNeXt
    and transformers, scaling a point does not change the score, so the sum cancels down to rounding error; the map is zero.

    Source: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM".
    """
    product = gradients * activations
    total, size = product.sum(1), product.abs().sum(1)
    is_rounding = total.abs().amax((1, 2), keepdim=True) < CANCELS * size.amax((1, 2), keepdim=True)
    return total.masked_fill(is_rounding, 0)


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weight: the channel's gradients averaged in proportion to its activations. Signed: positive is what raises the score.

    Where the activations have both signs their sum can be close to nothing, and the weight explodes.

    Source: Fu et al. 2020, "Axiom-based Grad-CAM".
    """
    total = activations.sum((2, 3), keepdim=True) + 1e-7
    return ((gradients * activations / total).sum((2, 3), keepdim=True) * activations).sum(1)


def eigencam(activations: Tensor, _gradients: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """First principal component of the activations: knows neither gradient nor class, so both directions share the map.

    Signed: a component has no sign of its own. It is turned so that it correlates positively with the norm over the channels:
    positive means "responds more strongly than elsewhere", never "speaks for melanoma". The correlation, shape ``(B,)``, comes
    with the map; close to 0, the sign is a toss of a coin.

    Source: Muhammad and Yeasin 2020, "Eigen-CAM", with the activations centred as pytorch-grad-cam does.
    """
    return principal_map(activations, activations.norm(dim=1))


def eigengradcam(activations: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """First principal component of gradient times activation.

    Signed: turned so that it correlates positively with their sum over the channels (HiResCAM): positive raises the score. The
    correlation comes with the map.

    Source: pytorch-grad-cam, which proposed it as an Eigen-CAM that knows the class.
    """
    return principal_map(gradients * activations, hirescam(activations, gradients))


def principal_map(features: Tensor, orientation: Tensor) -> tuple[Tensor, Tensor]:
    """Where each point lies along the direction in which the points of a layer differ most.

    It is the first singular vector, from the smaller of the two Gram matrices, which is many times faster than ``svd``. The map
    is turned to correlate positively with ``orientation``, shape ``(B, h, w)``; the correlation is 0 if either is flat.
    """
    points = features.flatten(2).double()  # (B, C, h, w) -> (B, C, P); in single precision squaring would cost half the digits
    points = points - points.mean(2, keepdim=True)
    if points.shape[1] <= points.shape[2]:
        direction = torch.linalg.eigh(points @ points.mT).eigenvectors[:, :, -1:]  # (B, C, C) -> (B, C, 1)
        along = (direction.mT @ points).squeeze(1)  # (B, 1, C) @ (B, C, P) -> (B, P)
    else:
        values, vectors = torch.linalg.eigh(points.mT @ points)  # (B, P, P)
        along = vectors[:, :, -1] * values[:, -1:].clamp_min(0).sqrt()  # (B, P)
    target = orientation.flatten(1).double()
    unit, unit_target = (
        functional.normalize(values - values.mean(1, keepdim=True), dim=1, eps=1e-150) for values in (along, target)
    )
    correlation = (unit * unit_target).sum(1)  # (B,)
    along = torch.where(correlation[:, None] < 0, -along, along)
    return along.unflatten(1, features.shape[2:]).to(features.dtype), correlation.abs()


# Those of the eigen methods also give how far to trust their sign.
METHODS: dict[str, Callable[..., Tensor | tuple[Tensor, Tensor]]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "layercam": layercam,
    "xgradcam": xgradcam,
    "hirescam": hirescam,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
}
