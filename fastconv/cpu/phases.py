"""Atrous convolution of a large rate by fewer products: phases of few pixels between zeros.

A 3x3 layer of rate d is d x d convolutions apart, each of every d-th pixel of every d-th row. Where an image is no larger than
3 d, and padded to keep its size, these have three rows and columns or fewer: 33 x 33 at rate 12, as DeepLab has them, has
phases of 3 and 2. A direct kernel skips the taps in the padding, and is left with 7 of 9 products along a dimension of three
pixels, 4 of 6 of two, 1 of one. `toom.Enclosed` takes 5, 3 and 1, and its coefficients are no others than 1 and -1:

    out of a phase = A' [ sum over channels of (G w G') * (B' d B) ] A,   d all of its pixels

which makes 2916 of 5625 products at rate 12, and 1764 of 2601 at rate 24. Rows of `long` phases come first, those of one pixel
fewer behind; so do columns, and each of the four kinds of phases has weights of its own. An item is a band of phases of rows,
with all phases of columns, and a chunk of filters:

    gather     x -> v[kind][product][block of channels][phase][lane]    as winograd.py, a phase in place of a tile
    multiply   v, u -> m[panel][kind][product][phase][filter]           winograd.py's, over all channels
    scatter    m -> out                                                 A' m A, clip, transposed back

where phases of one kind, and their products, follow one another. Products are outermost: v, which the last cache holds, passes
once, and so do the weights, of which there are many.
"""

from __future__ import annotations

from fastconv.cpu import toom
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.toom import PAIR_2, PAIR_3, Nested, nested
from fastconv.cpu.winograd import APART

SCHEMES = {"winograd_phases_3": nested(PAIR_3), "winograd_phases_2": nested(PAIR_2)}


@inlined
def gather(tile, job, down, across, lines, columns, v, rows, line, first, count):
    """v[product][block][phase] = B' d B of `count` phases in a row, from column `first` on, the line-th of so many `rows`."""
    lanes, pitch, rate = tile.lanes, job.pitch * tile.lanes, job.dilation[2] * tile.lanes
    apart, there = job.blocks * rows * count * lanes, v + line * count * lanes
    for q in range(count):
        here = (first + q) * lanes
        for k in range(across.numbers):
            down.to_points(tile, lines + (here + k * rate), pitch, columns + (here + k * rate), pitch)
        for k in range(down.count):
            across.to_points(tile, columns + (here + k * pitch), rate, there + (k * across.count * apart + q * lanes), apart)


@inlined
def gather_row(tile, job, down, across, lines, columns, v, c, rows, line):
    """A row of phases, of both kinds of columns, of block c of the channels."""
    wide, narrow = job.long[2], job.dilation[2] - job.long[2]
    long, short = rows * wide * tile.lanes, rows * narrow * tile.lanes
    behind = v + down.count * across.long.count * job.blocks * long
    gather(tile, job, down, across.long, lines, columns, v + c * long, rows, line, 0, wide)
    gather(tile, job, down, across.short, lines, columns, behind + c * short, rows, line, wide, narrow)


@inlined
def scatter(tile, job, down, across, m, start, columns, sums, rows, line, first, count):
    """sums[row][column][lane] = clip(A' m A + bias) of the same phases, one vector of filters."""
    lanes, width, rate, in_a_row = tile.lanes, job.unit, job.dilation[2], across.count * tile.lanes
    apart, here = rows * count * width, m + line * count * width
    for q in range(count):
        for k in range(across.count):
            there = columns + k * lanes
            for value in down.from_points(tile, here + (k * apart + q * width), across.count * apart):
                value.store(there)
                there += in_a_row
        for k in range(down.outputs):
            there = sums + (k * job.sums_pitch + first + q) * width
            for value in across.from_points(tile, columns + k * in_a_row, lanes):
                (value + start).clip(job.least, job.most).store(there)
                there += rate * width


@inlined
def scatter_row(tile, job, down, across, m, start, columns, sums, rows, line):
    """A row of phases, of both kinds of columns."""
    wide, narrow = job.long[2], job.dilation[2] - job.long[2]
    behind = m + down.count * across.long.count * rows * wide * job.unit
    scatter(tile, job, down, across.long, m, start, columns, sums, rows, line, 0, wide)
    scatter(tile, job, down, across.short, behind, start, columns, sums, rows, line, wide, narrow)


