"""Where `cuda` comes from, and how this package meets it: compiling, arrays of any library, their streams.

Everything else takes `cuda` from here. It is `numba.cuda`: the numba-cuda package, which the extras `cuda12` and `cuda13`
install, puts itself in that place; its announced successor, numba-cuda-mlir, would be imported in the one line below. With
`NUMBA_ENABLE_CUDASIM=1` it is Numba's simulator, which runs the same kernels as Python threads, without a driver.

Nothing here needs a driver before a kernel is launched. Arrays are described by `__cuda_array_interface__`, whoever made them:
a kernel gets the memory of an array as one row of numbers, and its steps as integers, so that no view is ever copied.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from types import FunctionType
from typing import Any

import numpy as np
from numba import cuda as target

from fastconv.cuda import simulated

cuda: Any = target
SIMULATED = simulated()


def kernel(registers: int | None = None) -> Callable[[Any], Any]:
    """The decorator of all kernels; `registers` is the most that a thread may use, None for the compiler's own choice."""
    # The simulator refuses options of the compiler. contract: a product and a sum become one multiply-add, as everywhere.
    options = {} if SIMULATED or registers is None else {"max_registers": registers}
    return cuda.jit(**options)


def function(body: Any) -> Any:
    """The decorator of functions that kernels call. They never name `cuda`, so the simulator calls them as they are."""
    if not SIMULATED:
        return cuda.jit(device=True)(body)
    if body.__globals__.get("math") is not math:
        return body
    return FunctionType(body.__code__, body.__globals__ | {"math": SimulatedMath}, body.__name__, None, body.__closure__)


class SimulatedMath:
    """What kernels use of `math`, in their argument's precision, as on a device; Python's own is float64, and may raise."""

    @staticmethod
    def exp(v: Any) -> Any:
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(v)

    @staticmethod
    def tanh(v: Any) -> Any:
        return np.tanh(v)

    @staticmethod
    def erf(v: Any) -> Any:
        return type(v)(math.erf(v))


# Arrays ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """A run of numbers on a device, as kernels take it: one row; `view` owns it, and may have another dtype."""

    address: int
    count: int
    dtype: np.dtype[Any]
    view: View

    def at(self, address: int) -> Memory:
        """As much of the same elsewhere."""
        return replace(self, address=address)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        # Under the simulator it is the host's.
        return {"version": 3, "shape": (self.count,), "strides": None, "typestr": self.dtype.str, "data": (self.address, False)}


