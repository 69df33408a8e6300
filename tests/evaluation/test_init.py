import subprocess
import sys

import pytest

import melanoma_lib.evaluation as evaluation


def test_every_public_name_loads_and_an_unknown_one_is_listed():
    for name in evaluation.__all__:
        assert getattr(evaluation, name).__name__ == name
    with pytest.raises(AttributeError, match=r"no attribute 'OperatingCurves'; it offers .*OperatingCurve"):
        evaluation.OperatingCurves  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, melanoma_lib.evaluation; print(*{'numpy', 'pandas', 'scipy', 'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
