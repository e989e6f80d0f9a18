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
from fastconv.cuda.indices import LINES, finisher, inner_finisher, pixel_place, term_place
from fastconv.cuda.job import ARRAYS, Job
from fastconv.cuda.transposed import phases
from fastconv.plan import AnyProblem, Implementation, choose
from fastconv.problem import Problem, SeparableProblem, check_result, three

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
    packed: dict[Any, Any]
    stream: Any
    gpu: Gpu


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
    problem: AnyProblem, x: Any, weights: list[Any], biases: list[Any], residual: Any = None, out: Any = None, *,
    packed: dict[Any, Any] | None = None,
) -> Any:  # fmt: skip
    """Compute a checked problem on the device where its arrays lie. `packed` keeps packed weights for calls with the same ones."""
    from fastconv.cuda.table import implementations

    arrays = [x, *weights, *biases, residual, out]
    index = _one_device(arrays)
    if out is None:
        batched = len(x.shape) == len(problem.x_shape)
        out = device.empty(x, problem.out_shape if batched else problem.out_shape[1:])
    else:
        _check_out(problem, out, [View(a) for a in arrays[:-1] if a is not None])
    if problem.batch:
        here = gpu(index)
        choice = choose(problem, implementations(here), here.multiprocessors)
        # A pointwise problem is not made one long row here: the kernels index the pixels of any view.
        meant = problem.mirrored() if choice.mirrored and isinstance(problem, Problem) else problem
        with device.on(index):
            stream = device.stream_of(x)
            task = Task(
                meant, choice.division.tile, choice.division.fields.get("splits", 1), choice.mirrored,
                _bordered(problem, x, stream), [View(w) for w in weights],
                [None if bias is None else _contiguous(bias, stream) for bias in biases],
                None if residual is None else _contiguous(residual, stream), View(out),
                {} if packed is None else packed, stream, here,
            )  # fmt: skip
            choice.implementation.kernel(task)
    return out


def _one_device(arrays: list[Any]) -> int:
    indices = [device.index_of(array) for array in arrays if array is not None]
    if len({*indices}) > 1:
        raise ValueError(f"arrays: lie on devices {indices}, expected all on that of x")
    return indices[0]


def _check_out(problem: AnyProblem, out: Any, inputs: list[View]) -> None:
    check_result("out", out, problem, len(inputs[0].shape))  # type: ignore[arg-type]
    view = View(out)
    if not view.contiguous or view.read_only:
        raise ValueError("out: expected a writable, C-contiguous array")
    if any(view.overlaps(other) for other in inputs):
        raise ValueError("out: shares memory with an input")


# Copies, where a kernel cannot read an array as it is ---------------------------------------------------------------------


def _contiguous(array: Any, stream: Any) -> View:
    view = View(array)
    return view if view.contiguous else _copied(array, view.shape, (0,) * len(view.shape), "zeros", stream)


def _bordered(problem: AnyProblem, x: Any, stream: Any) -> View:
    """The image; with its border drawn in where a padding mode asks for one."""
    first = _first(problem)
    if first.padding_mode == "zeros" or not any(map(any, first.pads)):
        return View(x)
    return _drawn(first, x, first.padding_mode, stream)


def _drawn(problem: Problem, x: Any, mode: str, stream: Any) -> View:
    shape = tuple(x.shape)
    pads = [*problem.pads, (0, 0)] if problem.data_format == "channels_last" else [(0, 0), *problem.pads]
    pads = [(0, 0)] * (len(shape) - len(pads)) + pads
    wide = tuple(n + before + after for n, (before, after) in zip(shape, pads, strict=True))
    return _copied(x, wide, tuple(before for before, _ in pads), mode, stream)


def _copied(array: Any, shape: tuple[int, ...], before: tuple[int, ...], mode: str, stream: Any) -> View:
    view, copy = View(array), View(device.empty(array, shape))
    task = packing.Copy(
        view.row, copy.row, _five(shape, 1), view.first, _five(view.shape, 1), _five(view.steps, 0), _five(before, 0),
        packing.MODES[mode],
    )  # fmt: skip
    packing.copy[_grid(math.prod(shape)), THREADS, stream](task)
    return copy


def copied(array: Any) -> Any:
    """A contiguous copy on the device, by the same library."""
    with device.on(device.index_of(array)):
        return _copied(array, tuple(array.shape), (0,) * len(array.shape), "zeros", device.stream_of(array)).owner


def place_of(array: Any) -> tuple[str, int, int]:
    """Whose array it is, on which device, and on which stream: what is brought and packed there is ready there alone."""
    return device.library_of(array), device.index_of(array), device.stream_number(array)


