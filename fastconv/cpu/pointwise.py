"""Pointwise (1x1) convolution: it mixes the channels of a pixel and looks at no other pixel.

    out[n, f, p] = finish(bias + sum over c of weight[f, c] * x[n, c, p])       p over pixels, every stride-th of them

A matrix product of (filters, channels) with (channels, pixels); the limit is the multiply-add peak unless there are few
channels. `direct_pointwise`, outermost first:

    row of the result     of one filter; it stays in L1 until it is complete
      channels              eight at a time
        columns               vectorised: row[j] += weight * x[j]

With stride 1 the plan hands over each image as one long row. `direct_pointwise_last` runs along the filters.

The tiled kernels read the pixels where they lie, and keep a register tile of sums until it is complete (Goto and van de Geijn
2008). `tiled_pointwise_pixels`, pixels in lanes, is for many pixels; `tiled_pointwise`, filters in lanes, for few, whose number
its rows divide, and for channels-last images and results:

    strip of pixels         its channels x width numbers stay in L1      panel of filters      its weights stay in L2
      panel of filters        tile.rows of them, from L2                   block of channels     what strips read stays in L1
        channels                a rank-1 update each                         strip of pixels       tile.rows of them
                                                                               channels              a rank-1 update each

With few channels each panel passes over all strips of a band by itself, for then the result's memory is the limit, which a few rows
reach better than many: plans/pointwise.py.

Images of one window, or of one pixel, are pixels of one image, whose channels lie together: plans/single.py.
Other strides go through sheets: standard.py.
"""

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.rows import add_lines, add_strided_lines, clipped, epilogue_of, finish_row, start_pixel, start_row
from fastconv.cpu.standard import evenly, puts_in_place

# Updates between asking for weights and using them: cold ones come from memory as fast as from L3. 1024 channels of float64 at 7x7,
# whose 8 MB lie in L3, gained a tenth to a quarter. One pixel alone has no time to ask: it takes weights from L3 at 98 GB/s, and at
# 78 when each line is asked for first; from memory as fast either way.
AHEAD, LEAST_ROWS = 64, 2
# Channels that all strips of filters in lanes pass at once: of each a strip reads a cache line, and neither those of a thousand,
# 64 KB, nor their weights stay in L1. With vectors of eight 1024 channels at 7x7 reach 90 % of the peak in place of 86.
AT_ONCE = 256
LINE_BLOCKS = 4  # of 128 bits in a cache line


