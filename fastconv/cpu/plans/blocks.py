"""Plans for blocks.py: those of the ordinary layers that a transposed one in blocks is, and where sums belong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastconv.cpu import machine, packing, tiles
from fastconv.cpu.blocks import put_blocks, put_woven, tiled_transposed_blocks, tiled_transposed_blocks_pixels
from fastconv.cpu.plans import pointwise, standard, strassen
from fastconv.cpu.plans.costs import panels_packing
from fastconv.cpu.plans.rules import FILTERS, FIRST, LAST, SHEETS, in_lanes, unless
from fastconv.cpu.plans.shares import ceil
from fastconv.cpu.pointwise import tiled_pointwise
from fastconv.cpu.simd import TileShape
from fastconv.cpu.strassen import PRODUCTS, error_bound, strassen_pointwise, strassen_pointwise_turned
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem, three

SCATTER = 2.0  # for a number: to load and store it by itself
SHUFFLE = 13.0  # to move a vector, or a part of one, to where no other one lies near


def filters_refuse(problem: Problem) -> str | None:
    if problem.dimensions == 3 or any(d != 1 for d in problem.dilation):
        return "computes planes and signals without dilation"
    if problem.data_format == LAST and problem.groups > 1:
        return f"puts all filters of a pixel together, here are {problem.groups} groups"
    least = min(tile.short.rows for tile in tiles.blocks_in_lanes(problem.dtype))
    if problem.in_blocks().out_space[-1] < least:
        return f"sums {least} blocks of {problem.stride[-1]} columns at once, the result has {problem.out_space[-1]} columns"
    return None


def pack_filters(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    outer = problem.dimensions if problem.data_format == LAST else 0
    return [packing.lane_panels(*packing.in_blocks(weights[0], biases[0], problem.stride, outer), unit)]


def pixels_refuse(problem: Problem) -> str | None:
    if problem.dimensions != 2 or any(d != 1 for d in problem.dilation):
        return "computes planes without dilation"
    return unless(FIRST)(problem)


def pack_pixels(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
    return [packing.row_panels(*packing.in_blocks(weights[0], biases[0], problem.stride, 0), unit)]


def woven_refuse(problem: Problem) -> str | None:
    """Blocks that each see one pixel, channels first of two columns."""
    if problem.groups > 1 or problem.kernel != problem.stride or any(map(any, problem.pads)) or any(problem.output_padding):
        return "computes blocks that see one pixel each, whole ones, of one group"
    if problem.stride[-1] != 2 and problem.data_format == FIRST:
        return f"weaves two phases of columns, here are {problem.stride[-1]}"
    return "computes layers without dilation" if any(d != 1 for d in problem.dilation) else None


def as_pixels(problem: Problem) -> Problem:
    """The pointwise layer of blocks that see one pixel each."""
    return problem.in_blocks().flat()


def woven_pairs_refuse(problem: Problem) -> str | None:
    conv = as_pixels(problem)
    if conv.filters % 4 and problem.data_format == FIRST:
        return f"weaves phases in pairs of filters, here are {problem.filters}"
    return woven_refuse(problem) or strassen.unpaired(conv)


def pack_woven(pack: Callable[..., Any]) -> Callable[..., Any]:
    """As the pointwise kernels have their weights packed, phases of columns innermost."""

    def pack_in_order(problem: Problem, unit: int, weights: list[Any], biases: list[Any]) -> Any:
        outer = problem.dimensions - (problem.data_format == FIRST)
        weight, bias = packing.in_blocks(weights[0], biases[0], problem.stride, outer)
        return pack(problem, unit, [weight], [bias])

    return pack_in_order


def filters_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_transposed_blocks: as the ordinary layer that it is, and where its sums belong."""
    conv = problem.in_blocks()
    division = standard.filters_in_lanes(conv, threads, filters_tile(conv))
    return replace(division, fields=dict(division.fields) | _placed(problem), put=None, seen=conv)


def filters_tile(conv: Problem) -> TileShape:
    """The tile whose strips of blocks, and panels, waste least; strips end where a row does."""
    fitting = [tile for tile in tiles.blocks_in_lanes(conv.dtype) if tile.short.rows <= conv.out_space[-1]]
    return min(fitting, key=lambda tile: (standard.updates(conv, tile), tile.rows))


def pixels_in_lanes(problem: Problem, threads: int) -> Division:
    """For tiled_transposed_blocks_pixels: likewise; an item has all filters of its rows, which it finishes."""
    conv = problem.in_blocks()
    division = standard.pixels_in_lanes(conv, threads, pixels_tile(conv))
    return replace(division, fields=dict(division.fields) | _placed(problem), seen=conv)


def pixels_tile(conv: Problem) -> TileShape:
    """The tile that wastes least over planes of blocks."""
    return min(tiles.pixels_of_blocks(conv.dtype), key=lambda tile: standard.pixels_cycles(conv, tile))


