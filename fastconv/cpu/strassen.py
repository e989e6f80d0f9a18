"""Pointwise layers by Strassen's algorithm (1969), in Winograd's form: seven products of halves where the sum takes eight.

A pointwise layer is a product of matrices, A (filters, channels) and B (channels, pixels). Each is cut in two both ways:

    S1 = A21 + A22     T1 = B12 - B11     P1 = A11 B11     C11 = P1 + P2
    S2 = S1 - A11      T2 = B22 - T1      P2 = A12 B21     U2  = P1 + P6      U3 = U2 + P7
    S3 = A11 - A21     T3 = B22 - B12     P3 = S4 B22      C21 = U3 - P4
    S4 = A12 - S2      T4 = T2 - B21      P4 = A22 T4      C22 = U3 + P5
                                          P5 = S1 T1       C12 = U2 + P5 + P3
                                          P6 = S2 T2, P7 = S3 T3

The limit is the multiply-add peak, of seven eighths of the products. The sums of weights are packed, once a layer; those of the
image are made once an item. Those of the results cost next to nothing: a register tile goes on from the sums of another
one (Huang et al. 2016), so that seven products take three loads and three stores more. Pixel p meets p + half of all, filter f
and channel c likewise. An item is a band of pairs of pixels of one image, a chunk of pairs of filters, in lanes:

    strip of pairs          T2, T3, T4, T1 of all channels, to L2; B11, B21 and B22 are read in place
    panel of pairs          A11, A12, S2, S3, -A22, S1, S4 from L2
      strip of pairs          four tiles of the result: seven products, whose rank-1 updates run over half of the channels

`strassen_pointwise_turned` is for images whose channels are neighbours; results are put either way. Other layers are pointwise ones
in disguise: `strassen_patches` takes the taps of windows that do not overlap for channels, and
`Division.put` may weave the phases of a transposed layer's blocks (blocks.py); separable.py has a kernel of its own.

Sums mix numbers, and what is small beside its partner would be lost: a filter of weights of 1e-6 beside one of ones. So the second
of each pair is first brought to the size of the first, by a power of two, which rounds nothing: filters and channels when they are
packed, by their weights, pixels by their channels. Then errors are near those of a direct kernel (`error_bound`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.cpu import job as jobs
from fastconv.cpu import machine, packing, threads, toom
from fastconv.cpu.compiled import address, compiled, inlined
from fastconv.cpu.packing import turn
from fastconv.cpu.pointwise import prefetch_weights
from fastconv.cpu.sheets import turn_pixels
from fastconv.cpu.simd import TileShape
from fastconv.cpu.standard import evenly, put_sums
from fastconv.problem import Problem

Array = np.ndarray[Any, Any]
PRODUCTS, SUMS = 7, 4
LINE = 16  # numbers of float32 in a cache line
HEAD = 4  # rows of a panel before the channels' factors: bias and factor of its first filters, and of its second ones
# Factors: a filter of zeros is taken for one so much smaller than its partner; TINY makes 0 / 0 a 1.
MOST, TINY, ROOT = 2.0**30, 2.0**-120, math.sqrt(2)


@inlined
def to_the_size(tile, first, second):
    """The power of two that brings the second vector of sizes next to the first."""
    ratio = (first + tile.splat(TINY)) / (second + tile.splat(TINY))
    return (ROOT * ratio).clip(1 / MOST, MOST).power()


@inlined
def row_of(tile):
    """Numbers from one channel to the next in an item's sums of the image: whole vectors."""
    return (tile.rows + tile.lanes - 1) // tile.lanes * tile.lanes


