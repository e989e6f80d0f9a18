"""Pointwise (1x1) convolution: it mixes the channels of a pixel and looks at no other pixel.

    out[n, f, p] = finish(bias + sum over c of weight[f, c] * x[n, c, p])       p over pixels, every stride-th of them

`direct_pointwise` is that sum, one thread an output. `tiled_pointwise` is the implicit matrix product of standard.py, whose terms
are the channels alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cuda.device import cuda, kernel
from fastconv.cuda.indices import FLOATS, outputs_of, store, weight_of, window_of
from fastconv.cuda.standard import tiled_standard as tiled_pointwise

__all__ = ["direct_pointwise", "tiled_pointwise"]


@lru_cache(maxsize=256)
def direct_pointwise(dtype: str, finish: Any) -> Any:
    """One thread an output. Weights as they come."""
    zero = FLOATS[dtype](0)

    @kernel()
    def direct_pointwise(job):
        step_z, step_i, step_j = job.x_steps
        for o in range(cuda.grid(1), outputs_of(job), cuda.gridsize(1)):
            f, image, z, i, j = window_of(job, o)
            x = image + z * step_z + i * step_i + j * step_j
            w, total = weight_of(job, f), zero
            for c in range(job.channels):
                total += job.x[x + c * job.x_channel] * job.weight[w + c * job.weight_channel]
            store(job, finish, o, total)

    return direct_pointwise
