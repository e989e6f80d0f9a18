"""Convolutions inside the user's own parallel loops: every call on its own thread, whoever is the first to come."""

import numpy as np
from numba import njit, prange

import fastconv as fc


@njit
def inner(x, w):
    return fc.conv2d(x, w, padding=1)


@njit(parallel=True)
def directly(x, w, out):
    for i in prange(len(x)):
        for size in range(3 + i % 7, 13):  # each of a plan of its own
            out[i, :, :size] = fc.conv2d(x[i, :, :size], w, padding=1)


rng = np.random.default_rng(0)
x = rng.integers(-4, 5, (40, 4, 12, 12)).astype(np.float32)
w = rng.integers(-4, 5, (6, 4, 3, 3)).astype(np.float32)
out = np.empty((40, 6, 12, 12), np.float32)
for i in range(3, 13):  # planned before the loop, whose threads may wait for Python's lock in vain
    inner(x[0, :, :i], w)
for _ in range(20):
    out[...] = 0
    directly(x, w, out)
    assert np.array_equal(out, fc.conv2d(x, w, padding=1))
