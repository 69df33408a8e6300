"""melanoma_lib: learn how melanoma detection from dermoscopy and patient metadata works, and what its numbers mean.

Assistive and educational; never a diagnosis.
"""

__version__ = "0.1.0"
