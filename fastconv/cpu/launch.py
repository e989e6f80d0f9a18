"""From arrays to work items: fill a kernel's job, hold its arrays and scratch, hand the items to the threads.

The only file between the plan and the kernels. It expects what the API has checked: batched arrays of the problem's shapes.
All that does not change from call to call is worked out once, in a `Bound`; a call then costs a few addresses.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.cpu import gradients, job, packing, rows, threads
from fastconv.cpu.atomics import call
from fastconv.cpu.compiled import address, compiled
from fastconv.cpu.simd import NUMBA_FLOATS, PointerType
from fastconv.plan import AnyProblem, Choice, Division, Implementation
from fastconv.problem import Problem, SeparableProblem

Array = np.ndarray[Any, Any]
X, OUT, RESIDUAL, SCRATCH = (job.PLACES[name] for name in ("x", "out", "residual", "scratch"))
WEIGHT = [job.PLACES[name] for name in ("weight", "bias")]
BOTH_WEIGHTS = [job.PLACES[name] for name in ("weight", "inner_bias", "outer_weight", "bias")]  # of a separable layer
OPERATIONS_A_BYTE = 3  # that a core could do while it moves one, 150 a nanosecond and 50 bytes: a depthwise layer moves many
KEPT_SCRATCH = 64 * 1024**2  # bytes that a Python thread keeps for its next call: fresh memory costs 60 us a megabyte


def pack(choice: Choice, weights: list[Array], biases: list[Array | None]) -> list[Array | None]:
    """The weights and biases of a problem in the order in which one implementation reads them: weight, bias, and again."""
    if choice.mirrored:
        weights = [packing.mirrored(weights[0], choice.problem.groups)]
    packed = choice.implementation.pack(choice.problem, choice.division.unit, weights, biases)
    in_turn: list[Array | None] = []
    for weight, bias in zip(packed, biases, strict=True):
        in_turn += (weight, None if bias is None else packing.contiguous(bias))
    return in_turn


class Bound:
    """A kernel with everything but the arrays of one call: machine code, job, items, scratch.

    Good for every x that lies in memory as the first one did, of which only the shape and the strides are looked at.
    """

    def __init__(self, choice: Choice, x: Array, has_residual: bool) -> None:
        self._problem, self._implementation, division, _ = choice
        problem, first = self._problem, _first(self._problem)
        image = self._prepared(x)
        self._as_it_lies = _at(image) == _at(x)
        self._table = np.array(division.fields.get("table", ()), np.int64)
        values = _geometry(first, image) | dict(division.fields) | _epilogue(problem, has_residual)
        values |= {
            "bands": division.bands, "band": division.band, "chunks": division.chunks, "chunk": division.chunk,
            "scratch_size": _rounded(division.scratch), "table": _at(self._table), "last": problem.data_format == "channels_last",
        }  # fmt: skip
        if division.tile is not None:
            values |= shared_code(problem, division, values)
        self._words, self._items, self._weights = job.fill(values), division.items, list[Array | None]()
        kinds = job.arguments(problem.dtype, division.tile, self._implementation.scheme, division.window)
        self._code = address(self._implementation.kernel, *kinds)
        self._work = float(max(problem.operations, OPERATIONS_A_BYTE * problem.bytes))
        self._scratch = _rounded(division.scratch) * x.itemsize
        self._alone = division.items < 2 or self._work < threads.WORTH_SHARING

    def with_weights(self, weights: list[Array | None]) -> Bound:
        """The same with weights and biases, from `pack`, for many calls."""
        bound = copy.copy(self)
        bound._words, bound._weights = self._words.copy(), weights
        _set_weights(bound._words, weights)
        return bound

    def __call__(self, x: Array, residual: Array | None, out: Array, weights: Sequence[Array | None] = ()) -> None:
        """Compute the problem into `out`; `residual` is contiguous, `weights` are of this call alone."""
        image = x if self._as_it_lies and x.flags.aligned else self._prepared(x)  # a name of its own: it must outlive the call
        words = self._words.copy()
        if weights:
            _set_weights(words, weights)
        if residual is not None:
            words[RESIDUAL] = _at(residual)
        if self._alone:
            scratch = _scratch(self._scratch)
            run_alone(words, image, out, scratch[1], self._code, self._items)
        else:
            seats = threads.seats()
            scratch = _scratch(seats * self._scratch)
            task = set_arrays(words, image, out, scratch[1])
            threads.run(self._code, task, self._items, self._work, seats)

    def _prepared(self, x: Array) -> Array:
        """The input as the kernel can read it: itself, if it can."""
        problem = _first(self._problem)
        x = x.reshape(problem.x_shape)
        if problem.padding_mode != "zeros" and any(map(any, problem.pads)):
            x = packing.bordered(x, problem.pads, problem.padding_mode, problem.data_format)
        if neighbours(x, problem) not in self._implementation.reads:
            x = packing.aligned_copy(x)
        return packing.readable(x)


def _set_weights(words: Array, weights: Sequence[Array | None]) -> None:
    for place, array in zip(WEIGHT if len(weights) == 2 else BOTH_WEIGHTS, weights, strict=False):
        if array is not None:
            words[place] = packing.address_of(array)


@compiled
def set_arrays(words, x, out, scratch):
    """Complete a job's words, and say where they lie: 0.3 us, where asking an array in Python for its address takes 1 us."""
    words[X], words[OUT], words[SCRATCH] = x.ctypes.data, out.ctypes.data, scratch
    return words.ctypes.data


@compiled
def run_alone(words, x, out, scratch, code, items):
    """Complete a job's words, and run its items in this thread."""
    task = set_arrays(words, x, out, scratch)
    for item in range(items):
        call(code, item, 0, task)


