"""The functions of fastconv in plain NumPy: slow, short, and meant to be checked by eye.

A convolution makes a result from an image, both of numbers, by a kernel of taps k:

    result[n, f, o] = sum over c, k of  weight[f, c, k] * image[n, c, o * stride + k * dilation]

where o, k, stride and dilation have one entry a dimension of the space and the image already has its padding. Image and
result each multiply the weight once, so the sum of result * gradient is linear in each of weight and image, and reading off
their factors gives the two other operations:

    gather    result[n, f, o]                            += weight[f, c, k] * image[n, c, o * stride + k * dilation]
    scatter   image[n, c, o * stride + k * dilation]     += weight[f, c, k] * result[n, f, o]
    collect   weight[f, c, k]                            += result[n, f, o] * image[n, c, o * stride + k * dilation]

    convolution   gather,  its gradients: scatter (with respect to the image), collect (to the weight)
    transposed    scatter, its gradients: gather  (with respect to its input), collect (to the weight)

Each is a loop over the taps k below. Channels and filters fall into groups, each a convolution of its own. The padding is put
on before the image is gathered from or collected, and taken off after it is scattered into; a transposed convolution is the
scatter of the convolution that is its adjoint. What is stored is `activation(result + bias + residual)`.

Everything is float64 from the arguments' own values on, and rounded once, to x's dtype. Inside, arrays are
(channels, batch, *space) in either data format. `algorithm` and `precision` are accepted and mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv.epilogue import Activation
from fastconv.problem import (
    DATA_FORMATS,
    Problem,
    as_pointwise,
    check_result,
    dtype_of,
    of_conv,
    of_depthwise,
    of_separable,
    of_transposed,
    one_of,
)

NUMPY_MODES: dict[str, Any] = {
    "zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric",
}  # fmt: skip

# The mathematics, of one group: an image with its padding, a weight (filters, channels, *kernel), a result ----------------


def _gather(image: Any, weight: Any, problem: Problem) -> Any:
    result = np.zeros((len(weight), problem.batch, *problem.out_space))
    for tap in np.ndindex(problem.kernel):
        result += _product(weight[(..., *tap)], image[_under(tap, problem)])
    return result


def _scatter(result: Any, weight: Any, problem: Problem) -> Any:
    padded = (size + sum(pad) for size, pad in zip(problem.space, problem.pads, strict=True))
    image = np.zeros((weight.shape[1], problem.batch, *padded))
    for tap in np.ndindex(problem.kernel):
        image[_under(tap, problem)] += _product(weight[(..., *tap)].T, result)
    return image


def _collect(image: Any, result: Any, problem: Problem) -> Any:
    weight = np.empty((len(result), len(image), *problem.kernel))
    for tap in np.ndindex(problem.kernel):
        under = image[_under(tap, problem)].reshape(len(image), -1)
        weight[(..., *tap)] = _product(result.reshape(len(result), -1), under.T)
    return weight


def _product(matrix: Any, image: Any) -> Any:
    """A matrix times the first axis of an image. By BLAS, except that it may take 0 * inf and 0 * nan for 0."""
    if np.isfinite(matrix).all() and np.isfinite(image).all():
        return np.tensordot(matrix, image, axes=1)
    return np.einsum("fc,c...->f...", matrix, image)


def _under(tap: Sequence[int], problem: Problem) -> tuple[slice, ...]:
    """Where in the padded image the numbers lie that a tap meets: one for each of the result."""
    meets = (
        slice(k * dilation, k * dilation + (size - 1) * stride + 1, stride)
        for k, dilation, stride, size in zip(tap, problem.dilation, problem.stride, problem.out_space, strict=True)
    )
    return (slice(None), slice(None), *meets)


# Around it: groups, padding, what happens to a sum ----------------------------------------------------------------------


def _grouped(operation: Callable[[Any, Any, Problem], Any], first: Any, second: Any, problem: Problem) -> Any:
    """An operation group by group: the first axis of everything is what the groups share out."""
    groups = zip(np.split(first, problem.groups), np.split(second, problem.groups), strict=True)
    return np.concatenate([operation(*group, problem) for group in groups])


def _padded(image: Any, problem: Problem) -> Any:
    return _extended(image, problem.pads, NUMPY_MODES[problem.padding_mode])


def _unpadded(image: Any, problem: Problem) -> Any:
    return _extended(image, [(-before, -after) for before, after in problem.pads])


def _extended(image: Any, pads: Sequence[tuple[int, int]], mode: Any = "constant") -> Any:
    """The image with rows before and after it in each dimension of the space; fewer than none crop it."""
    more = [(max(before, 0), max(after, 0)) for before, after in pads]
    image = np.pad(image, [(0, 0), (0, 0), *more], mode)
    kept = (slice(max(-b, 0), size - max(-a, 0)) for (b, a), size in zip(pads, image.shape[2:], strict=True))
    return image[(..., *kept)]


def _finished(sums: Any, bias: Any, residual: Any, problem: Problem) -> Any:
    if problem.bias == "channel":
        sums = sums + np.asarray(bias, np.float64).reshape(-1, *(1,) * (1 + problem.dimensions))
    if problem.bias == "pixel":
        sums = sums + _inside(bias, problem)
    if problem.residual:
        sums = sums + _inside(residual, problem)
    return _activated(sums, problem.activation)


def _activated(v: Any, activation: Activation) -> Any:
    low, high = activation.low, activation.high
    functions: dict[str, Callable[[], Any]] = {
        "identity": lambda: v,
        "clip": lambda: np.clip(v, low, high),
        "leaky_relu": lambda: np.where(v < 0, low * v, v),
        "sigmoid": lambda: 1 / (1 + np.exp(-v)),
        "tanh": lambda: np.tanh(v),
        "silu": lambda: v / (1 + np.exp(-v)),
        "hardswish": lambda: v * np.clip(v + 3, 0, 6) / 6,
        "gelu": lambda: v / 2 * (1 + np.vectorize(math.erf, otypes=[np.float64])(v / math.sqrt(2))),
    }
    return functions[activation.name]()


# In and out: float64 (channels, batch, *space) --------------------------------------------------------------------------


def _inside(array: Any, problem: Problem) -> Any:
    return _channels_to_front(np.asarray(array, np.float64), problem.dimensions, problem.data_format)


def _channels_to_front(array: Any, dimensions: int, data_format: str) -> Any:
    batched = array if array.ndim == dimensions + 2 else array[None]
    return np.moveaxis(batched, -1 if data_format == "channels_last" else 1, 0)


def _outside(result: Any, problem: Problem, x_dimensions: int, out: Any = None) -> Any:
    """The result as the caller wants it: his data format, batched if x is, rounded to x's dtype, in `out` if given."""
    result = np.moveaxis(result, 0, -1 if problem.data_format == "channels_last" else 1)
    result = result if x_dimensions == problem.dimensions + 2 else result[0]
    if out is None:
        return result.astype(problem.dtype, order="C")
    check_result("out", out, problem, x_dimensions)
    out[...] = result
    return out


