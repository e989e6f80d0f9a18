"""Compile every kernel ahead of its first call, into the disk cache, as `python -m fastconv compile` does."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from fastconv.cpu import job, machine
from fastconv.cpu.compiled import address, cache_folder
from fastconv.cpu.simd import TileShape
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.threads import default_threads
from fastconv.problem import DTYPES

SHARE = 8  # variants that a process compiles in one go


class Variant(NamedTuple):
    """One kernel, compiled for one dtype and one tile: rows, vectors, lanes, and the step where it is not 1.

    >>> print(Variant("tiled_standard", "float32", TileShape(14, 2, 16)))
    tiled_standard float32 14x2x16
    """

    name: str
    dtype: str
    tile: TileShape | None

    def __str__(self) -> str:
        sizes = (self.tile.rows, self.tile.vectors, self.tile.lanes) if self.tile else ()
        step = f" step {self.tile.step}" if self.tile and self.tile.step != 1 else ""
        return " ".join((self.name, self.dtype, "x".join(map(str, sizes)))).rstrip() + step


def variants(names: Sequence[str] = ()) -> list[Variant]:
    """Every variant that a call may need, of the kernels whose names begin so (all if none are given).

    Raises
    ------
    ValueError
        If no kernel's name begins with one of them.
    """
    for name in names:
        if not any(i.name.startswith(name) for i in IMPLEMENTATIONS):
            raise ValueError(f"kernel: got {name!r}, expected the beginning of one of {', '.join(i.name for i in IMPLEMENTATIONS)}")
    return [
        Variant(implementation.name, dtype, tile)
        for implementation in IMPLEMENTATIONS
        if not names or implementation.name.startswith(tuple(names))
        for dtype in DTYPES
        for tile in implementation.tiles(dtype)
    ]


def compile_all(wanted: Sequence[Variant], report: Callable[[str], None]) -> None:
    """Compile variants on all CPUs of this process, and say so.

    Raises
    ------
    OSError
        If there is no folder to keep them in.
    """
    folder = cache_folder()
    if folder is None:
        raise OSError("no folder for compiled kernels can be written; FASTCONV_CACHE_DIR names another")
    start, done = time.perf_counter(), 0
    shares = [wanted[i : i + SHARE] for i in range(0, len(wanted), SHARE)]
    with ProcessPoolExecutor(default_threads(), multiprocessing.get_context("spawn")) as pool:
        for share in pool.map(_compile, shares):
            done += len(share)
            for variant in share:
                report(f"{variant}")
    report(f"{done} variants for {machine.target_name()} in {time.perf_counter() - start:.0f} s, in {folder}")


def _compile(share: Sequence[Variant]) -> Sequence[Variant]:
    by_name = {i.name: i for i in IMPLEMENTATIONS}
    for name, dtype, tile in share:
        address(by_name[name].kernel, *job.arguments(dtype, tile, by_name[name].scheme))
    return share
