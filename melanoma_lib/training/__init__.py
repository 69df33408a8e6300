"""From settings to a finished run: one training, or one for each fold."""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__, {"trainer": ("cross_validate", "processes", "quiet", "train"), "module": ("MelanomaModule",)}
)
