"""Transposed convolution: every pixel of the input spreads a scaled copy of the kernel over the result.

    out[n, f, i, j] = finish(bias + sum over c, a, b of weight[c, f, a, b] * x[n, c, y, u])
                      over those y, u with  y*stride + a*dilation - before = i  and  u*stride + b*dilation - before = j

It is the gradient of a convolution with respect to its input. Written as a sum over what reaches an output, every output has
one owner: nothing is scattered, no zeros are inserted. `direct_transposed`, outermost first:

    row of the result       of one filter; it stays in L1 until it is complete
      rows of taps (a)        those that hit a row of the input: i + before - a*dilation is a multiple of the stride, and inside
        taps (b), channels      for each the columns that it reaches
          columns                 row[u*stride + ...] += weight * x[u], vectorised where the stride is 1

`direct_transposed_last` is the twin for channels-last results: rows run along the filters, one pixel at a time.

`tiled_transposed` is for strides above 1 (with stride 1 it is an ordinary convolution, and the plan says so). Every stride-th
output of a row meets the same taps: a row falls into `stride` phases, each a small convolution over sheets of the image
(sheets.py) with the taps that reach it. Filters lie in lanes, and a tile stores its sums stride pixels apart, so that the
phases interleave by themselves:

    panel of filters        its weights stay in L2
      phase of rows, phase of columns, row of the result     they meet the same weights
        strip of its pixels     a register row each, `stride` apart
          block of channels, taps of the phase, channels     a rank-1 update each

Of large strides, phases have few taps and few columns, and an image is computed in blocks: blocks.py.

`tiled_transposed_pixels`, for few filters and depthwise layers, whose columns are two apart, has pixels in lanes (windows.py):

    panel of filters, column of vectors     edges are made once
      row of the result                       even and odd columns in a register each, interleaved when they are stored
        rows of taps that reach it, channels    each number is loaded once for two taps

Of depthwise layers whose windows are two apart down the plane too, `tiled_depthwise_spread` walks down the image: a number meets
all taps when it is loaded, and two rows of the result are complete then:

    filter, column of vectors
      row of the image          its numbers meet all rows of taps, whose sums are in registers, of even and of odd columns

`tiled_depthwise_transposed_last` has channels in lanes, and goes from pixel to pixel; any stride will do. For the usual windows
two apart `tiled_depthwise_spread_last` walks along a row of the image instead, with all weights in registers:

    row of the result, vector of channels
      column of the image         its numbers meet all taps across; two outputs are complete then, and leave the registers
"""

import fastconv.cpu.windows  # noqa: F401, gives tiles the methods that tiled kernels call
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.packing import BLOCK
from fastconv.cpu.rows import add_lines, add_strided_lines, epilogue_of, finish_row, inside, start_pixel, start_row
from fastconv.cpu.standard import add_channels, evenly


@inlined
def source(position, stride, size):
    """Which input row lands on this position, -1 if none does."""
    y = position // stride
    return y if y * stride == position and 0 <= y < size else -1


@compiled
def direct_transposed(item, seat, job):
    """One band of rows of one filter. Weights (channels, filters / groups, *kernel), as they come."""
    finish, channels, filters, step = epilogue_of(job), job.channels, job.filters, job.x_steps
    (depth, height, width), (_, out_height, out_width) = job.space, job.out_space
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    taps, rows, all_filters = taps_z * taps_a * taps_b, job.out_space[0] * out_height, job.groups * filters
    band, f, n = item % job.bands, item // job.bands % all_filters, item // (job.bands * all_filters)
    first_channel, x_channel, out = f // filters * channels, job.x_channel, job.out
    image = job.x + (n * job.x_image + first_channel * x_channel)
    weights = job.weight + (first_channel * filters + f % filters) * taps
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        z, i = line // out_height + before_z, line % out_height + before_i
        place = (f * rows + line) * out_width
        row = out + (n * all_filters * rows * out_width + place)
        start_row(row, out_width, finish, f, place)
        for e in range(taps_z):
            plane = source(z - e * apart_z, stride_z, depth)
            for a in range(taps_a):
                y = source(i - a * apart_i, stride_i, height)
                if plane >= 0 and y >= 0:
                    across = image + (plane * step[0] + y * step[1])
                    for b in range(taps_b):
                        w, j = weights + ((e * taps_a + a) * taps_b + b), b * apart_j - before_j
                        first, last = inside(j, stride_j, width, out_width)
                        hit, x = row + (j + first * stride_j), across + first * step[2]
                        if stride_j == 1:
                            add_strided_lines(hit, x, x_channel, step[2], w, filters * taps, channels, last - first)
                        else:
                            add_lines(hit, stride_j, x, x_channel, step[2], w, filters * taps, channels, last - first)
        finish_row(row, out_width, finish, n * all_filters * rows * out_width + place)


