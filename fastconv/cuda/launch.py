"""From arrays to launches: where the arrays of a call lie, what the plan chooses for them, and the task that its launcher gets.

It expects what the API has checked; launchers.py describes a task to kernels. Everything runs on the stream of x's library,
in its order, and nothing waits; results and what is packed come from that library's own allocator, which knows when memory may
be used again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv.cuda import device, gradients, job, launchers, table
from fastconv.cuda.device import View
from fastconv.cuda.launchers import NUMBERS, Gpu, Task, copy_of, drawn_in, first_of, geometry_of, gradient_of, grid_of
from fastconv.cuda.tape import OVERLAPS, Tape, run
from fastconv.plan import AnyProblem, Implementation, choose
from fastconv.problem import Problem, check_result

TAPES: dict[Any, Tape] = {}  # of functions; layers have their own


@lru_cache(maxsize=16)
def gpu(index: int) -> Gpu:
    """Of the device of this number."""
    if device.SIMULATED:
        return Gpu()
    with device.on(index):
        here = device.cuda.get_current_device()
        major, minor = here.compute_capability
        return Gpu(10 * major + minor, here.MULTIPROCESSOR_COUNT)


def offers(array: Any) -> tuple[Gpu, tuple[Implementation, ...], float]:
    """Where an array lies: the device, what computes there, and at how many operations a byte memory and multiply-adds balance."""
    here = gpu(device.index_of(array))
    return here, table.implementations(here), 2 * table.LANES / table.BYTES


def compute(
    ask: Callable[[], AnyProblem], x: Any, weights: list[Any], biases: list[Any], residual: Any = None, out: Any = None, *,
    asked: Any, packed: dict[Any, Any] | None = None, tapes: dict[Any, Tape] = TAPES, stream: int | None = None,
) -> Any:  # fmt: skip
    """Compute a checked problem on the device where its arrays lie.

    `ask` gives the problem; it is called for a tape that is not there yet, and `asked` is what it depends on beside how the
    arrays lie. `packed` keeps packed weights for calls with the same ones, which keep their tapes by themselves, too.
    """

    def record(tape: Tape) -> None:
        problem, here, count = ask(), gpu(tape.index), len(weights)
        image, added = tape.given(0), tape.views[-2]
        batched = len(image.shape) == len(problem.x_shape)
        if out is not None:
            _check_out(problem, out, tape, len(image.shape))
        result = tape.out(problem.out_shape if batched else problem.out_shape[1:])
        if not problem.batch:
            return
        choice = choose(problem, table.implementations(here), here.multiprocessors)
        # A pointwise problem is not made one long row here: the kernels index the pixels of any view.
        meant = problem.mirrored() if choice.mirrored and isinstance(problem, Problem) else problem
        tile, splits = choice.division.tile, choice.division.fields.get("splits", 1)
        factors = [tape.given(place) for place in range(1, 1 + count)]
        biased = [None if bias is None else _contiguous(tape, bias) for bias in tape.views[1 + count : 1 + 2 * count]]
        added = None if added is None else _contiguous(tape, added)
        bordered = _bordered(tape, problem, image)
        choice.implementation.kernel(
            Task(meant, tile, splits, choice.mirrored, bordered, factors, biased, added, result, packed, tape, here)
        )

    return run(tapes, asked, [x, *weights, *biases, residual], out, record, stream)


def _check_out(problem: AnyProblem, out: Any, tape: Tape, dimensions: int) -> None:
    check_result("out", out, problem, dimensions)
    view = tape.given(tape.result)
    if not view.contiguous or view.read_only:
        raise ValueError("out: expected a writable, C-contiguous array")
    if tape.shares_memory([0 if view is None else view.pointer for view in tape.views]):
        raise ValueError(OVERLAPS)


# Copies, where a kernel cannot read an array as it is ---------------------------------------------------------------------


def _contiguous(tape: Tape, view: View) -> View:
    return view if view.contiguous else copy_of(tape, view, view.shape, (0,) * len(view.shape), "zeros")


def _bordered(tape: Tape, problem: AnyProblem, x: View) -> View:
    """The image; with its border drawn in where a padding mode asks for one."""
    first = first_of(problem)
    if first.padding_mode == "zeros" or not any(map(any, first.pads)):
        return x
    return drawn_in(tape, first, x, first.padding_mode)


def copied(array: Any) -> Any:
    """A contiguous copy on the device, by the same library."""

    def record(tape: Tape) -> None:
        view = tape.given(0)
        copy_of(tape, view, view.shape, (0,) * len(view.shape), "zeros", tape.out(view.shape))

    return run(TAPES, "copied", [array], None, record)


def place_of(array: Any) -> tuple[str, int, int]:
    """Whose array it is, on which device, and on which stream: what is brought and packed there is ready there alone."""
    return device.library_of(array), device.index_of(array), device.stream_number(array)


def brought(array: Any, like: Any) -> Any:
    """An array where another lies, by the same library: a NumPy one is copied to the device, others are there."""
    if isinstance(array, np.ndarray):
        with device.on(device.index_of(like)):
            return device.upload(array, like)
    return array


# Gradients ------------------------------------------------------------------------------------------------------------


def weight_gradient(ask: Callable[[], Problem], x: Any, grad: Any, *, asked: Any) -> Any:
    """A convolution's gradient with respect to its weights; `ask` gives what `Problem.weights` gives, see `compute`."""

    def record(tape: Tape) -> None:
        problem, here = ask(), gpu(tape.index)
        choice = choose(problem, table.implementations(here), here.multiprocessors)
        tile, splits = choice.division.tile, choice.division.fields.get("splits", 1)
        image, above, result = tape.given(0), tape.given(1), tape.out(problem.weight_shape)
        choice.implementation.kernel(Task(problem, tile, splits, False, image, [above], [None], None, result, None, tape, here))

    return run(TAPES, asked, [x, grad], None, record)


