"""The plan for winograd.py, and what it shares with those for phases.py, signals.py and grouped.py.

Bands of rows of tiles whose transforms fit L2, or a share of L3 where heavy weights would be streamed anew for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.cpu import machine, tiles, toom
from fastconv.cpu.plans.costs import EIGHTH, STREAM, TRANSFORM_TAPS
from fastconv.cpu.plans.rules import FILTERS, SHEETS
from fastconv.cpu.plans.shares import SCRATCH_SHARE, ceil, evenly, spread_out, weight_bytes
from fastconv.cpu.sheets import LINE, planes
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import put_rows
from fastconv.cpu.toom import F2, F2_3_2, F2_5, F4, F4_3_2, F4_5, F4_5_2, F5, F8_3_UP, F8_4_UP, ONE, Nested, Scheme, nested
from fastconv.cpu.winograd import (
    APART,
    FRESH,
    SCHEMES,
    error_bound,
    lines_of_lanes,
    multiply,
    transform_panel,
    transformed_filters,
    winograd,
)
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem

# Share of L2 for what winograd.py transforms of a panel at a time: F(4x4)'s sums are loaded and stored so much less often that
# a 7x7 layer of 512 channels takes 1.46 ms in place of 1.81.
PANEL_SHARE = 0.6
# Share of L3 for what an item holds of a band, and of several images, if these spare a fifth of what is streamed through L2 with
# fewer of them: 8 images of 7x7 with 512 channels took 7.9 ms one by one, and take 5.1 together; with fresh weights 22, and 7.2. 32
# of 4x4 with 256 took 2.6 ms, and take 1.5.
SHARED, SPARED = 1 / 8, 0.8
MUCH = 2  # L2s of weights from which on a band may hold that share
WAITING = 0.01  # share of a strip's products that count although weights take longer to come
FULL = 8  # rows of the tallest tile that powers of two fill


def pack(scheme: Nested) -> Callable[..., Any]:
    def pack(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
        return [transformed_filters(weights[0], biases[0], unit, machine.lanes(problem.dtype), scheme)]

    return pack


def fresh_refuse(scheme: Nested) -> Callable[[Problem], str | None]:
    return lambda problem: refuse(scheme)(problem) or ("computes planes" if problem.dimensions == 3 else None)


def error(scheme: Nested) -> Callable[[Problem], float]:
    def error(problem: Problem) -> float:
        summed = problem.channels // problem.groups * math.prod(problem.kernel[:-2])
        return error_bound(scheme, summed, problem.dtype)

    return error


def refuse(scheme: Nested) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        if problem.kernel[-2:] != scheme.window or problem.stride[-2:] != (scheme.stride, scheme.stride):
            rows, columns = scheme.window
            return f"computes {rows}x{columns} windows of stride {scheme.stride} in a plane"
        if scheme.transposed and (problem.dimensions != 2 or problem.dilation != (1, 1)):
            return "computes planes without dilation"
        if min(min(pad) for pad in problem.pads) < 0:
            return "reads the whole image, this one is cropped"
        return None

    return refuse


def divide(scheme: Nested, fresh: bool = False) -> Callable[[Problem, int], Division]:
    """For a scheme in two dimensions: bands of rows of tiles; see `numbers_held`. `fresh` weights come as they are."""
    points, matrices, (rows, columns) = scheme.count, scheme.matrices, (scheme.down, scheme.across)

    def division_of(problem: Problem, threads: int) -> Division:
        lanes = machine.lanes(problem.dtype)
        channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
        apart_i, apart_j = problem.dilation[-2:]
        height, width = _tiled_space(problem)
        down = ceil(ceil(height, apart_i), rows.outputs)
        across = _tiles_across(problem, columns)
        padded = _deep(problem) * ceil(channels, lanes) * lanes
        weights = weight_bytes(problem) * matrices // math.prod(scheme.window)
        most = max(1, min(down, numbers_held(problem, weights, threads) // (points * padded * across)))
        passing = ceil(filters, lanes) * padded * FRESH_TAPS[scheme] if fresh else weights / stream_speed(problem, weights)
        images = at_once(problem, threads, down * across, points, passing, ceil(down, most))
        most = most if images == 1 else down
        others = ceil(max(1, problem.batch), images) * problem.groups * planes(problem) * apart_i
        # Each band has its panels transformed anew: filters are cut first, as where they would be streamed anew.
        heavy = machine.caches()["L3"] if fresh else weights
        band, chunk = spread_out(down, filters, 2 * lanes, others, threads, most, heavy)
        tile = best_tile(problem, scheme, band, chunk, images, fresh)
        chunk = ceil(chunk, tile.width) * tile.width
        tiles_at_once = images * band * across + tile.rows - 1
        numbers = numbers_seen(columns, ceil(ceil(width, apart_j), columns.outputs))
        columns_seen = (apart_j - 1) * problem.stride[-1] + apart_j * (numbers - 1) + 1
        in_one_run = (apart_i, apart_j) == (1, 1) and not scheme.transposed  # a tile's rows of sums, as in the result
        pitch = max(
            columns_seen,
            (columns.overlap if scheme.transposed else problem.pads[-1][0]) + max(problem.space[-1], lanes),
            columns.outputs * apart_j * ceil(ceil(width, apart_j), columns.outputs),
            width - problem.out_space[-1] + max(problem.out_space[-1], lanes),  # sums are read from the crop on
            width + int(not in_one_run),  # by which the kernel tells the two
        )
        rows_seen = numbers_seen(rows, band)
        columns_at = rows_seen * pitch * lanes
        values_at = columns_at + rows.count * max(pitch, columns.count) * lanes
        products_at = values_at + points * padded * tiles_at_once
        sums_at = products_at + points * tiles_at_once * tile.width
        fields = edges(problem, scheme) | {
            "images": images, "tiles": tiles_at_once, "across": across,
            "pitch": pitch, "rows_seen": rows_seen, "columns_seen": columns_seen,
            "columns_at": columns_at, "values_at": values_at, "products_at": products_at, "sums_at": sums_at, "lane_channels": 1,
            "panels": ceil(filters, tile.width), "panel": tile.width * (1 + matrices * (padded + APART)),
            "points": (1, rows.count, columns.count), "matrices": (1, rows.matrices, columns.matrices),
            "sums_pitch": width if in_one_run else pitch,
        }  # fmt: skip
        if scheme.transposed:
            crop, before = [0] * (3 - problem.dimensions) + [before for before, _ in problem.pads], rows.overlap
            fields |= {"crop": crop, "stride": (1, 1, 1), "before": (0, before, before)}
        bands, chunks = ceil(down, band), ceil(filters, chunk)
        scratch = sums_at + rows.outputs * pitch * tile.width
        items, code = others * bands * chunks, {"fill": lines_of_lanes, "multiply": multiply, "put": put_rows}
        if fresh:
            panel_at, blocks = ceil(scratch, LINE) * LINE, padded // lanes
            held = int(machine.caches()["L2"] * PANEL_SHARE) // np.dtype(problem.dtype).itemsize
            together = evenly(blocks, max(1, held // (matrices * lanes * tile.width)), 1)
            scratch = panel_at + tile.width * (1 + matrices * (together * lanes + APART))
            fields |= {"fresh": True, "together": together, "panel_at": panel_at}
            code["transform"] = transform_panel
        [outer] = tiles.one_vector(problem.dtype)
        return Division(items, bands, band, chunks, chunk, scratch, tile, tile.width, fields=fields, outer=outer, **code)

    return division_of


def numbers_held(problem: Problem, weights: int, threads: int) -> int:
    """Numbers that an item may hold at the points: what fits L2, or L3 if each band has weights of MUCH of L2 streamed anew.

    512 channels and filters at 28 x 28 take 8.3 ms in place of 9.6; 64 to 128 of stride 2 at 160 x 160, whose weights are 1.2 MB,
    would take 5 % longer.
    """
    caches = machine.caches()
    room = caches["L2"] if weights <= MUCH * caches["L2"] else max(caches["L2"], int(caches["L3"] * min(SHARED, 0.5 / threads)))
    return room // np.dtype(problem.dtype).itemsize


def at_once(problem: Problem, threads: int, tiles_of_it: int, points: int, passing: float, bands: int) -> int:
    """How many images an item computes together, of so many tiles each: as many as L2 holds half of, or L3 SHARED of.

    Weights take `passing` cycles to pass an item; what L2 does not hold of the images passes once more for each panel. The larger
    number if so little is left of that that it is SPARED; 1 if an image's `bands` are to be items of their own.
    """
    caches, unit, batch = machine.caches(), 2 * machine.lanes(problem.dtype), max(1, problem.batch)
    channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
    an_image = points * (_deep(problem) * channels + unit) * tiles_of_it * np.dtype(problem.dtype).itemsize
    whole = FULL // math.gcd(FULL, tiles_of_it)  # of so many images each the tiles fill the tallest register tile

    def shared(room: float) -> int:
        most = int(room) // an_image
        most = most // whole * whole if most > whole else max(1, most)
        return ceil(batch, threads * ceil(ceil(batch, most), threads)) if batch > threads else 1

    def streamed(images: int) -> float:
        again = ceil(filters, unit) * an_image / STREAM[1] if images * an_image > caches["L2"] else 0.0
        return passing * bands if images == 1 else passing / images + again

    few, many = shared(caches["L2"] * SCRATCH_SHARE), shared(caches["L3"] * SHARED)
    return many if streamed(many) < SPARED * streamed(few) else few


def numbers_seen(scheme: Scheme, count: int) -> int:
    """Rows, or columns, that so many tiles in a row see of an image."""
    return (count - 1) * scheme.advance + scheme.numbers


def _tiled_space(problem: Problem) -> tuple[int, int]:
    """Rows and columns of a plane of the result, those that a transposed convolution's crops take away in front included."""
    (height, width), crops = problem.out_space[-2:], problem.pads[-2:] if problem.operation == "transposed" else ((0, 0), (0, 0))
    return height + crops[0][0], width + crops[1][0]