@compiled
def direct_transposed_last(item, seat, job):
    """One band of rows, all filters of one group. Weights [group][a][b][channel][filter]."""
    finish, channels, filters, step = epilogue_of(job), job.channels, job.filters, job.x_steps
    (depth, height, width), (_, out_height, out_width) = job.space, job.out_space
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    rows, all_filters = job.out_space[0] * out_height, job.groups * filters
    band, g, n = item % job.bands, item // job.bands % job.groups, item // (job.bands * job.groups)
    image, x_channel = job.x + (n * job.x_image + g * channels * job.x_channel), job.x_channel
    weights, out = job.weight + g * taps_z * taps_a * taps_b * channels * filters, job.out
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        z, i = line // out_height + before_z, line % out_height + before_i
        for column in range(out_width):
            place = (line * out_width + column) * all_filters + g * filters
            row = out + (n * rows * out_width * all_filters + place)
            start_pixel(row, filters, finish, g * filters, place)
            for e in range(taps_z):
                plane = source(z - e * apart_z, stride_z, depth)
                for a in range(taps_a):
                    y = source(i - a * apart_i, stride_i, height)
                    for b in range(taps_b):
                        u = source(column + before_j - b * apart_j, stride_j, width)
                        if plane >= 0 and y >= 0 and u >= 0:
                            pixel = image + (plane * step[0] + y * step[1] + u * step[2])
                            w = weights + ((e * taps_a + a) * taps_b + b) * channels * filters
                            add_lines(row, 1, w, filters, 1, pixel, x_channel, channels, filters)
            finish_row(row, filters, finish, n * rows * out_width * all_filters + place)


@inlined
def reaching(position, axis, job, lowest, size):
    """Which taps of an axis reach an output, from a source within lowest..size: the first tap, its source, and how many.

    The next ones are job.hop taps on, job.back sources back. Asked once a strip, not for each block of channels: it divides.
    """
    taps, spread, apart, hop, back = job.kernel[axis], job.spread[axis], job.apart[axis], job.hop[axis], job.back[axis]
    tap, count = 0, 0
    while tap < taps and (position - tap * apart) % spread != 0:
        tap += 1
    y = (position - tap * apart) // spread
    while tap < taps and y >= size:
        tap, y = tap + hop, y - back
    while tap + count * hop < taps and y - count * back >= lowest:
        count += 1
    return tap, y, count


@inlined
def sum_spread_strip(tile, sheets, panel, job, planes, rows, phase, j, out):
    """Sums of tile.rows outputs of one row, `spread` apart from column phase + j * spread on, over the taps that reach them."""
    (taps_z, taps_a, taps_b), hop, back, width, spread = job.kernel, job.hop, job.back, job.space[2], job.spread[2]
    taps, channels, sheet = taps_z * taps_a * taps_b, job.channels, job.sheet
    (tap_z, z, count_z), (tap_a, y, count_a) = planes, rows
    tap_b, u, count_b = reaching(phase + j * spread + job.crop[2], 2, job, 1 - tile.rows, width)
    window = sheets + (z * job.phase_size + y * job.pitch + u + job.before[2])
    acc = tile.from_columns(panel)
    panel += tile.width
    for first in range(0, channels, BLOCK):
        count = min(BLOCK, channels - first)
        for e in range(count_z):
            for a in range(count_a):
                for b in range(count_b):
                    tap = ((tap_z + e * hop[0]) * taps_a + tap_a + a * hop[1]) * taps_b + tap_b + b * hop[2]
                    x = window + (first * sheet - e * back[0] * job.phase_size - a * back[1] * job.pitch - b * back[2])
                    w, left = panel + (first * taps + tap * count) * tile.width, u - b * back[2]
                    acc = add_channels(acc, x, sheet, w, tile.width, count, left < 0, left + tile.rows > width)
    acc.clip(job.least, job.most).store(out + (phase + j * spread) * tile.width, spread * tile.width)


