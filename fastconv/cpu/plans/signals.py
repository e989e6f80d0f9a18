"""The plan for signals.py: bands of runs of tiles whose points fit L2."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastconv.cpu import machine, tiles
from fastconv.cpu.plans import winograd
from fastconv.cpu.plans.rules import FILTERS, SHEETS
from fastconv.cpu.plans.shares import ceil, spread_out, weight_bytes
from fastconv.cpu.plans.winograd import at_a_point, each_image, numbers_seen
from fastconv.cpu.signals import SCHEMES, error_bound, line_of_lanes, winograd_signal
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_rows
from fastconv.cpu.toom import Nested
from fastconv.cpu.winograd import APART, multiply
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem


def refuse(scheme: Nested) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.dimensions != 1 or problem.kernel != (scheme.across.taps,) or problem.stride != (scheme.across.stride,):
            return f"computes signals with windows of {scheme.across.taps}, {scheme.across.stride} apart"
        return "reads the whole signal, this one is cropped" if min(problem.pads[0]) < 0 else None

    return refuse


def error(scheme: Nested) -> Callable[[Problem], float]:
    return lambda problem: error_bound(scheme, problem.channels // problem.groups, problem.dtype)


def divide(scheme: Nested) -> Callable[[Problem, int], Division]:
    """For winograd_signal: bands of runs of tiles whose points fit L2."""
    along, points = scheme.across, scheme.count

    def division_of(problem: Problem, threads: int) -> Division:
        lanes, [rate], [stride], [width] = machine.lanes(problem.dtype), problem.dilation, problem.stride, problem.out_space
        channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
        padded, run = ceil(channels, lanes) * lanes, along.outputs * rate
        runs, room = ceil(width, run), machine.caches()["L2"] // np.dtype(problem.dtype).itemsize
        weights, others = weight_bytes(problem) * scheme.matrices // along.taps, max(1, problem.batch) * problem.groups
        most = max(1, min(runs, room // (points * padded * rate)))
        band, chunk = spread_out(runs, filters, 2 * lanes, others, threads, most, weights)
        tile = best_tile(problem, scheme, band)
        chunk = ceil(chunk, tile.width) * tile.width
        count, columns_seen = band * rate + tile.rows - 1, (numbers_seen(along, band) - 1) * rate + (rate - 1) * stride + 1
        values_at = (ceil(columns_seen, lanes) + 1) * lanes * lanes
        products_at = values_at + points * padded * count
        sums_at = products_at + points * count * tile.width
        fields = {
            "columns_seen": columns_seen, "tiles": count, "blocks": padded // lanes,
            "values_at": values_at, "products_at": products_at, "sums_at": sums_at,
            "panels": ceil(filters, tile.width), "panel": tile.width * (1 + scheme.matrices * (padded + APART)),
        }  # fmt: skip
        bands, chunks = ceil(runs, band), ceil(filters, chunk)
        items, scratch = others * bands * chunks, sums_at + (band * run + lanes) * tile.width
        code = {"fill": line_of_lanes, "multiply": multiply, "put": put_rows}
        [outer] = tiles.one_vector(problem.dtype)
        return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fields=fields, outer=outer, **code)

    return division_of


def best_tile(problem: Problem, scheme: Nested, band: int) -> TileShape:
    """The tile by which the products of a band, and their weights, pass soonest."""
    return min(tiles.winograd_products(problem.dtype), key=lambda tile: _products(problem, scheme, band, tile))


def _products(problem: Problem, scheme: Nested, band: int, tile: TileShape) -> float:
    """Cycles of one signal and group."""
    [rate], runs = problem.dilation, ceil(problem.out_space[0], scheme.across.outputs * problem.dilation[0])
    of_a_point = at_a_point(problem, scheme, tile)
    return scheme.count * (runs // band * of_a_point(band * rate) + of_a_point(runs % band * rate))


def cycles(scheme: Nested) -> Callable[[Problem], float]:
    """Of signals: likewise."""

    def cycles_of(problem: Problem) -> float:
        division = divide(scheme)(problem, 1)
        products = _products(problem, scheme, division.band, division.tile)
        return each_image(problem, scheme, division, products, division.bands * division.band * problem.dilation[0])

    return cycles_of


IMPLEMENTATIONS = (
    *(
        Implementation(
            name, "winograd", ("standard", "atrous"),
            winograd_signal, winograd.pack(scheme), divide(scheme), FILTERS, refuse(scheme), SHEETS,
            tiles.one_vector, scheme, cycles(scheme), error(scheme), winograd.packing_cycles(scheme),
        )
        for name, scheme in SCHEMES.items()
    ),
)  # fmt: skip