@compiled
def direct_pointwise(item, seat, job):
    """One band of rows of one filter. Weights (filters, channels), as they come."""
    finish, channels, filters, step = epilogue_of(job), job.channels, job.filters, job.x_steps
    (_, out_height, width), (stride_z, stride_i, stride_j) = job.out_space, job.stride
    rows, x_channel, out = job.out_space[0] * out_height, job.x_channel, job.out
    band, f, n = item % job.bands, item // job.bands % filters, item // (job.bands * filters)
    image, w = job.x + n * job.x_image, job.weight + f * channels
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        place = (f * rows + line) * width
        row = out + (n * filters * rows * width + place)
        across = image + (line // out_height * stride_z * step[0] + line % out_height * stride_i * step[1])
        start_row(row, width, finish, f, place)
        add_strided_lines(row, across, x_channel, stride_j * step[2], w, 1, channels, width)
        finish_row(row, width, finish, n * filters * rows * width + place)


@compiled
def direct_pointwise_last(item, seat, job):
    """One band of rows, all filters. Weights (channels, filters)."""
    finish, channels, filters, step = epilogue_of(job), job.channels, job.filters, job.x_steps
    (_, out_height, width), (stride_z, stride_i, stride_j) = job.out_space, job.stride
    rows, x_channel, weights, out = job.out_space[0] * out_height, job.x_channel, job.weight, job.out
    band, n = item % job.bands, item // job.bands
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        across = line // out_height * stride_z * step[0] + line % out_height * stride_i * step[1]
        for j in range(width):
            pixel = job.x + (n * job.x_image + across + j * stride_j * step[2])
            place = (line * width + j) * filters
            row = out + (n * rows * width * filters + place)
            start_pixel(row, filters, finish, 0, place)
            add_lines(row, 1, weights, filters, 1, pixel, x_channel, channels, filters)
            finish_row(row, filters, finish, n * rows * width * filters + place)


@inlined
def prefetch_weights(w, width, line):
    """Those of AHEAD updates from now, a line at a time; behind a panel's end lies the next one."""
    for k in range(0, width, line):
        w.prefetch_l2(AHEAD * width + k)


@inlined
def sum_pixels(tile, x, panel, begin, end, job, out, apart):
    """Sums of tile.rows neighbouring pixels, tile.width filters, over channels begin..end; `out` holds those before.

    Channels first, neighbouring pixels are neighbours in memory; channels last they are a pixel's channels apart.
    """
    step, x_channel, line = job.x_steps[2], job.x_channel, LINE_BLOCKS * tile.block
    x, w = x + begin * x_channel, panel + (1 + begin) * tile.width
    acc = tile.load_tile(out, apart) if begin else tile.from_columns(panel)
    if step == 1:
        for _ in range(begin, end):
            if tile.rows >= LEAST_ROWS:
                prefetch_weights(w, tile.width, line)
            acc = acc.rank1(x, w)
            x += x_channel
            w += tile.width
    else:
        for _ in range(begin, end):
            if tile.rows >= LEAST_ROWS:
                prefetch_weights(w, tile.width, line)
            acc = acc.rank1_apart(x, step, w)
            x += x_channel
            w += tile.width
    if end < job.channels:
        acc.store(out, apart)
    else:
        acc.clip(job.least, job.most).store(out, apart)


@compiled
def tiled_pointwise(item, seat, job):
    """One band of pixels of one image, one chunk of filters in lanes, read in place. Weights from packing.lane_panels."""
    tile, short, step = job.tile, job.short, job.x_steps[2]
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin = band * job.band
    count = job.band if band < job.bands - 1 else job.out_space[2] - begin  # the last band takes what is left over
    x, sums = job.x + (n * job.x_image + begin * step), job.scratch + seat * job.scratch_size
    strips, tall = evenly(count, tile, short)
    at_once = AT_ONCE if tall + strips * short.rows == count else job.channels  # strips that overlap would add to their sums twice
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), tile.width):
        panel, width = job.weight + f // tile.width * job.panel, min(tile.width, job.filters - f)
        out, apart, in_place = sums, tile.width, puts_in_place(tile, job, width)
        if in_place:
            out, apart = job.out + ((n * job.out_space[2] + begin) * job.filters + f), job.filters
        for c in range(0, job.channels, at_once):
            end = min(c + at_once, job.channels)
            for k in range(tall):
                p = k * tile.rows
                sum_pixels(tile, x + p * step, panel, c, end, job, out + p * apart, apart)
            for k in range(tall, strips):
                p = min(tall + k * short.rows, count - short.rows)
                sum_pixels(short, x + p * step, panel, c, end, job, out + p * apart, apart)
        if not in_place:
            job.put_rows(sums, tile.width, n, f, width, begin, count)


@compiled
def tiled_pointwise_pixels(item, seat, job):
    """One band of pixels of one image, one chunk of filters: pixels in lanes, read in place. Weights from packing.row_panels."""
    tile, channels, filters = job.tile, job.channels, job.filters
    pixels, x_channel = job.out_space[2], job.x_channel
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, image = band * job.band, n * filters * pixels
    end, last = begin + job.band if band < job.bands - 1 else pixels, min((chunk + 1) * job.chunk, filters)
    for group in range(chunk * job.chunk, last, job.together):
        until = min(group + job.together, last)
        for first in range(begin, end, tile.width):
            p = min(first, end - tile.width)
            for f in range(group, until, tile.rows):
                w, x, rows = job.weight + f // tile.rows * job.panel, job.x + (n * job.x_image + p), min(tile.rows, until - f)
                acc = tile.from_rows(w)
                for _ in range(channels):
                    w += tile.rows
                    acc = acc.rank1(w, x)
                    x += x_channel
                acc, out = clipped(acc, job), job.out + (image + f * pixels + p)
                if rows == tile.rows:
                    acc.store(out, pixels)
                else:
                    acc.store(out, pixels, rows, tile.width)
        if job.late:
            for f in range(group, until):
                place = f * pixels + begin
                job.finish_row(job.out + (image + place), end - begin, image, place)