@compiled
def tiled_transposed(item, seat, job):
    """One band of rows of one plane, one chunk of a group's filters, in lanes. Weights from packing.lane_panels.

    job.spread, apart and crop are the stride, dilation and padding; job.stride, dilation and before those of the sheets.
    """
    tile, short, channels, (out_depth, out_height, out_width) = job.tile, job.short, job.channels, job.out_space
    (taps_z, taps_a, _), (spread_z, spread_i, spread_j), (apart_z, apart_i, _) = job.kernel, job.spread, job.apart
    band, chunk = item % job.bands, item // job.bands % job.chunks
    plane, image = item // (job.bands * job.chunks) % out_depth, item // (job.bands * job.chunks * out_depth)
    g, n, line = image % job.groups, image // job.groups, band * job.band
    sheets = job.scratch + seat * job.scratch_size
    sums, end = sheets + job.sums_at, min(line + job.band, out_height)
    # The first plane and row of the image that any output of the band sees.
    first_z = -(((taps_z - 1) * apart_z - plane - job.crop[0]) // spread_z)
    first_i = -(((taps_a - 1) * apart_i - line - job.crop[1]) // spread_i)
    job.fill_sheets(sheets, job.x + (n * job.x_image + g * channels * job.x_channel), first_z, first_i)
    window = sheets + (-first_z * job.phase_size - first_i * job.pitch)
    planes = reaching(plane + job.crop[0], 0, job, 0, job.space[0])
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), tile.width):
        panel = job.weight + (g * job.panels + f // tile.width) * job.panel
        for begin in range(line, end, job.run):
            rows = min(job.run, end - begin)
            for phase_i in range(min(spread_i, rows)):
                for phase in range(min(spread_j, out_width)):
                    columns = (out_width - phase + spread_j - 1) // spread_j
                    strips, tall = evenly(columns, tile, short)
                    for i in range(begin + phase_i, begin + rows, spread_i):
                        out, lines = sums + (i - begin) * out_width * tile.width, reaching(i + job.crop[1], 1, job, 0, job.space[1])
                        for k in range(tall):
                            sum_spread_strip(tile, window, panel, job, planes, lines, phase, k * tile.rows, out)
                        for k in range(tall, strips):
                            j = min(tall + k * short.rows, columns - short.rows)
                            sum_spread_strip(short, window, panel, job, planes, lines, phase, j, out)
            first, width, pixel = g * job.filters + f, min(tile.width, job.filters - f), (plane * out_height + begin) * out_width
            job.put_rows(sums, tile.width, n, first, width, pixel, rows * out_width)


# Tiled, pixels in lanes -----------------------------------------------------------------------------------------------


@inlined
def spread_rows(acc, tile, job, image, weights, edges, a, y):
    """Add every row of taps from `a` on that reaches a row of the result; the first spreads row y of the image."""
    size = tile.rows * tile.vectors
    while a < job.kernel[1]:
        if 0 <= y < job.space[1]:
            x, w = image + y * job.x_steps[1], weights + a * size
            for _ in range(job.channels):
                acc = acc.spread(tile, w, tile.reach.taps(x, -1, edges))
                x, w = x + job.x_channel, w + job.kernel[1] * size
        a, y = a + job.stride[1], y - 1
    return acc


@inlined
def spread_columns(tile, job, n, g, f, begin, end):
    """Rows begin..end of image n, for a panel of filters of group g that begins with f."""
    lanes, (_, rows, out_width), crop, step = tile.lanes, job.out_space, job.before[2], job.stride[1]
    panel, count = job.weight + (g * job.panels + f // tile.rows) * job.panel, min(tile.rows, job.filters - f)
    plane = ((n * job.groups + g) * job.filters + f) * rows * out_width
    start, last = -((crop + tile.odd) % 2), out_width - 2 * lanes
    for first in range(start, out_width, 2 * lanes):
        j = last if first > last >= start and (last - start) % 2 == 0 else first  # the last columns overlap their neighbours
        u = (j + crop + tile.odd) // 2  # lane 0 meets tap 0 there
        inner, edges = u >= (tile.vectors - 1) // 2 and u + lanes <= job.space[2], tile.reach.edges(u, -1, job.space[2])
        whole = j >= 0 and j + 2 * lanes <= out_width and count == tile.rows
        x, out = job.x + (n * job.x_image + g * job.channels * job.x_channel + u), job.out + (plane + begin * out_width + j)
        a, y = (begin + job.before[1]) % step, (begin + job.before[1]) // step
        for _ in range(begin, end):
            acc = tile.phases(panel)
            if inner:
                acc = spread_rows(acc, tile, job, x, panel + tile.rows, None, a, y)
            else:
                acc = spread_rows(acc, tile, job, x, panel + tile.rows, edges, a, y)
            acc = acc.clip(job.least, job.most).as_windows().interleaved()
            if whole:
                acc.store(out, rows * out_width)
            else:
                acc.store_between(out, rows * out_width, count, -j, out_width - j)
            out += out_width
            a += 1
            if a == step:
                a, y = 0, y + 1


@compiled
def tiled_transposed_pixels(item, seat, job):
    """One band of rows of one image, one chunk of the panels of all groups. Weights from packing.spread_panels."""
    tile, (_, rows, out_width) = job.tile, job.out_space
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, end = band * job.band, min((band + 1) * job.band, rows)
    image = n * job.groups * job.filters * rows * out_width
    for unit in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.groups * job.panels)):
        g, f = unit // job.panels, unit % job.panels * tile.rows
        spread_columns(tile, job, n, g, f, begin, end)
        if job.late:
            for k in range(g * job.filters + f, g * job.filters + min(f + tile.rows, job.filters)):
                place = (k * rows + begin) * out_width
                job.finish_row(job.out + (image + place), (end - begin) * out_width, image, place)


