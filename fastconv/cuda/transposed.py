"""Transposed convolution: every pixel of the input spreads a scaled copy of the kernel over the result.

    out[n, f, i, j] = finish(bias + sum over c, a, b of weight[c, f, a, b] * x[n, c, y, u])
                      over those y, u with  y*stride + a*dilation - before = i  and  u*stride + b*dilation - before = j

`direct_transposed` is that sum, gathered: one thread an output, nothing scattered, no atomics, no zeros inserted.

`tiled_transposed` is for strides above 1 (with stride 1 it is an ordinary convolution, and the plan says so). Every stride-th
output of a line meets the same taps: the result falls into stride_i * stride_j phases, and each is a convolution of stride 1 with
the taps that reach it, mirrored. All are one launch of tiled_standard, in which a phase is what a group is there: it has panels
of weights and a table of terms of its own, its outputs are stored a stride apart, and where its windows lie a thread works out
once (`line`). One after the other, the four phases of a decoder's layer take four times as long: a phase of a small image fills
a tenth of the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import FLOATS, NO_PIXEL, NO_TERM, beyond, i4, output_of, outputs_of, quotient, store, weight_of
from fastconv.cuda.standard import Reading, tiled_standard
from fastconv.cuda.tiles import Tile


@function
def line(first, kernel, stride, dilation, before, step):
    """The outputs first, first + stride, ... of one dimension as a convolution of stride 1: (taps, the last of them, before).

    Tap a reaches output i from row y = (i + before - a * dilation) / stride, if that is whole: from the first such tap on, every
    step-th does, stride over its common divisor with the dilation. Mirrored, they are a window.

    >>> from fastconv import cuda
    >>> line(0, kernel=4, stride=2, dilation=1, before=1, step=2) if cuda.simulated() else (2, 3, 1)
    (2, 3, 1)
    """
    a = i4(0)
    while a < step and a < kernel and i4(first + before - a * dilation) % i4(stride) != 0:
        a = i4(a + 1)
    if a == step or a == kernel:
        return i4(0), i4(0), i4(0)
    taps = quotient(kernel - a + (step - 1), step)
    last = i4(a + (taps - 1) * step)
    return taps, last, i4(-((first + before - last * dilation) // stride))


@lru_cache(maxsize=256)
def direct_transposed(dtype: str, finish: Any) -> Any:
    """One thread an output, which looks only at taps that reach it. Weights (channels, filters / groups, *kernel), as they come."""
    zero = FLOATS[dtype](0)

    @kernel()
    def direct_transposed(job):
        (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
        (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
        (depth, height, width), (step_z, step_i, step_j) = job.space, job.x_steps
        (each_z, each_i, each_j), (step_e, step_a, step_b) = job.phase_step, job.weight_steps
        rows_z, rows_i, rows_j = apart_z * each_z // stride_z, apart_i * each_i // stride_i, apart_j * each_j // stride_j
        for o in range(cuda.grid(1), outputs_of(job), cuda.gridsize(1)):
            n, f, z, i, j = output_of(job, o)
            lines_z, last_z, above_z = line(z % stride_z, taps_z, stride_z, apart_z, before_z, each_z)
            lines_i, last_i, above_i = line(i % stride_i, taps_a, stride_i, apart_i, before_i, each_i)
            lines_j, last_j, above_j = line(j % stride_j, taps_b, stride_j, apart_j, before_j, each_j)
            first_z, first_i, first_j = z // stride_z - above_z, i // stride_i - above_i, j // stride_j - above_j
            image = job.x_first + n * job.x_image + f // job.filters * job.channels * job.x_channel
            weights, total = weight_of(job, f), zero
            for e in range(lines_z):
                plane = first_z + e * rows_z
                for a in range(lines_i):
                    y = first_i + a * rows_i
                    for b in range(lines_j):
                        u = first_j + b * rows_j
                        if 0 <= plane and plane < depth and 0 <= y and y < height and 0 <= u and u < width:
                            x = image + plane * step_z + y * step_i + u * step_j
                            w = weights + (last_z - e * each_z) * step_e
                            w += (last_i - a * each_i) * step_a + (last_j - b * each_j) * step_b
                            for c in range(job.channels):
                                total += job.x[x + c * job.x_channel] * job.weight[w + c * job.weight_channel]
            store(job, finish, o, total)

    return direct_transposed


# Tiled: phases, each a convolution of stride 1 ---------------------------------------------------------------------------


@function
def phase_of(job, phase):
    """The first output of a phase, in each dimension."""
    (_, stride_i, stride_j), (_, height, width) = job.stride, job.out_space
    across, down = i4(min(stride_j, width)), i4(min(stride_i, height))
    line = quotient(phase, across)
    plane = quotient(line, down)
    return plane, i4(line - plane * down), i4(phase - line * across)


@function
def lines_of(job, phase):
    """A phase's line in each dimension."""
    (step_z, step_i, step_j), (taps_z, taps_a, taps_b) = job.phase_step, job.kernel
    (stride_z, stride_i, stride_j), (before_z, before_i, before_j) = job.stride, job.before
    apart_z, apart_i, apart_j = job.dilation
    z, i, j = phase_of(job, phase)
    return (
        line(z, taps_z, stride_z, apart_z, before_z, step_z),
        line(i, taps_a, stride_i, apart_i, before_i, step_i),
        line(j, taps_b, stride_j, apart_j, before_j, step_j),
    )


