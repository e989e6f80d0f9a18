"""Winograd convolution F(4x4, 3x3): 16 outputs of a 3x3 filter by 36 multiplications instead of 144 (Lavin and Gray, 2015).

    out tile = A' [ sum over channels of (G w G') * (B' d B) ] A,   d a 6x6 window of x, w a 3x3 filter, * number by number

The points are those of the CPU's F(4x4), 0, +-2/3, +-3/2 and infinity (cpu/toom.py), whose error stays close to a direct kernel's.
Neighbouring rows of B' and columns of A' differ in signs only, so one product serves both. Three launches:

    winograd_windows    v[point][channel][tile] = B' d B        a thread a window of one channel
    tiled_pointwise     m[point][filter][tile] = u v            36 groups of one implicit matrix product: pointwise.py
    winograd_tiles      out = finish(A' m A)                    a thread a tile of one filter

and for the weights, once a layer, `winograd_filters`: u = G w G', in the order of packing.filter_panels. v and m pass through
memory, 36/16 of the image and the result each, so the limit of small layers is memory. Neighbouring threads read and write
neighbouring tiles; a thread keeps its 36 numbers in registers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import FLOATS, at, i4, place4, put, quotient, seen4, weight_of
from fastconv.cuda.tiles import Tile

OUTPUTS, POINTS, WINDOW = 4, 6, 36  # of a tile each way; of the scheme each way; and in all
R, S = 2 / 3, 3 / 2  # the points, with their squares and cubes
P, Q = R * R, S * S
R_SLOPE, S_SLOPE = 1 / (2 * P * (P - Q)), 1 / (2 * Q * (Q - P))  # of Lagrange's formula


@lru_cache(maxsize=2)
def transforms(dtype: str) -> Any:
    """B' d, A' m and G w of six, six and three numbers, in a dtype's own constants."""
    number = {"float32": np.float32, "float64": np.float64}[dtype]
    constants: Any = map(number, (R, S, P, Q, R**3, S**3, P + Q, R_SLOPE, S_SLOPE))
    r, s, p, q, r3, s3, total, g_r, g_s = constants

    @function
    def to_points(d0, d1, d2, d3, d4, d5):
        even_r, odd_r = d4 - q * d2, r * d3 - s * d1  # r q = s and s p = r
        even_s, odd_s = d4 - p * d2, s * d3 - r * d1
        first, last = d0 - total * d2 + d4, d1 - total * d3 + d5
        return first, even_r + odd_r, even_r - odd_r, even_s + odd_s, even_s - odd_s, last

    @function
    def from_points(m0, m1, m2, m3, m4, m5):
        sum_r, difference_r, sum_s, difference_s = m1 + m2, m1 - m2, m3 + m4, m3 - m4
        return (
            m0 + sum_r + sum_s, r * difference_r + s * difference_s,
            p * sum_r + q * sum_s, r3 * difference_r + s3 * difference_s + m5,
        )  # fmt: skip

    @function
    def from_taps(w0, w1, w2):
        even_r, odd_r, even_s, odd_s = g_r * (w0 + p * w2), g_r * r * w1, g_s * (w0 + q * w2), g_s * s * w1
        return w0, even_r + odd_r, even_r - odd_r, even_s + odd_s, even_s - odd_s, w2

    return to_points, from_points, from_taps


@function
def tile_of(job, t):
    """The t-th tile: its image, and its first row and column of the result."""
    _, height, width = job.out_space
    across, down = quotient(width + (OUTPUTS - 1), OUTPUTS), quotient(height + (OUTPUTS - 1), OUTPUTS)
    line = quotient(t, across)
    n = quotient(line, down)
    row = i4(line - n * down)
    return n, i4(row * OUTPUTS), i4((t - line * across) * OUTPUTS)


