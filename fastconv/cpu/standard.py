"""Standard convolution: every filter looks at every channel of its group through a window of the image.

    out[n, f, i, j] = finish(bias + sum over c, a, b of weight[f, c, a, b] * x[n, c, i*stride + a*dilation - before, j*...])

and the same with one more tap, over the depth, for volumes; a line is a plane of height 1. 2 operations a weight and pixel:
the limit is the multiply-add peak. The direct kernels keep to the sum as it stands. `direct_standard`, outermost first:

    row of the result       of one filter; it stays in L1 until it is complete
      taps (a, b)             those whose row lies outside the image are never visited, columns outside are cut off the range
        channels, columns       vectorised along the columns: row[j] += weight * x[j]

A dilated (atrous) convolution is this kernel with its taps further apart: no zeros stored, none multiplied.
`direct_standard_last` is the twin for channels-last results: rows run along the filters, one pixel at a time.
"""

from fastconv.cpu.compiled import compiled
from fastconv.cpu.rows import add_lines, add_strided_lines, epilogue_of, finish_row, inside, start_pixel, start_row


@compiled
def direct_standard(item, seat, job):
    """One band of rows of one filter. Weights (filters, channels, *kernel), as they come."""
    finish, channels, step = epilogue_of(job), job.channels, job.x_steps
    (depth, height, width), (_, out_height, out_width) = job.space, job.out_space
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    rows, all_filters = job.out_space[0] * out_height, job.groups * job.filters
    band, f, n = item % job.bands, item // job.bands % all_filters, item // (job.bands * all_filters)
    image = job.x + (n * job.x_image + f // job.filters * channels * job.x_channel)
    taps, x_channel, out = taps_z * taps_a * taps_b, job.x_channel, job.out
    weights = job.weight + f * channels * taps
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        z, i = line // out_height * stride_z - before_z, line % out_height * stride_i - before_i
        place = (f * rows + line) * out_width
        row = out + (n * all_filters * rows * out_width + place)
        start_row(row, out_width, finish, f, place)
        planes, lines = inside(z, apart_z, taps_z, depth), inside(i, apart_i, taps_a, height)
        for e in range(planes[0], planes[1]):
            for a in range(lines[0], lines[1]):
                across = image + ((z + e * apart_z) * step[0] + (i + a * apart_i) * step[1])
                for b in range(taps_b):
                    j, w = b * apart_j - before_j, weights + ((e * taps_a + a) * taps_b + b)
                    first, last = inside(j, stride_j, out_width, width)
                    x = across + (j + first * stride_j) * step[2]
                    add_strided_lines(row + first, x, x_channel, stride_j * step[2], w, taps, channels, last - first)
        finish_row(row, out_width, finish, n * all_filters * rows * out_width + place)


@compiled
def direct_standard_last(item, seat, job):
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
        z, i = line // out_height * stride_z - before_z, line % out_height * stride_i - before_i
        planes, lines = inside(z, apart_z, taps_z, depth), inside(i, apart_i, taps_a, height)
        for column in range(out_width):
            j = column * stride_j - before_j
            columns = inside(j, apart_j, taps_b, width)
            place = (line * out_width + column) * all_filters + g * filters
            row = out + (n * rows * out_width * all_filters + place)
            start_pixel(row, filters, finish, g * filters, place)
            for e in range(planes[0], planes[1]):
                for a in range(lines[0], lines[1]):
                    for b in range(columns[0], columns[1]):
                        pixel = image + ((z + e * apart_z) * step[0] + (i + a * apart_i) * step[1] + (j + b * apart_j) * step[2])
                        w = weights + ((e * taps_a + a) * taps_b + b) * channels * filters
                        add_lines(row, 1, w, filters, 1, pixel, x_channel, channels, filters)
            finish_row(row, filters, finish, n * rows * out_width * all_filters + place)
