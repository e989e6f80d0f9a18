"""How a problem is divided: which register tile, which bands of rows and chunks of filters make a work item.

Each function takes a problem and a number of threads and gives a `Division`. The tiles are tiles.py's, the choice among
them, and among kernels, a cost model: multiply-adds of a vector, those for pixels and filters that do not exist included.
Results do not depend on a division, so their bits do not depend on the threads.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

import numpy as np

from fastconv.cpu import machine, strips, tiles, toom
from fastconv.cpu.columns import multiply as column_products
from fastconv.cpu.grouped import lines_of_groups, put_pixels, put_planes
from fastconv.cpu.grouped import multiply as group_products
from fastconv.cpu.separable import fill_band, fill_band_last, sum_band, sum_band_last
from fastconv.cpu.sheets import LINE, Sheets, fill_sheets, planes, rows_in_a_plane, taps
from fastconv.cpu.signals import line_of_lanes
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_rows
from fastconv.cpu.strassen import PRODUCTS, SUMS, head_of
from fastconv.cpu.strips import Strip
from fastconv.cpu.toom import F2, F2_3_2, F2_5, F4, F4_3_2, F4_5, F4_5_2, F8_3_UP, F8_4_UP, ONE, Nested, Scheme, nested
from fastconv.cpu.winograd import APART, lines_of_lanes, transform_panel
from fastconv.cpu.winograd import multiply as winograd_products
from fastconv.plan import Division
from fastconv.problem import Problem, SeparableProblem, three

# Operations that an item should hold at least: about 3 us of a direct kernel, against 0.1 us to claim an item.
ITEM_OPERATIONS = 100_000
# Share of L2 for a seat's scratch: the packed weights need the rest.
SCRATCH_SHARE = 0.5
# Pixels whose sums, of a tile's width of filters, stay in L1 until they are put where they belong.
RUN = 112
# Items for each thread: with fewer, threads wait for the slowest.
ITEMS_A_THREAD = 4


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def scratch_numbers(dtype: str) -> int:
    """Numbers of scratch that a seat may have."""
    return int(machine.caches()["L2"] * SCRATCH_SHARE) // np.dtype(dtype).itemsize


def _bytes(problem: Problem) -> int:
    """Of a group's weights."""
    return problem.parameters // problem.groups * np.dtype(problem.dtype).itemsize


# Direct kernels -------------------------------------------------------------------------------------------------------


def _banded(problem: Problem, others: int) -> Division:
    """Bands of rows, as small as an item may be; `others`: how many independent things there are besides rows."""
    *outer, _ = problem.out_space
    rows = math.prod(outer)
    least = min(rows, max(1, _ceil(ITEM_OPERATIONS * rows * others, max(problem.operations, 1))))
    bands = _ceil(rows, least)
    return Division(bands * others, bands, _ceil(rows, bands))


def by_filter(problem: Problem, threads: int) -> Division:
    """An item is a band of one filter's rows."""
    return _banded(problem, problem.batch * problem.filters)


def by_group(problem: Problem, threads: int) -> Division:
    """An item is a band of rows of all filters of a group."""
    return _banded(problem, problem.batch * problem.groups)


def by_image(problem: Problem, threads: int) -> Division:
    """An item is a band of rows of all filters."""
    return _banded(problem, problem.batch)


