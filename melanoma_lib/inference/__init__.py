"""From a case to an answer: the predictor, what is known of its model, and the prediction loop of whole data sets.

Names are loaded on first use: an exported file is served without PyTorch.
"""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "document": ("Document", "Reading"),
        "predictor": ("Predictor", "predict_logits", "prediction_device", "undisturbed"),
    },
)
