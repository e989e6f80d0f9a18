"""Depthwise separable convolution: depthwise, then pointwise, in one pass.

    d[n, c*M + m, i, j] = inner finish(sum over a, b of depthwise[c*M + m, a, b] * x[n, c, i*stride + a*dilation - before, j*...])
    out[n, f, i, j]     = finish(bias + sum over k of pointwise[f, k] * d[n, k, i, j])

(k*k + F) / (k*k * F) of the standard layer's operations. d never goes to main memory: a block makes what it needs of it in
shared memory, a slice of channels at a time, and every filter of the block takes it from there.

`direct_separable` is those two sums: a thread makes its share of the slice, and after the barrier adds the slice to its one output.
`tiled_separable` is the implicit matrix product of standard.py whose pixels are windows: what a thread would load, it computes.
Blocks of other filters compute the same d again, 2 k^2 operations for each 2 * tile.filters that they save loading. With the
small tile a slice's 16 numbers lie on the stack, because each is a loop of its own and theirs is not unrolled: 64 bytes a thread.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import FLOATS, at, i4, pixel_of, place4, put, quotient, seen4, weight_of
from fastconv.cuda.standard import Reading, tiled_standard
from fastconv.cuda.tiles import Slab, Tile


@lru_cache(maxsize=256)
def depthwise_value(dtype: str, finish_inner: Any) -> Any:
    """The function `value(job, image, z, i, j, k)`: channel k of the depthwise result, whose window begins at (z, i, j)."""
    zero = FLOATS[dtype](0)

    @function
    def value(job, image, z, i, j, k):
        (_, taps_a, taps_b), (_, apart_i, apart_j), (_, step_a, step_b) = job.kernel, job.dilation, job.inner_steps
        (_, stride_i, stride_j), (_, before_i, before_j), (_, height, width) = job.stride, job.before, job.out_space
        w, source, total = i4(job.inner_first + k * job.inner_filter), i4(image + quotient(k, job.multiplier) * job.x_channel), zero
        for a in range(taps_a):
            for b in range(taps_b):
                pixel = seen4(job, z, i4(i + a * apart_i), i4(j + b * apart_j))
                if pixel >= 0:
                    total += at(job.x, i4(source + pixel)) * at(job.inner_weight, i4(w + a * step_a + b * step_b))
        p = i4(quotient(i + before_i, stride_i) * width + quotient(j + before_j, stride_j))
        within = i4(p * job.channels + k) if job.last else i4(k * height * width + p)
        return finish_inner(job, total, k, within)

    return value


@lru_cache(maxsize=256)
def direct_separable(dtype: str, finish: Any, finish_inner: Any, slab: Slab) -> Any:
    """One thread an output, slab.filters x slab.pixels of them a block. Weights as they come."""
    floats, zero, value = FLOATS[dtype], FLOATS[dtype](0), depthwise_value(dtype, finish_inner)
    filters, pixels, depth = slab.filters, slab.pixels, slab.channels
    size = depth * pixels

    @kernel()
    def direct_separable(job):
        between = cuda.shared.array(size, floats)  # [channel][pixel]
        own_pixel, own_filter = i4(cuda.threadIdx.x % pixels), i4(cuda.threadIdx.x // pixels)
        f, p = i4(cuda.blockIdx.y * filters + own_filter), i4(cuda.blockIdx.x * pixels + own_pixel)
        (_, stride_i, stride_j), (_, before_i, before_j) = job.stride, job.before
        n, z, i, j = pixel_of(job, p)
        image, live, total = i4(job.x_first + n * job.x_image), n < job.batch, zero
        for first in range(0, job.channels, depth):
            left = i4(job.channels - first)
            count = left if left < depth else i4(depth)
            if live:
                for k in range(own_filter, count, filters):
                    number = value(job, image, z, i4(i * stride_i - before_i), i4(j * stride_j - before_j), i4(first + k))
                    put(between, i4(k * pixels + own_pixel), number)
            cuda.syncthreads()
            if live and f < job.filters:
                w = i4(weight_of(job, f) + first * job.weight_channel)
                for k in range(count):
                    total += at(job.weight, i4(w + k * job.weight_channel)) * at(between, i4(k * pixels + own_pixel))
            cuda.syncthreads()
        if live and f < job.filters:
            place, within = i4(n * job.out_image), place4(job, f, z, i, j)
            put(job.out, i4(place + within), finish(job, total, f, place, within))

    return direct_separable


@function
def image_place(job, g, p):
    """Of the p-th pixel: whether there is one, where its image begins, and the corner of its window."""
    (_, stride_i, stride_j), (_, before_i, before_j) = job.stride, job.before
    n, z, i, j = pixel_of(job, p)
    return n < job.batch, i4(job.x_first + n * job.x_image), z, i4(i * stride_i - before_i), i4(j * stride_j - before_j)


@lru_cache(maxsize=256)
def tiled_separable(dtype: str, finish: Any, finish_inner: Any, tile: Tile) -> Any:
    """One block a tile of filters and pixels. Pointwise weights from packing.filter_panels, depthwise ones as they come."""
    zero, value = FLOATS[dtype](0), depthwise_value(dtype, finish_inner)

    @function
    def number(job, place, term, k):
        live, image, z, i, j = place
        c = i4(term + k)
        return value(job, image, z, i, j, c) if live and c < job.channels else zero

    return tiled_standard(dtype, finish, tile, Reading(image_place, number))
