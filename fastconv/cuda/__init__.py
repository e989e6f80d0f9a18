"""The CUDA target. This version has no CUDA kernels yet; the two questions below are answered truthfully.

>>> from fastconv import cuda
>>> cuda.is_available()
False
"""

NO_KERNELS = "this version of fastconv has no CUDA kernels: arrays must be NumPy's"


def is_available() -> bool:
    """Whether the functions accept device arrays here."""
    return False


def why_not() -> str:
    """Why they do not, in a sentence."""
    return NO_KERNELS
