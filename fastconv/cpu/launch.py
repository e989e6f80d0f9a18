"""From arrays to work items: fill a kernel's job, hold its arrays and scratch, hand the items to the threads.

The only file between the plan and the kernels. It expects what the API has checked: batched arrays of the problem's shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastconv.cpu import gradients, job, packing, threads
from fastconv.cpu.compiled import address
from fastconv.plan import AnyProblem, Division, Implementation
from fastconv.problem import Problem, SeparableProblem

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Weights:
    """A layer's arrays in the order in which one implementation reads them; the second ones are a separable layer's."""

    weight: Array
    bias: Array | None = None
    outer_weight: Array | None = None
    outer_bias: Array | None = None


def pack(implementation: Implementation, problem: AnyProblem, weights: list[Array], biases: list[Array | None]) -> Weights:
    """The weights and biases of a problem for one implementation."""
    groups = [problem.depthwise.groups, 1] if isinstance(problem, SeparableProblem) else [problem.groups]
    packed = [order(w, g) for order, w, g in zip(implementation.pack, weights, groups, strict=True)]
    copied = [None if b is None else packing.aligned_copy(b) for b in biases]
    return Weights(packed[0], copied[0], *packed[1:], *copied[1:])


def run(
    implementation: Implementation, division: Division, problem: AnyProblem, x: Array, weights: Weights, residual: Array | None,
    out: Array,
) -> None:  # fmt: skip
    """Compute a forward problem into `out`; `residual` is contiguous."""
    if problem.batch == 0:
        return
    first = problem.depthwise if isinstance(problem, SeparableProblem) else problem
    pads = first.pads
    if first.padding_mode != "zeros" and any(map(any, pads)):
        x = packing.bordered(x, pads, first.padding_mode, first.data_format)
        pads = ((0, 0),) * first.dimensions
    x = packing.readable(x)
    if problem.kind == "pointwise" and all(s == 1 for s in problem.stride) and x.flags.c_contiguous:
        first, x = _as_one_row(first, x)
        division, pads = implementation.divide(first), first.pads
    last = problem.pointwise if isinstance(problem, SeparableProblem) else problem
    outer_bias = weights.outer_bias if isinstance(problem, SeparableProblem) else weights.bias
    values = _geometry(first, x, pads) | {
        "weight": _at(weights.weight), "out": _at(out), "residual": _at(residual), "has_residual": residual is not None,
        "bias": _at(outer_bias), "bias_kind": job.BIAS[last.bias],
        "activation": last.activation.code, "low": last.activation.low, "high": last.activation.high,
    }  # fmt: skip
    if isinstance(problem, SeparableProblem):
        values |= {
            "outer_weight": _at(weights.outer_weight), "outer_filters": problem.filters,
            "inner_bias": _at(weights.bias), "inner_bias_kind": job.BIAS[first.bias],
            "inner_activation": first.activation.code, "inner_low": first.activation.low, "inner_high": first.activation.high,
        }  # fmt: skip
    _start(implementation.kernel, values, division, problem)


def weight_gradient(
    implementation: Implementation, division: Division, problem: Problem, x: Array, grad: Array, out: Array
) -> None:
    """Compute a convolution's gradient with respect to its weights into `out`."""
    if problem.batch == 0:
        out[...] = 0
        return
    x, grad = packing.readable(x), packing.readable(grad)
    image, channel, steps = _steps(grad, problem.data_format)
    values = _geometry(problem, x, problem.pads) | {
        "grad": _at(grad), "grad_image": image, "grad_channel": channel, "grad_steps": steps, "out": _at(out),
    }  # fmt: skip
    _start(implementation.kernel, values, division, problem)


def bias_gradient(grad: Array, data_format: str, out: Array) -> None:
    """Sum a gradient over images and pixels into `out`, one number a filter."""
    grad = packing.readable(grad)
    image, channel, steps = _steps(grad, data_format)
    space = grad.shape[1:-1] if data_format == "channels_last" else grad.shape[2:]
    values = {
        "batch": grad.shape[0], "out_space": _three(space, 1), "out": _at(out),
        "grad": _at(grad), "grad_image": image, "grad_channel": channel, "grad_steps": steps,
    }  # fmt: skip
    words = job.fill(values)
    kernel = address(gradients.direct_bias_gradient, *job.ARGUMENTS[out.dtype.name])
    threads.run(kernel, _at(words), out.size, float(grad.size))


def _start(kernel: Any, values: dict[str, Any], division: Division, problem: AnyProblem) -> None:
    seats, size = threads.seats(), _rounded(division.scratch)
    scratch = packing.aligned_empty((seats * size,), problem.dtype) if size else None
    values |= {"bands": division.bands, "band": division.band, "scratch": _at(scratch), "scratch_size": size}
    words = job.fill(values)
    code = address(kernel, *job.ARGUMENTS[problem.dtype])
    threads.run(code, _at(words), division.items, float(problem.operations), seats)


def _as_one_row(problem: Problem, x: Array) -> tuple[Problem, Array]:
    """A pointwise problem whose pixels are all neighbours: nothing knows where a line ends, and long rows are fast ones."""
    pixels = math.prod(problem.space)
    flat = replace(problem, space=(pixels,), kernel=(1,), stride=(1,), pads=((0, 0),), dilation=(1,))
    return flat, x.reshape(flat.x_shape)


def _rounded(numbers: int) -> int:
    """Up to whole cache lines, so that seats do not share one."""
    return -(-numbers // packing.ALIGNMENT) * packing.ALIGNMENT


def _geometry(problem: Problem, x: Array, pads: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    image, channel, steps = _steps(x, problem.data_format)
    space = x.shape[1:-1] if problem.data_format == "channels_last" else x.shape[2:]
    return {
        "x": _at(x), "x_image": image, "x_channel": channel, "x_steps": steps,
        "batch": problem.batch, "groups": problem.groups,
        "channels": problem.channels // problem.groups, "filters": problem.filters // problem.groups,
        "space": _three(space, 1), "out_space": _three(problem.out_space, 1), "kernel": _three(problem.kernel, 1),
        "stride": _three(problem.stride, 1), "dilation": _three(problem.dilation, 1),
        "before": _three([before for before, _ in pads], 0),
    }  # fmt: skip


def _steps(array: Array, data_format: str) -> tuple[int, int, list[int]]:
    """Distances in numbers between images, channels, and (planes, lines, columns)."""
    image, *rest = (step // array.itemsize for step in array.strides)
    channel = rest.pop(-1 if data_format == "channels_last" else 0)
    return image, channel, _three(rest, 0)


def _three(sizes: Any, default: int) -> list[int]:
    """Depth, height, width, from fewer of them."""
    return [default] * (3 - len(sizes)) + list(sizes)


def _at(array: Array | None) -> int:
    return 0 if array is None else int(array.__array_interface__["data"][0])  # array.ctypes.data takes 1 us
