"""Layouts: weights in the order in which a kernel reads them, images where a kernel can read them, results aligned.

Everything here copies; convolutions never do. Weights are packed once a layer, and on every call of a gradient, where that may
take as long as the kernel: so they are packed by compiled code, by as many threads, from wherever they lie. An image is copied
only when it must be: when its numbers are not native or not aligned, or when its border is to show more of it (`padding_mode`),
which np.pad does.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from fastconv.cpu import job, machine, threads
from fastconv.cpu.atomics import load
from fastconv.cpu.compiled import address, compiled, inlined, quick
from fastconv.cpu.simd import TileShape
from fastconv.cpu.toom import Nested, Scheme
from fastconv.problem import three

Array = np.ndarray[Any, Any]
BLOCK = 16  # channels whose rows stay in L1 while all taps of tiled_standard pass over them: 16 x 3 rows x 2 lines are 6 KB
ALIGNMENT = 64  # bytes: a cache line, and the widest vector; worth 15 % on depthwise layers
NUMBERS_AT = object.__basicsize__  # bytes from the beginning of an array object to the address of its numbers: NumPy's C API
PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


class Room:
    """Makes C-contiguous arrays of one shape and dtype that begin on a cache line."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._size = math.prod(shape) * dtype.itemsize + ALIGNMENT
        self._numbers_of = quick(_numbers_of, types.int64)

    def __call__(self) -> Array:
        room = np.empty(self._size, np.uint8)
        return np.ndarray(self.shape, self.dtype, room, -self._numbers_of(id(room)) % ALIGNMENT)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A C-contiguous array that begins on a cache line."""
    dtype = np.dtype(dtype)
    return _at_a_line(np.empty(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8), shape, dtype)


def _at_a_line(room: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array in bytes that are ALIGNMENT more than it needs."""
    return np.ndarray(shape, dtype, room, -address_of(room) % ALIGNMENT)


def address_of(array: Array) -> int:
    """Where an array's numbers lie: 0.2 us, where `array.ctypes.data` takes 1 us."""
    return _numbers_of(id(array))  # type: ignore[no-any-return]


# Fresh memory costs 60 us a megabyte, because the system fills it with zeros page by page: that is as long as packing weights into
# it takes. So each Python thread keeps the scratch of its last call, and what calls packed for themselves: one array for each power
# of two, of LEAST_KEPT to MOST_KEPT bytes. Smaller ones come from memory that the process holds anyway.
LEAST_KEPT, MOST_KEPT = 128 * 1024, 64 * 1024**2


class _Room(np.ndarray[Any, Any]):
    """Bytes that may be recycled: no array of a user's lies in such."""


class _Kept(threading.local):
    def __init__(self) -> None:
        self.rooms: dict[int, _Room] = {}
        self.scratch: tuple[Array | None, int] = (None, 0)
        self.size = 0


_kept = _Kept()


def scratch(size: int) -> tuple[Array | None, int]:
    """Memory of at least so many bytes that begins on a cache line, and its address; this Python thread's until its next call."""
    if _kept.size >= size:
        return _kept.scratch
    array = aligned_empty((size,), np.uint8)
    memory = array, address_of(array)
    if size <= MOST_KEPT:
        _kept.size, _kept.scratch = size, memory
    return memory


def recycled_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """As aligned_empty, perhaps in memory that was given to `recycle`."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize + ALIGNMENT
    if not LEAST_KEPT <= size <= MOST_KEPT:
        return _at_a_line(np.empty(size, np.uint8), shape, dtype)
    bits = size.bit_length()
    room = _kept.rooms.pop(bits, None)  # nobody else gets it meanwhile
    return _at_a_line(_Room((1 << bits,), np.uint8) if room is None else room, shape, dtype)


def recycle(array: Array | None) -> None:
    """Take back the memory of an array from `recycled_empty` that nobody will look at again; leave any other alone."""
    room = None if array is None else array.base
    if isinstance(room, _Room):
        _kept.rooms[room.size.bit_length() - 1] = room


@compiled
def _numbers_of(array):
    return load(array + NUMBERS_AT)


def aligned_copy(array: Array) -> Array:
    """The array as native numbers, C-contiguous, on a cache line."""
    copy = aligned_empty(array.shape, array.dtype.newbyteorder("="))
    copy[...] = array
    return copy


def readable(array: Array) -> Array:
    """The array, or a copy of it if its numbers are byte-swapped, misaligned, or a fraction of a number apart."""
    whole_steps = all(step % array.itemsize == 0 for step in array.strides)
    return array if array.dtype.isnative and array.flags.aligned and whole_steps else aligned_copy(array)


def contiguous(array: Array) -> Array:
    """The array, or a copy if it is not native, aligned and C-contiguous."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned and array.dtype.isnative else aligned_copy(array)


