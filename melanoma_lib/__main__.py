"""``python -m melanoma_lib``; see :mod:`melanoma_lib.cli`."""

import sys

from melanoma_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