@inlined
def add_up(tile, x, room, step, second, channels, factors, v):
    """v[factor of the second pixels, then sum, channel][pair] of a strip: pixels at x, their partners at x + second.

    No further than `room` from x on a channel may be read.
    """
    row, below = row_of(tile), channels * step
    matrix = channels * row
    for k in range(0, tile.rows, tile.lanes):
        left, right, one, two, y = room - k, room - second - k, tile.splat(0), tile.splat(0), x + k
        for c in range(channels):
            one = one + tile.load(y, 0, left).magnitude() + factors[c] * tile.load(y + below, 0, left).magnitude()
            y += second
            two = two + tile.load(y, 0, right).magnitude() + factors[c] * tile.load(y + below, 0, right).magnitude()
            y += step - second
        factor, there, y = to_the_size(tile, one, two), v + k, x + k
        (1.0 / factor).store(there)
        for c in range(channels):
            there += row
            b11, b21 = tile.load(y, 0, left), factors[c] * tile.load(y + below, 0, left)
            y += second
            b12, b22 = factor * tile.load(y, 0, right), factors[c] * (factor * tile.load(y + below, 0, right))
            y += step - second
            t1 = b12 - b11
            t2 = b22 - t1
            t2.store(there)
            (b22 - b12).store(there + matrix)
            (t2 - b21).store(there + 2 * matrix)
            t1.store(there + 3 * matrix)


@inlined
def added(acc, x, step, w, width, channels):
    """To a tile a product, over half of the channels."""
    for _ in range(channels):
        prefetch_weights(w, width, LINE)
        acc = acc.rank1(x, w)
        x += step
        w += width
    return acc


@inlined
def put(acc, job, rows, panel, width, sums):
    """A tile of the result, brought back to its own size."""
    acc.scaled(rows, panel + width, panel).clip(job.least, job.most).store(sums, width)


@inlined
def seven_products(tile, job, x, step, second, channels, v, panel, ones, sums):
    """The four tiles of the result of one strip and one panel."""
    row, width, quarter = row_of(tile), tile.width, job.sums_pitch
    rows, beside, u2, u3 = v, panel + 2 * width, ones + job.products_at, ones + (job.products_at + tile.rows * width)
    t, w, matrix, below = v + row, panel + job.head * width, channels * width, channels * step
    p1 = added(tile.zeros(), x, step, w, width, channels)
    p1.store(u2, width)
    put(added(p1, x + below, step, w + matrix, width, channels), job, ones, panel, width, sums)
    acc = added(tile.load_tile(u2, width), t, row, w + 2 * matrix, width, channels)
    acc.store(u2, width)
    acc = added(acc, t + channels * row, row, w + 3 * matrix, width, channels)
    acc.store(u3, width)
    acc = added(acc, t + 2 * channels * row, row, w + 4 * matrix, width, channels)
    put(acc, job, ones, beside, width, sums + 2 * quarter)
    p5 = added(tile.zeros(), t + 3 * channels * row, row, w + 5 * matrix, width, channels)
    put(p5.plus_tile(u3, width), job, rows, beside, width, sums + 3 * quarter)
    acc = p5.plus_tile(u2, width).times_rows(rows)
    acc = added(acc, x + (below + second), step, w + 6 * matrix, width, channels)
    put(acc, job, ones, panel, width, sums + quarter)


@compiled
def put_pairs(job, sums, step, n, first, width, pixel, count):
    """As standard.put_rows; the filters are those of the result, a separable layer's outer ones."""
    put_sums(job, sums, step, job.outer_filters, n, first, width, pixel, count)