def _deep(problem: Problem) -> int:
    """Taps of the depth of a window."""
    return problem.kernel[0] if problem.dimensions == 3 else 1


def edges(problem: Problem, scheme: Nested) -> dict[str, Any]:
    """Fields of the tiles that reach beyond the result: what is wanted of them, in the phases that have most of it."""
    (height, width), (apart_i, apart_j) = _tiled_space(problem), problem.dilation[-2:]
    down, across = _phases(height, apart_i), _phases(width, apart_j)
    wanted = [max(n % s.outputs for n in sizes) for sizes, s in ((down, scheme.down), (across, scheme.across))]
    return {
        "beyond": sum(n % scheme.across.outputs > 0 for n in across),
        "edge": (0, *wanted), "spared": (0, scheme.down.spared[wanted[0]], scheme.across.spared[wanted[1]]),
    }  # fmt: skip


def _phases(size: int, apart: int) -> list[int]:
    """The phases of so many rows, or columns: how many each of them has."""
    return [ceil(size - phase, apart) for phase in range(max(1, min(apart, size)))]


def _tiles_across(problem: Problem, scheme: Scheme) -> int:
    """Tiles in a row, of all phases of columns."""
    return sum(ceil(n, scheme.outputs) for n in _phases(_tiled_space(problem)[1], problem.dilation[-1]))


