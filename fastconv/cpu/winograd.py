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

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from fastconv.cpu import packing
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.simd import TileShape, pointer
from fastconv.cpu.standard import put_row

Array = np.ndarray[Any, Any]
Matrix = list[list[Fraction]]
P = 2 / 3
P2, P3, Q, Q2, Q3 = P**2, P**3, 1 / P, 1 / P**2, 1 / P**3
S = P2 + Q2


@dataclass(frozen=True)
class Scheme:
    """F(outputs, taps) of Toom and Cook: `points` are the finite ones, infinity comes last.

    A' (G w * B' d) is exactly the correlation of outputs + taps - 1 numbers d with the taps w.
    """

    outputs: int
    taps: int
    points: tuple[Fraction, ...]

    @cached_property
    def a(self) -> Matrix:
        """A', outputs x points: powers of the points."""
        last = self.outputs - 1
        return [[p**k for p in self.points] + [Fraction(k == last)] for k in range(self.outputs)]

    @cached_property
    def g(self) -> Matrix:
        """G, points x taps: values of the taps' polynomial, divided as in Lagrange's formula."""
        rows = []
        for p in self.points:
            divisor = math.prod((p - q for q in self.points if q != p), start=Fraction(1))
            rows.append([p**k / divisor for k in range(self.taps)])
        return [*rows, [Fraction(k == self.taps - 1) for k in range(self.taps)]]

    @cached_property
    def b(self) -> Matrix:
        """B', points x numbers: coefficients of the product of (t - q) over all points but the row's own."""
        numbers = self.outputs + self.taps - 1
        rows = [_product([q for q in self.points if q != p]) for p in (*self.points, None)]
        return [row + [Fraction(0)] * (numbers - len(row)) for row in rows]


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (t - root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [s - t for s, t in zip(shifted, scaled, strict=True)]
    return coefficients


SCHEMES = {
    2: Scheme(2, 3, (Fraction(0), Fraction(1), Fraction(-1))),
    4: Scheme(4, 3, (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))),
}


# Transforms, the rows of B' and A' written out: of one vector each at p, p + step, ... -----------------------------------


@inlined
def to_six(tile, p, step, out, apart):
    """B' d of F(4), to out, out + apart, ..."""
    d0, d1, d2 = tile.load(p), tile.load(p + step), tile.load(p + 2 * step)
    d3, d4, d5 = tile.load(p + 3 * step), tile.load(p + 4 * step), tile.load(p + 5 * step)
    even_p, odd_p = d4 - Q2 * d2, P * d3 - Q * d1
    even_q, odd_q = d4 - P2 * d2, Q * d3 - P * d1
    (d0 - S * d2 + d4).store(out)
    (even_p + odd_p).store(out + apart)
    (even_p - odd_p).store(out + 2 * apart)
    (even_q + odd_q).store(out + 3 * apart)
    (even_q - odd_q).store(out + 4 * apart)
    (d1 - S * d3 + d5).store(out + 5 * apart)


@inlined
def from_six(tile, p, step):
    """A' m of F(4)."""
    m0, m1, m2 = tile.load(p), tile.load(p + step), tile.load(p + 2 * step)
    m3, m4, m5 = tile.load(p + 3 * step), tile.load(p + 4 * step), tile.load(p + 5 * step)
    even_p, odd_p, even_q, odd_q = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + even_p + even_q, P * odd_p + Q * odd_q, P2 * even_p + Q2 * even_q, P3 * odd_p + Q3 * odd_q + m5


@inlined
def to_four(tile, p, step, out, apart):
    """B' d of F(2), to out, out + apart, ..."""
    d0, d1, d2, d3 = tile.load(p), tile.load(p + step), tile.load(p + 2 * step), tile.load(p + 3 * step)
    (d2 - d0).store(out)
    (d1 + d2).store(out + apart)
    (d2 - d1).store(out + 2 * apart)
    (d3 - d1).store(out + 3 * apart)


@inlined
def from_four(tile, p, step):
    """A' m of F(2)."""
    m0, m1, m2, m3 = tile.load(p), tile.load(p + step), tile.load(p + 2 * step), tile.load(p + 3 * step)
    return m0 + m1 + m2, m1 - m2 + m3


@inlined
def put(values, out, apart):
    """The vectors to out, out + apart, ..."""
    for value in values:
        value.store(out)
        out += apart


