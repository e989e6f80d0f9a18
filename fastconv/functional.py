"""The convolutions, as functions of arrays: accept, check, shape the result, hand over.

Names, argument order and defaults follow torch.nn.functional. Nothing is computed here: the arguments become a `Problem`
(problem.py), the plan chooses a kernel (plan.py), and launch.py runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastconv import cuda
from fastconv.cpu import launch, packing, threads
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import AnyProblem, Choice, choose
from fastconv.problem import as_pointwise, check_result, dtype_of, of_conv, of_depthwise, of_separable, of_transposed

Array = np.ndarray[Any, Any]


class Answer(Exception):
    """What a call would compute, in place of computing it: how `explain` and jitted code ask any function.

    Attributes
    ----------
    problem : Problem or SeparableProblem
        Checked.
    image, weights, biases, residual
        The arrays of the problem; the second image of a problem of operation "weights" is its only weight.
    fresh : bool
        Whether the weights differ from call to call, as a gradient's do.
    """

    def __init__(
        self, problem: AnyProblem, image: Array, weights: list[Array], biases: list[Array | None], residual: Array | None = None,
        fresh: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(problem)
        self.fresh = fresh
        self.problem, self.image, self.weights, self.biases, self.residual = problem, image, weights, biases, residual

    def __iter__(self) -> Iterator[Any]:
        return iter((self.problem, self.image, self.weights, self.biases, self.residual))


asking: ContextVar[bool] = ContextVar("asking", default=False)


def answer_if_asked(
    problem: AnyProblem, image: Array, weights: list[Array], biases: list[Array | None], residual: Array | None = None,
    fresh: bool = False,
) -> None:  # fmt: skip
    """Stop here, with what would be computed, while somebody asks."""
    if asking.get():
        raise Answer(problem, image, weights, biases, residual, fresh)


def ask(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Answer:
    """What a function would compute of such arguments.

    Raises
    ------
    TypeError, ValueError
        As the function would; also if it computes no convolution.
    """
    token = asking.set(True)
    try:
        function(*arguments, **keywords)
    except Answer as answer:
        return answer
    finally:
        asking.reset(token)
    raise TypeError(f"what: {function!r} computes no convolution; a layer says what it would run by layer.explain(shape)")


def conv1d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Array | None = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve signals: `conv2d` with one dimension of space.

    Parameters
    ----------
    x : ndarray, (N, C, L) or (C, L)
        Signals; (N, L, C) or (L, C) with ``data_format="channels_last"``.
    weight : ndarray, (OC, C / groups, K)
        Filters.
    bias, stride, padding, dilation, groups, padding_mode, activation, residual, data_format, algorithm, precision, out
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, OC, OL) or (OC, OL)
        The convolved signals.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.array([[1, 2, 4, 8]], np.float32)
    >>> fc.conv1d(x, np.array([[[-1, 1]]], np.float32))
    array([[1., 2., 4.]], dtype=float32)
    """
    said = (stride, padding, dilation, groups, padding_mode, activation, data_format, algorithm, precision)
    return _computed(CONV, 1, said, x, weight, bias, residual, out)


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Array | None = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve images with filters: cross-correlation, as everywhere in deep learning.

    Parameters
    ----------
    x : ndarray, (N, C, H, W) or (C, H, W)
        Images, float32 or float64, any strides; (N, H, W, C) or (H, W, C) with ``data_format="channels_last"``.
    weight : ndarray, (OC, C / groups, KH, KW)
        Filters, in this order in both data formats.
    bias : ndarray, (OC,) or (OC, OH, OW), optional
        Added to every output of a filter, or one number for each output pixel ((OH, OW, OC) with channels last).
    stride : int or one per dimension
        Pixels from one window to the next.
    padding : int, one entry per dimension, "valid", "same" or "same_lower"
        Border around the image, in pixels; an entry is an int or a ``(before, after)`` pair. "same" gives ceil(size / stride)
        outputs, the odd pixel after (before with "same_lower").
    dilation : int or one per dimension
        Pixels from one tap of a window to the next.
    groups : int
        Channels and filters fall into this many groups that do not mix.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
        What the border shows: np.pad's constant, reflect, edge, wrap and symmetric.
    activation : None, str or tuple
        "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "gelu", ("leaky_relu", slope) or
        ("clip", low, high), applied last.
    residual : ndarray of the result's shape, optional
        Added before the activation.
    data_format : {"channels_first", "channels_last"}
        Order of x's and the result's dimensions.
    algorithm : {"auto", "direct", "tiled", "winograd"}
        Which kernels may be used.
    precision : {"high", "highest"}
        "highest" keeps to kernels that round like the direct loop.
    out : ndarray, optional
        C-contiguous array for the result, of its shape and dtype, that shares no memory with an input.

    Returns
    -------
    ndarray, (N, OC, OH, OW) or (OC, OH, OW)
        The result, in x's dtype: `out`, or a new C-contiguous array that begins on a 64-byte boundary.

    Raises
    ------
    TypeError
        If an array is not an ndarray (masked arrays included), or a scalar is of the wrong type.
    ValueError
        If anything else is not as described; the message names the argument. `out` is then untouched.

    Notes
    -----
    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), draws what the arguments mean. NaN and
    infinity in x propagate as the formula says; Winograd's and Strassen's forms, which precision "highest" does without, may
    spread them to pixels that are computed together. A tap in the zero padding is never multiplied by the direct kernels; the
    others may make NaN of it and an infinite weight.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    >>> laplace = np.array([[[[0, 1, 0], [1, -4, 1], [0, 1, 0]]]], np.float32)
    >>> fc.conv2d(x, laplace, padding=1, padding_mode="replicate")
    array([[[ 4.,  3.,  2.],
            [ 1.,  0., -1.],
            [-2., -3., -4.]]], dtype=float32)
    """
    said = (stride, padding, dilation, groups, padding_mode, activation, data_format, algorithm, precision)
    return _computed(CONV, 2, said, x, weight, bias, residual, out)


def conv3d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Array | None = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve volumes: `conv2d` with three dimensions of space.

    Parameters
    ----------
    x : ndarray, (N, C, D, H, W) or (C, D, H, W)
        Volumes; (N, D, H, W, C) or (D, H, W, C) with ``data_format="channels_last"``.
    weight : ndarray, (OC, C / groups, KD, KH, KW)
        Filters.
    bias, stride, padding, dilation, groups, padding_mode, activation, residual, data_format, algorithm, precision, out
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, OC, OD, OH, OW) or (OC, OD, OH, OW)
        The convolved volumes.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.conv3d(np.ones((1, 3, 3, 3), np.float32), np.ones((1, 1, 3, 3, 3), np.float32)).item()
    27.0
    """
    said = (stride, padding, dilation, groups, padding_mode, activation, data_format, algorithm, precision)
    return _computed(CONV, 3, said, x, weight, bias, residual, out)


