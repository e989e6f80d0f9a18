"""From arrays to work items: fill a kernel's job, hold its arrays and scratch, hand the items to the threads.

The only file between the plan and the kernels. It expects what the API has checked: batched arrays of the problem's shapes.
All that does not change from call to call is worked out once, in a `Bound`; a call then costs a few addresses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from fastconv.cpu import gradients, job, packing, rows, threads
from fastconv.cpu.atomics import call, load, store
from fastconv.cpu.compiled import address, compiled, quick
from fastconv.cpu.simd import NUMBA_FLOATS, PointerType, TileShape
from fastconv.plan import AnyProblem, Choice, Division, Implementation
from fastconv.problem import Problem, SeparableProblem, three

Array = np.ndarray[Any, Any]
Packed = tuple[Array, Array | None]  # a weight in a kernel's order, and its bias
X, GRAD, OUT, RESIDUAL, SCRATCH = (job.PLACES[name] for name in ("x", "grad", "out", "residual", "scratch"))
# Each weight with its bias; a separable layer has two of each.
WEIGHT = ((job.PLACES["weight"], job.PLACES["bias"]),)
ABOVE = ((GRAD, job.PLACES["bias"]),)  # a gradient of weights has the result's gradient in their place
BOTH_WEIGHTS = ((job.PLACES["weight"], job.PLACES["inner_bias"]), (job.PLACES["outer_weight"], job.PLACES["bias"]))


def pack(choice: Choice, weights: list[Array], biases: list[Array | None]) -> list[Packed]:
    """The weights of a problem in the order in which one implementation reads them, each with its bias."""
    # Where fresh ones lie, `_weight_steps` says.
    if choice.division.transform is None and (choice.implementation.pack is not None or choice.mirrored):
        weights = _in_order(choice, weights, biases)
    return list(map(_contiguous, weights, biases))


def _contiguous(weight: Array, bias: Array | None) -> Packed:
    return packing.contiguous(weight), None if bias is None else packing.contiguous(bias)


def _in_order(choice: Choice, weights: list[Array], biases: list[Array | None]) -> list[Array]:
    """By group, then as the implementation asks."""
    problem, implementation, division, mirrored = choice
    if isinstance(problem, SeparableProblem):
        by_group = [packing.by_group(weights[0], problem.depthwise.groups), packing.by_group(weights[1], 1)]
    elif mirrored:
        by_group = [packing.mirrored(weights[0], problem.groups)]
    elif problem.operation == "transposed":
        by_group = [packing.exchanged(weights[0], problem.groups)]
    else:
        by_group = [packing.by_group(weights[0], problem.groups)]
    if isinstance(problem, Problem) and by_group[0].ndim > problem.dimensions + 3 > 4:  # a volume's, computed as a plane
        by_group = [weight.reshape(*weight.shape[:3], *problem.kernel) for weight in by_group]
    pack = implementation.pack
    return by_group if pack is None else pack(problem, division.unit, by_group, biases)


class Ready(NamedTuple):
    """What runs a planned call, for those who run it themselves: jitted code.

    Attributes
    ----------
    words, code, items : ndarray, int, int
        The job without the addresses of a call, the kernel's own address, how many items it has.
    work, scratch : float, int
        Operations of all items, and bytes of scratch for each seat.
    alone : bool
        Whether it is not worth sharing.
    """

    words: Array
    code: int
    items: int
    work: float
    scratch: int
    alone: bool


class Bound:
    """A kernel with everything but the arrays of one call: machine code, job, items, scratch.

    Good for every x that lies in memory as the first one did: of the same shape, strides and dtype, and as well aligned, which
    the caller sees to.
    """

    def __init__(self, choice: Choice, x: Array, has_residual: bool) -> None:
        self._choice, self._has_residual = choice, has_residual
        self._problem, self._implementation, division, _ = choice
        self._seen = division.seen or _first(self._problem)
        problem, first = self._problem, self._seen
        image = self._prepared(x)
        self._as_it_lies = _at(image) == _at(x)
        self._table = np.array(division.fields.get("table", ()), np.int64)
        values = _geometry(first, image) | dict(division.fields) | _epilogue(problem, has_residual)
        values |= {
            "bands": division.bands, "band": division.band, "chunks": division.chunks, "chunk": division.chunk,
            "scratch_size": _rounded(division.scratch), "table": _at(self._table), "unit": division.unit,
            "last": division.fields.get("last", problem.data_format == "channels_last"),
        }  # fmt: skip
        if division.transform is not None:
            values |= _weight_steps(problem, choice.mirrored)
        if division.tile is not None:
            values |= shared_code(problem, division, values, self._implementation.scheme)
        self._items, self._weights = division.items, list[Packed]()
        self._places = BOTH_WEIGHTS if isinstance(problem, SeparableProblem) else WEIGHT
        tile = division.tile if division.multiply is None else division.outer
        kinds = job.arguments(problem.dtype, tile, self._implementation.scheme)
        self._code = address(self._implementation.kernel, *kinds)
        self._work = float(max(problem.operations, threads.OPERATIONS_A_BYTE * problem.bytes))
        self._scratch = _rounded(division.scratch) * x.itemsize
        self._alone = division.items < 2 or self._work < threads.WORTH_SHARING
        size = math.prod(first.weight_shape if first.operation == "weights" else problem.out_shape) * x.itemsize
        self._words = np.concatenate([job.fill(values), (self._code, self._items, *_reach(image), size)])
        self._task = _at(self._words)
        self._run_alone, self._set_arrays = quick(run_alone, *[types.int64] * 7), quick(set_arrays, *[types.int64] * 5)
        self._set_weights = quick(set_weights, *[types.int64] * 5)

    def with_weights(self, weights: list[Packed]) -> Bound:
        """The same with weights and biases, from `pack`, for many calls."""
        bound = copy.copy(self)
        bound._words, bound._weights = self._words.copy(), weights
        bound._task = _at(bound._words)
        bound._hold(bound._task, weights)
        return bound

    def _hold(self, task: int, weights: Sequence[Packed]) -> None:
        """Write where weights and biases lie into a job's words."""
        for (place, bias_place), (weight, bias) in zip(self._places, weights, strict=False):
            self._set_weights(task, place, bias_place, id(weight), 0 if bias is None else id(bias))

    @property
    def ready(self) -> Ready:
        """Its parts."""
        return Ready(self._words, self._code, self._items, self._work, self._scratch, self._alone)

    @property
    def as_it_lies(self) -> bool:
        """Whether the kernel reads x where it is, and no copy."""
        return self._as_it_lies

    def of_copies(self, x: Array) -> tuple[Bound, bool]:
        """The same for images that the caller copies first, border and all; and whether in C order, or in the other format's."""
        copy = packing.aligned_copy(x)
        bound = Bound(self._choice, copy, self._has_residual).with_weights(self._weights)
        return bound, bound._prepared(copy).flags.c_contiguous

    def compute(self, x: Array, residual: Array | None, out: Array, weights: Sequence[Packed] = ()) -> bool:
        """Compute the problem into `out`; `residual` is contiguous, `weights` are of this call alone.

        False, with nothing done, if x and `out` may share memory: as far as their first and last bytes tell.
        """
        image = x
        if not self._as_it_lies:
            if np.may_share_memory(x, out):
                return False
            image = self._prepared(x)
        task, weight, bias = self._task, 0, 0
        if residual is not None or len(weights) > 1 or not self._alone:
            words = self._words.copy()
            task = packing.address_of(words)
            self._hold(task, weights)
            if residual is not None:
                words[RESIDUAL] = packing.address_of(residual)
        elif weights:  # of many small calls each has one
            weight, bias = id(weights[0][0]), 0 if weights[0][1] is None else id(weights[0][1])
        if self._alone:
            _held, scratch = packing.scratch(self._scratch) if self._scratch else (None, 0)
            return self._run_alone(task, id(image), id(out), scratch, self._places[0][0], weight, bias)  # type: ignore[no-any-return]
        seats = threads.seats()
        _held, scratch = packing.scratch(seats * self._scratch)
        if not self._set_arrays(task, task, id(image), id(out), scratch):
            return False
        threads.run(self._code, task, self._items, self._work, seats)
        return True

    def _prepared(self, x: Array) -> Array:
        """The input as the kernel can read it: itself, if it can."""
        problem = self._seen
        x = x.reshape(problem.x_shape)
        if problem.padding_mode != "zeros" and any(map(any, problem.pads)):
            x = packing.bordered(x, problem.pads, problem.padding_mode, problem.data_format)
        return _readable(x, self._implementation, problem)


