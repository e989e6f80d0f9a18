"""What each implementation of the table does with a task: the job, what is packed before, the grid.

A launcher makes kernels for its task's dtype, epilogue and tile, describes the arrays to them, and leaves launches on the task's
tape. What is packed of weights is kept if the task says where.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastconv.cuda import device, gradients, job, packing, pointwise, standard, winograd
from fastconv.cuda.device import Memory, View
from fastconv.cuda.indices import LINES, finisher, inner_finisher, pixel_place, term_place, weight_at
from fastconv.cuda.job import Job
from fastconv.cuda.tape import Tape
from fastconv.cuda.transposed import most_taps, phase_term, phase_weight, steps_of
from fastconv.plan import AnyProblem, Choice
from fastconv.problem import Problem, SeparableProblem, three

THREADS = 256  # a block of a kernel that has one thread a number: 8 warps, of which 4 blocks and more share a multiprocessor
BLOCKS = 32  # of them for each multiprocessor at most; a thread strides over what is left
REDUCERS = 256  # threads that add up one gradient
NUMBERS = {"float32": np.float32, "float64": np.float64}
NO_EPILOGUE = finisher("none", False, "identity")


class Gpu(NamedTuple):
    """What plans depend on: the compute capability, 80 for 8.0, and how many multiprocessors there are."""

    capability: int = 80
    multiprocessors: int = 108


class Task(NamedTuple):
    """One call: what a launcher needs."""

    problem: Any
    tile: Any
    splits: int  # into which the terms of a tiled product fall
    mirrored: bool
    x: View
    weights: list[View]
    biases: list[View | None]
    residual: View | None
    out: View
    packed: dict[Any, Any] | None  # None if nothing is kept
    tape: Tape
    gpu: Gpu

    def once(self, key: Any, shape: tuple[int, ...], fill: Callable[[View], None]) -> View:
        """An array that is filled for this call, or kept and filled once."""
        if self.packed is None:
            fill(room := self.tape.room(shape))
            return room
        if key not in self.packed:
            self.tape.once = True
            fill(room := View(device.empty(self.tape.like, shape)))
            self.packed[key] = room
        return self.packed[key]  # type: ignore[no-any-return]


# Copies, where a kernel cannot read an array as it is -----------------------------------------------------------------


def drawn_in(tape: Tape, problem: Problem, x: View, mode: str) -> View:
    """The image with its border, as a padding mode draws it."""
    pads = [*problem.pads, (0, 0)] if problem.data_format == "channels_last" else [(0, 0), *problem.pads]
    pads = [(0, 0)] * (len(x.shape) - len(pads)) + pads
    wide = tuple(n + before + after for n, (before, after) in zip(x.shape, pads, strict=True))
    return copy_of(tape, x, wide, tuple(before for before, _ in pads), mode)


def copy_of(tape: Tape, view: View, shape: tuple[int, ...], before: tuple[int, ...], mode: str, copy: View | None = None) -> View:
    """A contiguous copy of another shape, in which the array begins at `before`, with what a padding mode draws around it."""
    copy = copy or tape.room(shape)
    told = packing.Copy(
        view.row, copy.row, _five(shape, 1), view.first, _five(view.shape, 1), _five(view.steps, 0), _five(before, 0),
        packing.MODES[mode],
    )  # fmt: skip
    tape.launch(packing.copy, grid_of(math.prod(shape)), THREADS, told)
    return copy


# Jobs -----------------------------------------------------------------------------------------------------------------


def _job(task: Task, integer: Any = np.int64, **changes: Any) -> Job:
    """The job of a task; `changes` are what a launcher knows better."""
    problem, number = task.problem, NUMBERS[task.problem.dtype]
    first, last = first_of(problem), problem.pointwise if isinstance(problem, SeparableProblem) else problem
    x_first, x_image, x_channel, x_steps = steps_in(task.x, first)
    _, _, out_filter, out_steps = steps_in(task.out, last)
    values: dict[str, Any] = {
        "x": task.x.row, "out": task.out.row, "low": last.activation.low, "high": last.activation.high,
        **geometry_of(first, task.x), "out_space": three(last.out_space),
        "groups": last.groups, "channels": last.channels // last.groups, "filters": last.filters // last.groups,
        "x_first": x_first, "x_image": x_image, "x_channel": x_channel, "x_steps": x_steps,
        "out_image": math.prod(last.out_shape[1:]), "out_filter": out_filter, "out_steps": out_steps,
        "phase_step": steps_of(three(first.stride), three(first.dilation)),
        "last": problem.data_format == "channels_last", **_weight(task.weights[-1], last, task.mirrored),
    }  # fmt: skip
    if isinstance(problem, SeparableProblem):
        inner = _weight(task.weights[0], first, False)
        values |= {
            "inner_weight": inner["weight"], "inner_first": inner["weight_first"], "inner_filter": task.weights[0].steps[0],
            "inner_steps": inner["weight_steps"], "multiplier": first.filters // first.groups,
            "inner_low": first.activation.low, "inner_high": first.activation.high,
        }  # fmt: skip
        if task.biases[0] is not None:
            values["inner_bias"] = task.biases[0].row
    if task.biases[-1] is not None:
        values["bias"] = task.biases[-1].row
    if task.residual is not None:
        values["residual"] = task.residual.row
    return job.fill(values | changes, number, integer)


def geometry_of(problem: Problem, x: View) -> dict[str, Any]:
    last = problem.data_format == "channels_last"
    space = x.shape[-1 - problem.dimensions : -1] if last else x.shape[-problem.dimensions :]
    return problem.geometry(space) | {"lines": _lines(problem)}


def _lines(problem: Problem) -> tuple[int, int, int]:
    """In each dimension, how many lines of taps may lie outside the image: none where there is no border, or it is drawn in."""
    inside = problem.padding_mode != "zeros"
    return three([0 if inside or pad == (0, 0) else taps for taps, pad in zip(problem.kernel, problem.pads, strict=True)], 0)


def steps_in(view: View, problem: Problem) -> tuple[int, int, int, tuple[int, int, int]]:
    """Where a batch begins, and its steps between images, channels and (planes, lines, columns)."""
    steps = list(view.steps)
    image = steps.pop(0) if len(steps) == problem.dimensions + 2 else 0
    channel = steps.pop(-1 if problem.data_format == "channels_last" else 0)
    return view.first, image, channel, three(steps, 0)


def _weight(view: View, problem: Problem, mirrored: bool) -> dict[str, Any]:
    """How a weight lies; mirrored, that of a transposed convolution is read from its last tap back."""
    outer, inner, *steps = view.steps
    first = view.first
    if mirrored:
        first += sum((n - 1) * step for n, step in zip(problem.kernel, steps, strict=True))
        steps = [-step for step in steps]
    if mirrored or problem.operation == "transposed":
        group, filters, channels = problem.channels // problem.groups * outer, inner, outer
    else:
        group, filters, channels = problem.filters // problem.groups * outer, outer, inner
    return {
        "weight": view.row, "weight_first": first, "weight_group": group, "weight_filter": filters, "weight_channel": channels,
        "weight_steps": three(steps, 0),
    }  # fmt: skip


def first_of(problem: AnyProblem) -> Problem:
    """The part of a problem that reads the image."""
    return problem.depthwise if isinstance(problem, SeparableProblem) else problem


def _five(sizes: Any, default: int) -> packing.Five:
    return (*[default] * (5 - len(sizes)), *sizes)  # type: ignore[return-value]


def grid_of(numbers: int, multiprocessors: int = 108) -> int:
    """Blocks of a kernel that has one thread a number, and strides."""
    return max(1, min(-(-numbers // THREADS), BLOCKS * multiprocessors))


def _finish(problem: AnyProblem) -> Any:
    last = problem.pointwise if isinstance(problem, SeparableProblem) else problem
    return finisher(last.bias, last.residual, last.activation.name)


def _finish_inner(problem: SeparableProblem) -> Any:
    return inner_finisher(problem.depthwise.bias, problem.depthwise.activation.name)


# Launchers: what an implementation of the table does with a task -----------------------------------------------------------


def by_output(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """One thread an output."""

    def run(task: Task) -> None:
        kernel = factory(task.problem.dtype, _finish(task.problem))
        grid = grid_of(math.prod(task.problem.out_shape), task.gpu.multiprocessors)
        task.tape.launch(kernel, grid, THREADS, _job(task))

    return run


def by_slab(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """One block a slab of filters and pixels."""

    def run(task: Task) -> None:
        problem, slab = task.problem, task.tile
        kernel = factory(problem.dtype, _finish(problem), _finish_inner(problem), slab)
        pixels = problem.batch * math.prod(problem.out_space)
        grid = -(-pixels // slab.pixels), -(-problem.filters // slab.filters)
        task.tape.launch(kernel, grid, slab.threads, _job(task, np.int32))

    return run


def by_patch(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """One block a patch of a plane."""

    def run(task: Task) -> None:
        problem, patch = task.problem, task.tile
        height, width = three(problem.out_space)[1:]
        grid = -(-height // (patch.down * patch.rows)) * -(-width // patch.across), problem.batch * problem.filters
        task.tape.launch(factory(problem.dtype, _finish(problem), patch), grid, patch.threads, _job(task, np.int32))

    return run


def by_tile(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """One block a tile of filters and pixels; weights packed before."""

    def run(task: Task) -> None:
        task = _with_room(task)
        taps = 1 if isinstance(task.problem, SeparableProblem) else math.prod(task.problem.kernel)
        _run_tiles(task, factory, weight_at, term_place, taps, math.prod(task.problem.out_space))

    return run


def by_phase(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """As by_tile, of all phases of a transposed convolution."""

    def run(task: Task) -> None:
        problem = task.problem
        stride, out = three(problem.stride), three(problem.out_space)
        step = steps_of(stride, three(problem.dilation))
        taps = most_taps(three(problem.kernel), step)
        phases = tuple(map(min, stride, out))
        largest = math.prod(-(-n // s) for n, s in zip(out, stride, strict=True))
        _run_tiles(task, factory, phase_weight, phase_term, math.prod(taps), largest, phases, lines=taps)

    return run


def by_parts(choose: Callable[[Problem], Choice]) -> Callable[[Task], None]:
    """A separable layer's two parts, one after the other, what passes between them in memory; `choose` plans each."""

    def run(task: Task) -> None:
        problem = task.problem
        between = task.tape.room(problem.depthwise.out_shape)
        parts = (
            (problem.depthwise, task.x, task.weights[0], task.biases[0], None, between),
            (problem.pointwise, between, task.weights[1], task.biases[1], task.residual, task.out),
        )
        for part, x, weight, bias, residual, out in parts:
            choice = choose(part)
            tile, splits = choice.division.tile, choice.division.fields.get("splits", 1)
            choice.implementation.kernel(task._replace(
                problem=part, tile=tile, splits=splits, x=x, weights=[weight], biases=[bias], residual=residual, out=out,
            ))  # fmt: skip

    return run


