import subprocess
import sys

import pytest

from melanoma_lib import explain


def test_every_public_name_loads():
    assert {"cam_layers", "heatmaps", "score_heatmap", "CAM_METHODS", "heatmap_figure"} <= set(explain.__all__)
    assert all(getattr(explain, name) is not None for name in explain.__all__)
    with pytest.raises(AttributeError, match="'gradcam'; it offers CAM_METHODS"):
        explain.gradcam  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import melanoma_lib.explain, sys; print({'torch', 'timm', 'matplotlib', 'pytorch_grad_cam'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