def _placed(problem: Problem) -> dict[str, Any]:
    """Where the sums of a kernel of blocks belong."""
    last = problem.data_format == "channels_last"
    (_, stride, across), (_, height, width) = three(problem.stride), three(problem.out_space)
    _, crop_i, crop_j = three([before % s for (before, _), s in zip(problem.pads, problem.stride, strict=True)], 0)
    side_by_side, filters = (problem.filters, 1) if last else (1, problem.filters // problem.groups)
    long = [(k - 1) % s + 1 for k, s in zip(three(problem.kernel), three(problem.stride), strict=True)]
    return {
        "spread": (1, stride, across * side_by_side), "crop": (0, crop_i, crop_j * side_by_side),
        "result": (filters, height, width * side_by_side), "long": long,
    }  # fmt: skip


def woven(problem: Problem, threads: int) -> Division:
    """For tiled_pointwise, of blocks that are pixels of a pointwise layer.

    By bands of all filters two threads take 252 us for 128 channels to 64 at 28 x 28, and 272 by halves of the filters.
    """
    return _woven(problem, pointwise.filters_in_lanes(as_pixels(problem), threads, woven=True))


def woven_pairs(problem: Problem, threads: int) -> Division:
    """For strassen_pointwise, likewise."""
    return _woven(problem, strassen.divide(as_pixels(problem), threads))


def woven_pairs_turned(problem: Problem, threads: int) -> Division:
    """For strassen_pointwise_turned, likewise."""
    return _woven(problem, strassen.turned(as_pixels(problem), threads))


def _woven(problem: Problem, division: Division) -> Division:
    """A pointwise layer's division, whose sums are put by phases."""
    _, height, width = three(problem.out_space)
    fields = dict(division.fields) | {"spread": three(problem.stride), "result": (problem.filters, height, width)}
    fields["last"] = 0  # no kernel puts sums by itself
    put = put_woven if problem.data_format == FIRST else put_blocks
    return replace(division, fields=fields, put=put, seen=as_pixels(problem))


def filters_cycles(problem: Problem) -> float:
    """Of tiled_transposed_blocks: the products, and each segment moved, a vector at a time."""
    conv, numbers = problem.in_blocks(), math.prod(problem.out_shape)
    segment = problem.stride[-1] * (problem.filters if problem.data_format == "channels_last" else 1)
    return standard.updates(conv, filters_tile(conv)) + SHUFFLE * numbers * ceil(segment, machine.lanes(problem.dtype)) / segment


def pixels_cycles(problem: Problem) -> float:
    """Of tiled_transposed_blocks_pixels: the products, and each number moved by itself."""
    conv = problem.in_blocks()
    return standard.pixels_cycles(conv, pixels_tile(conv)) + SCATTER * math.prod(problem.out_shape)


def woven_cycles(problem: Problem) -> float:
    """Of tiled_pointwise, of blocks."""
    return standard.filters_cycles(as_pixels(problem))


def woven_pairs_cycles(problem: Problem) -> float:
    """Of strassen_pointwise, of blocks."""
    return strassen.cycles(as_pixels(problem))


def woven_turned_cycles(problem: Problem) -> float:
    """Of strassen_pointwise_turned, of blocks."""
    return strassen.turned_cycles(as_pixels(problem))


def woven_turned_busiest(problem: Problem, threads: int) -> float:
    """Of the busiest of so many threads."""
    return strassen.turned_busiest(as_pixels(problem), threads)


def woven_pairs_busiest(problem: Problem, threads: int) -> float:
    """Of the busiest of so many threads."""
    return strassen.busiest(as_pixels(problem), threads)


def packing_cycles(problem: Problem) -> float:
    """Of weights that are put in the order of blocks first."""
    return panels_packing(problem.in_blocks()) * 2


def pairs_packing(problem: Problem) -> float:
    """Of their sums."""
    return packing_cycles(problem) * PRODUCTS / 4


IMPLEMENTATIONS = (
    Implementation(
        "strassen_transposed", "winograd", ("transposed",),
        strassen_pointwise, pack_woven(strassen.pack), woven_pairs, FILTERS, woven_pairs_refuse, ("columns",),
        tiles.one_vector, cycles=woven_pairs_cycles, error=error_bound,
        packing=pairs_packing, busiest=woven_pairs_busiest,
    ),
    Implementation(
        "strassen_transposed_turned", "winograd", ("transposed",),
        strassen_pointwise_turned, pack_woven(strassen.pack), woven_pairs_turned, FILTERS, woven_pairs_refuse, ("channels",),
        tiles.one_vector, cycles=woven_turned_cycles, error=error_bound,
        packing=pairs_packing, busiest=woven_turned_busiest,
    ),
    Implementation(
        "tiled_transposed_woven", "tiled", ("transposed",),
        tiled_pointwise, pack_woven(in_lanes), woven, FILTERS, woven_refuse, SHEETS,
        tiles.filters_in_lanes, cycles=woven_cycles, packing=packing_cycles,
    ),
    Implementation(
        "tiled_transposed_blocks", "tiled", ("transposed",),
        tiled_transposed_blocks, pack_filters, filters_in_lanes, "pixels of a block", filters_refuse, SHEETS,
        tiles.blocks_in_lanes, cycles=filters_cycles, packing=packing_cycles,
    ),
    Implementation(
        "tiled_transposed_blocks_pixels", "tiled", ("transposed",),
        tiled_transposed_blocks_pixels, pack_pixels, pixels_in_lanes, "blocks of pixels",
        pixels_refuse, SHEETS, tiles.pixels_of_blocks, cycles=pixels_cycles, packing=packing_cycles,
    ),
)  # fmt: skip
