"""Depthwise convolution: every channel has filters of its own and mixes with no other.

    out[n, c*M + m, i, j] = finish(bias + sum over a, b of weight[c*M + m, a, b] * x[n, c, i*stride + a*dilation - before, j*...])

M, the multiplier, is mostly 1. Two operations a tap, and few taps for each number read and written: the limit is the caches'
bandwidth, and everything that is done once a row. So `direct_depthwise` does little once a row. Outermost first:

    band of rows            of one channel of the result; it stays in L1
      row of taps (a)         for the rows of the band whose tap lies inside the image
        rows, columns           with whole windows, as one run where the image is as wide as the result: vectorised, three taps
                                at once; then columns near the border, a tap and a column at a time

`direct_depthwise_last`, for channels-last results, runs along the channels instead, one pixel at a time.
"""

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.rows import add_strided_lines, epilogue_of, finish_row, inside, start_pixel, start_row


@inlined
def whole_windows(job):
    """The columns of the result whose windows lie wholly inside the image; none: the range behind the last column."""
    stride, before, count = job.stride[2], job.before[2], job.out_space[2]
    left = inside(-before, stride, count, job.space[2])
    right = inside((job.kernel[2] - 1) * job.dilation[2] - before, stride, count, job.space[2])
    first, last = max(left[0], right[0]), min(left[1], right[1])
    return (first, last) if first < last else (count, count)


@compiled
def sum_windows(job, rows, image, w, finish, f, first, last):
    """Rows first..last of filter f, bias included: the columns with whole windows, then those near the border, begun anew.

    Where the image is as wide as the result, the rows are one run, a single loop. It also crosses the columns near the border
    and leaves nonsense there, but saves what a loop costs a row, most of the time on planes of 14 x 14.
    """
    (depth, height, _), (_, out_height, out_width), steps = job.space, job.out_space, job.x_steps
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    left, right = whole_windows(job)
    down, step, in_a_run = stride_i * steps[1], stride_j * steps[2], stride_i * steps[1] == out_width * stride_j * steps[2]
    whole, border = ((0, right), (right, out_width)), ((0, left), (right, out_width))
    for near_border in range(2):
        for begin, end in border if near_border else whole:
            start_rows(job, rows, finish, f, first, last, begin, end)
        for plane in range(first // out_height, (last - 1) // out_height + 1):
            z, above = plane * stride_z - before_z, plane * out_height - first
            planes = inside(z, apart_z, taps_z, depth)
            for e in range(planes[0], planes[1]):
                for a in range(taps_a):
                    i = a * apart_i - before_i
                    lines = inside(i, stride_i, out_height, height)
                    top, bottom = max(lines[0], -above), min(lines[1], last - first - above)
                    row, taps = rows + (above + top) * out_width, w + (e * taps_a + a) * taps_b
                    across = image + ((z + e * apart_z) * steps[0] + (i + top * stride_i) * steps[1])
                    if near_border:
                        for begin, end in border:
                            add_border(job, row, across, taps, bottom - top, begin, end)
                    elif left < right:
                        runs, count = bottom - top, right - left
                        if in_a_run:
                            runs, count = 1, (runs - 1) * out_width + count
                        row, x = row + left, across + (left * step - before_j * steps[2])
                        for _ in range(runs):
                            add_strided_lines(row, x, apart_j * steps[2], step, taps, 1, taps_b, count)
                            row, x = row + out_width, x + down


@compiled
def start_rows(job, rows, finish, f, first, last, begin, end):
    """Set columns begin..end of rows first..last to the bias."""
    out_width = job.out_space[2]
    place = (f * job.out_space[0] * job.out_space[1] + first) * out_width + begin
    for line in range(last - first):
        start_row(rows + (line * out_width + begin), end - begin, finish, f, place + line * out_width)


@compiled
def add_border(job, row, across, w, lines, begin, end):
    """Columns begin..end of so many rows, whose windows may reach outside the image: tap by tap, each with its own columns."""
    out_width, step = job.out_space[2], job.stride[2] * job.x_steps[2]
    down = job.stride[1] * job.x_steps[1]
    for b in range(job.kernel[2]):
        u = b * job.dilation[2] - job.before[2]
        columns = inside(u, job.stride[2], end, job.space[2])
        for j in range(max(begin, columns[0]), columns[1]):
            at, x, weight = row + j, across + (u * job.x_steps[2] + j * step), w[b]
            for line in range(lines):
                at[line * out_width] += weight * x[line * down]


@compiled
def direct_depthwise(item, seat, job):
    """One band of rows of one channel of the result. Weights (channels * multiplier, 1, *kernel), as they come."""
    finish, all_filters = epilogue_of(job), job.groups * job.filters
    taps, rows, out_width = job.kernel[0] * job.kernel[1] * job.kernel[2], job.out_space[0] * job.out_space[1], job.out_space[2]
    band, f, n = item % job.bands, item // job.bands % all_filters, item // (job.bands * all_filters)
    image, w = job.x + (n * job.x_image + f // job.filters * job.x_channel), job.weight + f * taps
    first, last = band * job.band, min((band + 1) * job.band, rows)
    place, out = ((n * all_filters + f) * rows + first) * out_width, job.out
    sum_windows(job, out + place, image, w, finish, f, first, last)
    finish_row(out + place, (last - first) * out_width, finish, place)


@inlined
def add_window_last(job, row, image, weights, line, column):
    """Add the window of every channel to one pixel of the result. Weights [a][b][channel * multiplier]."""
    channels, multiplier, x_channel, taps_a, taps_b = job.groups, job.filters, job.x_channel, job.kernel[1], job.kernel[2]
    z = line // job.out_space[1] * job.stride[0] - job.before[0]
    i = line % job.out_space[1] * job.stride[1] - job.before[1]
    j = column * job.stride[2] - job.before[2]
    planes = inside(z, job.dilation[0], job.kernel[0], job.space[0])
    lines = inside(i, job.dilation[1], taps_a, job.space[1])
    columns = inside(j, job.dilation[2], taps_b, job.space[2])
    for e in range(planes[0], planes[1]):
        for a in range(lines[0], lines[1]):
            plane = (z + e * job.dilation[0]) * job.x_steps[0] + (i + a * job.dilation[1]) * job.x_steps[1]
            for b in range(columns[0], columns[1]):
                pixel = image + (plane + (j + b * job.dilation[2]) * job.x_steps[2])
                w = weights + ((e * taps_a + a) * taps_b + b) * channels * multiplier
                if multiplier == 1 and x_channel == 1:
                    for c in range(channels):
                        row[c] += w[c] * pixel[c]
                else:
                    for c in range(channels):
                        for m in range(c * multiplier, (c + 1) * multiplier):
                            row[m] += w[m] * pixel[c * x_channel]


@compiled
def direct_depthwise_last(item, seat, job):
    """One band of rows, all channels. Weights [a][b][channel * multiplier]."""
    finish, rows, out_width, count = (
        epilogue_of(job),
        job.out_space[0] * job.out_space[1],
        job.out_space[2],
        job.groups * job.filters,
    )
    band, n = item % job.bands, item // job.bands
    image, weights, out = job.x + n * job.x_image, job.weight, job.out
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        for column in range(out_width):
            place = (line * out_width + column) * count
            row = out + (n * rows * out_width * count + place)
            start_pixel(row, count, finish, 0, place)
            add_window_last(job, row, image, weights, line, column)
            finish_row(row, count, finish, n * rows * out_width * count + place)
