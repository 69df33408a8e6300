"""Explorers: pure functions from values to a state, shown live by a few lines of JavaScript in the page."""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "cases": ["CaseExplorer"],
        "focal": ["FocalLossExplorer"],
        "layers": ["LayerExplorer"],
        "threshold": ["ThresholdExplorer"],
    },
)
