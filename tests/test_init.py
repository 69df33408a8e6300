"""Importing the kit."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, "PASSIVE 1000"),
        ({"GOMP_SPINCOUNT": "5"}, "PASSIVE 5"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE None"),
    ],
)
def test_waiting_threads_soon_leave_the_core_unless_somebody_chose_otherwise(given, kept):
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    show = "import os, melanoma_lib; print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    printed = subprocess.run([sys.executable, "-c", show], env=environment | given, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == kept