def bordered(x: Array, pads: tuple[tuple[int, int], ...], mode: str, data_format: str) -> Array:
    """The image with its border drawn in."""
    widths = [(0, 0), *pads, (0, 0)] if data_format == "channels_last" else [(0, 0), (0, 0), *pads]
    return np.pad(x, widths, mode=PAD_MODES[mode])  # type: ignore[call-overload,no-any-return]


# Weights: (groups, filters, channels, *kernel), any view -----------------------------------------------------------------


def by_group(weight: Array, groups: int) -> Array:
    """From the weight of a convolution, (filters, channels / groups, *kernel)."""
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])


def exchanged(weight: Array, groups: int) -> Array:
    """From the weight of a transposed convolution, (channels, filters / groups, *kernel)."""
    return by_group(weight, groups).swapaxes(1, 2)


def mirrored(weight: Array, groups: int) -> Array:
    """Of the convolution that computes a transposed one of stride 1."""
    backwards = slice(None, None, -1)  # np.flip takes 3 us
    return exchanged(weight, groups)[(slice(None),) * 3 + (backwards,) * (weight.ndim - 2)]


# For direct kernels ------------------------------------------------------------------------------------------------------


def filters_last(weight: Array) -> Array:
    """[group][tap][channel][filter]."""
    groups, filters, channels, *kernel = weight.shape
    taps = weight.transpose(0, *range(3, weight.ndim), 2, 1)
    return aligned_copy(_noted(taps)).reshape(groups, math.prod(kernel), channels, filters)


def in_turn(weight: Array) -> Array:
    """[group][filter][channel][tap]: itself, if it lies so."""
    return contiguous(_noted(weight))


def taps_first(weight: Array) -> Array:
    """[tap][filter], from the weight of a depthwise convolution."""
    groups, filters, _, *kernel = weight.shape
    taps = weight.transpose(*range(3, weight.ndim), 2, 0, 1)
    return aligned_copy(_noted(taps)).reshape(math.prod(kernel), groups * filters)


# For tiled kernels: panels of as many filters as a tile has, each with its bias in front, filled up with zeros -----------


def lane_panels(weight: Array, bias: Array | None, width: int) -> Array:
    """[group][panel][bias, then block of BLOCK channels, tap, channel][filter]: filters in lanes."""
    return panels(pack_numbers, weight, bias, width, math.prod(weight.shape[2:]), order=BLOCK)


def in_blocks(weight: Array, bias: Array | None, strides: tuple[int, ...], outer: int) -> tuple[Array, Array | None]:
    """Filters of `Problem.in_blocks`, and their biases: the phases of `outer` dimensions, the filters, the other phases.

    Tap a of phase p is tap p + a * stride of the weight; taps run backwards: a convolution looks ahead, a transposed one back.
    """
    groups, filters, channels, *kernel = weight.shape
    taps = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]
    whole = [t * s for t, s in zip(taps, strides, strict=True)]
    padded = np.zeros((groups, filters, channels, *whole), weight.dtype.newbyteorder("="))
    padded[:, :, :, *map(slice, kernel)] = weight
    apart = padded.reshape(groups, filters, channels, *(n for pair in zip(taps, strides, strict=True) for n in pair))
    of_taps, of_phases = range(3, apart.ndim, 2), range(4, apart.ndim, 2)
    order = (*of_phases[:outer], 1, *of_phases[outer:])
    backwards = np.flip(apart, tuple(of_taps)).transpose(0, *order, 2, *of_taps)
    if bias is not None and bias.ndim == 1:
        bias = np.tile(np.repeat(bias, math.prod(strides[outer:])), math.prod(strides[:outer]))
    return backwards.reshape(groups, math.prod(strides) * filters, channels, *taps), bias


def row_panels(weight: Array, bias: Array | None, rows: int) -> Array:
    """[group][panel][bias, then channel, tap][filter]: filters in rows."""
    if rows > 1:
        return panels(pack_numbers, weight, bias, rows, math.prod(weight.shape[2:]))
    out = panels(pack_alone, _in_one_group(weight), bias, 1, math.prod(weight.shape[2:]))
    return out.reshape(*weight.shape[:2], *out.shape[2:])


