"""Plans for transposed.py: bands of the result's rows, chunks of filters or of channels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from fastconv.cpu import machine, packing, strips, tiles
from fastconv.cpu.plans import depthwise
from fastconv.cpu.plans.costs import COPY, TURN_SUMS, panels_packing
from fastconv.cpu.plans.rules import (
    COLUMNS,
    FILTERS,
    FIRST,
    LAST,
    PIXELS,
    SHEETS,
    in_channel_lanes,
    in_lanes,
    never,
    one_by_one,
    unless,
)
from fastconv.cpu.plans.shares import ITEMS_A_THREAD, ceil, scratch_numbers, spread_out, weight_bytes
from fastconv.cpu.plans.standard import RUN
from fastconv.cpu.sheets import LINE, fill_sheets, rows_in_a_plane, taps
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_rows
from fastconv.cpu.transposed import (
    tiled_depthwise_spread,
    tiled_depthwise_spread_last,
    tiled_depthwise_transposed_last,
    tiled_transposed,
    tiled_transposed_pixels,
)
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem, three


def pixels_refuse(problem: Problem) -> str | None:
    filters = problem.filters // problem.groups
    if problem.dimensions == 3 or problem.stride[-1] != 2 or problem.kernel[-1] not in tiles.SPREADS:
        return f"computes windows of {', '.join(map(str, tiles.SPREADS))} columns two apart, of planes and signals"
    if any(d != 1 for d in problem.dilation):
        return f"computes no dilation, this is {problem.dilation}"
    if filters * 2 > machine.lanes(problem.dtype):
        return f"is for few filters in a group, here are {filters}"
    return unless(FIRST)(problem)


def columns_refuse(problem: Problem) -> str | None:
    if problem.groups != problem.channels or problem.dimensions != 2:
        return "computes depthwise layers of planes"
    return _by_two(problem) or pixels_refuse(problem)


def _by_two(problem: Problem) -> str | None:
    taps, strides = problem.kernel[-1], set(problem.stride)
    if strides != {2} or set(problem.kernel) != {taps} or taps not in tiles.SPREADS:
        return f"computes windows of {', '.join(map(str, tiles.SPREADS))} rows and columns, two apart"
    return None


def channels_refuse(problem: Problem) -> str | None:
    if problem.groups != problem.channels or problem.dimensions == 3 or any(d != 1 for d in problem.dilation):
        return "computes depthwise layers of planes and signals, without dilation"
    if problem.filters != problem.groups:
        return f"computes one filter a channel, here are {problem.filters // problem.groups}"
    return unless(LAST)(problem)


def spread_channels_refuse(problem: Problem) -> str | None:
    return _by_two(problem) or channels_refuse(problem)


def pack_pixels(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.spread_panels(weights[0], biases[0], unit)]


def pack_spread_channels(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    stride = problem.stride[0] if problem.dimensions == 2 else 1
    return [packing.spread_channel_panels(weights[0], biases[0], unit, stride)]


def filters_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_transposed: bands of rows whose part of the image fits a seat's scratch."""
    out_space, kernel, stride, dilation = map(three, (problem.out_space, problem.kernel, problem.stride, problem.dilation))
    crop = [0] * (3 - problem.dimensions) + [before for before, _ in problem.pads]
    lanes, channels, filters = machine.lanes(problem.dtype), problem.channels // problem.groups, problem.filters // problem.groups
    tile = best_tile(problem)
    # Rows of the image that reach `band` rows of the result; for columns, all of them, from the first that is reached on.
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    first = -((spans[2] - crop[2]) // stride[2])
    pitch = (out_space[2] - 1 + crop[2]) // stride[2] - first + 1
    depth = spans[0] // stride[0] + 1

    def sheet(band: int) -> int:
        size = depth * pitch * sheet_rows(band, spans[1], stride[1])
        return LINE * (ceil(size + LINE, LINE) | 1)

    run = max(1, RUN // out_space[2])
    sums = (run * out_space[2] + max(lanes, tile.rows * stride[2])) * tile.width
    room = scratch_numbers(problem.dtype) - sums
    most = max(1, room * out_space[1] // (channels * sheet(out_space[1])))
    others = max(1, problem.batch) * problem.groups * out_space[0]
    band, chunk = spread_out(out_space[1], filters, tile.width, others, threads, min(most, out_space[1]), weight_bytes(problem))
    bands, chunks = ceil(out_space[1], band), ceil(filters, chunk)
    sums_at = ceil(channels * sheet(band) + tile.rows + LINE, LINE) * LINE
    ones = (1, 1, 1)
    hop, back = zip(*((s // math.gcd(s, d), d // math.gcd(s, d)) for s, d in zip(stride, dilation, strict=True)), strict=True)
    fields = {
        "spread": stride, "apart": dilation, "crop": crop, "hop": hop, "back": back, "run": run,
        "stride": ones, "dilation": ones, "before": (0, 0, -first), "phases": (depth, 1, 1),
        "table": (0,) * (taps(problem) + 2), "pitch": pitch, "phase_size": sheet_rows(band, spans[1], stride[1]) * pitch,
        "phase_rows": sheet_rows(band, spans[1], stride[1]),
        "sheet": sheet(band), "sums_at": sums_at, "panels": ceil(filters, tile.width),
        "panel": tile.width * (1 + channels * taps(problem)),
    }  # fmt: skip
    items, scratch = others * bands * chunks, sums_at + sums
    return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fill_sheets, fields, put=put_rows)


def pixels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_transposed_pixels: chunks of panels of filters, bands of rows where they are few."""
    filters = problem.filters // problem.groups
    height = min(filters, tiles.MOST_SPREAD)
    tile = TileShape(height, problem.kernel[-1], machine.lanes(problem.dtype), 2, problem.dtype)
    panels, rows, images = ceil(filters, height), rows_in_a_plane(problem), max(1, problem.batch)
    wanted = ITEMS_A_THREAD * threads if threads > 1 else 1
    chunk = ceil(problem.groups * panels, min(problem.groups * panels, ceil(wanted, images)))
    chunks = ceil(problem.groups * panels, chunk)
    band = ceil(rows, min(rows, ceil(wanted, chunks * images)))
    bands = ceil(rows, band)
    fields = {"panels": panels, "panel": height * (1 + problem.channels // problem.groups * taps(problem))}
    return Division(problem.batch * bands * chunks, bands, band, chunks, chunk, 0, tile, height, None, fields)


def columns_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_spread: chunks of filters, and bands of rows where they are few; half a vector if narrow."""
    lanes, (taps_a, taps_b) = machine.lanes(problem.dtype), problem.kernel
    narrow = problem.space[-1] <= lanes // 2 and lanes >= tiles.LEAST_TO_HALVE
    tile = TileShape(taps_a, taps_b, lanes // 2 if narrow else lanes, 2, problem.dtype)
    return depthwise.over_channels(problem, tile, 1, threads, {"panel": 1 + taps(problem)})


def channels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_transposed_last: bands of rows."""
    lanes, rows = machine.lanes(problem.dtype), rows_in_a_plane(problem)
    band = ceil(rows, min(rows, ceil(ITEMS_A_THREAD * threads, max(1, problem.batch)) if threads > 1 else 1))
    bands, tile = ceil(rows, band), TileShape(1, 1, lanes, 1, problem.dtype)
    fields = {"panel": lanes * (1 + taps(problem))}
    return Division(problem.batch * bands, bands, band, 1, problem.filters, 0, tile, lanes, None, fields)


def spread_channels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_depthwise_spread_last: likewise."""
    division = channels_in_lanes(problem, threads)
    (_, stride, _), (_, taps_a, taps_b) = three(problem.stride), three(problem.kernel)
    tile = replace(division.tile, rows=taps_b, vectors=ceil(taps_a, stride))
    return replace(division, tile=tile, fields={"panel": tile.lanes * (1 + stride * tile.vectors * taps_b)})


def sheet_rows(band: int, span: int, stride: int) -> int:
    """Rows of the image that reach a band of rows of a transposed convolution's result."""
    return (band - 1 + span) // stride + 1


def best_tile(problem: Problem) -> TileShape:
    """The tile whose strips of a phase, and panels, waste least; its strips end where a phase's row does."""
    columns, filters = problem.out_space[-1] // problem.stride[-1], problem.filters // problem.groups
    fitting = [tile for tile in tiles.phases_in_lanes(problem.dtype) if tile.short.rows <= max(1, columns)]
    return min(fitting, key=lambda tile: ceil(filters, tile.width) * strips.even_work(columns, tile))


def cycles(problem: Problem) -> float:
    """Of tiled_transposed, the columns of taps in the padding included."""
    tile, filters = best_tile(problem), problem.filters // problem.groups
    *outer, width = problem.out_space
    rows_of_taps = math.prod(taps_inside(problem, axis) for axis in range(len(outer)))
    updates = rows_of_taps * problem.kernel[-1] * strips.even_work(width // problem.stride[-1], tile)
    put = COPY if problem.data_format == "channels_last" else TURN_SUMS[problem.dtype]
    sums = math.prod(outer) * ceil(width, tile.lanes) * tile.width * put
    return problem.batch * problem.groups * ceil(filters, tile.width) * (problem.channels // problem.groups * updates + sums)


def taps_inside(problem: Problem, axis: int) -> int:
    """Of all outputs along one axis together: the taps that a number of the image reaches them by."""
    stride, size, crop = problem.stride[axis], problem.space[axis], problem.pads[axis][0]
    firsts = [crop - tap * problem.dilation[axis] for tap in range(problem.kernel[axis])]  # of the outputs a tap makes of the image
    ends = [ceil(problem.out_space[axis] + first, stride) for first in firsts]
    return sum(max(0, min(size, end) - max(0, ceil(first, stride))) for first, end in zip(firsts, ends, strict=True))


IMPLEMENTATIONS = (
    Implementation(
        "tiled_depthwise_spread", "tiled", ("transposed",),
        tiled_depthwise_spread, one_by_one, columns_in_lanes, COLUMNS, columns_refuse,
        ("columns",), tiles.square_spreads,
    ),
    Implementation(
        "tiled_transposed_pixels", "tiled", ("transposed",),
        tiled_transposed_pixels, pack_pixels, pixels_in_lanes, PIXELS,
        pixels_refuse, ("columns",), tiles.spreads,
    ),
    Implementation(
        "tiled_depthwise_spread_last", "tiled", ("transposed",),
        tiled_depthwise_spread_last, pack_spread_channels, spread_channels_in_lanes, "channels",
        spread_channels_refuse, ("channels",), tiles.spreads_of_channels,
    ),
    Implementation(
        "tiled_depthwise_transposed_last", "tiled", ("transposed",),
        tiled_depthwise_transposed_last, in_channel_lanes, channels_in_lanes,
        "channels", channels_refuse, ("channels",), tiles.one_vector,
    ),
    Implementation(
        "tiled_transposed", "tiled", ("transposed",),
        tiled_transposed, in_lanes, filters_in_lanes, FILTERS, never, SHEETS,
        tiles.phases_in_lanes, cycles=cycles, packing=panels_packing,
    ),
)  # fmt: skip
