"""Winograd convolution F(m x m, r x r): outputs of a filter by fewer multiplications (Lavin and Gray, 2015).

    out tile = A' [ sum over channels of (G w G') * (B' d B) ] A,   d a window of x, w an r x r filter, * number by number

A filter of 3 and an output of m meet in a polynomial of degree m + 1, evaluated at m + 2 points. F(4x4) takes 36
multiplications for 16 outputs instead of 144, at the points 0, +-2/3, +-3/2 and infinity: every coefficient lies within 6 of
one, and the error stays close to a direct kernel's, where the usual +-1, +-2 lose four to six times as much. F(2x2) takes 16
for 4 instead of 36, at 0, +-1 and infinity; it is for small images of many channels, whose transformed weights would not fit
the cache at 36 points. F(4x2), one scheme down and the other across, is between the two: 165 products of a 7x7 plane, where
F(2x2) takes 225 and F(4x4) 121, and 24 matrices of weights for 16 and 36. F(5x5) takes 49 for 25: of 14x14 pixels 400 where
F(4x4) takes 484, with 2.4 times its error. F(4x1) and F(1x4) are for windows of three rows or three columns alone. Of stride 2
(toom.py) 81 products make the 16 outputs, and 36 matrices serve them. A 5x5 filter takes 64 for 400, or 36 for 100. A transposed
convolution of stride 2, whose four kinds of outputs see 4, 2, 2 and 1 of nine taps, takes 81 for 144 as well. The transforms are
sums of neighbours; the work is one matrix product for each pair of points.

An item is a band of `band` rows of tiles, so that their transforms stay in L2, or in a share of L3 where the weights come from
there for each band, or several small images of a batch, past which the weights come once; lanes are channels, then filters:

    gather     x -> v[point][block of channels][tile][lane]   windows of one block, transposed in registers, then B' d B
    multiply   v, u -> m[point][tile][filter]                 tile.rows tiles by tile.width filters, over all channels
    scatter    m -> out                                       A' m A, clip, transposed back

A gradient's weights are fresh in every call, and to transform 2.4 million of them to memory and fetch them from there again
takes twice as long as all products. So an item may transform them itself: a few blocks of channels of a panel at a time, which
are multiplied, and added to m, while they lie in L2.

Tiles that reach beyond the result do without the products that serve nothing else, and F(4) makes two outputs at two points fewer,
of the same weights (toom.Edge): 14 x 14 pixels, 14 = 4 + 4 + 4 + 2, take 484 products in place of 576. See `slot`.
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
from fastconv.cpu.toom import F2, F2_3_2, F2_5, F4, F4_3_2, F4_5, F4_5_2, F5, F8_3_UP, F8_4_UP, ONE, Nested, nested

Array = np.ndarray[Any, Any]
# By the name of their implementation.
SCHEMES = {
    "winograd_2x2": nested(F2), "winograd_4x2": Nested(F4, F2), "winograd_4x4": nested(F4), "winograd_5x5": nested(F5),
    "winograd_4x1": Nested(F4, ONE), "winograd_1x4": Nested(ONE, F4),
    "winograd_2x2_stride_2": nested(F2_3_2), "winograd_4x4_stride_2": nested(F4_3_2),
    "winograd_2x2_5x5": nested(F2_5), "winograd_4x4_5x5": nested(F4_5), "winograd_4x4_5x5_stride_2": nested(F4_5_2),
    "winograd_transposed_3x3": nested(F8_3_UP), "winograd_transposed_4x4": nested(F8_4_UP),
}  # fmt: skip

# Those that may transform fresh weights themselves.
FRESH = ("winograd_2x2", "winograd_4x4")


# The three steps ------------------------------------------------------------------------------------------------------


@compiled
def lines_of_lanes(job, lines, image, first, count):
    """lines[k][column][lane] = image[lane, first + k * dilation, column - before] for job.rows_seen rows, zeros around it.

    The first `count` lanes hold something, job.lane_channels apart.
    """
    space, seen = (job.space[1], job.space[2]), (job.rows_seen, job.columns_seen)
    turn_lines(job.square, image, job.lane_channels * job.x_channel, job.x_steps, space, first, job.dilation[1], job.before[2],
               count, lines, job.pitch, seen)  # fmt: skip


@compiled
def turn_lines(square, image, apart, step, space, first, every, before, count, lines, pitch, seen):
    """lines[k][column][lane] = image[lane, first + k * every, column - before], zeros around it, of so many rows and columns.

    The first `count` lanes hold something, `apart` numbers from one to the next; the lines begin `pitch` columns apart.
    """
    lanes, (height, width), zero = square.lanes, space, square.splat(0)
    for k in range(seen[0]):
        line, i = lines + k * pitch * lanes, first + k * every
        row, filled = image + i * step[1], 0
        for column in range(before):
            zero.store(line + column * lanes)
        if 0 <= i and i < height:
            if step[2] == 1:
                for begin in range(0, width, lanes):
                    column = max(0, min(begin, width - lanes))  # the last square overlaps its neighbour: masks are slow
                    there = line + (before + column) * lanes
                    if count >= lanes and width >= lanes:
                        square.load_turned(row + column, apart).store(there, lanes)
                    else:
                        square.load_tile(row + column, apart, count, width - column).transpose().store(there, lanes)
                    filled = column + lanes
            else:
                for column in range(width):
                    square.load(row + column * step[2], 0, count).store(line + (before + column) * lanes)
                filled = width
        for column in range(before + filled, seen[1]):
            zero.store(line + column * lanes)


@inlined
def slot(r, t, edge, inside):
    """Where a tile of row r lies in v and m: the t-th whole one, or the t-th `edge` one, which reaches beyond the last column.

    In the order bottom rows, inside, right columns, corners the tiles that a product is made of follow one another, whether those
    below, those on the right, or both do without it. `inside` as in `winograd`, rows as in `row_of`.
    """
    down, across, below, beside = inside
    if edge:
        return (below + down) * across + r * beside + t
    return (r - down if r >= down else below + r) * across + t


@inlined
def row_of(image, r, rows, inside):
    """Of all rows of tiles of an item's images, which the r-th of an image is: first come those that lie whole in the result."""
    down, whole = inside[0], rows - (inside[2] > 0)
    return down + image if r == whole else image * whole + r


