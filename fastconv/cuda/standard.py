"""Standard convolution: every filter looks at every channel of its group through a window of the image.

    out[n, f, i, j] = finish(bias + sum over c, a, b of weight[f, c, a, b] * x[n, c, i*stride + a*dilation - before, j*...])

and the same with one more tap, over the depth, for volumes; a line is a plane of height 1. `direct_standard` is that sum, one
thread an output, neighbouring threads at neighbouring outputs.

`tiled_standard` is an implicit matrix product, (filters) x (taps, channels) by (taps, channels) x (pixels), whose second factor
is never made (Chetlur et al. 2014, "cuDNN"; the tiles are those of Volkov and Demmel 2008). Outermost first:

    block                   tile.filters of one group by tile.pixels of all images
      tap, tile.channels      the next slice of both factors travels from memory to registers ...
        channels                ... while an 8x8 micro-tile of sums a thread takes this one from shared memory: per channel two
                                times two 128-bit loads, for 64 multiply-adds
      barrier                 the slice in registers goes to the other half of shared memory

In shared memory: two slices, [channel][filter] and [channel][pixel]. In registers: sums, and the slice under way. Weights are
packed so that a slice is one run; pixels are read where they lie, so dilation and strides cost nothing, and taps in the
padding are zeros that are multiplied. A warp's 32 micro-tiles are 8 by 4, so its loads hit every bank once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import FLOATS, at, i4, output_of, outputs_of, pixel_of, place4, put, seen, seen4, store, u4, weight_of
from fastconv.cuda.tiles import MICRO, SUMS, Tile


@lru_cache(maxsize=256)
def direct_standard(dtype: str, finish: Any) -> Any:
    """One thread an output. Weights as they come."""
    zero = FLOATS[dtype](0)

    @kernel()
    def direct_standard(job):
        (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
        (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
        step_e, step_a, step_b = job.weight_steps
        for o in range(cuda.grid(1), outputs_of(job), cuda.gridsize(1)):
            n, f, z, i, j = output_of(job, o)
            z, i, j = z * stride_z - before_z, i * stride_i - before_i, j * stride_j - before_j
            image = job.x_first + n * job.x_image + f // job.filters * job.channels * job.x_channel
            weights, total = weight_of(job, f), zero
            for e in range(taps_z):
                for a in range(taps_a):
                    for b in range(taps_b):
                        pixel = seen(job, z + e * apart_z, i + a * apart_i, j + b * apart_j)
                        if pixel >= 0:
                            w = weights + e * step_e + a * step_a + b * step_b
                            for c in range(job.channels):
                                total += job.x[image + pixel + c * job.x_channel] * job.weight[w + c * job.weight_channel]
            store(job, finish, o, total)

    return direct_standard


# Tiled ----------------------------------------------------------------------------------------------------------------


@function
def locate_tap(job, image, z, i, j, e, a, b):
    """Where the pixel lies that tap (e, a, b) of the window at (z, i, j) sees, -1 outside the image."""
    apart_z, apart_i, apart_j = job.dilation
    place = seen4(job, i4(z + e * apart_z), i4(i + a * apart_i), i4(j + b * apart_j))
    return i4(image + place) if place >= 0 else i4(-1)


@function
def value_of_pixel(job, place, z, i, j, c):
    """What the pixel's channel c is."""
    return at(job.x, i4(place + c * job.x_channel))


@function
def quad(array, base, offset):
    """Four neighbours in shared memory: one 128-bit load, which NVVM makes only of an unsigned base and constant offsets."""
    u = u4(base)
    return array[u + offset], array[u + (offset + 1)], array[u + (offset + 2)], array[u + (offset + 3)]


@function
def put_quad(array, base, offset, four):
    """As `quad`, the other way."""
    u = u4(base)
    array[u + offset], array[u + (offset + 1)], array[u + (offset + 2)], array[u + (offset + 3)] = four


