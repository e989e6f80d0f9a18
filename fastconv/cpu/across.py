"""Depthwise 3x3 layers whose rows are wider than a vector: walked across, two rows of the result at once, from left to right.

    stride 2    out[i, j] = sum over a of w[a, 1] x[2i + a - 1, 2j] + w[a, 2] x[2i + a - 1, 2j + 1]  +  left[i, j - 1]
                left[i, j] = sum over a of w[a, 0] x[2i + a - 1, 2j + 1]
    stride 1    out[2i : 2i + 2, j] = A' [ sum over b of (G w[:, b]) * (B' x[2i - 1 : 2i + 3, j + b - 1]) ]

A window sees numbers beside those of its vector. Walks down a column of vectors load them anew, each load across two cache lines,
or move them for every line. Walking across, the vectors beside are in registers: those of sums for windows two columns apart, moved
once for all lines, and for Winograd's scheme F(2, 3) those of four lines' numbers at points. Outermost first:

    filter                  its weights, in registers
      two rows                where their lines begin; a line outside the image is one of zeros, which lies in the scratch
        vector of columns       each line once; the last one with a mask, or in half of the lanes if they are enough

Lines are read from their first number to their last, as memory likes it best. On a Zen 4 core 64 x 112 x 112 of stride 2 take 57 us
for 71 down the columns, 32 x 112 x 112 of stride 1 66 for 70 to 74. Two rows of a vector take 18 multiply-adds of stride 2, and 12
by the scheme, with 8 moves and 8 additions beside them. What must not be among them is a permutation of two vectors by an index
(vpermt2ps), or of one into lanes of another: it reads a third register, as a multiply-add does, and takes the place of one, where a
shift of two vectors side by side (valignd) does not. To begin a row takes 20 cycles, which is why narrow planes are walked down.

Tried, and slower: 5x5 windows by F(2, 5) and F(4, 5), whose 24 and 32 moves and as many additions take as long as the products that
they save (672 planes of 14 x 14: 71 us for 67); F(4, 3), which spills; 5x5 windows of stride 2, whose weights do not fit (53 us for
39); asking for lines ahead. For the scheme see toom.py; which instructions share a pipe was measured, one kind beside another.
"""

import numpy as np

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.depthwise import finish_planes
from fastconv.cpu.neighbours import ROWS


@inlined
def clear(tile, p, count):
    """Zeros to `count` numbers at p, and to what is left of a vector behind them."""
    for k in range(0, count, tile.lanes):
        tile.splat(0).store(p + k)


@inlined
def whole_columns(tile, out_width):
    """Where the last columns begin if half of the lanes are enough for them, `out_width` or more if not; two lanes have no half."""
    lanes, half = tile.lanes, tile.half.lanes
    return (out_width + lanes - 1 - half % lanes) // lanes * lanes


@inlined
def put_rows(results, low, high, out, step, rows, left, lanes):
    """Results of two rows, of which `rows` are left, clipped below, and above if `high` is not None; `left` columns are left."""
    clipped = results.at_least(low) if high is None else results.clip(low, high)
    if left >= lanes:
        clipped.store_rows(out, step, rows, None)
    else:
        clipped.store_rows(out, step, rows, left)


@inlined
def weights_of_steps(job, f):
    """Those of filter f, and its bias, from packing.row_panels."""
    w = job.weight + f * job.panel
    return job.tile.splats(w + 1), job.tile.splat(w[0])


@inlined
def walk_steps(job, weights, start, lines, out, rows, low, high):
    """Two rows of the result whose windows are two columns apart, or the last one: `rows` are left."""
    tile, width, out_width = job.tile, job.space[2], job.out_space[2]
    lanes, half = tile.lanes, tile.half
    before, whole = tile.no_sums(), whole_columns(tile, out_width)
    for j in range(0, whole, lanes):
        if 2 * (j + lanes) <= width:
            numbers = lines.parted(tile, 2 * j, None)
        else:
            numbers = lines.parted(tile, 2 * j, width - 2 * j)
        here = numbers.weigh_parted(weights, start)
        put_rows(here.unite(before), low, high, out + j, out_width, rows, out_width - j, lanes)
        before = here
    if whole < out_width:
        here = lines.parted(half, 2 * whole, width - 2 * whole).weigh_parted(weights.lower(), start.lower())
        put_rows(here.unite(before.upper()), low, high, out + whole, out_width, rows, out_width - whole, half.lanes)


@inlined
def weights_at_points(job, f):
    """Those of filter f, and its bias, from pairs.channels_at_points, whose last panel overlaps its neighbour."""
    scheme, lanes, last = job.scheme, job.tile.lanes, job.groups * job.filters - job.tile.lanes
    w = job.weight + (f // lanes * job.panel + f - min(f // lanes * lanes, last))
    return scheme.at(job.tile).splats(w + scheme.count * lanes, lanes), job.tile.splat(w[scheme.point_of_bias * lanes])


@inlined
def walk_points(job, weights, start, lines, out, rows, low, high):
    """The same of windows side by side, by their sums at the points of a scheme."""
    tile, scheme, width, out_width = job.tile, job.scheme, job.space[2], job.out_space[2]
    lanes, half = tile.lanes, tile.half
    zeros, whole = scheme.start(tile).zeros(), whole_columns(tile, out_width)
    before, here = zeros, scheme.at_points(lines.numbers(tile, 0, width))
    for j in range(0, whole, lanes):
        if j + 2 * lanes <= width:
            after = scheme.at_points(lines.numbers(tile, j + lanes, None))
        elif j + lanes < width:
            after = scheme.at_points(lines.numbers(tile, j + lanes, width - j - lanes))
        else:
            after = zeros
        results = scheme.outputs_of(scheme.weigh_beside(here, weights, start, before, after))
        put_rows(results, low, high, out + j, out_width, rows, out_width - j, lanes)
        before, here = here, after
    if whole < out_width:
        sums = scheme.weigh_beside(here.lower(), weights.lower(), start.lower(), before.upper(), here.upper())
        put_rows(scheme.outputs_of(sums), low, high, out + whole, out_width, rows, out_width - whole, half.lanes)


@inlined
def walk_chunk(walk, weights_of, item, seat, job):
    """One band of an even number of rows, of a chunk of filters. Relu is half of a clip, and has loops of its own."""
    tile, filters, (_, rows, out_width) = job.tile, job.groups * job.filters, job.out_space
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, end, image = band * job.band, min((band + 1) * job.band, rows), n * filters * rows * out_width
    empty = job.scratch + seat * job.scratch_size  # what a line outside the image is
    clear(tile, empty, job.space[2])
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, filters)):
        x, plane = job.x + (n * job.x_image + f // job.filters * job.x_channel), job.out + (image + f * rows * out_width)
        weights, start = weights_of(job, f)
        for i in range(begin, end, ROWS):
            lines, out = tile.lines(x, i * tile.step - job.before[1], job.space[1], job.x_steps[1], empty), plane + i * out_width
            if job.most == np.inf:
                walk(job, weights, start, lines, out, end - i, job.least, None)
            else:
                walk(job, weights, start, lines, out, end - i, job.least, job.most)
        if job.late:
            finish_planes(job, image, f, f + 1, begin, end)


@compiled
def tiled_depthwise_across(item, seat, job):
    """Windows two columns apart."""
    walk_chunk(walk_steps, weights_of_steps, item, seat, job)


@compiled
def winograd_depthwise(item, seat, job):
    """Windows side by side."""
    walk_chunk(walk_points, weights_at_points, item, seat, job)
