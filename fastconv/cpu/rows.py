"""What the direct kernels do with one row of the result: start it with the bias, add scaled rows of the input, finish it.

A row is a run of neighbouring outputs: pixels of one filter where channels come first, filters of one pixel where they come
last. It stays in L1 while it is summed up. All of these loops are vectorised by LLVM; the branches are taken once a row.
"""

from collections import namedtuple

import numpy as np

from fastconv import epilogue
from fastconv.cpu.activations import clip, gelu, hardswish, leaky_relu, sigmoid, silu, tanh
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.job import BIAS

Epilogue = namedtuple("Epilogue", "bias bias_kind residual has_residual activation low high")
A_CHANNEL, A_PIXEL = BIAS["channel"], BIAS["pixel"]
CLIP, LEAKY_RELU, SIGMOID, TANH, SILU, HARDSWISH, GELU = (
    epilogue.CODES[name] for name in ("clip", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "gelu")
)


@inlined
def epilogue_of(job):
    """The epilogue of the result."""
    return Epilogue(job.bias, job.bias_kind, job.residual, job.has_residual, job.activation, job.low, job.high)


@inlined
def inner_epilogue_of(job):
    """The epilogue of a separable layer's depthwise part."""
    bias = job.inner_bias
    return Epilogue(bias, job.inner_bias_kind, bias, 0, job.inner_activation, job.inner_low, job.inner_high)


@inlined
def clipped(acc, job):
    """A tile of sums within the job's bounds; relu has one alone, and with 32 channels the other takes 2 % of a tile's time."""
    return acc.at_least(job.least) if job.most == np.inf else acc.clip(job.least, job.most)


