"""Winograd convolution of many groups of few channels: winograd.py with groups in the lanes.

    out tile = A' [ sum over channels of (G w G') * (B' d B) ] A,   in lane g with the image and the filters of group g

With filters in lanes a group of 8 of them fills half a vector, and with pixels in lanes only columns can be transformed, for
half of the multiplications where F(4x4) leaves a quarter. With a group a lane every vector is full, and the sum over channels
multiplies vectors by vectors, without a broadcast. An item is a band of rows of tiles of a vector of groups:

    gather     x -> v[point][channel][tile][lane]          winograd.py's, the lanes a group apart
    multiply   v, u -> m[point][filter][tile][lane]        tile.rows filters by tile.vectors tiles in registers, over all channels
    scatter    m -> out                                    winograd.py's, a filter at a time
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
def multiply(job, v, u, m, used, down, across, bottom):
    """m[point][filter][slot] = sum over channels of v[point][channel][slot] * u[point][channel][filter], lane by lane.

    Of `used` tiles, less those that do not need the point.
    """
    tile, row, filters = job.tile, job.tiles * job.tile.lanes, job.unit * job.tile.lanes
    for i in range(job.points[1]):
        for j in range(job.points[2]):
            begin, end = slots_of(job, i, j, used, down, across, bottom)
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
def put_rows(tile, job, sums, place, image_at, lanes, rows):
    """Rows of one filter of so many groups: where they begin in an image, and where that begins."""
    step, count = job.filters * job.out_space[1] * job.out_space[2], rows * job.out_space[2]
    turn_sums(job.square, sums, tile.lanes, job.out + (image_at + place), step, lanes, count)
    if job.late:
        for lane in range(lanes):
            job.finish_row(job.out + (image_at + place + lane * step), count, image_at, place + lane * step)


@compiled
def winograd_groups(item, seat, job):
    """One band of rows of tiles, one vector of groups. Weights from transformed_groups."""
    tile, scheme, (_, height, width) = job.tile, job.scheme, job.out_space
    band, block, n = item % job.bands, item // job.bands % job.blocks, item // (job.bands * job.blocks)
    lines, g, begin = job.scratch + seat * job.scratch_size, block * tile.lanes, band * job.band
    columns, v, m = lines + job.columns_at, lines + job.values_at, lines + job.products_at
    sums, starts = lines + job.sums_at, lines + (job.sums_at + scheme.down.outputs * job.pitch * tile.lanes)
    left = (height + scheme.down.outputs - 1) // scheme.down.outputs - begin
    down = min(job.band, left)
    bottom, across = job.beyond[0] if down == left else 0, job.across - job.beyond[1]
    inside = down - bottom, across, bottom * across  # as in `winograd`
    row, first = job.tiles * tile.lanes, begin * scheme.down.advance - job.before[1]
    starts_of(tile, job, g, starts)
    for c in range(job.channels):
        image = job.x + (n * job.x_image + (g * job.channels + c) * job.x_channel)
        job.fill_lines(lines, image, first, job.groups - g)
        for r in range(down):
            line = lines + r * scheme.down.advance * job.pitch * tile.lanes
            gather(tile, job, scheme, line, columns, v + c * row, job.channels * row, r, inside)
    job.multiply_groups(v, job.weight + (block * job.panel + tile.lanes), m, down * job.across, inside[0], inside[1], inside[2])
    image_at, lanes = n * job.groups * job.filters * height * width, min(tile.lanes, job.groups - g)
    for f in range(job.filters):
        start = tile.load(starts + f * tile.lanes)
        for r in range(down):
            i = (begin + r) * scheme.down.outputs
            scatter(tile, job, scheme, m + f * row, tile.lanes, job.unit * row, start, columns, sums, r, inside)
            put_rows(
                tile, job, sums, ((g * job.filters + f) * height + i) * width, image_at, lanes, min(scheme.down.outputs, height - i)
            )


def transformed_groups(weight: Array, unit: int, lanes: int) -> Array:
    """[block of groups][nothing, then matrix, channel, filter][lane]: G w G' of the group in a lane; filters filled up to `unit`.

    APART rows without meaning follow each matrix.
    """
    groups, filters, channels, *kernel = weight.shape
    turned = np.zeros((1, groups, channels, unit, *kernel), weight.dtype)
    turned[0, :, :, :filters] = weight.swapaxes(1, 2)
    return transformed_filters(turned.reshape(1, groups, -1, *kernel), None, lanes, lanes, SCHEME)[0]
