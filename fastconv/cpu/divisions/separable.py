"""Divisions of separable.py: bands of rows whose depthwise part stays in L2, chunks of filters."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastconv.cpu import machine, tiles
from fastconv.cpu.divisions import pointwise, standard
from fastconv.cpu.divisions.costs import STREAM, TURN
from fastconv.cpu.divisions.depthwise import slides
from fastconv.cpu.divisions.shares import ceil, scratch_numbers
from fastconv.cpu.separable import fill_band, fill_band_last, sum_band, sum_band_last
from fastconv.cpu.sheets import LINE, taps
from fastconv.cpu.simd import TileShape
from fastconv.plan import Division
from fastconv.problem import Problem, SeparableProblem

# A depthwise vector's multiply-adds take so many times those of a register tile: what is done once a line and once a walk.
DEPTHWISE_UPDATES = 1.5


def pixels_in_lanes(problem: SeparableProblem, threads: int) -> Division:
    """For tiled_separable_pixels: bands of rows as large as fit L2, whose pixels fill strips."""
    tile = pointwise.pixels_tile(_pixels_alone(problem))
    return _separable(problem, tile, tile.rows, tile.width, 0, threads)


def filters_in_lanes(problem: SeparableProblem, threads: int) -> Division:
    """For tiled_separable and tiled_separable_last: bands of rows whose sums stay in L1."""
    alone = _pixels_alone(problem)
    shapes = [shape for tile in tiles.filters_in_lanes(problem.dtype) for shape in (tile, tile.short)]
    tile = min((shape for shape in shapes if shape.rows <= alone.out_space[-1]), key=lambda shape: _even_cycles(alone, shape))
    return _separable(problem, tile, tile.width, tile.rows, 0 if problem.data_format == "channels_last" else tile.width, threads)


def _separable(problem: SeparableProblem, tile: TileShape, unit: int, strip: int, sums: int, threads: int) -> Division:
    """Bands of rows and chunks of filters by which the busiest thread should be done first.

    A band streams all weights of its chunk, and leaves pixels over from strips; a chunk has the depthwise part computed anew.
    `sums`: numbers that are kept of each pixel until they are put where they belong.
    """
    first, filters, channels = problem.depthwise, problem.filters, problem.depthwise.filters
    last, width, lanes = problem.data_format == "channels_last", problem.out_space[-1], machine.lanes(problem.dtype)
    rows, images, units = math.prod(problem.out_space[:-1]), max(1, problem.batch), ceil(filters, unit)
    most = max(1, min(rows, scratch_numbers(problem.dtype) // (width * (channels + sums))))
    weights = unit * channels * np.dtype(problem.dtype).itemsize  # of a unit of filters, in bytes
    speed = STREAM[units * weights > machine.caches()["L2"]]
    depthwise = DEPTHWISE_UPDATES * taps(first) * width * channels / lanes  # of a row

    def busiest(division: tuple[int, int]) -> float:
        band, chunks = division
        products = ceil(band * width, strip) * strip * unit * channels / lanes
        item = ceil(units, chunks) * (products + weights / speed) + band * depthwise
        return ceil(images * ceil(rows, band) * chunks, threads) * item

    band, chunks = min(((b, c) for c in range(1, min(units, threads) + 1) for b in range(most, 0, -1)), key=busiest)
    chunk = ceil(units, chunks)
    bands, chunks = ceil(rows, band), ceil(units, chunk)
    window, fill = None, sum_band_last if last else sum_band
    if slides(first) is None and not (last and first.filters != first.groups):
        (taps_i, taps_j), fill = first.kernel, fill_band_last if last else fill_band
        window = TileShape(taps_i, taps_j, lanes, first.stride[0], problem.dtype)
    pitch = LINE * (ceil(max(band * width, strip) + lanes, LINE) | 1)
    panel = (lanes if last else 1) * (1 + taps(first))
    most_pixels = max(band * width, strip, lanes)
    sums_at = most_pixels * channels if last else channels * pitch
    fields = {"pitch": pitch, "panel": panel, "outer_panel": unit * (1 + channels), "sums_at": sums_at}
    scratch = sums_at + sums * most_pixels
    items = problem.batch * bands * chunks
    return Division(items, bands, band, chunks, chunk * unit, scratch, tile, unit, fill, fields, window)


def _even_cycles(problem: Problem, tile: TileShape) -> float:
    """Of a pointwise layer whose strips are all as long as the tile is tall."""
    updates = ceil(problem.out_space[-1], tile.rows) * problem.channels * tiles.update_cycles(tile, tile.vectors)
    return ceil(problem.filters, tile.width) * (updates + ceil(problem.out_space[-1], tile.lanes) * tile.width * TURN)


def _pixels_alone(problem: SeparableProblem) -> Problem:
    """The pointwise part, without ends of rows."""
    one, space = (1,), (math.prod(problem.out_space),)
    return replace(problem.pointwise, space=space, kernel=one, stride=one, pads=((0, 0),), dilation=one)


def cycles(problem: SeparableProblem) -> tuple[float, float]:
    """Of the pointwise part, with pixels in lanes and with filters in lanes."""
    alone = _pixels_alone(problem)
    pixels, filters = pointwise.pixels_tile(alone), standard.filters_tile(alone)
    return pointwise.pixels_cycles(alone, pixels), standard.filters_cycles(alone, filters)
