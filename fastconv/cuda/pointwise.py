"""Pointwise (1x1) convolution: it mixes the channels of a pixel and looks at no other pixel.

    out[n, f, p] = finish(bias + sum over c of weight[f, c] * x[n, c, p])       p over pixels, every stride-th of them

`direct_pointwise` is that sum, one thread an output. `tiled_pointwise` is the implicit matrix product of standard.py with a single
tap, whose place in the image a thread works out once: a slice of the product is then nothing but loads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cuda.device import cuda, kernel
from fastconv.cuda.indices import FLOATS, output_of, outputs_of, store, weight_of
from fastconv.cuda.standard import tiled_standard
from fastconv.cuda.tiles import Tile


@lru_cache(maxsize=256)
def direct_pointwise(dtype: str, finish: Any) -> Any:
    """One thread an output. Weights as they come."""
    zero = FLOATS[dtype](0)

    @kernel()
    def direct_pointwise(job):
        (stride_z, stride_i, stride_j), (step_z, step_i, step_j) = job.stride, job.x_steps
        for o in range(cuda.grid(1), outputs_of(job), cuda.gridsize(1)):
            n, f, z, i, j = output_of(job, o)
            x = job.x_first + n * job.x_image + z * stride_z * step_z + i * stride_i * step_i + j * stride_j * step_j
            w, total = weight_of(job, f), zero
            for c in range(job.channels):
                total += job.x[x + c * job.x_channel] * job.weight[w + c * job.weight_channel]
            store(job, finish, o, total)

    return direct_pointwise


def tiled_pointwise(dtype: str, finish: Any, tile: Tile, whole: bool) -> Any:
    """One block a tile of filters and pixels. Weights from packing.filter_panels."""
    return tiled_standard(dtype, finish, tile, whole, one_tap=True)
