"""Small random models whose layers are all alive, and a case or two to show them."""

import torch

from melanoma_lib.model import MelanomaNet

# One of each kind: linear bottlenecks and SiLU, ReLU, layer norms, class token, channels last.
BACKBONES = {"test_efficientnet": 64, "test_resnet": 64, "test_convnext": 64, "test_vit": 160, "test_mambaout": 64}
N_METADATA = 5


def small_net(backbone: str, seed: int = 0, **options) -> MelanomaNet:
    """A random model; its norms, scales and biases are shaken, or half of them would be 0 or 1."""
    torch.manual_seed(seed)
    model = MelanomaNet(backbone, N_METADATA, pretrained=False, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def cases(backbone: str, n: int = 2, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and metadata for a backbone."""
    generator = torch.Generator().manual_seed(seed)
    side = BACKBONES[backbone]
    return torch.randn(n, 3, side, side, generator=generator), torch.randn(n, N_METADATA, generator=generator)