# What compiled code is told of a call, behind the job's words. Arrays come as the addresses of their objects, which is 0.3 us
# faster than as arrays, and compiled once, not for each number of dimensions.
CODE, ITEMS, FIRST, END, SIZE = (job.WORD_BYTES * (job.WORDS + place) for place in range(5))


@compiled
def run_alone(told, x, out, scratch, place, weight, bias):
    """Run all items of a copy of a job in this thread; False, with nothing done, if x and `out` may share memory."""
    own = job.own_copy(told)
    if weight:
        set_weights(own, place, WEIGHT[0][1], weight, bias)
    if not set_arrays(told, own, x, out, scratch):
        return False
    for item in range(load(told + ITEMS)):
        call(load(told + CODE), item, 0, own)
    return True


@compiled
def set_arrays(told, task, x, out, scratch):
    """Complete a job's words; False if the arrays may share memory."""
    image, result = load(x + packing.NUMBERS_AT), load(out + packing.NUMBERS_AT)
    store(task + job.WORD_BYTES * X, image)
    store(task + job.WORD_BYTES * OUT, result)
    store(task + job.WORD_BYTES * SCRATCH, scratch)
    return image + load(told + END) <= result or result + load(told + SIZE) <= image + load(told + FIRST)


@compiled
def set_weights(task, place, bias_place, weight, bias):
    """Complete a job's words by a weight, and by a bias if there is one (0: none)."""
    store(task + job.WORD_BYTES * place, load(weight + packing.NUMBERS_AT))
    if bias:
        store(task + job.WORD_BYTES * bias_place, load(bias + packing.NUMBERS_AT))


