"""melanoma_lib: learn how melanoma detection from dermoscopy and patient metadata works, and what its numbers mean.

Assistive and educational; never a diagnosis.
"""

import os

__version__ = "0.1.0"

# Threads of torch that wait for each other spin by default; on a machine that also runs a browser, they burn the very core
# that the awaited thread needs. It counts when torch is loaded, hence here; whoever set it already keeps it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
