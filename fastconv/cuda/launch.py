"""From arrays to launches: a kernel's job, its grid, and what must be packed before.

The only file between the plan and the kernels. It expects what the API has checked. Everything runs on the stream of x's library,
in its order, and nothing waits; results and what is packed come from that library's own allocator, which knows when memory may
be used again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.cuda import device, gradients, job, packing, pointwise, standard, winograd
from fastconv.cuda.device import Memory, View
from fastconv.cuda.indices import LINES, finisher, inner_finisher, pixel_place, term_place, weight_at
from fastconv.cuda.job import Job
from fastconv.cuda.tape import OVERLAPS, Tape, run
from fastconv.cuda.transposed import most_taps, phase_term, phase_weight, steps_of
from fastconv.plan import AnyProblem, Implementation, choose
from fastconv.problem import Problem, SeparableProblem, check_result, three

THREADS = 256  # a block of a kernel that has one thread a number: 8 warps, of which 4 blocks and more share a multiprocessor
BLOCKS = 32  # of them for each multiprocessor at most; a thread strides over what is left
REDUCERS = 256  # threads that add up one gradient
NUMBERS = {"float32": np.float32, "float64": np.float64}
NO_EPILOGUE = finisher("none", False, "identity")
TAPES: dict[Any, Tape] = {}  # of functions; layers have their own


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
    from fastconv.cuda import table

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
    from fastconv.cuda.table import implementations

    def record(tape: Tape) -> None:
        problem, here, count = ask(), gpu(tape.index), len(weights)
        image, added = tape.given(0), tape.views[-2]
        batched = len(image.shape) == len(problem.x_shape)
        if out is not None:
            _check_out(problem, out, tape, len(image.shape))
        result = tape.out(problem.out_shape if batched else problem.out_shape[1:])
        if not problem.batch:
            return
        choice = choose(problem, implementations(here), here.multiprocessors)
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
    return view if view.contiguous else _copied(tape, view, view.shape, (0,) * len(view.shape), "zeros")


def _bordered(tape: Tape, problem: AnyProblem, x: View) -> View:
    """The image; with its border drawn in where a padding mode asks for one."""
    first = _first(problem)
    if first.padding_mode == "zeros" or not any(map(any, first.pads)):
        return x
    return _drawn(tape, first, x, first.padding_mode)


def _drawn(tape: Tape, problem: Problem, x: View, mode: str) -> View:
    pads = [*problem.pads, (0, 0)] if problem.data_format == "channels_last" else [(0, 0), *problem.pads]
    pads = [(0, 0)] * (len(x.shape) - len(pads)) + pads
    wide = tuple(n + before + after for n, (before, after) in zip(x.shape, pads, strict=True))
    return _copied(tape, x, wide, tuple(before for before, _ in pads), mode)


def _copied(tape: Tape, view: View, shape: tuple[int, ...], before: tuple[int, ...], mode: str, copy: View | None = None) -> View:
    copy = copy or tape.room(shape)
    told = packing.Copy(
        view.row, copy.row, _five(shape, 1), view.first, _five(view.shape, 1), _five(view.steps, 0), _five(before, 0),
        packing.MODES[mode],
    )  # fmt: skip
    tape.launch(packing.copy, _grid(math.prod(shape)), THREADS, told)
    return copy


def copied(array: Any) -> Any:
    """A contiguous copy on the device, by the same library."""

    def record(tape: Tape) -> None:
        view = tape.given(0)
        _copied(tape, view, view.shape, (0,) * len(view.shape), "zeros", tape.out(view.shape))

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


# Jobs -----------------------------------------------------------------------------------------------------------------


def _job(task: Task, integer: Any = np.int64, **changes: Any) -> Job:
    """The job of a task; `changes` are what a launcher knows better."""
    problem, number = task.problem, NUMBERS[task.problem.dtype]
    first, last = _first(problem), problem.pointwise if isinstance(problem, SeparableProblem) else problem
    x_first, x_image, x_channel, x_steps = _lies(task.x, first)
    _, _, out_filter, out_steps = _lies(task.out, last)
    values: dict[str, Any] = {
        "x": task.x.row, "out": task.out.row, "low": last.activation.low, "high": last.activation.high,
        **_geometry(first, task.x), "out_space": three(last.out_space),
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


def _geometry(problem: Problem, x: View) -> dict[str, Any]:
    last = problem.data_format == "channels_last"
    space = x.shape[-1 - problem.dimensions : -1] if last else x.shape[-problem.dimensions :]
    return problem.geometry(space) | {"lines": _lines(problem)}


def _lines(problem: Problem) -> tuple[int, int, int]:
    """In each dimension, how many lines of taps may lie outside the image: none where there is no border, or it is drawn in."""
    inside = problem.padding_mode != "zeros"
    return three([0 if inside or pad == (0, 0) else taps for taps, pad in zip(problem.kernel, problem.pads, strict=True)], 0)


def _lies(view: View, problem: Problem) -> tuple[int, int, int, tuple[int, int, int]]:
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


def _first(problem: AnyProblem) -> Problem:
    """The part of a problem that reads the image."""
    return problem.depthwise if isinstance(problem, SeparableProblem) else problem


def _five(sizes: Any, default: int) -> packing.Five:
    return (*[default] * (5 - len(sizes)), *sizes)  # type: ignore[return-value]


def _grid(numbers: int, multiprocessors: int = 108) -> int:
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
        grid = _grid(math.prod(task.problem.out_shape), task.gpu.multiprocessors)
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


def by_parts(task: Task) -> None:
    """A separable layer's two parts, one after the other, what passes between them in memory."""
    from fastconv.cuda.table import implementations

    problem = task.problem
    between = task.tape.room(problem.depthwise.out_shape)
    parts = (
        (problem.depthwise, task.x, task.weights[0], task.biases[0], None, between),
        (problem.pointwise, between, task.weights[1], task.biases[1], task.residual, task.out),
    )
    for part, x, weight, bias, residual, out in parts:
        choice = choose(part, implementations(task.gpu), task.gpu.multiprocessors)
        tile, splits = choice.division.tile, choice.division.fields.get("splits", 1)
        choice.implementation.kernel(task._replace(
            problem=part, tile=tile, splits=splits, x=x, weights=[weight], biases=[bias], residual=residual, out=out,
        ))  # fmt: skip


