"""Gradients of a convolution with respect to its weights and its bias.

    weight'[f, c, a, b] = sum over n, i, j of out'[n, f, i, j] * x[n, c, i*stride + a*dilation - before, j*...]
    bias'[f]            = sum over n, i, j of out'[n, f, i, j]

(The gradient with respect to the input is a transposed convolution: transposed.py. That of a transposed convolution is an
ordinary one, and its weights' is the one here with image and gradient exchanged.) A work item owns one pair of filter and
channel, and sums in an order that does not depend on the threads, outermost first:

    taps (a, b)             what they multiply outside the image is never visited
      images, rows            of the gradient and of the image, a dot product each
        columns                 vectorised: `reassociating` lets LLVM keep one partial sum a lane

The arrays are read by their steps, so both data formats are served; the vectors need a step of 1.
"""

from fastconv.cpu.compiled import compiled, reassociating
from fastconv.cpu.rows import inside


@reassociating
def add_dot(total, left, left_step, right, right_step, count):
    """Total + the sum of left[k * left_step] * right[k * right_step]."""
    if left_step == 1 and right_step == 1:
        for k in range(count):
            total += left[k] * right[k]
    else:
        for k in range(count):
            total += left[k * left_step] * right[k * right_step]
    return total


@compiled
def direct_weight_gradient(item, seat, job):
    """All taps of one filter and one of its channels: job.x the image, job.grad the gradient, job.out the weights'."""
    channels, step, grad_step = job.channels, job.x_steps, job.grad_steps
    (depth, height, width), (out_depth, out_height, out_width) = job.space, job.out_space
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    f, out = item // channels, job.out + item * taps_z * taps_a * taps_b
    image = job.x + (f // job.filters * channels + item % channels) * job.x_channel
    grad = job.grad + f * job.grad_channel
    for tap in range(taps_z * taps_a * taps_b):
        z, i = tap // taps_b // taps_a * apart_z - before_z, tap // taps_b % taps_a * apart_i - before_i
        j = tap % taps_b * apart_j - before_j
        planes, lines = inside(z, stride_z, out_depth, depth), inside(i, stride_i, out_height, height)
        first, last = inside(j, stride_j, out_width, width)
        total = job.low * 0
        for n in range(job.batch):
            for k in range(planes[0], planes[1]):
                for line in range(lines[0], lines[1]):
                    g = grad + (n * job.grad_image + k * grad_step[0] + line * grad_step[1] + first * grad_step[2])
                    at = (z + k * stride_z) * step[0] + (i + line * stride_i) * step[1] + (j + first * stride_j) * step[2]
                    x = image + (n * job.x_image + at)
                    total = add_dot(total, g, grad_step[2], x, stride_j * step[2], last - first)
        out[tap] = total


@reassociating
def add_sum(total, row, step, count):
    """Total + the sum of row[k * step]."""
    if step == 1:
        for k in range(count):
            total += row[k]
    else:
        for k in range(count):
            total += row[k * step]
    return total


@compiled
def direct_bias_gradient(item, seat, job):
    """The sum of one filter's gradient: job.grad the gradient, job.out the bias's."""
    (out_depth, out_height, out_width), step = job.out_space, job.grad_steps
    grad, out, total = job.grad + item * job.grad_channel, job.out, job.low * 0
    for n in range(job.batch):
        for k in range(out_depth):
            for line in range(out_height):
                row = grad + (n * job.grad_image + k * step[0] + line * step[1])
                total = add_sum(total, row, step[2], out_width)
    out[item] = total
