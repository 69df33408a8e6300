"""Run directories: what one training left behind, and how it comes to be written."""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "run": ("Batch", "Run", "StoredOperatingPoint", "finished_runs", "reference_path"),
        "writer": ("RunWriter", "choose_operating_point", "list_runs", "prediction_table"),
    },
)
