"""The plan for columns.py: bands of rows of tiles whose sheets, points and products fit L2."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from fastconv.cpu import machine, tiles
from fastconv.cpu.columns import SCHEMES, error_bound, multiply, transformed_columns, winograd_columns
from fastconv.cpu.plans import standard
from fastconv.cpu.plans.costs import COPY, SHORT, TURN, panels_packing
from fastconv.cpu.plans.rules import FIRST, PIXELS, SHEETS
from fastconv.cpu.plans.shares import ceil, spread_out, weight_bytes
from fastconv.cpu.sheets import LINE, Sheets, fill_sheets, taps
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_turned
from fastconv.cpu.toom import F6, Scheme
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem

# Where channels come last a vector of filters is turned at once: of four, whose scratch is larger, ResNet's first layer took 1.06
# times as long. Beyond this share of L3 lines of the result go out to memory half written: 224 x 224 x 64 took 1.3 times as long
# as in tiles.
WRITTEN_AT_ONCE = 0.25


def error(scheme: Scheme) -> Callable[[Problem], float]:
    return lambda problem: error_bound(problem, scheme)


def pack(scheme: Scheme) -> Callable[..., Any]:
    def pack(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
        return [transformed_columns(weights[0], biases[0], unit, problem.stride[0], scheme)]

    return pack


def refuse(scheme: Scheme) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.dimensions != 2 or problem.dilation[0] != 1 or -(-problem.kernel[0] // problem.stride[0]) != scheme.taps:
            return f"computes planes whose windows have {scheme.taps} rows, a stride apart"
        if scheme is F6 and problem.algorithm == "auto" and problem.filters <= problem.channels:
            return "transforms an image of many channels for few filters: of 64 to 3, F(4, 3) is 1.1 times as fast"
        return standard.shares_lines(problem)

    return refuse


def divide(scheme: Scheme) -> Callable[[Problem, int], Division]:
    """For winograd_columns: bands of rows of tiles whose sheets, points and products fit L2."""

    def division_of(problem: Problem, threads: int) -> Division:
        lanes, filters = machine.lanes(problem.dtype), problem.filters // problem.groups
        channels, count, outputs = problem.channels // problem.groups, scheme.count, scheme.outputs
        down = ceil(problem.out_space[0], outputs)
        tile = best_tile(problem, scheme)
        room = machine.caches()["L2"] // np.dtype(problem.dtype).itemsize

        def layout(band: int) -> tuple[dict[str, Any], int]:
            sheets = Sheets.of(problem, band * outputs)
            phases = sheets.phases[1] * sheets.phases[2]
            rows_of_taps = [row * sheets.phases[2] for row in range(sheets.phases[1])]
            plane = ceil(band * sheets.pitch, tile.width) * tile.width + sheets.pitch + lanes
            (_, stride_j), (_, apart_j), (_, taps_b) = problem.stride, problem.dilation, problem.kernel
            slots = sorted({b * apart_j % stride_j for b in range(taps_b)})
            table = [
                (row + slots.index(b * apart_j % stride_j)) * plane + b * apart_j // stride_j
                for row in rows_of_taps
                for b in range(taps_b)
            ]
            kept = sheets.table[taps(problem) :]
            values_at = ceil(channels * sheets.sheet + outputs * sheets.pitch + LINE, LINE) * LINE
            products_at = values_at + count * channels * phases * plane
            fields = asdict(sheets) | {
                "table": (*table, *(0,) * (taps(problem) - len(table)), *kept), "down": band, "plane": plane,
                "values_at": values_at, "products_at": products_at, "panels": ceil(filters, tile.rows),
                "panel": tile.rows * (1 + count * channels * len(table)), "points": (1, count, 1),
            }  # fmt: skip
            sums_at, pixels = products_at + count * tile.rows * plane, band * outputs * problem.out_space[1]
            if problem.data_format == FIRST:
                return fields, sums_at
            fields |= {"sums_at": sums_at, "sums_pitch": LINE * (ceil(pixels + lanes, LINE) | 1), "together": lanes}
            return fields, sums_at + (lanes + max(tile.rows, lanes)) * fields["sums_pitch"]  # squares of rows, used or not

        band = max([b for b in range(1, down + 1) if layout(b)[1] <= room], default=1)
        others = max(1, problem.batch) * problem.groups
        band, chunk = spread_out(down, filters, tile.rows, others, threads, band, weight_bytes(problem))
        bands, chunks = ceil(down, band), ceil(filters, chunk)
        fields, scratch = layout(band)
        items, code = others * bands * chunks, {"fill": fill_sheets, "multiply": multiply}
        code |= {} if problem.data_format == FIRST else {"put": put_turned}
        [outer] = tiles.one_vector(problem.dtype)
        return Division(items, bands, band, chunks, chunk, scratch, tile, tile.rows, fields=fields, outer=outer, **code)

    return division_of


def best_tile(problem: Problem, scheme: Scheme) -> TileShape:
    """The tile of pixels in lanes that wastes least."""
    return min(tiles.pixels_in_lanes(problem.dtype), key=lambda tile: _cycles(problem, scheme, tile))


def cycles(scheme: Scheme) -> Callable[[Problem], float]:
    """Of winograd_columns: products, and transforms of a vector for each number read and made."""
    return lambda problem: _cycles(problem, scheme, best_tile(problem, scheme))


def _cycles(problem: Problem, scheme: Scheme, tile: TileShape) -> float:
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    sheets, count = Sheets.of(problem, scheme.outputs), scheme.count
    down = ceil(problem.out_space[0], scheme.outputs)
    depth, strips = channels * sheets.phases[1] * problem.kernel[1], down * sheets.pitch / tile.width + 0.5
    products = count * ceil(filters, tile.rows) * strips * (depth + SHORT) * tiles.update_cycles(tile, tile.vectors)
    vectors = down * ceil(sheets.pitch, tile.lanes)
    into = vectors * channels * sheets.phases[1] * sheets.phases[2] * count * (scheme.outputs + scheme.taps) / 2
    outof = vectors * filters * count * (scheme.outputs + 2) / 2
    put = filters * problem.out_space[0] * ceil(problem.out_space[1], tile.lanes) * _put_cycles(problem)
    return max(1, problem.batch) * problem.groups * (products + into + outof + put)


def _put_cycles(problem: Problem) -> float:
    """Of a vector of the result, beside what it takes to make it."""
    if problem.data_format == FIRST:
        return 0.0
    size = math.prod(problem.out_space) * problem.filters * np.dtype(problem.dtype).itemsize
    return TURN + (COPY if size > WRITTEN_AT_ONCE * machine.caches()["L3"] else 0.0)


def packing_cycles(scheme: Scheme) -> Callable[[Problem], float]:
    """Of transformed columns, a vector for each number made."""
    return lambda problem: panels_packing(problem) * scheme.count / scheme.taps


IMPLEMENTATIONS = (
    *(
        Implementation(
            f"winograd_columns_{scheme.outputs}_{scheme.taps}", "winograd", ("standard",),
            winograd_columns, pack(scheme), divide(scheme), PIXELS, refuse(scheme),
            SHEETS, tiles.one_vector, scheme, cycles(scheme), error(scheme),
            packing_cycles(scheme),
        )
        for scheme in SCHEMES
    ),
)  # fmt: skip