def _first(problem: AnyProblem) -> Problem:
    """The part of a problem that reads the image."""
    return problem.depthwise if isinstance(problem, SeparableProblem) else problem


def neighbours(x: Array, problem: AnyProblem) -> str:
    """What lies side by side in an image's memory: "columns", "channels", or "any" if neither does."""
    last = problem.data_format == "channels_last"
    columns, channels = (x.strides[-2], x.strides[-1]) if last else (x.strides[-1], x.strides[-1 - len(problem.out_space)])
    return "columns" if columns == x.itemsize else "channels" if channels == x.itemsize else "any"


def weight_gradient(
    implementation: Implementation, division: Division, problem: Problem, x: Array, grad: Array, out: Array
) -> None:
    """Compute a convolution's gradient with respect to its weights into `out`."""
    if problem.batch == 0:
        out[...] = 0
        return
    x, grad = packing.readable(x), packing.readable(grad)
    image, channel, steps = _steps(grad, problem.data_format)
    seats, size = threads.seats(), _rounded(division.scratch)
    scratch = _scratch(seats * size * x.itemsize)
    values = _geometry(problem, x) | {
        "scratch": scratch[1], "scratch_size": size, "x": _at(x), "out": _at(out),
        "grad": _at(grad), "grad_image": image, "grad_channel": channel, "grad_steps": steps,
    }  # fmt: skip
    words = job.fill(values)
    code = address(implementation.kernel, *job.arguments(problem.dtype))
    threads.run(code, _at(words), division.items, float(problem.operations), seats)


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
    kernel = address(gradients.direct_bias_gradient, *job.arguments(out.dtype.name))
    threads.run(kernel, _at(words), out.size, float(grad.size))


# Scratch: kept from call to call, one run of memory for each Python thread -------------------------------------------------


class _Kept(threading.local):
    size = 0
    memory: tuple[Array | None, int] = (None, 0)


_kept = _Kept()


def _scratch(size: int) -> tuple[Array | None, int]:
    """Memory of at least so many bytes that begins on a cache line, and its address; this Python thread's until its next call."""
    if _kept.size >= size:
        return _kept.memory
    array = packing.aligned_empty((size,), np.uint8)
    memory = array, _at(array)
    if size <= KEPT_SCRATCH:
        _kept.size, _kept.memory = size, memory
    return memory


# The job's words ------------------------------------------------------------------------------------------------------


def _epilogue(problem: AnyProblem, has_residual: bool) -> dict[str, Any]:
    last, inner = problem, {}
    if isinstance(problem, SeparableProblem):
        first, last = problem.depthwise, problem.pointwise
        inner_late, inner_least, inner_most = _clipping(first, False)
        inner = {
            "outer_filters": problem.filters, "inner_bias_kind": job.BIAS[first.bias],
            "inner_activation": first.activation.code, "inner_low": first.activation.low, "inner_high": first.activation.high,
            "inner_late": inner_late, "inner_least": inner_least, "inner_most": inner_most,
        }  # fmt: skip
    activation = last.activation
    late, least, most = _clipping(last, has_residual)
    return inner | {
        "bias_kind": job.BIAS[last.bias], "has_residual": has_residual,
        "activation": activation.code, "low": activation.low, "high": activation.high,
        "late": late, "least": least, "most": most,
    }  # fmt: skip


def _clipping(problem: AnyProblem, has_residual: bool) -> tuple[bool, float, float]:
    """Whether sums are finished late, and what they are clipped to in registers, infinite if they are."""
    activation = problem.activation
    late = has_residual or problem.bias == "pixel" or activation.name not in ("identity", "clip")
    clips = activation.name == "clip" and not late
    return late, activation.low if clips else -math.inf, activation.high if clips else math.inf


def shared_code(problem: AnyProblem, division: Division, values: dict[str, Any]) -> dict[str, int]:
    """Addresses of the functions that tiled kernels call; the activations, a second of compilation, only if any is done late."""
    dtype = problem.dtype
    _, index, with_square = job.arguments(dtype, division.tile.square)
    plain, run = job.arguments(dtype)[2], PointerType(NUMBA_FLOATS[dtype])
    image = PointerType(NUMBA_FLOATS[dtype], only_read=True)
    code = {}
    if values["late"]:
        code["finish_code"] = address(rows.finish_late, plain, run, index, index, index)
    if values.get("inner_late"):
        code["inner_finish_code"] = address(rows.finish_inner_late, plain, run, index, index, index)
    if division.fill is not None:
        code["fill_code"] = address(division.fill, with_square, run, image, index, index)
    return code


def _rounded(numbers: int) -> int:
    """Up to whole cache lines, so that seats do not share one."""
    return -(-numbers // packing.ALIGNMENT) * packing.ALIGNMENT


def _geometry(problem: Problem, x: Array) -> dict[str, Any]:
    drawn_in = problem.padding_mode != "zeros"
    image, channel, steps = _steps(x, problem.data_format)
    space = x.shape[1:-1] if problem.data_format == "channels_last" else x.shape[2:]
    return {
        "x_image": image, "x_channel": channel, "x_steps": steps,
        "batch": problem.batch, "groups": problem.groups,
        "channels": problem.channels // problem.groups, "filters": problem.filters // problem.groups,
        "space": _three(space, 1), "out_space": _three(problem.out_space, 1), "kernel": _three(problem.kernel, 1),
        "stride": _three(problem.stride, 1), "dilation": _three(problem.dilation, 1),
        "before": _three([0 if drawn_in else before for before, _ in problem.pads], 0),
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
