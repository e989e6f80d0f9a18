"""Gradients of the convolutions, by torch.nn.grad's names and argument order.

The gradient with respect to the input is a convolution of the other sort (ordinary and transposed are each other's adjoint),
so it runs on their kernels; that of the weights has a kernel of its own, which serves both sorts with image and gradient
exchanged; that of the bias is a sum. Of a batch of 0, weights and bias have gradients of zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import cuda, functional
from fastconv.cpu import launch, packing, threads
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import choose
from fastconv.problem import Problem, Shaped, check_result, dtype_of, of_conv, of_transposed, one_of, shape_of

Array = np.ndarray[Any, Any]

__all__ = [
    f"conv{transpose}{dimensions}d_{what}"
    for transpose in ("", "_transpose") for dimensions in (1, 2, 3) for what in ("input", "weight", "bias")
]  # fmt: skip


def conv1d_input(
    input_size: Any, weight: Array, grad_output: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv1d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, batched or not as grad_output is.
    weight : ndarray, (OC, C / groups, K)
        Filters.
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, dilation, groups, data_format
        As the convolution had them.

    Returns
    -------
    ndarray of shape `input_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv1d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv1d_input((2, 5), np.ones((4, 2, 3), np.float32), np.ones((4, 3), np.float32)).max().item()
    12.0
    """
    return _conv_input(1, input_size, weight, grad_output, stride, padding, dilation, groups, data_format)