@lru_cache(maxsize=256)
def tiled_standard(dtype: str, finish: Any, tile: Tile, whole: bool, one_tap: bool = False, locate: Any = locate_tap,
                   value: Any = value_of_pixel) -> Any:  # fmt: skip
    """One block a tile of filters and pixels. Weights from packing.filter_panels.

    `whole`: the channels are whole slices; `one_tap`: there is one, and its place is found once. `locate` and `value` say where
    a tap's pixel lies, and what one of its channels is.
    """
    floats, zero = FLOATS[dtype], FLOATS[dtype](0)
    filters, pixels, depth, threads = tile.filters, tile.pixels, tile.channels, tile.threads
    weight_slice, pixel_slice = depth * filters, depth * pixels
    both_weights, both_pixels = 2 * weight_slice, 2 * pixel_slice
    own_weights, own_pixels = weight_slice // threads, pixel_slice // threads  # numbers of a slice that a thread brings
    rows = threads // pixels  # channels that all threads bring at once
    across, down, warps = tile.lanes_across, tile.lanes_down, tile.warps_across
    lanes = across * down
    half_filters, half_pixels = filters // 2, pixels // 2

    @function
    def rank1(weights, image, sums, u, v, w_at, x_at, k):
        """Sums += channel k of a slice: 8 filters, four and four, by 8 pixels."""
        u[0], u[1], u[2], u[3] = quad(weights, w_at, k * filters)
        u[4], u[5], u[6], u[7] = quad(weights, w_at, k * filters + half_filters)
        v[0], v[1], v[2], v[3] = quad(image, x_at, k * pixels)
        v[4], v[5], v[6], v[7] = quad(image, x_at, k * pixels + half_pixels)
        for r in range(MICRO):
            for s in range(MICRO):
                sums[r * MICRO + s] += u[r] * v[s]

    @function
    def four_channels(weights, image, sums, u, v, w_at, x_at, k):
        """By hand: LLVM unrolls no loop of so large a body, and sums stay in registers only where every index is constant."""
        rank1(weights, image, sums, u, v, w_at, x_at, k)
        rank1(weights, image, sums, u, v, w_at, x_at, k + 1)
        rank1(weights, image, sums, u, v, w_at, x_at, k + 2)
        rank1(weights, image, sums, u, v, w_at, x_at, k + 3)

    @function
    def fetch(job, next_weights, next_pixels, w, place, z, i, j, c):
        """Bring a slice into registers: weights from w on, channels c, c + rows, ... of one pixel."""
        for k in range(0, own_weights, 4):
            four = quad(job.weight, w, k * threads)
            next_weights[k], next_weights[k + 1], next_weights[k + 2], next_weights[k + 3] = four
        for k in range(own_pixels):
            next_pixels[k] = zero
        if place >= 0:
            for k in range(own_pixels):
                if whole or c + k * rows < job.channels:
                    next_pixels[k] = value(job, place, z, i, j, i4(c + k * rows))

    @function
    def store_slice(weights, image, next_weights, next_pixels, w, x):
        for k in range(0, own_weights, 4):
            four = next_weights[k], next_weights[k + 1], next_weights[k + 2], next_weights[k + 3]
            put_quad(weights, w, k * threads, four)
        for k in range(own_pixels):
            put(image, i4(x + k * threads), next_pixels[k])

    @function
    def store_column(job, sums, g, f, p, s):
        """The s-th column of a micro-tile: 8 filters of one pixel."""
        if p < job.batch * job.out_space[0] * job.out_space[1] * job.out_space[2]:
            n, z, i, j = pixel_of(job, p)
            image = i4(n * job.out_image)
            for r in range(MICRO):
                here = i4(f + r // 4 * half_filters + r % 4)
                if here < job.filters:
                    all_f = i4(g * job.filters + here)
                    within = place4(job, all_f, z, i, j)
                    put(job.out, i4(image + within), finish(job, sums[r * MICRO + s], all_f, image, within))

    @kernel(tile.registers)
    def tiled_standard(job):
        weights = cuda.shared.array(both_weights, floats)
        image = cuda.shared.array(both_pixels, floats)
        sums = cuda.local.array(SUMS, floats)
        next_weights = cuda.local.array(own_weights, floats)
        next_pixels = cuda.local.array(own_pixels, floats)
        u = cuda.local.array(MICRO, floats)
        v = cuda.local.array(MICRO, floats)
        thread = i4(cuda.threadIdx.x)
        column = i4((thread % across + thread // lanes % warps * across) * 4)  # of the micro-tile: its first pixel and filter
        row = i4((thread // across % down + thread // (lanes * warps) * down) * 4)
        panel, first_pixel = i4(cuda.blockIdx.y), i4(cuda.blockIdx.x * pixels)
        g = i4(panel // job.panels)
        (_, taps_a, taps_b), (stride_z, stride_i, stride_j), (before_z, before_i, before_j) = job.kernel, job.stride, job.before
        taps = i4(1 if one_tap else job.kernel[0] * taps_a * taps_b)
        slices = i4(taps * ((job.channels + (depth - 1)) // depth))
        for k in range(SUMS):
            sums[k] = zero
        # The pixel that this thread brings, and the corner of its window.
        p, c = i4(first_pixel + thread % pixels), i4(thread // pixels)
        n, z, i, j = pixel_of(job, p)
        z, i, j = i4(z * stride_z - before_z), i4(i * stride_i - before_i), i4(j * stride_j - before_j)
        live = n < job.batch
        source = i4(job.x_first + n * job.x_image + g * job.channels * job.x_channel)
        e, a, b = i4(0), i4(0), i4(0)
        w = i4(panel * slices * weight_slice + thread * 4)
        place = locate(job, source, z, i, j, e, a, b) if live and taps > 0 else i4(-1)
        if slices > 0:
            fetch(job, next_weights, next_pixels, w, place, z, i, j, c)
            store_slice(weights, image, next_weights, next_pixels, i4(thread * 4), thread)
        cuda.syncthreads()
        half = i4(0)
        left = slices
        while left > 0:
            left = i4(left - 1)
            if left > 0:
                w, c = i4(w + weight_slice), i4(c + depth)
                if not one_tap and c - thread // pixels >= job.channels:
                    c, b = i4(thread // pixels), i4(b + 1)
                    if b == taps_b:
                        b, a = i4(0), i4(a + 1)
                        if a == taps_a:
                            a, e = i4(0), i4(e + 1)
                    place = locate(job, source, z, i, j, e, a, b) if live else i4(-1)
                fetch(job, next_weights, next_pixels, w, place, z, i, j, c)
            w_at, x_at = i4(half * weight_slice + row), i4(half * pixel_slice + column)
            four_channels(weights, image, sums, u, v, w_at, x_at, 0)
            if depth > 4:
                four_channels(weights, image, sums, u, v, w_at, x_at, 4)
            if depth > 8:
                four_channels(weights, image, sums, u, v, w_at, x_at, 8)
                four_channels(weights, image, sums, u, v, w_at, x_at, 12)
            half = i4(1 - half)
            if left > 0:
                w_to, x_to = i4(half * weight_slice + thread * 4), i4(half * pixel_slice + thread)
                store_slice(weights, image, next_weights, next_pixels, w_to, x_to)
                cuda.syncthreads()
        f = i4(panel % job.panels * filters + row)
        p = i4(first_pixel + column)
        store_column(job, sums, g, f, p, 0)
        store_column(job, sums, g, f, i4(p + 1), 1)
        store_column(job, sums, g, f, i4(p + 2), 2)
        store_column(job, sums, g, f, i4(p + 3), 3)
        store_column(job, sums, g, f, i4(p + half_pixels), 4)
        store_column(job, sums, g, f, i4(p + half_pixels + 1), 5)
        store_column(job, sums, g, f, i4(p + half_pixels + 2), 6)
        store_column(job, sums, g, f, i4(p + half_pixels + 3), 7)

    return tiled_standard