def atrous_conv2d(
    x: Array, weight: Array, bias: Array | None = None, rate: Any = 2, padding: Any = 0, stride: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Array | None = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve with holes: `conv2d` with ``dilation=rate``, by TensorFlow's name.

    Parameters
    ----------
    x, weight, bias, padding, stride, groups, padding_mode, activation, residual, data_format, algorithm, precision, out
        As in `conv2d`.
    rate : int or one per dimension
        Pixels from one tap of a window to the next. A 3x3 filter sees 2 * rate + 1 pixels each way, at the same cost.

    Returns
    -------
    ndarray, (N, OC, OH, OW) or (OC, OH, OW)
        The result.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    Chen et al., "DeepLab" (2016).

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.ones((1, 9, 9), np.float32)
    >>> fc.atrous_conv2d(x, np.ones((1, 1, 3, 3), np.float32), rate=4).item()
    9.0
    """
    said = (stride, padding, rate, groups, padding_mode, activation, data_format, algorithm, precision)
    return _computed(ATROUS, 2, said, x, weight, bias, residual, out)


def depthwise_conv1d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Array | None = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve every channel of signals with filters of its own: `depthwise_conv2d` with one dimension of space.

    Parameters
    ----------
    x : ndarray, (N, C, L) or (C, L)
        Signals.
    weight : ndarray, (C * M, 1, K)
        M filters for each channel.
    bias, stride, padding, dilation, padding_mode, activation, residual, data_format, algorithm, precision, out
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, C * M, OL) or (C * M, OL)
        The result.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.array([[1, 2, 3], [10, 20, 30]], np.float32)
    >>> fc.depthwise_conv1d(x, np.array([[[1, 1]], [[-1, 1]]], np.float32))
    array([[ 3.,  5.],
           [10., 10.]], dtype=float32)
    """
    said = (stride, padding, dilation, padding_mode, activation, data_format, algorithm, precision)
    return _computed(DEPTHWISE, 1, said, x, weight, bias, residual, out)


def depthwise_conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Array | None = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve every channel of images with filters of its own; no channels mix.

    Parameters
    ----------
    x : ndarray, (N, C, H, W) or (C, H, W)
        Images.
    weight : ndarray, (C * M, 1, KH, KW)
        M filters for each channel: output channel c * M + m is filter m of channel c.
    bias, stride, padding, dilation, padding_mode, activation, residual, data_format, algorithm, precision, out
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, C * M, OH, OW) or (C * M, OH, OW)
        The result.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    Sifre, "Rigid-motion scattering for image classification" (2014).

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.ones((2, 4, 4), np.float32)
    >>> fc.depthwise_conv2d(x, np.ones((2, 1, 3, 3), np.float32), padding=1)[0]
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]], dtype=float32)
    """
    said = (stride, padding, dilation, padding_mode, activation, data_format, algorithm, precision)
    return _computed(DEPTHWISE, 2, said, x, weight, bias, residual, out)


def depthwise_conv3d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
    padding_mode: str = "zeros", activation: Any = None, residual: Array | None = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve every channel of volumes with filters of its own: `depthwise_conv2d` with three dimensions of space.

    Parameters
    ----------
    x : ndarray, (N, C, D, H, W) or (C, D, H, W)
        Volumes.
    weight : ndarray, (C * M, 1, KD, KH, KW)
        M filters for each channel.
    bias, stride, padding, dilation, padding_mode, activation, residual, data_format, algorithm, precision, out
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, C * M, OD, OH, OW) or (C * M, OD, OH, OW)
        The result.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.ones((2, 2, 2, 2), np.float32)
    >>> fc.depthwise_conv3d(x, np.ones((2, 1, 2, 2, 2), np.float32)).ravel()
    array([8., 8.], dtype=float32)
    """
    said = (stride, padding, dilation, padding_mode, activation, data_format, algorithm, precision)
    return _computed(DEPTHWISE, 3, said, x, weight, bias, residual, out)