@inlined
def put_sums(values, start, job, out, apart):
    """The vectors plus the bias, clipped, to out, out + apart, ..."""
    for value in values:
        (value + start).clip(job.least, job.most).store(out)
        out += apart


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
def gather(tile, job, transform, outputs, lines, columns, v, apart):
    """v[point][t] = B' d B for one row of tiles; `columns` is scratch for B' d."""
    points, lanes, pitch, dilation = outputs + 2, tile.lanes, job.pitch * tile.lanes, job.dilation[2]
    for column in range(job.pitch):
        transform(tile, lines + column * lanes, pitch, columns + column * lanes, pitch)
    for i in range(points):
        t = 0
        for phase in range(dilation):
            for j in range(phase, job.out_space[2], outputs * dilation):
                window = columns + (i * pitch + j * lanes)
                transform(tile, window, dilation * lanes, v + (i * points * apart + t * lanes), apart)
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
def scatter(tile, job, transform, outputs, m, apart, start, columns, sums):
    """sums[row][column][lane] = clip(A' m A + bias): `outputs` rows of the result of one row of tiles, one vector of filters."""
    points, dilation, pitch = outputs + 2, job.dilation[2], job.pitch * tile.width
    for phase in range(dilation):
        for j in range(phase, job.out_space[2], outputs * dilation):
            for k in range(points):
                put(transform(tile, m + k * apart, points * apart), columns + k * tile.lanes, points * tile.lanes)
            for i in range(outputs):
                there = sums + (i * pitch + j * tile.width)
                put_sums(transform(tile, columns + i * points * tile.lanes, tile.lanes), start, job, there, dilation * tile.width)
            m += tile.width


