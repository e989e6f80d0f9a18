"""Plans for strassen.py: bands of pairs of pixels, chunks of pairs of filters."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from fastconv.cpu import machine, strips, tiles
from fastconv.cpu.plans import pointwise
from fastconv.cpu.plans.costs import COPY, TURN, panels_packing
from fastconv.cpu.plans.rules import FILTERS, FIRST, SHEETS
from fastconv.cpu.plans.shares import ceil, scratch_numbers
from fastconv.cpu.sheets import LINE, Sheets, fill_sheets, rows_in_a_plane, taps
from fastconv.cpu.simd import TileShape
from fastconv.cpu.strassen import (
    PRODUCTS,
    SUMS,
    combined_filters,
    error_bound,
    head_of,
    multiply_pairs,
    put_pairs,
    strassen_patches,
    strassen_pointwise,
    strassen_pointwise_turned,
)
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem


def pack(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [combined_filters(weights[0], biases[0], unit)]


def refuse(problem: Problem) -> str | None:
    return pointwise.filters_refuse(problem) or unpaired(problem)


def unpaired(problem: Problem) -> str | None:
    if problem.channels % 2 or problem.filters % 2:
        return f"halves channels and filters, here are {problem.channels} and {problem.filters}"
    if problem.filters // 2 < machine.lanes(problem.dtype):
        return f"half of {problem.filters} filters fill no vector"
    if problem.out_space[-1] < (least := least_pixels(problem.dtype)):
        return f"halves strips of {least} pixels, here are {problem.out_space[-1]}"
    return None


def patches_refuse(problem: Problem) -> str | None:
    if problem.dimensions == 3 or problem.groups > 1 or any(map(any, problem.pads)):
        return "computes planes and signals of one group without padding"
    if any(k > s for k, s in zip(problem.kernel, problem.stride, strict=True)) or any(d != 1 for d in problem.dilation):
        return f"computes windows that do not overlap, these are {problem.kernel} with stride {problem.stride}"
    if all(n == 1 for n in (*problem.kernel, *problem.stride)):
        return "copies pixels that may be read in place"
    return unpaired(as_channels(problem))


def pack_patches(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return pack(problem, unit, [weights[0].reshape(*weights[0].shape[:2], -1, 1)], biases)


def divide(problem: Problem, threads: int, copied: int = 0) -> Division:
    """For strassen_pointwise: bands of pairs of pixels, chunks of pairs of filters; numbers `copied` of a pair and a channel."""
    pairs, images = ceil(problem.out_space[-1], 2), max(1, problem.batch)
    tile = best_tile(problem, pairs)
    band = at_a_time(problem, tile, pairs, copied)
    bands, panels = max(1, pairs // band), ceil(problem.filters // 2, tile.width)
    # Cut only where there are few other items, for each chunk adds up the image anew.
    chunk = tile.width * ceil(panels, min(panels, ceil(threads, bands * images)))
    chunks = ceil(problem.filters // 2, chunk)
    fields, scratch = layout(problem, tile, longest(pairs, band))
    items = problem.batch * bands * chunks
    return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fields=fields, **code(problem.dtype))


def turned(problem: Problem, threads: int) -> Division:
    """For strassen_pointwise_turned: the same, with room for a band's image."""
    division = divide(problem, threads, copied=2)
    pairs = longest(ceil(problem.out_space[-1], 2), division.band)
    pitch = LINE * (ceil(2 * pairs + machine.lanes(problem.dtype), LINE) | 1)
    fields, scratch = dict(division.fields) | {"pitch": pitch}, division.scratch + problem.channels * pitch
    return replace(division, scratch=scratch, fields=fields)


def turned_cycles(problem: Problem) -> float:
    """Of the pointwise layer, and of turning the image."""
    return cycles(problem) + max(1, problem.batch) * _copying(problem)