def pointwise_conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, *,
    activation: Any = None, residual: Array | None = None, data_format: str = "channels_first", padding_mode: str = "zeros",
    algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Mix the channels of every pixel: a 1x1 convolution.

    Parameters
    ----------
    x : ndarray, (N, C, H, W) or (C, H, W)
        Images.
    weight : ndarray, (OC, C) or (OC, C, 1, 1)
        Filters.
    bias, stride, activation, residual, data_format, padding_mode, algorithm, precision, out
        As in `conv2d`; there is no padding, so its mode has nothing to do.

    Returns
    -------
    ndarray, (N, OC, OH, OW) or (OC, OH, OW)
        The result.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    Lin, Chen and Yan, "Network in network" (2013).

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.ones((192, 28, 28), np.float32)
    >>> fc.pointwise_conv2d(x, np.ones((32, 192), np.float32)).shape
    (32, 28, 28)
    """
    _check_images(x, weight, bias, residual)
    said = (stride, 0, 1, 1, padding_mode, activation, data_format, algorithm, precision)
    return _computed(CONV, 2, said, x, as_pointwise(weight, dtype_of("x", x)), bias, residual, out)


def separable_conv2d(
    x: Array, depthwise_weight: Array, pointwise_weight: Array, depthwise_bias: Array | None = None,
    pointwise_bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
    depthwise_activation: Any = None, activation: Any = None, residual: Array | None = None, padding_mode: str = "zeros",
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve depthwise, then pointwise, in one pass: the depthwise result never goes to main memory.

    Parameters
    ----------
    x : ndarray, (N, C, H, W) or (C, H, W)
        Images.
    depthwise_weight : ndarray, (C * M, 1, KH, KW)
        M filters for each channel.
    pointwise_weight : ndarray, (OC, C * M) or (OC, C * M, 1, 1)
        What mixes the channels.
    depthwise_bias, pointwise_bias : ndarray, optional
        One number for each channel of the part's result, or one for each of its output pixels.
    stride, padding, dilation, padding_mode
        Of the depthwise part, as in `conv2d`.
    depthwise_activation, activation
        Between the parts, and at the end, as in `conv2d`.
    residual, data_format, algorithm, precision, out
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, OC, OH, OW) or (OC, OH, OW)
        The result.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    Howard et al., "MobileNets" (2017). It takes (k*k + OC) / (k*k * OC) of the standard layer's operations.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.ones((3, 8, 8), np.float32)
    >>> y = fc.separable_conv2d(x, np.ones((3, 1, 3, 3), np.float32), np.ones((5, 3), np.float32), padding=1)
    >>> y.shape, y.max().item()
    ((5, 8, 8), 27.0)
    """
    check_arrays(x=x, depthwise_weight=depthwise_weight, pointwise_weight=pointwise_weight)
    check_arrays(optional=True, beside=x, depthwise_bias=depthwise_bias, pointwise_bias=pointwise_bias, residual=residual)
    weights, biases = [depthwise_weight, pointwise_weight], [depthwise_bias, pointwise_bias]

    def problem() -> AnyProblem:
        return of_separable(
            x, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, stride, padding, dilation,
            depthwise_activation=depthwise_activation, activation=activation, residual=residual, data_format=data_format,
            padding_mode=padding_mode, algorithm=algorithm, precision=precision,
        )  # fmt: skip

    def plan() -> Call:
        checked = problem()
        answer_if_asked(checked, x, weights, biases, residual)
        return call_of(checked, x, residual)

    said = (stride, padding, dilation, depthwise_activation, activation, data_format, padding_mode, algorithm, precision)
    if cuda.is_device_array(x):
        return compute_on_device(("separable", repr(said)), problem, x, weights, biases, residual, out)
    looks = [None if array is None else (array.shape, array.dtype) for array in (*weights, *biases, residual)]
    key = ("separable", as_said(said), x.shape, x.strides, x.dtype, x.flags.aligned, *looks, threads.get_num_threads())
    call = remembered(key, plan)
    return run(call, x, weights, biases, residual, out)