@inlined
def multiply_kinds(job, down, across, v, weights, m, panels, tall, short):
    """m[panel][kind][product][phase][filter], of so many rows of phases of either kind."""
    lanes, blocks, unit, in_a_row = job.tile.lanes, job.blocks, job.unit, job.points[2]
    matrix, wide, narrow, begin_i = (blocks * lanes + APART) * unit, job.long[2], job.dilation[2] - job.long[2], 0
    for products_i, rows in ((down.long.count, tall), (down.short.count, short)):
        begin_j = 0
        for products_j, columns in ((across.long.count, wide), (across.short.count, narrow)):
            count = rows * columns
            for i in range(begin_i, begin_i + products_i):
                for j in range(begin_j, begin_j + products_j):
                    w = weights + (i * in_a_row + j) * matrix
                    for p in range(panels):
                        job.multiply(v, w + p * job.panel, m + p * job.tiles * unit, 0, blocks, 0, count, count * lanes)
                    v += blocks * count * lanes
                    m += count * unit  # what a register tile put beyond them is overwritten
            begin_j += products_j
        begin_i += products_i


@compiled
def winograd_phases(item, seat, job):
    """One band of phases of rows, one chunk of a group's filters. Weights from winograd.transformed_filters."""
    tile, down, across, (_, height, width) = job.tile, job.scheme.down, job.scheme.across, job.out_space
    band, chunk, image = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    g, n, begin, first = image % job.groups, image // job.groups, band * job.band, chunk * job.chunk
    lines, unit = job.scratch + seat * job.scratch_size, job.unit
    columns, v, m, sums = lines + job.columns_at, lines + job.values_at, lines + job.products_at, lines + job.sums_at
    rows = min(job.band, job.dilation[1] - begin)
    tall = max(0, min(rows, job.long[1] - begin))
    short, wide, narrow = rows - tall, job.long[2], job.dilation[2] - job.long[2]
    # Phases times products of the taller rows, behind which lie those of the others.
    behind = down.long.count * tall * (across.long.count * wide + across.short.count * narrow)
    for c in range(job.blocks):
        x = job.x + (n * job.x_image + (g * job.channels + c * tile.lanes) * job.x_channel)
        for r in range(rows):
            job.fill_lines(lines, x, begin + r, job.channels - c * tile.lanes)
            if r < tall:
                gather_row(tile, job, down.long, across, lines, columns, v, c, tall, r)
            else:
                gather_row(tile, job, down.short, across, lines, columns, v + behind * job.blocks * tile.lanes, c, short, r - tall)
    panels = (min(job.chunk, job.filters - first) + unit - 1) // unit
    weights = job.weight + (g * job.panels + first // unit) * job.panel
    multiply_kinds(job, down, across, v, weights + unit, m, panels, tall, short)
    for p in range(panels):
        f, panel, products = g * job.filters + first + p * unit, weights + p * job.panel, m + p * job.tiles * unit
        for r in range(rows):
            for k in range(0, unit, tile.lanes):
                start, there = tile.load(panel + k), sums + k
                if r < tall:
                    scatter_row(tile, job, down.long, across, products + k, start, columns, there, tall, r)
                else:
                    here = products + (behind * unit + k)
                    scatter_row(tile, job, down.short, across, here, start, columns, there, short, r - tall)
            for i in range(begin + r, height, job.dilation[1]):
                row = sums + i // job.dilation[1] * job.sums_pitch * unit
                job.put_rows(row, unit, n, f, min(unit, job.filters - first - p * unit), i * width, width)


# Errors ---------------------------------------------------------------------------------------------------------------


def error_bound(scheme: Nested, channels: int, dtype: str) -> float:
    """`toom.error_bound` of the kind of phases that loses most; the longest have a pixel that sees as many taps as they have rows.

    `channels` are those of a group.
    """
    kinds = [max((pair.long, pair.short), key=toom.amplification) for pair in (scheme.down, scheme.across)]
    return toom.error_bound(kinds, channels, scheme.down.outputs * scheme.across.outputs * channels, dtype)


def worst_error(scheme: Nested, channels: int, dtype: str) -> float:
    """`toom.worst_error` of the longer phases."""
    return toom.worst_error((scheme.down.long, scheme.across.long), channels, dtype)
