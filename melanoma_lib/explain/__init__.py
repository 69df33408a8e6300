"""Where a model looked, how far to believe it: heatmaps of every layer, drawn with their sign, and graded."""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "layers": ["METHOD_NAMES", "cam_layers", "default_layer"],
        "cam": ["CAM_METHODS", "ImageOnly", "heatmaps", "heatmaps_by_method"],
        "figures": ["heatmap_figure"],
        "scores": ["deletion_insertion", "score_heatmap"],
        "artefacts": ["artefact_pair", "paired_artefacts"],
    },
)