@compiled
def multiply_pairs(job, scratch, x, weights, room, step, second, channels, chunk, n, begin, count):
    """A band of `count` pairs of pixels, a chunk of pairs of filters: pixels at x and x + second, results from `begin` on.

    Of an odd number of pixels the middle one is in two pairs, the first and the last, and put as the last one's. There is machine
    code for each tile, which pointwise and separable layers call by its address.
    """
    tile, short, half, channels = job.tile, job.short, job.outer_filters // 2, channels // 2
    pixels = job.out_space[0] * job.out_space[1] * job.out_space[2]
    after, alone = begin + pixels // 2, pixels % 2 if begin == 0 else 0
    sums, v, quarter, factors = scratch + job.sums_at, scratch + job.values_at, job.sums_pitch, weights + HEAD * tile.width
    strips, tall = evenly(count, tile, short)
    for k in range(tile.rows):
        scratch[k] = 1
    for k in range(tall):
        p = k * tile.rows
        add_up(tile, x + p, room - p, step, second, channels, factors, v + k * job.strip)
    for k in range(tall, strips):
        p = min(tall + k * short.rows, count - short.rows)
        add_up(short, x + p, room - p, step, second, channels, factors, v + k * job.strip)
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, half), tile.width):
        panel, used = weights + f // tile.width * job.outer_panel, min(tile.width, half - f)
        for k in range(tall):
            p = k * tile.rows
            seven_products(tile, job, x + p, step, second, channels, v + k * job.strip, panel, scratch, sums + p * tile.width)
        for k in range(tall, strips):
            p = min(tall + k * short.rows, count - short.rows)
            seven_products(short, job, x + p, step, second, channels, v + k * job.strip, panel, scratch, sums + p * tile.width)
        for g in range(2):
            here, filter = sums + 2 * g * quarter, g * half + f
            job.put_rows(here, tile.width, n, filter, used, begin, count)
            job.put_rows(here + (quarter + alone * tile.width), tile.width, n, filter, used, after + alone, count - alone)