def by_scratch(problem: SeparableProblem, threads: int) -> Division:
    """An item is a band of rows whose depthwise result fits a seat's scratch."""
    *outer, width = problem.out_space
    rows, channels = math.prod(outer), problem.depthwise.filters
    band = max(1, min(rows, scratch_numbers(problem.dtype) // (width * channels)))
    bands = _ceil(rows, band)
    band = _ceil(rows, bands)  # even bands
    return Division(problem.batch * bands, bands, band, scratch=band * width * channels)


def by_row(problem: SeparableProblem, threads: int) -> Division:
    """An item is a row of the result; its scratch one pixel."""
    rows = math.prod(problem.out_space[:-1])
    return Division(problem.batch * rows, rows, 1, scratch=problem.depthwise.filters)


def by_weight(problem: Problem, threads: int) -> Division:
    """An item is a filter and one of its channels; its scratch a sum for each column of the gradient."""
    return Division(problem.filters * problem.channels // problem.groups, scratch=problem.out_space[-1])


# Pixels of a band of tiled_weight_gradient: enough that loading and storing a tile's sums is a hundredth of its updates. Of one
# tap fewer, so that more channels fit a block, for each block turns the gradient anew: 4 to 14 % faster than of 384.
PIXELS, PIXELS_OF_ONE_TAP = 384, 128
# Pixels of a part of the images, so that adding the parts up is as little; and parts, enough for many threads.
PART_PIXELS, MOST_PARTS = 1600, 16


def weight_sums(problem: Problem, threads: int) -> Division:
    """For tiled_weight_gradient: bands and parts that do not depend on the threads, then chunks and blocks that may."""
    exchanged = _turns_less(problem)
    problem = problem.exchanged() if exchanged else problem
    filters, channels, out_width = problem.filters // problem.groups, problem.channels // problem.groups, problem.out_space[-1]
    rows, room = rows_in_a_plane(problem), scratch_numbers(problem.dtype)
    pixels = PIXELS_OF_ONE_TAP if taps(problem) == 1 else PIXELS
    band, parts = _bands_and_parts(problem, pixels)
    sheets = Sheets.of(problem, band)

    def shares(tile: TileShape, wanted: int) -> tuple[int, int, float]:
        """(panels of a chunk, channels of a block, what they cost), for so many items."""
        every = _ceil(filters, tile.width)
        # Half of a seat's scratch for the sums, a quarter each for the gradient and the sheets.
        panels = max(1, min(every, room // 4 // (band * out_width * tile.width)))
        panels = _evenly(every, panels, _ceil(wanted, parts * problem.groups))
        most = max(1, min(channels, room // 4 // sheets.sheet, room // 2 // (panels * tile.width * taps(problem))))
        least = min(channels, _ceil(wanted, parts * problem.groups * _ceil(every, panels)))
        blocks = {_evenly(channels, most, count) for count in range(1, channels + 1) if count >= least}
        each = ((panels, block, _weight_cycles(problem, tile, block)) for block in blocks)
        return min(each, key=lambda share: (share[2], -share[1]))

    tile = min(tiles.numbers_in_rows(problem.dtype), key=lambda tile: shares(tile, 1)[-1])
    panels, block, _ = shares(tile, 2 * threads if threads > 1 else 1)
    chunk, numbers = panels * tile.width, _ceil(block * taps(problem), tile.rows) * tile.rows
    bands, chunks, blocks = _ceil(rows, band), _ceil(filters, chunk), _ceil(channels, block)
    places = [c * sheets.sheet + tap for c in range(block) for tap in sheets.table[: taps(problem)]]
    places += [0] * (numbers + tile.rows - len(places))  # the last block may begin within a tile
    grads_at = _ceil(block * sheets.sheet + LINE, LINE) * LINE
    sums_at = grads_at + chunk * band * out_width
    fields = asdict(sheets) | {
        "table": (*sheets.table, *places), "places": len(sheets.table), "channels": block, "all_channels": channels,
        "filters": filters, "blocks": blocks, "parts": parts, "grads_at": grads_at, "sums_at": sums_at, "exchanged": exchanged,
    }  # fmt: skip
    scratch, items = sums_at + chunk * numbers + tile.lanes * tile.width, parts * problem.groups * chunks * blocks
    return Division(items, bands, band, chunks, chunk, scratch, tile, 0, fill_sheets, fields)


def _bands_and_parts(problem: Problem, pixels: int) -> tuple[int, int]:
    """Rows of a band of so many pixels, and parts of all images' bands."""
    rows, out_width = rows_in_a_plane(problem), problem.out_space[-1]
    band = _ceil(rows, _ceil(rows, max(1, min(rows, pixels // out_width))))
    units = max(1, problem.batch) * planes(problem) * _ceil(rows, band)
    parts = max(1, min(MOST_PARTS, units, units * band * out_width // PART_PIXELS))
    return band, 1 << (parts.bit_length() - 1)  # a power of two: seven would leave one of two threads idle for a seventh


def weight_cycles(problem: Problem) -> float:
    """Of tiled_weight_gradient."""
    division, exchanged = weight_sums(problem, 1), _turns_less(problem)
    problem = problem.exchanged() if exchanged else problem
    tile, fields = division.tile, division.fields
    assert tile is not None
    pixels = problem.batch * problem.groups * math.prod(problem.out_space)
    return pixels * _weight_cycles(problem, tile, fields["channels"]) + division.chunks * _fill_cycles(problem)


def _weight_cycles(problem: Problem, tile: TileShape, block: int) -> float:
    """Of a pixel: updates, which read as many places as they broadcast, and the gradient turned anew for each block of channels."""
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    update = tiles.update_cycles(tile, tile.vectors) + tile.rows / 8
    updates = _ceil(block * taps(problem), tile.rows) * update * (tile.lanes / machine.lanes(problem.dtype))
    return _ceil(channels, block) * _ceil(filters, tile.width) * (updates + TURN * tile.vectors)


def _turns_less(problem: Problem) -> bool:
    """Whether a pointwise layer's image and gradient should stand for each other: what fills the lanes must be turned.

    So must sums of filters in lanes; those of channels in lanes lie as the result does.
    """
    pixels = problem.batch * math.prod(problem.out_space)
    if taps(problem) > 1 or any(s != 1 for s in problem.stride) or any(map(any, problem.pads)):
        return False
    return problem.channels * (TURN * pixels + COPY * problem.filters) < problem.filters * TURN * (pixels + problem.channels)


# Pixels of a band of tiled_weight_gradient_pixels: loading and storing a tile's sums, in L2, is a thirtieth of its updates. 512, of
# which four filters' part of the gradient and the sheets would stay in L1, took 4 % longer.
DOT_PIXELS = 1024
OFF_A_LINE = 0.25  # of a multiply-add, for a load of an image's numbers, most of which cross a cache line


def dot_sums(problem: Problem, threads: int) -> Division:
    """For tiled_weight_gradient_pixels: bands and parts as of weight_sums, chunks of filters whose sums fit half a scratch."""
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    band, parts = _bands_and_parts(problem, DOT_PIXELS)
    tile, sheets = dots_tile(problem), Sheets.of(problem, band)
    sums = _ceil(channels * taps(problem), tile.rows) * tile.rows * tile.width  # of a panel of filters
    panels, wanted = _ceil(filters, tile.vectors), 2 * threads if threads > 1 else 1
    most = max(1, scratch_numbers(problem.dtype) // 2 // sums)
    chunk = tile.vectors * _evenly(panels, most, _ceil(wanted, parts * problem.groups))
    bands, chunks = _ceil(rows_in_a_plane(problem), band), _ceil(filters, chunk)
    places = [c * sheets.sheet + tap for c in range(channels) for tap in sheets.table[: taps(problem)]]
    places += [0] * (-len(places) % tile.rows)
    sums_at = _ceil(channels * sheets.sheet + tile.lanes, LINE) * LINE
    fields = asdict(sheets) | {
        "table": (*sheets.table, *places), "places": len(sheets.table), "filters": filters, "parts": parts, "sums_at": sums_at,
    }  # fmt: skip
    scratch = sums_at + chunk // tile.vectors * sums
    return Division(parts * problem.groups * chunks, bands, band, chunks, chunk, scratch, tile, 0, fill_sheets, fields)


def dots_tile(problem: Problem) -> TileShape:
    """The tile that wastes least, of those with no more filters than a group has."""
    fitting = [tile for tile in tiles.dots(problem.dtype) if tile.vectors <= problem.filters // problem.groups]
    return min(fitting, key=lambda tile: _dots_cycles(problem, tile))


def dots_cycles(problem: Problem) -> float:
    """Of tiled_weight_gradient_pixels."""
    return _dots_cycles(problem, dots_tile(problem))


def _dots_cycles(problem: Problem, tile: TileShape) -> float:
    """Each update a vector for each product; sums are loaded and stored once a band, and their lanes added up once a part."""
    filters, numbers = problem.filters // problem.groups, problem.channels // problem.groups * taps(problem)
    band, parts = _bands_and_parts(problem, DOT_PIXELS)
    panels, rows = _ceil(filters, tile.vectors), problem.batch * planes(problem) * rows_in_a_plane(problem)
    sums = problem.groups * _ceil(numbers, tile.rows) * panels * tile.rows * tile.vectors
    chunks = _ceil(sums * tile.lanes, problem.groups * scratch_numbers(problem.dtype) // 2)
    whole, over = divmod(problem.out_space[-1], tile.lanes)
    vectors = whole + (1.5 if over else 0)  # a mask is made, and all loads have one
    update = 1 + OFF_A_LINE / tile.vectors
    products = sums * (rows * vectors * update + 2 * COPY * rows / band + TURN * parts)  # sums lie in L2
    return products + chunks * _fill_cycles(problem)


def _fill_cycles(problem: Problem) -> float:
    """Of sheets, all of them once: twice a copy, for most of their rows begin off a cache line."""
    return (
        2
        * COPY
        * problem.batch
        * problem.channels
        * math.prod(problem.space[:-1])
        * _ceil(problem.space[-1], machine.lanes(problem.dtype))
    )


def window_sums(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_weight_gradient: chunks of channels; parts of the images where channels are few."""
    lanes, (taps_a, taps_b) = machine.lanes(problem.dtype), problem.kernel
    narrow = problem.out_space[1] <= lanes // 2 and lanes >= tiles.LEAST_TO_HALVE
    lines = lines_at_once(taps_a, taps_b, problem.stride[0])
    tile = TileShape(lines, taps_b, lanes // 2 if narrow else lanes, problem.stride[0], problem.dtype)
    parts = max(1, min(MOST_PARTS // problem.filters, problem.batch))
    chunks = min(problem.filters, _ceil(ITEMS_A_THREAD * threads, parts)) if threads > 1 else 1
    chunk = _ceil(problem.filters, chunks)
    chunks = _ceil(problem.filters, chunk)
    return Division(parts * chunks, 1, 1, chunks, chunk, 0, tile, fields={"parts": parts})


def window_sums_last(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_weight_gradient_last: parts of all rows where channels are few, else chunks of them for the threads."""
    lanes, (taps_a, taps_b) = machine.lanes(problem.dtype), problem.kernel
    lines = lines_at_once(taps_a, taps_b, problem.stride[0])
    tile, vectors = TileShape(taps_b, lines, lanes, problem.stride[0], problem.dtype), _ceil(problem.filters, lanes)
    rows = max(1, problem.batch) * problem.out_space[0]
    parts = max(1, min(_ceil(MOST_PARTS, vectors), rows, rows * problem.out_space[1] // PART_PIXELS))
    chunk = _evenly(vectors, vectors, _ceil(ITEMS_A_THREAD * threads, parts) if threads > 1 else 1)
    chunks, sums = _ceil(vectors, chunk), tile.rows * tile.width
    return Division(parts * chunks, 1, 1, chunks, chunk * lanes, chunk * sums, tile, fields={"parts": parts})


def lines_at_once(taps_a: int, taps_b: int, stride: int) -> int:
    """Lines of taps whose sums, gradients and numbers fit the registers, as even shares of all."""
    fitting = [n for n in range(1, taps_a + 1) if n * taps_b + max(_ceil(n, stride), n) + taps_b < machine.registers()]
    return _evenly(taps_a, max(fitting, default=1), 1)


def tiles_of_windows(dtype: str) -> list[TileShape]:
    """Every tile of tiled_depthwise_weight_gradient."""
    lanes = machine.lanes(dtype)
    each = [TileShape(lines_at_once(w.rows, w.vectors, w.step), w.vectors, lanes, w.step, dtype) for w in tiles.windows(dtype)]
    return [*each, *(replace(tile, lanes=lanes // 2) for tile in each if lanes >= tiles.LEAST_TO_HALVE)]


def tiles_of_windows_last(dtype: str) -> list[TileShape]:
    """Every tile of tiled_depthwise_weight_gradient_last."""
    every = tiles_of_windows(dtype)
    return [replace(tile, rows=tile.vectors, vectors=tile.rows) for tile in every if tile.lanes == machine.lanes(dtype)]


def _evenly(count: int, most: int, wanted: int) -> int:
    """The size of even shares of at most so many, and if possible in so many shares."""
    return _ceil(count, max(_ceil(count, most), min(count, wanted)))


# Tiled kernels --------------------------------------------------------------------------------------------------------


def _spread_out(rows: int, filters: int, unit: int, others: int, threads: int, most: int, weights: int) -> tuple[int, int]:
    """(band, chunk): at most `most` rows, as even as may be, enough items for the threads.

    Where a group's packed `weights`, in bytes, pass L2, each band would have them streamed anew: then filters are cut first.
    Else they are cut only when rows and `others` do not give enough items, for each chunk copies its sheets anew.
    """
    bands = _ceil(rows, max(1, most))
    if weights > machine.caches()["L2"]:
        band = _ceil(rows, bands)
        return band, unit * _ceil(_ceil(filters, unit), _chunks(_ceil(filters, unit), bands * others, threads))
    largest, least = _ceil(rows, bands), _ceil(rows, max(bands, min(rows, _ceil(ITEMS_A_THREAD * threads, others))))
    # The band by which the busiest thread gets the fewest rows; of several the largest.
    band = min(range(largest, least - 1, -1), key=lambda b: _ceil(_ceil(rows, b) * others, threads) * b) if threads > 1 else largest
    chunks = 1
    if threads > 1 and _ceil(rows, band) * others < 2 * threads:
        chunks = min(_ceil(filters, unit), _ceil(2 * threads, _ceil(rows, band) * others))
    return band, unit * _ceil(_ceil(filters, unit), chunks)


def _chunks(panels: int, items: int, threads: int) -> int:
    """Into how many chunks so many panels of heavy weights are cut: one a thread where there is but one item."""
    return min(panels, _ceil(threads if items <= threads else 2 * threads, items)) if threads > 1 else 1


def filters_in_lanes(problem: Problem, threads: int, tile: TileShape | None = None) -> Division:
    """For tiled_standard: the tile whose strips and panels waste least, bands whose sheets fit a seat's scratch."""
    lanes, filters = machine.lanes(problem.dtype), problem.filters // problem.groups
    rows, out_width = rows_in_a_plane(problem), problem.out_space[-1]
    tile = tile or lanes_tile(problem)
    run, beside = max(1, RUN // out_width), _groups_beside(problem, tile)
    sums = (run * out_width + max(lanes, tile.rows)) * tile.width * (1 + beside)
    pieces = strips.cut(problem, tile)
    most = _largest_band(problem, (scratch_numbers(problem.dtype) - sums) // (1 + beside), 0)
    others = max(1, problem.batch) * problem.groups // (1 + beside) * planes(problem)
    band, chunk = _spread_out(rows, filters, tile.width, others, threads, most, _bytes(problem))
    fields = {"run": run, "strips": len(pieces), "beside": beside}
    return replace(_over_sheets(problem, tile, band, chunk, tile.width, sums, fields, pieces), put=put_rows)


def _groups_beside(problem: Problem, tile: TileShape) -> int:
    """How many groups of a channels-last layer an item computes beside its first: those whose channels share its cache lines.

    One by one, each line of the image, and of the result, is fetched for each of them: 8 channels a group took 1.3 times as long.
    """
    channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
    if problem.data_format != "channels_last" or filters != tile.width:
        return 0
    sharing = LINE // max(channels, filters)
    return max((n for n in range(1, sharing + 1) if problem.groups % n == 0), default=1) - 1


def pixels_in_lanes(problem: Problem, threads: int, tile: TileShape | None = None) -> Division:
    """For tiled_standard_pixels: bands of rows whose sheets and sums fit a seat's scratch. With a given tile, in one chunk."""
    filters, chunked = problem.filters // problem.groups, tile is None
    rows, tile = rows_in_a_plane(problem), tile or pixel_tile(problem)
    pitch = Sheets.of(problem, 1).pitch
    most = _largest_band(problem, scratch_numbers(problem.dtype) - tile.rows * tile.width, tile.rows * pitch)
    others = max(1, problem.batch) * problem.groups * planes(problem)
    band, chunk = _spread_out(rows, filters if chunked else tile.rows, tile.rows, others, threads, most, _bytes(problem))
    chunk = chunk if chunked else _ceil(filters, tile.rows) * tile.rows
    flat = _ceil(band * pitch, tile.width) * tile.width
    sums = tile.rows * flat + tile.lanes  # a short row's sums are read as a whole vector
    return _over_sheets(problem, tile, band, chunk, tile.rows, sums, {"sums_pitch": flat}, slack=tile.width)


def _largest_band(problem: Problem, room: int, sums_a_row: int) -> int:
    """Rows whose sheets and sums fit so much room; one if none do."""
    channels = problem.channels // problem.groups
    return 1 + bisect_right(
        range(2, rows_in_a_plane(problem) + 1), room, key=lambda b: channels * Sheets.of(problem, b).sheet + b * sums_a_row
    )


def transposed(problem: Problem, threads: int) -> Division:
    """For tiled_transposed: bands of rows whose part of the image fits a seat's scratch."""
    out_space, kernel, stride, dilation = map(three, (problem.out_space, problem.kernel, problem.stride, problem.dilation))
    crop = [0] * (3 - problem.dimensions) + [before for before, _ in problem.pads]
    lanes, channels, filters = machine.lanes(problem.dtype), problem.channels // problem.groups, problem.filters // problem.groups
    tile = transposed_tile(problem)
    # Rows of the image that reach `band` rows of the result; for columns, all of them, from the first that is reached on.
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    first = -((spans[2] - crop[2]) // stride[2])
    pitch = (out_space[2] - 1 + crop[2]) // stride[2] - first + 1
    depth = spans[0] // stride[0] + 1

    def sheet(band: int) -> int:
        size = depth * pitch * sheet_rows(band, spans[1], stride[1])
        return LINE * (_ceil(size + LINE, LINE) | 1)

    run = max(1, RUN // out_space[2])
    sums = (run * out_space[2] + max(lanes, tile.rows * stride[2])) * tile.width
    room = scratch_numbers(problem.dtype) - sums
    most = max(1, room * out_space[1] // (channels * sheet(out_space[1])))
    others = max(1, problem.batch) * problem.groups * out_space[0]
    band, chunk = _spread_out(out_space[1], filters, tile.width, others, threads, min(most, out_space[1]), _bytes(problem))
    bands, chunks = _ceil(out_space[1], band), _ceil(filters, chunk)
    sums_at = _ceil(channels * sheet(band) + tile.rows + LINE, LINE) * LINE
    ones = (1, 1, 1)
    hop, back = zip(*((s // math.gcd(s, d), d // math.gcd(s, d)) for s, d in zip(stride, dilation, strict=True)), strict=True)
    fields = {
        "spread": stride, "apart": dilation, "crop": crop, "hop": hop, "back": back, "run": run,
        "stride": ones, "dilation": ones, "before": (0, 0, -first), "phases": (depth, 1, 1),
        "table": (0,) * (taps(problem) + 2), "pitch": pitch, "phase_size": sheet_rows(band, spans[1], stride[1]) * pitch,
        "sheet": sheet(band), "sums_at": sums_at, "panels": _ceil(filters, tile.width),
        "panel": tile.width * (1 + channels * taps(problem)),
    }  # fmt: skip
    items, scratch = others * bands * chunks, sums_at + sums
    return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fill_sheets, fields, put=put_rows)


def transposed_blocks(problem: Problem, threads: int) -> Division:
    """For tiled_transposed_blocks: as the ordinary layer that it is, and where its sums belong."""
    conv = problem.in_blocks()
    division = filters_in_lanes(conv, threads, blocks_tile(conv))
    return replace(division, fields=dict(division.fields) | _placed(problem, conv), put=None)


def blocks_tile(conv: Problem) -> TileShape:
    """The tile whose strips of blocks, and panels, waste least; strips end where a row does."""
    fitting = [tile for tile in tiles.blocks_in_lanes(conv.dtype) if tile.short.rows <= conv.out_space[-1]]
    return min(fitting, key=lambda tile: (_updates(conv, tile), tile.rows))


def transposed_blocks_pixels(problem: Problem, threads: int) -> Division:
    """For tiled_transposed_blocks_pixels: likewise; an item has all filters of its rows, which it finishes."""
    conv = problem.in_blocks()
    division = pixels_in_lanes(conv, threads, pixel_blocks_tile(conv))
    return replace(division, fields=dict(division.fields) | _placed(problem, conv))


def pixel_blocks_tile(conv: Problem) -> TileShape:
    """The tile that wastes least over planes of blocks."""
    return min(tiles.pixels_of_blocks(conv.dtype), key=lambda tile: pixels_cycles(conv, tile))


def _placed(problem: Problem, conv: Problem) -> dict[str, Any]:
    """What a kernel of blocks is told: the convolution's geometry, and where its sums belong."""
    last, (_, stride, across), (_, height, width) = (
        problem.data_format == "channels_last",
        three(problem.stride),
        three(problem.out_space),
    )
    _, crop_i, crop_j = three([before % s for (before, _), s in zip(problem.pads, problem.stride, strict=True)], 0)
    side_by_side, filters = (problem.filters, 1) if last else (1, problem.filters // problem.groups)
    return conv.geometry(conv.space) | {
        "spread": (1, stride, across * side_by_side), "crop": (0, crop_i, crop_j * side_by_side),
        "result": (filters, height, width * side_by_side),
    }  # fmt: skip


def transposed_pixels(problem: Problem, threads: int) -> Division:
    """For tiled_transposed_pixels: chunks of panels of filters, bands of rows where they are few."""
    filters = problem.filters // problem.groups
    height = min(filters, tiles.MOST_SPREAD)
    tile = TileShape(height, problem.kernel[-1], machine.lanes(problem.dtype), 2, problem.dtype)
    panels, rows, images = _ceil(filters, height), rows_in_a_plane(problem), max(1, problem.batch)
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    chunk = _ceil(problem.groups * panels, min(problem.groups * panels, _ceil(wanted, images)))
    chunks = _ceil(problem.groups * panels, chunk)
    band = _ceil(rows, min(rows, _ceil(wanted, chunks * images)))
    bands = _ceil(rows, band)
    fields = {"panels": panels, "panel": height * (1 + problem.channels // problem.groups * taps(problem))}
    return Division(problem.batch * bands * chunks, bands, band, chunks, chunk, 0, tile, height, None, fields)


def depthwise_spread(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_spread: chunks of filters, and bands of rows where they are few; half a vector if narrow."""
    lanes, (taps_a, taps_b) = machine.lanes(problem.dtype), problem.kernel
    narrow = problem.space[-1] <= lanes // 2 and lanes >= tiles.LEAST_TO_HALVE
    tile = TileShape(taps_a, taps_b, lanes // 2 if narrow else lanes, 2, problem.dtype)
    return _over_channels(problem, tile, 1, threads, {"panel": 1 + taps(problem)})


def depthwise_transposed_last(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_transposed_last: bands of rows."""
    lanes, rows = machine.lanes(problem.dtype), rows_in_a_plane(problem)
    band = _ceil(rows, min(rows, _ceil(ITEMS_A_THREAD * threads, max(1, problem.batch)) if threads > 1 else 1))
    bands, tile = _ceil(rows, band), TileShape(1, 1, lanes, 1, problem.dtype)
    fields = {"panel": lanes * (1 + taps(problem))}
    return Division(problem.batch * bands, bands, band, 1, problem.filters, 0, tile, lanes, None, fields)


def depthwise_spread_last(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_spread_last: likewise."""
    division, (_, stride, _), (_, taps_a, taps_b) = (
        depthwise_transposed_last(problem, threads),
        three(problem.stride),
        three(problem.kernel),
    )
    tile = replace(division.tile, rows=taps_b, vectors=_ceil(taps_a, stride))
    return replace(division, tile=tile, fields={"panel": tile.lanes * (1 + stride * tile.vectors * taps_b)})


def sheet_rows(band: int, span: int, stride: int) -> int:
    """Rows of the image that reach a band of rows of a transposed convolution's result."""
    return (band - 1 + span) // stride + 1


def transposed_tile(problem: Problem) -> TileShape:
    """The tile whose strips of a phase, and panels, waste least; its strips end where a phase's row does."""
    columns, filters = problem.out_space[-1] // problem.stride[-1], problem.filters // problem.groups
    fitting = [tile for tile in tiles.phases_in_lanes(problem.dtype) if tile.short.rows <= max(1, columns)]
    return min(fitting, key=lambda tile: _ceil(filters, tile.width) * strips.even_work(columns, tile))


def columns(scheme: Scheme) -> Callable[[Problem, int], Division]:
    """For winograd_columns: bands of rows of tiles whose sheets, points and products fit L2."""

    def divide(problem: Problem, threads: int) -> Division:
        lanes, filters = machine.lanes(problem.dtype), problem.filters // problem.groups
        channels, count, outputs = problem.channels // problem.groups, scheme.count, scheme.outputs
        down = _ceil(problem.out_space[0], outputs)
        tile = columns_tile(problem, scheme)
        room = machine.caches()["L2"] // np.dtype(problem.dtype).itemsize

        def layout(band: int) -> tuple[dict[str, Any], int]:
            sheets = Sheets.of(problem, band * outputs)
            phases = sheets.phases[1] * sheets.phases[2]
            rows_of_taps = [row * sheets.phases[2] for row in range(sheets.phases[1])]
            plane = _ceil(band * sheets.pitch, tile.width) * tile.width + sheets.pitch + lanes
            (_, stride_j), (_, apart_j), (_, taps_b) = problem.stride, problem.dilation, problem.kernel
            slots = sorted({b * apart_j % stride_j for b in range(taps_b)})
            table = [
                (row + slots.index(b * apart_j % stride_j)) * plane + b * apart_j // stride_j
                for row in rows_of_taps
                for b in range(taps_b)
            ]
            kept = sheets.table[taps(problem) :]
            values_at = _ceil(channels * sheets.sheet + outputs * sheets.pitch + LINE, LINE) * LINE
            products_at = values_at + count * channels * phases * plane
            fields = asdict(sheets) | {
                "table": (*table, *(0,) * (taps(problem) - len(table)), *kept), "down": band, "plane": plane,
                "values_at": values_at, "products_at": products_at, "panels": _ceil(filters, tile.rows),
                "panel": tile.rows * (1 + count * channels * len(table)), "points": (1, count, 1),
            }  # fmt: skip
            return fields, products_at + count * tile.rows * plane

        band = max([b for b in range(1, down + 1) if layout(b)[1] <= room], default=1)
        others = max(1, problem.batch) * problem.groups
        band, chunk = _spread_out(down, filters, tile.rows, others, threads, band, _bytes(problem))
        bands, chunks = _ceil(down, band), _ceil(filters, chunk)
        fields, scratch = layout(band)
        items, code = others * bands * chunks, {"fill": fill_sheets, "multiply": column_products}
        [outer] = tiles.one_vector(problem.dtype)
        return Division(items, bands, band, chunks, chunk, scratch, tile, tile.rows, fields=fields, outer=outer, **code)

    return divide


def columns_tile(problem: Problem, scheme: Scheme) -> TileShape:
    """The tile of pixels in lanes that wastes least."""
    return min(tiles.pixels_in_lanes(problem.dtype), key=lambda tile: _columns_cycles(problem, scheme, tile))


def columns_cycles(scheme: Scheme) -> Callable[[Problem], float]:
    """Of winograd_columns: products, and transforms of a vector for each number read and made."""
    return lambda problem: _columns_cycles(problem, scheme, columns_tile(problem, scheme))


def _columns_cycles(problem: Problem, scheme: Scheme, tile: TileShape) -> float:
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    sheets, count = Sheets.of(problem, scheme.outputs), scheme.count
    down = _ceil(problem.out_space[0], scheme.outputs)
    depth, strips = channels * sheets.phases[1] * problem.kernel[1], down * sheets.pitch / tile.width + 0.5
    products = count * _ceil(filters, tile.rows) * strips * (depth + SHORT) * tiles.update_cycles(tile, tile.vectors)
    vectors = down * _ceil(sheets.pitch, tile.lanes)
    into = vectors * channels * sheets.phases[1] * sheets.phases[2] * count * (scheme.outputs + scheme.taps) / 2
    outof = vectors * filters * count * (scheme.outputs + 2) / 2
    return max(1, problem.batch) * problem.groups * (products + into + outof)


def pixel_tile(problem: Problem) -> TileShape:
    """The tile that wastes least over planes of sheets."""
    return min(tiles.pixels_in_lanes(problem.dtype), key=lambda tile: pixels_cycles(problem, tile))


def _over_sheets(
    problem: Problem, tile: TileShape, band: int, chunk: int, unit: int, sums: int, fields: dict[str, int],
    pieces: Sequence[Strip] = (), slack: int = LINE,
) -> Division:  # fmt: skip
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    sheets = Sheets.of(problem, band)
    rows = rows_in_a_plane(problem)
    bands, chunks, groups = _ceil(rows, band), _ceil(filters, chunk), 1 + fields.get("beside", 0)
    sums_at = _ceil(groups * channels * sheets.sheet + slack, LINE) * LINE
    fields = fields | asdict(sheets) | {
        "table": (*sheets.table, *chain.from_iterable(pieces)), "strips_at": len(sheets.table),
        "panels": _ceil(filters, unit), "panel": unit * (1 + channels * taps(problem)), "sums_at": sums_at,
    }  # fmt: skip
    items = problem.batch * problem.groups // groups * planes(problem) * bands * chunks
    return Division(items, bands, band, chunks, chunk, sums_at + sums, tile, unit, fill_sheets, fields)


def pixels_in_place(problem: Problem, threads: int) -> Division:
    """For tiled_pointwise_pixels: bands of strips of an image's pixels, read where they lie."""
    tile = pointwise_tile(problem)
    fields = {"panel": tile.rows * (1 + problem.channels)}
    # What is done late is done to a whole band, which should still lie in L2.
    bands = _ceil(math.prod(problem.out_space) * problem.filters, scratch_numbers(problem.dtype))
    return _over_pixels(problem, tile, tile.width, tile.rows, bands, threads, fields)


def filters_in_place(problem: Problem, threads: int) -> Division:
    """For tiled_pointwise: bands of pixels whose sums stay in L1."""
    tile, pixels = lanes_tile(problem), problem.out_space[-1]
    most = max(1, machine.caches()["L1d"] // 2 // (tile.width * np.dtype(problem.dtype).itemsize) // tile.rows)
    bands = _ceil(pixels // tile.rows, most)
    fields = {"panel": tile.width * (1 + problem.channels)}
    division = _over_pixels(problem, tile, tile.rows, tile.width, bands, threads, fields)
    longest = division.band + pixels - division.band * division.bands  # the last band takes what is left over
    return replace(division, scratch=(longest + tile.rows + tile.lanes) * tile.width, put=put_rows)


def _over_pixels(
    problem: Problem, tile: TileShape, pixels: int, filters: int, least_bands: int, threads: int, fields: dict[str, Any]
) -> Division:
    """Bands of whole strips of so many pixels; the last takes what is left over, so that only its own strips overlap."""
    count = max(1, problem.out_space[-1] // pixels)
    images, panels = max(1, problem.batch), _ceil(problem.filters, filters)
    if _bytes(problem) > machine.caches()["L2"]:
        bands = max(1, min(count, least_bands))
        chunks = _chunks(panels, bands * images, threads)
        band, chunk = max(1, count // bands), filters * _ceil(panels, chunks)
        bands, chunks = count // band, _ceil(problem.filters, chunk)
        return Division(problem.batch * bands * chunks, bands, band * pixels, chunks, chunk, 0, tile, filters, None, fields)
    wanted = max(least_bands, _ceil(ITEMS_A_THREAD * threads, images) if threads > 1 else 1)
    band = max(1, count // min(count, wanted))
    bands = count // band
    chunks = 1
    if threads > 1 and bands * images < 2 * threads:
        chunks = min(panels, _ceil(2 * threads, bands * images))
    chunk = filters * _ceil(panels, chunks)
    chunks = _ceil(problem.filters, chunk)
    return Division(problem.batch * bands * chunks, bands, band * pixels, chunks, chunk, 0, tile, filters, None, fields)


def pairs_of_pixels(problem: Problem, threads: int) -> Division:
    """For strassen_pointwise: bands of pairs of pixels whose sums of all channels lie in L2, chunks of pairs of filters."""
    tile, pairs, images = pairs_tile(problem), _ceil(problem.out_space[-1], 2), max(1, problem.batch)
    strips = max(1, pairs // tile.rows)
    band = strips // min(strips, _ceil(strips, _most_pairs(problem, tile) // tile.rows))
    bands = strips // band
    longest = pairs - band * tile.rows * (bands - 1)  # the last band takes what is left over
    chunk = _chunk_of_pairs(problem, tile, bands * images, threads)
    chunks = _ceil(problem.filters // 2, chunk)
    fields, scratch = _pairs_fields(problem, tile, pairs, longest)
    fields |= {"panels": _ceil(problem.filters // 2, tile.width), "panel": fields["outer_panel"]}
    return Division(problem.batch * bands * chunks, bands, band * tile.rows, chunks, chunk, scratch, tile, tile.width, None, fields)


def _most_pairs(problem: Problem, tile: TileShape) -> int:
    """Pairs of pixels of a band: their sums of the image in half of L2, the four sums of a panel in L1."""
    size, strip = np.dtype(problem.dtype).itemsize, _a_strip(problem, tile)
    strips = min(scratch_numbers(problem.dtype) // strip, machine.caches()["L1d"] // (4 * tile.rows * tile.width * size))
    return max(1, strips) * tile.rows


def _a_strip(problem: Problem, tile: TileShape) -> int:
    """Numbers of a strip's factors and sums of the image."""
    return _ceil(tile.rows, tile.lanes) * tile.lanes * (1 + SUMS * problem.channels // 2)


def _chunk_of_pairs(problem: Problem, tile: TileShape, others: int, threads: int) -> int:
    """Filters of a chunk: cut only where there are few other items, for each chunk adds up the image anew."""
    panels = _ceil(problem.filters // 2, tile.width)
    return tile.width * _ceil(panels, min(panels, _ceil(2 * threads, others)) if threads > 1 else 1)


def _pairs_fields(problem: Problem, tile: TileShape, pairs: int, longest: int) -> tuple[dict[str, Any], int]:
    """Where things lie in a seat's scratch, and how large it is: ones, two tiles, four sums, strips; `longest`: pairs of a band."""
    row, head = _ceil(tile.rows, tile.lanes) * tile.lanes, head_of(problem.channels, tile.width)
    quarter = (longest + tile.rows + tile.lanes) * tile.width
    sums_at = row + 2 * tile.rows * tile.width
    values_at = sums_at + 4 * quarter
    fields = {
        "across": pairs, "sheet": _a_strip(problem, tile), "head": head, "sums_pitch": quarter,
        "products_at": row, "sums_at": sums_at, "values_at": values_at,
        "outer_panel": tile.width * (head + PRODUCTS * problem.channels // 2),
    }  # fmt: skip
    return fields, values_at + _ceil(longest, tile.short.rows) * fields["sheet"]


def pairs_tile(problem: Problem) -> TileShape:
    """The tile whose strips of pairs waste least."""
    every, pairs = tiles.pairs_in_rows(problem.dtype), _ceil(problem.out_space[-1], 2)
    fitting = [tile for tile in every if tile.short.rows <= pairs]
    return min(fitting, key=lambda tile: _pairs_cycles(problem, tile))


def pointwise_tile(problem: Problem) -> TileShape:
    """The tile that wastes least over an image's pixels; one that is not wider than they are many."""
    shapes = tiles.pixels_in_lanes(problem.dtype)
    fitting = [shape for shape in shapes if shape.width <= problem.out_space[-1]]
    return min(fitting, key=lambda tile: in_place_cycles(problem, tile), default=min(shapes, key=lambda s: s.width))


def lanes_tile(problem: Problem) -> TileShape:
    """The tile of filters in lanes whose strips and panels waste least."""
    every, lanes = tiles.filters_in_lanes(problem.dtype), machine.lanes(problem.dtype)
    if problem.groups > 1 and 2 * problem.filters // problem.groups <= lanes:
        every = every + tiles.few_filters_in_lanes(problem.dtype)
    fitting = [shape for shape in every if shape.short.rows <= problem.out_space[-1]]
    return min(fitting, key=lambda tile: lanes_cycles(problem, tile))


def slides(problem: Problem) -> str | None:
    """None if windows slide down a plane with code of their own (windows.py), or the reason why not."""
    if problem.dimensions != 2 or problem.kernel not in tiles.WINDOWS:
        return f"computes windows of {' or '.join(f'{a}x{b}' for a, b in tiles.WINDOWS)}, this is {problem.kernel}"
    if problem.stride not in ((1, 1), (2, 2)) or (problem.stride == (2, 2) and problem.dilation != (1, 1)):
        return f"computes strides 1, and 2 without dilation, these are {problem.stride} and {problem.dilation}"
    return None


def columns_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise: chunks of channels, and bands of rows where there are few of them."""
    taps_i, taps_j = problem.kernel
    tile = TileShape(taps_i, taps_j, machine.lanes(problem.dtype), problem.stride[0], problem.dtype)
    return _over_channels(problem, tile, 1, threads, {"panel": 1 + taps(problem)})


def two_planes_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_two: as columns_in_lanes, in twos."""
    one = columns_in_lanes(problem, 1)
    return _over_channels(problem, one.tile, 2, threads, dict(one.fields))


def channels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_last: bands of rows, which cost nothing, and chunks of channels only where rows are few."""
    one = columns_in_lanes(problem, 1)
    tile = replace(one.tile, rows=one.tile.vectors, vectors=one.tile.rows)  # windows slide along a row
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    rows, images = rows_in_a_plane(problem), max(1, problem.batch)
    band = _ceil(rows, min(rows, _ceil(wanted, images)))
    bands, units = _ceil(rows, band), max(1, problem.filters // tile.lanes)  # the last chunk takes what is left over
    chunk = _ceil(units, min(units, _ceil(wanted, bands * images)))
    chunks, fields = _ceil(units, chunk), {"panel": tile.lanes * (1 + taps(problem))}
    return Division(problem.batch * bands * chunks, bands, band, chunks, chunk * tile.lanes, 0, tile, tile.lanes, None, fields)


# Vectors of channels that are copied together, one after the other in memory: with one alone each number comes from another page.
# Columns are cut until their lines fit so much of L1, beside weights and the result, or make one strip.
TOGETHER, LINES_SHARE = 4, 0.75


def lines_in_vectors(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_lines: chunks of a few vectors of channels, and bands of rows where these are too few."""
    (tile,) = tiles.lines_in_vectors(problem.dtype)
    (_, taps_i, taps_j), (_, _, stride), (_, apart_i, apart_j) = map(three, (problem.kernel, problem.stride, problem.dilation))
    width, reach = problem.out_space[-1], (taps_j - 1) * apart_j
    phases, span = min(stride, reach + 1), (taps_i - 1) * apart_i + 1
    vectors = machine.caches()["L1d"] * LINES_SHARE // (tile.lanes * np.dtype(problem.dtype).itemsize)
    room = int(vectors) // (taps_i * phases)  # columns of all vectors
    units = max(1, problem.filters // tile.lanes)  # the last chunk takes what is left over
    most = min(TOGETHER, units)

    def columns(run: int) -> int:
        return max(run, tile.few.rows) + reach // stride

    runs = [_ceil(width, n) for n in range(1, max(1, width // tile.rows) + 1)]
    run = next((run for run in runs if most * columns(run) <= room), runs[-1])
    together = max(1, min(most, room // columns(run)))
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    rows, images, several = rows_in_a_plane(problem), max(1, problem.batch), _ceil(units, together)
    chunk = together * _ceil(several, min(several, _ceil(wanted, images)))
    chunks = _ceil(units, chunk)
    band = _ceil(rows, min(rows, _ceil(wanted, chunks * images)))
    bands, phase_size = _ceil(rows, band), columns(run) * tile.lanes
    ring = together * span * phases * phase_size
    fields = {
        "panel": tile.lanes * (1 + taps(problem)), "run": run, "together": together, "span": span,
        "phases": (1, 1, phases), "phase_size": phase_size, "pitch": phases * phase_size,
        "sums_at": ring,
    }  # fmt: skip
    items, scratch = problem.batch * bands * chunks, ring + (run + tile.lanes) * tile.lanes
    return Division(items, bands, band, chunks, chunk * tile.lanes, scratch, tile, tile.lanes, None, fields)


def pairs_of_rows(problem: Problem, threads: int) -> Division:
    """For winograd_depthwise_last: as channels_in_lanes, in bands of two rows or more."""
    one, rows = channels_in_lanes(problem, threads), rows_in_a_plane(problem)
    band, panel = 2 * _ceil(one.band, 2), one.tile.lanes * (1 + problem.kernel[1]) * F2.count
    bands = _ceil(rows, band)
    return replace(one, items=problem.batch * bands * one.chunks, bands=bands, band=band, fields={"panel": panel})


def _over_channels(problem: Problem, tile: TileShape, unit: int, threads: int, fields: dict[str, Any]) -> Division:
    """Chunks of whole units of channels; bands of rows only where chunks are too few for the threads."""
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    rows, units, images = rows_in_a_plane(problem), _ceil(problem.filters, unit), max(1, problem.batch)
    chunk = _ceil(units, min(units, _ceil(wanted, images)))
    chunks = _ceil(units, chunk)
    band = _ceil(rows, min(rows, _ceil(wanted, chunks * images)))
    bands = _ceil(rows, band)
    return Division(problem.batch * bands * chunks, bands, band, chunks, chunk * unit, 0, tile, unit, None, fields)


def separable_pixels(problem: SeparableProblem, threads: int) -> Division:
    """For tiled_separable_pixels: bands of rows as large as fit L2, whose pixels fill strips."""
    tile = pointwise_tile(_pixels_alone(problem))
    return _separable(problem, tile, tile.rows, tile.width, 0, threads)


def separable_filters(problem: SeparableProblem, threads: int) -> Division:
    """For tiled_separable and tiled_separable_last: bands of rows whose sums stay in L1."""
    alone = _pixels_alone(problem)
    shapes = [shape for tile in tiles.filters_in_lanes(problem.dtype) for shape in (tile, tile.short)]
    tile = min((shape for shape in shapes if shape.rows <= alone.out_space[-1]), key=lambda shape: _even_cycles(alone, shape))
    return _separable(problem, tile, tile.width, tile.rows, 0 if problem.data_format == "channels_last" else tile.width, threads)


def _separable(problem: SeparableProblem, tile: TileShape, unit: int, strip: int, sums: int, threads: int) -> Division:
    """Bands of rows and chunks of filters by which the busiest thread should be done first.

    A band streams all weights of its chunk, and leaves pixels over from strips; a chunk has the depthwise part computed anew.
    `sums`: numbers that are kept of each pixel until they are put where they belong.
    """
    first, filters, channels = problem.depthwise, problem.filters, problem.depthwise.filters
    last, width, lanes = problem.data_format == "channels_last", problem.out_space[-1], machine.lanes(problem.dtype)
    rows, images, units = math.prod(problem.out_space[:-1]), max(1, problem.batch), _ceil(filters, unit)
    most = max(1, min(rows, scratch_numbers(problem.dtype) // (width * (channels + sums))))
    weights = unit * channels * np.dtype(problem.dtype).itemsize  # of a unit of filters, in bytes
    speed = STREAM[units * weights > machine.caches()["L2"]]
    depthwise = DEPTHWISE_UPDATES * taps(first) * width * channels / lanes  # of a row

    def busiest(division: tuple[int, int]) -> float:
        band, chunks = division
        products = _ceil(band * width, strip) * strip * unit * channels / lanes
        item = _ceil(units, chunks) * (products + weights / speed) + band * depthwise
        return _ceil(images * _ceil(rows, band) * chunks, threads) * item

    band, chunks = min(((b, c) for c in range(1, min(units, threads) + 1) for b in range(most, 0, -1)), key=busiest)
    chunk = _ceil(units, chunks)
    bands, chunks = _ceil(rows, band), _ceil(units, chunk)
    window, fill = None, sum_band_last if last else sum_band
    if slides(first) is None and not (last and first.filters != first.groups):
        (taps_i, taps_j), fill = first.kernel, fill_band_last if last else fill_band
        window = TileShape(taps_i, taps_j, lanes, first.stride[0], problem.dtype)
    pitch = LINE * (_ceil(max(band * width, strip) + lanes, LINE) | 1)
    panel = (lanes if last else 1) * (1 + taps(first))
    most_pixels = max(band * width, strip, lanes)
    sums_at = most_pixels * channels if last else channels * pitch
    fields = {"pitch": pitch, "panel": panel, "outer_panel": unit * (1 + channels), "sums_at": sums_at}
    scratch = sums_at + sums * most_pixels
    items = problem.batch * bands * chunks
    return Division(items, bands, band, chunks, chunk * unit, scratch, tile, unit, fill, fields, window)


def _even_cycles(problem: Problem, tile: TileShape) -> float:
    """Of a pointwise layer whose strips are all as long as the tile is tall."""
    updates = _ceil(problem.out_space[-1], tile.rows) * problem.channels * tiles.update_cycles(tile, tile.vectors)
    return _ceil(problem.filters, tile.width) * (updates + _ceil(problem.out_space[-1], tile.lanes) * tile.width * TURN)


def _pixels_alone(problem: SeparableProblem) -> Problem:
    """The pointwise part, without ends of rows."""
    one, space = (1,), (math.prod(problem.out_space),)
    return replace(problem.pointwise, space=space, kernel=one, stride=one, pads=((0, 0),), dilation=one)


def separable_cycles(problem: SeparableProblem) -> tuple[float, float]:
    """Of the pointwise part, with pixels in lanes and with filters in lanes."""
    alone = _pixels_alone(problem)
    return in_place_cycles(alone, pointwise_tile(alone)), lanes_cycles(alone, lanes_tile(alone))


# Share of L3 for the numbers of phases.py: the weights pass by.
PHASES_SHARE = 0.5
# Share of L2 for what winograd.py transforms of a panel at a time: F(4x4)'s sums are loaded and stored so much less often that
# a 7x7 layer of 512 channels takes 1.46 ms in place of 1.81.
PANEL_SHARE = 0.6


def winograd(scheme: Nested, fresh: bool = False) -> Callable[[Problem, int], Division]:
    """For a scheme in two dimensions: bands of rows of tiles whose transforms fit L2. `fresh` weights come as they are."""
    points, matrices, (rows, columns) = scheme.count, scheme.matrices, (scheme.down, scheme.across)

    def divide(problem: Problem, threads: int) -> Division:
        lanes = machine.lanes(problem.dtype)
        channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
        apart_i, apart_j = problem.dilation[-2:]
        height, width = _tiled_space(problem)
        down = _ceil(_ceil(height, apart_i), rows.outputs)
        across = _tiles_across(problem, columns)
        padded = _deep(problem) * _ceil(channels, lanes) * lanes
        room = machine.caches()["L2"] // np.dtype(problem.dtype).itemsize
        most = max(1, min(down, room // (points * padded * across)))
        others = max(1, problem.batch) * problem.groups * planes(problem) * apart_i
        # Each band has its panels transformed anew: filters are cut first, as where they would be streamed anew.
        weights = machine.caches()["L3"] if fresh else _bytes(problem) * matrices // math.prod(scheme.window)
        band, chunk = _spread_out(down, filters, 2 * lanes, others, threads, most, weights)
        beyond = _beyond(problem, scheme)
        tile = winograd_tile(problem, scheme, band, chunk)
        chunk = _ceil(chunk, tile.width) * tile.width
        tiles_at_once = band * across + tile.rows - 1
        numbers = _numbers(columns, _ceil(_ceil(width, apart_j), columns.outputs))
        columns_seen = (apart_j - 1) * problem.stride[-1] + apart_j * (numbers - 1) + 1
        pitch = max(
            columns_seen,
            (columns.overlap if scheme.transposed else problem.pads[-1][0]) + max(problem.space[-1], lanes),
            columns.outputs * apart_j * _ceil(_ceil(width, apart_j), columns.outputs),
            width - problem.out_space[-1] + max(problem.out_space[-1], lanes),  # sums are read from the crop on
            width + int((apart_i, apart_j) != (1, 1)),  # no row of a phase is followed by its next one in the result
        )
        rows_seen = _numbers(rows, band)
        columns_at = rows_seen * pitch * lanes
        values_at = columns_at + rows.count * max(pitch, columns.count) * lanes
        products_at = values_at + points * padded * tiles_at_once
        sums_at = products_at + points * tiles_at_once * tile.width
        fields = {
            "pitch": pitch, "rows_seen": rows_seen, "columns_seen": columns_seen, "tiles": tiles_at_once, "across": across,
            "beyond": (*beyond, 0),
            "columns_at": columns_at, "values_at": values_at, "products_at": products_at, "sums_at": sums_at, "lane_channels": 1,
            "panels": _ceil(filters, tile.width), "panel": tile.width * (1 + matrices * (padded + APART)),
            "points": (1, rows.count, columns.count), "matrices": (1, rows.matrices, columns.matrices),
            "sums_pitch": width if (apart_i, apart_j) == (1, 1) and not scheme.transposed else pitch,
        }  # fmt: skip
        if scheme.transposed:
            crop, before = [0] * (3 - problem.dimensions) + [before for before, _ in problem.pads], rows.overlap
            fields |= {"crop": crop, "stride": (1, 1, 1), "before": (0, before, before)}
        bands, chunks = _ceil(down, band), _ceil(filters, chunk)
        scratch = sums_at + rows.outputs * pitch * tile.width
        items, code = others * bands * chunks, {"fill": lines_of_lanes, "multiply": winograd_products, "put": put_rows}
        if fresh:
            panel_at, blocks = _ceil(scratch, LINE) * LINE, padded // lanes
            together = _evenly(blocks, max(1, int(room * PANEL_SHARE) // (matrices * lanes * tile.width)), 1)
            scratch = panel_at + tile.width * (1 + matrices * (together * lanes + APART))
            fields |= {"fresh": True, "together": together, "panel_at": panel_at}
            code["transform"] = transform_panel
        [outer] = tiles.one_vector(problem.dtype)
        return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fields=fields, outer=outer, **code)

    return divide


def phases(scheme: Nested) -> Callable[[Problem, int], Division]:
    """For winograd_phases: chunks of filters, for the transformed weights are many; bands of phases whose numbers fit L3."""
    points, (rows, columns) = scheme.count, (scheme.down, scheme.across)

    def divide(problem: Problem, threads: int) -> Division:
        lanes, number = machine.lanes(problem.dtype), np.dtype(problem.dtype).itemsize
        channels, filters, (apart, rate) = problem.channels // problem.groups, problem.filters // problem.groups, problem.dilation
        padded, (tall, wide) = _ceil(channels, lanes) * lanes, _long(problem, scheme)
        in_a_row = columns.long.count * wide + columns.short.count * (rate - wide)  # products, for each down the columns
        most = int(machine.caches()["L3"] * PHASES_SHARE) // (rows.long.count * in_a_row * padded * number)
        weights, others = _bytes(problem) * points // math.prod(scheme.window), max(1, problem.batch) * problem.groups
        band, chunk = _spread_out(apart, filters, 2 * lanes, others, threads, max(1, min(apart, most)), weights)
        tile = phases_tile(problem, scheme, band)
        chunk = _ceil(chunk, tile.width) * tile.width
        down = rows.long.count * min(band, tall) + rows.short.count * max(0, band - tall)  # of the first band, which has the most
        products, pitch = down * in_a_row + tile.rows - 1, max(columns.outputs * rate, problem.space[-1], lanes)
        columns_at = rows.outputs * pitch * lanes
        values_at = columns_at + max(rows.long.count * pitch, rows.outputs * columns.long.count) * lanes
        products_at = values_at + products * padded
        sums_at = products_at + products * chunk
        fields = {
            "pitch": pitch, "rows_seen": rows.outputs, "columns_seen": columns.outputs * rate, "lane_channels": 1,
            "long": (0, tall, wide), "before": (0, 0, 0), "blocks": padded // lanes, "tiles": products,
            "columns_at": columns_at, "values_at": values_at, "products_at": products_at, "sums_at": sums_at, "sums_pitch": pitch,
            "panels": _ceil(filters, tile.width), "panel": tile.width * (1 + points * (padded + APART)),
            "points": (1, rows.count, columns.count),
        }  # fmt: skip
        bands, chunks = _ceil(apart, band), _ceil(filters, chunk)
        items, scratch = others * bands * chunks, sums_at + rows.outputs * pitch * tile.width
        code = {"fill": lines_of_lanes, "multiply": winograd_products, "put": put_rows}
        [outer] = tiles.one_vector(problem.dtype)
        return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fields=fields, outer=outer, **code)

    return divide


def signal(scheme: Nested) -> Callable[[Problem, int], Division]:
    """For winograd_signal: bands of runs of tiles whose points fit L2."""
    along, points = scheme.across, scheme.count

    def divide(problem: Problem, threads: int) -> Division:
        lanes, [rate], [stride], [width] = machine.lanes(problem.dtype), problem.dilation, problem.stride, problem.out_space
        channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
        padded, run = _ceil(channels, lanes) * lanes, along.outputs * rate
        runs, room = _ceil(width, run), machine.caches()["L2"] // np.dtype(problem.dtype).itemsize
        weights, others = _bytes(problem) * scheme.matrices // along.taps, max(1, problem.batch) * problem.groups
        most = max(1, min(runs, room // (points * padded * rate)))
        band, chunk = _spread_out(runs, filters, 2 * lanes, others, threads, most, weights)
        tile = signal_tile(problem, scheme, band)
        chunk = _ceil(chunk, tile.width) * tile.width
        count, columns_seen = band * rate + tile.rows - 1, (_numbers(along, band) - 1) * rate + (rate - 1) * stride + 1
        values_at = (_ceil(columns_seen, lanes) + 1) * lanes * lanes
        products_at = values_at + points * padded * count
        sums_at = products_at + points * count * tile.width
        fields = {
            "columns_seen": columns_seen, "tiles": count, "blocks": padded // lanes,
            "values_at": values_at, "products_at": products_at, "sums_at": sums_at,
            "panels": _ceil(filters, tile.width), "panel": tile.width * (1 + scheme.matrices * (padded + APART)),
        }  # fmt: skip
        bands, chunks = _ceil(runs, band), _ceil(filters, chunk)
        items, scratch = others * bands * chunks, sums_at + (band * run + lanes) * tile.width
        code = {"fill": line_of_lanes, "multiply": winograd_products, "put": put_rows}
        [outer] = tiles.one_vector(problem.dtype)
        return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fields=fields, outer=outer, **code)

    return divide


def signal_tile(problem: Problem, scheme: Nested, band: int) -> TileShape:
    """The tile whose rows divide best the tiles of a band."""
    return min(tiles.winograd_products(problem.dtype), key=lambda tile: _signal_products(problem, scheme, band, tile))


def _signal_products(problem: Problem, scheme: Nested, band: int, tile: TileShape) -> float:
    """Of one signal and group."""
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    [rate], runs = problem.dilation, _ceil(problem.out_space[0], scheme.across.outputs * problem.dilation[0])
    strips = runs // band * _ceil(band * rate, tile.rows) + _ceil(runs % band * rate, tile.rows)
    depth = _ceil(channels, tile.lanes) * tile.lanes
    return scheme.count * strips * _ceil(filters, tile.width) * depth * tiles.update_cycles(tile, 1)


def _long(problem: Problem, scheme: Nested) -> tuple[int, int]:
    """Phases of rows, and of columns, that have as many pixels as the scheme's longer ones."""
    return tuple(
        size - (one.outputs - 1) * apart
        for size, apart, one in zip(problem.out_space, problem.dilation, (scheme.down, scheme.across), strict=True)
    )  # type: ignore[return-value]


def phases_tile(problem: Problem, scheme: Nested, band: int) -> TileShape:
    """The tile whose rows divide best the phases of each kind."""
    return min(tiles.winograd_products(problem.dtype), key=lambda tile: _phases_products(problem, scheme, band, tile))


def _phases_products(problem: Problem, scheme: Nested, band: int, tile: TileShape) -> float:
    """Of one image and group."""
    (apart, rate), (tall, wide), strips = problem.dilation, _long(problem, scheme), 0
    for begin in range(0, apart, band):
        rows = min(band, apart - begin)
        long = max(0, min(rows, tall - begin))
        for products_i, down in ((scheme.down.long.count, long), (scheme.down.short.count, rows - long)):
            for products_j, across in ((scheme.across.long.count, wide), (scheme.across.short.count, rate - wide)):
                strips += products_i * products_j * _ceil(down * across, tile.rows)
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    return strips * _ceil(filters, tile.width) * _ceil(channels, tile.lanes) * tile.lanes * tiles.update_cycles(tile, 1)


def winograd_groups(problem: Problem, threads: int) -> Division:
    """For winograd_groups: bands of rows of tiles whose transforms fit L2, vectors of groups."""
    lanes, scheme = machine.lanes(problem.dtype), F4
    channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
    (height, width), outputs, points = problem.out_space, scheme.outputs, scheme.count
    down, across, blocks = _ceil(height, outputs), _ceil(width, outputs), _ceil(problem.groups, lanes)
    band = _groups_band(problem, threads)
    tile = groups_tile(problem, band)
    unit = _ceil(filters, tile.rows) * tile.rows
    tiles_at_once = _ceil(band * across, tile.vectors) * tile.vectors | 1  # odd, so that points do not share sets of a cache
    columns_seen, rows_seen = _numbers(scheme, across), _numbers(scheme, band)
    pitch = max(columns_seen, problem.pads[-1][0] + max(problem.space[-1], lanes), max(width, lanes))
    last = problem.data_format == "channels_last"
    together = _evenly(channels, lanes, 1) if last else 1
    columns_at = together * rows_seen * pitch * lanes
    values_at = columns_at + points * pitch * lanes
    products_at = values_at + points**2 * channels * tiles_at_once * lanes
    sums_at = products_at + points**2 * unit * tiles_at_once * lanes
    filled = _ceil(channels * unit, lanes) * lanes
    fields = {
        "pitch": pitch, "rows_seen": rows_seen, "columns_seen": columns_seen, "tiles": tiles_at_once, "across": across,
        "beyond": (*_beyond(problem, nested(scheme)), 0), "blocks": blocks, "lane_channels": channels, "filled": filled,
        "columns_at": columns_at, "values_at": values_at, "products_at": products_at, "sums_at": sums_at, "sums_pitch": width,
        "panel": lanes * (1 + points**2 * (filled + APART)), "points": (1, points, points), "matrices": (1, points, points),
        "together": together,
    }  # fmt: skip
    bands, scratch = _ceil(down, band), sums_at + (together * outputs * pitch + filters) * lanes
    fill, put = (lines_of_groups, put_pixels) if last else (lines_of_lanes, put_planes)
    items, code = problem.batch * blocks * bands, {"fill": fill, "multiply": group_products, "put": put}
    [outer] = tiles.one_vector(problem.dtype)
    return Division(items, bands, band, 1, unit, scratch, tile, unit, fields=fields, outer=outer, **code)


def _groups_band(problem: Problem, threads: int) -> int:
    """Rows of tiles."""
    lanes, room = machine.lanes(problem.dtype), machine.caches()["L2"] // np.dtype(problem.dtype).itemsize
    down, across = _ceil(problem.out_space[0], F4.outputs), _ceil(problem.out_space[1], F4.outputs)
    row = F4.count**2 * (problem.channels + problem.filters) // problem.groups * across * lanes
    others = max(1, problem.batch) * _ceil(problem.groups, lanes)
    return _spread_out(down, lanes, lanes, others, threads, max(1, min(down, room // row)), 0)[0]


def groups_tile(problem: Problem, band: int) -> TileShape:
    """The tile that wastes least over a band's tiles and a group's filters."""
    filters, count = problem.filters // problem.groups, band * _ceil(problem.out_space[1], F4.outputs)
    return min(
        tiles.pixels_in_lanes(problem.dtype),
        key=lambda tile: _ceil(filters, tile.rows) * _ceil(count, tile.vectors) * tiles.update_cycles(tile, 1),
    )


def _numbers(scheme: Scheme, count: int) -> int:
    """Rows, or columns, that so many tiles in a row see of an image."""
    return (count - 1) * scheme.advance + scheme.numbers


def _tiled_space(problem: Problem) -> tuple[int, int]:
    """Rows and columns of a plane of the result, those that a transposed convolution's crops take away in front included."""
    (height, width), crops = problem.out_space[-2:], problem.pads[-2:] if problem.operation == "transposed" else ((0, 0), (0, 0))
    return height + crops[0][0], width + crops[1][0]


def _deep(problem: Problem) -> int:
    """Taps of the depth of a window."""
    return problem.kernel[0] if problem.dimensions == 3 else 1


def _beyond(problem: Problem, scheme: Nested) -> tuple[int, int]:
    """Whether the last row, and the last column, of tiles reach beyond the result. Phases of a dilated image are left whole."""
    (height, width), plain = _tiled_space(problem), problem.dilation[-2:] == (1, 1)
    return int(plain and height % scheme.down.outputs > 0), int(plain and width % scheme.across.outputs > 0)


def _tiles_across(problem: Problem, scheme: Scheme) -> int:
    """Tiles in a row, of all phases of columns."""
    apart, width = problem.dilation[-1], _tiled_space(problem)[1]
    return sum(_ceil(_ceil(width - phase, apart), scheme.outputs) for phase in range(min(apart, width)))


# Schemes with tiles for few filters a group: of 3x3 windows of stride 1.
NARROW = (nested(F2), nested(F4))


def winograd_tile(problem: Problem, scheme: Nested, band: int, chunk: int) -> TileShape:
    """Of the tiles no wider than a chunk of filters the one whose rows divide best the tiles of a band that need a point."""
    filters, most = problem.filters // problem.groups, max(chunk, 2 * machine.lanes(problem.dtype))
    every = [tile for tile in tiles.winograd_products(problem.dtype) if tile.width <= most]
    if scheme in NARROW and filters <= machine.lanes(problem.dtype):
        every = every + tiles.narrow_winograd_products(problem.dtype)
    return min(every, key=lambda tile: _products_cycles(problem, scheme, band, tile))


def _products_cycles(problem: Problem, scheme: Nested, band: int, tile: TileShape) -> float:
    """Of one image, group and phase of rows: the last point is left out where the last output is."""
    (beyond_i, beyond_j), across = _beyond(problem, scheme), _tiles_across(problem, scheme.across)
    last_i, last_j = scheme.down.count - 1, scheme.across.count - 1
    left, strips = _ceil(_ceil(_tiled_space(problem)[0], problem.dilation[-2]), scheme.down.outputs), 0
    while left > 0:
        down = min(band, left)
        inside = down - (beyond_i if down == left else 0)
        for points, rows in ((last_i, down), (1, inside)):
            strips += points * (last_j * _ceil(rows * across, tile.rows) + _ceil(rows * (across - beyond_j), tile.rows))
        left -= down
    lanes, channels, filters = tile.lanes, problem.channels // problem.groups, problem.filters // problem.groups
    return strips * _ceil(filters, tile.width) * _deep(problem) * _ceil(channels, lanes) * lanes * tiles.update_cycles(tile, 1)


# What a problem should cost, in multiply-adds of a vector: to compare tiles and kernels ------------------------------------

# A sum takes as long as so many products more: it is begun, and put. Of 8 channels of groups 1.3 times as long as its products.
SHORT = 2.5
COPY, TURN = 3.0, 7.0  # for a vector of numbers: to copy it, and to transpose it with its neighbours and store it
SCATTER = 1.5  # for a number: to load and store it by itself
SHUFFLE = 13.0  # to move a vector, or a part of one, to where no other one lies near


def lanes_cycles(problem: Problem, tile: TileShape | None = None) -> float:
    """Of filters in lanes; taps that a whole strip misses are left out. Here and below with the best tile if none is given."""
    tile = tile or lanes_tile(problem)
    put = COPY if problem.data_format == "channels_last" else TURN
    panels = _ceil(problem.filters // problem.groups, tile.width)
    return _updates(problem, tile) + panels * _rows(problem) * _ceil(problem.out_space[-1], tile.lanes) * tile.width * put


def _updates(problem: Problem, tile: TileShape) -> float:
    """Of filters in lanes, without what it takes to put their sums."""
    panels = _ceil(problem.filters // problem.groups, tile.width)
    depth = problem.channels // problem.groups * math.prod(_taps_inside(problem, axis) for axis in range(problem.dimensions - 1))
    update = strips.work(problem, tile) * (tile.lanes / machine.lanes(problem.dtype))
    return problem.batch * problem.groups * panels * depth * update * _from_afar(problem)


def _from_afar(problem: Problem) -> float:
    """How much longer filters in lanes take for numbers that L2 does not hold, beside updates that hide most of it."""
    channels, number, caches = problem.channels // problem.groups, np.dtype(problem.dtype).itemsize, machine.caches()
    # They come once for each band: 33 x 33 x 1024 of rate 12, whose bands are a row. A small image has but one.
    if 4 * _bytes(problem) > caches["L3"] and channels * math.prod(problem.space) > scratch_numbers(problem.dtype):
        return 1.2
    # A 1x1 layer's panel of so many channels, and the line that a strip takes of each, do not stay in L2 side by side, and a
    # large image comes from beyond it for every panel: 33 x 33 x 2048.
    panel, image = channels * 2 * machine.lanes(problem.dtype) * number, channels * math.prod(problem.space) * number
    return 1.15 if taps(problem) == 1 and image > caches["L2"] and 4 * panel >= caches["L2"] else 1.0


def _taps_inside(problem: Problem, axis: int) -> int:
    """Of all windows along one axis together."""
    out = problem.out_space[axis]
    return sum(max(0, min(out, leaves) - max(0, enters)) for enters, leaves in strips.inside(problem, axis))


def pixels_cycles(problem: Problem, tile: TileShape | None = None) -> float:
    """Of pixels in lanes, over planes of sheets."""
    tile = tile or pixel_tile(problem)
    depth, filters = problem.channels // problem.groups * taps(problem), problem.filters // problem.groups
    pitch = Sheets.of(problem, 1).pitch
    strips = problem.batch * problem.groups * planes(problem) * (rows_in_a_plane(problem) * pitch / tile.width + 0.5)
    put = COPY * filters * _rows(problem) * _ceil(problem.out_space[-1], tile.lanes)
    return _ceil(filters, tile.rows) * strips * depth * tiles.update_cycles(tile, tile.vectors) + put


def in_place_cycles(problem: Problem, tile: TileShape | None = None) -> float:
    """Of a pointwise layer's pixels in lanes."""
    tile = tile or pointwise_tile(problem)
    strips = problem.batch * _ceil(problem.out_space[-1], tile.width)
    return _ceil(problem.filters, tile.rows) * strips * problem.channels * tiles.update_cycles(tile, tile.vectors)


# Of a vector of pairs of pixels, for each pair of channels: to measure four numbers, and to make and put four sums, bound by what
# L2 takes in.
SUM_PAIRS = 50.0
# A product of strassen.py takes as long as so many channels more: it is begun, and its sums are kept and fetched.
KEPT = 5.0


def strassen_cycles(problem: Problem) -> float:
    """Of seven products of halves and the sums of the image."""
    return _pairs_cycles(problem, pairs_tile(problem))


def _pairs_cycles(problem: Problem, tile: TileShape) -> float:
    pairs, panels, depth = _ceil(problem.out_space[-1], 2), _ceil(problem.filters // 2, tile.width), problem.channels // 2
    products = PRODUCTS * panels * (depth + KEPT) * strips.even_work(pairs, tile)
    put = 4 * panels * _ceil(pairs, tile.lanes) * tile.width * TURN
    sums = _ceil(pairs, tile.rows) * _ceil(tile.rows, tile.lanes) * depth * SUM_PAIRS
    return max(1, problem.batch) * (products + put + sums)


def strassen_packing(problem: Problem) -> float:
    """Of the sums of weights."""
    return panels_packing(problem) * PRODUCTS / 4


def transposed_cycles(problem: Problem) -> float:
    """Of tiled_transposed, the taps in the padding included."""
    tile, filters = transposed_tile(problem), problem.filters // problem.groups
    *outer, width = problem.out_space
    updates = taps(problem) / math.prod(problem.stride[:-1]) * strips.even_work(width // problem.stride[-1], tile)
    put = COPY if problem.data_format == "channels_last" else TURN
    a_row = problem.channels // problem.groups * updates + _ceil(width, tile.lanes) * tile.width * put
    return problem.batch * problem.groups * math.prod(outer) * _ceil(filters, tile.width) * a_row


def blocks_cycles(problem: Problem) -> float:
    """Of tiled_transposed_blocks: the products, and each segment moved, a vector at a time."""
    conv, numbers = problem.in_blocks(), math.prod(problem.out_shape)
    segment = problem.stride[-1] * (problem.filters if problem.data_format == "channels_last" else 1)
    return _updates(conv, blocks_tile(conv)) + SHUFFLE * numbers * _ceil(segment, machine.lanes(problem.dtype)) / segment


def pixel_blocks_cycles(problem: Problem) -> float:
    """Of tiled_transposed_blocks_pixels: the products, and each number moved by itself."""
    conv = problem.in_blocks()
    return pixels_cycles(conv, pixel_blocks_tile(conv)) + SCATTER * math.prod(problem.out_shape)


def blocks_packing(problem: Problem) -> float:
    """Of weights that are put in the order of blocks first."""
    return panels_packing(problem.in_blocks()) * 2


def _rows(problem: Problem) -> int:
    """Of all groups' results together."""
    return problem.batch * problem.groups * planes(problem) * rows_in_a_plane(problem)


# A tile's transforms: for each vector of channels (B' d B and the transposition), and of filters (A' m A).
TRANSFORMS = {
    nested(F2): (120.0, 90.0), Nested(F4, F2): (190.0, 140.0), nested(F4): (300.0, 220.0),
    nested(F2_3_2): (250.0, 150.0), nested(F4_3_2): (750.0, 350.0),
    nested(F2_5): (300.0, 150.0), nested(F4_5): (560.0, 330.0), nested(F4_5_2): (1100.0, 600.0),
    nested(F8_3_UP): (520.0, 800.0), nested(F8_4_UP): (570.0, 920.0),
    nested(toom.PAIR_3): (300.0, 200.0), nested(toom.PAIR_2): (60.0, 40.0),
    Nested(ONE, toom.F6): (90.0, 80.0), Nested(ONE, toom.F4_2): (55.0, 45.0),
    Nested(F4, ONE): (60.0, 45.0), Nested(ONE, F4): (60.0, 45.0),
    Nested(ONE, F4_5): (80.0, 60.0), Nested(ONE, F4_3_2): (100.0, 60.0),
}  # fmt: skip
GROUP_TRANSFORMS = (310.0, 230.0)  # with groups in lanes, whose planes lie further apart
# To pack a vector of numbers; to transform one channel's taps of a vector of filters.
PACK, TRANSFORM_TAPS = 30.0, 150.0
# To transform them where they are used at once.
FRESH_TAPS = {nested(F2): 90.0, nested(F4): 165.0}
# Bytes of packed weights that a core puts out, if they will stay in L3, and if not.
PUT_STREAM = (7.0, 3.0)
# A depthwise vector's multiply-adds take so many times those of a register tile: what is done once a line and once a walk.
DEPTHWISE_UPDATES = 1.5
# Bytes of weights that a core takes in, while it multiplies a vector: from L2, from L3, from memory. The last are 29 GB/s, measured
# with 50 and 105 MB: at half as much a decoder's layers of 512 channels, 7x7 and 14x14, went to tiles, and took a fifth longer.
STREAM = (32.0, 16.0, 8.0)


def panels_packing(problem: Problem) -> float:
    """Of the weights of a kernel that takes them as they are."""
    return PACK * problem.parameters / machine.lanes(problem.dtype)


def columns_packing(scheme: Scheme) -> Callable[[Problem], float]:
    """Of transformed columns, a vector for each number made."""
    return lambda problem: panels_packing(problem) * scheme.count / scheme.taps


def winograd_packing(scheme: Nested) -> Callable[[Problem], float]:
    """Of transformed filters: to make them, and to put out what they grow to."""

    def cycles(problem: Problem) -> float:
        lanes, size = machine.lanes(problem.dtype), np.dtype(problem.dtype).itemsize
        vectors = problem.groups * _ceil(problem.filters // problem.groups, lanes) * problem.channels // problem.groups
        put = vectors * _deep(problem) * scheme.matrices * lanes * size
        return vectors * _deep(problem) * TRANSFORM_TAPS + put / PUT_STREAM[put > machine.caches()["L3"] / 2]

    return cycles


def groups_packing(problem: Problem) -> float:
    """Of transformed groups."""
    return TRANSFORM_TAPS * problem.parameters / math.prod(problem.kernel) / machine.lanes(problem.dtype)


def groups_cycles(problem: Problem) -> float:
    """Of groups in lanes: products of whole register tiles, those that no output needs included, and the transforms."""
    band, (gather, scatter) = _groups_band(problem, 1), GROUP_TRANSFORMS
    tile, channels, filters = groups_tile(problem, band), problem.channels // problem.groups, problem.filters // problem.groups
    down, across = (_ceil(size, F4.outputs) for size in problem.out_space)
    strips = down // band * _ceil(band * across, tile.vectors) + _ceil(down % band * across, tile.vectors)
    weights = channels * filters * tile.lanes * np.dtype(problem.dtype).itemsize  # of a point, which L1 may hold beside the numbers
    streamed = 1 + (tile.rows if 2 * weights >= machine.caches()["L1d"] else 0)
    products = F4.count**2 * (channels + SHORT) * _ceil(filters, tile.rows) * strips * tiles.update_cycles(tile, streamed)
    blocks = problem.batch * _ceil(problem.groups, tile.lanes)
    return blocks * (products + down * across * (channels * gather + filters * scatter))


def winograd_cycles(scheme: Nested, fresh: bool = False) -> Callable[[Problem], float]:
    """Of Winograd's form: the products, or the stream of transformed weights if that takes longer, and the transforms."""

    def cycles(problem: Problem) -> float:
        division, (gather, scatter) = winograd(scheme, fresh)(problem, 1), TRANSFORMS[scheme]
        tile, panels, images = division.tile, division.fields["panels"], division.items // (division.bands * division.chunks)
        blocks, used = _ceil(problem.channels // problem.groups, tile.lanes), division.band * division.fields["across"]
        blocks, products = blocks * _deep(problem), images * _products_cycles(problem, scheme, division.band, tile)
        transforms = used * (blocks * gather + panels * tile.vectors * scatter)
        if fresh:
            filters = panels * tile.vectors * blocks * tile.lanes * FRESH_TAPS[scheme]
            return products + division.items * (transforms + filters)
        weights = scheme.matrices * panels * blocks * tile.lanes * tile.width * np.dtype(problem.dtype).itemsize
        return max(products, division.items * weights / _stream(problem, weights)) + division.items * transforms

    return cycles


def _stream(problem: Problem, weights: int) -> float:
    """Bytes of a group's weights that a core takes in while it multiplies a vector."""
    caches = machine.caches()
    return STREAM[0] if weights < caches["L2"] else STREAM[1] if weights * problem.groups < caches["L3"] / 2 else STREAM[2]


def signal_cycles(scheme: Nested) -> Callable[[Problem], float]:
    """Of signals: likewise."""

    def cycles(problem: Problem) -> float:
        division = signal(scheme)(problem, 1)
        products = _signal_products(problem, scheme, division.band, division.tile)
        return _each_image(problem, scheme, division, products, division.bands * division.band * problem.dilation[0])

    return cycles


def phases_cycles(scheme: Nested) -> Callable[[Problem], float]:
    """Of phases of few pixels: likewise."""

    def cycles(problem: Problem) -> float:
        division = phases(scheme)(problem, 1)
        products = _phases_products(problem, scheme, division.band, division.tile)
        return _each_image(problem, scheme, division, products, math.prod(problem.dilation))

    return cycles


def _each_image(problem: Problem, scheme: Nested, division: Division, products: float, count: int) -> float:
    """Of all images and groups: the products of each, or the stream of weights past its bands, and transforms of `count` tiles."""
    tile, panels, (gather, scatter) = division.tile, division.fields["panels"], TRANSFORMS[scheme]
    blocks = _ceil(problem.channels // problem.groups, tile.lanes)
    weights = scheme.matrices * panels * blocks * tile.lanes * tile.width * np.dtype(problem.dtype).itemsize
    streamed = division.bands * weights / _stream(problem, weights)
    transforms = count * (blocks * gather + panels * tile.vectors * scatter)
    return max(1, problem.batch) * problem.groups * (max(products, streamed) + transforms)
