"""Importing the kit."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_leave_the_core_unless_somebody_chose_otherwise(given, kept):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    show = "import os, melanoma_lib; print(os.environ['OMP_WAIT_POLICY'])"
    printed = subprocess.run([sys.executable, "-c", show], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == kept
