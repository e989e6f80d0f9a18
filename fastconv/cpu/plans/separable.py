"""Plans for separable.py: bands of rows whose depthwise part stays in L2, chunks of filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fastconv.cpu import machine, packing, tiles
from fastconv.cpu.plans import pointwise, standard, strassen
from fastconv.cpu.plans.costs import STREAM, TURN
from fastconv.cpu.plans.depthwise import slides, widest, window
from fastconv.cpu.plans.rules import FILTERS, FIRST, LAST, PIXELS, in_lanes, in_rows, unless
from fastconv.cpu.plans.shares import ceil, scratch_numbers
from fastconv.cpu.separable import (
    fill_band,
    fill_band_last,
    fill_band_turned,
    strassen_separable,
    sum_band,
    sum_band_last,
    tiled_separable,
    tiled_separable_last,
    tiled_separable_pixels,
)
from fastconv.cpu.sheets import LINE, taps
from fastconv.cpu.simd import TileShape
from fastconv.cpu.strassen import PRODUCTS, error_bound
from fastconv.plan import Division, Implementation
from fastconv.problem import Problem, SeparableProblem

# A depthwise vector's multiply-adds take so many times those of a register tile: what is done once a line and once a walk.
DEPTHWISE_UPDATES = 1.5
# Channels of memory that nobody touches between the scratch of two threads: a processor that has seen a tile step from channel to
# channel fetches ahead, and takes from the next thread what that one writes. 32 channels to 64 at 112 x 112 then took 295 to 440 us
# on two threads, by how they met; with 10 channels between them 294, with 20 289, with 40 284, half of the 555 of one thread.
APART = 32


def pairs_refuse(problem: SeparableProblem) -> str | None:
    alone = pixels_alone(problem)
    return strassen.unpaired(alone) or unpaired(problem)


def first(refuse: Callable[[Any], str | None]) -> Callable[[SeparableProblem], str | None]:
    """Refuse results channels last too."""
    return lambda problem: unless(FIRST)(problem) or refuse(problem)


def turns(refuse: Callable[[Any], str | None]) -> Callable[[SeparableProblem], str | None]:
    """Refuse windows too that are not walked along rows, which are turned, and maps of biases, which are not."""
    return lambda problem: along_rows(problem.depthwise) or without_map(problem.depthwise) or refuse(problem)


def without_map(problem: Problem) -> str | None:
    return "adds one bias to a channel before it is turned, here each pixel has its own" if problem.bias == "pixel" else None


def along_rows(problem: Problem) -> str | None:
    if problem.filters != problem.groups or problem.kernel not in tiles.WALKED_ALONG:
        return "walks along rows with windows of their own code, one filter a channel"
    return slides(problem)


def pack(outer: Callable[..., Any], turned: bool = False) -> Callable[..., Any]:
    """Pack a separable layer's weights: the windows' as their kernels read them, the outer ones by another function."""

    def pack_both(problem: SeparableProblem, unit: int, weights: list[Any], biases: list[Any]) -> list[Any]:
        first, last = problem.depthwise, turned or problem.data_format == LAST
        if last and slides(first) is None and first.filters == first.groups:
            inner = packing.channel_panels(weights[0], biases[0], machine.lanes(problem.dtype))
        elif not last and slides(first) is None:
            inner = packing.row_panels(weights[0], biases[0], 1)
        else:
            inner = (packing.taps_first if last else packing.in_turn)(weights[0])
        alone = weights[1].reshape(*weights[1].shape[:3], 1)
        return [inner, *outer(problem, unit, [alone], biases[1:])]

    return pack_both


def pixels_in_lanes(problem: SeparableProblem, threads: int, turned: bool = False) -> Division:
    """For tiled_separable_pixels: bands of rows as large as fit L2, whose pixels fill strips."""
    tile = pointwise.pixels_tile(pixels_alone(problem))
    return _separable(problem, tile, tile.rows, tile.width, 0, threads, turned)


def filters_in_lanes(problem: SeparableProblem, threads: int, turned: bool = False) -> Division:
    """For tiled_separable and tiled_separable_last: bands of rows whose sums stay in L1."""
    alone = pixels_alone(problem)
    shapes = [shape for tile in tiles.filters_in_lanes(problem.dtype) for shape in (tile, tile.short)]
    tile = min((shape for shape in shapes if shape.rows <= alone.out_space[-1]), key=lambda shape: _even_cycles(alone, shape))
    sums = 0 if problem.data_format == "channels_last" else tile.width
    return _separable(problem, tile, tile.width, tile.rows, sums, threads, turned)


def _separable(
    problem: SeparableProblem, tile: TileShape, unit: int, strip: int, sums: int, threads: int, turned: bool
) -> Division:  # fmt: skip
    """`unit` filters of a panel, `strip` pixels of a strip; `sums`: numbers kept of a pixel until they are put in their places."""
    channels, units, rows = problem.depthwise.filters, ceil(problem.filters, unit), math.prod(problem.out_space[:-1])
    last, width, lanes = problem.data_format == "channels_last", problem.out_space[-1], machine.lanes(problem.dtype)
    most = max(1, min(rows, scratch_numbers(problem.dtype) // (width * (channels + sums))))

    def cycles_of(band: int) -> tuple[float, float]:
        return ceil(band * width, strip) * strip * unit * channels / lanes, _depthwise_cycles(problem, band * width)

    heights = range(most, 0, -1)
    band, bands, chunk, chunks = _shared_out(problem, rows, heights, units, unit * channels, cycles_of, threads)
    pixels = max(band * width, strip)
    pitch = LINE * (ceil(pixels + lanes, LINE) | 1)
    panel = (lanes if last or turned else 1) * (1 + taps(problem.depthwise))
    most_pixels = max(pixels, lanes)
    sums_at = most_pixels * channels if last else channels * pitch
    fields = {"pitch": pitch, "panel": panel, "outer_panel": unit * (1 + channels), "sums_at": sums_at}
    scratch = sums_at + sums * most_pixels
    if turned:
        fields, scratch = fields | _lines(problem, scratch), scratch + _size_of_lines(problem)
    if not last:
        scratch += APART * pitch
    items = problem.batch * bands * chunks
    return Division(items, bands, band, chunks, chunk * unit, scratch, tile, unit, fields=fields, **_windows(problem, turned))


def _rows_turned(problem: SeparableProblem) -> int:
    """Rows of the depthwise result that are turned together: as many as fill a square."""
    return ceil(machine.lanes(problem.dtype), problem.out_space[-1])


def _size_of_lines(problem: SeparableProblem) -> int:
    return ceil(_rows_turned(problem) * problem.out_space[-1] * problem.depthwise.filters, LINE) * LINE


def _lines(problem: SeparableProblem, place: int) -> dict[str, int]:
    """Where the rows lie that are turned."""
    return {"columns_at": ceil(place, LINE) * LINE, "down": _rows_turned(problem)}


def pairs_in_rows(problem: SeparableProblem, threads: int, turned: bool = False) -> Division:
    """For strassen_separable: bands of rows of the first half of an image, which meet the second; of an odd number, all of them."""
    alone, channels, lanes = pixels_alone(problem), problem.depthwise.filters, machine.lanes(problem.dtype)
    unit = tiles.pairs_in_rows(problem.dtype)[0].width
    units, least = ceil(problem.filters // 2, unit), strassen.least_pixels(problem.dtype)
    rows, row = _pairs(problem)
    most = max(1, min(rows, scratch_numbers(problem.dtype) // (2 * row * channels)))

    def cycles_of(band: int) -> tuple[float, float]:
        pairs = band * row
        products, sums = strassen.pairs_cycles(alone, pairs, strassen.best_tile(alone, pairs))
        return products / units, sums + _depthwise_cycles(problem, 2 * pairs)

    heights = [band for band in range(most, 0, -1) if 2 * row * _last(rows, band) >= least] or [rows]
    numbers = PRODUCTS * unit * channels // 2
    band, bands, chunk, chunks = _shared_out(problem, rows, heights, units, numbers, cycles_of, threads)
    tile = strassen.best_tile(alone, band * row)
    run = strassen.at_a_time(alone, tile, band * row)
    longest = max(strassen.longest(count * row, run) for count in (band, _last(rows, band)))
    fields, scratch = strassen.layout(alone, tile, longest)
    pitch = LINE * (ceil(2 * band * row + lanes, LINE) | 1)
    fields |= {"pitch": pitch, "panel": (lanes if turned else 1) * (1 + taps(problem.depthwise)), "run": run}
    code, items, scratch = (
        strassen.code(problem.dtype) | _windows(problem, turned),
        problem.batch * bands * chunks,
        scratch + channels * pitch,
    )
    if turned:  # for the second half of an image they lie so much further
        fields, scratch = fields | _lines(problem, scratch), scratch + 2 * LINE + band * row + _size_of_lines(problem)
    band = math.prod(problem.out_space[:-1]) if bands == 1 else band  # rows of the whole image
    return Division(items, bands, band, chunks, chunk * unit, scratch, tile, unit, fields=fields, **code)


def _pairs(problem: SeparableProblem) -> tuple[int, int]:
    """Rows of the first half of an image, and pairs of pixels of one; of an odd number of rows all are one."""
    rows, pixels = math.prod(problem.out_space[:-1]), math.prod(problem.out_space)
    return (1, ceil(pixels, 2)) if rows % 2 else (rows // 2, problem.out_space[-1])


def unpaired(problem: SeparableProblem) -> str | None:
    """Why an image cannot be cut in two halves that are computed band by band, where it must be."""
    _, row = _pairs(problem)
    if 2 * row * problem.depthwise.filters > scratch_numbers(problem.dtype):
        return f"keeps pairs of rows in L2, of which {problem.out_space} has none, or too large ones"
    return None


def _last(rows: int, band: int) -> int:
    """Rows of the last band."""
    return (rows - 1) % band + 1


def _shared_out(
    problem: SeparableProblem, rows: int, heights: Iterable[int], units: int, numbers: int,
    cycles_of: Callable[[int], tuple[float, float]], threads: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """(band, bands, chunk, chunks) by which the busiest thread should be done first: rows of a band, units of a chunk.

    A band, of one of these `heights`, streams all weights of its chunk, so many `numbers` a unit, and leaves pixels over from
    strips; a chunk has the depthwise part computed anew. `cycles_of` a band: for each unit of filters, and once.
    """
    costs, weights = {band: cycles_of(band) for band in heights}, numbers * np.dtype(problem.dtype).itemsize
    stream, images = weights / STREAM[units * weights > machine.caches()["L2"]], max(1, problem.batch)

    def busiest(division: tuple[int, int]) -> float:
        band, chunks = division
        of_a_unit, once = costs[band]
        return ceil(images * ceil(rows, band) * chunks, threads) * (ceil(units, chunks) * (of_a_unit + stream) + once)

    band, chunks = min(((b, c) for c in range(1, min(units, threads) + 1) for b in costs), key=busiest)
    chunk = ceil(units, chunks)
    return band, ceil(rows, band), chunk, ceil(units, chunk)


def _depthwise_cycles(problem: SeparableProblem, pixels: int) -> float:
    """Of the depthwise part."""
    first = problem.depthwise
    return DEPTHWISE_UPDATES * taps(first) * pixels * first.filters / machine.lanes(problem.dtype)


def _windows(problem: SeparableProblem, turned: bool) -> dict[str, Any]:
    """What computes the depthwise part, and the window that it knows."""
    first, last = problem.depthwise, problem.data_format == "channels_last"
    if turned:
        taps_i, taps_j = first.kernel
        return {"fill": fill_band_turned, "window": replace(window(first), rows=taps_j, vectors=taps_i)}
    if slides(first) is None and not (last and first.filters != first.groups):
        return {"fill": fill_band_last, "window": window(first)} if last else {"fill": fill_band, "window": widest(first)}
    return {"fill": sum_band_last if last else sum_band}


def _even_cycles(problem: Problem, tile: TileShape) -> float:
    """Of a pointwise layer whose strips are all as long as the tile is tall."""
    updates = ceil(problem.out_space[-1], tile.rows) * problem.channels * tiles.update_cycles(tile, tile.vectors)
    return ceil(problem.filters, tile.width) * (updates + ceil(problem.out_space[-1], tile.lanes) * tile.width * TURN)


def pixels_alone(problem: SeparableProblem) -> Problem:
    """The pointwise part, without ends of rows."""
    return problem.pointwise.flat()


def pixels_cycles(problem: SeparableProblem) -> float:
    """Of the pointwise part, here and below, with pixels in lanes."""
    alone = pixels_alone(problem)
    return pointwise.pixels_cycles(alone, pointwise.pixels_tile(alone))


def filters_cycles(problem: SeparableProblem) -> float:
    """With filters in lanes."""
    alone = pixels_alone(problem)
    return standard.filters_cycles(alone, standard.filters_tile(alone))


def pairs_cycles(problem: SeparableProblem) -> float:
    """By Strassen's algorithm."""
    return strassen.cycles(pixels_alone(problem))


