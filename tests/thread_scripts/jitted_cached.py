"""A parallel loop from the user's disk cache, whose threads are the first of the process to call the package."""

import numpy as np
from numba import njit, prange

import fastconv as fc


@njit(cache=True)
def inner(x, w):
    return fc.conv2d(x, w, padding=1)


@njit(parallel=True, cache=True)
def loop(x, w, out):
    for i in prange(len(x)):
        out[i] = inner(x[i], w)


x, w = np.ones((6, 4, 12, 12), np.float32), np.ones((6, 4, 3, 3), np.float32)
out = np.zeros((6, 6, 12, 12), np.float32)
loop(x, w, out)
assert np.array_equal(out, fc.conv2d(x, w, padding=1))
print(sum(loop.stats.cache_hits.values()))
