"""Toom and Cook's scheme down the columns: F(m x 1), for layers with few channels or few filters a group.

    out[m rows of a tile, j] = A' [ sum over channels, b of (G w[:, b]) * (B' x[rows of the tile, j + b]) ]

Only rows are transformed, each number with those above and below it, so lanes are pixels of a row throughout, no lane ever
moves, and any number of channels will do. F(4, 3) takes 6 products for 12, F(6, 3) 8 for 18, F(4, 4) 7 for 16 and F(7, 4) 10
for 28; the taps across stay direct. With stride s the rows of a window fall into s phases, each a convolution of stride 1
with every s-th tap; all phases use the same points, and add into the same sums. An item is a band of rows of tiles:

    sheets      x -> sheet[channel][phase i][phase j][row][column]      sheets.py
    points      -> v[point][channel][phases][row of tiles][column]      B' d; rows of tiles lie end to end
    products    -> m[point][filter][row of tiles][column]               tile.rows filters by tile.width pixels in registers
    rows        -> out                                                  A' m, bias, clip

Channels last, rows of several panels go to the scratch, from which they are turned into whole lines of the result.

Lavin and Gray (2015) have the scheme in two dimensions: winograd.py, for many channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu import packing, toom
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.packing import put, share_of, turn
from fastconv.cpu.toom import F4, F4_4, F6, F7_4, Scheme
from fastconv.problem import Problem

Array = np.ndarray[Any, Any]
SCHEMES = (F4, F6, F4_4, F7_4)


@inlined
def points_of_sheets(tile, job, scheme, sheets, v):
    """v[point][channel][phases][t][column] = B' of the rows of one row of tiles, for all of them."""
    planes, pitch, plane = job.channels * job.phases[1] * job.phases[2], job.pitch, job.plane
    for c in range(job.channels):
        for phase in range(job.phases[1] * job.phases[2]):
            there = v + (c * job.phases[1] * job.phases[2] + phase) * plane
            for t in range(job.down):
                rows = sheets + (c * job.sheet + phase * job.phase_size + t * scheme.outputs * pitch)
                for column in range(0, pitch, tile.lanes):
                    scheme.to_points(tile, rows + column, pitch, there + (t * pitch + column), planes * plane)


@compiled
def multiply(job, v, u, m, numbers):
    """m[point][filter][p] = sum over channels, phases of rows and taps across of u[point][...][filter] * v[point][...][p + tap].

    All schemes call it, each with its number of points, as winograd.py's.
    """
    tile, table, apart, taps = job.tile, job.table, job.phases[1] * job.phases[2] * job.plane, job.phases[1] * job.kernel[2]
    for point in range(job.points[1]):
        for p in range(0, numbers, tile.width):
            acc, w, x = tile.zeros(), u, v + p
            for _ in range(job.channels):
                for tap in range(taps):
                    acc = acc.rank1(w, x + table[tap])
                    w += tile.rows
                x += apart
            acc.store(m + (point * tile.rows * job.plane + p), job.plane)
        u += job.channels * taps * tile.rows
        v += job.channels * apart


@inlined
def put_rows(tile, job, scheme, m, start, out, rows):
    """`rows` rows of one filter's result: A' m + bias, clipped, where a row of tiles begins."""
    width, apart = job.out_space[2], job.unit * job.plane
    for first in range(0, width, tile.lanes):
        j = max(0, min(first, width - tile.lanes))  # the last vector overlaps its neighbour
        values, row = scheme.from_points(tile, m + j, apart), out + j
        for k in range(min(rows, scheme.outputs)):
            value = (values[k] + start).clip(job.least, job.most)
            if width >= tile.lanes:
                value.store(row)
            else:
                value.store(row, width)
            row += width


