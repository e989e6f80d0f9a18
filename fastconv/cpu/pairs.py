"""Depthwise 3x3 layers by Toom and Cook's scheme, channels last: two rows of the result at once.

    out[2i], out[2i + 1] = A' [ sum over b of (G w[:, b]) * (B' x[2i : 2i + 4, j + b]) ]

F(2, 3) takes 4 products for 6. The walk is that of `tiled_depthwise_last`: channels in lanes, along a row, with the weights and the
sums of all windows under way in registers, 12 of each at points. A step takes four pixels, one below the other, to their
points once for all the windows that see them; sums come back from points once a window:

    two rows of the result    of one image
      vector of channels        its weights
        column                    four pixels to points, into three sums each; the oldest window's four back from theirs

Zen cores add beside their multiply-adds (`machine.adds_beside`): two vectors of results take 12 multiply-adds and 2 stores in
the ones' pipes, 8 additions and 4 to clip in the others', 14 cycles on Zen 4, where the direct walk takes 21. With channels first
see across.py. Windows of 5 and 7 taps in pieces of three and two gained nothing: their weights do not fit the registers. A
vector's pixels lie far apart, mostly in a few sets of L1 and in no order that a core foresees, so each step asks L2 for the next
lines of the next two rows, one after the other: 56 x 56 x 128 takes two thirds of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu import packing, toom
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.depthwise import within
from fastconv.cpu.packing import turn
from fastconv.cpu.rows import inside
from fastconv.cpu.toom import F2
from fastconv.problem import Problem

Array = np.ndarray[Any, Any]


@inlined
def walk_pairs(tile, scheme, panel, job, image, edges, ask, out, below):
    """All windows in two rows of a vector of channels, the lower of which lie `below` the upper ones; `ask`: a line wanted next."""
    width, step, down, at, seen = job.space[2], job.x_steps[2], job.x_steps[1], scheme.at(tile), scheme.seen(tile)
    start, weights, unfinished = scheme.start(tile).load_tile(panel, 0), at.load_tile(panel + at.width, at.width), tile.rows - 1
    sums = at.all_rows(start)
    for t in range(job.out_space[2] + unfinished):
        column = t - job.before[2]
        for row in range(2):
            (ask + (t * tile.lanes + row * down)).prefetch_l2(0)
        if within(column, width):
            sums = sums.weigh_points(weights, scheme.at_points(seen.taps(image + column * step, down, edges)))
        if t >= unfinished:
            scheme.outputs_of(sums.last()).clip(job.least, job.most).store_apart(out + (t - unfinished) * job.groups, below)
        sums = sums.behind(start)


@compiled
def winograd_depthwise_last(item, seat, job):
    """One band of an even number of rows, of a chunk of channels. Weights from `channels_at_points`."""
    tile, scheme, channels, lanes, (_, rows, out_width) = job.tile, job.scheme, job.groups, job.tile.lanes, job.out_space
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    first, image, down = chunk * job.chunk, n * rows * out_width * channels, job.x_steps[1]
    last = first + job.chunk if chunk < job.chunks - 1 else channels  # the last chunk takes what is left over
    for i in range(band * job.band, min((band + 1) * job.band, rows), 2):
        line, place, alone = i - job.before[1], i * out_width * channels, i + 1 == rows
        below = 0 if alone else out_width * channels  # 0: the upper row is stored over a lower one that is not
        lines = inside(line, 1, scheme.numbers, job.space[1])
        edges, x = scheme.seen(tile).sides(lines[0], lines[1], channels), job.x + (n * job.x_image + line * down)
        for block in range(first, last, lanes):
            c = min(block, channels - lanes)  # the last vector overlaps its neighbour
            panel, out = job.weight + block // lanes * job.panel, job.out + (image + place + c)
            ask = x + (scheme.numbers * down + block * out_width)
            if lines[1] - lines[0] == scheme.numbers:
                walk_pairs(tile, scheme, panel, job, x + c, None, ask, out, below)
            else:
                walk_pairs(tile, scheme, panel, job, x + c, edges, ask, out, below)
        if job.late and job.chunks == 1:
            job.finish_row(job.out + (image + place), (out_width if alone else 2 * out_width) * channels, image, place)
        elif job.late:
            for j in range(first, (out_width if alone else 2 * out_width) * channels, channels):
                job.finish_row(job.out + (image + place + j), last - first, image, place + j)


def error_bound(problem: Problem) -> float:
    """`toom.error_bound` of windows whose columns are at points."""
    taps_a, taps_b = problem.kernel
    return toom.error_bound((F2,), taps_b, taps_a * taps_b, problem.dtype)


@compiled
def pack_at_points(item, seat, job):
    """G of every column of taps of a vector of channels; the last vector overlaps its neighbour."""
    tile, scheme, lanes, (_, rows, taps_b) = job.tile, job.scheme, job.tile.lanes, job.kernel
    f, numbers = max(0, min(item * lanes, job.filters - lanes)), job.scratch + (seat * job.scratch_size + lanes * lanes)
    left, out = job.filters - f, job.out + item * job.panel
    turn(job, job.x + f * job.filter_step, left, rows * taps_b, numbers)
    for point in range(scheme.count):
        start = tile.load(job.bias + f, 0, left) if point == scheme.point_of_bias and job.bias_kind != 0 else tile.splat(0)
        start.store(out + point * lanes)
    for b in range(taps_b):
        out += scheme.count * lanes
        scheme.from_taps(tile, numbers + b * lanes, taps_b * lanes, out, lanes)


def channels_at_points(weight: Array, bias: Array | None, lanes: int) -> Array:
    """[panel][bias, then column of taps][point][channel]: G of the taps down; the last panel overlaps its neighbour."""
    in_one_group = weight.reshape(1, -1, *weight.shape[2:])
    depth = F2.count * (1 + weight.shape[-1]) - 1  # with the number in front that is a panel's own
    return packing.panels(pack_at_points, in_one_group, bias, lanes, depth, scheme=F2)[0]