@function
def rows_apart(job):
    """How many rows of the input lie between neighbouring taps of a phase, in each dimension."""
    (stride_z, stride_i, stride_j), (apart_z, apart_i, apart_j), (each_z, each_i, each_j) = job.stride, job.dilation, job.phase_step
    return quotient(apart_z * each_z, stride_z), quotient(apart_i * each_i, stride_i), quotient(apart_j * each_j, stride_j)


@function
def phase_frame(job, g):
    """Of a phase and group: the group, the first output and how many there are in each dimension."""
    (stride_z, stride_i, stride_j), (depth, height, width) = job.stride, job.out_space
    phase = quotient(g, job.groups)
    z, i, j = phase_of(job, phase)
    planes, rows = quotient(depth - z + (stride_z - 1), stride_z), quotient(height - i + (stride_i - 1), stride_i)
    return i4(g - phase * job.groups), z, i, j, planes, rows, quotient(width - j + (stride_j - 1), stride_j)


@function
def phase_pixel(frame, p):
    """The p-th output of a phase, over all images: (n, z, i, j), counted in strides."""
    _, _, _, _, planes, rows, columns = frame
    line = quotient(p, columns)
    plane = quotient(line, rows)
    n = quotient(plane, planes)
    return n, i4(plane - n * planes), i4(line - plane * rows), i4(p - line * columns)


@function
def phase_place(job, g, p):
    """As indices.pixel_place, of the p-th output of a phase; `g` numbers phases and, in each, groups."""
    (depth, height, width), (step_z, step_i, step_j) = job.space, job.x_steps
    (apart_z, apart_i, apart_j), (most_z, most_i, most_j) = rows_apart(job), job.lines
    (_, _, before_z), (_, _, before_i), (_, _, before_j) = lines_of(job, quotient(g, job.groups))
    frame = phase_frame(job, g)
    n, z, i, j = phase_pixel(frame, p)
    z, i, j = i4(z - before_z), i4(i - before_i), i4(j - before_j)
    channel = i4(frame[0] * job.channels) * job.x_channel
    corner = job.x_first + n * job.x_image + channel + z * step_z + i * step_i + j * step_j
    planes, rows = beyond(z, apart_z, most_z, depth), beyond(i, apart_i, most_i, height)
    lines = NO_TERM | planes | rows << most_z | beyond(j, apart_j, most_j, width) << i4(most_z + most_i)
    return i4(corner), i4(lines if n < job.batch else lines | NO_PIXEL)


