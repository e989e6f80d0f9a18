"""Plans for pointwise.py's tiled kernels: bands of an image's pixels, read where they lie."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.cpu import machine, tiles
from fastconv.cpu.plans import standard
from fastconv.cpu.plans.costs import panels_packing
from fastconv.cpu.plans.rules import FILTERS, FIRST, PIXELS, in_lanes, in_rows, unless
from fastconv.cpu.plans.shares import ITEMS_A_THREAD, ceil, chunks_of, scratch_numbers, weight_bytes
from fastconv.cpu.pointwise import tiled_pointwise, tiled_pointwise_pixels
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_rows
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem

# Of so few a tile is done sooner than memory takes its sums: then panels pass one by one, and each writes a few rows from end to
# end. A layer of 16 to 96 at 112 x 112 takes 0.55 ms in place of 0.9 in its network; of 256 to 64 it would take 10 % longer.
FEW_CHANNELS = 64


def filters_refuse(problem: Problem) -> str | None:
    return f"reads neighbouring pixels, the stride is {problem.stride}" if any(s != 1 for s in problem.stride) else None


def pixels_refuse(problem: Problem) -> str | None:
    if refusal := filters_refuse(problem):
        return refusal
    if pixels_tile(problem).width > problem.space[0]:
        return f"{problem.space[0]} pixels do not fill a tile"
    return unless(FIRST)(problem)


def pixels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_pointwise_pixels: bands of strips of an image's pixels, read where they lie."""
    tile = pixels_tile(problem)
    together = tile.rows if problem.channels <= FEW_CHANNELS else ceil(problem.filters, tile.rows) * tile.rows
    fields = {"panel": tile.rows * (1 + problem.channels), "together": together}
    # What is done late is done to a whole band, which should still lie in L2.
    bands = ceil(math.prod(problem.out_space) * problem.filters, scratch_numbers(problem.dtype))
    return _over_pixels(problem, tile, tile.width, tile.rows, bands, threads, fields)


def filters_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_pointwise: bands of pixels whose sums stay in L1."""
    tile, pixels = standard.filters_tile(problem), problem.out_space[-1]
    most = max(1, machine.caches()["L1d"] // 2 // (tile.width * np.dtype(problem.dtype).itemsize) // tile.rows)
    bands = ceil(pixels // tile.rows, most)
    fields = {"panel": tile.width * (1 + problem.channels)}
    division = _over_pixels(problem, tile, tile.rows, tile.width, bands, threads, fields)
    longest = division.band + pixels - division.band * division.bands  # the last band takes what is left over
    return replace(division, scratch=(longest + tile.rows + tile.lanes) * tile.width, put=put_rows)


def _over_pixels(
    problem: Problem, tile: TileShape, pixels: int, filters: int, least_bands: int, threads: int, fields: dict[str, Any]
) -> Division:
    """Bands of whole strips of so many pixels; the last takes what is left over, so that only its own strips overlap."""
    count = max(1, problem.out_space[-1] // pixels)
    images, panels = max(1, problem.batch), ceil(problem.filters, filters)
    if weight_bytes(problem) > machine.caches()["L2"]:
        bands = max(1, min(count, least_bands))
        chunks = chunks_of(panels, bands * images, threads)
        band, chunk = max(1, count // bands), filters * ceil(panels, chunks)
        bands, chunks = count // band, ceil(problem.filters, chunk)
        return Division(problem.batch * bands * chunks, bands, band * pixels, chunks, chunk, 0, tile, filters, None, fields)
    wanted = max(least_bands, ceil(ITEMS_A_THREAD * threads, images) if threads > 1 else 1)
    band = max(1, count // min(count, wanted))
    bands = count // band
    chunks = 1
    if threads > 1 and bands * images < 2 * threads:
        chunks = min(panels, ceil(2 * threads, bands * images))
    chunk = filters * ceil(panels, chunks)
    chunks = ceil(problem.filters, chunk)
    return Division(problem.batch * bands * chunks, bands, band * pixels, chunks, chunk, 0, tile, filters, None, fields)


def pixels_tile(problem: Problem) -> TileShape:
    """The tile that wastes least over an image's pixels; one that is not wider than they are many."""
    shapes = tiles.pixels_in_lanes(problem.dtype)
    fitting = [shape for shape in shapes if shape.width <= problem.out_space[-1]]
    return min(fitting, key=lambda tile: pixels_cycles(problem, tile), default=min(shapes, key=lambda s: s.width))


def pixels_cycles(problem: Problem, tile: TileShape | None = None) -> float:
    """Of a pointwise layer's pixels in lanes."""
    tile = tile or pixels_tile(problem)
    strips = problem.batch * ceil(problem.out_space[-1], tile.width)
    return ceil(problem.filters, tile.rows) * strips * problem.channels * tiles.update_cycles(tile, tile.vectors)


IMPLEMENTATIONS = (
    Implementation(
        "tiled_pointwise_pixels", "tiled", ("pointwise",),
        tiled_pointwise_pixels, in_rows, pixels_in_lanes, PIXELS, pixels_refuse,
        ("columns",), tiles.pixels_in_lanes, cycles=pixels_cycles, packing=panels_packing,
    ),
    Implementation(
        "tiled_pointwise", "tiled", ("pointwise",),
        tiled_pointwise, in_lanes, filters_in_lanes, FILTERS, filters_refuse,
        tiles=tiles.filters_in_lanes, cycles=standard.filters_cycles, packing=panels_packing,
    ),
)  # fmt: skip
