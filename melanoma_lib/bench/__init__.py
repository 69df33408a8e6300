"""Speed against named peers, alternated in one run: on shared machines only ratios within a run mean something.

Names are loaded on first use, so that measuring thresholds does not wait for PyTorch.
"""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "training": ("bench_training",),
        "loading": ("bench_loading",),
        "thresholds": ("bench_thresholds",),
        "inference": ("bench_inference",),
        "heatmaps": ("bench_heatmaps",),
    },
)
