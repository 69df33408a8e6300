"""A run as one file that runs elsewhere: written with PyTorch, served with onnxruntime, NumPy and Pillow."""

from melanoma_lib.inference import Document, Predictor
from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(__name__, {"writer": ("FORMATS", "export_run")})
__all__ += ["Document", "Predictor"]
