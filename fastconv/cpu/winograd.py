"""Winograd convolution F(m x m, r x r): outputs of a filter by fewer multiplications (Lavin and Gray, 2015).

    out tile = A' [ sum over channels of (G w G') * (B' d B) ] A,   d a window of x, w an r x r filter, * number by number

A filter of 3 and an output of m meet in a polynomial of degree m + 1, evaluated at m + 2 points. F(4x4) takes 36
multiplications for 16 outputs instead of 144, at the points 0, +-2/3, +-3/2 and infinity: every coefficient lies within 6 of
one, and the error stays close to a direct kernel's, where the usual +-1, +-2 lose four to six times as much. F(2x2) takes 16
for 4 instead of 36, at 0, +-1 and infinity; it is for small images of many channels, whose transformed weights would not fit
the cache at 36 points. Of stride 2 (toom.py) 81 products make the 16 outputs, and 36 matrices of weights serve them. A 5x5
filter takes 64 for 400, or 36 for 100. A transposed convolution of stride 2, whose four kinds of outputs see 4, 2, 2 and 1 of
nine taps, takes 81 for 144 as well. The transforms are sums of neighbours; the work is one matrix product for each pair of points.

An item is a band of `band` rows of tiles, so that their transforms stay in L2; lanes are channels, then filters:

    gather     x -> v[point][block of channels][tile][lane]   windows of one block, transposed in registers, then B' d B
    multiply   v, u -> m[point][tile][filter]                 tile.rows tiles by tile.width filters, over all channels
    scatter    m -> out                                       A' m A, clip, transposed back

A gradient's weights are fresh in every call, and to transform 2.4 million of them to memory and fetch them from there again
takes twice as long as all products. So an item may transform them itself: a few blocks of channels of a panel at a time, which
are multiplied, and added to m, while they lie in L2.

Tiles that reach beyond the result do without the last point, 8 % of the products at 14x14 and 12 % at 7x7: see `slot`.
A dilated layer is dilation^2 interleaved images: an item's rows belong to one phase, its tiles to all phases of columns. Of a
volume each plane is an image, whose channels are those of all planes that a window of depth sees.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.cpu import packing, toom
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.job import BIAS
from fastconv.cpu.packing import share_of, turn
from fastconv.cpu.toom import F2, F2_3_2, F2_5, F4, F4_3_2, F4_5, F4_5_2, F8_3_UP, F8_4_UP, Scheme

Array = np.ndarray[Any, Any]
# By the name of their implementation.
SCHEMES = {
    "winograd_2x2": F2, "winograd_4x4": F4, "winograd_2x2_stride_2": F2_3_2, "winograd_4x4_stride_2": F4_3_2,
    "winograd_2x2_5x5": F2_5, "winograd_4x4_5x5": F4_5, "winograd_4x4_5x5_stride_2": F4_5_2,
    "winograd_transposed_3x3": F8_3_UP, "winograd_transposed_4x4": F8_4_UP,
}  # fmt: skip

# Those that may transform fresh weights themselves.
FRESH = ("winograd_2x2", "winograd_4x4")


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
def slot(r, t, inside):
    """Where tile t of row r lies in v and m; `inside` as in `winograd`.

    The last point serves a tile's last output alone, which tiles that reach beyond the result do not have. In the order
    bottom row, inside, right column, corner the tiles that have it follow one another, by rows, by columns, and by both.
    """
    down, across, bottom = inside
    if t == across:
        return bottom + down * across + r
    return t if r == down else bottom + r * across + t


@inlined
def gather(tile, job, scheme, lines, columns, v, apart, r, inside):
    """v[point][slot] = B' d B for one row of tiles; `columns` is scratch for B' d."""
    lanes, pitch, dilation = tile.lanes, job.pitch * tile.lanes, job.dilation[2]
    for column in range(job.pitch):
        scheme.to_points(tile, lines + column * lanes, pitch, columns + column * lanes, pitch)
    for i in range(scheme.count):
        t = 0
        for phase in range(dilation):
            window = columns + (i * pitch + phase * job.stride[2] * lanes)
            for _ in range(phase, job.crop[2] + job.out_space[2], scheme.outputs * dilation):
                there = v + (i * scheme.count * apart + slot(r, t, inside) * lanes)
                scheme.to_points(tile, window, dilation * lanes, there, apart)
                window += scheme.advance * dilation * lanes
                t += 1


@compiled
def multiply(job, v, u, m, added, matrix_rows, blocks, used, down, across, bottom):
    """m[point][slot][filter] = sum over channels of v[point][slot][channel] * u[matrix of the point][channel][filter].

    Of `used` tiles, less those that do not need the point: see `slot`. Of u's blocks of channels the first. All schemes call it,
    each with its number of points, so that there is machine code for each register tile, and not for each scheme's. `added` to m
    if that holds the sums of other channels.
    """
    tile, last, tiles = job.tile, job.points - 1, job.tiles
    for i in range(job.points):
        for j in range(job.points):
            point, matrix = i * job.points + j, min(i, job.matrices - 1) * job.matrices + min(j, job.matrices - 1)
            begin, end = bottom if i == last else 0, used
            if j == last:
                end = bottom + down * across
            elif i == last and bottom > 0:
                end = used - job.beyond[1]
            for t in range(begin, end, tile.rows):
                acc, window = tile.zeros(), v + (point * blocks * tiles + t) * tile.lanes
                w, there = u + matrix * matrix_rows * tile.width, m + (point * tiles + t) * tile.width
                if added:
                    acc = tile.load_tile(there, tile.width)
                for _ in range(blocks):
                    for c in range(tile.lanes):
                        acc = acc.rank1(window + c, w)
                        w += tile.width
                    window += tiles * tile.lanes
                acc.store(there, tile.width)


@inlined
def scatter(tile, job, scheme, m, start, columns, sums, r, inside):
    """sums[row][column][lane] = clip(A' m A + bias): the rows of the result of one row of tiles, one vector of filters."""
    points, lanes, dilation, pitch, t = scheme.count, tile.lanes, job.dilation[2], job.pitch * job.unit, 0
    apart = job.tiles * job.unit
    for phase in range(dilation):
        for j in range(phase, job.crop[2] + job.out_space[2], scheme.outputs * dilation):
            products = m + slot(r, t, inside) * job.unit
            for k in range(points):
                there = columns + k * lanes
                for value in scheme.from_points(tile, products + k * apart, points * apart):
                    value.store(there)
                    there += points * lanes
            for i in range(scheme.outputs):
                there = sums + (i * pitch + j * job.unit)
                for value in scheme.from_points(tile, columns + i * points * lanes, lanes):
                    (value + start).clip(job.least, job.most).store(there)
                    there += dilation * job.unit
            t += 1


@inlined
def multiply_fresh(tile, job, scheme, v, m, panel, g, f, depth, down, inside):
    """As multiply, of a panel of filters that is transformed job.together blocks of channels at a time, and used at once."""
    group, filter, channel = job.weight_steps
    weights = job.weight + (g * group + f * filter)
    for q in range(0, depth, job.together):
        blocks, c, bias = min(job.together, depth - q), q * tile.lanes, job.bias + (g * job.filters + f)
        count, there = blocks * tile.lanes, v + q * scheme.count**2 * job.tiles * tile.lanes
        job.transform_panel(panel, weights + c * channel, bias, job.filters - f, job.channels - c, count)
        used, matrix_rows = down * job.across, count + APART
        job.multiply(there, panel + job.unit, m, q, matrix_rows, blocks, used, inside[0], inside[1], inside[2])


@compiled
def winograd(item, seat, job):
    """One band of rows of tiles, of one phase of rows, one chunk of a group's filters.

    Weights from transformed_filters; or, if they are fresh, as they lie.
    """
    tile, scheme, (apart_z, apart, _), (out_depth, out_height, _) = job.tile, job.scheme, job.dilation, job.out_space
    outputs, blocks = scheme.outputs, (job.channels + tile.lanes - 1) // tile.lanes
    band, chunk = item % job.bands, item // job.bands % job.chunks
    phase, planes = item // (job.bands * job.chunks) % apart, item // (job.bands * job.chunks * apart)
    plane, image = planes % out_depth, planes // out_depth
    g, n = image % job.groups, image // job.groups
    lines = job.scratch + seat * job.scratch_size
    columns, v = lines + job.columns_at, lines + job.values_at
    m, sums = lines + job.products_at, lines + job.sums_at
    begin = band * job.band
    left = ((job.crop[1] + out_height - phase + apart - 1) // apart + outputs - 1) // outputs - begin
    down = min(job.band, left)
    if down <= 0:  # a phase with fewer rows than the first
        return
    bottom, across = job.beyond[0] if down == left else 0, job.across - job.beyond[1]
    inside = down - bottom, across, bottom * across  # rows and columns of tiles whose last outputs are all there; tiles below
    z = plane * job.stride[0] - job.before[0]
    front = min(job.kernel[0], max(0, (apart_z - 1 - z) // apart_z))  # taps of the depth before the image, and up to its end
    back = max(front, min(job.kernel[0], (job.space[0] - z + apart_z - 1) // apart_z))
    depth, size = (back - front) * blocks, job.tiles * tile.lanes
    together = job.together if job.fresh else max(1, depth)
    x = job.x + (n * job.x_image + g * job.channels * job.x_channel)
    for q in range(depth):
        e, c = front + q // blocks, q % blocks
        first = phase * job.stride[1] + begin * scheme.advance * apart - job.before[1]
        job.fill_lines(lines, x + (z + e * apart_z) * job.x_steps[0], first, c * tile.lanes)
        share = q // together * together  # v has those that are multiplied together side by side
        there, apart_v = v + (share * scheme.count**2 + q - share) * size, min(together, depth - share) * size
        for r in range(down):
            gather(tile, job, scheme, lines + r * scheme.advance * job.pitch * tile.lanes, columns, there, apart_v, r, inside)
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), job.unit):
        packed, own = job.weight + (g * job.panels + f // job.unit) * job.panel, lines + job.panel_at
        if job.fresh:
            multiply_fresh(tile, job, scheme, v, m, own, g, f, depth, down, inside)
        else:
            weights = packed + (1 + front * blocks * tile.lanes) * job.unit
            matrix_rows = job.kernel[0] * blocks * tile.lanes + APART
            job.multiply(v, weights, m, 0, matrix_rows, depth, down * job.across, inside[0], inside[1], inside[2])
        for r in range(down):
            for k in range(0, job.unit, tile.lanes):
                start = tile.load(own + k) if job.fresh else tile.load(packed + k)
                scatter(tile, job, scheme, m + k, start, columns, sums + k, r, inside)
            for i in range(outputs):
                row_out = phase + ((begin + r) * outputs + i) * apart - job.crop[1]
                if 0 <= row_out and row_out < out_height:
                    here = sums + (i * job.pitch + job.crop[2]) * job.unit
                    first, pixel = g * job.filters + f, (plane * out_height + row_out) * job.out_space[2]
                    job.put_rows(here, job.unit, n, first, min(job.unit, job.filters - f), pixel, job.out_space[2])


# Weights --------------------------------------------------------------------------------------------------------------

# Rows between matrices: each channel's numbers go to all of them, and powers of two apart these would be one set of a cache,
# which takes twice as long at 128 and 256 channels.
APART = 1
# Channels whose taps are fetched ahead: of one channel a panel's filters may lie side by side, and the next ones far away.
AHEAD = 1
A_CHANNEL = BIAS["channel"]


@compiled
def transform_panel(job, panel, weights, bias, filters, channels, count):
    """panel[bias, then matrix, channel][filter] = G w G' of so many filters and channels, zeros for those up to `count`."""
    square, scheme, lanes, width, (_, filter, channel) = job.tile, job.scheme, job.tile.lanes, job.unit, job.weight_steps
    taps, apart = scheme.taps * scheme.taps, (count + APART) * width
    mirrored = job.backwards and filter == taps  # as a gradient's are
    for k in range(0, width, lanes):
        start = square.load(bias + k, 0, filters - k) if job.bias_kind == A_CHANNEL else square.splat(0)  # of a pixel it comes late
        start.store(panel + k)
    for c in range(count):
        for k in range(0, width, lanes):
            left, w, there = filters - k, weights + (c * channel + k * filter), panel + ((1 + c) * width + k)
            if mirrored and left >= lanes and c < channels:
                for line in range(taps):
                    w.prefetch(AHEAD * channel + line * lanes)
                scheme.from_mirrored_filters(square, w, there, apart)
            else:
                scheme.from_filters(square, w, filter, job.backwards, left if c < channels else 0, there, apart)


@compiled
def transform_filters(item, seat, job):
    """U = G w G' of a chunk of filters and a block of channels: each channel's taps lie in lanes, a filter each."""
    square, scheme, lanes, unit, depth = job.tile, job.scheme, job.tile.lanes, job.unit, job.kernel[0]
    taps, row, matrices, rows = scheme.taps * scheme.taps, scheme.taps, scheme.matrices, depth * job.filled + APART
    g, f, begin, end, numbers, out = share_of(item, seat, job)
    columns = numbers + (depth * taps + lanes - 1) // lanes * lanes * lanes
    for c in range(begin, end):
        filters = job.filters - f if c < job.all_channels else 0
        turn(job, job.x + (g * job.x_image + f * job.filter_step + c * job.x_channel), filters, depth * taps, numbers)
        for e in range(depth):
            for b in range(row):
                scheme.from_taps(square, numbers + (e * taps + b) * lanes, row * lanes, columns + b * lanes, row * lanes)
            for i in range(matrices):
                there = out + (i * matrices * rows + e * job.filled + c) * unit
                scheme.from_taps(square, columns + row * i * lanes, lanes, there, rows * unit)


def transformed_filters(weight: Array, bias: Array | None, width: int, lanes: int, scheme: Scheme) -> Array:
    """[group][panel][bias, then matrix, tap of the depth, channel][filter]: G w G'; channels filled up to whole vectors.

    APART rows without meaning follow each matrix.
    """
    filled = -(-weight.shape[2] // lanes) * lanes
    depth = scheme.matrices**2 * (math.prod(weight.shape[3:-2]) * filled + APART)
    return packing.panels(transform_filters, weight, bias, width, depth, scheme=scheme, filled=filled)


# Errors ---------------------------------------------------------------------------------------------------------------


def error_bound(scheme: Scheme, channels: int, dtype: str) -> float:
    """`toom.error_bound` of a scheme in two dimensions; `channels` are those of a group."""
    taps = scheme.overlap + 1 if scheme.transposed else scheme.taps  # those that an output sees
    return toom.error_bound(scheme, 2, channels, taps**2 * channels, dtype)


def worst_error(scheme: Scheme, channels: int, dtype: str) -> float:
    """`toom.worst_error` of a scheme in two dimensions; `channels` are those of a group."""
    return toom.worst_error(scheme, 2, channels, dtype)
