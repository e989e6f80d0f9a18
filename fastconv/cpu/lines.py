"""Depthwise layers of any window: a vector of channels over a copy of the lines that its windows see.

    out[i, j, f] = finish(bias + sum over a, b of weight[f, a, b] * x[i*stride + a*dilation - before, j*..., f // multiplier])

Numbers of one channel lie as far apart as pixels: each window of a vector of channels comes from as many pages of memory, or from
the same few sets of L1 where rows are multiples of 4096 bytes. Here a few vectors, neighbours in the image, are copied at once
to where lines lie side by side, in a ring of as many as a window spans, borders of zeros about them. Whatever
stride, dilation or multiplier, a number lies a constant distance away then:

    block of columns            as wide as lines that fit L1
      vectors of channels         a few
        row of the result           the lines that it sees first are copied, in place of those that no other sees
          vector, strip of pixels     a tile of sums over all taps

A tap takes a load of weights, and a multiply-add for each pixel with a load of its own, which a core can do. Copying takes three to
six cycles a vector, beside 49 of a 7x7 window: windows of up to 5x5 are faster in place, others never (14x14x384: 69 us for 80).
With a multiplier a channel's number is copied to the lane of each of its filters. Of strides a strip's numbers lie two or more
vectors apart, which costs nothing; as phases, which they were, each column was put into its place by itself. Asking for lines ahead
of the copy gained nothing.

Images whose columns are neighbours are turned as they are copied, a square of channels and columns at a time, and rows of the
result are turned back. That costs 15 cycles a vector, but the loads of a kernel with columns in lanes, each across two cache lines,
cost one a tap: 9x9 windows take 139 us where that kernel took 288, and a 3x3 window of stride 3 a third of a direct kernel's time.
"""

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.depthwise import finish_planes
from fastconv.cpu.rows import inside
from fastconv.cpu.standard import turn_sums