def conv1d_weight(
    x: Array, weight_size: Any, grad_output: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv1d` with respect to its weights.

    Parameters
    ----------
    x : ndarray, (N, C, L) or (C, L)
        The input.
    weight_size : tuple of int
        (OC, C / groups, K).
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, dilation, groups, data_format
        As the convolution had them.

    Returns
    -------
    ndarray of shape `weight_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv1d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv1d_weight(np.ones((2, 5), np.float32), (4, 2, 3), np.ones((4, 3), np.float32)).max().item()
    3.0
    """
    return _conv_weight(1, x, weight_size, grad_output, stride, padding, dilation, groups, data_format)


def conv1d_bias(grad_output: Array, *, data_format: str = "channels_first") -> Array:
    """The gradient of `conv1d` with respect to a bias of one number a filter.

    Parameters
    ----------
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    data_format : {"channels_first", "channels_last"}
        Order of its dimensions.

    Returns
    -------
    ndarray, (OC,)
        The gradient: its sum over signals and their space.

    Raises
    ------
    TypeError, ValueError
        If grad_output is not a float32 or float64 array of 2 or 3 dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv1d_bias(np.ones((2, 3), np.float32))
    array([3., 3.], dtype=float32)
    """
    return bias_gradient(1, grad_output, data_format)


def conv2d_input(
    input_size: Any, weight: Array, grad_output: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv2d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, batched or not as grad_output is.
    weight : ndarray, (OC, C / groups, KH, KW)
        Filters.
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, dilation, groups, data_format
        As the convolution had them.

    Returns
    -------
    ndarray of shape `input_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv2d_input((2, 5, 5), np.ones((4, 2, 3, 3), np.float32), np.ones((4, 3, 3), np.float32)).max().item()
    36.0
    """
    return _conv_input(2, input_size, weight, grad_output, stride, padding, dilation, groups, data_format)


def conv2d_weight(
    x: Array, weight_size: Any, grad_output: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv2d` with respect to its weights.

    Parameters
    ----------
    x : ndarray, (N, C, H, W) or (C, H, W)
        The input.
    weight_size : tuple of int
        (OC, C / groups, KH, KW).
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, dilation, groups, data_format
        As the convolution had them.

    Returns
    -------
    ndarray of shape `weight_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv2d_weight(np.ones((2, 5, 5), np.float32), (4, 2, 3, 3), np.ones((4, 3, 3), np.float32)).max().item()
    9.0
    """
    return _conv_weight(2, x, weight_size, grad_output, stride, padding, dilation, groups, data_format)


def conv2d_bias(grad_output: Array, *, data_format: str = "channels_first") -> Array:
    """The gradient of `conv2d` with respect to a bias of one number a filter.

    Parameters
    ----------
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    data_format : {"channels_first", "channels_last"}
        Order of its dimensions.

    Returns
    -------
    ndarray, (OC,)
        The gradient: its sum over images and their space.

    Raises
    ------
    TypeError, ValueError
        If grad_output is not a float32 or float64 array of 3 or 4 dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv2d_bias(np.ones((2, 3, 3), np.float32))
    array([9., 9.], dtype=float32)
    """
    return bias_gradient(2, grad_output, data_format)


def conv3d_input(
    input_size: Any, weight: Array, grad_output: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv3d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, batched or not as grad_output is.
    weight : ndarray, (OC, C / groups, KD, KH, KW)
        Filters.
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, dilation, groups, data_format
        As the convolution had them.

    Returns
    -------
    ndarray of shape `input_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv3d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv3d_input((2, 5, 5, 5), np.ones((4, 2, 3, 3, 3), np.float32), np.ones((4, 3, 3, 3), np.float32)).max().item()
    108.0
    """
    return _conv_input(3, input_size, weight, grad_output, stride, padding, dilation, groups, data_format)


def conv3d_weight(
    x: Array, weight_size: Any, grad_output: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv3d` with respect to its weights.

    Parameters
    ----------
    x : ndarray, (N, C, D, H, W) or (C, D, H, W)
        The input.
    weight_size : tuple of int
        (OC, C / groups, KD, KH, KW).
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, dilation, groups, data_format
        As the convolution had them.

    Returns
    -------
    ndarray of shape `weight_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv3d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv3d_weight(np.ones((2, 5, 5, 5), np.float32), (4, 2, 3, 3, 3), np.ones((4, 3, 3, 3), np.float32)).max().item()
    27.0
    """
    return _conv_weight(3, x, weight_size, grad_output, stride, padding, dilation, groups, data_format)


def conv3d_bias(grad_output: Array, *, data_format: str = "channels_first") -> Array:
    """The gradient of `conv3d` with respect to a bias of one number a filter.

    Parameters
    ----------
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    data_format : {"channels_first", "channels_last"}
        Order of its dimensions.

    Returns
    -------
    ndarray, (OC,)
        The gradient: its sum over volumes and their space.

    Raises
    ------
    TypeError, ValueError
        If grad_output is not a float32 or float64 array of 4 or 5 dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv3d_bias(np.ones((2, 3, 3, 3), np.float32))
    array([27., 27.], dtype=float32)
    """
    return bias_gradient(3, grad_output, data_format)


def conv_transpose1d_input(
    input_size: Any, weight: Array, grad_output: Array, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose1d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, batched or not as grad_output is.
    weight : ndarray, (C, OC / groups, K)
        Filters.
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, output_padding, groups, dilation, data_format
        As the transposed convolution had them.

    Returns
    -------
    ndarray of shape `input_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose1d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv_transpose1d_input((1, 2), np.ones((1, 1, 2), np.float32), np.ones((1, 3), np.float32)).max().item()
    2.0
    """
    return _transposed_input(1, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, data_format)


def conv_transpose1d_weight(
    x: Array, weight_size: Any, grad_output: Array, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose1d` with respect to its weights.

    Parameters
    ----------
    x : ndarray, (N, C, L) or (C, L)
        The input.
    weight_size : tuple of int
        (C, OC / groups, K).
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, output_padding, groups, dilation, data_format
        As the transposed convolution had them.

    Returns
    -------
    ndarray of shape `weight_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose1d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv_transpose1d_weight(np.ones((1, 2), np.float32), (1, 1, 2), np.ones((1, 3), np.float32)).max().item()
    2.0
    """
    return _transposed_weight(1, x, weight_size, grad_output, stride, padding, output_padding, groups, dilation, data_format)


def conv_transpose1d_bias(grad_output: Array, *, data_format: str = "channels_first") -> Array:
    """The gradient of `conv_transpose1d` with respect to a bias of one number a filter: as `conv1d_bias`.

    Parameters
    ----------
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    data_format : {"channels_first", "channels_last"}
        Order of its dimensions.

    Returns
    -------
    ndarray, (OC,)
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv1d_bias`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv_transpose1d_bias(np.ones((2, 2), np.float32))
    array([2., 2.], dtype=float32)
    """
    return bias_gradient(1, grad_output, data_format)


def conv_transpose2d_input(
    input_size: Any, weight: Array, grad_output: Array, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose2d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, batched or not as grad_output is.
    weight : ndarray, (C, OC / groups, KH, KW)
        Filters.
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, output_padding, groups, dilation, data_format
        As the transposed convolution had them.

    Returns
    -------
    ndarray of shape `input_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv_transpose2d_input((1, 2, 2), np.ones((1, 1, 2, 2), np.float32), np.ones((1, 3, 3), np.float32)).max().item()
    4.0
    """
    return _transposed_input(2, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, data_format)


def conv_transpose2d_weight(
    x: Array, weight_size: Any, grad_output: Array, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose2d` with respect to its weights.

    Parameters
    ----------
    x : ndarray, (N, C, H, W) or (C, H, W)
        The input.
    weight_size : tuple of int
        (C, OC / groups, KH, KW).
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, output_padding, groups, dilation, data_format
        As the transposed convolution had them.

    Returns
    -------
    ndarray of shape `weight_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv_transpose2d_weight(np.ones((1, 2, 2), np.float32), (1, 1, 2, 2), np.ones((1, 3, 3), np.float32)).max().item()
    4.0
    """
    return _transposed_weight(2, x, weight_size, grad_output, stride, padding, output_padding, groups, dilation, data_format)


def conv_transpose2d_bias(grad_output: Array, *, data_format: str = "channels_first") -> Array:
    """The gradient of `conv_transpose2d` with respect to a bias of one number a filter: as `conv2d_bias`.

    Parameters
    ----------
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    data_format : {"channels_first", "channels_last"}
        Order of its dimensions.

    Returns
    -------
    ndarray, (OC,)
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv_transpose2d_bias(np.ones((2, 2, 2), np.float32))
    array([4., 4.], dtype=float32)
    """
    return bias_gradient(2, grad_output, data_format)


def conv_transpose3d_input(
    input_size: Any, weight: Array, grad_output: Array, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose3d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input, batched or not as grad_output is.
    weight : ndarray, (C, OC / groups, KD, KH, KW)
        Filters.
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, output_padding, groups, dilation, data_format
        As the transposed convolution had them.

    Returns
    -------
    ndarray of shape `input_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose3d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> weight, above = np.ones((1, 1, 2, 2, 2), np.float32), np.ones((1, 3, 3, 3), np.float32)
    >>> fc.grad.conv_transpose3d_input((1, 2, 2, 2), weight, above).max().item()
    8.0
    """
    return _transposed_input(3, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, data_format)


def conv_transpose3d_weight(
    x: Array, weight_size: Any, grad_output: Array, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1, *, data_format: str = "channels_first",
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose3d` with respect to its weights.

    Parameters
    ----------
    x : ndarray, (N, C, D, H, W) or (C, D, H, W)
        The input.
    weight_size : tuple of int
        (C, OC / groups, KD, KH, KW).
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    stride, padding, output_padding, groups, dilation, data_format
        As the transposed convolution had them.

    Returns
    -------
    ndarray of shape `weight_size`
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose3d`; also if grad_output is not of the result's shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x, above = np.ones((1, 2, 2, 2), np.float32), np.ones((1, 3, 3, 3), np.float32)
    >>> fc.grad.conv_transpose3d_weight(x, (1, 1, 2, 2, 2), above).max().item()
    8.0
    """
    return _transposed_weight(3, x, weight_size, grad_output, stride, padding, output_padding, groups, dilation, data_format)


def conv_transpose3d_bias(grad_output: Array, *, data_format: str = "channels_first") -> Array:
    """The gradient of `conv_transpose3d` with respect to a bias of one number a filter: as `conv3d_bias`.

    Parameters
    ----------
    grad_output : ndarray, of the result's shape
        Gradient with respect to the result.
    data_format : {"channels_first", "channels_last"}
        Order of its dimensions.

    Returns
    -------
    ndarray, (OC,)
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `conv3d_bias`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.grad.conv_transpose3d_bias(np.ones((2, 2, 2, 2), np.float32))
    array([8., 8.], dtype=float32)
    """
    return bias_gradient(3, grad_output, data_format)


# What they share -----------------------------------------------------------------------------------------------------


def _conv_input(
    dimensions: int, input_size: Any, weight: Array, grad_output: Array, stride: Any, padding: Any, dilation: Any, groups: Any,
    data_format: str,
) -> Array:  # fmt: skip
    def problem(x: Shaped) -> Problem:
        arguments = (x, weight, None, stride, padding, dilation, groups)
        return of_conv(*arguments, dimensions=dimensions, data_format=data_format, first="input_size")

    said = ("conv", dimensions, stride, padding, dilation, groups, data_format)
    return _input(said, problem, input_size, weight, grad_output)


def _transposed_input(
    dimensions: int, input_size: Any, weight: Array, grad_output: Array, stride: Any, padding: Any, output_padding: Any,
    groups: Any, dilation: Any, data_format: str,
) -> Array:  # fmt: skip
    def problem(x: Shaped) -> Problem:
        arguments = (x, weight, None, stride, padding, output_padding, groups, dilation)
        return of_transposed(*arguments, dimensions=dimensions, data_format=data_format, first="input_size")

    said = ("transposed", dimensions, stride, padding, output_padding, groups, dilation, data_format)
    return _input(said, problem, input_size, weight, grad_output)


def _input(said: Any, problem: Callable[[Shaped], Problem], input_size: Any, weight: Array, grad_output: Array) -> Array:
    """The gradient with respect to an input that is known by its size."""
    functional.check_arrays(weight=weight, grad_output=grad_output)

    def adjoint() -> Problem:
        x = Shaped(shape_of("input_size", input_size), dtype_of("weight", weight))
        forward = problem(x)
        check_result("grad_output", grad_output, forward, x.ndim, beside="weight")
        return forward.adjoint()

    return _run_adjoint((functional.as_said(input_size), functional.as_said(said)), adjoint, weight, grad_output)


def _run_adjoint(said: Any, adjoint: Callable[[], Problem], weight: Array, grad_output: Array) -> Array:
    """Compute a problem whose image is the gradient; `said` tells it from others of such arrays."""
    if cuda.is_device_array(grad_output):
        return functional.compute_on_device(("input", said), adjoint, grad_output, [weight], [None])

    def plan() -> functional.Call:
        problem = adjoint()
        functional.answer_if_asked(problem, grad_output, [weight], [None], fresh=True)
        return functional.call_of(problem, grad_output, None, fresh=True)

    call = functional.remembered(("input", said, weight.shape, weight.dtype, *_look(grad_output)), plan)
    return functional.run(call, grad_output, [weight], [None], None, None)


def _conv_weight(
    dimensions: int, x: Array, weight_size: Any, grad_output: Array, stride: Any, padding: Any, dilation: Any, groups: Any,
    data_format: str,
) -> Array:  # fmt: skip
    def problem(weight: Shaped) -> Problem:
        arguments = (x, weight, None, stride, padding, dilation, groups)
        return of_conv(*arguments, dimensions=dimensions, data_format=data_format, names=("weight_size", "bias", "activation"))

    said = ("conv", dimensions, stride, padding, dilation, groups, data_format)
    return _weight(said, problem, x, weight_size, grad_output)


def _transposed_weight(
    dimensions: int, x: Array, weight_size: Any, grad_output: Array, stride: Any, padding: Any, output_padding: Any, groups: Any,
    dilation: Any, data_format: str,
) -> Array:  # fmt: skip
    def problem(weight: Shaped) -> Problem:
        arguments = (x, weight, None, stride, padding, output_padding, groups, dilation)
        return of_transposed(*arguments, dimensions=dimensions, data_format=data_format, name="weight_size")

    said = ("transposed", dimensions, stride, padding, output_padding, groups, dilation, data_format)
    return _weight(said, problem, x, weight_size, grad_output)


def _weight(said: Any, problem: Callable[[Shaped], Problem], x: Array, weight_size: Any, grad_output: Array) -> Array:
    """The gradient with respect to a weight that is known by its size."""
    functional.check_arrays(x=x, grad_output=grad_output)

    def forward() -> Problem:
        checked = problem(Shaped(shape_of("weight_size", weight_size), dtype_of("x", x)))
        check_result("grad_output", grad_output, checked, x.ndim)
        return checked

    asked, exchanged = (functional.as_said(weight_size), functional.as_said(said)), said[0] == "transposed"
    if cuda.is_device_array(x):
        return _weight_gradient_on_device(asked, forward, x, grad_output, exchanged)
    key = ("weight", asked, *_look(x), *_look(grad_output))
    call = functional.remembered(key, lambda: _weight_call(forward(), x, grad_output))
    return _weight_gradient(call, x, grad_output, exchanged)


def weight_gradient(problem: Problem, x: Array, grad_output: Array) -> Array:
    """The gradient of a checked problem with respect to its weights."""
    exchanged = problem.operation == "transposed"
    if cuda.is_device_array(x):
        return _weight_gradient_on_device(problem, lambda: problem, x, grad_output, exchanged)
    call = functional.remembered(("weight", problem, *_look(x), *_look(grad_output)), lambda: _weight_call(problem, x, grad_output))
    return _weight_gradient(call, x, grad_output, exchanged)


def _weight_gradient_on_device(said: Any, forward: Callable[[], Problem], x: Array, grad_output: Array, exchanged: bool) -> Array:
    def task() -> Problem:
        return _weight_task(forward(), x, grad_output)[0]

    image, grad = (grad_output, x) if exchanged else (x, grad_output)
    if functional.asking.get():
        functional.answer_if_asked(task(), image, [grad], [None])
    return cuda.kernels().weight_gradient(task, image, grad, asked=("weight", said))  # type: ignore[no-any-return]


def input_gradient(problem: Problem, weight: Array, grad_output: Array) -> Array:
    """The gradient of a checked problem with respect to its input."""
    return _run_adjoint(problem, problem.adjoint, weight, grad_output)


def _look(array: Array) -> tuple[Any, ...]:
    """All that a plan depends on."""
    return array.shape, array.strides, array.dtype, array.flags.aligned, threads.get_num_threads()


def _weight_task(problem: Problem, x: Array, grad_output: Array) -> tuple[Problem, Array, Array]:
    """The problem of the weights, its image and its gradient."""
    if problem.operation == "transposed":  # its adjoint's weights are its own, with image and gradient exchanged
        problem, x, grad_output = problem.adjoint(), grad_output, x
    return problem.weights(), x, grad_output


def _weight_call(problem: Problem, x: Array, grad_output: Array) -> functional.Call:
    task, image, grad = _weight_task(problem, x, grad_output)
    functional.answer_if_asked(task, image, [grad], [None])
    return planned_weight_gradient(task, *(functional.batched(a, task) for a in (image, grad)))


def planned_weight_gradient(task: Problem, image: Array, grad: Array) -> functional.Call:
    """What computes a problem of operation "weights" from batched arrays that lie as these do."""
    choice = choose(task, IMPLEMENTATIONS, threads.get_num_threads(), launch.neighbours(image, task))
    bound = launch.BoundWeightGradient(choice, image, grad) if task.batch else None
    return functional.Call(task, choice, bound, packing.Room(task.weight_shape, np.dtype(task.dtype)))


def _weight_gradient(call: functional.Call, x: Array, grad_output: Array, exchanged: bool) -> Array:
    out = call.result()
    if call.bound is None:
        out[...] = 0
    else:
        assert isinstance(call.bound, launch.BoundWeightGradient)
        call.bound.gradient(*((grad_output, x) if exchanged else (x, grad_output)), out)
    return out


def bias_gradient(dimensions: int, grad_output: Array, data_format: str) -> Array:
    """The gradient with respect to a bias of one number a filter."""
    batched = checked_of_bias(dimensions, grad_output, data_format)
    if cuda.is_device_array(batched):
        return cuda.kernels().bias_gradient(batched, dimensions, data_format)  # type: ignore[no-any-return]
    grad = packing.readable(batched)
    planned = launch.bias_gradient(grad, data_format)
    out = packing.aligned_empty((planned.ready.items,), grad.dtype)
    planned(None, grad, out)
    return out


def checked_of_bias(dimensions: int, grad_output: Array, data_format: str) -> Array:
    """The argument of a bias gradient with its batch dimension; on a device as it is."""
    functional.check_arrays(grad_output=grad_output)
    one_of("data_format", data_format, ("channels_first", "channels_last"))
    dtype_of("grad_output", grad_output)
    if grad_output.ndim not in (dimensions + 1, dimensions + 2):
        raise ValueError(f"grad_output: got {grad_output.ndim} dimensions, expected {dimensions + 2}, or one less without batch")
    if cuda.is_device_array(grad_output) or grad_output.ndim == dimensions + 2:
        return grad_output
    return grad_output[np.newaxis]
