"""Plans for standard.py's tiled kernels: bands of rows whose sheets fit a seat's scratch, chunks of filters."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain

import numpy as np

from fastconv.cpu import machine, strips, tiles
from fastconv.cpu.plans.costs import COPY, PIECE, TURN_SUMS, WHOLE, panels_packing
from fastconv.cpu.plans.rules import DENSE, FILTERS, FIRST, PIXELS, SHEETS, in_lanes, in_rows
from fastconv.cpu.plans.shares import ceil, scratch_numbers, spread_out, weight_bytes
from fastconv.cpu.sheets import BY_VECTORS, LINE, Sheets, fill_sheets, planes, rows_in_a_plane, taps
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_rows, put_turned, tiled_standard, tiled_standard_pixels
from fastconv.cpu.strips import Strip
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem, three

# Pixels whose sums, of a tile's width of filters, stay in L1 until they are put where they belong.
RUN = 112
# Rows of patches, of windows as large as their stride, share nothing of the image, and are items of their own where threads share
# them: each is done with one at another time. With a band each, two took 363 us for a transformer's patches channels last, and
# 291 so; 614 and 545 for 96 to 192 channels, 2x2, at 56 x 56.
PATCHES = 1


def pixels_refuse(problem: Problem) -> str | None:
    if refusal := shares_lines(problem):
        return refusal
    return _few_by_few(problem) if problem.kind == "depthwise" else None


def shares_lines(problem: Problem) -> str | None:
    """None, or how many groups share cache lines channels last: one after the other they would fetch each line anew."""
    beside = _groups_beside(problem, tiles.filters_in_lanes(problem.dtype)[0])
    return f"computes groups one by one, of which {1 + beside} share cache lines" if beside else None


def _few_by_few(problem: Problem) -> str | None:
    """Of strides above 2, sheets are copied number by number, which takes longer than a direct kernel of few taps and filters."""
    few = problem.filters // problem.groups < machine.lanes(problem.dtype) // 2
    if problem.algorithm == "auto" and problem.stride[-1] > 2 and few:
        return f"copies an image of stride {problem.stride[-1]} number by number"
    return None


def filters_refuse(problem: Problem) -> str | None:
    """A depthwise layer has too few filters in a group, and comes here only if asked for."""
    few = problem.filters // problem.groups < machine.lanes(problem.dtype) // 2
    return "a channel's filters fill no vector" if problem.kind == "depthwise" and problem.algorithm == "auto" and few else None


def filters_in_lanes(problem: Problem, threads: int, tile: TileShape | None = None) -> Division:
    """For tiled_standard: the tile whose strips and panels waste least, bands whose sheets fit a seat's scratch."""
    lanes, filters = machine.lanes(problem.dtype), problem.filters // problem.groups
    rows, out_width = rows_in_a_plane(problem), problem.out_space[-1]
    tile = tile or filters_tile(problem)
    run, beside = max(1, RUN // out_width), _groups_beside(problem, tile)
    sums = (run * out_width + max(lanes, tile.rows)) * (tile.width + beside * filters)
    pieces = strips.cut(problem, tile)
    most = _largest_band(problem, (scratch_numbers(problem.dtype) - sums) // (1 + beside), 0)
    if threads > 1 and taps(problem) > 1 and problem.kernel == problem.stride:
        most = PATCHES
    others = max(1, problem.batch) * problem.groups // (1 + beside) * planes(problem)
    band, chunk = spread_out(rows, filters, tile.width, others, threads, most, weight_bytes(problem))
    fields = {"run": run, "strips": len(pieces), "beside": beside}
    return replace(_over_sheets(problem, tile, band, chunk, tile.width, sums, fields, pieces), put=put_rows)


def _groups_beside(problem: Problem, tile: TileShape) -> int:
    """How many groups of a channels-last layer an item computes beside its first: those whose channels share its cache lines.

    One by one, each line of the image, and of the result, is fetched for each of them: 8 channels a group took 1.3 times as long.
    """
    channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
    if problem.data_format != "channels_last" or filters > tile.width:
        return 0
    sharing = LINE // max(channels, filters)
    return max((n for n in range(1, sharing + 1) if problem.groups % n == 0), default=1) - 1


def pixels_in_lanes(problem: Problem, threads: int, tile: TileShape | None = None) -> Division:
    """For tiled_standard_pixels: bands of rows whose sheets and sums fit a seat's scratch. With a given tile, in one chunk."""
    filters, chunked = problem.filters // problem.groups, tile is None
    rows, tile = rows_in_a_plane(problem), tile or pixels_tile(problem)
    by_tap = _copied(problem)[0]
    pitch, put = Sheets.of(problem, 1, by_tap=by_tap).pitch, None if problem.data_format == FIRST else put_turned
    together = tile.rows if put is None else max(ceil(filters, tile.rows) * tile.rows, tile.lanes)  # what is turned, in squares
    most = _largest_band(problem, scratch_numbers(problem.dtype) - together * tile.width, together * pitch, by_tap)
    others = max(1, problem.batch) * problem.groups * planes(problem)
    band, chunk = spread_out(rows, filters if chunked else tile.rows, tile.rows, others, threads, most, weight_bytes(problem))
    chunk = chunk if chunked else ceil(filters, tile.rows) * tile.rows
    flat = ceil(band * pitch, tile.width) * tile.width
    sums = together * flat + tile.lanes  # a short row's sums are read as a whole vector
    fields = {"sums_pitch": flat}
    return replace(_over_sheets(problem, tile, band, chunk, tile.rows, sums, fields, slack=tile.width, by_tap=by_tap), put=put)


def _copied(problem: Problem) -> tuple[bool, int]:
    """Whether each tap across is copied anew, and how many rows are copied for it, or else out of the sums, for one of the result.

    The stem of MobileNet, 3 channels to 32, takes 245 us in place of 269, and 254 for 363 if its result lies in memory.
    """
    axes = zip(*map(three, (problem.kernel, problem.stride, problem.dilation)), strict=True)
    (depth, *_), (taps_i, stride_i, apart_i), (taps_j, stride_j, apart_j) = axes
    phases_i, phases_j = min(taps_i, stride_i // math.gcd(stride_i, apart_i)), min(taps_j, stride_j // math.gcd(stride_j, apart_j))
    more, filters = problem.channels // problem.groups * depth * phases_i * (taps_j - phases_j), problem.filters // problem.groups
    by_tap = stride_j in BY_VECTORS and 0 < 2 * more <= filters and problem.data_format == FIRST
    return by_tap, more if by_tap else filters


def _largest_band(problem: Problem, room: int, sums_a_row: int, by_tap: bool = False) -> int:
    """Rows whose sheets and sums fit so much room; one if none do."""
    channels = problem.channels // problem.groups

    def numbers(band: int) -> int:
        return channels * Sheets.of(problem, band, by_tap=by_tap).sheet + band * sums_a_row

    return 1 + bisect_right(range(2, rows_in_a_plane(problem) + 1), room, key=numbers)


def pixels_tile(problem: Problem) -> TileShape:
    """The tile that wastes least over planes of sheets."""
    return min(tiles.pixels_in_lanes(problem.dtype), key=lambda tile: pixels_cycles(problem, tile))


def _over_sheets(
    problem: Problem, tile: TileShape, band: int, chunk: int, unit: int, sums: int, fields: dict[str, int],
    pieces: Sequence[Strip] = (), slack: int = LINE,
    by_tap: bool = False,
) -> Division:  # fmt: skip
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    sheets = Sheets.of(problem, band, by_tap=by_tap)
    rows = rows_in_a_plane(problem)
    bands, chunks, groups = ceil(rows, band), ceil(filters, chunk), 1 + fields.get("beside", 0)
    sums_at = ceil(groups * channels * sheets.sheet + slack, LINE) * LINE
    fields = fields | asdict(sheets) | {
        "table": (*sheets.table, *chain.from_iterable(pieces)), "strips_at": len(sheets.table),
        "panels": ceil(filters, unit), "panel": unit * (1 + channels * taps(problem)), "sums_at": sums_at,
    }  # fmt: skip
    items = problem.batch * problem.groups // groups * planes(problem) * bands * chunks
    return Division(items, bands, band, chunks, chunk, sums_at + sums, tile, unit, fill_sheets, fields)


def filters_tile(problem: Problem) -> TileShape:
    """The tile of filters in lanes whose strips and panels waste least."""
    every, lanes = tiles.filters_in_lanes(problem.dtype), machine.lanes(problem.dtype)
    if problem.groups > 1 and 2 * problem.filters // problem.groups <= lanes:
        every = every + tiles.few_filters_in_lanes(problem.dtype)
    fitting = [shape for shape in every if shape.short.rows <= problem.out_space[-1]]
    return min(fitting, key=lambda tile: filters_cycles(problem, tile))


def filters_cycles(problem: Problem, tile: TileShape | None = None) -> float:
    """Of filters in lanes; taps that a whole strip misses are left out. Here and below with the best tile if none is given."""
    tile = tile or filters_tile(problem)
    panels = ceil(problem.filters // problem.groups, tile.width)
    vectors = panels * _rows(problem) * ceil(problem.out_space[-1], tile.lanes) * tile.width
    return updates(problem, tile) + vectors * _put_cycles(problem, tile)


def _put_cycles(problem: Problem, tile: TileShape) -> float:
    """Of a vector of sums with filters in lanes."""
    if problem.data_format != "channels_last":
        return TURN_SUMS[problem.dtype]
    return COPY if problem.groups > 1 else WHOLE if problem.filters <= tile.width else PIECE / tile.vectors


def updates(problem: Problem, tile: TileShape) -> float:
    """Of filters in lanes, without what it takes to put their sums."""
    panels = ceil(problem.filters // problem.groups, tile.width)
    depth = problem.channels // problem.groups * math.prod(_taps_inside(problem, axis) for axis in range(problem.dimensions - 1))
    update = strips.work(problem, tile) * (tile.lanes / machine.lanes(problem.dtype))
    return problem.batch * problem.groups * panels * depth * update * _from_afar(problem)


def _from_afar(problem: Problem) -> float:
    """How much longer filters in lanes take for numbers that L2 does not hold, beside updates that hide most of it."""
    channels, number, caches = problem.channels // problem.groups, np.dtype(problem.dtype).itemsize, machine.caches()
    # They come once for each band: 33 x 33 x 1024 of rate 12, whose bands are a row. A small image has but one.
    if 4 * weight_bytes(problem) > caches["L3"] and channels * math.prod(problem.space) > scratch_numbers(problem.dtype):
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
    tile = tile or pixels_tile(problem)
    depth, filters = problem.channels // problem.groups * taps(problem), problem.filters // problem.groups
    by_tap, copied = _copied(problem)
    pitch = Sheets.of(problem, 1, by_tap=by_tap).pitch
    strips = problem.batch * problem.groups * planes(problem) * (rows_in_a_plane(problem) * pitch / tile.width + 0.5)
    of_a_vector = COPY if problem.data_format == FIRST else COPY + TURN_SUMS[problem.dtype]
    put = of_a_vector * copied * _rows(problem) * ceil(problem.out_space[-1], tile.lanes)
    return ceil(filters, tile.rows) * strips * depth * tiles.update_cycles(tile, tile.vectors) + put


def _rows(problem: Problem) -> int:
    """Of all groups' results together."""
    return problem.batch * problem.groups * planes(problem) * rows_in_a_plane(problem)


IMPLEMENTATIONS = (
    Implementation(
        "tiled_standard_pixels", "tiled", (*DENSE, "depthwise"),
        tiled_standard_pixels, in_rows, pixels_in_lanes, PIXELS, pixels_refuse,
        SHEETS, tiles.pixels_in_lanes, cycles=pixels_cycles, packing=panels_packing,
    ),
    Implementation(
        "tiled_standard", "tiled", (*DENSE, "depthwise"),
        tiled_standard, in_lanes, filters_in_lanes, FILTERS, filters_refuse,
        SHEETS, tiles.grouped_filters_in_lanes, cycles=filters_cycles, packing=panels_packing,
    ),
)  # fmt: skip
