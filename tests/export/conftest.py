"""One exported file for all tests and workers: PyTorch's exporter takes seconds."""

from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_lib.export import describe_run, write_export


@pytest.fixture(scope="session")
def exported(tiny_run, built_once) -> Path:
    """The tiny run as ONNX, passed off as one of photographs, with the readings of one and of eight views."""

    def build(folder: Path) -> None:
        document = replace(describe_run(tiny_run, tta=True), source="ham10000")
        write_export(folder / "model.onnx", tiny_run.model(), document)

    return built_once("exported", build) / "model.onnx"