# Schemes with tiles for few filters a group: of 3x3 windows of stride 1.
NARROW = (nested(F2), nested(F4))


def best_tile(problem: Problem, scheme: Nested, band: int, chunk: int, images: int = 1, fresh: bool = False) -> TileShape:
    """Of the tiles no wider than a chunk of filters the one by which the products of a band, and their weights, pass soonest."""
    filters, most = problem.filters // problem.groups, max(chunk, 2 * machine.lanes(problem.dtype))
    every = [tile for tile in tiles.winograd_products(problem.dtype) if tile.width <= most]
    if scheme in NARROW and filters <= machine.lanes(problem.dtype):
        every = every + tiles.narrow_winograd_products(problem.dtype)
    return min(every, key=lambda tile: _products(problem, scheme, band, tile, images, fresh))


def _products(problem: Problem, scheme: Nested, band: int, tile: TileShape, images: int, fresh: bool) -> float:
    """Cycles of so many images, one group and phase of rows, without the products that tiles beyond the result can spare."""
    fields, across, outputs = edges(problem, scheme), _tiles_across(problem, scheme.across), scheme.down.outputs
    spared_i, spared_j = (mask.bit_count() for mask in fields["spared"][1:])
    left, cycles, of_a_point = ceil(_tiled_space(problem)[0], problem.dilation[-2]), 0.0, at_a_point(problem, scheme, tile, fresh)
    while left > 0:
        down, whole = min(band, ceil(left, outputs)), min(band, left // outputs)
        for points_i, rows in ((scheme.down.count - spared_i, down), (spared_i, whole)):
            for points_j, columns in ((scheme.across.count - spared_j, across), (spared_j, across - fields["beyond"])):
                cycles += points_i * points_j * of_a_point(images * rows * columns)
        left -= band * outputs
    return cycles


def at_a_point(problem: Problem, scheme: Nested, tile: TileShape, fresh: bool = False) -> Callable[[int], float]:
    """Cycles of the products at one point by how many tiles there are of them.

    The first strip of tiles waits for the weights, the others find them in L2. So 14x14 layers of 512 channels take 2.99 ms by 8x2,
    3.65 by 4x4, though both divide 16 tiles. Of tiles that wait as long the one that multiplies least is 10 % faster.
    """
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    panels, depth = ceil(filters, tile.width), _deep(problem) * ceil(channels, tile.lanes) * tile.lanes
    strip, passing = panels * depth * tiles.update_cycles(tile, 1), 0.0
    if not fresh:
        weights = scheme.matrices * panels * depth * tile.width * np.dtype(problem.dtype).itemsize
        passing = weights / scheme.count / stream_speed(problem, weights)
    first = max(strip, passing) + WAITING * strip
    return lambda count: first + (ceil(count, tile.rows) - 1) * strip if count > 0 else 0.0


# A tile's transforms: for each vector of channels (B' d B and the transposition), and of filters (A' m A).
TRANSFORMS = {
    nested(F2): (120.0, 90.0), Nested(F4, F2): (190.0, 140.0), nested(F4): (300.0, 220.0), nested(F5): (600.0, 400.0),
    nested(F2_3_2): (250.0, 150.0), nested(F4_3_2): (750.0, 350.0),
    nested(F2_5): (300.0, 150.0), nested(F4_5): (560.0, 330.0), nested(F4_5_2): (1100.0, 600.0),
    nested(F8_3_UP): (520.0, 800.0), nested(F8_4_UP): (830.0, 1330.0),
    nested(toom.PAIR_3): (300.0, 200.0), nested(toom.PAIR_2): (60.0, 40.0),
    Nested(ONE, toom.F6): (90.0, 80.0), Nested(ONE, toom.F4_2): (55.0, 45.0),
    Nested(F4, ONE): (60.0, 45.0), Nested(ONE, F4): (60.0, 45.0),
    Nested(ONE, F4_5): (80.0, 60.0), Nested(ONE, F4_3_2): (100.0, 60.0),
}  # fmt: skip
# To transform them where they are used at once.
FRESH_TAPS = {nested(F2): 90.0, nested(F4): 165.0}
# Bytes of packed weights that a core puts out, if they will stay in L3, and if not.
PUT_STREAM = (7.0, 3.0)


def packing_cycles(scheme: Nested) -> Callable[[Problem], float]:
    """Of transformed filters: to make them, and to put out what they grow to."""

    def cycles_of(problem: Problem) -> float:
        lanes, size = machine.lanes(problem.dtype), np.dtype(problem.dtype).itemsize
        vectors = problem.groups * ceil(problem.filters // problem.groups, lanes) * problem.channels // problem.groups
        put = vectors * _deep(problem) * scheme.matrices * lanes * size
        return vectors * _deep(problem) * TRANSFORM_TAPS + put / PUT_STREAM[put > machine.caches()["L3"] / 2]

    return cycles_of


def cycles(scheme: Nested, fresh: bool = False) -> Callable[[Problem], float]:
    """Of Winograd's form: the products, while the transformed weights stream past them, and the transforms."""

    def cycles_of(problem: Problem) -> float:
        division, (gather, scatter) = divide(scheme, fresh)(problem, 1), TRANSFORMS[scheme]
        tile, panels, images = division.tile, division.fields["panels"], division.fields["images"]
        used, each = images * division.band * division.fields["across"], division.items // (division.bands * division.chunks)
        blocks = ceil(problem.channels // problem.groups, tile.lanes) * _deep(problem)
        products = each * _products(problem, scheme, division.band, tile, images, fresh)
        transforms = used * (blocks * gather + panels * tile.vectors * scatter)
        if fresh:
            transforms += panels * tile.vectors * blocks * tile.lanes * FRESH_TAPS[scheme]
        return products + division.items * transforms

    return cycles_of


def stream_speed(problem: Problem, weights: int) -> float:
    """Bytes of so many weights of each group that a core takes in while it multiplies a vector."""
    caches, every = machine.caches(), weights * problem.groups
    bounds = caches["L2"], EIGHTH * caches["L3"], caches["L3"] / 2
    return next((speed for speed, bound in zip(STREAM, bounds, strict=False) if every < bound), STREAM[-1])


def each_image(problem: Problem, scheme: Nested, division: Division, products: float, count: int) -> float:
    """Of all images and groups: the products of each, and transforms of `count` tiles."""
    tile, panels, (gather, scatter) = division.tile, division.fields["panels"], TRANSFORMS[scheme]
    blocks = ceil(problem.channels // problem.groups, tile.lanes)
    transforms = count * (blocks * gather + panels * tile.vectors * scatter)
    return max(1, problem.batch) * problem.groups * (products + transforms)


IMPLEMENTATIONS = (
    *(
        Implementation(
            name, "winograd", ("transposed",) if scheme.transposed else ("standard", "atrous"),
            winograd, pack(scheme), divide(scheme), FILTERS, refuse(scheme), SHEETS,
            tiles.one_vector, scheme, cycles(scheme), error(scheme),
            packing_cycles(scheme),
        )
        for name, scheme in SCHEMES.items()
    ),
    *(
        Implementation(
            f"{name}_fresh", "winograd", ("standard", "atrous"),
            winograd, None, divide(SCHEMES[name], True), FILTERS,
            fresh_refuse(SCHEMES[name]), SHEETS, tiles.one_vector, SCHEMES[name],
            cycles(SCHEMES[name], True), error(SCHEMES[name]),
        )
        for name in FRESH
    ),
)  # fmt: skip