@lru_cache(maxsize=4)
def winograd_filters(dtype: str, tile: Tile) -> Any:
    """Filters to points, u = G w G', of one filter and channel a thread, to [point][panel][channel][filter]; zeros beyond."""
    floats, zero, rows, depth = FLOATS[dtype], FLOATS[dtype](0), tile.filters, tile.terms
    _, _, from_taps = transforms(dtype)

    @kernel()
    def winograd_filters(job):
        half = cuda.local.array(18, floats)
        channels, (_, step_a, step_b) = i4((job.channels + (depth - 1)) // depth * depth), job.weight_steps
        size = i4(job.panels * channels * rows)
        for o in range(cuda.grid(1), size, cuda.gridsize(1)):
            f, c = i4(o // (rows * channels) * rows + o % rows), i4(o // rows % channels)
            live = f < job.filters and c < job.channels
            w = i4(weight_of(job, f) + c * job.weight_channel) if live else i4(0)
            for b in range(3):
                w0, w1, w2 = zero, zero, zero
                if live:
                    here = i4(w + b * step_b)
                    w0, w1, w2 = at(job.weight, here), at(job.weight, i4(here + step_a)), at(job.weight, i4(here + 2 * step_a))
                column = from_taps(w0, w1, w2)
                half[b], half[3 + b], half[6 + b], half[9 + b], half[12 + b], half[15 + b] = column
            for a in range(6):
                row = from_taps(half[a * 3], half[a * 3 + 1], half[a * 3 + 2])
                there = i4(a * 6 * size + o)
                put(job.out, there, row[0])
                put(job.out, i4(there + size), row[1])
                put(job.out, i4(there + 2 * size), row[2])
                put(job.out, i4(there + 3 * size), row[3])
                put(job.out, i4(there + 4 * size), row[4])
                put(job.out, i4(there + 5 * size), row[5])

    return winograd_filters


@lru_cache(maxsize=4)
def winograd_windows(dtype: str) -> Any:
    """Windows to points, v = B' d B, to job.out[point][channel][tile]; job.out_filter numbers a channel, job.out_image a point."""
    floats, zero = FLOATS[dtype], FLOATS[dtype](0)
    to_points, _, _ = transforms(dtype)

    @kernel()
    def winograd_windows(job):
        half = cuda.local.array(WINDOW, floats)
        tiles = job.out_filter
        for o in range(cuda.grid(1), tiles * job.channels, cuda.gridsize(1)):
            c = quotient(o, tiles)
            t = i4(o - c * tiles)
            n, i, j = tile_of(job, t)
            i, j = i4(i - job.before[1]), i4(j - job.before[2])
            image = i4(job.x_first + n * job.x_image + c * job.x_channel)
            for b in range(6):
                for a in range(6):
                    pixel = seen4(job, i4(0), i4(i + a), i4(j + b))
                    half[a * 6 + b] = at(job.x, i4(image + pixel)) if pixel >= 0 else zero
                column = to_points(half[b], half[6 + b], half[12 + b], half[18 + b], half[24 + b], half[30 + b])
                half[b], half[6 + b], half[12 + b], half[18 + b], half[24 + b], half[30 + b] = column
            for a in range(6):
                k = a * 6
                row = to_points(half[k], half[k + 1], half[k + 2], half[k + 3], half[k + 4], half[k + 5])
                there = i4(k * job.out_image + o)
                put(job.out, there, row[0])
                put(job.out, i4(there + job.out_image), row[1])
                put(job.out, i4(there + 2 * job.out_image), row[2])
                put(job.out, i4(there + 3 * job.out_image), row[3])
                put(job.out, i4(there + 4 * job.out_image), row[4])
                put(job.out, i4(there + 5 * job.out_image), row[5])

    return winograd_windows


@lru_cache(maxsize=64)
def winograd_tiles(dtype: str, finish: Any) -> Any:
    """Points to tiles, out = finish(A' m A), from job.x[point][filter][tile], x_channel numbers a filter, x_image a point."""
    floats = FLOATS[dtype]
    _, from_points, _ = transforms(dtype)

    @kernel()
    def winograd_tiles(job):
        half = cuda.local.array(24, floats)
        tiles = job.x_channel
        for o in range(cuda.grid(1), tiles * job.filters, cuda.gridsize(1)):
            f = quotient(o, tiles)
            t = i4(o - f * tiles)
            n, i, j = tile_of(job, t)
            for b in range(6):
                here, down = i4(b * job.x_image + o), i4(6 * job.x_image)
                column = from_points(
                    at(job.x, here), at(job.x, i4(here + down)), at(job.x, i4(here + 2 * down)),
                    at(job.x, i4(here + 3 * down)), at(job.x, i4(here + 4 * down)), at(job.x, i4(here + 5 * down)),
                )  # fmt: skip
                half[b], half[6 + b], half[12 + b], half[18 + b] = column
            image = i4(n * job.out_image)
            for a in range(4):
                k = a * 6
                row = from_points(half[k], half[k + 1], half[k + 2], half[k + 3], half[k + 4], half[k + 5])
                for b in range(4):
                    if i + a < job.out_space[1] and j + b < job.out_space[2]:
                        within = place4(job, f, i4(0), i4(i + a), i4(j + b))
                        put(job.out, i4(image + within), finish(job, row[b], f, image, within))

    return winograd_tiles