def spread_panels(weight: Array, bias: Array | None, rows: int) -> Array:
    """[group][panel][bias, then channel, row of taps][filter][tap of the row]."""
    return panels(pack_spread, weight, bias, rows, math.prod(weight.shape[2:]))


def channel_panels(weight: Array, bias: Array | None, width: int) -> Array:
    """[panel][bias, then tap, columns of taps first][filter] of a depthwise weight; the last panel overlaps its neighbour."""
    return panels(pack_channels, _in_one_group(weight), bias, width, math.prod(weight.shape[3:]))[0]


def spread_channel_panels(weight: Array, bias: Array | None, width: int, stride: int) -> Array:
    """[panel][bias, then phase of rows, tap across, row of taps][filter]: as channel_panels, of every stride-th row, backwards.

    Of a phase with fewer rows than the first the last ones are zeros.
    """
    *_, taps_a, taps_b = weight.shape if weight.ndim > 4 else (1, *weight.shape)
    depth = stride * -(-taps_a // stride) * taps_b
    return panels(pack_channels, _in_one_group(weight), bias, width, depth, phases=stride, order=-1)[0]


def _in_one_group(weight: Array) -> Array:
    """All filters as one group's: those that no others share a panel or a vector of channels with."""
    return weight.reshape(1, weight.shape[0] * weight.shape[1], *weight.shape[2:])


# Packing as a kernel: its items are chunks of a group's filters, in lanes, times blocks of its channels ---------------------

ITEMS, LEAST_CHANNELS = 16, 16  # of all items, and channels of one: enough for the threads, and worth claiming
LEAST_LANES = 4
X, BIAS, OUT, SCRATCH = (job.PLACES[name] for name in ("x", "bias", "out", "scratch"))


class Task(NamedTuple):
    """What packs every weight of one shape that lies in memory in one way: as `launch.Ready`, and the result's shape.

    `copied` weights are copied first; of others `corner` says how many bytes before the first number the lowest one lies.
    """

    words: Array
    code: int
    items: int
    work: float
    scratch: int
    out_shape: tuple[int, ...]
    copied: bool
    corner: int


class Packing(NamedTuple):
    """How a weight was packed: by a task, or without one (None) by being copied in C order; `bias` if it is packed too."""

    task: Task | None
    weight: Array
    bias: Array | None


_observed: ContextVar[list[Packing] | None] = ContextVar("_observed", default=None)


@contextmanager
def observed() -> Iterator[list[Packing]]:
    """What is packed inside, in this thread: for those who pack other weights in the same way, in jitted code."""
    seen: list[Packing] = []
    before = _observed.set(seen)
    try:
        yield seen
    finally:
        _observed.reset(before)


def _noted(weight: Array) -> Array:
    """The same weight, which is to be copied in C order."""
    if (seen := _observed.get()) is not None:
        seen.append(Packing(None, weight, None))
    return weight


def panels(
    kernel: Any, weight: Array, bias: Array | None, unit: int, depth: int, *, scheme: Scheme | Nested | None = None,
    filled: int = 0, order: int = 1, phases: int = 1,
) -> Array:  # fmt: skip
    """[group][panel][bias, then `depth` numbers][filter], by a kernel like the ones below, `unit` filters a panel.

    A bias per pixel is added late, and 0 stands in its place. `filled` counts a group's channels and those of zeros that follow.
    """
    bias = None if bias is None or bias.ndim > 1 else contiguous(bias)
    fields = unit, depth, filled or weight.shape[2], order, phases, bias is not None
    task = _task(kernel, scheme, weight.shape, weight.strides, weight.dtype, weight.flags.aligned, *fields)
    if (seen := _observed.get()) is not None:
        seen.append(Packing(task, weight, bias))
    if task.copied:
        weight = aligned_copy(weight)
    out, words, seats = recycled_empty(task.out_shape, weight.dtype), task.words.copy(), threads.seats()
    _held, place = scratch(seats * task.scratch)
    words[X] = address_of(weight) - task.corner
    words[OUT], words[SCRATCH] = address_of(out), place
    if bias is not None:
        words[BIAS] = address_of(bias)
    threads.run(task.code, address_of(words), task.items, task.work, seats)
    return out


def _lies(shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, aligned: bool) -> tuple[bool, bool, list[int]]:
    """How a weight is read: whether it is copied first, whether its taps run backwards, and the steps of its first three axes.

    Taps have to follow one another, in one direction or the other; groups, filters and channels may lie anywhere.
    """
    size = dtype.itemsize
    in_turn = [size * math.prod(shape[axis:]) for axis in range(1, len(shape) + 1)]  # strides of a copy
    forwards, backwards = (
        all(length == 1 or step == sign * other for length, step, other in zip(shape[3:], strides[3:], in_turn[3:], strict=True))
        for sign in (1, -1)
    )
    copied = not (dtype.isnative and aligned and (forwards or backwards) and all(step % size == 0 for step in strides[:3]))
    steps = [step // size for step in (in_turn if copied else strides)[:3]]
    return copied, backwards and not forwards and not copied, steps


@lru_cache(maxsize=512)  # bounded: callers may come with ever new shapes
def _task(
    kernel: Any, scheme: Scheme | Nested | None, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, aligned: bool,
    unit: int, depth: int, filled: int, order: int, phases: int, has_bias: bool,
) -> Task:  # fmt: skip
    (groups, filters, channels, *kernel_size), lanes, size = shape, machine.lanes(dtype.name), dtype.itemsize
    if unit in (LEAST_LANES, 2 * LEAST_LANES):
        lanes = min(unit, lanes)  # a vector holds one panel: parts of vectors take masks
    taps, count, square = math.prod(kernel_size), -(-filters // unit), TileShape(lanes, 1, lanes, 1, dtype.name)
    copied, backwards, (group, filter, channel) = _lies(shape, strides, dtype, aligned)
    # As many lanes as are whole panels, or a part of one.
    chunk = unit * (lanes // unit) if unit <= lanes else math.gcd(unit, lanes)
    chunks = -(-count * unit // chunk)
    blocks = max(1, min(filled // LEAST_CHANNELS, -(-ITEMS // (groups * chunks))))
    block = -(-filled // blocks)
    blocks = -(-filled // block)
    rows = scheme.taps * phases * kernel_size[-1] if scheme else 0
    # A square before the numbers, where those that run backwards may end, the numbers, and what a scheme makes of them.
    room = lanes * (lanes + max(rows, -(-taps // lanes) * lanes) + (scheme.count * scheme.taps if scheme else 0) + 1)
    room = -(-room // ALIGNMENT) * ALIGNMENT
    values = {
        "groups": groups, "filters": filters, "kernel": three(kernel_size), "x_image": group, "filter_step": filter,
        "x_channel": channel, "backwards": backwards, "chunks": chunks, "chunk": chunk, "blocks": blocks,
        "channels": block, "all_channels": channels, "filled": filled, "panels": count, "panel": unit * (1 + depth), "unit": unit,
        "order": order, "phases": (1, phases, 1), "bias_kind": job.BIAS["channel" if has_bias else "none"],
        "scratch_size": room,
    }  # fmt: skip
    items, numbers = groups * chunks * blocks, groups * (filters * channels * taps + count * unit * (1 + depth))
    code, work = address(kernel, *job.arguments(dtype.name, square, scheme)), float(threads.OPERATIONS_A_BYTE * numbers * size)
    corner = (taps - 1) * size if backwards else 0
    return Task(job.fill(values), code, items, work, room * size, (groups, count, 1 + depth, unit), copied, corner)


@inlined
def share_of(item, seat, job):
    """An item's group, first filter and channels; room for its numbers in logical order; its panel."""
    chunk, block, g = item % job.chunks, item // job.chunks % job.blocks, item // (job.chunks * job.blocks)
    f, begin, lanes = chunk * job.chunk, block * job.channels, job.tile.lanes
    numbers, out = job.scratch + (seat * job.scratch_size + lanes * lanes), job.out + (g * job.panels + f // job.unit) * job.panel
    if block == 0:
        start = job.tile.splat(0) if job.bias_kind == 0 else job.tile.load(job.bias + (g * job.filters + f), 0, job.filters - f)
        start.store(numbers)
        put(job, numbers, out + f % job.unit, f)
    return g, f, begin, min(begin + job.channels, job.filled), numbers, out + (f % job.unit + job.unit)


@inlined
def put(job, numbers, out, f):
    """One number of each filter of a chunk, to its panel."""
    tile = job.tile
    if job.chunk == tile.lanes and job.unit >= tile.lanes:
        tile.load(numbers).store(out)
    else:
        for k in range(0, min(job.chunk, job.panels * job.unit - f), job.unit):
            tile.load(numbers + k).store(out, min(job.unit, job.chunk))
            out += job.panel


@inlined
def turn(job, weights, filters, count, numbers):
    """numbers[k][lane] = number k of `count` neighbouring ones of each filter, backwards if taps run so; zeros without filters."""
    square, lanes, step = job.tile, job.tile.lanes, job.filter_step
    there, apart = (numbers + (count - 1) * lanes, -lanes) if job.backwards else (numbers, lanes)
    if step == 1 and count == 1:
        square.load(weights, 0, filters).store(there)
        return
    for k in range(0, count, lanes):
        if filters >= lanes and count - k >= lanes:
            square.load_tile(weights + k, step).transpose().store(there + k * apart, apart)
        else:
            square.load_tile(weights + k, step, filters, count - k).transpose().store(there + k * apart, apart)


@compiled
def pack_numbers(item, seat, job):
    """Numbers in the order of the weight, or of job.order channels at a time, a power of two, tap after tap."""
    taps, unit, lanes = job.kernel[0] * job.kernel[1] * job.kernel[2], job.unit, job.tile.lanes
    g, f, begin, end, numbers, out = share_of(item, seat, job)
    weights = job.x + (g * job.x_image + f * job.filter_step)
    whole = job.x_channel == taps and not job.backwards  # all channels of a filter follow one another
    run, piece = ((end - begin) * taps, lanes) if whole else (taps, taps)
    for first in range(begin * taps, end * taps, run):
        for k in range(0, run, piece):
            count, c, tap = min(piece, run - k), (first + k) // taps, (first + k) % taps
            turn(job, weights + (c * job.x_channel + tap), job.filters - f, count, numbers)
            for n in range(count):
                block = c & -job.order
                place = block * taps + tap * min(job.order, job.all_channels - block) + c - block
                put(job, numbers + n * lanes, out + place * unit, f)
                tap += 1
                if tap == taps:
                    tap, c = 0, c + 1


@compiled
def pack_alone(item, seat, job):
    """Panels of one filter each: all of its numbers in turn."""
    taps, depth = job.kernel[0] * job.kernel[1] * job.kernel[2], job.panel - 1
    for f in range(item * job.chunk, min((item + 1) * job.chunk, job.filters)):
        out, weights = job.out + f * job.panel, job.x + f * job.filter_step
        out[0] = 0 if job.bias_kind == 0 else job.bias[f]
        for c in range(depth // taps):
            for tap in range(taps):
                out[1 + c * taps + tap] = weights[c * job.x_channel + (taps - 1 - tap if job.backwards else tap)]


@compiled
def pack_spread(item, seat, job):
    """Numbers in the order of the weight, rows of taps whole: [channel, row of taps][filter][tap of the row]."""
    taps_b, unit = job.kernel[2], job.unit
    rows = job.kernel[0] * job.kernel[1]
    g, f, begin, end, _, _ = share_of(item, seat, job)
    for filter in range(f, min(f + job.chunk, job.panels * unit)):
        panel = job.out + ((g * job.panels + filter // unit) * job.panel + unit + filter % unit * taps_b)
        for c in range(begin, end):
            weights = job.x + (g * job.x_image + filter * job.filter_step + c * job.x_channel)
            for a in range(rows):
                for b in range(taps_b):
                    tap = a * taps_b + b
                    number = weights[rows * taps_b - 1 - tap if job.backwards else tap] if filter < job.filters else 0
                    panel[(c * rows + a) * unit * taps_b + b] = number


@compiled
def pack_channels(item, seat, job):
    """Numbers of a vector of channels, columns of taps first, phase by phase of rows; the last vector overlaps its neighbour."""
    tile, lanes, taps_b, rows, phases = job.tile, job.tile.lanes, job.kernel[2], job.kernel[0] * job.kernel[1], job.phases[1]
    f, numbers = max(0, min(item * lanes, job.filters - lanes)), job.scratch + (seat * job.scratch_size + lanes * lanes)
    left, out = job.filters - f, job.out + item * job.panel
    start = tile.splat(0) if job.bias_kind == 0 else tile.load(job.bias + f, 0, left)
    start.store(out)
    turn(job, job.x + f * job.filter_step, left, rows * taps_b, numbers)
    for phase in range(phases):
        for column in range(taps_b):
            b = column if job.order > 0 else taps_b - 1 - column
            for a in range(phase, phase + (rows + phases - 1) // phases * phases, phases):
                out += lanes
                number = tile.load(numbers + (a * taps_b + b) * lanes) if a < rows else tile.splat(0)
                number.store(out)