@inlined
def slots_of(job, i, j, down, across, below, beside):
    """Of the slots, begin..end, those of the tiles that need product (i, j): see `slot`."""
    rows, begin = down + below, 0
    if job.spared[1] >> i & 1:
        rows, begin = down, below * across
    end = (down + below) * across
    if not job.spared[2] >> j & 1:
        end += rows * beside
    return begin, end


@inlined
def tiles_of(job, scheme, phase):
    """Of a phase of columns: its whole tiles, and all of them."""
    columns = (job.crop[2] + job.out_space[2] - phase + job.dilation[2] - 1) // job.dilation[2]
    return columns // scheme.across.outputs, (columns + scheme.across.outputs - 1) // scheme.across.outputs


@inlined
def gather(tile, job, scheme, lines, columns, v, apart, r, inside):
    """v[point][slot] = B' d B for one row of tiles; `columns` is scratch for B' d."""
    lanes, pitch, dilation = tile.lanes, job.pitch * tile.lanes, job.dilation[2]
    high = job.edge[1] if r >= inside[0] else scheme.down.outputs
    for column in range(job.columns_seen):
        scheme.down.to_points_of(high, tile, lines + column * lanes, pitch, columns + column * lanes, pitch)
    for i in range(scheme.down.count):
        if r >= inside[0] and job.spared[1] >> i & 1:
            continue
        whole, beyond = 0, 0
        for phase in range(dilation):
            window = columns + (i * pitch + phase * job.stride[2] * lanes)
            full, count = tiles_of(job, scheme, phase)
            for k in range(count):
                edge = k == full
                there = v + (i * scheme.across.count * apart + slot(r, beyond if edge else whole + k, edge, inside) * lanes)
                wide = job.edge[2] if edge else scheme.across.outputs
                scheme.across.to_points_of(wide, tile, window, dilation * lanes, there, apart)
                window += scheme.across.advance * dilation * lanes
            whole += full
            beyond += count - full


@compiled
def multiply(job, v, u, m, added, blocks, begin, end, block):
    """At one point, m[slot][filter] = sum over channels of v[block of them][slot][channel] * u[channel][filter], for these slots.

    Kernels call it by its address, so that there is machine code for each register tile, and not for each scheme's. Blocks lie
    `block` numbers apart. `added` to m if that holds the sums of other channels.
    """
    tile = job.tile
    for t in range(begin, end, tile.rows):
        acc, window, w, there = tile.zeros(), v + t * tile.lanes, u, m + t * tile.width
        if added:
            acc = tile.load_tile(there, tile.width)
        for _ in range(blocks):
            for c in range(tile.lanes):
                acc = acc.rank1(window + c, w)
                w += tile.width
            window += block
        acc.store(there, tile.width)


@inlined
def multiply_points(job, v, u, m, added, matrix, blocks, inside):
    """m[point][slot][filter] at all points, less those of tiles that do not need the point: see `slot`.

    The matrices of u lie `matrix` numbers apart.
    """
    (_, points_i, points_j), (_, matrices_i, matrices_j), size = job.points, job.matrices, job.tiles * job.tile.lanes
    for i in range(points_i):
        for j in range(points_j):
            begin, end = slots_of(job, i, j, inside[0], inside[1], inside[2], inside[3])
            k, w = i * points_j + j, u + (min(i, matrices_i - 1) * matrices_j + min(j, matrices_j - 1)) * matrix
            job.multiply(v + k * blocks * size, w, m + k * job.tiles * job.unit, added, blocks, begin, end, size)


