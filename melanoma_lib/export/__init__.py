"""A run as one file that runs elsewhere: written with PyTorch, served with onnxruntime, NumPy and Pillow.

Names are loaded on first use: ``Predictor`` must not wait for PyTorch, nor need it.
"""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {"document": ("Document", "Prediction"), "predictor": ("Predictor",), "writer": ("FORMATS", "export_run")},
)