class View:
    """A device array as kernels see it: `row` is its memory, `first` the place of its first number, `steps` in numbers."""

    def __init__(self, array: Any) -> None:
        interface = interface_of(array)
        self.shape: tuple[int, ...] = tuple(interface["shape"])
        self.dtype = np.dtype(interface["typestr"])
        size = self.dtype.itemsize
        strides = interface.get("strides") or contiguous_steps(self.shape, size)
        self.steps = tuple(stride // size for stride in strides)
        spans = [(n - 1) * step for n, step in zip(self.shape, self.steps, strict=True)]
        empty = 0 in self.shape
        self.first = 0 if empty else -sum(span for span in spans if span < 0)
        self.count = 0 if empty else 1 + sum(map(abs, spans))
        self.pointer: int = interface["data"][0]  # where the first number lies
        self.address = self.pointer - self.first * size  # and the memory begins
        self.read_only = bool(interface["data"][1])
        self.owner = array

    @property
    def row(self) -> Memory:
        """All its memory, for a kernel."""
        return Memory(self.address, self.count, self.dtype, self)

    def of(self, dtype: str, count: int) -> Memory:
        """The same memory as so many numbers of another dtype."""
        return Memory(self.address, count, np.dtype(dtype), self)

    @property
    def contiguous(self) -> bool:
        """Whether its numbers lie in order, without gaps."""
        return self.count == 0 or all(
            n == 1 or step == want
            for n, step, want in zip(self.shape, self.steps, contiguous_steps(self.shape, 1), strict=True)
        )  # fmt: skip


def contiguous_steps(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Distances between neighbours of a C-contiguous array whose numbers are `size` apart."""
    steps = []
    for n in reversed(shape):
        steps.append(size)
        size *= max(n, 1)
    return tuple(reversed(steps))


def interface_of(array: Any) -> dict[str, Any]:
    """What an array says of itself. The simulator's arrays have no interface; they hold an array of the host."""
    held = getattr(array, "_ary", None)
    return array.__cuda_array_interface__ if held is None else held.__array_interface__  # type: ignore[no-any-return]


def look_of(array: Any) -> tuple[Any, int]:
    """How an array lies, as a key, and where its first number is.

    Of a tensor by its own methods: what it says by `__cuda_array_interface__` takes PyTorch 5 us to put together.
    """
    if array is None:
        return None, 0
    if hasattr(array, "data_ptr"):
        return (tuple(array.shape), array.stride(), array.dtype, array.device.index, array.requires_grad), array.data_ptr()
    interface = interface_of(array)
    pointer, read_only = interface["data"]
    strides = interface.get("strides")
    return (type(array), interface["shape"], strides, interface["typestr"], bool(read_only), index_of(array)), pointer


def pointer_of(array: Any) -> int:
    """Where its first number is."""
    return array.data_ptr() if hasattr(array, "data_ptr") else int(interface_of(array)["data"][0])  # type: ignore[no-any-return]


def simulated_row(memory: Memory) -> SimulatedRow:
    """A run of memory as the simulator's kernels take it; nothing is copied."""
    return SimulatedRow(np.asarray(memory))


class SimulatedRow:
    """A row of the simulator, which refuses what NumPy does not: a negative index."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    def __getitem__(self, index: Any) -> Any:
        assert index >= 0, index
        return self.numbers[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        assert index >= 0, index
        self.numbers[index] = value


# Libraries ------------------------------------------------------------------------------------------------------------


def library_of(array: Any) -> str:
    """Who made an array: "torch", "cupy" or "numba".

    Raises
    ------
    TypeError
        If it was none of them.
    """
    name = type(array).__module__.partition(".")[0].removesuffix("_cuda")
    if name not in ("torch", "cupy", "numba"):
        raise TypeError(f"arrays: got {type(array).__name__} of {name}, expected NumPy's, CuPy's, PyTorch's or Numba's")
    return name


def empty(like: Any, shape: tuple[int, ...]) -> Any:
    """A new C-contiguous array of the same library, dtype and device."""
    library = library_of(like)
    if library == "torch":
        return like.new_empty(shape)
    if library == "cupy":
        return sys.modules["cupy"].empty(shape, like.dtype)
    return cuda.device_array(shape, like.dtype)


def stream_number(array: Any) -> int:
    """The handle of the stream on which an array's library works at present; 0 is the default one."""
    library = library_of(array)
    if library == "torch":
        return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream)
    return int(sys.modules["cupy"].cuda.get_current_stream().ptr) if library == "cupy" else 0


def index_of(array: Any) -> int:
    """The number of the device on which an array lies."""
    library = library_of(array)
    if library == "torch":
        return int(array.device.index)
    return int(array.device.id) if library == "cupy" else 0 if SIMULATED else int(array.gpu_data.context.device.id)


def on(index: int) -> Any:
    """A context in which a device is the current one; where it is already, as mostly, nothing is entered."""
    if SIMULATED or (driver().cuCtxGetDevice(current := ctypes.c_int()) == 0 and current.value == index):
        return nullcontext()
    return cuda.gpus[index]


@lru_cache(maxsize=1)
def driver() -> Any:
    """The CUDA driver's own functions."""
    library = ctypes.CDLL("libcuda.so.1")
    number, pointer = ctypes.c_uint, ctypes.c_void_p
    library.cuLaunchKernel.argtypes = [pointer, *[number] * 7, pointer, pointer, pointer]
    library.cuCtxGetDevice.argtypes = [ctypes.POINTER(ctypes.c_int)]
    library.cuModuleLoadData.argtypes = [ctypes.POINTER(pointer), ctypes.c_char_p]
    library.cuModuleGetFunction.argtypes = [ctypes.POINTER(pointer), pointer, ctypes.c_char_p]
    return library


def check(result: int) -> None:
    """What a function of the driver answers: 0, or the number of an error.

    Raises
    ------
    RuntimeError
        With the error's name.
    """
    if result:
        name = ctypes.c_char_p()
        driver().cuGetErrorName(result, ctypes.byref(name))
        raise RuntimeError(f"the CUDA driver answers {(name.value or b'?').decode()}, number {result}")


def upload(array: np.ndarray[Any, Any], like: Any) -> Any:
    """A NumPy array on the device of another, by the same library."""
    library = library_of(like)
    if library == "torch":
        return sys.modules["torch"].from_numpy(np.array(array)).to(like.device)
    return sys.modules["cupy"].asarray(array) if library == "cupy" else cuda.to_device(np.ascontiguousarray(array))