def _weight_steps(problem: Problem, mirrored: bool) -> dict[str, Any]:
    """Of a contiguous weight: how far its groups, filters and channels lie apart, and whether its taps run backwards."""
    filters, channels, taps = problem.filters // problem.groups, problem.channels // problem.groups, math.prod(problem.kernel)
    steps = (taps, filters * taps) if mirrored or problem.operation == "transposed" else (channels * taps, taps)
    return {"weight_steps": (filters * channels * taps, *steps), "backwards": mirrored}


def _reach(array: Array) -> tuple[int, int]:
    """Where an array's first byte lies, and where its last one ends, seen from where it begins."""
    steps = [(size - 1) * step for size, step in zip(array.shape, array.strides, strict=True)]
    return sum(min(step, 0) for step in steps), sum(max(step, 0) for step in steps) + array.itemsize


def _first(problem: AnyProblem) -> Problem:
    """The part of a problem that reads the image."""
    return problem.depthwise if isinstance(problem, SeparableProblem) else problem


def neighbours(x: Array, problem: AnyProblem) -> str:
    """What lies side by side in an image's memory: "columns", "channels", or "any" if neither does."""
    last = problem.data_format == "channels_last"
    columns, channels = (x.strides[-2], x.strides[-1]) if last else (x.strides[-1], x.strides[-1 - len(problem.out_space)])
    return "columns" if columns == x.itemsize else "channels" if channels == x.itemsize else "any"


class BoundWeightGradient(Bound):
    """A convolution's gradient with respect to its weights, likewise; also the gradient must lie as the first one did."""

    def __init__(self, choice: Choice, x: Array, grad: Array) -> None:
        self.exchanged = choice.division.fields.get("exchanged", False)  # the gradient takes the image's place, and it the other
        if self.exchanged:
            choice, x, grad = choice._replace(problem=choice.problem.exchanged()), grad, x
        super().__init__(choice, x, False)
        above = self._prepared_gradient(grad)
        self._grad_as_it_lies, self._places = _at(above) == _at(grad), ABOVE
        image, channel, steps = _steps(above, self._seen.data_format)
        first = job.PLACES["grad_image"]
        self._words[first : first + 5] = [image, channel, *steps]  # neighbours among the job's fields
        self.parts = choice.division.fields.get("parts", 1)  # results of their own, to be added up

    def gradient(self, x: Array, grad: Array, out: Array) -> None:
        """Compute it into `out`."""
        if self.exchanged:
            x, grad = grad, x
        above = grad if self._grad_as_it_lies else self._prepared_gradient(grad)
        results = out if self.parts == 1 else packing.recycled_empty((self.parts, *out.shape), out.dtype)
        self.compute(x, None, results, ((above, None),))
        if self.parts > 1:
            gradients.add_parts(_at(results), self.parts, out.size, out.itemsize, _at(out))
            packing.recycle(results)

    def as_read(self, x: Array, grad: Array) -> tuple[Array, Array]:
        """The two as the kernel reads them: themselves, or copies in C order or in the other format's."""
        return self._prepared(x), self._prepared_gradient(grad)

    def _prepared_gradient(self, grad: Array) -> Array:
        return _readable(grad.reshape(self._seen.out_shape), self._implementation, self._seen)


def _readable(a: Array, implementation: Implementation, problem: Problem) -> Array:
    """An image or a gradient as the kernel can read it: itself, if it can; else a copy, in the other order if need be."""
    given = packing.readable(a)
    if neighbours(given, problem) in implementation.reads:
        return given
    copy = packing.aligned_copy(a) if given is a else given
    if neighbours(copy, problem) in implementation.reads:
        return copy
    first, last = (-1, 1) if problem.data_format == "channels_last" else (1, -1)
    return np.moveaxis(packing.aligned_copy(np.moveaxis(a, first, last)), last, first)