@inlined
def multiply_runs(job, scratch, x, weights, room, step, second, channels, chunk, n, begin, pairs):
    """`pairs` of pixels, job.run at a time; the last ones are those left over."""
    runs = max(1, pairs // job.run)
    for k in range(runs):
        p, count = k * job.run, job.run if k < runs - 1 else pairs - k * job.run
        job.multiply_pairs(scratch, x + p, weights, room - p, step, second, channels, chunk, n, begin + p, count)


@compiled
def strassen_pointwise(item, seat, job):
    """One band of pairs of pixels of one image, one chunk of pairs of filters. Weights from combined_filters."""
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, pixels, scratch = band * job.band, job.out_space[2], job.scratch + seat * job.scratch_size
    count = job.band if band < job.bands - 1 else (pixels + 1) // 2 - begin  # the last band takes what is left over
    job.multiply_pairs(
        scratch, job.x + (n * job.x_image + begin), job.weight, pixels - begin, job.x_channel, pixels // 2, job.channels, chunk,
        n, begin, count,
    )  # fmt: skip


@compiled
def strassen_pointwise_turned(item, seat, job):
    """As strassen_pointwise, of images whose channels are neighbours: a band's pixels are turned, then their partners."""
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, pixels, step, square = band * job.band, job.out_space[2], job.x_steps[2], job.square
    count = job.band if band < job.bands - 1 else (pixels + 1) // 2 - begin  # the last band takes what is left over
    rows, pitch, image = job.scratch + seat * job.scratch_size, job.pitch, job.x + (n * job.x_image + begin * step)
    turn_pixels(square, image, step, job.channels, count, rows, pitch)
    turn_pixels(square, image + pixels // 2 * step, step, job.channels, count, rows + count, pitch)
    scratch = rows + job.channels * pitch
    job.multiply_pairs(scratch, rows, job.weight, pitch, pitch, count, job.channels, chunk, n, begin, count)


@compiled
def strassen_patches(item, seat, job):
    """One image, one chunk of pairs of filters, of windows that do not overlap: their taps are channels of a pointwise layer.

    Sheets (sheets.py) hold the whole image, a row of all pixels for each channel and tap. Weights from combined_filters.
    """
    pixels, depth = job.out_space[0] * job.out_space[1] * job.out_space[2], job.channels * job.kernel[1] * job.kernel[2]
    chunk, n, sheets, row = item % job.chunks, item // job.chunks, job.scratch + seat * job.scratch_size, job.phase_size
    job.fill_sheets(sheets, job.x + n * job.x_image, 0, 0)
    multiply_runs(job, sheets + depth * row, sheets, job.weight, row, row, pixels // 2, depth, chunk, n, 0, (pixels + 1) // 2)


# Weights --------------------------------------------------------------------------------------------------------------


@compiled
def measure_channels(item, seat, job):
    """out[c] = the size of channel c: the sum of its weights' magnitudes."""
    for c in range(job.channels):
        job.out[c] = 0
    for f in range(job.filters):
        weights = job.x + f * job.filter_step
        for c in range(job.channels):
            job.out[c] += abs(weights[c * job.x_channel])


@compiled
def pack_pairs(item, seat, job):
    """One panel: [bias, factor; bias, factor of the second filters; factors of channels; then sum, channel][filter]."""
    tile, lanes, unit, half, channels = job.tile, job.tile.lanes, job.unit, job.filters // 2, job.channels // 2
    sizes, panel, f = job.grad, job.out + item * job.panel, item * job.unit
    one = job.scratch + (seat * job.scratch_size + lanes * lanes)
    two, ratios, rows, matrix = one + job.channels * lanes, panel + HEAD * unit, panel + job.head * unit, channels * unit
    for c in range(0, (job.head - HEAD) * unit, lanes):  # and ones up to the end of a row
        left = channels - c
        factor = to_the_size(tile, tile.load(sizes + c, 0, left), tile.load(sizes + (channels + c), 0, left))
        (1.0 / factor).store(ratios + c)
    for k in range(0, unit, lanes):
        for g, numbers in ((0, one), (1, two)):
            first, left = g * half + f + k, half - f - k
            weights = job.x + first * job.filter_step
            if job.x_channel == 1:
                turn(job, weights, left, job.channels, numbers)
            else:
                for c in range(job.channels):
                    turn(job, weights + c * job.x_channel, left, 1, numbers + c * lanes)
            start = tile.splat(0) if job.bias_kind == 0 else tile.load(job.bias + first, 0, left)
            start.store(panel + (2 * g * unit + k))
        big, small = tile.splat(0), tile.splat(0)
        for c in range(channels):
            back, below = 1 / ratios[c], (channels + c) * lanes
            big = big + tile.load(one + c * lanes).magnitude() + back * tile.load(one + below).magnitude()
            small = small + tile.load(two + c * lanes).magnitude() + back * tile.load(two + below).magnitude()
        factor = to_the_size(tile, big, small)
        tile.splat(1).store(panel + (unit + k))
        (1.0 / factor).store(panel + (3 * unit + k))
        for c in range(channels):
            back, below, there = 1 / ratios[c], (channels + c) * lanes, rows + (c * unit + k)
            a11, a12 = tile.load(one + c * lanes), back * tile.load(one + below)
            a21, a22 = factor * tile.load(two + c * lanes), factor * (back * tile.load(two + below))
            s1 = a21 + a22
            s2 = s1 - a11
            a11.store(there)
            tile.load(one + below).store(there + matrix)
            s2.store(there + 2 * matrix)
            (a11 - a21).store(there + 3 * matrix)
            (tile.splat(0) - a22).store(there + 4 * matrix)
            s1.store(there + 5 * matrix)
            (ratios[c] * (a12 - s2)).store(there + 6 * matrix)


def head_of(channels: int, unit: int) -> int:
    """Rows of a panel before its first sum."""
    return HEAD + -(-channels // 2 // unit)


def combined_filters(weight: Array, bias: Array | None, unit: int) -> Array:
    """[panel][row][filter]: see `pack_pairs`; of a weight (1, filters, channels, 1)."""
    _, filters, channels, *_ = weight.shape
    weight, bias = packing.readable(weight), None if bias is None or bias.ndim > 1 else packing.contiguous(bias)
    lanes, size, head = machine.lanes(weight.dtype.name), weight.itemsize, head_of(channels, unit)
    panels, depth = -(-filters // 2 // unit), head + PRODUCTS * channels // 2
    out, measured = packing.recycled_empty((panels, depth, unit), weight.dtype), np.empty(channels, weight.dtype)
    turned = 2 * channels + lanes  # of two panels' filters; `turn` writes whole squares, the last from the last channel on
    room = -(-lanes * (lanes + turned) // packing.ALIGNMENT) * packing.ALIGNMENT
    values = {
        "x": packing.address_of(weight), "grad": packing.address_of(measured), "out": packing.address_of(measured),
        "filters": filters, "channels": channels, "filter_step": weight.strides[1] // size, "x_channel": weight.strides[2] // size,
        "unit": unit, "panel": depth * unit, "head": head, "scratch_size": room,
        "bias_kind": jobs.BIAS["none" if bias is None else "channel"], "bias": 0 if bias is None else packing.address_of(bias),
    }  # fmt: skip
    kinds, seats = jobs.arguments(weight.dtype.name, TileShape(lanes, 1, lanes, 1, weight.dtype.name)), threads.seats()
    words, work = jobs.fill(values), float(threads.OPERATIONS_A_BYTE * out.nbytes)
    threads.run(address(measure_channels, *kinds), packing.address_of(words), 1, work, seats)
    _held, place = packing.scratch(seats * room * size)
    words[jobs.PLACES["out"]], words[jobs.PLACES["scratch"]] = packing.address_of(out), place
    threads.run(address(pack_pairs, *kinds), packing.address_of(words), panels, work, seats)
    return out


# Errors ---------------------------------------------------------------------------------------------------------------

# Of each product the blocks of A and of B (11, 12, 21, 22) that it takes, in the order in which they are packed; the products
# that make each block of C in turn.
OF_FILTERS = {
    "P1": (1, 0, 0, 0), "P2": (0, 1, 0, 0), "P6": (-1, 0, 1, 1), "P7": (1, 0, -1, 0), "P4": (0, 0, 0, -1), "P5": (0, 0, 1, 1),
    "P3": (1, 1, -1, -1),
}  # fmt: skip
OF_IMAGE = {
    "P1": (1, 0, 0, 0), "P2": (0, 0, 1, 0), "P6": (1, -1, 0, 1), "P7": (0, -1, 0, 1), "P4": (1, -1, -1, 1), "P5": (-1, 1, 0, 0),
    "P3": (0, 0, 0, 1),
}  # fmt: skip
RESULTS = {"C11": ("P1", "P2"), "C12": ("P1", "P6", "P5", "P3"), "C21": ("P1", "P6", "P7", "P4"), "C22": ("P1", "P6", "P7", "P5")}
# Errors of half a unit in the last place that one number of a product meets beside those of adding up: three sums of weights, three
# of the image, three of tiles and the bias.
ROUNDINGS = 10


def products_of(result: str) -> Iterator[tuple[Array, Array]]:
    """Of each product of a block of C in turn: what it takes of A and B, [block of A][block of B], and the sum so far."""
    total = np.zeros((4, 4))
    for name in RESULTS[result]:
        product = np.outer(OF_FILTERS[name], OF_IMAGE[name])
        total = total + product
        yield product, total


def error_bound(problem: Problem) -> float:
    """Bound of the error, as a share of conv(|x|, |weight|), that holds for numbers without a common trend.

    As `toom.error_bound`: the share is of an image's and filter's largest value. Numbers are independent, of mean 0 and normal,
    partners of one size, as they are brought to; so are rounding errors. Then squares add up: each of a product's D updates rounds
    a sum of at most D times the squares of its coefficients, and each term meets ROUNDINGS more.
    """
    depth = problem.channels // 2
    squares = max(
        sum(depth * float(depth * (total**2).sum() + ROUNDINGS * (product**2).sum()) for product, total in products_of(result))
        for result in RESULTS
    )
    return toom.CONFIDENCE * toom.unit(problem.dtype) / math.sqrt(3) * math.sqrt(squares) / (problem.channels * 2 / math.pi)


def worst_error(channels: int, dtype: str) -> float:
    """Bound for any numbers, as a share of a larger scale: of a channel pair the largest of four |x| and of four |weight|.

    No kernel of sums of halves can keep to less (Higham 2002, chapter 23): what meets in a sum shares its rounding errors.
    """
    n = (4 * channels // 2 + ROUNDINGS) * toom.unit(dtype)
    return max(sum(float(abs(product).sum()) for product, _ in products_of(result)) for result in RESULTS) * n / (1 - n)
