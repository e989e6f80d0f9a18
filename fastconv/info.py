"""What this installation has to work with, as `python -m fastconv info` prints it."""

from __future__ import annotations

import platform

import llvmlite
import numba
import numpy as np

import fastconv
from fastconv.cpu import machine


def gather() -> list[tuple[str, str]]:
    """Names and values: versions, the processor and what is used of it, threads, CUDA.

    >>> dict(gather())["fastconv"] == fastconv.__version__
    True
    """
    caches = ", ".join(f"{name} {size // 1024:,} KB" for name, size in sorted(machine.caches().items()))
    cuda = "available" if fastconv.cuda.is_available() else f"not used: {fastconv.cuda.why_not()}"
    return [
        ("fastconv", fastconv.__version__),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("NumPy", np.__version__),
        ("Numba", f"{numba.__version__}, llvmlite {llvmlite.__version__}"),
        ("processor", machine.cpu_name()),
        ("compiled for", machine.target_name()),
        ("vectors", f"{machine.lanes('float32')} float32 or {machine.lanes('float64')} float64 lanes, "
                    f"{machine.registers()} registers{_narrowed()}"),
        ("caches", caches),
        ("threads", f"{fastconv.get_num_threads()} ({fastconv.get_threading()})"),
        ("CUDA", cuda),
    ]  # fmt: skip


def _narrowed() -> str:
    target = machine.target_vector()[0] // 4
    return "" if machine.lanes() == target else f" (FASTCONV_LANES; the target has {target} float32 lanes)"
