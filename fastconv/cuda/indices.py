"""Which number is where: the index arithmetic that all kernels share, and their epilogue.

    output_of(job, o)            (n, f, z, i, j) of the o-th number of the result, in the order of its memory
    pixel_of(job, p)             (n, z, i, j) of the p-th pixel of the result, over all images
    seen(job, z, i, j)           where in an image's memory a pixel lies, -1 outside the image
    place_of(job, f, z, i, j)    where in an image of the result a number lies

Integers keep the job's width: int64 in direct kernels, int32 in tiled ones, which say so for every product by `i4`, because
Numba makes int64 of it. A thread reads through unsigned indices (`at`), which need no test for a negative one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import types

from fastconv import epilogue
from fastconv.cuda.device import function

i4, u4 = np.int32, np.uint32
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
def place_of(job, f, z, i, j):
    """Where in an image of the result a number lies."""
    step_z, step_i, step_j = job.out_steps
    return job.out_first + f * job.out_filter + z * step_z + i * step_i + j * step_j


@function
def store(job, finish, o, total):
    """Finish the o-th number of the result and put it in its place."""
    n, f, z, i, j = output_of(job, o)
    image, within = n * job.out_image, place_of(job, f, z, i, j)
    job.out[image + within] = finish(job, total, f, image, within)


# The same in int32, for tiled kernels ---------------------------------------------------------------------------------------


@function
def pixel_of(job, p):
    """The p-th pixel of the result, over all images."""
    depth, height, width = job.out_space
    plane = i4(p // width)
    image = i4(plane // height)
    n = i4(image // depth)
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
def at(array, index):
    """array[index], where the index is not negative."""
    return array[u4(index)]


@function
def put(array, index, value):
    """array[index] = value, where the index is not negative."""
    array[u4(index)] = value


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
