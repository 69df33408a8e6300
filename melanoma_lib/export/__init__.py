"""A run as one file that runs elsewhere: written with PyTorch, served with onnxruntime, NumPy and Pillow.

Names are loaded on first use: ``Predictor`` must not wait for PyTorch, nor need it.
"""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "predictor": ("Prediction", "Predictor"),
        "document": ("Document",),
        "container": ("read_export",),
        "writer": ("FORMATS", "export_run"),
        "int8": ("Int8Cost", "export_int8"),
    },
)
