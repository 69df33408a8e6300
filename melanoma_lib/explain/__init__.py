"""Where a model looked, how far to believe it: heatmaps of every layer, drawn with their sign, and graded.

Names are loaded on first use, so that importing the package costs nothing.
"""

from importlib import import_module

_HOMES = {
    "cam_layers": "layers",
    "CAM_METHODS": "cam",
    "heatmaps": "cam",
    "heatmap_figure": "figures",
    "score_heatmap": "exam",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Load a public name from the module that holds it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