@compiled
def winograd_columns(item, seat, job):
    """One band of rows of tiles, one chunk of a group's filters. Weights from transformed_columns."""
    tile, scheme, (_, height, width) = job.tile, job.scheme, job.out_space
    band, chunk, image = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    g, n, line = image % job.groups, image // job.groups, band * job.band * scheme.outputs
    sheets = job.scratch + seat * job.scratch_size
    v, m, down = (
        sheets + job.values_at,
        sheets + job.products_at,
        min(job.band, (height - line + scheme.outputs - 1) // scheme.outputs),
    )
    job.fill_sheets(sheets, job.x + (n * job.x_image + g * job.channels * job.x_channel), 0, line)
    points_of_sheets(tile, job, scheme, sheets, v)
    image_at, pixels = n * job.groups * job.filters * height * width, (min(line + down * scheme.outputs, height) - line) * width
    turned, end = chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters)
    for f in range(turned, end, job.unit):
        panel, used = job.weight + (g * job.panels + f // job.unit) * job.panel, min(job.unit, job.filters - f)
        job.multiply_columns(v, panel + job.unit, m, down * job.pitch)
        for k in range(used):
            start, place = tile.splat(panel[k]), ((g * job.filters + f + k) * height + line) * width
            out = sheets + (job.sums_at + (f + k - turned) * job.sums_pitch) if job.last else job.out + (image_at + place)
            for t in range(down):
                i = t * scheme.outputs
                put_rows(tile, job, scheme, m + (k * job.plane + t * job.pitch), start, out + i * width, height - line - i)
            if job.late and not job.last:
                job.finish_row(out, pixels, image_at, place)
        if job.last and (f + used - turned >= job.together or f + used == end):
            job.put_rows(sheets + job.sums_at, job.sums_pitch, n, g * job.filters + turned, f + used - turned, line * width, pixels)
            turned = f + used


def error_bound(problem: Problem, scheme: Scheme) -> float:
    """`toom.error_bound` of a problem's columns."""
    channels, (taps_a, taps_b) = problem.channels // problem.groups, problem.kernel
    depth = channels * taps_b * min(problem.stride[0], taps_a)
    return toom.error_bound((scheme,), depth, channels * taps_a * taps_b, problem.dtype)


@compiled
def transform_columns(item, seat, job):
    """G of every stride-th row of taps, of a chunk of filters and a block of channels, with filters in lanes."""
    square, scheme, lanes, (_, taps_a, taps_b), phases = job.tile, job.scheme, job.tile.lanes, job.kernel, job.phases[1]
    g, f, begin, end, numbers, out = share_of(item, seat, job)
    rows = scheme.taps * phases  # of taps, and of zeros where a phase has fewer than the first
    whole = job.chunk == lanes and job.unit >= lanes  # a vector lies in one panel
    values, depth = numbers + max(rows * taps_b, (taps_a * taps_b + lanes - 1) // lanes * lanes) * lanes, phases * taps_b
    for c in range(begin, end):
        weights = job.x + (g * job.x_image + f * job.filter_step + c * job.x_channel)
        turn(job, weights, job.filters - f, taps_a * taps_b, numbers)
        for k in range(taps_a * taps_b, rows * taps_b):
            square.splat(0).store(numbers + k * lanes)
        for k in range(depth):
            there, apart = out + (c * depth + k) * job.unit, job.all_channels * depth * job.unit
            if whole:
                scheme.from_taps(square, numbers + k * lanes, depth * lanes, there, apart)
            else:
                scheme.from_taps(square, numbers + k * lanes, depth * lanes, values, lanes)
                for point in range(scheme.count):
                    put(job, values + point * lanes, there + point * apart, f)


def transformed_columns(weight: Array, bias: Array | None, rows: int, stride: int, scheme: Scheme) -> Array:
    """[group][panel][bias, then point, channel, phase, tap across][filter]: G of every stride-th row of taps."""
    *_, channels, taps_a, taps_b = weight.shape
    phases = min(stride, taps_a)
    depth = scheme.count * channels * phases * taps_b
    return packing.panels(transform_columns, weight, bias, rows, depth, scheme=scheme, phases=phases)