@inlined
def scatter(tile, job, scheme, m, width, apart, start, columns, sums, r, inside):
    """sums[row][column][lane] = clip(A' m A + bias): the rows of the result of one row of tiles, one vector of filters.

    The products of a tile lie `width` from those of the next, those of a point `apart` from the next one's.
    """
    points, lanes, dilation, pitch, whole, beyond = scheme.across.count, tile.lanes, job.dilation[2], job.sums_pitch * width, 0, 0
    high = job.edge[1] if r >= inside[0] else scheme.down.outputs
    for phase in range(dilation):
        full, count = tiles_of(job, scheme, phase)
        for after in range(count):  # the last tile first: what it has beyond the result may lie where the next row begins
            k = after - 1 if after > 0 else count - 1
            edge = k == full
            products = m + slot(r, beyond if edge else whole + k, edge, inside) * width
            for j in range(points):
                there = columns + j * lanes
                for value in scheme.down.from_points_of(high, tile, products + j * apart, points * apart):
                    value.store(there)
                    there += points * lanes
            wide = job.edge[2] if edge else scheme.across.outputs
            for i in range(high):
                there = sums + (i * pitch + (phase + k * scheme.across.outputs * dilation) * width)
                for value in scheme.across.from_points_of(wide, tile, columns + i * points * lanes, lanes):
                    (value + start).clip(job.least, job.most).store(there)
                    there += dilation * width
        whole += full
        beyond += count - full


@inlined
def multiply_fresh(tile, job, scheme, v, m, panel, g, f, depth, inside):
    """As multiply_points, of a panel that is transformed job.together blocks of channels at a time, and used at once."""
    group, filter, channel = job.weight_steps
    weights = job.weight + (g * group + f * filter)
    for q in range(0, depth, job.together):
        blocks, c, bias = min(job.together, depth - q), q * tile.lanes, job.bias + (g * job.filters + f)
        count, there = blocks * tile.lanes, v + q * scheme.down.count * scheme.across.count * job.tiles * tile.lanes
        job.transform_panel(panel, weights + c * channel, bias, job.filters - f, job.channels - c, count)
        multiply_points(job, there, panel + job.unit, m, q, (count + APART) * job.unit, blocks, inside)


