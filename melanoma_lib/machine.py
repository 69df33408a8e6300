"""What suits the machine at hand: the precision that trains faster on it, and memory that is kept, not given back."""

import torch

from melanoma_lib.settings import Settings


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for the next training step and not hand them back to the system, page by page.

    Returns:
        Whether the C library took the advice; others than glibc are left as they are.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # macOS, Windows, musl: no such library or call
        return False
    trim_threshold, mmap_threshold = -1, -3  # names of malloc.h
    return bool(mallopt(trim_threshold, 2**31 - 1) and mallopt(mmap_threshold, 2**30))


def cpu_precision(backbone: str) -> str:
    """Lightning precision that trained faster on a CPU with bfloat16 instructions; float32 on any other.

    Depthwise convolutions (EfficientNet, MobileNet) slow down in bfloat16, the others gain about a factor of two.
    """
    depthwise = any(name in backbone for name in ("efficientnet_b", "efficientnet_lite", "mobilenet", "mnasnet"))
    has_bfloat16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16-mixed" if has_bfloat16 and not depthwise else "32-true"


def trainer_precision(settings: Settings) -> str:
    """Lightning's name of the precision that the settings ask for on this machine."""
    if settings.precision == "auto":
        return "bf16-mixed" if torch.cuda.is_available() else cpu_precision(settings.backbone)
    return {"32": "32-true", "bf16": "bf16-mixed"}[settings.precision]
