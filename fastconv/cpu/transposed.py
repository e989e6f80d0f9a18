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

`tiled_transposed_pixels` is for few filters, which would leave lanes empty. Where the stride divides the kernel, it takes every
phase of every filter for a filter of its own: a convolution of stride 1, of stride^2 times as many filters of kernel / stride
taps, pixels in lanes, whose results interleave.
"""

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.packing import BLOCK
from fastconv.cpu.rows import add_lines, add_strided_lines, epilogue_of, finish_row, inside, start_pixel, start_row
from fastconv.cpu.standard import add_channels, evenly, put_row, sum_plane


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

    The next ones are job.hop taps on, job.back sources back. Asked once a strip, not for each block of channels: divisions.
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
            put_row(tile, job, sums, n, g, f, (plane * out_height + begin) * out_width, rows * out_width)


@compiled
def tiled_transposed_pixels(item, seat, job):
    """One band of rows of every phase of one plane, all of a group's filters, pixels in lanes. Weights from packing.row_panels.

    job.filters and kernel are those of the phases, job.spread and crop the stride, and what is cropped of the first pixel's phases.
    """
    tile, (spread_z, spread_i, spread_j), (crop_z, crop_i, crop_j) = job.tile, job.spread, job.crop
    out_depth, out_height, out_width = job.out_space
    depth, height = (crop_z + out_depth - 1) // spread_z + 1, (crop_i + out_height - 1) // spread_i + 1
    width, phases = (crop_j + out_width - 1) // spread_j + 1, spread_z * spread_i * spread_j
    band, plane, image = item % job.bands, item // job.bands % depth, item // (job.bands * depth)
    g, n, line = image % job.groups, image // job.groups, band * job.band
    sheets = job.scratch + seat * job.scratch_size
    sums, rows = sheets + job.sums_at, min(job.band, height - line)
    job.fill_sheets(sheets, job.x + (n * job.x_image + g * job.channels * job.x_channel), plane, line)
    place = (n * job.groups + g) * (job.filters // phases) * out_depth
    for f in range(0, job.filters, tile.rows):
        panel = job.weight + (g * job.panels + f // tile.rows) * job.panel
        sum_plane(tile, job, sheets, panel, (rows - 1) * job.pitch + width, sums, job.sums_pitch, tile.rows, job.sums_pitch)
        for k in range(f, min(f + tile.rows, job.filters)):
            z = plane * spread_z + k // (spread_i * spread_j) % spread_z - crop_z
            first, j = line * spread_i + k // spread_j % spread_i - crop_i, k % spread_j - crop_j
            if 0 <= z and z < out_depth:
                out = job.out + (place + k // phases * out_depth + z) * out_height * out_width
                put_phase(job, sums + (k - f) * job.sums_pitch, out, first, j, rows)
    if job.late:
        begin, end = max(0, line * spread_i - crop_i), min((line + rows) * spread_i - crop_i, out_height)
        for f in range(job.filters // phases):
            for z in range(max(0, plane * spread_z - crop_z), min((plane + 1) * spread_z - crop_z, out_depth)):
                image = n * job.groups * (job.filters // phases) * out_depth * out_height * out_width
                here = (((g * (job.filters // phases) + f) * out_depth + z) * out_height + begin) * out_width
                job.finish_row(job.out + (image + here), (end - begin) * out_width, image, here)


@inlined
def put_phase(job, sums, out, first, j, rows):
    """out[first + i * spread, j + u * spread] = sums[i][u], where that lies inside the plane of the result."""
    (_, spread_i, spread_j), (_, out_height, out_width) = job.spread, job.out_space
    begin, count = (0 if j >= 0 else 1), (out_width - j + spread_j - 1) // spread_j
    for y in range(rows):
        i = first + y * spread_i
        if 0 <= i and i < out_height:
            here, there = sums + y * job.pitch, out + (i * out_width + j)
            for u in range(begin, count):
                there[u * spread_j] = here[u]
