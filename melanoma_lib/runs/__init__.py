"""Run directories: what one training left behind, and how it comes to be written."""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "run": (
            "CALIBRATION", "CHECKPOINT", "DEMONSTRATION", "ENCODER", "ENVIRONMENT", "FOLDS", "HISTORY", "METRICS",
            "OPERATING_POINT", "PREDICTIONS", "REFERENCE", "REQUIRED", "SETTINGS", "SPLITS",
            "Batch", "Run", "StoredOperatingPoint", "finished_runs", "partial_path", "reference_path", "sha256",
        ),
        "writer": ("RunWriter", "choose_operating_point", "list_runs", "prediction_table"),
    },
)  # fmt: skip
