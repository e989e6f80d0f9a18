"""Machine code of kernels: compiled by Numba the first time on a machine, and read from the disk after that.

The disk cache is that of cpu/compiled.py. A tiled kernel takes Numba 5 to 12 s, reading it 1 ms. Numba's own cache does not know a
kernel again in another process if it calls other functions that were made in a function, as all do here. `name_of` tells kernels
by what they were made from: the functions and constants that they enclose. Their text is in the name of the folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import pickle
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

from fastconv.cpu.compiled import cache_folder, write_whole
from fastconv.cuda import device


@lru_cache(maxsize=4096)
def entry(kernel: Any, argument: Any, index: int) -> int:
    """The driver's handle of a kernel whose one argument has this type, on the current device, which is number `index`."""
    path = _path(kernel, argument)
    name, code = _read(path) or _compile(kernel, argument, path)
    driver, module, function = device.driver(), ctypes.c_void_p(), ctypes.c_void_p()
    device.check(driver.cuModuleLoadData(ctypes.byref(module), code))
    device.check(driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
    return int(function.value or 0)


def _compile(kernel: Any, argument: Any, path: Path | None) -> tuple[str, bytes]:
    """The name of a kernel in its machine code, and that; numba-cuda documents no way to them."""
    library = kernel.compile((argument,))._codelibrary
    found = library._entry_name, bytes(library.get_cubin().code)
    if path is not None:
        write_whole(path, pickle.dumps(found))
    return found


def _path(kernel: Any, argument: Any) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    from numba_cuda import __version__

    depends_on = name_of(kernel), str(argument), __version__, device.cuda.get_current_device().compute_capability
    digest = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:16]
    return folder / f"cuda.{kernel.py_func.__name__}.{digest}.bin"


def _read(path: Path | None) -> tuple[str, bytes] | None:
    if path is None or not path.exists():
        return None
    try:
        name, code = pickle.loads(path.read_bytes())
    except Exception:  # a damaged file is a missing one
        return None
    return name, code


def name_of(value: Any) -> str:
    """A kernel, a function or a constant, by what it encloses; the same in every process."""
    value = getattr(value, "py_func", value)
    if isinstance(value, FunctionType):
        enclosed = [cell.cell_contents for cell in value.__closure__ or ()]
        return f"{value.__module__}.{value.__qualname__}({', '.join(map(name_of, enclosed))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(name_of, value))})"
    return repr(value)