def conv_transpose1d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, output_size: Any = None, activation: Any = None, residual: Array | None = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve signals transposed: `conv_transpose2d` with one dimension of space.

    Parameters
    ----------
    x : ndarray, (N, C, L) or (C, L)
        Signals.
    weight : ndarray, (C, OC / groups, K)
        Filters.
    bias, stride, padding, output_padding, groups, dilation, output_size
        As in `conv_transpose2d`.
    activation, residual, data_format, algorithm, precision, out
        As in `conv_transpose2d`.

    Returns
    -------
    ndarray, (N, OC, OL) or (OC, OL)
        The result.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.conv_transpose1d(np.array([[1, 2]], np.float32), np.array([[[1, 10, 100]]], np.float32), stride=2)
    array([[  1.,  10., 102.,  20., 200.]], dtype=float32)
    """
    said = (stride, padding, output_padding, groups, dilation, output_size, activation, data_format, algorithm, precision)
    return _computed(TRANSPOSED, 1, said, x, weight, bias, residual, out)


def conv_transpose2d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, output_size: Any = None, activation: Any = None, residual: Array | None = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve images transposed: every pixel spreads a scaled copy of the kernel over a larger result.

    Parameters
    ----------
    x : ndarray, (N, C, H, W) or (C, H, W)
        Images.
    weight : ndarray, (C, OC / groups, KH, KW)
        Filters, as a convolution from the result to x would have them.
    bias : ndarray, (OC,) or (OC, OH, OW), optional
        As in `conv2d`.
    stride : int or one per dimension
        Pixels of the result from one copy of the kernel to the next.
    padding : int, or one entry per dimension
        Pixels that are cropped from the result on each side; an entry is an int or a ``(before, after)`` pair.
    output_padding : int or one per dimension
        Pixels added at the end of the result, fewer than the larger of stride and dilation.
    groups : int
        Channels and filters fall into this many groups that do not mix.
    dilation : int or one per dimension
        Pixels from one tap of the kernel to the next.
    output_size : int or one per dimension, optional
        The result's space; picks `output_padding`.
    activation, residual, data_format, algorithm, precision, out
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, OC, OH, OW) or (OC, OH, OW)
        The result, (H - 1) * stride - before - after + dilation * (KH - 1) + output_padding + 1 high.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; also if the result would have no pixels, or `output_size` cannot be reached.

    Notes
    -----
    Zeiler et al., "Deconvolutional networks" (2010): the gradient of a convolution with respect to its input.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.conv_transpose2d(np.ones((1, 2, 2), np.float32), np.ones((1, 1, 2, 2), np.float32), stride=2).shape
    (1, 4, 4)
    """
    said = (stride, padding, output_padding, groups, dilation, output_size, activation, data_format, algorithm, precision)
    return _computed(TRANSPOSED, 2, said, x, weight, bias, residual, out)


