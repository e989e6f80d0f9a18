"""The one decorator of all CPU kernels: Numba's flags, and a disk cache that notices every change.

Numba's own cache looks only at the file of the cached function, and keeps an index that two processes can tear (numba#4807).
Here each compiled signature is one file, written whole and then renamed, in a folder named for everything it depends on:
the text of every file of this package, the versions of Numba and Python, and the CPU. No writable folder: no cache, no error.
`FASTCONV_CACHE_DIR` moves the cache; what an older version left there may be deleted at any time.

Flags: `contract` lets a * b + c become one rounded-once fma; `error_model="numpy"` drops the branches that would raise.
Never `nnan` or `ninf`: NaN and infinity mean something. `reassociating` is for the sums that LLVM must reorder to vectorise.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult, DefaultPassBuilder
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps

FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
PACKAGE = Path(__file__).resolve().parent.parent


class _NoEnvironment:
    """What a function that nobody calls from Python needs none of."""

    def set_env(self, name: str, environment: Any) -> None:
        """Nothing is looked up in it."""


class _PartOfCallers(JITCodeLibrary):  # type: ignore[misc]
    """A function that is linked into its callers alone: it is optimised there, and no machine code is made of it for itself.

    Otherwise each function within a kernel is optimised and translated, and again within every one above it: to compile a tile of
    tiled_standard took 1.75 s, which takes 1.3 now, and gives the same machine code.
    """

    codegen = _NoEnvironment()

    def get_pointer_to_function(self, name: str) -> int:
        """Called when it is compiled; 0 says that there is no such symbol."""
        self._ensure_finalized()
        return 0

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


class _IntoCallers(CompilerBase):  # type: ignore[misc]
    """Numba's own passes, whose result goes to a `_PartOfCallers`."""

    def define_pipelines(self) -> list[Any]:
        self.state.library = _PartOfCallers(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


INTO_CALLERS = FLAGS | {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _IntoCallers}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for the CPU on first use, and keep the machine code on disk."""
    return _cached(njit(fastmath={"contract"}, **FLAGS)(function))


def inlined(function: Callable[..., Any]) -> Any:
    """Compile into every caller: for helpers of a few lines, and for loops that a caller's constant, a step of 1, makes faster.

    Not for all: each function is compiled again within every one above it, so a deep nest of them takes seconds.
    """
    return njit(fastmath={"contract"}, **INTO_CALLERS)(function)


def reassociating(function: Callable[..., Any]) -> Any:
    """As `inlined`, but sums may be taken in any (fixed) order: without it LLVM cannot vectorise a dot product."""
    return njit(fastmath={"contract", "reassoc", "nsz"}, **INTO_CALLERS)(function)


def in_parallel(function: Callable[..., Any]) -> Any:
    """As `compiled`, with Numba's own threads for its prange loops."""
    return _cached(njit(fastmath={"contract"}, parallel=True, **FLAGS)(function))


def address(kernel: Any, *argument_types: Any) -> int:
    """Where the machine code of a kernel lies, as a C function of these argument types; compiles it on first use."""
    return int(_address(kernel, argument_types))


@lru_cache(maxsize=16)  # the few functions that Python calls all the time
def quick(function: Any, *argument_types: Any) -> Callable[..., Any]:
    """A compiled function without Numba's dispatcher, for arguments of these types alone: 0.1 us faster."""
    function.compile(argument_types)
    return function.overloads[argument_types].entry_point  # type: ignore[no-any-return]


@lru_cache(maxsize=1024)  # a kernel and its types: bounded by how many variants exist
def _address(kernel: Any, argument_types: tuple[Any, ...]) -> int:
    kernel.compile(argument_types)
    result = kernel.overloads[argument_types]
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))


# The disk cache ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def source_hash() -> str:
    """Of every file of the package, and of what compiles it."""
    python = sys.implementation.cache_tag, getattr(sys, "abiflags", "")
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {python}".encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path | None:
    """Where compiled kernels are kept, or None where no folder can be written."""
    given = os.environ.get("FASTCONV_CACHE_DIR")
    caches = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    try:
        place = Path(given) if given else (Path(caches) if caches else Path("~/.cache").expanduser()) / "fastconv"
        folder = place / source_hash()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user of a container may have no home
        return None
    return folder if os.access(folder, os.W_OK) else None


def write_whole(path: Path, data: bytes) -> None:
    """A file of the cache: others see all of it or nothing."""
    with contextlib.suppress(OSError):  # a full disk costs speed, never the result
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)


class _DiskCache:
    """One file a signature. Answers what a Numba dispatcher asks of its cache."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"

    @property
    def cache_path(self) -> str:
        return str(cache_folder() or "")

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def _path(self, signature: Any, target: Any) -> Path | None:
        folder = cache_folder()
        if folder is None:
            return None
        depends_on = repr((str(signature), target.codegen().magic_tuple()))
        return folder / f"{self._name}.{hashlib.sha256(depends_on.encode()).hexdigest()[:16]}.bin"

    def load_overload(self, signature: Any, target: Any) -> Any:
        path = self._path(signature, target)
        if path is None or not path.exists():
            return None
        rtsys.initialize(target)  # whose functions machine code may call
        for _ in range(2):
            try:
                return _rebuilt(target, *pickle.loads(path.read_bytes()))
            except Exception:
                # All that Numba knows of types and functions, 0.2 s and SciPy among it: who loads kernels alone needs none of it.
                target.refresh()
        return None  # a damaged file is a missing one

    def save_overload(self, signature: Any, data: Any) -> None:
        path = self._path(signature, data.target_context)
        if path is None or data.lifted or data.library.has_dynamic_globals:
            return
        write_whole(path, dumps(_reduced(data)))


def _reduced(result: Any) -> Any:
    """What to keep of a compiled function, and the names by which others may ask for its machine code."""
    module = result.library._get_module_for_linking()
    return [thing.name for thing in (*module.functions, *module.global_variables) if not thing.is_declaration], result._reduce()


def _rebuilt(target: Any, names: list[str], reduced: Any) -> Any:
    """A compiled function, of what `_reduced` gave.

    Beside the machine code there is bitcode, for callers that link it into themselves: all of whom have machine code of their own
    once they have been compiled. Parsing it took two thirds of the time, so it is parsed when somebody asks.
    """
    (name, kind, (code, bitcode)), *others = reduced
    target.codegen()._engine._defined_symbols.update(names)
    result = CompileResult._rebuild(target, (name, kind, (code, _nothing())), *others)
    result.library._get_module_for_linking = lru_cache(maxsize=1)(partial(llvm.parse_bitcode, bitcode))
    return result


@lru_cache(maxsize=1)
def _nothing() -> Any:
    """The bitcode of an empty module."""
    return llvm.parse_assembly("").as_bitcode()


def _cached(dispatcher: Any) -> Any:
    dispatcher._cache = _DiskCache(dispatcher.py_func)
    return dispatcher