def bias_gradient(grad: Any, dimensions: int, data_format: str) -> Any:
    """The sum of a gradient over images and pixels, one number a filter."""

    def record(tape: Tape) -> None:
        view = tape.given(0)
        batch = view.shape[0] if len(view.shape) == dimensions + 2 else 1
        rest = view.shape[-dimensions - 1 :]
        filters, space = (rest[-1], rest[:-1]) if data_format == "channels_last" else (rest[0], rest[1:])
        one = (1,) * dimensions
        problem = Problem(
            "weights", batch, 1, filters, space, one, one, ((0, 0),) * dimensions, one, data_format=data_format,
            dtype=view.dtype.name,
        )  # fmt: skip
        values = geometry_of(problem, view) | {"out": tape.out((filters,)).row} | gradient_of(view, problem)
        told = job.fill(values, NUMBERS[problem.dtype], np.int64)
        tape.launch(gradients.direct_bias_gradient(launchers.REDUCERS), filters, launchers.REDUCERS, told)

    return run(TAPES, ("bias", dimensions, data_format), [grad], None, record)


def map_gradient(problem: Problem, grad: Any) -> Any:
    """The gradient with respect to a bias per pixel: the sum over images."""
    return _elementwise(gradients.direct_map_gradient, problem, {"grad": grad}, problem.out_shape[1:])


def through_activation(problem: Problem, sums: Any, grad: Any) -> Any:
    """The gradient of the sums before an activation, from that of its result."""
    kernel = gradients.direct_slope(problem.activation.name)
    return _elementwise(kernel, problem, {"grad": grad, "x": sums}, tuple(grad.shape))


def _elementwise(kernel: Any, problem: Problem, arrays: dict[str, Any], shape: tuple[int, ...]) -> Any:
    def record(tape: Tape) -> None:
        rows = {name: _contiguous(tape, tape.given(place)).row for place, name in enumerate(arrays)}
        numbers = {"low": problem.activation.low, "high": problem.activation.high, "out_image": math.prod(problem.out_shape[1:])}
        values = rows | numbers | {"out": tape.out(shape).row, "batch": problem.batch}
        told = job.fill(values, NUMBERS[problem.dtype], np.int64)
        tape.launch(kernel, grid_of(math.prod(shape)), launchers.THREADS, told)

    return run(TAPES, (kernel, problem), [*arrays.values()], None, record)
