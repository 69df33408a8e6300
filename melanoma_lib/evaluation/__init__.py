"""How good is a classifier, how sure are we, and for whom: arrays in, numbers and figures out; no files.

Names are loaded on first use, so that importing the package costs nothing.
"""

from importlib import import_module

_HOMES = {
    "operating": ("OperatingCurve", "OperatingPoint"),
    "intervals": (
        "Interval",
        "bootstrap_intervals",
        "bootstrap_replicates",
        "resample_groups",
        "wilson_interval",
    ),
    "paired": ("DeLongResult", "bootstrap_gain", "delong_test"),
    "calibration": (
        "Calibrator",
        "bootstrap_calibration",
        "brier_score",
        "calibration_slope_intercept",
        "expected_calibration_error",
        "reliability_bins",
    ),
    "seeds": ("bootstrap_mean_auroc",),
    "subgroups": ("subgroup_table",),
    "canvas": ("DescribedFigure", "describe", "kit_figure"),
    "figures": (
        "comparison_figure",
        "confusion_figure",
        "decision_curve_figure",
        "precision_recall_figure",
        "reliability_figure",
        "roc_figure",
    ),
    "summary": ("evaluate_predictions", "summary_table"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    """Load a public name from the module that holds it (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
