"""Pointwise (1x1) convolution: it mixes the channels of a pixel and looks at no other pixel.

    out[n, f, p] = finish(bias + sum over c of weight[f, c] * x[n, c, p])       p over pixels, every stride-th of them

A matrix product of (filters, channels) with (channels, pixels); the limit is the multiply-add peak unless there are few
channels. `direct_pointwise`, outermost first:

    row of the result     of one filter; it stays in L1 until it is complete
      channels              eight at a time
        columns               vectorised: row[j] += weight * x[j]

With stride 1 and whole planes the plan hands over each image as one long row. `direct_pointwise_last` runs along the filters.
"""

from fastconv.cpu.compiled import compiled
from fastconv.cpu.rows import add_lines, add_strided_lines, epilogue_of, finish_row, start_pixel, start_row


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
