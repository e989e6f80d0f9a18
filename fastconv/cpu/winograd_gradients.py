"""Gradients with respect to weights by fewer multiplications: Winograd's form of gradients.py's matrix product.

    weight'[f, c] = A' [ sum over tiles of (G g G') * (B' d B) ] A,   g a tile of filter f's gradient, d what it sees of channel c

The taps of a filter are a correlation of the image with the gradient. A tile of m x m gradients makes a part of all r x r taps
out of a window of (m + r - 1) x (m + r - 1) numbers: F(r x r, m x m), the scheme of Toom and Cook (toom.py) whose roles are
exchanged, taps for outputs. Of 3x3 windows and tiles of 4x4 that is 36 products for 144, of 5x5 windows 64 for 400; with a stride
of 2, where phases of taps have schemes of their own, 81 and 121, and of 4x4 windows 100 for 256. Image and gradient are transformed
once for all pairs of them, the products of all tiles are added up at their points, and one pair of filter and channel is
transformed back once, however many images there are.

An item owns a chunk of filters, in lanes, a block of channels and a part of the images' rows of tiles:

    unit of rows of tiles
      gather     x    -> v[block of lanes][point][tile][channel]     B' d B
                 grad -> u[panel][point][tile][filter]               G g G'
      panel of filters          whose u stays in L2
        tile.rows channels
          multiply   v, u -> m[point][channel][filter]               a rank-1 update for each tile
          scatter    m -> out                                        A' m A, at the last unit; turned in registers

The sums of a unit begin with zero and are added to those of the units before: a sum of sums errs less than one long sum.

The last point meets the last row or column of a tile's gradients alone. Tiles that reach beyond the plane have none there, and are
left out of its products, 8 % of them at 14x14 and 16 % at 7x7: see `slots`.
"""

from __future__ import annotations

from fastconv.cpu import toom
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.standard import turn_sums
from fastconv.cpu.toom import W3_4, W3_4_2, W4_4_2, W5_4, W5_4_2, Nested, nested
from fastconv.cpu.winograd import turn_lines

# By the name of their implementation.
SCHEMES = {
    "winograd_weight_gradient": nested(W3_4), "winograd_weight_gradient_stride_2": nested(W3_4_2),
    "winograd_weight_gradient_4x4_stride_2": nested(W4_4_2),
    "winograd_weight_gradient_5x5": nested(W5_4), "winograd_weight_gradient_5x5_stride_2": nested(W5_4_2),
}  # fmt: skip


