"""Depthwise convolution of volumes: a plane of the result is the sum of what its windows' planes of taps give.

    out[f, z, i, j] = finish(bias + sum over e of (weight[f, e] * x[c, z*stride + e*dilation - before])[i, j])

Each of these is a walk down a plane (depthwise.py). The first begins with the bias, the others go on from what the one before left
in the result; a vector's column stays in L1 meanwhile, so that a load for each vector is all that it costs. Outermost first:

    channel
      column of vectors           edges are made once; from one plane to the next, whose lines come from L1 or L2
        plane of the result
          plane of taps               weights in registers; planes outside the image are never visited
            line of the image           as in a plane

9 multiply-adds take about 11 cycles, a plane's 10.2. Vectors at a plane's right edge begin anew with the bias where they overlap.
"""

import numpy as np

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.depthwise import meet, put
from fastconv.cpu.rows import inside
from fastconv.cpu.simd import align_stack
from fastconv.cpu.windows import SMALL_WINDOW


@inlined
def sum_so_far(tile, start, out, width):
    """What a window's sum goes on from: `start`, and of what lies in the result as many numbers."""
    there = tile.load(out, 0, width)
    if tile.step == 2:
        there = there.as_windows()
    return start + there


@inlined
def walk_on(tile, weights, start, job, image, edges, line, out, width, kept, low, high):
    """As depthwise.walk, down the whole plane, from `start` and the first `kept` numbers of each vector of the result."""
    rows, pitch, unfinished = job.out_space[1], job.out_space[2], (tile.rows - 1) // tile.step
    sums = tile.sums(sum_so_far(tile, start, out, kept))
    for t in range(rows + unfinished):
        sums = meet(tile, weights, sums, job, image, edges, line, 1)
        if t >= unfinished:
            put(tile, sums, out + (t - unfinished) * pitch, 0, width, low, high)
        sums, line = sums.next(sum_so_far(tile, start, out + min(t + 1, rows - 1) * pitch, kept)), line + tile.step


@compiled
def tiled_depthwise_volume(item, seat, job):
    """One band of planes of a chunk of channels, columns in lanes. Weights from packing.row_panels, a filter each."""
    tile, filters, (planes, rows, out_width) = job.tile, job.groups * job.filters, job.out_space
    if tile.rows * tile.vectors > SMALL_WINDOW:
        align_stack()  # type: ignore[call-arg]
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, end, size, taps = band * job.band, min((band + 1) * job.band, planes), rows * out_width, tile.rows * tile.vectors
    width, lines, image = min(tile.lanes, out_width), job.space[1], n * filters * planes * size
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, filters)):
        w, x = job.weight + f * job.panel, job.x + (n * job.x_image + f // job.filters * job.x_channel)
        bias, place = tile.splat(w[0]), f * planes * size
        for column in range(0, out_width, tile.lanes):
            j = max(0, min(column, out_width - tile.lanes))  # the last vector overlaps its neighbour
            u = j * tile.step - job.before[2]
            edges = tile.edges(u, 1, job.space[2])
            for z in range(begin, end):
                depth, out = z * job.stride[0] - job.before[0], job.out + (image + place + z * size + j)
                seen = inside(depth, job.dilation[0], job.kernel[0], job.space[0])
                first = min(seen[0], job.kernel[0] - 1)
                last = max(first + 1, seen[1])
                for e in range(first, last):
                    # Of windows in the padding alone the bias remains: lines are then looked for below the plane.
                    line = -job.before[1] if seen[0] < seen[1] else lines
                    start, kept = (bias, 0) if e == first else (tile.splat(0), width)
                    low, high = (job.least, job.most) if e == last - 1 else (-np.inf, np.inf)
                    there = x + ((depth + e * job.dilation[0]) * job.x_steps[0] + u)
                    walk_on(tile, tile.splats(w + (1 + e * taps)), start, job, there, edges, line, out, width, kept, low, high)
        if job.late:
            at = place + begin * size
            job.finish_row(job.out + (image + at), (end - begin) * size, image, at)