class Gradient:
    """A kernel of gradients.py with everything but the arrays of one call, as a `Bound` of the others."""

    def __init__(self, kernel: Any, values: dict[str, Any], dtype: str, items: int, work: float, scratch: int = 0) -> None:
        code = address(kernel, *job.arguments(dtype))
        self.ready = Ready(job.fill(values), code, items, work, scratch * np.dtype(dtype).itemsize, False)

    def __call__(self, x: Array | None, grad: Array, out: Array) -> None:
        """Compute the gradient into `out`; x and grad are readable."""
        (words, code, items, work, size, _), seats = self.ready, threads.seats()
        _held, scratch = packing.scratch(seats * size)
        words = words.copy()  # another thread may be here too
        words[[X, GRAD, OUT, SCRATCH]] = _at(x), _at(grad), _at(out), scratch
        threads.run(code, _at(words), items, work, seats)


def bias_gradient(grad: Array, data_format: str) -> Gradient:
    """What sums a gradient over images and pixels, one number a filter, of arrays that lie as this readable one does."""
    return _bias_gradient(grad.shape, grad.strides, grad.dtype, data_format)


@lru_cache(maxsize=512)  # bounded: callers may come with ever new shapes
def _bias_gradient(shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, data_format: str) -> Gradient:
    last = data_format == "channels_last"
    image, channel, steps = _steps_of(strides, dtype.itemsize, last)
    space, filters = shape[1:-1] if last else shape[2:], shape[-1 if last else 1]
    values = {
        "batch": shape[0], "out_space": three(space),
        "grad_image": image, "grad_channel": channel, "grad_steps": steps,
    }  # fmt: skip
    work = float(threads.OPERATIONS_A_BYTE * math.prod(shape) * dtype.itemsize)
    return Gradient(gradients.direct_bias_gradient, values, dtype.name, filters, work)


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


def shared_code(problem: AnyProblem, division: Division, values: dict[str, Any], scheme: Any = None) -> dict[str, int]:
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
    if isinstance(problem, SeparableProblem):
        code["fill_code"] = fill_code(division.fill, division.window, dtype)
    elif division.fill is not None:
        code["fill_code"] = address(division.fill, with_square, run, image, index, index)
    if division.put is not None:
        code["put_code"] = address(division.put, with_square, run, *[index] * 6)
    if division.transform is not None:
        code["transform_code"] = transform_code(division.transform, division.tile, scheme)
    if division.multiply is not None:
        code["multiply_code"] = multiply_code(division.multiply, division.tile)
    return code


def fill_code(fill: Any, window: TileShape | None, dtype: str) -> int:
    """Address of what computes a separable layer's depthwise part: fill(job, scratch, image, first row, end of rows)."""
    _, index, with_window = job.arguments(dtype, window)
    return address(fill, with_window, PointerType(NUMBA_FLOATS[dtype]), index, index, index)


def transform_code(transform: Any, tile: TileShape, scheme: Any) -> int:
    """Address of what transforms fresh weights: transform(job, panel, weights, bias, *whole numbers)."""
    number = NUMBA_FLOATS[tile.dtype]
    _, index, with_square = job.arguments(tile.dtype, tile.square, scheme)
    run, given = PointerType(number), PointerType(number, only_read=True)
    return address(transform, with_square, run, given, given, index, index, index)


def multiply_code(multiply: Any, tile: TileShape) -> int:
    """Address of what fills a register tile for a kernel that does not know it: multiply(job, v, u, m, *whole numbers)."""
    return address(multiply, *arguments_of_products(multiply, tile))


def arguments_of_products(multiply: Any, tile: TileShape) -> tuple[Any, ...]:
    """Numba's types of its arguments."""
    number = NUMBA_FLOATS[tile.dtype]
    _, index, with_tile = job.arguments(tile.dtype, tile)
    run, image = PointerType(number), PointerType(number, only_read=True)
    arrays = with_tile, run, image, run
    return *arrays, *[index] * (multiply.py_func.__code__.co_argcount - len(arrays))


def _rounded(numbers: int) -> int:
    """Up to whole cache lines, so that seats do not share one."""
    return -(-numbers // packing.ALIGNMENT) * packing.ALIGNMENT


def _geometry(problem: Problem, x: Array) -> dict[str, Any]:
    image, channel, steps = _steps(x, problem.data_format)
    space = x.shape[1:-1] if problem.data_format == "channels_last" else x.shape[2:]
    return problem.geometry(space) | {"x_image": image, "x_channel": channel, "x_steps": steps}


def _steps(array: Array, data_format: str) -> tuple[int, int, tuple[int, int, int]]:
    """Distances in numbers between images, channels, and (planes, lines, columns)."""
    return _steps_of(array.strides, array.itemsize, data_format == "channels_last")


def _steps_of(strides: tuple[int, ...], size: int, last: bool) -> tuple[int, int, tuple[int, int, int]]:
    image, *rest = (step // size for step in strides)
    channel = rest.pop(-1 if last else 0)
    return image, channel, three(rest, 0)


def _at(array: Array | None) -> int:
    return 0 if array is None else packing.address_of(array)
