"""Convolutions inside the user's own parallel loops: every call on its own thread, whoever is the first to come.

With the argument `loop` the loop's threads are the first of the process to call the package: its functions come from the user's
disk cache. Prints how often the loop did.
"""

import sys

import numpy as np
from numba import njit, prange

import fastconv as fc


@njit(cache=True)
def inner(x, w):
    return fc.conv2d(x, w, padding=1)


@njit(parallel=True, cache=True)
def images(x, w, out):
    for i in prange(len(x)):
        if i % 2:
            out[i] = inner(x[i], w)
        else:
            for size in range(3 + i % 7, 13):  # each of a plan of its own
                out[i, :, :size] = fc.conv2d(x[i, :, :size], w, padding=1)


rng = np.random.default_rng(0)
x = rng.integers(-4, 5, (40, 4, 12, 12)).astype(np.float32)
w = rng.integers(-4, 5, (6, 4, 3, 3)).astype(np.float32)
out = np.empty((40, 6, 12, 12), np.float32)
want = fc.reference.conv2d(x, w, padding=1)  # not fc.conv2d's: 40 images at once may be worth another kernel's rounding
if sys.argv[1:] != ["loop"]:
    inner(x[0, :, :3], w)  # compiled by itself: the loop's function cannot know what is inside
for _ in range(40):
    out[...] = 0
    images(x, w, out)
    assert np.array_equal(out, want)
print(sum(images.stats.cache_hits.values()))
