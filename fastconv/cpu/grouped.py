"""Winograd convolution of many groups of few channels: winograd.py with groups in the lanes.

    out tile = A' [ sum over channels of (G w G') * (B' d B) ] A,   in lane g with the image and the filters of group g

With filters in lanes a group of 8 of them fills half a vector, and with pixels in lanes only columns can be transformed, for
half of the multiplications where F(4x4) leaves a quarter. With a group a lane every vector is full, and the sum over channels
multiplies vectors by vectors, without a broadcast. An item is a band of rows of tiles of a vector of groups:

    gather     x -> v[point][channel][tile][lane]          winograd.py's, the lanes a group apart
    multiply   v, u -> m[point][filter][tile][lane]        tile.rows filters by tile.vectors tiles in registers, over all channels
    scatter    m -> out                                    winograd.py's, a filter at a time

Where channels come last, those of a group are neighbours: a square of groups and channels of each pixel is transposed, in
registers no wider than a group, and one of groups and filters when a pixel's results are put.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.job import BIAS
from fastconv.cpu.standard import turn_sums
from fastconv.cpu.toom import F4, nested
from fastconv.cpu.winograd import APART, gather, scatter, slots_of, transformed_filters

Array = np.ndarray[Any, Any]
A_CHANNEL = BIAS["channel"]
SCHEME = nested(F4)


@compiled
def multiply(job, v, u, m, down, across, below, beside):
    """m[point][filter][slot] = sum over channels of v[point][channel][slot] * u[point][channel][filter], lane by lane.

    Of all tiles, less those that do not need the point.
    """
    tile, row, filters = job.tile, job.tiles * job.tile.lanes, job.unit * job.tile.lanes
    for i in range(job.points[1]):
        for j in range(job.points[2]):
            begin, end = slots_of(job, i, j, down, across, below, beside)
            for t in range(begin, end, tile.vectors):
                for f in range(0, filters, tile.rows * tile.lanes):
                    acc, x, w = tile.zeros(), v + t * tile.lanes, u + f
                    for _ in range(job.channels):
                        acc = acc.lane_by_lane(w, tile.lanes, x)
                        x += row
                        w += filters
                    acc.store(m + (f // tile.lanes * row + t * tile.lanes), row)
            u += (job.filled + APART) * tile.lanes
            v += job.channels * row
            m += job.unit * row


@inlined
def starts_of(tile, job, g, starts):
    """starts[filter][lane] = bias of the filter of the group in the lane, or 0."""
    for lane in range(tile.lanes):
        for f in range(job.filters):
            here = job.bias_kind == A_CHANNEL and g + lane < job.groups
            starts[f * tile.lanes + lane] = job.bias[(g + lane) * job.filters + f] if here else 0


@inlined
def turn_groups(square, x, x_step, out, out_step, rows, columns, lanes):
    """out[column * out_step + row] = x[row * x_step + column] of `lanes` rows, zeros from row `rows` on: squares side by side."""
    for row in range(0, lanes, square.lanes):
        if rows - row >= square.lanes and columns == square.lanes:
            square.load_tile(x + row * x_step, x_step).transpose().store(out + row, out_step)
        else:
            block = square.load_tile(x + row * x_step, x_step, rows - row, columns).transpose()
            block.store(out + row, out_step, columns, square.lanes)


@inlined
def lines_in_squares(square, job, lines, image, first, count):
    """As below."""
    lanes, (_, height, width), (_, step, pixel) = job.square.lanes, job.space, job.x_steps
    before, zero, size = job.before[2], job.square.splat(0), job.rows_seen * job.pitch * job.square.lanes
    for k in range(job.rows_seen):
        i, line = first + k, lines + k * job.pitch * lanes
        end = before + width if 0 <= i and i < height else before
        for c in range(0, job.together * size, size):
            for column in range(before):
                zero.store(line + (c + column * lanes))
            for column in range(end, job.columns_seen):
                zero.store(line + (c + column * lanes))
        for column in range(before, end):
            x = image + (i * step + (column - before) * pixel)
            turn_groups(square, x, job.lane_channels, line + column * lanes, size, count, job.together, lanes)


@compiled
def lines_of_groups(job, lines, image, first, count):
    """winograd.lines_of_lanes of job.together channels, which are neighbours in memory: lines[channel][k][column][lane]."""
    if job.together <= job.quarter_square.lanes:
        lines_in_squares(job.quarter_square, job, lines, image, first, count)
    elif job.together <= job.half_square.lanes:
        lines_in_squares(job.half_square, job, lines, image, first, count)
    else:
        lines_in_squares(job.square, job, lines, image, first, count)


@compiled
def put_planes(job, sums, step, n, first, width, pixel, count):
    """out[n, first + g * filters, pixel...] = sums[pixel * lanes + g] of so many pixels, and of the groups in the lanes."""
    pixels, lanes = job.out_space[1] * job.out_space[2], min(job.square.lanes, job.groups - first // job.filters)
    image, place, apart = n * job.groups * job.filters * pixels, first * pixels + pixel, job.filters * pixels
    turn_sums(job.square, sums, job.square.lanes, job.out + (image + place), apart, lanes, count)
    if job.late:
        for g in range(lanes):
            job.finish_row(job.out + (image + place + g * apart), count, image, place + g * apart)


@inlined
def put_squares(square, job, sums, step, n, first, width, pixel, count):
    """As below."""
    lanes, apart, every = job.square.lanes, job.filters, job.groups * job.filters
    groups, f, image = min(lanes, job.groups - first // apart), first % apart, n * job.out_space[1] * job.out_space[2] * every
    for k in range(count):
        place = (pixel + k) * every + first
        here, out = sums + k * lanes, job.out + (image + place)
        for g in range(0, groups, square.lanes):
            if groups - g >= square.lanes and width == square.lanes:
                square.load_tile(here + g, step).transpose().store(out + g * apart, apart)
            else:
                block = square.load_tile(here + g, step, width, square.lanes).transpose()
                block.store(out + g * apart, apart, groups - g, width)
        if job.late and f + width == apart:  # the groups' last filters: all of theirs lie side by side
            job.finish_row(job.out + (image + place - f), groups * apart, image, place - f)


@compiled
def put_pixels(job, sums, step, n, first, width, pixel, count):
    """out[n, pixel, first + g * filters + f] = sums[f * step + pixel * lanes + g] of `width` filters: as they lie channels last."""
    if job.together <= job.quarter_square.lanes:
        put_squares(job.quarter_square, job, sums, step, n, first, width, pixel, count)
    elif job.together <= job.half_square.lanes:
        put_squares(job.half_square, job, sums, step, n, first, width, pixel, count)
    else:
        put_squares(job.square, job, sums, step, n, first, width, pixel, count)


@compiled
def winograd_groups(item, seat, job):
    """One band of rows of tiles, one vector of groups. Weights from transformed_groups."""
    tile, scheme, (_, height, width) = job.tile, job.scheme, job.out_space
    band, block, n = item % job.bands, item // job.bands % job.blocks, item // (job.bands * job.blocks)
    lines, g, begin = job.scratch + seat * job.scratch_size, block * tile.lanes, band * job.band
    columns, v, m, sums = lines + job.columns_at, lines + job.values_at, lines + job.products_at, lines + job.sums_at
    outputs, row, pitch = scheme.down.outputs, job.tiles * tile.lanes, job.pitch * tile.lanes
    rows = height - begin * outputs
    down = min(job.band, (rows + outputs - 1) // outputs)
    whole = min(down, rows // outputs)
    inside = whole, job.across - job.beyond, down - whole, job.beyond  # as in `winograd`
    for c in range(job.channels):
        together = min(c - c % job.together, job.channels - job.together)  # the first of them: the last ones overlap others
        line = lines + (c - together) * job.rows_seen * pitch
        if c % job.together == 0:
            image = job.x + (n * job.x_image + (g * job.channels + together) * job.x_channel)
            job.fill_lines(lines, image, begin * scheme.down.advance - job.before[1], job.groups - g)
        for r in range(down):
            there = v + c * row
            gather(tile, job, scheme, line + r * scheme.down.advance * pitch, columns, there, job.channels * row, r, inside)
    job.multiply_groups(v, job.weight + (block * job.panel + tile.lanes), m, inside[0], inside[1], inside[2], inside[3])
    starts, size = sums + job.together * outputs * pitch, outputs * pitch
    starts_of(tile, job, g, starts)
    for r in range(down):
        i = (begin + r) * outputs
        for first in range(0, job.filters, job.together):
            filters = min(job.together, job.filters - first)
            for k in range(filters):
                products, start = m + (first + k) * row, tile.load(starts + (first + k) * tile.lanes)
                scatter(tile, job, scheme, products, tile.lanes, job.unit * row, start, columns, sums + k * size, r, inside)
            pixels = min(outputs, height - i) * width
            job.put_rows(sums, size, n, g * job.filters + first, filters, i * width, pixels)


def transformed_groups(weight: Array, unit: int, lanes: int) -> Array:
    """[block of groups][nothing, then matrix, channel, filter][lane]: G w G' of the group in a lane; filters filled up to `unit`.

    APART rows without meaning follow each matrix.
    """
    groups, filters, channels, *kernel = weight.shape
    turned = np.zeros((1, groups, channels, unit, *kernel), weight.dtype)
    turned[0, :, :, :filters] = weight.swapaxes(1, 2)
    return transformed_filters(turned.reshape(1, groups, -1, *kernel), None, lanes, lanes, SCHEME)[0]