def turning(cycles: Callable[[SeparableProblem], float]) -> Callable[[SeparableProblem], float]:
    """And of turning the depthwise result."""

    def cycles_of(problem: SeparableProblem) -> float:
        vectors = ceil(math.prod(problem.out_space), machine.lanes(problem.dtype)) * problem.depthwise.filters
        return cycles(problem) + max(1, problem.batch) * TURN * vectors

    return cycles_of


IMPLEMENTATIONS = (
    Implementation(
        "strassen_separable", "winograd", ("separable",),
        strassen_separable, pack(strassen.pack), pairs_in_rows, FILTERS,
        first(pairs_refuse), ("columns",), tiles.one_vector,
        cycles=pairs_cycles,
        error=lambda problem: error_bound(problem.pointwise),
    ),
    Implementation(
        "strassen_separable_turned", "winograd", ("separable",),
        strassen_separable, pack(strassen.pack, turned=True), partial(pairs_in_rows, turned=True), FILTERS,
        turns(pairs_refuse), ("channels",), tiles.one_vector,
        cycles=turning(pairs_cycles),
        error=lambda problem: error_bound(problem.pointwise),
    ),
    Implementation(
        "tiled_separable_pixels", "tiled", ("separable",),
        tiled_separable_pixels, pack(in_rows), pixels_in_lanes, PIXELS, unless(FIRST),
        ("columns",), tiles.separable_pixels, cycles=pixels_cycles,
    ),
    Implementation(
        "tiled_separable", "tiled", ("separable",),
        tiled_separable, pack(in_lanes), filters_in_lanes, FILTERS, unless(FIRST),
        ("columns",), tiles.separable_filters, cycles=filters_cycles,
    ),
    Implementation(
        "tiled_separable_pixels_turned", "tiled", ("separable",),
        tiled_separable_pixels, pack(in_rows, turned=True), partial(pixels_in_lanes, turned=True), PIXELS, turns(unless(FIRST)),
        ("channels",), tiles.separable_pixels, cycles=turning(pixels_cycles),
    ),
    Implementation(
        "tiled_separable_turned", "tiled", ("separable",),
        tiled_separable, pack(in_lanes, turned=True), partial(filters_in_lanes, turned=True), FILTERS, turns(unless(FIRST)),
        ("channels",), tiles.separable_filters, cycles=turning(filters_cycles),
    ),
    Implementation(
        "tiled_separable_last", "tiled", ("separable",),
        tiled_separable_last, pack(in_lanes), filters_in_lanes, FILTERS, unless(LAST),
        ("channels",), tiles.separable_filters, cycles=filters_cycles,
    ),
)  # fmt: skip
