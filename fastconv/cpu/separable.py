"""Depthwise separable convolution: depthwise, then pointwise, in one pass.

    d[n, c*M + m, i, j] = inner finish(sum over a, b of depthwise[c*M + m, a, b] * x[n, c, i*stride + a*dilation - before, j*...])
    out[n, f, i, j]     = finish(bias + sum over k of pointwise[f, k] * d[n, k, i, j])

(k*k + F) / (k*k * F) of the standard layer's operations. d never goes to main memory, outermost first:

    band of rows of the result    as many as make a scratch that stays in L2
      depthwise                     every channel's rows of the band into the scratch, [channel][pixel]
      pointwise                     for each filter, the band's pixels as one long row, channels eight at a time

A work item is one band of one image; its scratch belongs to the seat that runs it. `direct_separable_last` is the same for
channels-last results, with the scratch [pixel][channel].
"""

from fastconv.cpu.compiled import compiled
from fastconv.cpu.depthwise import add_window_last, sum_windows
from fastconv.cpu.rows import add_lines, epilogue_of, finish_row, inner_epilogue_of, start_pixel, start_row


@compiled
def direct_separable(item, seat, job):
    """One band of rows of one image, all filters. Weights as they come."""
    inner, finish = inner_epilogue_of(job), epilogue_of(job)
    channels, filters, taps = job.groups * job.filters, job.outer_filters, job.kernel[0] * job.kernel[1] * job.kernel[2]
    rows, out_width, band, n = job.out_space[0] * job.out_space[1], job.out_space[2], item % job.bands, item // job.bands
    first, last = band * job.band, min((band + 1) * job.band, rows)
    pixels, scratch, out = (last - first) * out_width, job.scratch + seat * job.scratch_size, job.out
    for k in range(channels):
        image, w = job.x + (n * job.x_image + k // job.filters * job.x_channel), job.weight + k * taps
        sum_windows(job, scratch + k * pixels, image, w, inner, k, first, last)
        finish_row(scratch + k * pixels, pixels, inner, (k * rows + first) * out_width)
    for f in range(filters):
        place = (f * rows + first) * out_width
        row = out + (n * filters * rows * out_width + place)
        start_row(row, pixels, finish, f, place)
        add_lines(row, 1, scratch, pixels, 1, job.outer_weight + f * channels, 1, channels, pixels)
        finish_row(row, pixels, finish, n * filters * rows * out_width + place)


@compiled
def direct_separable_last(item, seat, job):
    """One band of rows of one image. Weights [a][b][channel * multiplier] and [channel * multiplier][filter]."""
    inner, finish = inner_epilogue_of(job), epilogue_of(job)
    channels, filters = job.groups * job.filters, job.outer_filters
    rows, out_width, band, n = job.out_space[0] * job.out_space[1], job.out_space[2], item % job.bands, item // job.bands
    image, weights, scratch, out = job.x + n * job.x_image, job.weight, job.scratch + seat * job.scratch_size, job.out
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        for column in range(out_width):
            pixel = line * out_width + column
            start_pixel(scratch, channels, inner, 0, pixel * channels)
            add_window_last(job, scratch, image, weights, line, column)
            finish_row(scratch, channels, inner, 0)
            row = out + (n * rows * out_width + pixel) * filters
            start_pixel(row, filters, finish, 0, pixel * filters)
            add_lines(row, 1, job.outer_weight, filters, 1, scratch, 1, channels, filters)
            finish_row(row, filters, finish, (n * rows * out_width + pixel) * filters)
