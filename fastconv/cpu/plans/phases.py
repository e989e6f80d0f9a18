"""The plan for phases.py: bands of phases whose numbers fit L3, chunks of filters."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastconv.cpu import machine, tiles
from fastconv.cpu.phases import SCHEMES, error_bound, winograd_phases
from fastconv.cpu.plans import winograd
from fastconv.cpu.plans.rules import FILTERS, SHEETS
from fastconv.cpu.plans.shares import ceil, spread_out, weight_bytes
from fastconv.cpu.plans.winograd import at_a_point, each_image
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_rows
from fastconv.cpu.toom import Nested
from fastconv.cpu.winograd import APART, lines_of_lanes, multiply
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem

# Share of L3 for the numbers of phases.py: the weights pass by.
PHASES_SHARE = 0.5


def refuse(scheme: Nested) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.dimensions != 2 or problem.kernel != (3, 3) or problem.stride != (1, 1):
            return "computes 3x3 windows of stride 1 in planes"
        if any(pads != (apart, apart) for pads, apart in zip(problem.pads, problem.dilation, strict=True)):
            return f"has zeros of {problem.dilation} pixels on all sides, here are {problem.pads}"
        for size, apart, one in zip(problem.space, problem.dilation, (scheme.down, scheme.across), strict=True):
            if not (one.outputs - 1) * apart < size <= one.outputs * apart:
                return f"has phases of {one.outputs} pixels and one fewer, here are {size} of rate {apart}"
        return None

    return refuse


def error(scheme: Nested) -> Callable[[Problem], float]:
    return lambda problem: error_bound(scheme, problem.channels // problem.groups, problem.dtype)


def divide(scheme: Nested) -> Callable[[Problem, int], Division]:
    """For winograd_phases: chunks of filters, for the transformed weights are many; bands of phases whose numbers fit L3."""
    points, (rows, columns) = scheme.count, (scheme.down, scheme.across)

    def division_of(problem: Problem, threads: int) -> Division:
        lanes, number = machine.lanes(problem.dtype), np.dtype(problem.dtype).itemsize
        channels, filters, (apart, rate) = problem.channels // problem.groups, problem.filters // problem.groups, problem.dilation
        padded, (tall, wide) = ceil(channels, lanes) * lanes, _long(problem, scheme)
        in_a_row = columns.long.count * wide + columns.short.count * (rate - wide)  # products, for each down the columns
        most = int(machine.caches()["L3"] * PHASES_SHARE) // (rows.long.count * in_a_row * padded * number)
        weights, others = weight_bytes(problem) * points // math.prod(scheme.window), max(1, problem.batch) * problem.groups
        band, chunk = spread_out(apart, filters, 2 * lanes, others, threads, max(1, min(apart, most)), weights)
        tile = best_tile(problem, scheme, band)
        chunk = ceil(chunk, tile.width) * tile.width
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
            "panels": ceil(filters, tile.width), "panel": tile.width * (1 + points * (padded + APART)),
            "points": (1, rows.count, columns.count),
        }  # fmt: skip
        bands, chunks = ceil(apart, band), ceil(filters, chunk)
        items, scratch = others * bands * chunks, sums_at + rows.outputs * pitch * tile.width
        code = {"fill": lines_of_lanes, "multiply": multiply, "put": put_rows}
        [outer] = tiles.one_vector(problem.dtype)
        return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fields=fields, outer=outer, **code)

    return division_of


def _long(problem: Problem, scheme: Nested) -> tuple[int, int]:
    """Phases of rows, and of columns, that have as many pixels as the scheme's longer ones."""
    return tuple(
        size - (one.outputs - 1) * apart
        for size, apart, one in zip(problem.out_space, problem.dilation, (scheme.down, scheme.across), strict=True)
    )  # type: ignore[return-value]


def best_tile(problem: Problem, scheme: Nested, band: int) -> TileShape:
    """The tile by which the products of the phases of each kind, and their weights, pass soonest."""
    return min(tiles.winograd_products(problem.dtype), key=lambda tile: _products(problem, scheme, band, tile))


def _products(problem: Problem, scheme: Nested, band: int, tile: TileShape) -> float:
    """Cycles of one image and group."""
    (apart, rate), (tall, wide), cycles = problem.dilation, _long(problem, scheme), 0.0
    of_a_point = at_a_point(problem, scheme, tile)
    for begin in range(0, apart, band):
        rows = min(band, apart - begin)
        long = max(0, min(rows, tall - begin))
        for products_i, down in ((scheme.down.long.count, long), (scheme.down.short.count, rows - long)):
            for products_j, across in ((scheme.across.long.count, wide), (scheme.across.short.count, rate - wide)):
                cycles += products_i * products_j * of_a_point(down * across)
    return cycles


def cycles(scheme: Nested) -> Callable[[Problem], float]:
    """Of phases of few pixels: likewise."""

    def cycles_of(problem: Problem) -> float:
        division = divide(scheme)(problem, 1)
        products = _products(problem, scheme, division.band, division.tile)
        return each_image(problem, scheme, division, products, math.prod(problem.dilation))

    return cycles_of


IMPLEMENTATIONS = (
    *(
        Implementation(
            name, "winograd", ("atrous",),
            winograd_phases, winograd.pack(scheme), divide(scheme), FILTERS, refuse(scheme), SHEETS,
            tiles.one_vector, scheme, cycles(scheme), error(scheme), winograd.packing_cycles(scheme),
        )
        for name, scheme in SCHEMES.items()
    ),
)  # fmt: skip
