"""How good is a classifier, how sure are we, and for whom: arrays in, numbers and figures out; no files.

Empty, mismatched or non-finite input, and one class where both are needed, raise a ValueError that says what came.
"""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "operating": ("OperatingCurve", "OperatingPoint"),
        "intervals": (
            "Interval", "bootstrap_intervals", "bootstrap_replicates", "cluster_bootstrap", "group_bootstrap", "rate_intervals",
            "resample_groups", "wilson_interval",
        ),
        "paired": ("DeLongResult", "bootstrap_gain", "bootstrap_mean_auroc", "delong_test"),
        "calibration": (
            "Calibrator", "adjust_for_prevalence", "bootstrap_calibration", "carry_risk", "expected_calibration_error",
            "reliability_bins",
        ),
        "figures": ("confusion_figure", "precision_recall_figure", "reliability_figure", "roc_figure"),
        "summary": ("evaluate_predictions", "subgroup_table", "summary_table"),
    },
)  # fmt: skip
