"""Toom and Cook's scheme along signals: F(m, r) in one dimension.

    m neighbouring outputs = A' [ sum over channels of (G w) * (B' x[what they see]) ]

F(6, 3) takes 8 products for 18, F(4, 2) 5 for 8, F(4, 5) 8 for 20; of three taps two apart 9 make 4 outputs in place of 12. A
signal of rate d is d interleaved ones, so a tile's outputs and numbers lie d apart, and d tiles side by side are a run without
gaps. An item is a band of such runs and a chunk of filters; lanes are channels, then filters, as in winograd.py:

    line       x -> line[column][lane]                      of a block of channels, transposed in registers
    gather     line -> v[point][block of channels][tile]    B' d
    multiply   v, u -> m[point][tile][filter]               winograd.py's
    scatter    m -> out                                     A' m, clip, transposed back
"""

from __future__ import annotations

from fastconv.cpu import toom
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.toom import F4_2, F4_3_2, F4_5, F6, ONE, Nested
from fastconv.cpu.winograd import APART

# By the name of their implementation: the schemes along the signal, and down its one row none.
SCHEMES = {
    "winograd_signal_6_3": Nested(ONE, F6), "winograd_signal_4_2": Nested(ONE, F4_2), "winograd_signal_4_5": Nested(ONE, F4_5),
    "winograd_signal_4_3_stride_2": Nested(ONE, F4_3_2),
}  # fmt: skip


@compiled
def line_of_lanes(job, line, signal, first, count):
    """line[column][lane] = signal[lane, first + column], zeros beyond its ends; the first `count` lanes hold something."""
    square, lanes, width, step, zero = job.square, job.square.lanes, job.space[2], job.x_steps[2], job.square.splat(0)
    for column in range(0, job.columns_seen, lanes):
        there, u = line + column * lanes, first + column
        begin, end = max(0, min(lanes, -u)), max(0, min(lanes, width - u))
        if step == 1 and begin == 0 and end == lanes and count >= lanes:
            square.load_turned(signal + u, job.x_channel).store(there, lanes)
            continue
        for k in range(lanes):
            zero.store(there + k * lanes)
        if step == 1 and begin < end:  # what lies behind the end of the line, and of the signal, is written next
            square.load_tile(signal + (u + begin), job.x_channel, count, width - u - begin).transpose().store(
                there + begin * lanes, lanes
            )
        elif step != 1:
            for k in range(begin, end):
                square.load(signal + (u + k) * step, 0, count).store(there + k * lanes)


@inlined
def gather(tile, job, scheme, line, v, count, size):
    """v[point][tile] = B' d of so many tiles of a block of channels; points lie `size` apart."""
    rate, lanes = job.dilation[2], tile.lanes
    for t in range(count):
        numbers = line + (t // rate * scheme.advance * rate + t % rate * job.stride[2]) * lanes
        scheme.to_points(tile, numbers, rate * lanes, v + t * lanes, size)


@inlined
def scatter(tile, job, scheme, m, start, sums, count):
    """sums[column][lane] = clip(A' m + bias) of so many tiles, one vector of filters."""
    rate, width = job.dilation[2], job.unit
    for t in range(count):
        there = sums + (t // rate * scheme.outputs * rate + t % rate) * width
        for value in scheme.from_points(tile, m + t * width, job.tiles * width):
            (value + start).clip(job.least, job.most).store(there)
            there += rate * width


@compiled
def winograd_signal(item, seat, job):
    """One band of runs of tiles, one chunk of a group's filters. Weights from winograd.transformed_filters."""
    tile, scheme, width, unit, blocks = job.tile, job.scheme.across, job.out_space[2], job.unit, job.blocks
    band, chunk, image = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    g, n, rate = image % job.groups, image // job.groups, job.dilation[2]
    line = job.scratch + seat * job.scratch_size
    v, m, sums, size = line + job.values_at, line + job.products_at, line + job.sums_at, job.tiles * tile.lanes
    begin, run = band * job.band * scheme.outputs * rate, scheme.outputs * rate
    columns = min(job.band * run, width - begin)
    count = (columns + run - 1) // run * rate
    for c in range(blocks):
        x = job.x + (n * job.x_image + (g * job.channels + c * tile.lanes) * job.x_channel)
        job.fill_lines(line, x, begin * job.stride[2] - job.before[2], job.channels - c * tile.lanes)
        gather(tile, job, scheme, line, v + c * size, count, blocks * size)
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), unit):
        panel = job.weight + (g * job.panels + f // unit) * job.panel
        for k in range(scheme.count):
            u = panel + (1 + min(k, scheme.matrices - 1) * (blocks * tile.lanes + APART)) * unit
            job.multiply(v + k * blocks * size, u, m + k * job.tiles * unit, 0, blocks, 0, count, size)
        for k in range(0, unit, tile.lanes):
            scatter(tile, job, scheme, m + k, tile.load(panel + k), sums + k, count)
        job.put_rows(sums, unit, n, g * job.filters + f, min(unit, job.filters - f), begin, columns)


def error_bound(scheme: Nested, channels: int, dtype: str) -> float:
    """`toom.error_bound` along signals; `channels` are those of a group."""
    return toom.error_bound((scheme.across,), channels, scheme.across.taps * channels, dtype)