def by_window(task: Task) -> None:
    """Winograd's: windows to points, one product a point, points to tiles; filters to points before, unless they are kept."""
    problem, tile = task.problem, task.tile
    threads = THREADS // 4  # a thread keeps 36 numbers, and each costs a row of memory: more, and fewer, blocks
    count = problem.batch * math.prod(-(-size // winograd.OUTPUTS) for size in problem.out_space)
    told = _job(task, np.int32)
    panels, slices = -(-problem.filters // tile.filters), -(-problem.channels // tile.terms)
    size = panels * slices * tile.terms * tile.filters

    def transform(to: View) -> None:
        kernel, grid = winograd.winograd_filters(problem.dtype, tile), grid_of(size, task.gpu.multiprocessors)
        task.tape.launch(kernel, grid, threads, _replaced(told, out=to.row, panels=panels))

    weights = task.once((winograd, tile), (winograd.WINDOW * size,), transform)
    points, channels, filters = winograd.WINDOW, problem.channels, problem.filters
    v, m = task.tape.room((points, channels, count)), task.tape.room((points, filters, count))
    ready = _replaced(told, out=v.row, out_filter=count, out_image=channels * count)
    task.tape.launch(winograd.winograd_windows(problem.dtype), grid_of(channels * count, task.gpu.multiprocessors), threads, ready)
    product = {
        "x": v.row, "weight": weights.row, "out": m.row, "batch": 1, "groups": points, "channels": channels,
        "filters": filters, "space": (1, 1, count), "out_space": (1, 1, count), "kernel": (1, 1, 1), "stride": (1, 1, 1),
        "dilation": (1, 1, 1), "x_channel": count, "x_steps": (0, 0, 1), "out_filter": count, "out_steps": (0, 0, 1),
        "panels": panels, "slices": slices, "split": slices,
    }  # fmt: skip
    described = job.fill(product, NUMBERS[problem.dtype], np.int32)
    grid = -(-count // tile.pixels), points * panels
    multiply = pointwise.tiled_pointwise(problem.dtype, NO_EPILOGUE, tile)
    task.tape.launch(multiply, grid, tile.threads, described._replace(terms=_places(task, described, term_place)))
    ready = _replaced(told, x=m.row, x_channel=count, x_image=filters * count)
    kernel = winograd.winograd_tiles(problem.dtype, _finish(problem))
    task.tape.launch(kernel, grid_of(filters * count, task.gpu.multiprocessors), threads, ready)


def _replaced(told: Job, **changes: Any) -> Job:
    """With int32 for integers."""
    narrow: dict[str, Any] = {name: np.int32(value) if isinstance(value, int) else value for name, value in changes.items()}
    return told._replace(**narrow)


def _with_room(task: Task) -> Task:
    """The same without padding, its border drawn in with zeros, if a window has more lines of taps than there are bits for."""
    problem = task.problem
    if isinstance(problem, SeparableProblem) or sum(_lines(problem)) <= LINES:
        return task
    whole = tuple(n + before + after for n, (before, after) in zip(problem.space, problem.pads, strict=True))
    drawn = replace(problem, space=whole, pads=((0, 0),) * len(whole))
    return task._replace(problem=drawn, x=drawn_in(task.tape, problem, task.x, "zeros"))


def _sums(task: Task) -> tuple[View, Any]:
    """Where a tiled product puts its sums, and how it finishes them: partial ones, of splits, are not."""
    if task.splits == 1:
        return task.out, _finish(task.problem)
    return task.tape.room((task.splits * task.out.count,)), NO_EPILOGUE


def _run_tiles(
    task: Task, factory: Callable[..., Any], weight: Any, term: Any, taps: int, pixels: int,
    phases: tuple[int, ...] = (1, 1, 1), **changes: Any,
) -> None:  # fmt: skip
    """Pack the weights, unless they are kept, and launch.

    `weight` and `term` say where the weights and terms of a product lie; `taps` a channel, `pixels` an image: the most of a phase.
    """
    problem, tile = task.problem, task.tile
    one_tap = {"kernel": (1, 1, 1)} if isinstance(problem, SeparableProblem) else {}  # of the weights that are packed
    sums, finish = _sums(task)
    changes["phases"] = math.prod(phases)
    told = _job(task, np.int32, out=sums.row, out_split=task.out.count, **changes)
    panels, slices = -(-int(told.filters) // tile.filters), -(-int(told.channels) * taps // tile.terms)
    rows = int(told.phases) * int(told.groups) * panels
    size = rows * slices * tile.terms * tile.filters

    def pack(to: View) -> None:
        wide = _job(task, out=to.row, panels=panels, slices=slices, **changes | one_tap)
        task.tape.launch(packing.filter_panels(problem.dtype, tile, weight), grid_of(size, task.gpu.multiprocessors), THREADS, wide)

    weights = task.once((weight, tile, phases), (max(size, 1),), pack)  # a small result has fewer phases than its layer
    told = _replaced(told, weight=weights.row, panels=panels, slices=slices, split=max(1, -(-slices // task.splits)))
    if isinstance(problem, SeparableProblem):
        kernel = factory(problem.dtype, finish, _finish_inner(problem), tile)
    else:
        kernel = factory(problem.dtype, finish, tile)
        told = told._replace(terms=_places(task, told, term))
    blocks = -(-problem.batch * pixels // tile.pixels)
    task.tape.launch(kernel, (blocks, rows, task.splits), tile.threads, told)
    _add_splits(task, sums)


def _places(task: Task, told: Job, where: Any, kept: bool = True) -> Memory:
    """The table of a product's terms, or pixels, two numbers of 4 bytes each."""
    depth, size = task.tile.terms, max(1, int(told.phases) * int(told.slices) * task.tile.terms)
    shape = (size * 8 // np.dtype(task.problem.dtype).itemsize,)

    def fill(to: View) -> None:
        grid = grid_of(size, task.gpu.multiprocessors)
        task.tape.launch(packing.places(where, depth), grid, THREADS, told._replace(terms=to.of("int64", size)))

    if kept:
        return task.tape.constant(shape, fill).of("int64", size)
    fill(room := task.tape.room(shape))
    return room.of("int64", size)


def _add_splits(task: Task, sums: View) -> None:
    """Add up the partial sums of splits, and finish them."""
    if task.splits > 1:
        told = _job(task, x=sums.row, out_split=task.out.count, split=task.splits)
        kernel = standard.add_splits(task.problem.dtype, _finish(task.problem))
        task.tape.launch(kernel, grid_of(task.out.count, task.gpu.multiprocessors), THREADS, told)


# Gradients ------------------------------------------------------------------------------------------------------------


def by_weight(task: Task) -> None:
    """One block a weight."""
    kernel = gradients.direct_weight_gradient(task.problem.dtype, REDUCERS)
    task.tape.launch(kernel, math.prod(task.problem.weight_shape), REDUCERS, _gradient_job(task, np.int64))


def by_term(task: Task) -> None:
    """One block a tile of filters and terms, and a share of the pixels; the gradient packed before."""
    task = _with_room(task)
    problem, tile = task.problem, task.tile
    pixels, (filters, channels, *kernel) = problem.batch * math.prod(problem.out_space), problem.weight_shape
    terms, panels = channels * math.prod(kernel), -(-filters // problem.groups // tile.filters)
    slices = -(-pixels // tile.terms)
    size = problem.groups * panels * slices * tile.terms * tile.filters
    packed = task.tape.room((max(size, 1),))
    wide = _gradient_job(task, np.int64, out=packed.row, panels=panels, slices=slices)
    task.tape.launch(packing.gradient_panels(problem.dtype, tile), grid_of(size, task.gpu.multiprocessors), THREADS, wide)
    sums, _ = _sums(task)
    table = _places(task, _gradient_job(task, np.int32, slices=slices), pixel_place, kept=False)  # 1 MB for 32 images of 64x64
    told = _gradient_job(
        task, np.int32, weight=packed.row, terms=table, panels=panels, slices=slices, split=max(1, -(-slices // task.splits)),
        out=sums.row, out_split=task.out.count, **_as_result(terms),
    )  # fmt: skip
    multiply = gradients.tiled_weight_gradient(problem.dtype, tile)
    task.tape.launch(multiply, (-(-terms // tile.pixels), problem.groups * panels, task.splits), tile.threads, told)
    _add_gradients(task, sums, terms)


def by_plane(task: Task) -> None:
    """One block a filter and a share of the patches."""
    problem, patch = task.problem, task.tile
    sums, _ = _sums(task)
    told = _gradient_job(task, np.int32, out=sums.row, split=task.splits)
    kernel = gradients.tiled_depthwise_weight_gradient(problem.dtype, patch)
    task.tape.launch(kernel, (task.splits, problem.filters), patch.threads, told)
    _add_gradients(task, sums, math.prod(problem.kernel))


def _gradient_job(task: Task, integer: Any, **changes: Any) -> Job:
    """The job of a gradient: an image, the gradient of its convolution, and where that of the weights goes."""
    problem = task.problem
    x_first, x_image, x_channel, x_steps = steps_in(task.x, problem)
    lies = {"x_first": x_first, "x_image": x_image, "x_channel": x_channel, "x_steps": x_steps}
    values = geometry_of(problem, task.x) | {"x": task.x.row, "out": task.out.row} | gradient_of(task.weights[0], problem) | lies
    return job.fill(values | changes, NUMBERS[problem.dtype], integer)


def _as_result(terms: int) -> dict[str, Any]:
    """Weights as the result of a product: a row of terms for each filter."""
    return {"batch": 1, "out_space": (1, 1, terms), "out_filter": terms, "out_steps": (0, 0, 1)}


def _add_gradients(task: Task, sums: View, terms: int) -> None:
    if task.splits > 1:
        told = _gradient_job(task, np.int64, x=sums.row, out_split=task.out.count, split=task.splits, **_as_result(terms))
        kernel = standard.add_splits(task.problem.dtype, NO_EPILOGUE)
        task.tape.launch(kernel, grid_of(task.out.count, task.gpu.multiprocessors), THREADS, told)


def gradient_of(view: View, problem: Problem) -> dict[str, Any]:
    first, image, channel, steps = steps_in(view, problem)
    return {"grad": view.row, "grad_first": first, "grad_image": image, "grad_channel": channel, "grad_steps": steps}
