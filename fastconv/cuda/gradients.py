"""Gradients of a convolution with respect to its weights and its bias, and through its activation.

    weight'[f, c, a, b] = sum over n, i, j of out'[n, f, i, j] * x[n, c, i*stride + a*dilation - before, j*...]
    bias'[f]            = sum over n, i, j of out'[n, f, i, j]
    sum'[n, f, i, j]    = out'[n, f, i, j] * (slope of the activation at sum[n, f, i, j])

(The gradient with respect to the input is a transposed convolution: transposed.py. That of a transposed convolution is an
ordinary one, and its weights' is the one here with image and gradient exchanged.) A block of a direct kernel owns one weight, or
one bias: its threads take every THREADS-th pixel of all images, and add up their sums as a tree in shared memory.

`tiled_weight_gradient` is the implicit matrix product of standard.py with pixels and terms exchanged: (filters) x (pixels) by
(pixels) x (terms). The gradient is packed into panels as weights are, the table is of pixels, and a column of a tile is a
channel and a tap. Tiles are few and pixels many, so blocks split the pixels.

`tiled_depthwise_weight_gradient` has nothing to multiply with: each number of the image meets k*k of one plane. Outermost first:

    block                   one filter and every split-th patch of its plane, of all images
      halo                    what the patch sees, as tiled_depthwise brings it
        column                  a thread's patch.rows gradients below one another meet their rows of the halo: each number is
                                loaded once for up to as many as the window is high; the sums of all taps stay in registers
    tree                    the threads' sums, half of them at a time through shared memory

Nothing is added by atomics, and all sums have one order: the bits are the same from run to run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import types

from fastconv.cuda.depthwise import bring_halo
from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import FLOATS, at, finisher, gradient_at, i4, put, quotient, seen, term_place, u4
from fastconv.cuda.slopes import slope_of
from fastconv.cuda.standard import Reading, tiled_standard
from fastconv.cuda.tiles import Patch, Tile


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


def tiled_weight_gradient(dtype: str, tile: Tile) -> Any:
    """One block a tile of filters and terms, and a run of pixels: gradients from packing.gradient_panels, pixels from places."""
    return tiled_standard(dtype, finisher("none", False, "identity"), tile, Reading(term_place))


@lru_cache(maxsize=64)
def add_window(patch: Patch) -> Any:
    """The function `add_taps(halo, grads, line, sums, here)`: what a thread's gradients, below one another, add to each tap's sum.

    Columns of taps are written out: `sums` stay in registers only where every index is a constant.
    """
    (taps_a, taps_b), stride_i, rows, halo_width = patch.taps, patch.stride[0], patch.rows, patch.halo[1]
    window_rows = patch.window_rows

    @function
    def add_column(halo, grads, line, sums, here, b):
        """The taps of column b: a line's numbers are loaded once, and meet all gradients."""
        for a in range(window_rows):
            line[a] = at(halo, i4(here + a * halo_width + b))
        for r in range(rows):
            for a in range(taps_a):
                sums[a * taps_b + b] += grads[r] * line[r * stride_i + a]

    @function
    def add_taps(halo, grads, line, sums, here):
        add_column(halo, grads, line, sums, here, 0)
        add_column(halo, grads, line, sums, here, 1)
        add_column(halo, grads, line, sums, here, 2)
        if taps_b > 3:
            add_column(halo, grads, line, sums, here, 3)
            add_column(halo, grads, line, sums, here, 4)
        if taps_b > 5:
            add_column(halo, grads, line, sums, here, 5)
            add_column(halo, grads, line, sums, here, 6)

    return add_taps


@lru_cache(maxsize=64)
def tiled_depthwise_weight_gradient(dtype: str, patch: Patch) -> Any:
    """One block a filter and a share of all patches, job.split of them; sums to job.out[share][filter][tap]."""
    floats, zero, halo_of, add_taps = FLOATS[dtype], FLOATS[dtype](0), bring_halo(dtype, patch), add_window(patch)
    stride_i, stride_j, window_rows = *patch.stride, patch.window_rows
    across, rows, patch_rows = patch.across, patch.rows, patch.down * patch.rows
    halo_width, halo_size = patch.halo[1], patch.halo[0] * patch.halo[1]
    taps, most = patch.taps[0] * patch.taps[1], patch.threads // 2
    given = taps * most

    @kernel(patch.registers)
    def tiled_depthwise_weight_gradient(job):
        halo = cuda.shared.array(halo_size, floats)
        between = cuda.shared.array(given, floats)
        sums = cuda.local.array(taps, floats)
        grads = cuda.local.array(rows, floats)
        line = cuda.local.array(window_rows, floats)
        thread, column, row = i4(cuda.threadIdx.x), i4(cuda.threadIdx.x % across), i4(cuda.threadIdx.x // across * rows)
        f, patches = i4(cuda.blockIdx.y), quotient(job.out_space[2] + (across - 1), across)
        whole = i4(patches * quotient(job.out_space[1] + (patch_rows - 1), patch_rows))
        here = i4(row * (stride_i * halo_width) + column * stride_j)
        for k in range(taps):
            sums[k] = zero
        for share in range(i4(cuda.blockIdx.x), i4(job.batch * whole), job.split):
            n = quotient(share, whole)
            first_i = quotient(share - n * whole, patches)
            first_i, first_j = i4(first_i * patch_rows), i4((share - n * whole - first_i * patches) * across)
            image = i4(job.x_first + n * job.x_image + quotient(f, job.filters) * job.x_channel)
            cuda.syncthreads()
            halo_of(job, halo, thread, image, first_i, first_j)
            grad, j = i4(job.grad_first + n * job.grad_image + f * job.grad_channel), i4(first_j + column)
            for r in range(rows):
                i, grads[r] = i4(first_i + row + r), zero
                if i < job.out_space[1] and j < job.out_space[2]:
                    grads[r] = at(job.grad, i4(grad + i * job.grad_steps[1] + j * job.grad_steps[2]))
            cuda.syncthreads()
            add_taps(halo, grads, line, sums, here)
        half = i4(most)
        while half > 0:  # the upper half of the threads hand their sums to the lower one
            to = u4(thread - half)
            if thread >= half and thread < 2 * half:
                for k in range(taps):
                    between[to + k * most] = sums[k]
            cuda.syncthreads()
            if thread < half:
                for k in range(taps):
                    sums[k] += between[u4(thread) + k * most]
            cuda.syncthreads()
            half = i4(half // 2)
        if thread == 0:
            out = i4((cuda.blockIdx.x * job.groups * job.filters + f) * taps)
            for k in range(taps):
                put(job.out, i4(out + k), sums[k])

    return tiled_depthwise_weight_gradient


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
