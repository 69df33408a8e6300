"""One exported file for all tests: PyTorch's exporter takes seconds."""

from pathlib import Path

import pytest

from melanoma_lib.export import export_run


@pytest.fixture(scope="session")
def exported(tiny_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as ONNX, with the readings of one and of eight views."""
    return export_run(tiny_run, "onnx", tmp_path_factory.mktemp("export") / "model.onnx", tta=True)