# NaN, infinity, and float64 that is too large for float32 are results like others.
_quiet = np.errstate(all="ignore")


@_quiet
def _convolution(problem: Problem, x: Any, weight: Any, bias: Any, residual: Any, out: Any) -> Any:
    return _outside(_convolved(_inside(x, problem), weight, bias, residual, problem), problem, x.ndim, out)


def _convolved(image: Any, weight: Any, bias: Any, residual: Any, problem: Problem) -> Any:
    sums = _grouped(_gather, _padded(image, problem), np.asarray(weight, np.float64), problem)
    return _finished(sums, bias, residual, problem)


@_quiet
def _transposed(problem: Problem, x: Any, weight: Any, bias: Any, residual: Any, out: Any) -> Any:
    adjoint = problem.adjoint()
    sums = _unpadded(_grouped(_scatter, _inside(x, problem), np.asarray(weight, np.float64), adjoint), adjoint)
    return _outside(_finished(sums, bias, residual, problem), problem, x.ndim, out)


def _array_of(shape: Any, like: Any) -> Any:
    """Stands for an array of which only the shape is known, of another's dtype."""
    return np.broadcast_to(np.zeros((), like.dtype), shape)


# Convolutions --------------------------------------------------------------------------------------------------------


def conv1d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Convolve images of 1 dimension. See fastconv.conv1d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv1d(np.ones((2, 5)), np.ones((1, 2, 3))).max().item()
    6.0
    """
    problem = of_conv(
        x, weight, bias, stride, padding, dilation, groups, dimensions=1, padding_mode=padding_mode, activation=activation,
        residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _convolution(problem, x, weight, bias, residual, out)


def conv2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Convolve images of 2 dimensions. See fastconv.conv2d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv2d(np.ones((2, 5, 5)), np.ones((1, 2, 3, 3))).max().item()
    18.0
    """
    problem = of_conv(
        x, weight, bias, stride, padding, dilation, groups, dimensions=2, padding_mode=padding_mode, activation=activation,
        residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _convolution(problem, x, weight, bias, residual, out)


def conv3d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Convolve images of 3 dimensions. See fastconv.conv3d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv3d(np.ones((2, 5, 5, 5)), np.ones((1, 2, 3, 3, 3))).max().item()
    54.0
    """
    problem = of_conv(
        x, weight, bias, stride, padding, dilation, groups, dimensions=3, padding_mode=padding_mode, activation=activation,
        residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _convolution(problem, x, weight, bias, residual, out)


def depthwise_conv1d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Convolve each channel by kernels of its own. See fastconv.depthwise_conv1d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.depthwise_conv1d(np.ones((2, 5)), np.ones((2, 1, 3))).max().item()
    3.0
    """
    problem = of_depthwise(
        x, weight, bias, stride, padding, dilation, dimensions=1, padding_mode=padding_mode, activation=activation,
        residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _convolution(problem, x, weight, bias, residual, out)


def depthwise_conv2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Convolve each channel by kernels of its own. See fastconv.depthwise_conv2d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.depthwise_conv2d(np.ones((2, 5, 5)), np.ones((2, 1, 3, 3))).max().item()
    9.0
    """
    problem = of_depthwise(
        x, weight, bias, stride, padding, dilation, dimensions=2, padding_mode=padding_mode, activation=activation,
        residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _convolution(problem, x, weight, bias, residual, out)


def depthwise_conv3d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Convolve each channel by kernels of its own. See fastconv.depthwise_conv3d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.depthwise_conv3d(np.ones((2, 5, 5, 5)), np.ones((2, 1, 3, 3, 3))).max().item()
    27.0
    """
    problem = of_depthwise(
        x, weight, bias, stride, padding, dilation, dimensions=3, padding_mode=padding_mode, activation=activation,
        residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _convolution(problem, x, weight, bias, residual, out)


def pointwise_conv2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Mix the channels of each pixel. See fastconv.pointwise_conv2d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.pointwise_conv2d(np.ones((2, 4, 4)), np.array([[1.0, 2.0]])).max().item()
    3.0
    """
    weight = as_pointwise(weight, dtype_of("x", x))
    return conv2d(
        x, weight, bias, stride, padding_mode=padding_mode, activation=activation, residual=residual,
        data_format=data_format, algorithm=algorithm, precision=precision, out=out,
    )  # fmt: skip


@_quiet
def separable_conv2d(
    x: Any, depthwise_weight: Any, pointwise_weight: Any, depthwise_bias: Any = None, pointwise_bias: Any = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
    depthwise_activation: Any = None, activation: Any = None, padding_mode: str = "zeros", residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Convolve each channel by itself, then mix the channels of each pixel. See fastconv.separable_conv2d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.separable_conv2d(np.ones((2, 5, 5)), np.ones((2, 1, 3, 3)), np.ones((1, 2))).max().item()
    18.0
    """
    problem = of_separable(
        x, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, stride, padding, dilation,
        depthwise_activation=depthwise_activation, activation=activation, residual=residual, padding_mode=padding_mode,
        data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    depthwise, pointwise = problem.depthwise, problem.pointwise
    between = _convolved(_inside(x, depthwise), depthwise_weight, depthwise_bias, None, depthwise)
    mixing = as_pointwise(pointwise_weight, pointwise.dtype)
    return _outside(_convolved(between, mixing, pointwise_bias, residual, pointwise), pointwise, x.ndim, out)


def atrous_conv2d(
    x: Any, weight: Any, bias: Any = None, rate: Any = 2, padding: Any = 0, stride: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Convolve by a kernel with gaps. See fastconv.atrous_conv2d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.atrous_conv2d(np.ones((1, 9, 9)), np.ones((1, 1, 3, 3)), rate=4).item()
    9.0
    """
    return conv2d(
        x, weight, bias, stride, padding, rate, groups, padding_mode=padding_mode, activation=activation, residual=residual,
        data_format=data_format, algorithm=algorithm, precision=precision, out=out,
    )  # fmt: skip


def conv_transpose1d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, *, output_size: Any = None, activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Scatter images of 1 dimension as a convolution's gradient does. See fastconv.conv_transpose1d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose1d(np.ones((2, 5)), np.ones((2, 1, 3)), stride=2).shape
    (1, 11)
    """
    problem = of_transposed(
        x, weight, bias, stride, padding, output_padding, groups, dilation, dimensions=1, output_size=output_size,
        activation=activation, residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _transposed(problem, x, weight, bias, residual, out)


def conv_transpose2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, *, output_size: Any = None, activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Scatter images of 2 dimensions as a convolution's gradient does. See fastconv.conv_transpose2d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose2d(np.ones((2, 5, 5)), np.ones((2, 1, 3, 3)), stride=2).shape
    (1, 11, 11)
    """
    problem = of_transposed(
        x, weight, bias, stride, padding, output_padding, groups, dilation, dimensions=2, output_size=output_size,
        activation=activation, residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _transposed(problem, x, weight, bias, residual, out)


def conv_transpose3d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, *, output_size: Any = None, activation: Any = None, residual: Any = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Any = None,
) -> Any:  # fmt: skip
    """Scatter images of 3 dimensions as a convolution's gradient does. See fastconv.conv_transpose3d.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose3d(np.ones((2, 5, 5, 5)), np.ones((2, 1, 3, 3, 3)), stride=2).shape
    (1, 11, 11, 11)
    """
    problem = of_transposed(
        x, weight, bias, stride, padding, output_padding, groups, dilation, dimensions=3, output_size=output_size,
        activation=activation, residual=residual, data_format=data_format, algorithm=algorithm, precision=precision,
    )  # fmt: skip
    return _transposed(problem, x, weight, bias, residual, out)


# Gradients: of the sum of result * grad_output --------------------------------------------------------------------------


@_quiet
def _conv_input(problem: Problem, weight: Any, grad_output: Any, x_dimensions: int) -> Any:
    check_result("grad_output", grad_output, problem, x_dimensions)
    padded = _grouped(_scatter, _inside(grad_output, problem), np.asarray(weight, np.float64), problem)
    return _outside(_unpadded(padded, problem), problem, x_dimensions)


@_quiet
def _conv_weight(problem: Problem, x: Any, grad_output: Any) -> Any:
    check_result("grad_output", grad_output, problem, x.ndim)
    image = _padded(_inside(x, problem), problem)
    return _grouped(_collect, image, _inside(grad_output, problem), problem).astype(problem.dtype)


@_quiet
def _transposed_input(problem: Problem, weight: Any, grad_output: Any, x_dimensions: int) -> Any:
    check_result("grad_output", grad_output, problem, x_dimensions)
    adjoint = problem.adjoint()
    image = _padded(_inside(grad_output, problem), adjoint)
    return _outside(_grouped(_gather, image, np.asarray(weight, np.float64), adjoint), problem, x_dimensions)


@_quiet
def _transposed_weight(problem: Problem, x: Any, grad_output: Any) -> Any:
    check_result("grad_output", grad_output, problem, x.ndim)
    adjoint = problem.adjoint()
    image = _padded(_inside(grad_output, problem), adjoint)
    return _grouped(_collect, image, _inside(x, problem), adjoint).astype(problem.dtype)


@_quiet
def _bias(dimensions: int, grad_output: Any, data_format: str) -> Any:
    dtype = dtype_of("grad_output", grad_output)
    one_of("data_format", data_format, DATA_FORMATS)
    if grad_output.ndim not in (dimensions + 1, dimensions + 2):
        expected = f"{dimensions + 2}, or {dimensions + 1} without N"
        raise ValueError(f"grad_output: got {grad_output.ndim} dimensions {grad_output.shape}, expected {expected}")
    channels_first = _channels_to_front(np.asarray(grad_output, np.float64), dimensions, data_format)
    return channels_first.sum(axis=tuple(range(1, dimensions + 2))).astype(dtype)


def conv1d_input(
    input_size: Any, weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *, data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a convolution with respect to x. See fastconv.grad.conv1d_input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv1d_input((2, 5), np.ones((1, 2, 3)), np.ones((1, 3))).max().item()
    3.0
    """
    x = _array_of(input_size, weight)
    problem = of_conv(x, weight, None, stride, padding, dilation, groups, dimensions=1, data_format=data_format)
    return _conv_input(problem, weight, grad_output, x.ndim)


def conv1d_weight(
    x: Any, weight_size: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *, data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a convolution with respect to its weight. See fastconv.grad.conv1d_weight.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv1d_weight(np.ones((2, 5)), (1, 2, 3), np.ones((1, 3))).max().item()
    3.0
    """
    weight = _array_of(weight_size, x)
    problem = of_conv(x, weight, None, stride, padding, dilation, groups, dimensions=1, data_format=data_format)
    return _conv_weight(problem, x, grad_output)


def conv1d_bias(grad_output: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of a convolution with respect to its bias, (OC,). See fastconv.grad.conv1d_bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv1d_bias(np.ones((1, 3))).item()
    3.0
    """
    return _bias(1, grad_output, data_format)


def conv_transpose1d_input(
    input_size: Any, weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *,
    data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a transposed convolution with respect to x. See fastconv.grad.conv_transpose1d_input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose1d_input((2, 5), np.ones((2, 1, 3)), np.ones((1, 7))).max().item()
    3.0
    """
    x = _array_of(input_size, weight)
    problem = of_transposed(
        x, weight, None, stride, padding, output_padding, groups, dilation, dimensions=1, data_format=data_format
    )
    return _transposed_input(problem, weight, grad_output, x.ndim)


def conv_transpose1d_weight(
    x: Any, weight_size: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *,
    data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a transposed convolution with respect to its weight. See fastconv.grad.conv_transpose1d_weight.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose1d_weight(np.ones((2, 5)), (2, 1, 3), np.ones((1, 7))).max().item()
    5.0
    """
    weight = _array_of(weight_size, x)
    problem = of_transposed(
        x, weight, None, stride, padding, output_padding, groups, dilation, dimensions=1, data_format=data_format
    )
    return _transposed_weight(problem, x, grad_output)


def conv_transpose1d_bias(grad_output: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of a transposed convolution with respect to its bias, (OC,). See fastconv.grad.conv_transpose1d_bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose1d_bias(np.ones((1, 7))).item()
    7.0
    """
    return _bias(1, grad_output, data_format)


def conv2d_input(
    input_size: Any, weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *, data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a convolution with respect to x. See fastconv.grad.conv2d_input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv2d_input((2, 5, 5), np.ones((1, 2, 3, 3)), np.ones((1, 3, 3))).max().item()
    9.0
    """
    x = _array_of(input_size, weight)
    problem = of_conv(x, weight, None, stride, padding, dilation, groups, dimensions=2, data_format=data_format)
    return _conv_input(problem, weight, grad_output, x.ndim)


def conv2d_weight(
    x: Any, weight_size: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *, data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a convolution with respect to its weight. See fastconv.grad.conv2d_weight.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv2d_weight(np.ones((2, 5, 5)), (1, 2, 3, 3), np.ones((1, 3, 3))).max().item()
    9.0
    """
    weight = _array_of(weight_size, x)
    problem = of_conv(x, weight, None, stride, padding, dilation, groups, dimensions=2, data_format=data_format)
    return _conv_weight(problem, x, grad_output)


def conv2d_bias(grad_output: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of a convolution with respect to its bias, (OC,). See fastconv.grad.conv2d_bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv2d_bias(np.ones((1, 3, 3))).item()
    9.0
    """
    return _bias(2, grad_output, data_format)


def conv_transpose2d_input(
    input_size: Any, weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *,
    data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a transposed convolution with respect to x. See fastconv.grad.conv_transpose2d_input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose2d_input((2, 5, 5), np.ones((2, 1, 3, 3)), np.ones((1, 7, 7))).max().item()
    9.0
    """
    x = _array_of(input_size, weight)
    problem = of_transposed(
        x, weight, None, stride, padding, output_padding, groups, dilation, dimensions=2, data_format=data_format
    )
    return _transposed_input(problem, weight, grad_output, x.ndim)


def conv_transpose2d_weight(
    x: Any, weight_size: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *,
    data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a transposed convolution with respect to its weight. See fastconv.grad.conv_transpose2d_weight.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose2d_weight(np.ones((2, 5, 5)), (2, 1, 3, 3), np.ones((1, 7, 7))).max().item()
    25.0
    """
    weight = _array_of(weight_size, x)
    problem = of_transposed(
        x, weight, None, stride, padding, output_padding, groups, dilation, dimensions=2, data_format=data_format
    )
    return _transposed_weight(problem, x, grad_output)


def conv_transpose2d_bias(grad_output: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of a transposed convolution with respect to its bias, (OC,). See fastconv.grad.conv_transpose2d_bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose2d_bias(np.ones((1, 7, 7))).item()
    49.0
    """
    return _bias(2, grad_output, data_format)


def conv3d_input(
    input_size: Any, weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *, data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a convolution with respect to x. See fastconv.grad.conv3d_input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv3d_input((2, 5, 5, 5), np.ones((1, 2, 3, 3, 3)), np.ones((1, 3, 3, 3))).max().item()
    27.0
    """
    x = _array_of(input_size, weight)
    problem = of_conv(x, weight, None, stride, padding, dilation, groups, dimensions=3, data_format=data_format)
    return _conv_input(problem, weight, grad_output, x.ndim)


def conv3d_weight(
    x: Any, weight_size: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *, data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a convolution with respect to its weight. See fastconv.grad.conv3d_weight.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv3d_weight(np.ones((2, 5, 5, 5)), (1, 2, 3, 3, 3), np.ones((1, 3, 3, 3))).max().item()
    27.0
    """
    weight = _array_of(weight_size, x)
    problem = of_conv(x, weight, None, stride, padding, dilation, groups, dimensions=3, data_format=data_format)
    return _conv_weight(problem, x, grad_output)


def conv3d_bias(grad_output: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of a convolution with respect to its bias, (OC,). See fastconv.grad.conv3d_bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv3d_bias(np.ones((1, 3, 3, 3))).item()
    27.0
    """
    return _bias(3, grad_output, data_format)


def conv_transpose3d_input(
    input_size: Any, weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *,
    data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a transposed convolution with respect to x. See fastconv.grad.conv_transpose3d_input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose3d_input((2, 5, 5, 5), np.ones((2, 1, 3, 3, 3)), np.ones((1, 7, 7, 7))).max().item()
    27.0
    """
    x = _array_of(input_size, weight)
    problem = of_transposed(
        x, weight, None, stride, padding, output_padding, groups, dilation, dimensions=3, data_format=data_format
    )
    return _transposed_input(problem, weight, grad_output, x.ndim)


def conv_transpose3d_weight(
    x: Any, weight_size: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *,
    data_format: str = "channels_first",
) -> Any:  # fmt: skip
    """Gradient of a transposed convolution with respect to its weight. See fastconv.grad.conv_transpose3d_weight.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose3d_weight(np.ones((2, 5, 5, 5)), (2, 1, 3, 3, 3), np.ones((1, 7, 7, 7))).max().item()
    125.0
    """
    weight = _array_of(weight_size, x)
    problem = of_transposed(
        x, weight, None, stride, padding, output_padding, groups, dilation, dimensions=3, data_format=data_format
    )
    return _transposed_weight(problem, x, grad_output)


def conv_transpose3d_bias(grad_output: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of a transposed convolution with respect to its bias, (OC,). See fastconv.grad.conv_transpose3d_bias.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.reference.conv_transpose3d_bias(np.ones((1, 7, 7, 7))).item()
    343.0
    """
    return _bias(3, grad_output, data_format)
