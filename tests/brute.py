"""Convolutions as their definition says, number by number: an oracle for the oracle, sharing no line with it.

Batched two-dimensional images, channels first; `pads` is ((top, bottom), (left, right)).
"""

import numpy as np


def output_size(size, kernel, stride, dilation, pad):
    """Rows of a convolution's result: the windows that fit into the padded rows, counted one by one."""
    count = 0
    while count * stride + dilation * (kernel - 1) < size + pad[0] + pad[1]:
        count += 1
    return count


def conv2d(x, weight, stride, pads, dilation, groups):
    """Cross-correlation, numbers outside the image being 0."""
    batch, channels, height, width = x.shape
    filters, per_group, kernel_height, kernel_width = weight.shape
    assert per_group * groups == channels and filters % groups == 0
    out_height = output_size(height, kernel_height, stride[0], dilation[0], pads[0])
    out_width = output_size(width, kernel_width, stride[1], dilation[1], pads[1])
    out = np.zeros((batch, filters, out_height, out_width))
    for n in range(batch):
        for f in range(filters):
            first = f // (filters // groups) * per_group
            for i in range(out_height):
                for j in range(out_width):
                    for c in range(per_group):
                        for p in range(kernel_height):
                            for q in range(kernel_width):
                                row = i * stride[0] + p * dilation[0] - pads[0][0]
                                column = j * stride[1] + q * dilation[1] - pads[1][0]
                                if 0 <= row < height and 0 <= column < width:
                                    out[n, f, i, j] += x[n, first + c, row, column] * weight[f, c, p, q]
    return out


def conv2d_weight(x, weight_size, grad_output, stride, pads, dilation, groups):
    """For each weight, the sum of the products of what it multiplies and the gradient there."""
    batch, channels, height, width = x.shape
    filters, per_group, kernel_height, kernel_width = weight_size
    assert per_group * groups == channels and filters % groups == 0
    grad = np.zeros(weight_size)
    for f in range(filters):
        first = f // (filters // groups) * per_group
        for c in range(per_group):
            for p in range(kernel_height):
                for q in range(kernel_width):
                    for n in range(batch):
                        for i in range(grad_output.shape[2]):
                            for j in range(grad_output.shape[3]):
                                row = i * stride[0] + p * dilation[0] - pads[0][0]
                                column = j * stride[1] + q * dilation[1] - pads[1][0]
                                if 0 <= row < height and 0 <= column < width:
                                    grad[f, c, p, q] += x[n, first + c, row, column] * grad_output[n, f, i, j]
    return grad


def conv_transpose2d(x, weight, stride, pads, output_padding, dilation, groups):
    """Each number of x, times the kernel, is added to the result from `stride` times its place on."""
    batch, channels, height, width = x.shape
    given, per_group, kernel_height, kernel_width = weight.shape
    assert given == channels and channels % groups == 0
    out_height = (height - 1) * stride[0] - sum(pads[0]) + dilation[0] * (kernel_height - 1) + output_padding[0] + 1
    out_width = (width - 1) * stride[1] - sum(pads[1]) + dilation[1] * (kernel_width - 1) + output_padding[1] + 1
    out = np.zeros((batch, per_group * groups, out_height, out_width))
    for n in range(batch):
        for c in range(channels):
            first = c // (channels // groups) * per_group
            for i in range(height):
                for j in range(width):
                    for f in range(per_group):
                        for p in range(kernel_height):
                            for q in range(kernel_width):
                                row = i * stride[0] + p * dilation[0] - pads[0][0]
                                column = j * stride[1] + q * dilation[1] - pads[1][0]
                                if 0 <= row < out_height and 0 <= column < out_width:
                                    out[n, first + f, row, column] += x[n, c, i, j] * weight[c, f, p, q]
    return out


def conv_transpose2d_weight(x, weight_size, grad_output, stride, pads, dilation, groups):
    """For each weight, the sum of the products of what it multiplies and the gradient there."""
    batch, channels, height, width = x.shape
    given, per_group, kernel_height, kernel_width = weight_size
    assert given == channels and channels % groups == 0
    grad = np.zeros(weight_size)
    for c in range(channels):
        first = c // (channels // groups) * per_group
        for f in range(per_group):
            for p in range(kernel_height):
                for q in range(kernel_width):
                    for n in range(batch):
                        for i in range(height):
                            for j in range(width):
                                row = i * stride[0] + p * dilation[0] - pads[0][0]
                                column = j * stride[1] + q * dilation[1] - pads[1][0]
                                if 0 <= row < grad_output.shape[2] and 0 <= column < grad_output.shape[3]:
                                    grad[c, f, p, q] += x[n, c, i, j] * grad_output[n, first + f, row, column]
    return grad