@compiled
def winograd(item, seat, job):
    """One band of rows of tiles, of one phase of rows, one chunk of a group's filters; of several images that have but one band.

    Weights from transformed_filters; or, if they are fresh, as they lie.
    """
    tile, scheme, (apart_z, apart, _), (out_depth, out_height, width) = job.tile, job.scheme, job.dilation, job.out_space
    outputs, blocks = scheme.down.outputs, (job.channels + tile.lanes - 1) // tile.lanes
    band, chunk = item % job.bands, item // job.bands % job.chunks
    phase, planes = item // (job.bands * job.chunks) % apart, item // (job.bands * job.chunks * apart)
    plane, image = planes % out_depth, planes // out_depth
    g, n = image % job.groups, image // job.groups * job.images
    images, lines = min(job.images, job.batch - n), job.scratch + seat * job.scratch_size
    columns, v = lines + job.columns_at, lines + job.values_at
    m, sums = lines + job.products_at, lines + job.sums_at
    begin = band * job.band
    rows = (job.crop[1] + out_height - phase + apart - 1) // apart - begin * outputs
    down = min(job.band, (rows + outputs - 1) // outputs)
    if down <= 0:  # a phase with fewer rows than the first
        return
    whole = min(down, rows // outputs)
    # Whole rows and columns of tiles, rows and columns beyond.
    inside = images * whole, job.across - job.beyond, images * (down - whole), job.beyond
    z = plane * job.stride[0] - job.before[0]
    front = min(job.kernel[0], max(0, (apart_z - 1 - z) // apart_z))  # taps of the depth before the image, and up to its end
    back = max(front, min(job.kernel[0], (job.space[0] - z + apart_z - 1) // apart_z))
    depth, size = (back - front) * blocks, job.tiles * tile.lanes
    together = job.together if job.fresh else max(1, depth)
    x = job.x + (n * job.x_image + g * job.channels * job.x_channel)
    for q in range(depth):
        e, c = front + q // blocks, q % blocks
        first = phase * job.stride[1] + begin * scheme.down.advance * apart - job.before[1]
        image_at = x + ((z + e * apart_z) * job.x_steps[0] + c * tile.lanes * job.x_channel)
        share = q // together * together  # v has those that are multiplied together side by side
        there = v + (share * scheme.down.count * scheme.across.count + q - share) * size
        apart_v = min(together, depth - share) * size
        for k in range(images):
            job.fill_lines(lines, image_at + k * job.x_image, first, job.channels - c * tile.lanes)
            for r in range(down):
                line = lines + r * scheme.down.advance * job.pitch * tile.lanes
                gather(tile, job, scheme, line, columns, there, apart_v, row_of(k, r, down, inside), inside)
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), job.unit):
        packed, own = job.weight + (g * job.panels + f // job.unit) * job.panel, lines + job.panel_at
        if job.fresh:
            multiply_fresh(tile, job, scheme, v, m, own, g, f, depth, inside)
        else:
            weights = packed + (1 + front * blocks * tile.lanes) * job.unit
            matrix = (job.kernel[0] * blocks * tile.lanes + APART) * job.unit
            multiply_points(job, v, weights, m, 0, matrix, depth, inside)
        for each in range(images * down):
            image, r = each // down, each % down
            for k in range(0, job.unit, tile.lanes):
                start, row = tile.load(own + k) if job.fresh else tile.load(packed + k), row_of(image, r, down, inside)
                scatter(tile, job, scheme, m + k, job.unit, job.tiles * job.unit, start, columns, sums + k, row, inside)
            i, last = phase + (begin + r) * outputs * apart - job.crop[1], min(job.unit, job.filters - f)
            if job.sums_pitch == width:  # rows follow one another without a gap
                count = min(outputs, out_height - i) * width
                job.put_rows(sums, job.unit, n + image, g * job.filters + f, last, (plane * out_height + i) * width, count)
            else:
                for k in range(outputs):
                    row_out, here = i + k * apart, sums + (k * job.sums_pitch + job.crop[2]) * job.unit
                    if 0 <= row_out and row_out < out_height:
                        pixel = (plane * out_height + row_out) * width
                        job.put_rows(here, job.unit, n + image, g * job.filters + f, last, pixel, width)


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
    taps, apart = scheme.down.taps * scheme.across.taps, (count + APART) * width
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
                scheme.down.from_mirrored_filters(square, w, there, apart)
            else:
                scheme.down.from_filters(square, w, filter, job.backwards, left if c < channels else 0, there, apart)


@compiled
def transform_filters(item, seat, job):
    """U = G w G' of a chunk of filters and a block of channels: each channel's taps lie in lanes, a filter each."""
    square, scheme, lanes, unit, depth = job.tile, job.scheme, job.tile.lanes, job.unit, job.kernel[0]
    row, matrices, rows = scheme.across.taps, scheme.across.matrices, depth * job.filled + APART
    taps = row * scheme.down.taps
    g, f, begin, end, numbers, out = share_of(item, seat, job)
    columns = numbers + (depth * taps + lanes - 1) // lanes * lanes * lanes
    for c in range(begin, end):
        filters = job.filters - f if c < job.all_channels else 0
        turn(job, job.x + (g * job.x_image + f * job.filter_step + c * job.x_channel), filters, depth * taps, numbers)
        for e in range(depth):
            for b in range(row):
                scheme.down.from_taps(square, numbers + (e * taps + b) * lanes, row * lanes, columns + b * lanes, row * lanes)
            for i in range(scheme.down.matrices):
                there = out + (i * matrices * rows + e * job.filled + c) * unit
                scheme.across.from_taps(square, columns + row * i * lanes, lanes, there, rows * unit)


def transformed_filters(weight: Array, bias: Array | None, width: int, lanes: int, scheme: Nested) -> Array:
    """[group][panel][bias, then matrix, tap of the depth, channel][filter]: G w G'; channels filled up to whole vectors.

    APART rows without meaning follow each matrix.
    """
    filled = -(-weight.shape[2] // lanes) * lanes
    depth = scheme.matrices * (math.prod(weight.shape[3:-2]) * filled + APART)
    return packing.panels(transform_filters, weight, bias, width, depth, scheme=scheme, filled=filled)


# Errors ---------------------------------------------------------------------------------------------------------------


def error_bound(scheme: Nested, channels: int, dtype: str) -> float:
    """`toom.error_bound` of a scheme in two dimensions; `channels` are those of a group."""
    taps = (scheme.down.overlap + 1) ** 2 if scheme.transposed else math.prod(scheme.window)  # those that an output sees
    return toom.error_bound((scheme.down, scheme.across), channels, taps * channels, dtype)


def worst_error(scheme: Nested, channels: int, dtype: str) -> float:
    """`toom.worst_error` of a scheme in two dimensions; `channels` are those of a group."""
    return toom.worst_error((scheme.down, scheme.across), channels, dtype)
