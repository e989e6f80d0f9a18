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

# Filters are cut before pixels where there are so many more of them than channels. Threads that write neighbouring parts of one
# row take its lines from each other: of 80 to 480 at 14 x 14, which hardswish reads once more, two took 125 us by bands, and 86 by
# chunks. Where the image has most of the numbers, it is what should not be read twice.
RESULT_TO_IMAGE = 3
UNEVEN = 17 / 16  # what the busiest thread may have to do, over an even share
# Of so few a tile is done sooner than memory takes its sums: then panels pass one by one, and each writes a few rows from end to
# end. A layer of 16 to 96 at 112 x 112 takes 0.55 ms in place of 0.9 in its network; of 256 to 64 it would take 10 % longer.
FEW_CHANNELS = 64
# Cycles that a piece of a row takes besides: wide strips write fewer. 16 to 96 at 112 x 112 take 474 us by 4x6, 536 by 8x2, on two
# threads 235 and 281, 128 to 255 at 80 x 80 4.3 ms and 4.7. Results of 1.6 MB, of 64 to 128 at 56 x 56, take as long by either.
A_PIECE, LARGE = 20.0, 2


def filters_refuse(problem: Problem) -> str | None:
    return f"reads neighbouring pixels, the stride is {problem.stride}" if any(s != 1 for s in problem.stride) else None


def pixels_refuse(problem: Problem) -> str | None:
    if refusal := filters_refuse(problem):
        return refusal
    if tile_in_place(problem).width > problem.space[0]:
        return f"{problem.space[0]} pixels do not fill a tile"
    return unless(FIRST)(problem)


def pixels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_pointwise_pixels: bands of strips of an image's pixels, read where they lie."""
    tile, few = tile_in_place(problem), problem.channels <= FEW_CHANNELS
    by_filters = problem.filters >= RESULT_TO_IMAGE * problem.channels
    together = tile.rows if few else ceil(problem.filters, tile.rows) * tile.rows
    fields = {"panel": tile.rows * (1 + problem.channels), "together": together}
    # What panels read one by one should lie in L2, and else what is done late to a whole band.
    numbers = problem.channels if few and problem.filters > tile.rows else ceil(problem.filters, threads if by_filters else 1)
    bands = ceil(problem.out_space[-1] * numbers, scratch_numbers(problem.dtype))
    return _over_pixels(problem, tile, tile.width, tile.rows, bands, threads, fields, by_filters)


def filters_in_lanes(problem: Problem, threads: int, woven: bool = False) -> Division:
    """For tiled_pointwise: bands of pixels whose sums stay in L1. Of sums that are woven into rows filters are not cut first."""
    by_filters = problem.data_format != "channels_last" and not woven
    tile, pixels = standard.filters_tile(problem), problem.out_space[-1]
    most = max(1, machine.caches()["L1d"] // 2 // (tile.width * np.dtype(problem.dtype).itemsize) // tile.rows)
    bands = ceil(pixels // tile.rows, most)
    fields = {"panel": tile.width * (1 + problem.channels)}
    division = _over_pixels(problem, tile, tile.rows, tile.width, bands, threads, fields, by_filters)
    longest = division.band + pixels - division.band * division.bands  # the last band takes what is left over
    return replace(division, scratch=(longest + tile.rows + tile.lanes) * tile.width, put=put_rows)


def _over_pixels(
    problem: Problem, tile: TileShape, pixels: int, filters: int, least_bands: int, threads: int, fields: dict[str, Any],
    by_filters: bool,
) -> Division:  # fmt: skip
    """Bands of whole strips of so many pixels; the last takes what is left over, so that only its own strips overlap."""
    strips, panels, images = max(1, problem.out_space[-1] // pixels), ceil(problem.filters, filters), max(1, problem.batch)
    least_bands = max(1, min(strips, least_bands))
    if weight_bytes(problem) > machine.caches()["L2"]:
        bands, chunks = least_bands, chunks_of(panels, least_bands * images, threads)
    elif threads == 1:
        bands, chunks = least_bands, 1
    elif by_filters:
        bands, chunks = _by_filters(strips, panels, images, least_bands, threads)
    else:
        bands = min(strips, max(least_bands, ceil(ITEMS_A_THREAD * threads, images)))
        chunks = ceil(2 * threads, bands * images)
    band, chunk = max(1, strips // bands), ceil(panels, min(panels, chunks))
    bands, chunks = strips // band, ceil(panels, chunk)
    items = problem.batch * bands * chunks
    return Division(items, bands, band * pixels, chunks, chunk * filters, 0, tile, filters, None, fields)


def _by_filters(strips: int, panels: int, images: int, least_bands: int, threads: int) -> tuple[int, int]:
    """The fewest bands, and then chunks, that give two items a thread, and none more than its share but for UNEVEN."""
    found, least = (least_bands, 1), math.inf
    for bands in range(least_bands, min(strips, least_bands + ITEMS_A_THREAD * threads) + 1):
        for chunks in range(min(panels, ceil(threads, images)), min(panels, ITEMS_A_THREAD * threads) + 1):
            chunk = ceil(panels, chunks)
            items = bands * ceil(panels, chunk) * images
            busiest = ceil(items, threads) * threads * chunk / (bands * panels * images)  # over an even share
            if busiest < least and items >= 2 * threads:
                found, least = (bands, chunks), busiest
            if least <= UNEVEN:
                return found
    return found


def pixels_tile(problem: Problem, a_piece: float = 0.0) -> TileShape:
    """The tile that wastes least over an image's pixels; one that is not wider than they are many."""
    shapes = tiles.pixels_in_lanes(problem.dtype)
    fitting = [shape for shape in shapes if shape.width <= problem.out_space[-1]]

    def cycles(tile: TileShape) -> float:
        return pixels_cycles(problem, tile) + a_piece * problem.batch * problem.filters * ceil(problem.out_space[-1], tile.width)

    return min(fitting, key=cycles, default=min(shapes, key=lambda s: s.width))


def tile_in_place(problem: Problem) -> TileShape:
    """The same where each strip writes a piece of every filter's row, which costs if the rows of an image pass LARGE of L2."""
    result = problem.filters * problem.out_space[-1] * np.dtype(problem.dtype).itemsize
    return pixels_tile(problem, A_PIECE if result > LARGE * machine.caches()["L2"] else 0.0)


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
