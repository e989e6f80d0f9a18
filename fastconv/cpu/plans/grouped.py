"""The plan for grouped.py: bands of rows of tiles, vectors of groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.cpu import machine, tiles
from fastconv.cpu.grouped import SCHEME, lines_of_groups, multiply, put_pixels, put_planes, transformed_groups, winograd_groups
from fastconv.cpu.plans import winograd
from fastconv.cpu.plans.costs import SHORT, TRANSFORM_TAPS
from fastconv.cpu.plans.rules import FIRST, LAST, unless
from fastconv.cpu.plans.shares import ceil, evenly, spread_out
from fastconv.cpu.plans.winograd import edges, numbers_seen
from fastconv.cpu.simd import TileShape
from fastconv.cpu.toom import F4, nested
from fastconv.cpu.winograd import APART, lines_of_lanes
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem


def pack(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [transformed_groups(weights[0], unit, machine.lanes(problem.dtype))]


def refuse(data_format: str) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.dimensions != 2 or problem.dilation != (1, 1):
            return "computes planes without dilation"
        if problem.algorithm == "auto" and problem.groups < machine.lanes(problem.dtype) // 2:
            return f"has a group in each lane, here are {problem.groups}"
        return unless(data_format)(problem) or winograd.refuse(SCHEME)(problem)

    return refuse


def divide(problem: Problem, threads: int) -> Division:
    """For divide: bands of rows of tiles whose transforms fit L2, vectors of groups."""
    lanes, scheme = machine.lanes(problem.dtype), F4
    channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
    (height, width), outputs, points = problem.out_space, scheme.outputs, scheme.count
    down, across, blocks = ceil(height, outputs), ceil(width, outputs), ceil(problem.groups, lanes)
    band = _band(problem, threads)
    tile = best_tile(problem, band)
    unit = ceil(filters, tile.rows) * tile.rows
    tiles_at_once = ceil(band * across, tile.vectors) * tile.vectors | 1  # odd, so that points do not share sets of a cache
    columns_seen, rows_seen = numbers_seen(scheme, across), numbers_seen(scheme, band)
    pitch = max(columns_seen, problem.pads[-1][0] + max(problem.space[-1], lanes), max(width, lanes))
    last = problem.data_format == "channels_last"
    together = evenly(channels, lanes, 1) if last else 1
    columns_at = together * rows_seen * pitch * lanes
    values_at = columns_at + points * pitch * lanes
    products_at = values_at + points**2 * channels * tiles_at_once * lanes
    sums_at = products_at + points**2 * unit * tiles_at_once * lanes
    filled = ceil(channels * unit, lanes) * lanes
    fields = edges(problem, nested(scheme)) | {
        "pitch": pitch, "rows_seen": rows_seen, "columns_seen": columns_seen, "tiles": tiles_at_once, "across": across,
        "blocks": blocks, "lane_channels": channels, "filled": filled,
        "columns_at": columns_at, "values_at": values_at, "products_at": products_at, "sums_at": sums_at, "sums_pitch": width,
        "panel": lanes * (1 + points**2 * (filled + APART)), "points": (1, points, points), "matrices": (1, points, points),
        "together": together,
    }  # fmt: skip
    bands, scratch = ceil(down, band), sums_at + (together * outputs * pitch + filters) * lanes
    fill, put = (lines_of_groups, put_pixels) if last else (lines_of_lanes, put_planes)
    items, code = problem.batch * blocks * bands, {"fill": fill, "multiply": multiply, "put": put}
    [outer] = tiles.one_vector(problem.dtype)
    return Division(items, bands, band, 1, unit, scratch, tile, unit, fields=fields, outer=outer, **code)


def _band(problem: Problem, threads: int) -> int:
    """Rows of tiles."""
    lanes, room = machine.lanes(problem.dtype), machine.caches()["L2"] // np.dtype(problem.dtype).itemsize
    down, across = ceil(problem.out_space[0], F4.outputs), ceil(problem.out_space[1], F4.outputs)
    row = F4.count**2 * (problem.channels + problem.filters) // problem.groups * across * lanes
    others = max(1, problem.batch) * ceil(problem.groups, lanes)
    return spread_out(down, lanes, lanes, others, threads, max(1, min(down, room // row)), 0)[0]


def best_tile(problem: Problem, band: int) -> TileShape:
    """The tile that wastes least over a band's tiles and a group's filters."""
    filters, count = problem.filters // problem.groups, band * ceil(problem.out_space[1], F4.outputs)
    return min(
        tiles.pixels_in_lanes(problem.dtype),
        key=lambda tile: ceil(filters, tile.rows) * ceil(count, tile.vectors) * tiles.update_cycles(tile, 1),
    )


GROUP_TRANSFORMS = (310.0, 230.0)  # with groups in lanes, whose planes lie further apart


def packing_cycles(problem: Problem) -> float:
    """Of transformed groups."""
    return TRANSFORM_TAPS * problem.parameters / math.prod(problem.kernel) / machine.lanes(problem.dtype)


def cycles(problem: Problem) -> float:
    """Of groups in lanes: products of whole register tiles, those that no output needs included, and the transforms."""
    band, (gather, scatter) = _band(problem, 1), GROUP_TRANSFORMS
    tile, channels, filters = best_tile(problem, band), problem.channels // problem.groups, problem.filters // problem.groups
    down, across = (ceil(size, F4.outputs) for size in problem.out_space)
    strips = down // band * ceil(band * across, tile.vectors) + ceil(down % band * across, tile.vectors)
    weights = channels * filters * tile.lanes * np.dtype(problem.dtype).itemsize  # of a point, which L1 may hold beside the numbers
    streamed = 1 + (tile.rows if 2 * weights >= machine.caches()["L1d"] else 0)
    products = F4.count**2 * (channels + SHORT) * ceil(filters, tile.rows) * strips * tiles.update_cycles(tile, streamed)
    blocks = problem.batch * ceil(problem.groups, tile.lanes)
    return blocks * (products + down * across * (channels * gather + filters * scatter))


IMPLEMENTATIONS = (
    *(
        Implementation(
            name, "winograd", ("standard",),
            winograd_groups, pack, divide, "groups", refuse(data_format),
            reads, tiles.one_vector, SCHEME, cycles, winograd.error(SCHEME),
            packing_cycles,
        )
        for name, data_format, reads in (
            ("winograd_groups", FIRST, ("columns",)), ("winograd_groups_last", LAST, ("channels",)),
        )
    ),
)  # fmt: skip