def turned_busiest(problem: Problem, threads: int) -> float:
    """As `busiest`, of items that turn a band of an image each."""
    division = turned(problem, threads)
    return _busiest(problem, division, threads) + ceil(division.items, threads) * _copying(problem) / division.bands


def patches(problem: Problem, threads: int) -> Division:
    """For strassen_patches: images, and chunks of pairs of filters where there are fewer of them than threads."""
    conv, lanes, images = as_channels(problem), machine.lanes(problem.dtype), max(1, problem.batch)
    [pixels] = conv.out_space
    pairs = ceil(pixels, 2)
    tile = best_tile(conv, pairs)
    run, panels = at_a_time(conv, tile, pairs), ceil(problem.filters // 2, tile.width)
    chunk = tile.width * ceil(panels, min(panels, ceil(threads, images)))  # each adds up the image anew
    chunks = ceil(problem.filters // 2, chunk)
    fields, scratch = layout(conv, tile, longest(pairs, run))
    row = LINE * (ceil(pixels + lanes, LINE) | 1)
    fields |= asdict(Sheets.of(problem, rows_in_a_plane(problem))) | {"run": run, "phase_size": row, "sheet": taps(problem) * row}
    scratch += conv.channels * row
    code_of = code(problem.dtype) | {"fill": fill_sheets}
    return Division(problem.batch * chunks, 1, 1, chunks, chunk, scratch, tile, tile.width, fields=fields, **code_of)


def as_channels(problem: Problem) -> Problem:
    """The pointwise layer whose channels are the taps of windows that do not overlap."""
    return replace(problem, channels=problem.channels * taps(problem), space=problem.out_space).flat()


def patches_cycles(problem: Problem) -> float:
    """Of the pointwise layer, and of copying the image."""
    conv = as_channels(problem)
    return cycles(conv) + max(1, conv.batch) * _copying(conv)


def patches_busiest(problem: Problem, threads: int) -> float:
    """As `busiest`, of items that copy a whole image each."""
    conv, division = as_channels(problem), patches(problem, threads)
    return _busiest(conv, division, threads) + ceil(division.items, threads) * _copying(conv)


def _copying(conv: Problem) -> float:
    """An image."""
    return 2 * COPY * conv.channels * ceil(conv.space[0], machine.lanes(conv.dtype))


def code(dtype: str) -> dict[str, Any]:
    """What multiplies, and the tile of the kernels that call it."""
    [outer] = tiles.one_vector(dtype)
    return {"multiply": multiply_pairs, "put": put_pairs, "outer": outer}


def at_a_time(problem: Problem, tile: TileShape, pairs: int, copied: int = 0) -> int:
    """How many of so many pairs are multiplied together: whole strips, whose sums of the image take half of L2 at most.

    Together with so many numbers of each pair and channel that are copied.
    """
    strips = max(1, pairs // tile.rows)
    most = max(1, scratch_numbers(problem.dtype) // (_a_strip(problem, tile) + copied * tile.rows * problem.channels))
    return strips // ceil(strips, most) * tile.rows


def least_pixels(dtype: str) -> int:
    """That fill the two halves of a strip."""
    return 2 * min(tile.short.rows for tile in tiles.pairs_in_rows(dtype))


def longest(pairs: int, band: int) -> int:
    """Of so many pairs in bands: the last one takes what is left over."""
    return pairs - band * (max(1, pairs // band) - 1)


def _a_strip(problem: Problem, tile: TileShape) -> int:
    """Numbers of a strip's factors and sums of the image."""
    return ceil(tile.rows, tile.lanes) * tile.lanes * (1 + SUMS * problem.channels // 2)


def layout(problem: Problem, tile: TileShape, pairs: int) -> tuple[dict[str, Any], int]:
    """Where things lie in a seat's scratch for so many pairs, and how large it is: ones, two tiles, four sums, strips."""
    row, head = ceil(tile.rows, tile.lanes) * tile.lanes, head_of(problem.channels, tile.width)
    quarter = (pairs + tile.rows + tile.lanes) * tile.width
    sums_at = row + 2 * tile.rows * tile.width
    values_at = sums_at + 4 * quarter
    fields = {
        "strip": _a_strip(problem, tile), "head": head, "sums_pitch": quarter, "products_at": row, "sums_at": sums_at,
        "values_at": values_at, "outer_filters": problem.filters,
        "outer_panel": tile.width * (head + PRODUCTS * problem.channels // 2),
    }  # fmt: skip
    return fields, values_at + ceil(pairs, tile.short.rows) * fields["strip"]


def best_tile(problem: Problem, pairs: int) -> TileShape:
    """The tile whose strips of so many pairs waste least."""
    fitting = [tile for tile in tiles.pairs_in_rows(problem.dtype) if tile.short.rows <= pairs]
    return min(fitting, key=lambda tile: sum(pairs_cycles(problem, pairs, tile)))


# Of a vector of pairs of pixels, for each pair of channels: to measure four numbers, and to make and put four sums, bound by what
# L2 takes in.
SUM_PAIRS = 50.0
# A product of strassen.py takes as long as so many channels more: it is begun, and its sums are kept and fetched.
KEPT = 5.0


def cycles(problem: Problem) -> float:
    """Of seven products of halves and the sums of the image."""
    pairs = ceil(problem.out_space[-1], 2)
    return max(1, problem.batch) * sum(pairs_cycles(problem, pairs, best_tile(problem, pairs)))


def busiest(problem: Problem, threads: int) -> float:
    """Of the busiest of so many threads: chunks may have uneven numbers of panels, and each adds up the image anew."""
    return _busiest(problem, divide(problem, threads), threads)


def _busiest(problem: Problem, division: Division, threads: int) -> float:
    tile, panels = division.tile, ceil(problem.filters // 2, division.unit)
    products, sums = pairs_cycles(problem, ceil(problem.out_space[-1], 2), tile)
    of_an_item = (products * min(panels, division.chunk // division.unit) / panels + sums) / division.bands
    return ceil(division.items, threads) * of_an_item


def pairs_cycles(problem: Problem, pairs: int, tile: TileShape) -> tuple[float, float]:
    """Of so many pairs of pixels: of all products, and of the sums of the image."""
    panels, depth = ceil(problem.filters // 2, tile.width), problem.channels // 2
    products = PRODUCTS * panels * (depth + KEPT) * strips.even_work(pairs, tile)
    put = 4 * panels * ceil(pairs, tile.lanes) * tile.width * (TURN if problem.data_format == FIRST else COPY)
    return products + put, ceil(pairs, tile.rows) * ceil(tile.rows, tile.lanes) * depth * SUM_PAIRS


def packing_cycles(problem: Problem) -> float:
    """Of the sums of weights."""
    return panels_packing(problem) * PRODUCTS / 4


IMPLEMENTATIONS = (
    Implementation(
        "strassen_pointwise", "winograd", ("pointwise",),
        strassen_pointwise, pack, divide, FILTERS, refuse,
        ("columns",), tiles.one_vector, cycles=cycles, error=error_bound,
        packing=packing_cycles, busiest=busiest,
    ),
    Implementation(
        "strassen_pointwise_turned", "winograd", ("pointwise",),
        strassen_pointwise_turned, pack, turned, FILTERS, refuse,
        ("channels",), tiles.one_vector, cycles=turned_cycles, error=error_bound,
        packing=packing_cycles, busiest=turned_busiest,
    ),
    Implementation(
        "strassen_patches", "winograd", ("standard", "pointwise"),
        strassen_patches, pack_patches, patches, FILTERS, patches_refuse,
        SHEETS, tiles.one_vector, cycles=patches_cycles,
        error=lambda problem: error_bound(as_channels(problem)), packing=packing_cycles,
        busiest=patches_busiest,
    ),
)  # fmt: skip
