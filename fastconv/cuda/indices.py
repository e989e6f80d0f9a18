"""Which number is where: the index arithmetic that all kernels share, and their epilogue.

    output_of(job, o)            (n, f, z, i, j) of the o-th number of the result, in the order of its memory
    window_of(job, o)            its filter, where its image begins, and the corner of its window
    pixel_of(job, p)             (n, z, i, j) of the p-th pixel of the result, over all images
    seen(job, z, i, j)           where in an image's memory a pixel lies, -1 outside the image
    place_of(job, f, z, i, j)    where in an image of the result a number lies
    gradient_at(job, p)          where the p-th pixel of a gradient lies

    pixel_place(job, g, p)       the two factors of a tiled product: where a pixel lies, and how far from it a term, a channel
    term_place(job, g, q)        and a tap, each with the lines of taps that it lacks or needs

Integers keep the job's width: int64 in direct kernels, int32 in tiled ones, which say so for every product by `i4`, because
Numba makes int64 of it. A thread reads through unsigned indices (`at`), which need no test for a negative one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import types

from fastconv import epilogue
from fastconv.cuda.device import SIMULATED, function

i4, u4, i8 = np.int32, np.uint32, np.int64
FLOATS: dict[str, Any] = {"float32": types.float32, "float64": types.float64}


@function
def outputs_of(job):
    """How many numbers the result has."""
    depth, height, width = job.out_space
    return job.batch * job.groups * job.filters * depth * height * width


@function
def output_of(job, o):
    """Neighbouring threads get neighbours in memory: pixels of one filter, or filters of one pixel where channels come last."""
    filters, (depth, height, width) = job.groups * job.filters, job.out_space
    pixels = depth * height * width
    if job.last:
        f, p, n = o % filters, o // filters % pixels, o // (filters * pixels)
    else:
        f, p, n = o // pixels % filters, o % pixels, o // (filters * pixels)
    return n, f, p // (height * width), p // width % height, p % width


@function
def window_of(job, o):
    """Of the o-th number of the result: its filter, where its image begins, and the corner of its window."""
    (stride_z, stride_i, stride_j), (before_z, before_i, before_j) = job.stride, job.before
    n, f, z, i, j = output_of(job, o)
    return f, job.x_first + n * job.x_image, z * stride_z - before_z, i * stride_i - before_i, j * stride_j - before_j


@function
def seen(job, z, i, j):
    """Where in an image's memory a pixel lies, -1 outside the image."""
    (depth, height, width), (step_z, step_i, step_j) = job.space, job.x_steps
    if 0 <= z and z < depth and 0 <= i and i < height and 0 <= j and j < width:
        return z * step_z + i * step_i + j * step_j
    return -1


@function
def weight_of(job, f):
    """Where the weights of filter f of all groups begin."""
    return job.weight_first + f // job.filters * job.weight_group + f % job.filters * job.weight_filter


@function
def weight_at(job, g, f, q):
    """Of a group's filter and the q-th of its terms, channels and taps: (whether there is such a weight, where)."""
    (taps_z, taps_a, taps_b), (step_e, step_a, step_b) = job.kernel, job.weight_steps
    taps = taps_z * taps_a * taps_b
    c, tap = q // taps, q % taps
    w = job.weight_first + g * job.weight_group + f * job.weight_filter + c * job.weight_channel
    w += tap // (taps_a * taps_b) * step_e + tap // taps_b % taps_a * step_a + tap % taps_b * step_b
    return f < job.filters and c < job.channels, w


@function
def place_of(job, f, z, i, j):
    """Where in an image of the result a number lies."""
    step_z, step_i, step_j = job.out_steps
    return job.out_first + f * job.out_filter + z * step_z + i * step_i + j * step_j


@function
def gradient_at(job, p):
    """Where the p-th pixel of the gradient lies in its memory, and its place: (offset, n, z, i, j)."""
    (depth, height, width), (step_z, step_i, step_j) = job.out_space, job.grad_steps
    n, z, i, j = p // (depth * height * width), p // (height * width) % depth, p // width % height, p % width
    return job.grad_first + n * job.grad_image + z * step_z + i * step_i + j * step_j, n, z, i, j


@function
def store(job, finish, o, total):
    """Finish the o-th number of the result and put it in its place."""
    n, f, z, i, j = output_of(job, o)
    image, within = n * job.out_image, place_of(job, f, z, i, j)
    job.out[image + within] = finish(job, total, f, image, within)


# The same in int32, for tiled kernels ---------------------------------------------------------------------------------------


