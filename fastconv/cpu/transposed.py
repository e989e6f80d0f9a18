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
"""

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.rows import add_lines, add_strided_lines, epilogue_of, finish_row, inside, start_pixel, start_row


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
