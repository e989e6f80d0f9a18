"""Transposed convolution: every pixel of the input spreads a scaled copy of the kernel over the result.

    out[n, f, i, j] = finish(bias + sum over c, a, b of weight[c, f, a, b] * x[n, c, y, u])
                      over those y, u with  y*stride + a*dilation - before = i  and  u*stride + b*dilation - before = j

`direct_transposed` is that sum, gathered: one thread an output, nothing scattered, no atomics, no zeros inserted.

`tiled_transposed` is for strides above 1 (with stride 1 it is an ordinary convolution, and the plan says so). Every stride-th
output of a line meets the same taps: the result falls into stride_i * stride_j phases, and each is a convolution of stride 1 with
the taps that reach it, mirrored. `phases` says which; tiled_standard computes one after the other, storing its outputs a stride
apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from fastconv.cuda.device import cuda, function, kernel
from fastconv.cuda.indices import FLOATS, output_of, outputs_of, store, weight_of
from fastconv.cuda.standard import tiled_standard as tiled_transposed

__all__ = ["direct_transposed", "phases", "tiled_transposed"]


@function
def source(position, stride, size):
    """Which input row lands on this position, -1 if none does."""
    y = position // stride
    return y if position >= 0 and y * stride == position and y < size else -1


@lru_cache(maxsize=256)
def direct_transposed(dtype: str, finish: Any) -> Any:
    """One thread an output. Weights (channels, filters / groups, *kernel), as they come."""
    zero = FLOATS[dtype](0)

    @kernel()
    def direct_transposed(job):
        (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
        (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
        (depth, height, width), (step_z, step_i, step_j) = job.space, job.x_steps
        step_e, step_a, step_b = job.weight_steps
        for o in range(cuda.grid(1), outputs_of(job), cuda.gridsize(1)):
            n, f, z, i, j = output_of(job, o)
            image = job.x_first + n * job.x_image + f // job.filters * job.channels * job.x_channel
            weights, total = weight_of(job, f), zero
            for e in range(taps_z):
                plane = source(z + before_z - e * apart_z, stride_z, depth)
                for a in range(taps_a):
                    y = source(i + before_i - a * apart_i, stride_i, height)
                    for b in range(taps_b):
                        u = source(j + before_j - b * apart_j, stride_j, width)
                        if plane >= 0 and y >= 0 and u >= 0:
                            x = image + plane * step_z + y * step_i + u * step_j
                            w = weights + e * step_e + a * step_a + b * step_b
                            for c in range(job.channels):
                                total += job.x[x + c * job.x_channel] * job.weight[w + c * job.weight_channel]
            store(job, finish, o, total)

    return direct_transposed


# Tiled: phases, each a convolution of stride 1 ---------------------------------------------------------------------------


class Line(NamedTuple):
    """One dimension of a phase: `outputs` of them from `first` on, `taps` from the last one back, `step` apart in the kernel."""

    first: int
    outputs: int
    last_tap: int
    step: int
    taps: int
    before: int
    dilation: int


def line(first: int, out: int, kernel: int, stride: int, dilation: int, before: int) -> Line:
    """The outputs first, first + stride, ... of one dimension as a convolution of stride 1.

    Tap a reaches output i from row y = (i + before - a * dilation) / stride, if that is whole: from the first such tap on, every
    (stride / g)-th does, g their common divisor, from dilation / g rows earlier each. Mirrored, they are a window.

    >>> line(first=0, out=8, kernel=4, stride=2, dilation=1, before=1)
    Line(first=0, outputs=4, last_tap=3, step=2, taps=2, before=1, dilation=1)
    """
    common = math.gcd(stride, dilation)
    step, apart = stride // common, dilation // common
    reaching = [a for a in range(min(step, kernel)) if (first + before - a * dilation) % stride == 0]
    outputs = -(-(out - first) // stride)
    if not reaching:
        return Line(first, outputs, 0, step, 0, 0, apart)
    taps = -(-(kernel - reaching[0]) // step)
    last = reaching[0] + (taps - 1) * step
    return Line(first, outputs, last, step, taps, -((first + before - last * dilation) // stride), apart)


def phases(out: Any, kernel: Any, stride: Any, dilation: Any, before: Any) -> Iterator[tuple[Line, ...]]:
    """All phases of a result, one line of outputs for each dimension."""
    for firsts in product(*(range(min(s, size)) for s, size in zip(stride, out, strict=True))):
        yield tuple(map(line, firsts, out, kernel, stride, dilation, before))