@inlined
def beyond(job, begin, end):
    """How many of these rows of tiles reach beyond their plane."""
    return job.ends[0] * (end // job.down - begin // job.down)


@inlined
def slots(job, row, unit):
    """Where the first tile of a row lies among those of its unit, and where its last one does if that reaches beyond the plane.

    Rows of tiles that reach beyond come first; last columns that do come behind all others, those of the same rows last.
    """
    (begin, end), across = unit, job.across - job.ends[1]
    bottoms, before, rest = beyond(job, begin, end), beyond(job, begin, row), (end - begin) * across
    others = row - begin - before
    if beyond(job, row, row + 1):
        return before * across, rest + (end - begin - bottoms) + before
    return (bottoms + others) * across, rest + others


@inlined
def gather_image(square, job, lines, columns, rows, unit, v, apart):
    """v[point][slot][lane] = B' d B of rows of tiles; `columns` is scratch for B' d."""
    scheme, lanes, pitch = job.scheme, square.lanes, job.pitch * square.lanes
    for row in range(rows[0], rows[1]):
        first, last = slots(job, row, unit)
        for column in range((job.across - 1) * scheme.across.advance + scheme.across.numbers):
            scheme.down.to_points(square, lines + column * lanes, pitch, columns + column * lanes, pitch)
        for i in range(scheme.down.count):
            there = v + i * scheme.across.count * apart
            for t in range(job.across):
                window = columns + (i * pitch + t * scheme.across.advance * lanes)
                slot = last if t >= job.across - job.ends[1] else first + t
                scheme.across.to_points(square, window, lanes, there + slot * lanes, apart)
        lines += scheme.down.advance * pitch


@inlined
def gather_gradient(square, job, lines, columns, rows, unit, u, apart):
    """u[point][slot][filter] = G g G' of rows of tiles, as gather_image; one vector of a panel."""
    scheme, lanes, pitch, width = job.scheme, square.lanes, job.pitch * square.lanes, job.tile.width
    for row in range(rows[0], rows[1]):
        first, last = slots(job, row, unit)
        for column in range(job.across * scheme.across.taps):
            scheme.down.from_taps(square, lines + column * lanes, pitch, columns + column * lanes, pitch)
        for i in range(scheme.down.count):
            there = u + i * scheme.across.count * apart
            for t in range(job.across):
                window = columns + (i * pitch + t * scheme.across.taps * lanes)
                slot = last if t >= job.across - job.ends[1] else first + t
                scheme.across.from_taps(square, window, lanes, there + slot * width, apart)
        lines += scheme.down.taps * pitch


@inlined
def multiply(tile, job, v, u, m, unit, added):
    """m[point][channel][filter] = sum over slots of v[point][slot][channel] * u[point][slot][filter], `added` to what is there."""
    points_i, points_j, rows = job.scheme.down.count, job.scheme.across.count, unit[1] - unit[0]
    bottoms, across = beyond(job, unit[0], unit[1]), job.across - job.ends[1]
    for i in range(points_i):
        for j in range(points_j):
            begin, end = 0, rows * across
            if i == points_i - 1:
                begin = bottoms * across
            if j < points_j - 1 and job.ends[1]:
                end += rows - (bottoms if i == points_i - 1 else 0)
            acc, x, g = tile.zeros(), v + begin * tile.lanes, u + begin * tile.width
            for _ in range(begin, end):
                acc = acc.rank1(x, g)
                x, g = x + tile.lanes, g + tile.width
            if added:
                acc = acc.plus_tile(m, tile.width)
            acc.store(m, tile.width)
            v, u, m = v + job.tiles * tile.lanes, u + job.tiles * tile.width, m + tile.rows * tile.width


@inlined
def scatter(tile, square, scheme, m, columns, sums):
    """sums[channel][tap][filter] = A' m A of a tile's channels and filters."""
    points, size, lanes = scheme.across.count, tile.rows * tile.width, square.lanes
    for k in range(0, size, lanes):  # a channel, a vector of filters
        for j in range(points):
            there = columns + j * lanes
            for value in scheme.down.from_points(square, m + (j * size + k), points * size):
                value.store(there)
                there += points * lanes
        there = sums + (k // tile.width * scheme.down.outputs * scheme.across.outputs * tile.width + k % tile.width)
        for i in range(scheme.down.outputs):
            for value in scheme.across.from_points(square, columns + i * points * lanes, lanes):
                value.store(there)
                there += tile.width


@compiled
def winograd_weight_gradient(item, seat, job):
    """One chunk of a group's filters, one block of its channels, one part of the rows of tiles of all images."""
    tile, square, scheme, lanes = job.tile, job.square, job.scheme, job.square.lanes
    points, taps, every = scheme.down.count * scheme.across.count * job.tiles, job.kernel[1] * job.kernel[2], job.all_channels
    chunk, block = item % job.chunks, item // job.chunks % job.blocks
    g, part = item // (job.chunks * job.blocks) % job.groups, item // (job.chunks * job.blocks * job.groups)
    f, c = chunk * job.chunk, block * job.channels
    filters, channels = min(job.chunk, job.filters - f), min(job.channels, every - c)
    lines = job.scratch + seat * job.scratch_size
    columns, v, u, sums = lines + job.columns_at, lines + job.values_at, lines + job.grads_at, lines + job.sums_at
    image, grad = job.x + (g * every + c) * job.x_channel, job.grad + (g * job.filters + f) * job.grad_channel
    out, images = job.out + (((part * job.groups + g) * job.filters + f) * every + c) * taps, job.batch * job.down
    begin, end = images * part // job.parts, images * (part + 1) // job.parts
    for first in range(begin, end, job.band):
        row, unit = first, (first, min(first + job.band, end))
        while row < unit[1]:  # those of one image after the other
            n, line = row // job.down, row % job.down
            rows = row, min(row - line + job.down, unit[1])
            gather_band(square, job, image + n * job.x_image, grad + n * job.grad_image, channels, filters, rows, unit, lines, v, u)
            row = rows[1]
        m = lines + job.products_at
        for k in range(0, filters, tile.width):
            for e in range(0, channels, tile.rows):
                multiply(tile, job, v + (e // lanes * lanes * points + e % lanes), u + k * points, m, unit, first > begin)
                if unit[1] == end:
                    scatter(tile, square, scheme, m, columns, sums)
                    there, count = out + (k * every + e) * taps, min(tile.rows, channels - e) * taps
                    turn_sums(square, sums, tile.width, there, every * taps, min(tile.width, filters - k), count)
                m += job.panel


@inlined
def gather_band(square, job, image, grad, channels, filters, rows, unit, lines, v, u):
    """All channels and filters of rows of tiles of one image."""
    scheme, lanes, columns, width, size = job.scheme, square.lanes, lines + job.columns_at, job.tile.width, job.tiles
    points, line = scheme.down.count * scheme.across.count * size, rows[0] % job.down
    more_rows, more_columns = rows[1] - rows[0] - 1, job.across - 1  # tiles beside the first
    seen = more_rows * scheme.down.advance + scheme.down.numbers, more_columns * scheme.across.advance + scheme.across.numbers
    plane, begin = (job.space[1], job.space[2]), line * scheme.down.advance - job.before[1]
    for c in range(0, channels, lanes):
        turn_lines(square, image + c * job.x_channel, job.x_channel, job.x_steps, plane, begin, 1, job.before[2],
                   channels - c, lines, job.pitch, seen)  # fmt: skip
        gather_image(square, job, lines, columns, rows, unit, v + c * points, size * lanes)
    seen = (1 + more_rows) * scheme.down.taps, (1 + more_columns) * scheme.across.taps
    plane, begin = (job.out_space[1], job.out_space[2]), line * scheme.down.taps
    for f in range(0, filters, lanes):
        turn_lines(square, grad + f * job.grad_channel, job.grad_channel, job.grad_steps, plane, begin, 1, 0,
                   filters - f, lines, job.pitch, seen)  # fmt: skip
        gather_gradient(square, job, lines, columns, rows, unit, u + (f // width * width * points + f % width), size * width)


def error_bound(scheme: Nested, tiles: int, pixels: int, dtype: str) -> float:
    """`toom.error_bound` of a scheme in two dimensions, for the sums over so many tiles and pixels of the gradient."""
    return toom.error_bound((scheme.down, scheme.across), tiles, pixels, dtype)
