"""melanoma_lib: learn how melanoma detection from dermoscopy and patient metadata works, and what its numbers mean.

Assistive and educational; never a diagnosis.
"""

import os

__version__ = "0.1.0"

# Threads of torch that wait for each other spin without end by default; beside a busy process they burn the very core that the
# awaited thread needs. Not spinning at all costs more than a second core gives when the machine is quiet. A few microseconds are
# the middle way. It counts when torch is loaded, hence here; whoever set the policy already keeps it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by GNU's OpenMP, which torch's Linux wheels bring
