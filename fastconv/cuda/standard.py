"""Standard convolution: every filter looks at every channel of its group through a window of the image.

    out[n, f, i, j] = finish(bias + sum over c, a, b of weight[f, c, a, b] * x[n, c, i*stride + a*dilation - before, j*...])

and the same with one more tap, over the depth, for volumes; a line is a plane of height 1. `direct_standard` is that sum, one
thread an output, neighbouring threads at neighbouring outputs.

`tiled_standard` is an implicit matrix product, (filters) x (terms) by (terms) x (pixels), whose second factor is never made
(Chetlur et al. 2014, "cuDNN"; the tiles are those of Volkov and Demmel 2008). A term is a channel and a tap. Outermost first:

    block                   tile.filters of one group by tile.pixels of all images, and a run of slices: with few such tiles
                            the terms are split among blocks, whose sums add_splits adds up in order
      slice                   the next tile.terms terms of both factors travel from memory to registers ...
        term                    ... while an 8x8 micro-tile of sums a thread takes this slice from shared memory: two times two
                                128-bit loads a term, for 64 multiply-adds
      barrier                 the slice in registers goes to the other half of shared memory

In shared memory: two slices, [term][filter] and [term][pixel]. In registers: sums, and the slice under way. Weights are packed
so that a slice is one run. A pixel is read where it lies: how far from its window's corner a term is, and which lines of taps
it belongs to, is a table made before (indices.py), so 3 channels of 49 taps fill their slices as well as 64 channels, and no
tap is counted in the loop. Terms in the padding are zeros that are multiplied. A warp's 32 micro-tiles are 8 by 4, so its loads
hit every bank once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import (
    FLOATS,
    at,
    i4,
    output_of,
    outputs_of,
    pixel_of,
    pixel_place,
    place4,
    place_of,
    put,
    quotient,
    seen,
    store,
    u4,
    weight_of,
    window_of,
)
from fastconv.cuda.tiles import MICRO, SUMS, Tile


@lru_cache(maxsize=256)
def direct_standard(dtype: str, finish: Any) -> Any:
    """One thread an output. Weights as they come."""
    zero = FLOATS[dtype](0)

    @kernel()
    def direct_standard(job):
        (taps_z, taps_a, taps_b), (apart_z, apart_i, apart_j) = job.kernel, job.dilation
        step_e, step_a, step_b = job.weight_steps
        for o in range(cuda.grid(1), outputs_of(job), cuda.gridsize(1)):
            f, image, z, i, j = window_of(job, o)
            image += f // job.filters * job.channels * job.x_channel
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


@lru_cache(maxsize=256)
def add_splits(dtype: str, finish: Any) -> Any:
    """One thread an output: its job.split partial sums, job.out_split apart in job.x, are added up in order."""
    zero = FLOATS[dtype](0)

    @kernel()
    def add_splits(job):
        for o in range(cuda.grid(1), outputs_of(job), cuda.gridsize(1)):
            n, f, z, i, j = output_of(job, o)
            place, total = n * job.out_image + place_of(job, f, z, i, j), zero
            for split in range(job.split):
                total += job.x[split * job.out_split + place]
            store(job, finish, o, total)

    return add_splits


@lru_cache(maxsize=2)
def seen_from(dtype: str) -> Any:
    """The function `number(job, place, term, k)`: what term + k of the table is, seen from a place; 0 outside the image."""
    zero = FLOATS[dtype](0)

    @function
    def number(job, place, term, k):
        corner, outside = place
        lines_and_offset = job.terms[u4(term) + k]
        if i4(lines_and_offset >> 32) & outside != 0:
            return zero
        return at(job.x, i4(corner + i4(lines_and_offset)))

    return number


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


@function
def all_terms(job, g, depth):
    """Where in the table the terms of a group begin, and how many slices they are."""
    return i4(0), job.slices


@function
def itself(job, g):
    """What `output_at` must know of a group."""
    return g


@function
def output_at(job, g, p):
    """Where the p-th pixel's sums go: (whether there is one, the group, n, z, i, j)."""
    n, z, i, j = pixel_of(job, p)
    return n < job.batch, g, n, z, i, j


