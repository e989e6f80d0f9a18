"""Plans for gradients.py: parts of the images, which are summed in order, chunks and blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace

from fastconv.cpu import machine, tiles
from fastconv.cpu.gradients import (
    tiled_depthwise_weight_gradient,
    tiled_depthwise_weight_gradient_last,
    tiled_weight_gradient,
    tiled_weight_gradient_pixels,
)
from fastconv.cpu.plans import depthwise
from fastconv.cpu.plans.costs import COPY, TURN
from fastconv.cpu.plans.rules import FILTERS, FIRST, LAST, PIXELS, SHEETS, never, unless
from fastconv.cpu.plans.shares import ITEMS_A_THREAD, ceil, even_shares, evenly, scratch_numbers
from fastconv.cpu.sheets import LINE, Sheets, fill_sheets, planes, rows_in_a_plane, taps
from fastconv.cpu.simd import TileShape
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem

# Pixels of a band of tiled_weight_gradient: enough that loading and storing a tile's sums is a hundredth of its updates. Of one
# tap fewer, so that more channels fit a block, for each block turns the gradient anew: 4 to 14 % faster than of 384.
BAND_PIXELS, PIXELS_OF_ONE_TAP = 384, 128
# Pixels of a part of the images, so that adding the parts up is as little; more where lanes of sums must be added up first, or
# sums are at points. And parts, enough for many threads. Chunks and blocks have sheets filled and gradients turned anew, parts do
# not: of two threads 56 x 56 layers of 1x1 took 0.55 of one's time in chunks and blocks.
PART_PIXELS, PART_PIXELS_OF_LANES, MOST_PARTS = 400, 1600, 16


def windows_refuse(data_format: str) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.groups != problem.channels:
            return "computes depthwise layers"
        if data_format == LAST and problem.filters != problem.groups:
            return f"computes one filter a channel, here are {problem.filters // problem.groups}"
        return unless(data_format)(problem) or depthwise.slides(problem)

    return refuse


def dots_refuse(problem: Problem) -> str | None:
    filters, numbers = problem.filters // problem.groups, problem.channels // problem.groups * math.prod(problem.kernel)
    tile = min(tiles.dots(problem.dtype), key=lambda tile: tile.vectors)
    if filters < tile.vectors:
        return f"has a vector for each of {tile.vectors} filters, here are {filters} in a group"
    if numbers * tile.width > scratch_numbers(problem.dtype) // 2:
        return f"keeps all sums of {tile.vectors} filters in L2, here are {numbers} numbers in a filter"
    return unless(FIRST)(problem)


def weight_sums(problem: Problem, threads: int) -> Division:
    """For tiled_weight_gradient: bands and parts that do not depend on the threads, then chunks and blocks that may."""
    exchanged = _turns_less(problem)
    problem = problem.exchanged() if exchanged else problem
    filters, channels, out_width = problem.filters // problem.groups, problem.channels // problem.groups, problem.out_space[-1]
    rows, room = rows_in_a_plane(problem), scratch_numbers(problem.dtype)
    pixels = PIXELS_OF_ONE_TAP if taps(problem) == 1 else BAND_PIXELS
    band, parts = _bands_and_parts(problem, pixels, PART_PIXELS)
    sheets = Sheets.of(problem, band)

    def shares(tile: TileShape, threads: int) -> tuple[float, int, int]:
        """(cycles of the busiest thread, panels of a chunk, channels of a block, both less than 0), the least of all."""
        every, each = ceil(filters, tile.width), []
        # Half of a seat's scratch for the sums, a quarter each for the gradient and the sheets.
        chunks = even_shares(every, max(1, room // 4 // (band * out_width * tile.width)))
        for panels in chunks if threads > 1 else chunks[:1]:
            most = max(1, min(channels, room // 4 // sheets.sheet, room // 2 // (panels * tile.width * taps(problem))))
            for block in even_shares(channels, most):
                items = parts * problem.groups * ceil(every, panels) * ceil(channels, block)
                item = panels * _panel_cycles(problem, tile, block) + block * _fill_cycles(problem)
                each.append((ceil(items, threads) * item, -panels, -block))
        return min(each)

    tile = min(tiles.numbers_in_rows(problem.dtype), key=lambda tile: shares(tile, 1)[0])
    _, panels, block = shares(tile, threads)
    panels, block = -panels, -block
    chunk, numbers = panels * tile.width, ceil(block * taps(problem), tile.rows) * tile.rows
    bands, chunks, blocks = ceil(rows, band), ceil(filters, chunk), ceil(channels, block)
    places = [c * sheets.sheet + tap for c in range(block) for tap in sheets.table[: taps(problem)]]
    places += [0] * (numbers + tile.rows - len(places))  # the last block may begin within a tile
    grads_at = ceil(block * sheets.sheet + LINE, LINE) * LINE
    sums_at = grads_at + chunk * band * out_width
    fields = asdict(sheets) | {
        "table": (*sheets.table, *places), "places": len(sheets.table), "channels": block, "all_channels": channels,
        "filters": filters, "blocks": blocks, "parts": parts, "grads_at": grads_at, "sums_at": sums_at, "exchanged": exchanged,
    }  # fmt: skip
    scratch, items = sums_at + chunk * numbers + tile.lanes * tile.width, parts * problem.groups * chunks * blocks
    return Division(items, bands, band, chunks, chunk, scratch, tile, 0, fill_sheets, fields)


def _bands_and_parts(problem: Problem, pixels: int, part: int) -> tuple[int, int]:
    """Rows of a band of so many pixels, and parts, of as many as `part`, of all images' bands."""
    rows, out_width = rows_in_a_plane(problem), problem.out_space[-1]
    band = ceil(rows, ceil(rows, max(1, min(rows, pixels // out_width))))
    return band, parts_of(problem, max(1, problem.batch) * planes(problem) * ceil(rows, band), part)


def parts_of(problem: Problem, units: int, part: int = PART_PIXELS_OF_LANES) -> int:
    """Of all images, that fall into so many units; each of as many pixels as `part`."""
    pixels = max(1, problem.batch) * math.prod(problem.out_space)
    parts = max(1, min(MOST_PARTS, units, pixels // part))
    return 1 << (parts.bit_length() - 1)  # a power of two: seven would leave one of two threads idle for a seventh


def weight_cycles(problem: Problem) -> float:
    """Of tiled_weight_gradient."""
    division, exchanged = weight_sums(problem, 1), _turns_less(problem)
    problem = problem.exchanged() if exchanged else problem
    tile, block, filters = division.tile, division.fields["channels"], problem.filters // problem.groups
    assert tile is not None
    blocks, panels = division.fields["blocks"], ceil(filters, tile.width)
    each = blocks * panels * _panel_cycles(problem, tile, block) + division.chunks * blocks * block * _fill_cycles(problem)
    return problem.batch * problem.groups * math.prod(problem.out_space) * each


def _panel_cycles(problem: Problem, tile: TileShape, block: int) -> float:
    """Of a pixel and a panel: updates for a block, which read as many places as they broadcast, and its gradient turned."""
    update = tiles.update_cycles(tile, tile.vectors) + tile.rows / 8
    return ceil(block * taps(problem), tile.rows) * update * (tile.lanes / machine.lanes(problem.dtype)) + TURN * tile.vectors


def _turns_less(problem: Problem) -> bool:
    """Whether a pointwise layer's image and gradient should stand for each other: what fills the lanes must be turned.

    So must sums of filters in lanes; those of channels in lanes lie as the result does.
    """
    if not _pixel_by_pixel(problem):
        return False
    pixels = problem.batch * math.prod(problem.out_space)
    return problem.channels * (TURN * pixels + COPY * problem.filters) < problem.filters * TURN * (pixels + problem.channels)


def _pixel_by_pixel(problem: Problem) -> bool:
    """Whether image and gradient may stand for each other."""
    return taps(problem) == 1 and all(s == 1 for s in problem.stride) and not any(map(any, problem.pads))


# Pixels of a band of tiled_weight_gradient_pixels: putting a tile's sums, in L2, takes a thirtieth of its updates. 512 took
# 1 % longer.
DOT_PIXELS = 1024
# Of a multiply-add, for a load of an image's numbers that crosses a cache line; and for one of the last of a row, which has a mask.
OFF_A_LINE, MASKED = 0.4, 2.0


def dot_sums(problem: Problem, threads: int) -> Division:
    """For tiled_weight_gradient_pixels: bands and parts as of weight_sums, chunks of filters whose sums fit half a scratch."""
    exchanged = _copies_less(problem)
    problem = problem.exchanged() if exchanged else problem
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    band, parts = _bands_and_parts(problem, DOT_PIXELS, PART_PIXELS_OF_LANES)
    tile, sheets = _dots_tile(problem), Sheets.of(problem, band, aligned=True)
    sums = ceil(channels * taps(problem), tile.rows) * tile.rows * tile.width  # of a panel of filters
    panels, numbers = ceil(filters, tile.vectors), channels * taps(problem)

    def busiest(share: int) -> float:
        """Cycles of the thread with most items, for a pixel of chunks of so many panels."""
        item = share * ceil(numbers, tile.rows) * tile.rows * tile.vectors / tile.lanes + channels * _fill_cycles(problem)
        return ceil(parts * problem.groups * ceil(panels, share), threads) * item

    chunk = tile.vectors * min(even_shares(panels, max(1, scratch_numbers(problem.dtype) // 2 // sums)), key=busiest)
    bands, chunks = ceil(rows_in_a_plane(problem), band), ceil(filters, chunk)
    places = [c * sheets.sheet + tap for c in range(channels) for tap in sheets.table[: taps(problem)]]
    places += [0] * (-len(places) % tile.rows)
    sums_at = ceil(channels * sheets.sheet + tile.lanes, LINE) * LINE
    fields = asdict(sheets) | {
        "table": (*sheets.table, *places), "places": len(sheets.table), "filters": filters, "parts": parts, "sums_at": sums_at,
        "exchanged": exchanged,
    }  # fmt: skip
    scratch = sums_at + chunk // tile.vectors * sums
    return Division(parts * problem.groups * chunks, bands, band, chunks, chunk, scratch, tile, 0, fill_sheets, fields)


def _dots_tile(problem: Problem) -> TileShape:
    """The tile that wastes least, of those with no more filters than a group has."""
    fitting = [tile for tile in tiles.dots(problem.dtype) if tile.vectors <= problem.filters // problem.groups]
    return min(fitting, key=lambda tile: _dots_cycles(problem, tile))


def dots_cycles(problem: Problem) -> float:
    """Of tiled_weight_gradient_pixels."""
    problem = problem.exchanged() if _copies_less(problem) else problem
    return _dots_cycles(problem, _dots_tile(problem))


def _copies_less(problem: Problem) -> bool:
    """Whether a pointwise layer's image and gradient should stand for each other: the one is copied, the other read in place."""
    other = problem.exchanged() if _pixel_by_pixel(problem) else problem
    if other is problem or dots_refuse(other):
        return False
    return _dots_cycles(other, _dots_tile(other)) < _dots_cycles(problem, _dots_tile(problem))


def _dots_cycles(problem: Problem, tile: TileShape) -> float:
    """Each update a vector for each product; sums are loaded and stored once a band, and their lanes added up once a part."""
    filters, numbers = problem.filters // problem.groups, problem.channels // problem.groups * taps(problem)
    band, parts = _bands_and_parts(problem, DOT_PIXELS, PART_PIXELS_OF_LANES)
    panels, rows = ceil(filters, tile.vectors), problem.batch * planes(problem) * rows_in_a_plane(problem)
    sums = problem.groups * ceil(numbers, tile.rows) * panels * tile.rows * tile.vectors
    chunks = ceil(sums * tile.lanes, problem.groups * scratch_numbers(problem.dtype) // 2)
    whole, over = divmod(problem.out_space[-1], tile.lanes)
    vectors = whole + (1 + MASKED / tile.vectors if over else 0)
    (*_, across), (*_, stride), (*_, apart) = problem.kernel, problem.stride, problem.dilation
    update = 1 + OFF_A_LINE / tile.vectors * sum(b * apart >= stride for b in range(across)) / across  # first columns are aligned
    products = sums * (rows * vectors * update + 2 * COPY * rows / band + TURN * parts)  # sums lie in L2
    pixels = problem.batch * math.prod(problem.out_space)
    return products + chunks * pixels * problem.channels * _fill_cycles(problem)


def _fill_cycles(problem: Problem) -> float:
    """Of sheets, a channel's for a pixel of the result: twice a copy, for most of their rows begin off a cache line."""
    pixels, vectors = math.prod(problem.out_space), ceil(problem.space[-1], machine.lanes(problem.dtype))
    return 2 * COPY * math.prod(problem.space[:-1]) * vectors / pixels


def window_sums(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_weight_gradient: chunks of channels; parts of the images where channels are few."""
    lanes, (taps_a, taps_b) = machine.lanes(problem.dtype), problem.kernel
    narrow = problem.out_space[1] <= lanes // 2 and lanes >= tiles.LEAST_TO_HALVE
    lines = lines_at_once(taps_a, taps_b, problem.stride[0])
    tile = TileShape(lines, taps_b, lanes // 2 if narrow else lanes, problem.stride[0], problem.dtype)
    parts = max(1, min(MOST_PARTS // problem.filters, problem.batch))
    chunks = min(problem.filters, ceil(ITEMS_A_THREAD * threads, parts)) if threads > 1 else 1
    chunk = ceil(problem.filters, chunks)
    chunks = ceil(problem.filters, chunk)
    return Division(parts * chunks, 1, 1, chunks, chunk, 0, tile, fields={"parts": parts})


def window_sums_last(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_weight_gradient_last: parts of all rows where channels are few, else chunks of them for the threads."""
    lanes, (taps_a, taps_b) = machine.lanes(problem.dtype), problem.kernel
    lines = lines_at_once(taps_a, taps_b, problem.stride[0])
    tile, vectors = TileShape(taps_b, lines, lanes, problem.stride[0], problem.dtype), ceil(problem.filters, lanes)
    rows = max(1, problem.batch) * problem.out_space[0]
    parts = max(1, min(ceil(MOST_PARTS, vectors), rows, rows * problem.out_space[1] // PART_PIXELS_OF_LANES))
    chunk = evenly(vectors, vectors, ceil(ITEMS_A_THREAD * threads, parts) if threads > 1 else 1)
    chunks, sums = ceil(vectors, chunk), tile.rows * tile.width
    return Division(parts * chunks, 1, 1, chunks, chunk * lanes, chunk * sums, tile, fields={"parts": parts})


def lines_at_once(taps_a: int, taps_b: int, stride: int) -> int:
    """Lines of taps whose sums, gradients and numbers fit the registers, as even shares of all."""
    fitting = [n for n in range(1, taps_a + 1) if n * taps_b + max(ceil(n, stride), n) + taps_b < machine.registers()]
    return evenly(taps_a, max(fitting, default=1), 1)


def tiles_of_windows(dtype: str) -> list[TileShape]:
    """Every tile of tiled_depthwise_weight_gradient."""
    lanes = machine.lanes(dtype)
    each = [TileShape(lines_at_once(w.rows, w.vectors, w.step), w.vectors, lanes, w.step, dtype) for w in tiles.windows(dtype)]
    return [*each, *(replace(tile, lanes=lanes // 2) for tile in each if lanes >= tiles.LEAST_TO_HALVE)]


def tiles_of_windows_last(dtype: str) -> list[TileShape]:
    """Every tile of tiled_depthwise_weight_gradient_last."""
    every = tiles_of_windows(dtype)
    return [replace(tile, rows=tile.vectors, vectors=tile.rows) for tile in every if tile.lanes == machine.lanes(dtype)]


IMPLEMENTATIONS = (
    Implementation(
        "tiled_depthwise_weight_gradient", "tiled", ("weights",),
        tiled_depthwise_weight_gradient, None, window_sums, "columns of the gradient",
        windows_refuse(FIRST), ("columns",), tiles.in_float32(tiles_of_windows),
    ),
    Implementation(
        "tiled_depthwise_weight_gradient_last", "tiled", ("weights",),
        tiled_depthwise_weight_gradient_last, None, window_sums_last, "channels",
        windows_refuse(LAST), ("channels",), tiles.in_float32(tiles_of_windows_last),
    ),
    Implementation(
        "tiled_weight_gradient_pixels", "tiled", ("weights",),
        tiled_weight_gradient_pixels, None, dot_sums, PIXELS, dots_refuse, ("columns",), tiles.dots,
        cycles=dots_cycles,
    ),
    Implementation(
        "tiled_weight_gradient", "tiled", ("weights",),
        tiled_weight_gradient, None, weight_sums, FILTERS, never, SHEETS, tiles.numbers_in_rows,
        cycles=weight_cycles,
    ),
)  # fmt: skip
