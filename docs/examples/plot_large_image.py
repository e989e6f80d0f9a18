"""
A picture larger than memory
============================

``fastconv.dask`` convolves dask arrays chunk by chunk. Each chunk borrows the rows at its rim from its neighbours, so the
result has no seams, and only a few chunks are in memory at a time, whatever the size of the picture. Here two workers take a
picture through a depthwise separable layer; with ``SIDE=32768`` in the environment it is one of a gigapixel.
"""

import os

import dask
import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
from distributed import Client

import fastconv.dask as lazy

SIDE, CHUNK = int(os.environ.get("SIDE", 4096)), 1024

# %%
# The picture: rings of three colours, drawn when a chunk is needed, as it would be read from a file.


def draw(block_info=None):
    """One chunk of the picture."""
    (_, *_), (top, bottom), (left, right) = block_info[None]["array-location"]
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) / SIDE - 0.5
    distance = np.hypot(x, y)
    return np.stack([np.cos(distance * tone) for tone in (40, 60, 90)]).astype(np.float32)


sides = (CHUNK,) * (SIDE // CHUNK)
picture = da.map_blocks(draw, dtype=np.float32, chunks=((3,), sides, sides), meta=np.empty((0, 0, 0), np.float32))

# %%
# The layer: every colour is sharpened by a filter of its own, then they are mixed to a grey.

sharpen = np.broadcast_to(np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32), (3, 1, 3, 3)).copy()
grey = np.array([[0.299, 0.587, 0.114]], np.float32)
result = lazy.separable_conv2d(picture, sharpen, grey, padding="same", padding_mode="replicate")

# %%
# Two workers of one thread each compute what is asked for: a thumbnail, and a mean over all pixels. They take part in one
# another's chunks by the distributed scheduler; ``Client("address:8786")`` would let other machines do it.

with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None):
    thumbnail, mean = dask.compute(result[0, :: SIDE // 256, :: SIDE // 256], result.mean())

figure, axis = plt.subplots(layout="constrained")
axis.imshow(thumbnail, cmap="gray")
axis.set_title(f"{result.shape[1]:,} x {result.shape[2]:,} pixels, mean {mean:.4f}")
axis.axis("off")