@inlined
def copy_line(tile, job, image, f, last, u, lines, apart):
    """lines[vector][column][lane]: columns from u on of a line, those inside it, of filters f..last, a lane each."""
    lanes, filters, multiplier, step = tile.lanes, job.groups * job.filters, job.filters, job.x_steps[2]
    begin, end = inside(u, 1, job.pitch // lanes, job.space[2])
    image_here = image + (u + begin) * step
    for block in range(f, last, lanes):
        c = max(0, min(block, filters - lanes))  # the last vector overlaps its neighbour
        out = lines + ((block - f) // lanes * apart + begin * lanes)
        if multiplier == 1 and job.x_channel == 1 and filters >= lanes:
            x = image_here + c
            for _ in range(begin, end):
                tile.load(x).store(out)
                x, out = x + step, out + lanes
        else:
            for lane in range(min(lanes, filters)):
                x = image_here + (c + lane) // multiplier * job.x_channel
                for k in range(end - begin):
                    out[k * lanes + lane] = x[k * step]


@inlined
def turn_line(square, job, image, room, f, last, u, lines, apart):
    """The same where columns are neighbours, of one filter a channel: squares are transposed.

    So many numbers as there is `room` for may be read from a line on, the next ones with it: of planes of 7 columns whole squares.
    """
    lanes, filters = square.lanes, job.groups
    begin, end = max(u, 0), min(u + job.pitch // lanes, job.space[2])
    for block in range(f, last, lanes):
        c = max(0, min(block, filters - lanes))
        out, image_here = lines + (block - f) // lanes * apart, image + c * job.x_channel
        for first in range(begin, end, lanes):
            column = max(begin, min(first, end - lanes))  # and the last square
            count = min(lanes, end - column)
            if column + lanes <= room and filters >= lanes:
                columns = square.load_turned(image_here + column, job.x_channel)
            else:
                columns = square.load_tile(image_here + column, job.x_channel, filters - c, count).transpose()
            columns.store(out + (column - u) * lanes, lanes, count, lanes)


@inlined
def sum_taps(tile, job, acc, x, w, step, apart):
    """The sums of a strip of pixels that are `step` apart, and one row of taps that are `apart`.

    Constants where they are common: a multiply-add whose number is addressed by two registers took 1.35 times as long.
    """
    down = job.kernel[1] * tile.lanes
    for _ in range(job.kernel[2]):
        acc = acc.lane_by_lane(x, step, w)
        x, w = x + apart, w + down
    return acc


@inlined
def sum_strip(tile, job, lines, slot, taps, panel, out, step, width):
    """A strip of pixels of a row whose window begins in that slot of the ring, `step` apart in `out`; `width` pixels are left."""
    lanes, filters, span = tile.lanes, job.groups * job.filters, job.span
    acc = tile.from_columns(panel)
    for a in range(taps[0], taps[1]):
        place = slot + a * job.dilation[1]
        x, w = lines + (place if place < span else place - span) * job.pitch, panel + (1 + a) * lanes
        if job.stride[2] == 1 and job.dilation[2] == 1:
            acc = sum_taps(tile, job, acc, x, w, lanes, lanes)
        elif job.stride[2] == 1:
            acc = sum_taps(tile, job, acc, x, w, lanes, job.dilation[2] * lanes)
        elif job.stride[2] == 2:
            acc = sum_taps(tile, job, acc, x, w, 2 * lanes, job.dilation[2] * lanes)
        else:
            acc = sum_taps(tile, job, acc, x, w, job.stride[2] * lanes, job.dilation[2] * lanes)
    acc = acc.clip(job.least, job.most)
    if width >= tile.rows and filters >= lanes:
        acc.store(out, step)
    else:
        acc.store(out, step, width, filters)


@inlined
def sum_row(tile, few, job, lines, slot, taps, panel, out, step, width):
    """A row of a block of columns, in strips of as many pixels as there are sums, then of half of them; the last one overlaps."""
    j, column = 0, job.stride[2] * tile.lanes
    while j < width:
        if width - j >= tile.rows:
            sum_strip(tile, job, lines + j * column, slot, taps, panel, out + j * step, step, width - j)
            j += tile.rows
        else:
            first = max(0, min(j, width - few.rows))
            sum_strip(few, job, lines + first * column, slot, taps, panel, out + first * step, step, width - first)
            j += few.rows


@compiled
def tiled_depthwise_lines(item, seat, job):
    """One band of rows of a chunk of channels. Weights from packing.channel_panels."""
    tile, lanes, filters, (_, rows, out_width) = job.tile, job.tile.lanes, job.groups * job.filters, job.out_space
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, end, image = band * job.band, min((band + 1) * job.band, rows), n * rows * out_width * filters
    first, apart = chunk * job.chunk, job.span * job.pitch
    last = first + job.chunk if chunk < job.chunks - 1 else filters  # the last chunk takes what is left over
    lines = job.scratch + seat * job.scratch_size
    sums = lines + job.sums_at
    for column in range(0, out_width, job.run):
        width, u = min(job.run, out_width - column), column * job.stride[2] - job.before[2]
        for k in range(0, job.sums_at, lanes):  # the borders stay so
            tile.splat(0).store(lines + k)
        for f in range(first, last, job.together * lanes):
            until, copied = min(last, f + job.together * lanes), -job.before[1]
            for i in range(begin, end):
                line = i * job.stride[1] - job.before[1]
                for y in range(max(copied, line), line + job.span):
                    if 0 <= y and y < job.space[1]:
                        x = job.x + (n * job.x_image + y * job.x_steps[1])
                        place = lines + (y + job.before[1]) % job.span * job.pitch
                        if job.x_steps[2] == 1 and job.filters == 1:
                            room = job.space[2] + (job.space[1] - 1 - y) * job.x_steps[1]
                            turn_line(job.square, job, x, room, f, until, u, place, apart)
                        else:
                            copy_line(tile, job, x, f, until, u, place, apart)
                copied, slot = line + job.span, (line + job.before[1]) % job.span
                taps = inside(line, job.dilation[1], job.kernel[1], job.space[1])
                for block in range(f, until, lanes):
                    c, window = max(0, min(block, filters - lanes)), lines + (block - f) // lanes * apart
                    out, step = sums, lanes
                    if job.last:
                        out, step = job.out + (image + (i * out_width + column) * filters + c), filters
                    sum_row(tile, job.few, job, window, slot, taps, job.weight + block // lanes * job.panel, out, step, width)
                    if not job.last:
                        row = job.out + (image + (c * rows + i) * out_width + column)
                        turn_sums(job.square, sums, lanes, row, rows * out_width, min(lanes, filters), width)
    if job.late:
        finish_rows(job, n, begin, end, first, last)


@inlined
def finish_rows(job, n, begin, end, first, last):
    """What is done late to rows begin..end of filters first..last of image n."""
    filters, (_, rows, out_width) = job.groups * job.filters, job.out_space
    image = n * rows * out_width * filters
    if job.last and job.chunks > 1:
        for place in range(begin * out_width * filters + first, end * out_width * filters, filters):
            job.finish_row(job.out + (image + place), last - first, image, place)
    elif job.last:
        place = begin * out_width * filters
        job.finish_row(job.out + (image + place), (end - begin) * out_width * filters, image, place)
    else:
        finish_planes(job, image, first, last, begin, end)
