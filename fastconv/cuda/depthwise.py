"""Depthwise convolution: every channel has filters of its own and mixes with no other.

    out[n, c*M + m, i, j] = finish(bias + sum over a, b of weight[c*M + m, a, b] * x[n, c, i*stride + a*dilation - before, j*...])

M, the multiplier, is mostly 1. Two operations a tap, and few taps for each number read and written: the limit is memory.
`direct_depthwise` is that sum, one thread an output; with channels last, neighbouring threads are neighbouring channels.

`tiled_depthwise` brings each number of a plane into shared memory once. A block computes a patch of one plane of the result:

    halo            all that the patch sees, zeros beyond the image, neighbouring threads at neighbouring columns
    barrier
      column          a thread computes patch.rows outputs below one another: their rows of the halo are loaded into registers
                      once, and each meets up to as many outputs as the window is high

Taps, stride and patch are constants of the machine code, so windows and weights stay in registers: 18 loads of shared memory for
the 36 multiply-adds of four outputs of a 3x3 window.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import (
    FLOATS,
    at,
    i4,
    outputs_of,
    place4,
    put,
    quotient,
    seen,
    seen4,
    store,
    weight_of,
    weight_of4,
    window_of,
)
from fastconv.cuda.tiles import Patch


@lru_cache(maxsize=256)
def direct_depthwise(dtype: str, finish: Any) -> Any:
    """One thread an output. Weights as they come."""
    zero = FLOATS[dtype](0)

    @kernel()
    def direct_depthwise(job):
        (taps_z, taps_a, taps_b), (apart_z, apart_i, apart_j) = job.kernel, job.dilation
        step_e, step_a, step_b = job.weight_steps
        for o in range(cuda.grid(1), outputs_of(job), cuda.gridsize(1)):
            f, image, z, i, j = window_of(job, o)
            image += f // job.filters * job.x_channel
            weights, total = weight_of(job, f), zero
            for e in range(taps_z):
                for a in range(taps_a):
                    for b in range(taps_b):
                        pixel = seen(job, z + e * apart_z, i + a * apart_i, j + b * apart_j)
                        if pixel >= 0:
                            total += job.x[image + pixel] * job.weight[weights + e * step_e + a * step_a + b * step_b]
            store(job, finish, o, total)

    return direct_depthwise


@lru_cache(maxsize=64)
def bring_halo(dtype: str, patch: Patch) -> Any:
    """The function `halo_of(job, halo, thread, image, first_i, first_j)`: all that a patch of the result sees, zeros outside."""
    zero, (stride_i, stride_j), threads = FLOATS[dtype](0), patch.stride, patch.threads
    halo_width, halo_size = patch.halo[1], patch.halo[0] * patch.halo[1]
    trips = -(-halo_size // threads)

    @function
    def halo_of(job, halo, thread, image, first_i, first_j):
        above, left = i4(first_i * stride_i - job.before[1]), i4(first_j * stride_j - job.before[2])
        for k in range(trips):
            q = i4(thread + k * threads)
            line = quotient(q, halo_width)
            pixel = seen4(job, i4(0), i4(above + line), i4(left + (q - line * halo_width)))
            number = zero
            if q < halo_size:
                if pixel >= 0:
                    number = at(job.x, i4(image + pixel))
                put(halo, q, number)

    return halo_of


@lru_cache(maxsize=256)
def tiled_depthwise(dtype: str, finish: Any, patch: Patch) -> Any:
    """One block a patch of one plane of the result. Weights as they come."""
    floats, zero, halo_of = FLOATS[dtype], FLOATS[dtype](0), bring_halo(dtype, patch)
    taps_a, taps_b, stride_i, stride_j = *patch.taps, *patch.stride
    across, down, rows = patch.across, patch.down, patch.rows
    halo_width, halo_size = patch.halo[1], patch.halo[0] * patch.halo[1]
    window_rows = patch.window_rows
    window, taps = window_rows * taps_b, taps_a * taps_b

    @kernel(patch.registers)
    def tiled_depthwise(job):
        halo = cuda.shared.array(halo_size, floats)
        seen_here = cuda.local.array(window, floats)
        weights = cuda.local.array(taps, floats)
        thread, column, row = i4(cuda.threadIdx.x), i4(cuda.threadIdx.x % across), i4(cuda.threadIdx.x // across * rows)
        n = quotient(cuda.blockIdx.y, job.groups * job.filters)
        f = i4(cuda.blockIdx.y - n * (job.groups * job.filters))
        patches = quotient(job.out_space[2] + (across - 1), across)
        first_i = quotient(cuda.blockIdx.x, patches)
        first_i, first_j = i4(first_i * (down * rows)), i4((cuda.blockIdx.x - first_i * patches) * across)
        halo_of(job, halo, thread, i4(job.x_first + n * job.x_image + quotient(f, job.filters) * job.x_channel), first_i, first_j)
        w = weight_of4(job, f)
        for a in range(taps_a):
            for b in range(taps_b):
                weights[a * taps_b + b] = at(job.weight, i4(w + a * job.weight_steps[1] + b * job.weight_steps[2]))
        cuda.syncthreads()
        here = i4(row * (stride_i * halo_width) + column * stride_j)
        for a in range(window_rows):
            for b in range(taps_b):
                seen_here[a * taps_b + b] = at(halo, i4(here + a * halo_width + b))
        place, j = i4(n * job.out_image), i4(first_j + column)
        for r in range(rows):
            i = i4(first_i + row + r)
            if i < job.out_space[1] and j < job.out_space[2]:
                total = zero
                for a in range(taps_a):
                    for b in range(taps_b):
                        total += seen_here[(r * stride_i + a) * taps_b + b] * weights[a * taps_b + b]
                within = place4(job, f, i4(0), i, j)
                put(job.out, i4(place + within), finish(job, total, f, place, within))

    return tiled_depthwise