@inlined
def convolve(item, seat, job, to_points, from_points, outputs):
    """One band of rows of tiles, of one phase of rows, one chunk of a group's filters. Weights from transformed_filters."""
    tile, points, (_, apart, _), (_, out_height, _) = job.tile, (outputs + 2) ** 2, job.dilation, job.out_space
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
            gather(tile, job, to_points, outputs, line, columns, there, blocks * tiles * tile.lanes)
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), tile.width):
        panel = job.weight + (g * job.panels + f // tile.width) * job.panel
        multiply(tile, points, v, panel + tile.width, m, blocks, tiles)
        for r in range(down):
            for k in range(0, tile.width, tile.lanes):
                start, row = tile.load(panel + k), m + (r * job.across * tile.width + k)
                scatter(tile, job, from_points, outputs, row, tiles * tile.width, start, columns, sums + k)
            for i in range(outputs):
                row_out = phase + ((begin + r) * outputs + i) * apart
                if row_out < out_height:
                    here = sums + i * job.pitch * tile.width
                    put_row(tile, job, here, n, g, f, row_out * job.out_space[2], job.out_space[2])


@compiled
def winograd_4x4(item, seat, job):
    """F(4x4, 3x3)."""
    convolve(item, seat, job, to_six, from_six, 4)


@compiled
def winograd_2x2(item, seat, job):
    """F(2x2, 3x3)."""
    convolve(item, seat, job, to_four, from_four, 2)


# Weights: the rows of G written out, and G w G' -----------------------------------------------------------------------

G4 = [[float(number) for number in row] for row in SCHEMES[4].g]
EVEN_P0, ODD_P, EVEN_P2, EVEN_Q0, ODD_Q, EVEN_Q2 = *G4[1], *G4[3]


@inlined
def taps_to_six(tile, p, step, out, apart):
    """G w of F(4), to out, out + apart, ..."""
    w0, w1, w2 = tile.load(p), tile.load(p + step), tile.load(p + 2 * step)
    even_p, odd_p, even_q, odd_q = EVEN_P0 * w0 + EVEN_P2 * w2, ODD_P * w1, EVEN_Q0 * w0 + EVEN_Q2 * w2, ODD_Q * w1
    put((w0, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, w2), out, apart)


@inlined
def taps_to_four(tile, p, step, out, apart):
    """G w of F(2), to out, out + apart, ..."""
    w0, w1, w2 = tile.load(p), tile.load(p + step), tile.load(p + 2 * step)
    even, odd = 0.5 * w0 + 0.5 * w2, 0.5 * w1
    put((tile.splat(0) - w0, even + odd, even - odd, w2), out, apart)


@inlined
def transform_filters(square, transform, points, weight, room, out, panels, width, sizes):
    """U of every panel, after the biases: `lanes` filters of one channel at a time, through `room`."""
    (groups, filters, channels, padded), lanes = sizes, square.lanes
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
                    transform(square, turned + b * lanes, 3 * lanes, columns + b * lanes, 3 * lanes)
                for i in range(points):
                    transform(square, columns + 3 * i * lanes, lanes, u + (i * points * padded + c) * width, padded * width)


@compiled
def transform_filters_4x4(square, weight, room, out, panels, width, sizes):
    """For winograd_4x4."""
    transform_filters(square, taps_to_six, 6, weight, room, out, panels, width, sizes)


@compiled
def transform_filters_2x2(square, weight, room, out, panels, width, sizes):
    """For winograd_2x2."""
    transform_filters(square, taps_to_four, 4, weight, room, out, panels, width, sizes)


def transformed_filters(weight: Array, bias: Array | None, groups: int, width: int, lanes: int, outputs: int) -> Array:
    """[group][panel][bias, then point, channel][filter]: G w G'; channels filled up with zeros to whole vectors."""
    points, (filters, channels) = outputs + 2, weight.shape[:2]
    padded = -(-channels // lanes) * lanes
    out = packing.panels(weight, bias, groups, width, 1 + points**2 * padded)
    if padded > channels:
        out[:, :, 1:].reshape(groups, -1, points**2, padded, width)[:, :, :, channels:] = 0
    room = packing.aligned_empty(((9 + lanes + 3 * points) * lanes,), out.dtype)
    transform = transform_filters_4x4 if outputs == 4 else transform_filters_2x2
    sizes = (groups, filters // groups, channels, padded)
    square = TileShape(lanes, 1, lanes, 1, out.dtype.name)
    transform(square, packing.flat(weight), room, packing.flat(out), out.shape[1], width, sizes)
    return out


# Errors ---------------------------------------------------------------------------------------------------------------

# What precision="high" promises: an error below this share of conv(|x|, |weight|).
HIGH = 1e-5
# Rounding errors that many of their standard deviations from nothing are met once in 4e13 numbers (Hoeffding: 2 exp(-k^2 / 2)).
CONFIDENCE = 8.0
# Errors of half a unit in the last place that one product meets on its way through G w G', B' d B and A' m A, bias included.
# A pass of G or B' rounds a coefficient, its product and two sums, one of A' a sum more; in float64 the coefficients of B' and
# A' carry up to six errors themselves.
ROUNDINGS = {"float32": 2 * 4 + 2 * 4 + 2 * 5 + 1, "float64": 2 * 4 + 2 * 9 + 2 * 10 + 1}


def error_bound(outputs: int, channels: int, dtype: str) -> float:
    """Bound of the error, as a share of conv(|x|, |weight|), that holds for numbers without a common trend.

    `channels` are those of a group; the share is of an image's and filter's largest value, over all places where a window
    meets the image. An output is a sum over points of A' times m, m a sum over channels of u * v. Take image and weights to
    be independent, of mean 0 and normal, and rounding errors too, uniform within half a unit in the last place (Higham and
    Mary 2019). Then squares add up, over points, channels and errors alike: the sum of the first k products is of size sqrt(k),
    so that adding C of them has a mean square error of 1 + ... + C = C (C + 1) / 2 units, and their N other ROUNDINGS one of
    N C. Coefficients amplify it by the sum of the squares of A' G B', which is squared by the second dimension. The scale is
    9 C 2/pi for the same numbers, and so the share does not grow with C.

    It is what the plan holds against HIGH. Numbers with a common trend, constant images under constant filters above all,
    may pass it in any kernel, the direct one before this one, which adds nine times as many of them; for them `worst_error` holds.
    """
    spread = float(_terms(outputs, 2).sum((1, 2)).max())
    errors = math.sqrt((channels + 1) / 2 / channels + ROUNDINGS[dtype] / channels)
    return CONFIDENCE * _unit(dtype) / math.sqrt(3) * spread * errors / (9 * 2 / math.pi)


def worst_error(outputs: int, channels: int, dtype: str) -> float:
    """Bound of the same share that holds for any numbers: every error the largest, all of one sign.

    |error| <= gamma_n |A'| (sum over c of |G||w||G'| * |B'||d||B|) |A|, gamma_n = n u / (1 - n u), n = C + ROUNDINGS (Higham
    2002, section 3.1). The tap t meets the number s in the window at s - t, inside the tile or not. Of a place's terms the
    largest coefficient counts for all, and all places for as much as the largest value.
    """
    places = range(1 - SCHEMES[outputs].taps, outputs + 2)
    spread = max(sum(np.diagonal(of_taps, place).max() for place in places) for of_taps in _terms(outputs, 1))
    n = (ROUNDINGS[dtype] + channels) * _unit(dtype)
    return float(spread**2 * n / (1 - n))


@lru_cache(maxsize=4)
def _terms(outputs: int, power: int) -> Array:
    """[output][tap][number]: coefficients of A' G B', each taken to this power, summed over the points."""
    scheme = SCHEMES[outputs]
    a, g, b = (np.abs(np.array(matrix, float)) ** power for matrix in (scheme.a, scheme.g, scheme.b))
    return np.einsum("ip,pt,ps->its", a, g, b)


def _unit(dtype: str) -> float:
    """The unit roundoff."""
    return float(np.finfo(dtype).eps) / 2