class Reading(NamedTuple):
    """What a tiled product multiplies and where its sums go, for what is not quite a standard convolution.

    `where(job, g, p)` says where the p-th pixel of group g lies, `number(job, place, term, k)` what term + k is there (None: by
    the table); `terms`, `frame` and `target` are those above, whose `frame` is worked out once for all outputs of a thread.
    """

    where: Any = pixel_place
    number: Any = None
    terms: Any = all_terms
    frame: Any = itself
    target: Any = output_at


@lru_cache(maxsize=64)
def multiply_slice(tile: Tile) -> Any:
    """The function `multiply(weights, image, sums, u, v, w_at, x_at)`: a micro-tile's sums += all terms of a slice.

    Everything is written out by hand: LLVM unrolls no loop of so large a body, and `sums`, `u` and `v` stay in registers only
    where every index is a constant.
    """
    filters, pixels, depth = tile.filters, tile.pixels, tile.terms
    half_filters, half_pixels = filters // 2, pixels // 2

    @function
    def rank1(weights, image, sums, u, v, w_at, x_at, k):
        """Sums += term k: 8 filters, four and four, by 8 pixels."""
        u[0], u[1], u[2], u[3] = quad(weights, w_at, k * filters)
        u[4], u[5], u[6], u[7] = quad(weights, w_at, k * filters + half_filters)
        v[0], v[1], v[2], v[3] = quad(image, x_at, k * pixels)
        v[4], v[5], v[6], v[7] = quad(image, x_at, k * pixels + half_pixels)
        for r in range(MICRO):
            for s in range(MICRO):
                sums[r * MICRO + s] += u[r] * v[s]

    @function
    def four_terms(weights, image, sums, u, v, w_at, x_at, k):
        rank1(weights, image, sums, u, v, w_at, x_at, k)
        rank1(weights, image, sums, u, v, w_at, x_at, k + 1)
        rank1(weights, image, sums, u, v, w_at, x_at, k + 2)
        rank1(weights, image, sums, u, v, w_at, x_at, k + 3)

    @function
    def multiply(weights, image, sums, u, v, w_at, x_at):
        four_terms(weights, image, sums, u, v, w_at, x_at, 0)
        if depth > 4:
            four_terms(weights, image, sums, u, v, w_at, x_at, 4)
        if depth > 8:
            four_terms(weights, image, sums, u, v, w_at, x_at, 8)
            four_terms(weights, image, sums, u, v, w_at, x_at, 12)

    return multiply


@lru_cache(maxsize=64)
def bring_slice(tile: Tile, number: Any) -> tuple[Any, Any]:
    """A thread's part of bringing a slice: `fetch` takes its numbers from memory to registers, `keep` from there to shared memory.

    Between the two, the block multiplies the slice before it, so that no thread waits for memory.
    """
    threads = tile.threads
    own_weights, own_pixels = tile.terms * tile.filters // threads, tile.terms * tile.pixels // threads
    rows = threads // tile.pixels  # terms that all threads bring at once

    @function
    def fetch(job, next_weights, next_pixels, w, place, term):
        """Weights from w on; of one pixel the terms term, term + rows, ..."""
        for k in range(0, own_weights, 4):
            four = quad(job.weight, w, k * threads)
            next_weights[k], next_weights[k + 1], next_weights[k + 2], next_weights[k + 3] = four
        for k in range(own_pixels):
            next_pixels[k] = number(job, place, term, k * rows)

    @function
    def keep(weights, image, next_weights, next_pixels, w, x):
        for k in range(0, own_weights, 4):
            four = next_weights[k], next_weights[k + 1], next_weights[k + 2], next_weights[k + 3]
            put_quad(weights, w, k * threads, four)
        to = u4(x)
        for k in range(own_pixels):
            image[to + k * threads] = next_pixels[k]

    return fetch, keep