def quotient(a, b):
    """The quotient of numbers that are not negative, in 20 instructions: Numba's has 64 bits, and calls a routine of 100."""
    return i4(u4(a) // u4(b))


def simulated_quotient(a, b):
    """The same without the types, which the simulator pays for."""
    assert a >= 0 and b > 0, (a, b)
    return a // b


quotient = simulated_quotient if SIMULATED else function(quotient)


@function
def pixel_of(job, p):
    """The p-th pixel of the result, over all images."""
    depth, height, width = job.out_space
    plane = quotient(p, width)
    image = quotient(plane, height)
    n = quotient(image, depth)
    return n, i4(image - n * depth), i4(plane - image * height), i4(p - plane * width)


@function
def seen4(job, z, i, j):
    """As `seen`."""
    (depth, height, width), (step_z, step_i, step_j) = job.space, job.x_steps
    if z >= 0 and z < depth and i >= 0 and i < height and j >= 0 and j < width:
        return i4(z * step_z + i * step_i + j * step_j)
    return i4(-1)


@function
def place4(job, f, z, i, j):
    """As `place_of`."""
    step_z, step_i, step_j = job.out_steps
    return i4(job.out_first + f * job.out_filter + z * step_z + i * step_i + j * step_j)


@function
def weight_of4(job, f):
    """As `weight_of`."""
    g = quotient(f, job.filters)
    return i4(job.weight_first + g * job.weight_group + (f - g * job.filters) * job.weight_filter)


@function
def at(array, index):
    """array[index], where the index is not negative."""
    return array[u4(index)]


@function
def put(array, index, value):
    """array[index] = value, where the index is not negative."""
    array[u4(index)] = value


# Pixels and terms of a tiled product ----------------------------------------------------------------------------------------
# Each is (offset, lines). The two offsets add up to where a number lies in memory, and it exists if the two sets of lines have no
# bit in common: a pixel has a bit for each line of taps of its window that lies outside the image, a term the bits of its own.

NO_PIXEL, NO_TERM = i4(1 << 29), i4(1 << 30)  # bits of all terms, and of a pixel that is none; and the other way round
LINES = 29  # bits that are left for lines of taps


@function
def beyond(first, apart, count, size):
    """A bit for each of `count` lines that lie `apart`, from `first` on: 1 outside 0 ... size - 1."""
    bits = i4(0)
    for k in range(count):
        line = i4(first + k * apart)
        if line < 0 or line >= size:
            bits = i4(bits | i4(1) << i4(k))
    return bits


@function
def pixel_place(job, g, p):
    """The corner of the p-th pixel's window in the first channel of group g, and its lines of taps outside the image."""
    (depth, height, width), (apart_z, apart_i, apart_j), (step_z, step_i, step_j) = job.space, job.dilation, job.x_steps
    (stride_z, stride_i, stride_j), (before_z, before_i, before_j) = job.stride, job.before
    lines_z, lines_i, lines_j = job.lines
    n, z, i, j = pixel_of(job, p)
    z, i, j = i4(z * stride_z - before_z), i4(i * stride_i - before_i), i4(j * stride_j - before_j)
    corner = job.x_first + n * job.x_image + g * job.channels * job.x_channel + z * step_z + i * step_i + j * step_j
    rows, columns = beyond(i, apart_i, lines_i, height), beyond(j, apart_j, lines_j, width)
    lines = NO_TERM | beyond(z, apart_z, lines_z, depth) | rows << lines_z | columns << i4(lines_z + lines_i)
    return i4(corner), i4(lines if n < job.batch else lines | NO_PIXEL)


@function
def term_place(job, g, q):
    """How far from a window's corner its q-th term lies, in the order of the weights, and the bits of its lines of taps."""
    (taps_z, taps_a, taps_b), (apart_z, apart_i, apart_j), (step_z, step_i, step_j) = job.kernel, job.dilation, job.x_steps
    lines_z, lines_i, lines_j = job.lines
    line = quotient(q, taps_b)  # of all channels' taps, as is the plane
    plane = quotient(line, taps_a)
    c = quotient(plane, taps_z)
    e, a, b = i4(plane - c * taps_z), i4(line - plane * taps_a), i4(q - line * taps_b)
    channel = i4(i4(g * job.channels + c) * job.x_channel)
    offset = channel + i4(e * apart_z) * step_z + i4(a * apart_i) * step_i + i4(b * apart_j) * step_j
    lines = NO_PIXEL if c < job.channels else NO_TERM
    if lines_z > 0:
        lines |= i4(1) << e
    if lines_i > 0:
        lines |= i4(1) << i4(lines_z + a)
    if lines_j > 0:
        lines |= i4(1) << i4(lines_z + lines_i + b)
    return i4(offset), i4(lines)


# Epilogue -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def activation_of(name: str) -> Any:
    """An activation as a function of (v, low, high) for kernels."""
    return function(epilogue.FUNCTIONS[epilogue.CODES[name]])


@lru_cache(maxsize=256)
def finisher(bias: str, residual: bool, activation: str) -> Any:
    """The function `finish(job, total, f, image, within)` of an epilogue: activation(total + bias + residual).

    The number lies at image + within in the result and in the residual, and at `within` in a bias per pixel. A function of
    its own for each epilogue: one that asked at run time which it is would be 64 copies of every activation in a tiled kernel.
    """
    activate, per_filter, per_pixel = activation_of(activation), bias == "channel", bias == "pixel"

    @function
    def finish(job, total, f, image, within):
        if per_filter:
            total += job.bias[f]
        if per_pixel:
            total += job.bias[within]
        if residual:
            total += job.residual[image + within]
        return activate(total, job.low, job.high)

    return finish


@lru_cache(maxsize=256)
def inner_finisher(bias: str, activation: str) -> Any:
    """The same of a separable layer's depthwise part, `finish_inner(job, total, f, within)`."""
    activate, per_filter, per_pixel = activation_of(activation), bias == "channel", bias == "pixel"

    @function
    def finish_inner(job, total, f, within):
        if per_filter:
            total += job.inner_bias[f]
        if per_pixel:
            total += job.inner_bias[within]
        return activate(total, job.inner_low, job.inner_high)

    return finish_inner