@inlined
def inside(origin, step, count, size):
    """The range of t within 0..count for which 0 <= origin + t * step < size."""
    # A division takes as long as 20 fmas: worth a branch where the step is 1.
    before, end = (-origin, size - origin) if step == 1 else (-(origin // step), -((origin - size) // step))
    first = min(max(0, before), count)
    return first, max(first, min(count, end))


@inlined
def start_row(row, count, finish, f, place):
    """Set pixels of filter f to the bias; `place`: where the row begins in an image of the result."""
    if finish.bias_kind == A_PIXEL:
        bias = finish.bias + place
        for j in range(count):
            row[j] = bias[j]
    elif finish.bias_kind == A_CHANNEL:
        start = finish.bias[f]
        for j in range(count):
            row[j] = start
    else:
        for j in range(count):
            row[j] = 0


@inlined
def start_pixel(row, count, finish, f, place):
    """Set filters f, f + 1, ... of one pixel to the bias."""
    bias = finish.bias + (place if finish.bias_kind == A_PIXEL else f)
    if finish.bias_kind:
        for k in range(count):
            row[k] = bias[k]
    else:
        for k in range(count):
            row[k] = 0


@inlined
def add_lines(row, row_step, line, apart, step, weight, weight_apart, lines, count):
    """row[j * row_step] += sum over c < lines of weight[c * weight_apart] * line[c * apart + j * step], for j < count.

    Eight lines at a time: on a 56 x 56 plane of 64 channels that is three times as fast as one by one, where LLVM's loop
    spends its time on loading and storing the row, and on the columns left over from whole vectors.
    """
    x0, w, eights = line, weight, lines // 8
    for _ in range(eights):
        x1, x2, x3 = x0 + apart, x0 + 2 * apart, x0 + 3 * apart
        x4, x5, x6, x7 = x0 + 4 * apart, x1 + 4 * apart, x2 + 4 * apart, x3 + 4 * apart
        w0, w1, w2, w3 = w[0], w[weight_apart], w[2 * weight_apart], w[3 * weight_apart]
        w += 4 * weight_apart
        w4, w5, w6, w7 = w[0], w[weight_apart], w[2 * weight_apart], w[3 * weight_apart]
        w += 4 * weight_apart
        for j in range(count):
            k = j * step
            total = row[j * row_step] + w0 * x0[k]
            total = total + w1 * x1[k]
            total = total + w2 * x2[k]
            total = total + w3 * x3[k]
            total = total + w4 * x4[k]
            total = total + w5 * x5[k]
            total = total + w6 * x6[k]
            row[j * row_step] = total + w7 * x7[k]
        x0 += 8 * apart
    threes = (lines - 8 * eights) // 3
    for _ in range(threes):  # the colours of a picture, the taps of a row of a depthwise window
        x1, x2, w0, w1, w2 = x0 + apart, x0 + 2 * apart, w[0], w[weight_apart], w[2 * weight_apart]
        for j in range(count):
            k = j * step
            total = row[j * row_step] + w0 * x0[k]
            total = total + w1 * x1[k]
            row[j * row_step] = total + w2 * x2[k]
        x0, w = x0 + 3 * apart, w + 3 * weight_apart
    for c in range(lines - 8 * eights - 3 * threes):
        x1, w0 = x0 + c * apart, w[c * weight_apart]
        for j in range(count):
            row[j * row_step] += w0 * x1[j * step]


@compiled
def add_strided_lines(row, line, apart, step, weight, weight_apart, lines, count):
    """add_lines to neighbouring numbers, where the step in the lines is not known before: 1 and 2 become constants.

    Then LLVM shuffles every other number out of whole vectors: a layer of stride 2 is 2.5 times as fast as with gathers. For
    that the calls must say 1 and 2 themselves, or Numba would compile one function for both.
    """
    if step == 1:
        add_lines(row, 1, line, apart, 1, weight, weight_apart, lines, count)
    elif step == 2:
        add_lines(row, 1, line, apart, 2, weight, weight_apart, lines, count)
    else:
        for c in range(lines):
            for j in range(count):
                row[j] += weight[c * weight_apart] * line[c * apart + j * step]


@compiled
def finish_row(row, count, finish, place):
    """Add the residual and apply the activation; `place`: where the row begins in the result."""
    if finish.has_residual:
        residual = finish.residual + place
        for j in range(count):
            row[j] += residual[j]
    low, high = finish.low, finish.high  # one loop for each activation: handed over as an argument, it would not be cached
    if finish.activation == CLIP:
        for j in range(count):
            row[j] = clip(row[j], low, high)
    elif finish.activation == LEAKY_RELU:
        for j in range(count):
            row[j] = leaky_relu(row[j], low, high)
    elif finish.activation == SIGMOID:
        for j in range(count):
            row[j] = sigmoid(row[j], low, high)
    elif finish.activation == TANH:
        for j in range(count):
            row[j] = tanh(row[j], low, high)
    elif finish.activation == SILU:
        for j in range(count):
            row[j] = silu(row[j], low, high)
    elif finish.activation == HARDSWISH:
        for j in range(count):
            row[j] = hardswish(row[j], low, high)
    elif finish.activation == GELU:
        for j in range(count):
            row[j] = gelu(row[j], low, high)


@inlined
def add_pixel_bias(row, count, finish, place):
    """Add the bias, if there is one a pixel; `place`: where the row begins in an image of the result."""
    if finish.bias_kind == A_PIXEL:
        bias = finish.bias + place
        for j in range(count):
            row[j] += bias[j]


@compiled
def finish_late(job, row, count, image, place):
    """Finish a row of sums as a register tile has stored them: with a bias per channel, and without anything else.

    `place`: where the row begins in an image of the result, `image`: where that image begins.
    """
    finish = epilogue_of(job)
    add_pixel_bias(row, count, finish, place)
    finish_row(row, count, finish, image + place)


@compiled
def finish_inner_late(job, row, count, image, place):
    """As finish_late, for a row of a separable layer's depthwise result, in the scratch."""
    finish = inner_epilogue_of(job)
    add_pixel_bias(row, count, finish, place)
    finish_row(row, count, finish, 0)