def conv_transpose3d(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, output_size: Any = None, activation: Any = None, residual: Array | None = None,
    data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high", out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolve volumes transposed: `conv_transpose2d` with three dimensions of space.

    Parameters
    ----------
    x : ndarray, (N, C, D, H, W) or (C, D, H, W)
        Volumes.
    weight : ndarray, (C, OC / groups, KD, KH, KW)
        Filters.
    bias, stride, padding, output_padding, groups, dilation, output_size
        As in `conv_transpose2d`.
    activation, residual, data_format, algorithm, precision, out
        As in `conv_transpose2d`.

    Returns
    -------
    ndarray, (N, OC, OD, OH, OW) or (OC, OD, OH, OW)
        The result.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.conv_transpose3d(np.ones((1, 2, 2, 2), np.float32), np.ones((1, 1, 2, 2, 2), np.float32)).max().item()
    8.0
    """
    said = (stride, padding, output_padding, groups, dilation, output_size, activation, data_format, algorithm, precision)
    return _computed(TRANSPOSED, 3, said, x, weight, bias, residual, out)


# What they share -----------------------------------------------------------------------------------------------------


class Kind:
    """Functions that are checked alike: what makes their problems of arrays, and the names of its arguments beside them."""

    def __init__(self, problem: Callable[..., AnyProblem], *names: str) -> None:
        self._problem, self._names = problem, names

    def problem(self, arrays: Sequence[Any], dimensions: int, said: tuple[Any, ...], residual: Array | None) -> AnyProblem:
        """The checked problem of a call."""
        return self._problem(*arrays, dimensions=dimensions, residual=residual, **dict(zip(self._names, said, strict=True)))


def _of_atrous(x: Any, weight: Any, bias: Any, *, stride: Any, padding: Any, rate: Any, groups: Any, **others: Any) -> AnyProblem:
    """As of_conv; the argument is called rate here, so its errors say rate."""
    try:
        return of_conv(x, weight, bias, stride, padding, rate, groups, **others)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("dilation:", "rate:", 1)) from None


WISHES = ("activation", "data_format", "algorithm", "precision")
CONV = Kind(of_conv, "stride", "padding", "dilation", "groups", "padding_mode", *WISHES)
ATROUS = Kind(_of_atrous, "stride", "padding", "rate", "groups", "padding_mode", *WISHES)
DEPTHWISE = Kind(of_depthwise, "stride", "padding", "dilation", "padding_mode", *WISHES)
TRANSPOSED = Kind(of_transposed, "stride", "padding", "output_padding", "groups", "dilation", "output_size", *WISHES)


class Call(NamedTuple):
    """What is known of all calls with such arguments: it takes 100 us to find out, 2 us to look up."""

    problem: AnyProblem
    choice: Choice
    bound: launch.Bound | None  # None for a batch of 0
    result: packing.Room


MOST_CALLS = 512  # that are remembered: callers may come with ever new shapes
_calls: dict[Any, Call] = {}


def _computed(
    kind: Kind, dimensions: int, said: tuple[Any, ...], x: Array, weight: Array, bias: Array | None, residual: Array | None,
    out: Array | None,
) -> Array:  # fmt: skip
    """Compute a call; its kind checks all that was said, unless such a call was checked before."""
    _check_images(x, weight, bias, residual)
    if type(x) is not np.ndarray and cuda.is_device_array(x):
        ask = partial(kind.problem, (x, weight, bias), dimensions, said, residual)
        return compute_on_device((kind, dimensions, repr(said)), ask, x, [weight], [bias], residual, out)
    key = (
        kind, dimensions, as_said(said),
        x.shape, x.strides, x.dtype, x.flags.aligned, weight.shape, weight.dtype,
        None if bias is None else (bias.shape, bias.dtype), None if residual is None else (residual.shape, residual.dtype),
        threads.get_num_threads(),
    )  # fmt: skip
    call = _calls.get(key)
    if call is None or asking.get():
        problem = kind.problem((x, weight, bias), dimensions, said, residual)
        answer_if_asked(problem, x, [weight], [bias], residual)
        call = remember(key, call_of(problem, x, residual))
    return run(call, x, [weight], [bias], residual, out)


PLAIN = frozenset((int, str, type(None)))


def as_said(said: Any) -> Any:
    """What tells calls apart by what was said: 1, 1.0 and True are equal, but only the first is a stride.

    The text of it would do, and takes 0.6 us; most calls say plain numbers and names, of which no two types are equal, 0.2 us.
    """
    return said if type(said) is tuple and PLAIN.issuperset(map(type, said)) else repr(said)


def remembered(key: Any, plan: Callable[[], Call]) -> Call:
    """What is known of all calls of this key; `plan` finds it out the first time, and whenever somebody asks."""
    call = _calls.get(key)
    return remember(key, plan()) if call is None or asking.get() else call


def remember(key: Any, call: Call) -> Call:
    """Know this of all calls of this key from now on."""
    _calls[key] = call
    if len(_calls) > MOST_CALLS:
        with suppress(RuntimeError):  # another thread came first, and forgets one too
            _calls.pop(next(iter(_calls)), None)
    return call


def compute(
    problem: AnyProblem, x: Array, weights: list[Array], biases: list[Array | None], residual: Array | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Compute a checked problem with weights that are packed for this call alone, where its arrays lie."""
    if type(x) is not np.ndarray and cuda.is_device_array(x):
        return compute_on_device(problem, lambda: problem, x, weights, biases, residual, out)
    answer_if_asked(problem, x, weights, biases, residual)
    return run(call_of(problem, x, residual), x, weights, biases, residual, out)


def compute_on_device(
    asked: Any, ask: Callable[[], AnyProblem], x: Array, weights: list[Array], biases: list[Array | None],
    residual: Array | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """Compute the problem that `ask` gives on a device; `asked` is all that it depends on beside the arrays' looks."""
    if asking.get():
        answer_if_asked(ask(), x, weights, biases, residual)
    check_arrays(optional=True, beside=x, out=out)
    return cuda.kernels().compute(ask, x, weights, biases, residual, out, asked=asked)  # type: ignore[no-any-return]


def call_of(problem: AnyProblem, x: Array, residual: Array | None, fresh: bool = False) -> Call:
    """Plan the calls of a checked problem; see `choose` for `fresh`."""
    choice = choose(problem, IMPLEMENTATIONS, threads.get_num_threads(), launch.neighbours(x, problem), fresh)
    bound = launch.Bound(choice, x, residual is not None) if problem.batch else None
    return Call(problem, choice, bound, packing.Room(result_shape(problem, x), np.dtype(problem.dtype)))


def run(call: Call, x: Array, weights: list[Array], biases: list[Array | None], residual: Array | None, out: Array | None) -> Array:
    """Compute a planned call."""
    if out is None:
        out = call.result()
    elif not fits(call.result, out, *weights, *biases, residual):
        check_out(call.problem, x, out, *weights, *biases, residual)
    if call.bound is not None:
        added = None if residual is None else packing.contiguous(residual)
        packed = launch.pack(call.choice, weights, biases)
        if not call.bound.compute(x, added, out, packed):
            run_apart(call.bound, call.problem, x, added, out, packed)
        for weight, _ in packed:
            packing.recycle(weight)
    return out


def run_apart(
    bound: launch.Bound, problem: AnyProblem, x: Array, residual: Array | None, out: Array, weights: Sequence[launch.Packed] = ()
) -> None:  # fmt: skip
    """Refuse an `out` that shares memory with x, or, if the two only lie among each other, compute elsewhere and copy."""
    check_out(problem, x, out)
    apart = packing.aligned_empty(out.shape, out.dtype)
    bound.compute(x, residual, apart, weights)
    out[...] = apart


def batched(x: Array, problem: AnyProblem) -> Array:
    """X with its batch dimension."""
    return x if x.ndim == len(problem.x_shape) else x[np.newaxis]


def result_shape(problem: AnyProblem, x: Array) -> tuple[int, ...]:
    """Shape of the result, batched or not as x is."""
    return problem.out_shape if x.ndim == len(problem.x_shape) else problem.out_shape[1:]


def fits(result: packing.Room, out: Any, *inputs: Array | None) -> bool:
    """Whether `out` will do, by the quickest look; if not, `check_out` has the last word. x and `out` the launch looks at."""
    if not (type(out) is np.ndarray and out.shape == result.shape and out.dtype is result.dtype and out.flags.carray):
        return False
    for array in inputs:
        if array is not None and np.may_share_memory(out, array):
            return False
    return True


def check_out(problem: AnyProblem, x: Array, out: Array, *inputs: Array | None) -> None:
    """Refuse an `out` that the result does not fit, or that shares memory with an input."""
    check_arrays(beside=x, out=out)
    if out.shape != result_shape(problem, x) or out.dtype != problem.dtype:
        check_result("out", out, problem, x.ndim)
    flags = out.flags
    if not (flags.c_contiguous and flags.writeable and flags.aligned and out.dtype.isnative):
        raise ValueError("out: expected a writable, aligned, C-contiguous array of native numbers")
    for array in (x, *inputs):
        if array is not None and _overlap(out, array):
            raise ValueError("out: shares memory with an input")


def _overlap(a: Array, b: Array) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _check_images(x: Array, weight: Array, bias: Array | None, residual: Array | None) -> None:
    if not (type(x) is type(weight) is np.ndarray and residual is None and (bias is None or type(bias) is np.ndarray)):
        check_arrays(x=x, weight=weight)
        check_arrays(optional=True, beside=x, bias=bias, residual=residual)


def check_arrays(optional: bool = False, beside: Any = None, **named: Any) -> None:
    """Refuse what is no array of NumPy or a device, or does not lie where `beside` does, or else the first of them."""
    for name, array in named.items():
        if optional and array is None:
            continue
        beside = array if beside is None else beside
        if type(array) is type(beside) is np.ndarray:
            continue
        on_a_device = cuda.is_device_array(array)
        if not on_a_device and (not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray)):
            raise TypeError(f"{name}: got {type(array).__name__}, expected a NumPy array")
        if on_a_device != cuda.is_device_array(beside):
            got, expected = ("a device array", "a NumPy array") if on_a_device else ("a NumPy array", "a device array")
            raise TypeError(f"{name}: got {got}, expected {expected} as the others are: bring all arrays to one place")
