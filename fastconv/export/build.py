"""Compile the kernels and the C files, and link them: `python -m fastconv export`."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fastconv
from fastconv.cpu import machine
from fastconv.cpu.threads import default_threads
from fastconv.export.kernels import EXPORTED, Kernel, caches_of, check_kinds, header, kernels
from fastconv.export.objects import object_code

SOURCES = Path(__file__).parent / "c"
# Levels of processors by the names that compilers have for them, and what we need to know of each: LLVM knows it by its name.
V3 = "+avx2,+fma,+bmi,+bmi2"
CPUS = {"native": "", "x86-64-v3": V3, "x86-64-v4": f"{V3},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"}
FLAGS = ("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
LINKING = ("-shared", "-Wl,-soname,libfastconv.so", "-Wl,-z,defs", "-Wl,-z,noexecstack", "-lm")
PKG_CONFIG = """\
prefix=${{pcfiledir}}/../..
libdir=${{prefix}}/lib
includedir=${{prefix}}/include

Name: fastconv
Description: Convolution layers of every kind, compiled for {cpu}
Version: {version}
Libs: -L${{libdir}} -lfastconv
Libs.private: -lm
Cflags: -I${{includedir}}
"""


def export(out: str | Path, kinds: Sequence[str] = EXPORTED, cpu: str = "native", report: Callable[[str], None] = print) -> None:
    """Write a C library into a folder: lib/libfastconv.so, include/fastconv.h, lib/pkgconfig/fastconv.pc.

    Parameters
    ----------
    out : str or Path
        The folder; it is made if need be.
    kinds : sequence of str
        The kinds of layers that the library computes, and "gradients" of weights.
    cpu : {"native", "x86-64-v3", "x86-64-v4"}
        The processors it is for: such as this one, or all that have AVX2, or AVX-512.
    report : callable
        What is told how far it is.

    Raises
    ------
    ValueError
        If there is no such kind or processor.
    OSError
        If there is no C compiler, or it fails.
    """
    if cpu not in CPUS:
        raise ValueError(f"cpu: got {cpu!r}, expected one of {', '.join(CPUS)}")
    check_kinds(kinds)
    compiler = _compiler()
    if cpu != "native" and os.environ.get("NUMBA_CPU_NAME") != cpu:
        _in_its_own_process(out, kinds, cpu)  # Numba knows one target a process
        return
    target = Path(out)
    for place in ("include", "lib/pkgconfig"):  # before minutes of compiling
        (target / place).mkdir(parents=True, exist_ok=True)
    start, held = time.perf_counter(), kernels(kinds)
    with tempfile.TemporaryDirectory() as folder:
        _compile(held, Path(folder), report)
        (Path(folder) / "kernels.h").write_text(header(held, caches_of(cpu)))
        library = _link(compiler, Path(folder))
        shutil.copy(SOURCES / "fastconv.h", target / "include")
        shutil.copy(library, target / "lib")
        about = {"cpu": cpu if cpu != "native" else machine.target_name(), "version": fastconv.__version__}
        (target / "lib" / "pkgconfig" / "fastconv.pc").write_text(PKG_CONFIG.format(**about))
    size = (target / "lib" / "libfastconv.so").stat().st_size
    seconds = time.perf_counter() - start
    report(f"{len(held)} kernels for {machine.target_name()}, {size / 1024**2:.1f} MB, in {seconds:.0f} s: {out}")


def _compiler() -> list[str]:
    """The C compiler: what CC says, or cc."""
    command = shlex.split(os.environ.get("CC", "cc"))
    if not command or shutil.which(command[0]) is None:
        raise OSError(f"no C compiler, which links the library: {shlex.join(command)!r} was not found; install gcc, or set CC")
    return command


def _in_its_own_process(out: str | Path, kinds: Sequence[str], cpu: str) -> None:
    environment = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": CPUS[cpu]}
    command = [sys.executable, "-m", "fastconv", "export", "--out", str(out), "--cpu", cpu, "--kinds", *kinds]
    done = subprocess.run(command, env=environment)
    if done.returncode:
        raise OSError(f"exporting for {cpu} failed, for the reason above")


def _compile(held: Sequence[Kernel], folder: Path, report: Callable[[str], None]) -> None:
    """An object file for each kernel, on all CPUs of this process."""
    with ProcessPoolExecutor(default_threads(), multiprocessing.get_context("spawn")) as pool:
        for kernel in pool.map(_compile_one, held, [folder] * len(held)):
            report(kernel.symbol)


def _compile_one(kernel: Kernel, folder: Path) -> Kernel:
    (folder / f"{kernel.symbol}.o").write_bytes(object_code(kernel.function, kernel.types, kernel.symbol))
    return kernel


def _link(compiler: Sequence[str], folder: Path) -> Path:
    library = folder / "libfastconv.so"
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    objects = [str(path) for path in sorted(folder.glob("*.o"))]
    command = [*compiler, *FLAGS, f"-I{folder}", f"-I{SOURCES}", *sources, *objects, *LINKING, "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(compiler)} could not link the library: {done.stderr.strip() or done.returncode}")
    return library