def brought(array: Any, like: Any) -> Any:
    """An array where another lies, by the same library: a NumPy one is copied to the device, others must be there."""
    if isinstance(array, np.ndarray):
        with device.on(device.index_of(like)):
            return device.upload(array, like)
    _one_device([like, array])
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
        kernel[grid, THREADS, task.stream](_job(task))

    return run


def by_slab(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """One block a slab of filters and pixels."""

    def run(task: Task) -> None:
        problem, slab = task.problem, task.tile
        kernel = factory(problem.dtype, _finish(problem), _finish_inner(problem), slab)
        pixels = problem.batch * math.prod(problem.out_space)
        grid = -(-pixels // slab.pixels), -(-problem.filters // slab.filters)
        kernel[grid, slab.threads, task.stream](_job(task, np.int32))

    return run


def by_patch(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """One block a patch of a plane."""

    def run(task: Task) -> None:
        problem, patch = task.problem, task.tile
        height, width = three(problem.out_space)[1:]
        grid = -(-height // (patch.down * patch.rows)) * -(-width // patch.across), problem.batch * problem.filters
        factory(problem.dtype, _finish(problem), patch)[grid, patch.threads, task.stream](_job(task, np.int32))

    return run


def by_tile(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """One block a tile of filters and pixels; weights packed before."""

    def run(task: Task) -> None:
        task = _with_room(task)
        sums, finish = _sums(task)
        _run_tiles(task, factory, "whole", sums, finish, {})
        _add_splits(task, sums)

    return run


def by_phase(factory: Callable[..., Any]) -> Callable[[Task], None]:
    """As by_tile, phase by phase of a transposed convolution."""

    def run(task: Task) -> None:
        problem = task.problem
        _, _, _, out_steps = _lies(task.out, problem)
        tap = _weight(task.weights[0], problem, False)
        stride = three(problem.stride)
        before = three([before for before, _ in problem.pads], 0)
        sizes = three(problem.out_space), three(problem.kernel), stride, three(problem.dilation), before
        sums, finish = _sums(task)
        for lines in phases(*sizes):
            kernel = tuple(line.taps for line in lines)
            _run_tiles(task, factory, lines, sums, finish, {
                "out_space": tuple(line.outputs for line in lines),
                "out_first": sum(line.first * step for line, step in zip(lines, out_steps, strict=True)),
                "out_steps": tuple(s * step for s, step in zip(stride, out_steps, strict=True)),
                "kernel": kernel, "lines": kernel, "before": tuple(line.before for line in lines),
                "stride": (1, 1, 1), "dilation": tuple(line.dilation for line in lines),
                "weight_first": tap["weight_first"]
                + sum(line.last_tap * step for line, step in zip(lines, tap["weight_steps"], strict=True)),
                "weight_steps": tuple(-line.step * step for line, step in zip(lines, tap["weight_steps"], strict=True)),
            })  # fmt: skip
        _add_splits(task, sums)

    return run


def by_window(task: Task) -> None:
    """Winograd's: windows to points, one product a point, points to tiles; filters to points before, unless they are kept."""
    problem, tile = task.problem, task.tile
    threads = THREADS // 4  # a thread keeps 36 numbers, and each costs a row of memory: more, and fewer, blocks
    count = problem.batch * math.prod(-(-size // winograd.OUTPUTS) for size in problem.out_space)
    told = _job(task, np.int32)
    panels, slices = -(-problem.filters // tile.filters), -(-problem.channels // tile.terms)
    if (winograd, tile) not in task.packed:
        size = panels * slices * tile.terms * tile.filters
        packed = View(device.empty(task.x.owner, (winograd.WINDOW * size,)))
        ready = _replaced(told, out=packed.row, panels=panels)
        winograd.winograd_filters(problem.dtype, tile)[_grid(size, task.gpu.multiprocessors), threads, task.stream](ready)
        task.packed[winograd, tile] = packed
    points, channels, filters = winograd.WINDOW, problem.channels, problem.filters
    v = View(device.empty(task.x.owner, (points, channels, count)))
    m = View(device.empty(task.x.owner, (points, filters, count)))
    ready = _replaced(told, out=v.row, out_filter=count, out_image=channels * count)
    winograd.winograd_windows(problem.dtype)[_grid(channels * count, task.gpu.multiprocessors), threads, task.stream](ready)
    product = {
        "x": v.row, "weight": task.packed[winograd, tile].row, "out": m.row, "batch": 1, "groups": points, "channels": channels,
        "filters": filters, "space": (1, 1, count), "out_space": (1, 1, count), "kernel": (1, 1, 1), "stride": (1, 1, 1),
        "dilation": (1, 1, 1), "x_channel": count, "x_steps": (0, 0, 1), "out_filter": count, "out_steps": (0, 0, 1),
        "panels": panels, "slices": slices, "split": slices,
    }  # fmt: skip
    described = job.fill(product, NUMBERS[problem.dtype], np.int32)
    grid = -(-count // tile.pixels), points * panels
    multiply = pointwise.tiled_pointwise(problem.dtype, NO_EPILOGUE, tile)
    multiply[grid, tile.threads, task.stream](described._replace(terms=_places(task, "product", described, term_place).row))
    ready = _replaced(told, x=m.row, x_channel=count, x_image=filters * count)
    kernel = winograd.winograd_tiles(problem.dtype, _finish(problem))
    kernel[_grid(filters * count, task.gpu.multiprocessors), threads, task.stream](ready)


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
    return task._replace(problem=drawn, x=_drawn(problem, task.x.owner, "zeros", task.stream))


def _sums(task: Task) -> tuple[View, Any]:
    """Where a tiled product puts its sums, and how it finishes them: partial ones, of splits, are not."""
    if task.splits == 1:
        return task.out, _finish(task.problem)
    return View(device.empty(task.x.owner, (task.splits * task.out.count,))), NO_EPILOGUE


def _run_tiles(task: Task, factory: Callable[..., Any], part: Any, sums: View, finish: Any, changes: dict[str, Any]) -> None:
    """Pack the weights, unless they are kept, and launch; `part` names what of the weights the changed geometry reads."""
    problem, tile = task.problem, task.tile
    one_tap = {"kernel": (1, 1, 1)} if isinstance(problem, SeparableProblem) else {}  # of the weights that are packed
    described = _job(task, np.int32, out=sums.row, out_split=task.out.count, **changes)
    panels = -(-int(described.filters) // tile.filters)
    taps = math.prod(map(int, one_tap.get("kernel", described.kernel)))
    slices = -(-int(described.channels) * taps // tile.terms)
    if (part, tile) not in task.packed:
        size = int(described.groups) * panels * slices * tile.terms * tile.filters
        packed = View(device.empty(task.x.owner, (max(size, 1),)))
        wide = _job(task, out=packed.row, panels=panels, slices=slices, **changes | one_tap)
        packing.filter_panels(problem.dtype, tile)[_grid(size, task.gpu.multiprocessors), THREADS, task.stream](wide)
        task.packed[part, tile] = packed
    ready = _replaced(
        described, weight=task.packed[part, tile].row, panels=panels, slices=slices, split=max(1, -(-slices // task.splits))
    )  # fmt: skip
    if isinstance(problem, SeparableProblem):
        kernel = factory(problem.dtype, finish, _finish_inner(problem), tile)
    else:
        kernel = factory(problem.dtype, finish, tile)
        ready = ready._replace(terms=_places(task, part, ready, term_place).row)
    pixels = int(described.batch) * math.prod(map(int, described.out_space))
    kernel[(-(-pixels // tile.pixels), int(described.groups) * panels, task.splits), tile.threads, task.stream](ready)


def _places(task: Task, part: Any, told: Job, where: Any) -> Memory:
    """The table of a product's terms, or pixels, two numbers of 4 bytes each; made anew if the image lies otherwise."""
    depth, size = task.tile.terms, int(told.slices) * task.tile.terms
    integers = tuple(value for name, value in zip(Job._fields, told, strict=True) if name not in (*ARRAYS, *job.NUMBERS))
    kept = task.packed.get(("places", part, depth))
    if kept is None or kept[0] != integers:
        room = View(device.empty(task.x.owner, (2 * max(size, 1),)))
        kept = integers, room.of("int64", max(size, 1))
        grid = _grid(size, task.gpu.multiprocessors)
        packing.places(where, depth)[grid, THREADS, task.stream](told._replace(terms=kept[1].row))
        task.packed["places", part, depth] = kept
    return kept[1]  # type: ignore[no-any-return]


def _add_splits(task: Task, sums: View) -> None:
    """Add up the partial sums of splits, and finish them."""
    if task.splits > 1:
        told = _job(task, x=sums.row, out_split=task.out.count, split=task.splits)
        kernel = standard.add_splits(task.problem.dtype, _finish(task.problem))
        kernel[_grid(task.out.count, task.gpu.multiprocessors), THREADS, task.stream](told)


# Gradients ------------------------------------------------------------------------------------------------------------


def weight_gradient(problem: Problem, x: Any, grad: Any) -> Any:
    """A convolution's gradient with respect to its weights; `problem` is what `Problem.weights` gives."""
    from fastconv.cuda.table import implementations

    index = _one_device([x, grad])
    out, here = device.empty(x, problem.weight_shape), gpu(index)
    choice = choose(problem, implementations(here), here.multiprocessors)
    with device.on(index):
        tile, splits, stream = choice.division.tile, choice.division.fields.get("splits", 1), device.stream_of(x)
        choice.implementation.kernel(
            Task(problem, tile, splits, False, View(x), [View(grad)], [None], None, View(out), {}, stream, here)
        )
    return out


def by_weight(task: Task) -> None:
    """One block a weight."""
    kernel = gradients.direct_weight_gradient(task.problem.dtype, REDUCERS)
    kernel[math.prod(task.problem.weight_shape), REDUCERS, task.stream](_gradient_job(task, np.int64))


def by_term(task: Task) -> None:
    """One block a tile of filters and terms, and a share of the pixels; the gradient packed before."""
    task = _with_room(task)
    problem, tile = task.problem, task.tile
    pixels, (filters, channels, *kernel) = problem.batch * math.prod(problem.out_space), problem.weight_shape
    terms, panels = channels * math.prod(kernel), -(-filters // problem.groups // tile.filters)
    slices = -(-pixels // tile.terms)
    size = problem.groups * panels * slices * tile.terms * tile.filters
    packed = View(device.empty(task.x.owner, (max(size, 1),)))
    wide = _gradient_job(task, np.int64, out=packed.row, panels=panels, slices=slices)
    packing.gradient_panels(problem.dtype, tile)[_grid(size, task.gpu.multiprocessors), THREADS, task.stream](wide)
    sums, _ = _sums(task)
    table = _places(task, "pixels", _gradient_job(task, np.int32, slices=slices), pixel_place)
    told = _gradient_job(
        task, np.int32, weight=packed.row, terms=table.row, panels=panels, slices=slices, split=max(1, -(-slices // task.splits)),
        out=sums.row, out_split=task.out.count, **_as_result(terms),
    )  # fmt: skip
    multiply = gradients.tiled_weight_gradient(problem.dtype, tile)
    multiply[(-(-terms // tile.pixels), problem.groups * panels, task.splits), tile.threads, task.stream](told)
    _add_gradients(task, sums, terms)


def by_plane(task: Task) -> None:
    """One block a filter and a share of the patches."""
    problem, patch = task.problem, task.tile
    sums, _ = _sums(task)
    told = _gradient_job(task, np.int32, out=sums.row, split=task.splits)
    kernel = gradients.tiled_depthwise_weight_gradient(problem.dtype, patch)
    kernel[(task.splits, problem.filters), patch.threads, task.stream](told)
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
        kernel[_grid(task.out.count, task.gpu.multiprocessors), THREADS, task.stream](told)


def bias_gradient(grad: Any, dimensions: int, data_format: str) -> Any:
    """The sum of a gradient over images and pixels, one number a filter."""
    view = View(grad)
    batch = view.shape[0] if len(view.shape) == dimensions + 2 else 1
    rest = view.shape[-dimensions - 1 :]
    filters, space = (rest[-1], rest[:-1]) if data_format == "channels_last" else (rest[0], rest[1:])
    one = (1,) * dimensions
    problem = Problem(
        "weights", batch, 1, filters, space, one, one, ((0, 0),) * dimensions, one, data_format=data_format, dtype=view.dtype.name,
    )  # fmt: skip
    out = device.empty(grad, (filters,))
    with device.on(device.index_of(grad)):
        values = _geometry(problem, view) | {"out": View(out).row} | _gradient(view, problem)
        told = job.fill(values, NUMBERS[problem.dtype], np.int64)
        gradients.direct_bias_gradient(REDUCERS)[filters, REDUCERS, device.stream_of(grad)](told)
    return out


def _gradient(view: View, problem: Problem) -> dict[str, Any]:
    first, image, channel, steps = _lies(view, problem)
    return {"grad": view.row, "grad_first": first, "grad_image": image, "grad_channel": channel, "grad_steps": steps}


def map_gradient(problem: Problem, grad: Any) -> Any:
    """The gradient with respect to a bias per pixel: the sum over images."""
    out = device.empty(grad, problem.out_shape[1:])
    return _elementwise(gradients.direct_map_gradient, problem, {"grad": grad}, out, math.prod(problem.out_shape[1:]))


def through_activation(problem: Problem, sums: Any, grad: Any) -> Any:
    """The gradient of the sums before an activation, from that of its result."""
    kernel, out = gradients.direct_slope(problem.activation.name), device.empty(grad, tuple(grad.shape))
    return _elementwise(kernel, problem, {"grad": grad, "x": sums}, out, math.prod(problem.out_shape))


def _elementwise(kernel: Any, problem: Problem, arrays: dict[str, Any], out: Any, count: int) -> Any:
    with device.on(_one_device([*arrays.values()])):
        stream = device.stream_of(out)
        rows = {name: _contiguous(array, stream).row for name, array in arrays.items()} | {"out": View(out).row}
        numbers = {"low": problem.activation.low, "high": problem.activation.high, "out_image": math.prod(problem.out_shape[1:])}
        told = job.fill(rows | numbers | {"batch": problem.batch}, NUMBERS[problem.dtype], np.int64)
        kernel[_grid(count), THREADS, stream](told)
    return out
