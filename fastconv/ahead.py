"""Compile every kernel ahead of its first call, into the disk cache, as `python -m fastconv compile` does."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from fastconv.cpu import columns, grouped, job, launch, machine, separable, strassen, tiles, winograd
from fastconv.cpu.compiled import address, cache_folder
from fastconv.cpu.simd import TileShape
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.cpu.threads import default_threads
from fastconv.plan import choose
from fastconv.problem import DTYPES, Problem

SHARE = 3  # variants that a process compiles in one go: few, so that both end at one time
# Filters in lanes, in half of them, pixels in lanes, Winograd's forms, which read the image in their own ways, and woven phases.
SHARED = (
    "conv2d,n1c16i8f32k3,tiled",
    "conv2d,n1c16i8f16k3g2,tiled,channels_last",
    "conv2d,n1c3i99f8k3,tiled",
    "conv2d,n1c16i9f32k3p1,winograd",
    "conv2d,n1c1024i7f1024k3p1g32,winograd",
    "conv2d,n1c64i28f64k3p1g32,winograd,channels_last",
    "transposed2d,n1c16i8f32k2s2,tiled",
)


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
    start, done, wanted = time.perf_counter(), 0, _apart(wanted)
    shares = [wanted[i : i + SHARE] for i in range(0, len(wanted), SHARE)]
    with ProcessPoolExecutor(default_threads(), multiprocessing.get_context("spawn"), collect_rarely) as pool:
        shared = [pool.submit(_compile_shared, dtype) for dtype in sorted({v.dtype for v in wanted if v.tile is not None})]
        for share in pool.map(_compile, shares):
            done += len(share)
            for variant in share:
                report(f"{variant}")
        for each in shared:
            each.result()
    report(f"{done} variants for {machine.target_name()} in {time.perf_counter() - start:.0f} s, in {folder}")


def collect_rarely() -> None:
    """Numba makes millions of objects that live for a while, and Python looked through them for a tenth of the time."""
    gc.freeze()
    gc.set_threshold(500_000, 5, 5)


def _apart(wanted: Sequence[Variant]) -> Sequence[Variant]:
    """One of each machine code: some implementations have a kernel in common, and put its sums elsewhere."""
    by_name = {i.name: i for i in IMPLEMENTATIONS}
    return list({(by_name[v.name].kernel, by_name[v.name].scheme, v.dtype, v.tile): v for v in wanted}.values())


def _compile_shared(dtype: str) -> None:
    """What all tiled kernels call, and what packs their weights: a layer of each form asks for it."""
    for line in SHARED:
        problem = Problem.parse(f"{line},{dtype}")
        choice = choose(problem, IMPLEMENTATIONS, 1)
        launch.pack(choice, [np.ones(problem.weight_shape, dtype)], [None])
        launch.shared_code(problem, choice.division, {"late": True, "inner_late": True})
    products = tiles.winograd_products(dtype) + tiles.narrow_winograd_products(dtype)
    pixels = tiles.pixels_in_lanes(dtype)
    pairs = tiles.pairs_in_rows(dtype)
    for multiply, shapes in (
        (winograd.multiply, products), (columns.multiply, pixels), (grouped.multiply, pixels), (strassen.multiply_pairs, pairs),
    ):  # fmt: skip
        for tile in shapes:
            launch.multiply_code(multiply, tile)
    for fill, windows in (
        (separable.fill_band, tiles.windows_of_bands(dtype)), (separable.fill_band_last, tiles.separable_windows(dtype)),
        (separable.fill_band_turned, tiles.separable_windows(dtype)),
    ):  # fmt: skip
        for window in windows:
            launch.fill_code(fill, window, dtype)
    for name in winograd.FRESH:
        launch.transform_code(winograd.transform_panel, products[0], winograd.SCHEMES[name])


def _compile(share: Sequence[Variant]) -> Sequence[Variant]:
    by_name = {i.name: i for i in IMPLEMENTATIONS}
    for name, dtype, tile in share:
        address(by_name[name].kernel, *job.arguments(dtype, tile, by_name[name].scheme))
    return share
