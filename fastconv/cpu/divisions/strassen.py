"""The division of strassen.py: bands of pairs of pixels, chunks of pairs of filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu import machine, strips, tiles
from fastconv.cpu.divisions.costs import TURN, panels_packing
from fastconv.cpu.divisions.shares import ceil, scratch_numbers
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_rows
from fastconv.cpu.strassen import PRODUCTS, SUMS, head_of
from fastconv.plan import Division
from fastconv.problem import Problem


def divide(problem: Problem, threads: int) -> Division:
    """For strassen_pointwise: bands of pairs of pixels whose sums of all channels lie in L2, chunks of pairs of filters."""
    tile, pairs, images = best_tile(problem), ceil(problem.out_space[-1], 2), max(1, problem.batch)
    strips = max(1, pairs // tile.rows)
    band = strips // min(strips, ceil(strips, _most_pairs(problem, tile) // tile.rows))
    bands = strips // band
    longest = pairs - band * tile.rows * (bands - 1)  # the last band takes what is left over
    chunk = _chunk_of_pairs(problem, tile, bands * images, threads)
    chunks = ceil(problem.filters // 2, chunk)
    fields, scratch = _pairs_fields(problem, tile, pairs, longest)
    fields |= {"panels": ceil(problem.filters // 2, tile.width), "panel": fields["outer_panel"]}
    items, unit = problem.batch * bands * chunks, tile.width
    return Division(items, bands, band * tile.rows, chunks, chunk, scratch, tile, unit, None, fields, put=put_rows)


def _most_pairs(problem: Problem, tile: TileShape) -> int:
    """Pairs of pixels of a band: their sums of the image in half of L2, the four sums of a panel in L1."""
    size, strip = np.dtype(problem.dtype).itemsize, _a_strip(problem, tile)
    strips = min(scratch_numbers(problem.dtype) // strip, machine.caches()["L1d"] // (4 * tile.rows * tile.width * size))
    return max(1, strips) * tile.rows


def _a_strip(problem: Problem, tile: TileShape) -> int:
    """Numbers of a strip's factors and sums of the image."""
    return ceil(tile.rows, tile.lanes) * tile.lanes * (1 + SUMS * problem.channels // 2)


def _chunk_of_pairs(problem: Problem, tile: TileShape, others: int, threads: int) -> int:
    """Filters of a chunk: cut only where there are few other items, for each chunk adds up the image anew."""
    panels = ceil(problem.filters // 2, tile.width)
    return tile.width * ceil(panels, min(panels, ceil(2 * threads, others)) if threads > 1 else 1)


def _pairs_fields(problem: Problem, tile: TileShape, pairs: int, longest: int) -> tuple[dict[str, Any], int]:
    """Where things lie in a seat's scratch, and how large it is: ones, two tiles, four sums, strips; `longest`: pairs of a band."""
    row, head = ceil(tile.rows, tile.lanes) * tile.lanes, head_of(problem.channels, tile.width)
    quarter = (longest + tile.rows + tile.lanes) * tile.width
    sums_at = row + 2 * tile.rows * tile.width
    values_at = sums_at + 4 * quarter
    fields = {
        "across": pairs, "sheet": _a_strip(problem, tile), "head": head, "sums_pitch": quarter,
        "products_at": row, "sums_at": sums_at, "values_at": values_at,
        "outer_panel": tile.width * (head + PRODUCTS * problem.channels // 2),
    }  # fmt: skip
    return fields, values_at + ceil(longest, tile.short.rows) * fields["sheet"]


def best_tile(problem: Problem) -> TileShape:
    """The tile whose strips of pairs waste least."""
    every, pairs = tiles.pairs_in_rows(problem.dtype), ceil(problem.out_space[-1], 2)
    fitting = [tile for tile in every if tile.short.rows <= pairs]
    return min(fitting, key=lambda tile: _cycles(problem, tile))


# Of a vector of pairs of pixels, for each pair of channels: to measure four numbers, and to make and put four sums, bound by what
# L2 takes in.
SUM_PAIRS = 50.0
# A product of strassen.py takes as long as so many channels more: it is begun, and its sums are kept and fetched.
KEPT = 5.0


def cycles(problem: Problem) -> float:
    """Of seven products of halves and the sums of the image."""
    return _cycles(problem, best_tile(problem))


def _cycles(problem: Problem, tile: TileShape) -> float:
    pairs, panels, depth = ceil(problem.out_space[-1], 2), ceil(problem.filters // 2, tile.width), problem.channels // 2
    products = PRODUCTS * panels * (depth + KEPT) * strips.even_work(pairs, tile)
    put = 4 * panels * ceil(pairs, tile.lanes) * tile.width * TURN
    sums = ceil(pairs, tile.rows) * ceil(tile.rows, tile.lanes) * depth * SUM_PAIRS
    return max(1, problem.batch) * (products + put + sums)


def packing(problem: Problem) -> float:
    """Of the sums of weights."""
    return panels_packing(problem) * PRODUCTS / 4
