"""The plan for winograd_gradients.py: parts and units of rows of tiles, then chunks and blocks whose points fit the cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastconv.cpu import machine, tiles
from fastconv.cpu.plans.gradients import parts_of
from fastconv.cpu.plans.rules import FILTERS, SHEETS
from fastconv.cpu.plans.shares import ceil, even_shares
from fastconv.cpu.toom import Nested
from fastconv.cpu.winograd_gradients import SCHEMES, error_bound, winograd_weight_gradient
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem

# Share of L2 for the points of a panel of filters: 112 tiles of 4x4 gradients, of whose products putting the sums takes a fiftieth.
PANEL_SHARE = 0.5
# Share of L3 for a seat's scratch: all points of the image pass by each panel of filters, 2 bytes for a multiply-add of a vector.
# 19 MB, of 512 channels at 7x7 and 32 images, took as long as half of it, which transforms all twice, or a tenth less.
POINTS_SHARE = 0.6
# A tile's transforms, in multiply-adds of a vector: of the image, of the gradient, and of the products back, and put.
IMAGE, GRADIENT, SCATTER = 500.0, 450.0, 200.0


def refuse(scheme: Nested) -> Callable[[Problem], str | None]:
    def refuse(problem: Problem) -> str | None:
        window, stride = (scheme.down.outputs, scheme.across.outputs), scheme.down.stride
        if problem.kernel != window or set(problem.stride) != {stride} or set(problem.dilation) != {1}:
            return f"computes windows of {window} of stride {stride} in planes, without dilation"
        if min(min(pad) for pad in problem.pads) < 0:
            return "reads the whole image, this one is cropped"
        return None

    return refuse


def error(scheme: Nested) -> Callable[[Problem], float]:
    def error(problem: Problem) -> float:
        images, tiles_of = max(1, problem.batch), (scheme.down.taps, scheme.across.taps)
        summed = images * math.prod(-(-size // taps) for size, taps in zip(problem.out_space, tiles_of, strict=True))
        return error_bound(scheme, summed, images * math.prod(problem.out_space), problem.dtype)

    return error


def divide(scheme: Nested) -> Callable[[Problem, int], Division]:
    """For a scheme in two dimensions: parts and units do not depend on the threads, chunks and blocks may."""

    def division_of(problem: Problem, threads: int) -> Division:
        (tile,), lanes = tiles.weight_products(problem.dtype), machine.lanes(problem.dtype)
        filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
        down, across = _tiles(problem, scheme)
        parts = parts_of(problem, max(1, problem.batch) * down)
        rows = ceil(max(1, problem.batch) * down, parts)
        number = np.dtype(problem.dtype).itemsize
        most = max(1, int(machine.caches()["L2"] * PANEL_SHARE) // (scheme.count * tile.width * number * across))
        band = ceil(rows, ceil(rows, most))
        size = band * across | 1  # odd, so that points do not share sets of a cache
        sums = scheme.count * tile.rows * tile.width

        def kept(panels: int, block: int) -> int:
            """Tiles of sums: all, if they wait for another unit."""
            return panels * ceil(block, tile.rows) if rows > band else 1

        def room(panels: int, block: int) -> int:
            return scheme.count * size * (ceil(block, lanes) * lanes + panels * tile.width) + sums * kept(panels, block)

        panels, block = _shares(problem, scheme, threads, parts * problem.groups, room)
        chunk = panels * tile.width
        seen = (across - 1) * scheme.across.advance + scheme.across.numbers
        pitch = max(seen, problem.pads[1][0] + max(problem.space[1], lanes), max(problem.out_space[1], lanes))
        columns_at = ((min(band, down) - 1) * scheme.down.advance + scheme.down.numbers) * pitch * lanes
        values_at = columns_at + scheme.down.count * pitch * lanes
        grads_at = values_at + scheme.count * size * ceil(block, lanes) * lanes
        products_at = grads_at + scheme.count * size * chunk
        sums_at = products_at + sums * kept(panels, block)
        chunks, blocks = ceil(filters, chunk), ceil(channels, block)
        fields = {
            "parts": parts, "blocks": blocks, "channels": block, "all_channels": channels, "filters": filters,
            "down": down, "across": across, "ends": (*_beyond(problem, scheme), 0), "tiles": size, "pitch": pitch,
            "columns_at": columns_at, "values_at": values_at, "grads_at": grads_at, "products_at": products_at,
            "sums_at": sums_at, "panel": sums if rows > band else 0,
        }  # fmt: skip
        scratch = sums_at + (math.prod(problem.kernel) * tile.rows + lanes) * tile.width  # a short row is read as a whole vector
        return Division(parts * problem.groups * chunks * blocks, 1, band, chunks, chunk, scratch, tile, fields=fields)

    return division_of


def _shares(problem: Problem, scheme: Nested, threads: int, others: int, room: Callable[[int, int], int]) -> tuple[int, int]:
    """(panels of a chunk, channels of a block) by which the busiest thread should be done first.

    Each chunk has the image transformed anew, each block the gradient: items are no more than they must be.
    """
    (tile,) = tiles.weight_products(problem.dtype)
    filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
    every, vectors, update = ceil(filters, tile.width), ceil(channels, tile.lanes), tiles.update_cycles(tile, 1)
    most = machine.caches()["L3"] * POINTS_SHARE / np.dtype(problem.dtype).itemsize

    def busiest(share: tuple[int, int]) -> tuple[bool, float]:
        panels, block = share
        transforms = ceil(block, tile.lanes) * IMAGE + panels * tile.vectors * GRADIENT
        item = scheme.count * panels * ceil(block, tile.rows) * update + transforms
        return room(*share) > most, ceil(others * ceil(every, panels) * ceil(channels, block), threads) * item

    return min(
        (
            (panels, min(channels, tile.lanes * block))
            for panels in even_shares(every, every)
            for block in even_shares(vectors, vectors)
        ),
        key=busiest,
    )


def cycles(scheme: Nested) -> Callable[[Problem], float]:
    """Of products, a register tile's sums begun and stored in each unit, and of transforms."""

    def cycles_of(problem: Problem) -> float:
        division, (down, across) = divide(scheme)(problem, 1), _tiles(problem, scheme)
        tile, fields, rows = division.tile, division.fields, max(1, problem.batch) * down
        beyond_i, beyond_j, _ = fields["ends"]
        filters, channels = problem.filters // problem.groups, problem.channels // problem.groups
        panels, vectors, inside = ceil(filters, tile.width), ceil(channels, tile.lanes), rows - max(1, problem.batch) * beyond_i
        used = ((scheme.down.count - 1) * rows + inside) * ((scheme.across.count - 1) * across + across - beyond_j)
        units = fields["parts"] * ceil(ceil(rows, fields["parts"]), division.band)
        update = tiles.update_cycles(tile, 1)
        products = panels * ceil(channels, tile.rows) * (used * update + units * scheme.count * 2 * tile.rows * tile.vectors)
        gathered = division.chunks * vectors * IMAGE + fields["blocks"] * panels * tile.vectors * GRADIENT
        scattered = fields["parts"] * channels * panels * tile.vectors * SCATTER
        return problem.groups * (products + rows * across * gathered + scattered)

    return cycles_of


def _tiles(problem: Problem, scheme: Nested) -> tuple[int, int]:
    """Rows of tiles of a plane of the gradient, and tiles of a row."""
    return ceil(problem.out_space[0], scheme.down.taps), ceil(problem.out_space[1], scheme.across.taps)


def _beyond(problem: Problem, scheme: Nested) -> tuple[int, int]:
    """Whether the last row, and the last column, of tiles reach beyond the plane."""
    return int(problem.out_space[0] % scheme.down.taps > 0), int(problem.out_space[1] % scheme.across.taps > 0)


IMPLEMENTATIONS = (
    *(
        Implementation(
            name, "winograd", ("weights",),
            winograd_weight_gradient, None, divide(scheme), FILTERS,
            refuse(scheme), SHEETS, tiles.in_float32(tiles.weight_products), scheme,
            cycles(scheme), error(scheme),
        )
        for name, scheme in SCHEMES.items()
    ),
)  # fmt: skip
