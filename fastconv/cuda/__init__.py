"""The CUDA target: the kernels of fastconv/cpu once more, by the same names, for arrays that lie on a GPU.

The functions, layers and gradients of fastconv take any array of CuPy, PyTorch or Numba that lies on a device, and give back one of
the same library, on the same device; they work on that library's current stream and wait for nothing. All arrays of a call lie
on one device, and none is copied to or from the host; a layer that holds NumPy arrays puts them there once.

What was run, and where: every kernel runs in the tests on Numba's simulator, against the reference, and is compiled for compute
capability 8.0 and 9.0 by NVIDIA's own compiler, whose machine code `python -m fastconv cuda-report` counts. The same tests, and
the benchmarks beside cuDNN, ran by hand on one H100, with arrays of all three libraries; README.md says which after which change.

>>> from fastconv import cuda
>>> cuda.is_available() or cuda.why_not() != ""
True
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import lru_cache
from typing import Any

import numpy as np

INSTALL = "python -m pip install 'fastconv[cuda13]' (or cuda12 for a driver older than 580)"


def is_available() -> bool:
    """Whether the functions accept device arrays here.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.cuda.is_available() == (not fc.cuda.why_not())
    True
    """
    return not why_not()


def why_not() -> str:
    """Why they do not, in a sentence; empty if they do.

    Examples
    --------
    >>> import fastconv as fc
    >>> isinstance(fc.cuda.why_not(), str)
    True
    """
    if simulated():
        return ""
    devices = _devices()
    if devices is None:
        return "no CUDA driver was found: libcuda.so.1, which NVIDIA's driver brings, cannot be loaded"
    if devices == 0:
        return "the CUDA driver finds no device"
    if importlib.util.find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed: {INSTALL}"
    return ""


def simulated() -> bool:
    """Whether Numba's simulator stands for a device."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


@lru_cache(maxsize=1)
def _devices() -> int | None:
    """How many there are, None without a driver. Asked of the driver itself, so that nothing need be imported."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int(0)
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


def is_device_array(array: Any) -> bool:
    """Whether an array lies on a device, as far as it says; those of the simulator say nothing but how to leave it."""
    kind = type(array)
    if kind is np.ndarray or not getattr(array, "is_cuda", True):  # a tensor of the host has the attribute, too
        return False
    return hasattr(kind, "__cuda_array_interface__") or hasattr(kind, "copy_to_host")


def kernels() -> Any:
    """What launches the kernels: fastconv/cuda/launch.py, imported when first needed.

    Raises
    ------
    RuntimeError
        If nothing can be computed here, with the reason and what to install.
    """
    reason = why_not()
    if reason:
        raise RuntimeError(f"arrays on a CUDA device cannot be computed here: {reason}")
    from fastconv.cuda import launch

    return launch
