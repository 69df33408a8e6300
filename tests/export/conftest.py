"""One exported file for all tests and workers: PyTorch's exporter takes seconds."""

from pathlib import Path

import pytest

from melanoma_lib.export import export_run


@pytest.fixture(scope="session")
def exported(tiny_run, built_once) -> Path:
    """The tiny run as ONNX, with the readings of one and of eight views."""
    made = built_once("exported", lambda folder: export_run(tiny_run, "onnx", folder / "model.onnx", tta=True))
    return made / "model.onnx"
