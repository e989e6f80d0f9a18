"""Winograd convolution F(m x m, 3x3): outputs of a 3x3 filter by fewer multiplications (Lavin and Gray, 2015).

    out tile = A' [ sum over channels of (G w G') * (B' d B) ] A,   d a window of x, w a 3x3 filter, * number by number

A filter of 3 and an output of m meet in a polynomial of degree m + 1, evaluated at m + 2 points. F(4x4) takes 36
multiplications for 16 outputs instead of 144, at the points 0, +-2/3, +-3/2 and infinity: every coefficient lies within 6 of
one, and the error stays close to a direct kernel's, where the usual +-1, +-2 lose four to six times as much. F(2x2) takes 16
for 4 instead of 36, at 0, +-1 and infinity; it is for small images of many channels, whose transformed weights would not fit
the cache at 36 points. The transforms are sums of neighbours; the work is one matrix product for each pair of points.

An item is a band of `band` rows of tiles, so that their transforms stay in L2; lanes are channels, then filters:

    gather     x -> v[point][block of channels][tile][lane]   windows of one block, transposed in registers, then B' d B
    multiply   v, u -> m[point][tile][filter]                 tile.rows tiles by tile.width filters, over all channels
    scatter    m -> out                                       A' m A, clip, transposed back

A dilated layer is dilation^2 interleaved images: an item's rows belong to one phase, its tiles to all phases of columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu import packing, toom
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.simd import TileShape, pointer
from fastconv.cpu.standard import put_row
from fastconv.cpu.toom import F2, F4

Array = np.ndarray[Any, Any]
SCHEMES = {2: F2, 4: F4}


# The three steps ------------------------------------------------------------------------------------------------------


@compiled
def lines_of_lanes(job, lines, image, first, c):
    """lines[k][column][lane] = x[c + lane, first + k * dilation, column - before] for job.rows_seen rows, zeros around x."""
    square, pitch, lanes = job.square, job.pitch, job.square.lanes
    height, width, step = job.space[1], job.space[2], job.x_steps
    channels, before, zero = job.channels - c, job.before[2], square.splat(0)
    for k in range(job.rows_seen):
        line, i = lines + k * pitch * lanes, first + k * job.dilation[1]
        row, filled = image + (c * job.x_channel + i * step[1]), 0
        for column in range(before):
            zero.store(line + column * lanes)
        if 0 <= i and i < height:
            if step[2] == 1:
                for column in range(0, width, lanes):
                    there = line + (before + column) * lanes
                    if channels >= lanes and width - column >= lanes:
                        square.load_tile(row + column, job.x_channel).transpose().store(there, lanes)
                    else:
                        square.load_tile(row + column, job.x_channel, channels, width - column).transpose().store(there, lanes)
                    filled = column + lanes
            else:
                for column in range(width):
                    square.load(row + column * step[2], 0, channels).store(line + (before + column) * lanes)
                filled = width
        for column in range(before + filled, pitch):
            zero.store(line + column * lanes)


@inlined
def gather(tile, job, scheme, lines, columns, v, apart):
    """v[point][t] = B' d B for one row of tiles; `columns` is scratch for B' d."""
    lanes, pitch, dilation = tile.lanes, job.pitch * tile.lanes, job.dilation[2]
    for column in range(job.pitch):
        scheme.to_points(tile, lines + column * lanes, pitch, columns + column * lanes, pitch)
    for i in range(scheme.count):
        t = 0
        for phase in range(dilation):
            for j in range(phase, job.out_space[2], scheme.outputs * dilation):
                window, there = columns + (i * pitch + j * lanes), v + (i * scheme.count * apart + t * lanes)
                scheme.to_points(tile, window, dilation * lanes, there, apart)
                t += 1


@inlined
def multiply(tile, points, v, u, m, blocks, tiles):
    """m[point][t][filter] = sum over channels of v[point][t][channel] * u[point][channel][filter]."""
    for point in range(points):
        for t in range(0, tiles, tile.rows):
            acc, window, w = tile.zeros(), v + (point * blocks * tiles + t) * tile.lanes, u
            for _ in range(blocks):
                for c in range(tile.lanes):
                    acc = acc.rank1(window + c, w)
                    w += tile.width
                window += tiles * tile.lanes
            acc.store(m + (point * tiles + t) * tile.width, tile.width)
        u += blocks * tile.lanes * tile.width


@inlined
def scatter(tile, job, scheme, m, apart, start, columns, sums):
    """sums[row][column][lane] = clip(A' m A + bias): the rows of the result of one row of tiles, one vector of filters."""
    points, lanes, dilation, pitch = scheme.count, tile.lanes, job.dilation[2], job.pitch * tile.width
    for phase in range(dilation):
        for j in range(phase, job.out_space[2], scheme.outputs * dilation):
            for k in range(points):
                there = columns + k * lanes
                for value in scheme.from_points(tile, m + k * apart, points * apart):
                    value.store(there)
                    there += points * lanes
            for i in range(scheme.outputs):
                there = sums + (i * pitch + j * tile.width)
                for value in scheme.from_points(tile, columns + i * points * lanes, lanes):
                    (value + start).clip(job.least, job.most).store(there)
                    there += dilation * tile.width
            m += tile.width


@compiled
def winograd(item, seat, job):
    """One band of rows of tiles, of one phase of rows, one chunk of a group's filters. Weights from transformed_filters."""
    tile, scheme, (_, apart, _), (_, out_height, _) = job.tile, job.scheme, job.dilation, job.out_space
    outputs = scheme.outputs
    band, chunk = item % job.bands, item // job.bands % job.chunks
    phase, image = item // (job.bands * job.chunks) % apart, item // (job.bands * job.chunks * apart)
    g, n, blocks, tiles = image % job.groups, image // job.groups, (job.channels + tile.lanes - 1) // tile.lanes, job.tiles
    lines = job.scratch + seat * job.scratch_size
    columns, v = lines + job.columns_at, lines + job.values_at
    m, sums = lines + job.products_at, lines + job.sums_at
    x = job.x + (n * job.x_image + g * job.channels * job.x_channel)
    begin = band * job.band
    down = min(job.band, ((out_height - phase + apart - 1) // apart + outputs - 1) // outputs - begin)
    if down <= 0:  # a phase with fewer rows than the first
        return
    for c in range(blocks):
        first = phase + begin * outputs * apart - job.before[1]
        job.fill_lines(lines, x, first, c * tile.lanes)
        for r in range(down):
            line, there = lines + r * outputs * job.pitch * tile.lanes, v + (c * tiles + r * job.across) * tile.lanes
            gather(tile, job, scheme, line, columns, there, blocks * tiles * tile.lanes)
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), tile.width):
        panel = job.weight + (g * job.panels + f // tile.width) * job.panel
        multiply(tile, scheme.count * scheme.count, v, panel + tile.width, m, blocks, tiles)
        for r in range(down):
            for k in range(0, tile.width, tile.lanes):
                start, row = tile.load(panel + k), m + (r * job.across * tile.width + k)
                scatter(tile, job, scheme, row, tiles * tile.width, start, columns, sums + k)
            for i in range(outputs):
                row_out = phase + ((begin + r) * outputs + i) * apart
                if row_out < out_height:
                    here = sums + i * job.pitch * tile.width
                    put_row(tile, job, here, n, g, f, row_out * job.out_space[2], job.out_space[2])


# Weights --------------------------------------------------------------------------------------------------------------


@compiled
def transform_filters(scheme, square, weight, room, out, panels, width, sizes):
    """U = G w G' of every panel, after the biases: `lanes` filters of one channel at a time, through `room`."""
    (groups, filters, channels, padded), lanes, points = sizes, square.lanes, scheme.count
    turned, source = pointer(room), pointer(weight)
    columns = turned + (9 + lanes) * lanes
    for g in range(groups):
        for f in range(0, filters, lanes):
            u = pointer(out) + ((g * panels + f // width) * (1 + points * points * padded) + 1) * width + f % width
            for c in range(channels):
                taps = source + ((g * filters + f) * channels + c) * 9
                for q in range(0, 9, lanes):
                    block = square.load_tile(taps + q, channels * 9, filters - f, 9 - q)
                    block.transpose().store(turned + q * lanes, lanes)
                for b in range(3):
                    scheme.from_taps(square, turned + b * lanes, 3 * lanes, columns + b * lanes, 3 * lanes)
                for i in range(points):
                    there = u + (i * points * padded + c) * width
                    scheme.from_taps(square, columns + 3 * i * lanes, lanes, there, padded * width)


def transformed_filters(weight: Array, bias: Array | None, groups: int, width: int, lanes: int, outputs: int) -> Array:
    """[group][panel][bias, then point, channel][filter]: G w G'; channels filled up with zeros to whole vectors."""
    points, (filters, channels) = outputs + 2, weight.shape[:2]
    padded = -(-channels // lanes) * lanes
    out = packing.panels(weight, bias, groups, width, 1 + points**2 * padded)
    if padded > channels:
        out[:, :, 1:].reshape(groups, -1, points**2, padded, width)[:, :, :, channels:] = 0
    room = packing.aligned_empty(((9 + lanes + 3 * points) * lanes,), out.dtype)
    sizes = (groups, filters // groups, channels, padded)
    square = TileShape(lanes, 1, lanes, 1, out.dtype.name)
    transform_filters(SCHEMES[outputs], square, packing.flat(weight), room, packing.flat(out), out.shape[1], width, sizes)
    return out


# Errors ---------------------------------------------------------------------------------------------------------------


def error_bound(outputs: int, channels: int, dtype: str) -> float:
    """`toom.error_bound` of this scheme in two dimensions; `channels` are those of a group."""
    return toom.error_bound(SCHEMES[outputs], 2, channels, 9 * channels, dtype)


def worst_error(outputs: int, channels: int, dtype: str) -> float:
    """`toom.worst_error` of this scheme in two dimensions; `channels` are those of a group."""
    return toom.worst_error(SCHEMES[outputs], 2, channels, dtype)