@inlined
def spread_down(tile, job, image, weights, start, plane, begin, end):
    """Rows begin..end of a filter's plane of the result, from one channel of the image; they begin with a vector `start`.

    What the loop needs is read before it: limits that were read and converted where rows are clipped, and weights that were loaded
    for each product, took 27 cycles for four vectors of 3x3 windows, a third more than now. Of planes of several columns of vectors
    it asks for the next plane of the result: eight images, 32 MB, take 1.4 ms for 2.2, what their bytes take; from L3 1 % is lost.
    """
    lanes, (_, _, out_width), (_, height, width), least, most = tile.lanes, job.out_space, job.space, job.least, job.most
    (_, above, crop), step = job.before, job.x_steps[1]
    ahead, lowest = job.out_space[1] * out_width, (begin + above - tile.rows + 2) // 2
    left, last = -((crop + tile.odd) % 2), out_width - 2 * lanes
    for column in range(left, out_width, 2 * lanes):
        j = last if column > last >= left and (last - left) % 2 == 0 else column  # the last columns overlap their neighbours
        u = (j + crop + tile.odd) // 2  # lane 0 meets tap 0 there
        inner, edges = u >= (tile.vectors - 1) // 2 and u + lanes <= width, tile.reach.edges(u, -1, width)
        acc, i = tile.begun(start), 2 * lowest - above
        for y in range(lowest, (end - 1 + above) // 2 + 1):
            if 0 <= y < height:
                x = image + (y * step + u)
                if inner:
                    acc = acc.spread(tile, weights, tile.reach.taps(x, -1, None).as_windows())
                else:
                    acc = acc.spread(tile, weights, tile.reach.taps(x, -1, edges).as_windows())
            for _ in range(2):  # rows that no further row of the image reaches
                if begin <= i < end:
                    row, out = acc.first().clip(least, most).interleaved(), plane + (i * out_width + j)
                    if out_width > 2 * lanes:
                        out.prefetch_l2(ahead)
                        out.prefetch_l2(ahead + lanes)
                    if j >= 0 and j + 2 * lanes <= out_width:
                        row.store(out, out_width)
                    else:
                        row.store_between(out, out_width, 1, -j, out_width - j)
                acc, i = acc.rest(start), i + 1


@compiled
def tiled_depthwise_spread(item, seat, job):
    """One band of rows of one image, one chunk of filters. Weights from packing.row_panels, one filter each."""
    tile, filters, (_, rows, out_width) = job.tile, job.groups * job.filters, job.out_space
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, end = band * job.band, min((band + 1) * job.band, rows)
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, filters)):
        image, place = job.x + (n * job.x_image + f // job.filters * job.x_channel), f * rows * out_width
        plane, panel = job.out + (n * filters * rows * out_width + place), job.weight + f * job.panel
        start = tile.reach.splat(panel[0])
        spread_down(tile, job, image, tile.kept(panel + 1), start, plane, begin, end)
        if job.late:
            line = begin * out_width
            job.finish_row(plane + line, (end - begin) * out_width, n * filters * rows * out_width, place + line)


@inlined
def spread_pixel(acc, tile, job, image, weights, a, y, b, u, count):
    """Add every tap from (a, b) on that reaches a pixel of the result, for a vector of channels; the first spreads pixel (y, u)."""
    lanes, (_, taps_a, taps_b), (_, height, width), step = tile.lanes, job.kernel, job.space, job.x_steps
    while a < taps_a:
        if 0 <= y < height:
            tap, column = b, u
            while tap < taps_b:
                if 0 <= column < width:
                    x, w = image + (y * step[1] + column * step[2]), tile.load(weights + (tap * taps_a + a) * lanes)
                    acc = acc.plus(w, tile.load(x) if count >= lanes else tile.load(x, 0, count))
                tap, column = tap + job.stride[2], column - 1
        a, y = a + job.stride[1], y - 1
    return acc


@compiled
def tiled_depthwise_transposed_last(item, seat, job):
    """One band of rows of one image, all channels. Weights from packing.channel_panels."""
    tile, channels, lanes, (_, rows, out_width) = job.tile, job.groups, job.tile.lanes, job.out_space
    band, n, count = item % job.bands, item // job.bands, min(job.groups, job.tile.lanes)
    image, x = n * rows * out_width * channels, job.x + n * job.x_image
    for i in range(band * job.band, min((band + 1) * job.band, rows)):
        a, y = (i + job.before[1]) % job.stride[1], (i + job.before[1]) // job.stride[1]
        place = i * out_width * channels
        for block in range(0, channels, lanes):
            c = max(0, min(block, channels - lanes))  # the last vector overlaps its neighbour
            panel, out = job.weight + block // lanes * job.panel, job.out + (image + place + c)
            b, u = job.before[2] % job.stride[2], job.before[2] // job.stride[2]
            for _ in range(out_width):
                acc = spread_pixel(tile.load(panel), tile, job, x + c, panel + lanes, a, y, b, u, count)
                acc = acc.clip(job.least, job.most)
                if channels >= lanes:
                    acc.store(out)
                else:
                    acc.store(out, channels)
                out += channels
                b += 1
                if b == job.stride[2]:
                    b, u = 0, u + 1
        if job.late:
            job.finish_row(job.out + (image + place), out_width * channels, image, place)


@inlined
def spread_along(tile, weights, start, job, image, edges, out, count):
    """One row of the result, for a vector of channels; `image` is the lowest row of x that reaches it, those above it follow."""
    (_, _, width), (_, _, out_width), before, channels = job.space, job.out_space, job.before[2], job.groups
    sums, u = tile.sums(start), before // 2 - (tile.rows - 1) // 2  # the first column that reaches a pixel
    j = 2 * u - before
    for column in range(u, (before + out_width - 1) // 2 + 1):
        if 0 <= column < width:
            sums = sums.weigh(weights, tile.taps(image + column * job.x_steps[2], -job.x_steps[1], edges), 0)
        for _ in range(2):
            if 0 <= j < out_width:
                total = sums.oldest().clip(job.least, job.most)
                if count >= tile.lanes:
                    total.store(out + j * channels)
                else:
                    total.store(out + j * channels, count)
            sums = sums.next(start)
            j += 1


@compiled
def tiled_depthwise_spread_last(item, seat, job):
    """One band of rows of one image, all channels. Weights from packing.spread_channel_panels, tile.vectors rows a phase."""
    tile, channels, lanes, (_, rows, out_width) = job.tile, job.groups, job.tile.lanes, job.out_space
    band, n, count, stride = item % job.bands, item // job.bands, min(job.groups, job.tile.lanes), job.stride[1]
    for i in range(band * job.band, min((band + 1) * job.band, rows)):
        phase, y = (i + job.before[1]) % stride, (i + job.before[1]) // stride
        taps = (job.kernel[1] - phase + stride - 1) // stride  # rows of them that this phase has
        first, last = max(0, y - job.space[1] + 1), min(taps, y + 1)
        inner, edges = last - first == tile.vectors and channels >= lanes, tile.sides(first, last, count)
        image, place = n * rows * out_width * channels, i * out_width * channels
        for block in range(0, channels, lanes):
            c = max(0, min(block, channels - lanes))  # the last vector overlaps its neighbour
            panel, out = job.weight + block // lanes * job.panel, job.out + (image + place + c)
            weights = tile.load_tile(panel + (1 + phase * tile.rows * tile.vectors) * lanes, tile.width)
            x = job.x + (n * job.x_image + y * job.x_steps[1] + c)
            if inner:
                spread_along(tile, weights, tile.load(panel), job, x, None, out, count)
            else:
                spread_along(tile, weights, tile.load(panel), job, x, edges, out, count)
        if job.late:
            job.finish_row(job.out + (image + place), out_width * channels, image, place)