@function
def phase_term(job, phase, q):
    """As indices.term_place, of a phase."""
    (step_z, step_i, step_j), (most_z, most_i, _) = job.x_steps, job.lines
    apart_z, apart_i, apart_j = rows_apart(job)
    (taps_z, _, _), (taps_a, _, _), (taps_b, _, _) = lines_of(job, phase)
    taps = i4(taps_z * taps_a * taps_b)
    if taps == 0 or q >= job.channels * taps:
        return i4(0), i4(NO_TERM)
    row = quotient(q, taps_b)  # of all channels' taps, as is the plane
    plane = quotient(row, taps_a)
    c = quotient(plane, taps_z)
    e, a, b = i4(plane - c * taps_z), i4(row - plane * taps_a), i4(q - row * taps_b)
    offset = c * job.x_channel + e * apart_z * step_z + a * apart_i * step_i + b * apart_j * step_j
    return i4(offset), i4(NO_PIXEL | i4(1) << e | i4(1) << i4(most_z + a) | i4(1) << i4(most_z + most_i + b))


@function
def phase_terms(job, g, depth):
    """Where in the table a phase's terms begin, and how many slices they are."""
    phase = quotient(g, job.groups)
    (taps_z, _, _), (taps_a, _, _), (taps_b, _, _) = lines_of(job, phase)
    return i4(phase * job.slices * depth), quotient(job.channels * taps_z * taps_a * taps_b + (depth - 1), depth)


@function
def phase_output(job, frame, p):
    """Where the p-th output of a phase goes: (whether there is one, its group, n, z, i, j)."""
    stride_z, stride_i, stride_j = job.stride
    group, first_z, first_i, first_j, _, _, _ = frame
    n, z, i, j = phase_pixel(frame, p)
    z, i, j = i4(first_z + z * stride_z), i4(first_i + i * stride_i), i4(first_j + j * stride_j)
    return n < job.batch, group, n, z, i, j


@function
def phase_weight(job, g, f, q):
    """As indices.weight_at, of a phase: its taps run backwards, a step apart."""
    (each_z, each_i, each_j), (step_e, step_a, step_b) = job.phase_step, job.weight_steps
    (taps_z, last_z, _), (taps_a, last_a, _), (taps_b, last_b, _) = lines_of(job, g // job.groups)
    taps = taps_z * taps_a * taps_b
    if taps == 0 or f >= job.filters or q >= job.channels * taps:
        return False, job.weight_first
    e, a, b = q // (taps_a * taps_b) % taps_z, q // taps_b % taps_a, q % taps_b
    w = job.weight_first + g % job.groups * job.weight_group + f * job.weight_filter + q // taps * job.weight_channel
    return True, w + (last_z - e * each_z) * step_e + (last_a - a * each_i) * step_a + (last_b - b * each_j) * step_b


@lru_cache(maxsize=256)
def tiled_transposed(dtype: str, finish: Any, tile: Tile) -> Any:
    """One block a tile of filters and pixels of a phase. Weights from packing.filter_panels, terms from packing.places."""
    return tiled_standard(dtype, finish, tile, Reading(phase_place, None, phase_terms, phase_frame, phase_output))


# What the host must know of them ------------------------------------------------------------------------------------------


def steps_of(stride: Iterable[int], dilation: Iterable[int]) -> tuple[int, ...]:
    """In each dimension, how far the taps of a phase lie apart in the kernel.

    >>> steps_of((2, 4, 3), (1, 2, 3))
    (2, 2, 1)
    """
    return tuple(s // math.gcd(s, d) for s, d in zip(stride, dilation, strict=True))


def most_taps(kernel: Iterable[int], step: Iterable[int]) -> tuple[int, ...]:
    """In each dimension, the most taps that a phase has.

    >>> most_taps((3, 4, 5), (2, 2, 1))
    (2, 2, 5)
    """
    return tuple(-(-taps // each) for taps, each in zip(kernel, step, strict=True))
