"""Gradients of a convolution with respect to its weights and its bias, and through its activation.

    weight'[f, c, a, b] = sum over n, i, j of out'[n, f, i, j] * x[n, c, i*stride + a*dilation - before, j*...]
    bias'[f]            = sum over n, i, j of out'[n, f, i, j]
    sum'[n, f, i, j]    = out'[n, f, i, j] * (slope of the activation at sum[n, f, i, j])

(The gradient with respect to the input is a transposed convolution: transposed.py. That of a transposed convolution is an
ordinary one, and its weights' is the one here with image and gradient exchanged.) A block owns one weight, or one bias: its
threads take every THREADS-th pixel of all images, and add up their sums as a tree in shared memory, in one order always, so that
the bits do not depend on the device.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import types

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import FLOATS, seen
from fastconv.cuda.slopes import slope_of


@function
def gradient_at(job, p):
    """Where the p-th pixel of the gradient lies in its memory, and its place: (offset, n, z, i, j)."""
    (depth, height, width), (step_z, step_i, step_j) = job.out_space, job.grad_steps
    n, z, i, j = p // (depth * height * width), p // (height * width) % depth, p // width % height, p % width
    return job.grad_first + n * job.grad_image + z * step_z + i * step_i + j * step_j, n, z, i, j


@function
def add_up(sums, total, threads):
    """The totals of a block's threads, a power of two of them, as a tree: their sum is in sums[0]."""
    thread, half = cuda.threadIdx.x, threads // 2
    sums[thread] = total
    cuda.syncthreads()
    while half > 0:
        if thread < half:
            sums[thread] += sums[thread + half]
        cuda.syncthreads()
        half //= 2


@lru_cache(maxsize=16)
def direct_weight_gradient(dtype: str, threads: int) -> Any:
    """One block a weight. The gradient of the weights is contiguous."""
    floats, zero = FLOATS[dtype], FLOATS[dtype](0)

    @kernel()
    def direct_weight_gradient(job):
        sums = cuda.shared.array(threads, floats)
        (_, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
        (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
        taps, thread, total = job.kernel[0] * taps_a * taps_b, cuda.threadIdx.x, zero
        weight = cuda.blockIdx.x
        tap, c, f = weight % taps, weight // taps % job.channels, weight // (taps * job.channels)
        e, a, b = tap // (taps_a * taps_b), tap // taps_b % taps_a, tap % taps_b
        channel = (f // job.filters * job.channels + c) * job.x_channel
        for p in range(thread, job.batch * job.out_space[0] * job.out_space[1] * job.out_space[2], threads):
            here, n, z, i, j = gradient_at(job, p)
            z, i, j = z * stride_z - before_z, i * stride_i - before_i, j * stride_j - before_j
            pixel = seen(job, z + e * apart_z, i + a * apart_i, j + b * apart_j)
            if pixel >= 0:
                total += job.x[job.x_first + n * job.x_image + channel + pixel] * job.grad[here + f * job.grad_channel]
        add_up(sums, total, threads)
        if thread == 0:
            job.out[weight] = sums[0]

    return direct_weight_gradient


@lru_cache(maxsize=16)
def direct_bias_gradient(threads: int) -> Any:
    """One block a filter; sums in float64."""
    wide, zero = types.float64, types.float64(0)

    @kernel()
    def direct_bias_gradient(job):
        sums = cuda.shared.array(threads, wide)
        thread, f, total = cuda.threadIdx.x, cuda.blockIdx.x, zero
        for p in range(thread, job.batch * job.out_space[0] * job.out_space[1] * job.out_space[2], threads):
            total += job.grad[gradient_at(job, p)[0] + f * job.grad_channel]
        add_up(sums, total, threads)
        if thread == 0:
            job.out[f] = sums[0]

    return direct_bias_gradient


@kernel()
def direct_map_gradient(job):
    """One thread a number of a bias per pixel: the sum over images; all arrays contiguous."""
    for o in range(cuda.grid(1), job.out_image, cuda.gridsize(1)):
        total = 0.0
        for n in range(job.batch):
            total += job.grad[n * job.out_image + o]
        job.out[o] = total


@lru_cache(maxsize=16)
def direct_slope(activation: str) -> Any:
    """One thread a number: the gradient times the activation's slope at the sum, job.x; all arrays contiguous."""
    slope = slope_of(activation)

    @kernel()
    def direct_slope(job):
        for o in range(cuda.grid(1), job.batch * job.out_image, cuda.gridsize(1)):
            job.out[o] = job.grad[o] * slope(job.x[o], job.low, job.high)

    return direct_slope