def by_window(task: Task) -> None:
    """Winograd's: windows to points, one product a point, points to tiles; filters to points before, unless they are kept."""
    problem, tile = task.problem, task.tile
    threads = THREADS // 4  # a thread keeps 36 numbers, and each costs a row of memory: more, and fewer, blocks
    count = problem.batch * math.prod(-(-size // winograd.OUTPUTS) for size in problem.out_space)
    told = _job(task, np.int32)
    panels, slices = -(-problem.filters // tile.filters), -(-problem.channels // tile.terms)
    size = panels * slices * tile.terms * tile.filters

    def transform(to: View) -> None:
        kernel, grid = winograd.winograd_filters(problem.dtype, tile), _grid(size, task.gpu.multiprocessors)
        task.tape.launch(kernel, grid, threads, _replaced(told, out=to.row, panels=panels))

    weights = task.once((winograd, tile), (winograd.WINDOW * size,), transform)
    points, channels, filters = winograd.WINDOW, problem.channels, problem.filters
    v, m = task.tape.room((points, channels, count)), task.tape.room((points, filters, count))
    ready = _replaced(told, out=v.row, out_filter=count, out_image=channels * count)
    task.tape.launch(winograd.winograd_windows(problem.dtype), _grid(channels * count, task.gpu.multiprocessors), threads, ready)
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
    task.tape.launch(kernel, _grid(filters * count, task.gpu.multiprocessors), threads, ready)


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
    return task._replace(problem=drawn, x=_drawn(task.tape, problem, task.x, "zeros"))


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
        task.tape.launch(packing.filter_panels(problem.dtype, tile, weight), _grid(size, task.gpu.multiprocessors), THREADS, wide)

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
        grid = _grid(size, task.gpu.multiprocessors)
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
        task.tape.launch(kernel, _grid(task.out.count, task.gpu.multiprocessors), THREADS, told)


# Gradients ------------------------------------------------------------------------------------------------------------


def weight_gradient(ask: Callable[[], Problem], x: Any, grad: Any, *, asked: Any) -> Any:
    """A convolution's gradient with respect to its weights; `ask` gives what `Problem.weights` gives, see `compute`."""
    from fastconv.cuda.table import implementations

    def record(tape: Tape) -> None:
        problem, here = ask(), gpu(tape.index)
        choice = choose(problem, implementations(here), here.multiprocessors)
        tile, splits = choice.division.tile, choice.division.fields.get("splits", 1)
        image, above, result = tape.given(0), tape.given(1), tape.out(problem.weight_shape)
        choice.implementation.kernel(Task(problem, tile, splits, False, image, [above], [None], None, result, None, tape, here))

    return run(TAPES, asked, [x, grad], None, record)


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
    task.tape.launch(packing.gradient_panels(problem.dtype, tile), _grid(size, task.gpu.multiprocessors), THREADS, wide)
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
    x_first, x_image, x_channel, x_steps = _lies(task.x, problem)
    lies = {"x_first": x_first, "x_image": x_image, "x_channel": x_channel, "x_steps": x_steps}
    values = _geometry(problem, task.x) | {"x": task.x.row, "out": task.out.row} | _gradient(task.weights[0], problem) | lies
    return job.fill(values | changes, NUMBERS[problem.dtype], integer)


def _as_result(terms: int) -> dict[str, Any]:
    """Weights as the result of a product: a row of terms for each filter."""
    return {"batch": 1, "out_space": (1, 1, terms), "out_filter": terms, "out_steps": (0, 0, 1)}


def _add_gradients(task: Task, sums: View, terms: int) -> None:
    if task.splits > 1:
        told = _gradient_job(task, np.int64, x=sums.row, out_split=task.out.count, split=task.splits, **_as_result(terms))
        kernel = standard.add_splits(task.problem.dtype, NO_EPILOGUE)
        task.tape.launch(kernel, _grid(task.out.count, task.gpu.multiprocessors), THREADS, told)


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
        values = _geometry(problem, view) | {"out": tape.out((filters,)).row} | _gradient(view, problem)
        told = job.fill(values, NUMBERS[problem.dtype], np.int64)
        tape.launch(gradients.direct_bias_gradient(REDUCERS), filters, REDUCERS, told)

    return run(TAPES, ("bias", dimensions, data_format), [grad], None, record)


def _gradient(view: View, problem: Problem) -> dict[str, Any]:
    first, image, channel, steps = _lies(view, problem)
    return {"grad": view.row, "grad_first": first, "grad_image": image, "grad_channel": channel, "grad_steps": steps}


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
        tape.launch(kernel, _grid(math.prod(shape)), THREADS, job.fill(values, NUMBERS[problem.dtype], np.int64))

    return run(TAPES, (kernel, problem), [*arrays.values()], None, record)
