"""What the direct kernels do with one row of the result: start it with the bias, add scaled rows of the input, finish it.

A row is a run of neighbouring outputs: pixels of one filter where channels come first, filters of one pixel where they come
last. It stays in L1 while it is summed up. All of these loops are vectorised by LLVM; the branches are taken once a row.
"""

from collections import namedtuple

from fastconv import epilogue
from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.job import BIAS

Epilogue = namedtuple("Epilogue", "bias bias_kind residual has_residual activation low high")
A_CHANNEL, A_PIXEL = BIAS["channel"], BIAS["pixel"]
CLIP, LEAKY_RELU, SIGMOID, TANH, SILU, HARDSWISH, GELU = (
    epilogue.CODES[name] for name in ("clip", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "gelu")
)
clip, leaky_relu, sigmoid, tanh, silu, hardswish, gelu = map(compiled, epilogue.FUNCTIONS[1:])


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
def add_scaled(row, line, weight, step, first, last):
    """row[j] += weight * line[j * step] for j in first..last: a vector fma where step is 1."""
    if step == 1:
        for j in range(first, last):
            row[j] += weight * line[j]
    else:
        for j in range(first, last):
            row[j] += weight * line[j * step]


@compiled
def add_lines(row, line, line_apart, weight, weight_apart, count, step, first, last):
    """Add `count` scaled lines, eight at a time: a number of the row is then read and written once for eight fmas.

    On a 56 x 56 plane of 64 channels that is three times as fast as one by one, where LLVM's loop spends its time on
    loading and storing the row, and on the columns left over from whole vectors.
    """
    whole = count // 8 * 8 if step == 1 else 0
    for c in range(0, whole, 8):
        x, w = line + c * line_apart, weight + c * weight_apart
        x0, x1, x2, x3 = x, x + line_apart, x + 2 * line_apart, x + 3 * line_apart
        x4, x5, x6, x7 = x + 4 * line_apart, x + 5 * line_apart, x + 6 * line_apart, x + 7 * line_apart
        w0, w1, w2, w3 = w[0], w[weight_apart], w[2 * weight_apart], w[3 * weight_apart]
        w4, w5, w6, w7 = w[4 * weight_apart], w[5 * weight_apart], w[6 * weight_apart], w[7 * weight_apart]
        for j in range(first, last):
            total = row[j] + w0 * x0[j]
            total = total + w1 * x1[j]
            total = total + w2 * x2[j]
            total = total + w3 * x3[j]
            total = total + w4 * x4[j]
            total = total + w5 * x5[j]
            total = total + w6 * x6[j]
            row[j] = total + w7 * x7[j]
    for c in range(whole, count):
        add_scaled(row, line + c * line_apart, weight[c * weight_apart], step, first, last)


@compiled
def through(function, row, count, low, high):
    """Put a row through an activation."""
    for j in range(count):
        row[j] = function(row[j], low, high)


@compiled
def finish_row(row, count, finish, place):
    """Add the residual and apply the activation; `place`: where the row begins in the result."""
    if finish.has_residual:
        residual = finish.residual + place
        for j in range(count):
            row[j] += residual[j]
    if finish.activation == CLIP:
        through(clip, row, count, finish.low, finish.high)
    elif finish.activation == LEAKY_RELU:
        through(leaky_relu, row, count, finish.low, finish.high)
    elif finish.activation == SIGMOID:
        through(sigmoid, row, count, finish.low, finish.high)
    elif finish.activation == TANH:
        through(tanh, row, count, finish.low, finish.high)
    elif finish.activation == SILU:
        through(silu, row, count, finish.low, finish.high)
    elif finish.activation == HARDSWISH:
        through(hardswish, row, count, finish.low, finish.high)
    elif finish.activation == GELU:
        through(gelu, row, count, finish.low, finish.high)


@compiled
def finish_late(job, row, count, image, place):
    """Finish a row whose sums a tile has stored raw: it took a bias per channel in, and no other.

    `place`: where the row begins in an image of the result, `image`: where that image begins.
    """
    finish = epilogue_of(job)
    if finish.bias_kind == A_PIXEL:
        bias = finish.bias + place
        for j in range(count):
            row[j] += bias[j]
    finish_row(row, count, finish, image + place)


@compiled
def finish_inner_late(job, row, count, image, place):
    """As finish_late, for a row of a separable layer's depthwise result, in the scratch."""
    finish = inner_epilogue_of(job)
    if finish.bias_kind == A_PIXEL:
        bias = finish.bias + place
        for j in range(count):
            row[j] += bias[j]
    finish_row(row, count, finish, 0)
