"""Layouts on the device: weights to panels, arrays without gaps, images with their border drawn in. One thread a number.

Only what a kernel cannot read as it is comes here: tiled products want a slice of weights as one run and a table of their terms, a
bias or residual wants no gaps, and `padding_mode` a border that shows more of the image. Nothing passes through the host.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import FLOATS, gradient_at, i4, i8, u4
from fastconv.cuda.tiles import Tile

# How a coordinate beyond an image of n is found in it; MODES numbers them for the kernel.
MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3, "symmetric": 4}
Five = tuple[int, int, int, int, int]


@lru_cache(maxsize=32)
def filter_panels(dtype: str, tile: Tile, weight_at: Any) -> Any:
    """[phase][group][panel][channel, tap][filter], filled up with zeros to whole slices and panels, into job.out.

    `weight_at(job, g, f, q)` says whether the q-th term of a group has a weight for filter f, and where; `g` numbers phases and,
    in each, groups.
    """
    zero, rows, depth = FLOATS[dtype](0), tile.filters, tile.terms

    @kernel()
    def filter_panels(job):
        terms = job.slices * depth
        for o in range(cuda.grid(1), job.phases * job.groups * job.panels * terms * rows, cuda.gridsize(1)):
            f, q, panel = o % rows, o // rows % terms, o // (rows * terms)
            there, w = weight_at(job, panel // job.panels, panel % job.panels * rows + f, q)
            number = zero
            if there:
                number = job.weight[w]
            job.out[o] = number

    return filter_panels


@lru_cache(maxsize=32)
def gradient_panels(dtype: str, tile: Tile) -> Any:
    """The same of a gradient, without phases: [group][panel][pixel of all images][filter]."""
    zero, rows, depth = FLOATS[dtype](0), tile.filters, tile.terms

    @kernel()
    def gradient_panels(job):
        pixels, padded = job.batch * job.out_space[0] * job.out_space[1] * job.out_space[2], job.slices * depth
        for o in range(cuda.grid(1), job.groups * job.panels * padded * rows, cuda.gridsize(1)):
            f, p, panel = o % rows, o // rows % padded, o // (rows * padded)
            g, f = panel // job.panels, panel % job.panels * rows + f
            number = zero
            if f < job.filters and p < pixels:
                number = job.grad[gradient_at(job, p)[0] + (g * job.filters + f) * job.grad_channel]
            job.out[o] = number

    return gradient_panels


@lru_cache(maxsize=8)
def places(place_of: Any, depth: int) -> Any:
    """The table of what a tiled product adds up, terms or pixels: a number each, lines in its upper half, offset in its lower.

    `place_of(job, phase, q)` is that of the q-th.
    """

    @kernel()
    def places(job):
        size = job.slices * depth
        for o in range(cuda.grid(1), job.phases * size, cuda.gridsize(1)):
            offset, lines = place_of(job, i4(o // size), i4(o % size))
            job.terms[o] = i8(lines) << 32 | i8(u4(offset))

    return places


class Copy(NamedTuple):
    """What `copy` is told: an array of five dimensions, and where its numbers lie in another."""

    source: Any
    out: Any
    shape: Five
    first: int
    sizes: Five  # of the source
    steps: Five
    before: Five  # how far the copy begins before the source
    mode: int


@function
def within(p, n, mode):
    """Where in a line of n numbers the border shows number p, at most n before it or behind; -1 where it shows a zero."""
    if p >= 0 and p < n:
        return p
    if mode == 0:
        return -1
    if mode == 1:
        return -p if p < 0 else 2 * n - 2 - p
    if mode == 2:
        return 0 if p < 0 else n - 1
    if mode == 3:
        return p + n if p < 0 else p - n
    return -1 - p if p < 0 else 2 * n - 1 - p


@kernel()
def copy(task):
    """The source, or its surroundings by a padding mode, without gaps."""
    (_, d1, d2, d3, d4), (_, n1, n2, n3, n4) = task.shape, task.sizes
    (b0, b1, b2, b3, b4), (s0, s1, s2, s3, s4) = task.before, task.steps
    count = task.shape[0] * d1 * d2 * d3 * d4
    for o in range(cuda.grid(1), count, cuda.gridsize(1)):
        p0, p1, p2 = o // (d1 * d2 * d3 * d4), o // (d2 * d3 * d4) % d1, o // (d3 * d4) % d2
        p3, p4 = o // d4 % d3, o % d4
        p0, p1, p2 = within(p0 - b0, task.sizes[0], task.mode), within(p1 - b1, n1, task.mode), within(p2 - b2, n2, task.mode)
        p3, p4 = within(p3 - b3, n3, task.mode), within(p4 - b4, n4, task.mode)
        if p0 >= 0 and p1 >= 0 and p2 >= 0 and p3 >= 0 and p4 >= 0:
            task.out[o] = task.source[task.first + p0 * s0 + p1 * s1 + p2 * s2 + p3 * s3 + p4 * s4]
        else:
            task.out[o] = 0