@lru_cache(maxsize=256)
def store_columns(tile: Tile, finish: Any, target: Any) -> Any:
    """The function `store_four(job, sums, u, frame, f, p, s, split)`: four columns of a micro-tile, from the s-th on, finished.

    A column is 8 filters, f and three more and as many half a tile further on, of one pixel, p.
    """
    half_filters = tile.filters // 2

    @function
    def store_column(job, sums, u, frame, f, p, s, split):
        """All of a column are finished before any is stored, so that their loads do not wait for each other."""
        live, group, n, z, i, j = target(job, frame, p)
        if live:
            image = i4(split * job.out_split + n * job.out_image)
            for r in range(MICRO):
                all_f = i4(group * job.filters + min(i4(f + r // 4 * half_filters + r % 4), i4(job.filters - 1)))
                u[r] = finish(job, sums[r * MICRO + s], all_f, image, place4(job, all_f, z, i, j))
            for r in range(MICRO):
                here = i4(f + r // 4 * half_filters + r % 4)
                if here < job.filters:
                    put(job.out, i4(image + place4(job, i4(group * job.filters + here), z, i, j)), u[r])

    @function
    def store_four(job, sums, u, frame, f, p, s, split):
        store_column(job, sums, u, frame, f, p, s, split)
        store_column(job, sums, u, frame, f, i4(p + 1), s + 1, split)
        store_column(job, sums, u, frame, f, i4(p + 2), s + 2, split)
        store_column(job, sums, u, frame, f, i4(p + 3), s + 3, split)

    return store_four


@lru_cache(maxsize=256)
def tiled_standard(dtype: str, finish: Any, tile: Tile, reading: Reading = Reading()) -> Any:  # noqa: B008
    """One block a tile of filters and pixels. Weights from packing.filter_panels, terms from packing.places."""
    floats, zero = FLOATS[dtype], FLOATS[dtype](0)
    where, terms_of, frame_of = reading.where, reading.terms, reading.frame
    multiply, store_four = multiply_slice(tile), store_columns(tile, finish, reading.target)
    fetch, keep = bring_slice(tile, reading.number or seen_from(dtype))
    filters, pixels, depth, threads = tile.filters, tile.pixels, tile.terms, tile.threads
    weight_slice, pixel_slice = depth * filters, depth * pixels
    both_weights, both_pixels = 2 * weight_slice, 2 * pixel_slice
    own_weights, own_pixels = weight_slice // threads, pixel_slice // threads  # numbers of a slice that a thread brings
    across, down, warps = tile.lanes_across, tile.lanes_down, tile.warps_across
    lanes, half_pixels = across * down, pixels // 2

    @kernel(tile.registers)
    def tiled_standard(job):
        weights = cuda.shared.array(both_weights, floats)
        image = cuda.shared.array(both_pixels, floats)
        sums = cuda.local.array(SUMS, floats)
        next_weights = cuda.local.array(own_weights, floats)
        next_pixels = cuda.local.array(own_pixels, floats)
        u = cuda.local.array(MICRO, floats)
        v = cuda.local.array(MICRO, floats)
        thread, split = i4(cuda.threadIdx.x), i4(cuda.blockIdx.z)
        column = i4((thread % across + thread // lanes % warps * across) * 4)  # of the micro-tile: its first pixel and filter
        row = i4((thread // across % down + thread // (lanes * warps) * down) * 4)
        panel, first_pixel = i4(cuda.blockIdx.y), i4(cuda.blockIdx.x * pixels)
        g = quotient(panel, job.panels)
        first_term, slices = terms_of(job, g, depth)
        first, left = i4(split * job.split), i4(slices - split * job.split)
        if left > job.split:
            left = job.split
        for k in range(SUMS):
            sums[k] = zero
        place = where(job, g, i4(first_pixel + thread % pixels))  # of the pixel that this thread brings
        w, term = i4((panel * job.slices + first) * weight_slice + thread * 4), i4(first_term + first * depth + thread // pixels)
        if left > 0:
            fetch(job, next_weights, next_pixels, w, place, term)
            keep(weights, image, next_weights, next_pixels, i4(thread * 4), thread)
        cuda.syncthreads()
        half = i4(0)  # of shared memory, in which the slice lies that is multiplied
        while left > 0:
            left = i4(left - 1)
            if left > 0:
                w, term = i4(w + weight_slice), i4(term + depth)
                fetch(job, next_weights, next_pixels, w, place, term)
            multiply(weights, image, sums, u, v, i4(half * weight_slice + row), i4(half * pixel_slice + column))
            half = i4(1 - half)
            if left > 0:
                w_to, x_to = i4(half * weight_slice + thread * 4), i4(half * pixel_slice + thread)
                keep(weights, image, next_weights, next_pixels, w_to, x_to)
                cuda.syncthreads()
        f = i4((panel - g * job.panels) * filters + row)
        p, frame = i4(first_pixel + column), frame_of(job, g)
        store_four(job, sums, u, frame, f, p, 0, split)
        store_four(job, sums, u, frame, f, i4(p + half_pixels), 4, split)

    return tiled_standard
