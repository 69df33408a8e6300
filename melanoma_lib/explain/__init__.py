"""Where a model looked, how far to believe it: heatmaps of every layer, drawn with their sign, and graded.

Names are loaded on first use, so that importing the package costs nothing.
"""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "layers": ["cam_layers"],
        "cam": ["CAM_METHODS", "heatmaps", "heatmaps_by_method"],
        "figures": ["heatmap_figure"],
        "exam": ["score_heatmap"],
    },
)
