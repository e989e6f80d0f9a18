"""What a kernel is told: one run of 64-bit words that says where the arrays lie, and the geometry of the problem.

Every CPU kernel is `kernel(item, seat, job)`: which part of the work, which thread does it, and a `Job`. So one compiled
`serve` runs them all, a call passes five integers however many arrays it has, and the same kernels serve Python, jitted
code and C. `FIELDS` is the layout; in compiled code `job.stride` is three int64, `job.x` a Pointer of the job's dtype.

Geometry is always three-dimensional: a plane has depth 1, a line height 1 too. Steps are distances in numbers between
neighbours in memory, by which any strided view is read where it lies. The register tile of a tiled kernel is in the job's
type, as `job.tile`, and so are `job.short`, one row shorter, `job.few`, of half the rows, `job.square`, the tile that it
transposes with, `job.half_square` and `job.quarter_square` of that, and `job.scheme` (toom.py): each has machine code of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

import fastconv.cpu.transforms  # noqa: F401, gives schemes the methods that kernels call
from fastconv.cpu.atomics import WORD, intrinsic
from fastconv.cpu.simd import NUMBA_FLOATS, PointerType, TileShape
from fastconv.cpu.toom import Nested, Scheme
from fastconv.cpu.values import attribute, held_as, method

WORD_BYTES = WORD.width // 8

# name: (words, what it is). An "input" is a pointer that is only read, "integers" one to int64; "three" is depth, height,
# width; "number" a float64 that arrives as the job's dtype. A kernel reads what its plan has filled in; all else is 0. Where a
# field serves one file, or means something else in some file, its comment names that file.
FIELDS: dict[str, tuple[int, str]] = {
    # Arrays.
    "x": (1, "input"),
    "weight": (1, "input"),
    "bias": (1, "input"),
    "residual": (1, "input"),
    "grad": (1, "input"),  # the second input of a gradient
    "out": (1, "pointer"),
    "scratch": (1, "pointer"),  # scratch_size numbers for each seat
    "scratch_size": (1, "integer"),
    # The problem.
    "beside": (1, "integer"),  # tiled_standard: how many more groups an item computes beside its first one
    "batch": (1, "integer"),
    "groups": (1, "integer"),
    "channels": (1, "integer"),  # of one group
    "filters": (1, "integer"),  # of one group
    "space": (3, "three"),
    "out_space": (3, "three"),
    "kernel": (3, "three"),
    "stride": (3, "three"),
    "before": (3, "three"),  # rows of padding before the image
    "dilation": (3, "three"),
    # How the image lies, and a gradient: numbers from one image of the batch, channel, or pixel to the next.
    "x_image": (1, "integer"),
    "x_channel": (1, "integer"),
    "x_steps": (3, "three"),
    "grad_image": (1, "integer"),
    "grad_channel": (1, "integer"),
    "grad_steps": (3, "three"),
    # How the work is divided: the result's rows into `bands` of `band` rows each, a group's filters into `chunks` of `chunk`
    # filters each; the last of either may be smaller.
    "bands": (1, "integer"),
    "band": (1, "integer"),
    "chunks": (1, "integer"),
    "chunk": (1, "integer"),
    # Packed weights.
    "panels": (1, "integer"),  # that a group has
    "panel": (1, "integer"),  # numbers in one of them
    "unit": (1, "integer"),  # filters in one of them
    "filter_step": (1, "integer"),  # packing.py: numbers from one filter of the weight to the next, as x_channel for channels
    "backwards": (1, "integer"),  # 1 if the taps of each filter run backwards in memory
    "filled": (1, "integer"),  # channels of a group, with those of zeros that fill the last vector
    "order": (1, "integer"),  # packing.py: this many channels are packed together, tap after tap
    "fresh": (1, "integer"),  # winograd.py: 1 if the kernel transforms the weights itself, from where they lie, to `panel_at`
    "weight_steps": (3, "three"),  # of such weights: numbers from group to group, filter to filter, channel to channel
    # How many are computed at a time: blocks of channels; in grouped.py channels and filters; in pointwise.py filters.
    "together": (1, "integer"),
    "span": (1, "integer"),  # lines.py: lines of the image that a window spans
    "panel_at": (1, "integer"),  # winograd.py: where fresh weights lie in the scratch
    # Sheets, the image's part that an item has copied: see sheets.py. Sums lie behind them in the scratch.
    "table": (1, "integers"),
    "phases": (3, "three"),
    "phase_rows": (1, "integer"),
    "pitch": (1, "integer"),
    "phase_size": (1, "integer"),
    "sheet": (1, "integer"),
    "sums_at": (1, "integer"),
    # transposed.py: the result's stride, the dilation, and how much is cropped; in each dimension the distance from a tap to the
    # next one that reaches the same output, and how far back that tap's source lies.
    "spread": (3, "three"),
    "apart": (3, "three"),
    "crop": (3, "three"),
    "hop": (3, "three"),
    "back": (3, "three"),
    "result": (3, "three"),  # blocks.py: filters of a group, rows of the result, numbers in a row
    "run": (1, "integer"),  # rows of the result that are summed before they are put; strassen.py: pairs multiplied at a time
    # Strips of a row, four numbers each in the table from `strips_at` on: see strips.py.
    "strips": (1, "integer"),
    "strips_at": (1, "integer"),
    "sums_pitch": (1, "integer"),  # numbers from one row of sums to the next
    # gradients.py: a group's `all_channels` fall into `blocks` of `channels` each, the images into `parts`.
    "blocks": (1, "integer"),
    "all_channels": (1, "integer"),
    "parts": (1, "integer"),
    "grads_at": (1, "integer"),  # where gradients begin in the scratch
    "places": (1, "integer"),  # where the places of a window's numbers begin in the table
    "exchanged": (1, "integer"),  # 1 if image and gradient stand for each other
    "strip": (1, "integer"),  # strassen.py: numbers that one strip's sums of the image take
    "head": (1, "integer"),  # strassen.py: rows of a panel before its first sum
    "images": (1, "integer"),  # winograd.py, tiled_depthwise_two: how many an item computes
    # Winograd's schemes: winograd.py, and files that share its layout.
    "rows_seen": (1, "integer"),  # rows of the image that an item sees
    "columns_seen": (1, "integer"),
    "lane_channels": (1, "integer"),  # channels from one lane to the next
    "tiles": (1, "integer"),  # of an item; the last ones may be unused
    "across": (1, "integer"),  # tiles in a row
    "beyond": (1, "integer"),  # those of them that reach beyond the result
    "edge": (3, "three"),  # outputs that are wanted of the last row of tiles, and of the last column
    "spared": (3, "three"),  # products that those tiles do without: bit k stands for the k-th
    "ends": (3, "three"),  # winograd_gradients.py: 1 if the last row of tiles reaches beyond the plane, 1 if the last column does
    "long": (3, "three"),  # phases of rows, and of columns, with one pixel (phases.py) or tap (blocks.py) more than the others
    "down": (1, "integer"),  # rows of tiles in a band; in separable.py rows of the result that are turned together
    "plane": (1, "integer"),  # columns.py: numbers of one point of one phase
    "columns_at": (1, "integer"),  # where transformed columns begin in the scratch; in separable.py the rows to be turned
    "values_at": (1, "integer"),  # where the image's values at the points begin
    "products_at": (1, "integer"),  # and the products
    "points": (3, "three"),  # points of the scheme in each dimension
    "matrices": (3, "three"),  # matrices of weights that serve them
    "last": (1, "integer"),  # 1 if the result is channels last
    # Addresses of functions that several kernels call: compiled once, and not into each of them.
    "fill_code": (1, "integer"),
    "finish_code": (1, "integer"),
    "put_code": (1, "integer"),
    "multiply_code": (1, "integer"),
    "transform_code": (1, "integer"),
    # The epilogue.
    "bias_kind": (1, "integer"),  # see BIAS
    "has_residual": (1, "integer"),
    "activation": (1, "integer"),  # see fastconv.epilogue
    "low": (1, "number"),
    "high": (1, "number"),
    "late": (1, "integer"),  # 1 if more than a bias per channel and a clip is to be done to a tile's sums: see epilogue.py
    "least": (1, "number"),  # what a tile's sums are clipped to in registers; infinite if it is done late
    "most": (1, "number"),
    # A separable layer: the weights of its pointwise part, whose epilogue is the one above, and the epilogue of its depthwise part.
    "outer_weight": (1, "input"),
    "outer_filters": (1, "integer"),
    "inner_bias": (1, "input"),
    "inner_bias_kind": (1, "integer"),
    "inner_activation": (1, "integer"),
    "inner_low": (1, "number"),
    "inner_high": (1, "number"),
    "inner_late": (1, "integer"),  # as late, least and most
    "inner_least": (1, "number"),
    "inner_most": (1, "number"),
    "inner_finish_code": (1, "integer"),
    "outer_panel": (1, "integer"),
}
BIAS = {"none": 0, "channel": 1, "pixel": 2}
WORDS = sum(words for words, _ in FIELDS.values())
PLACES = dict(zip(FIELDS, np.cumsum([0, *(words for words, _ in FIELDS.values())]).tolist()[:-1], strict=True))


class JobType(types.Type):  # type: ignore[misc]
    """One type for each dtype of the arrays, each tile and each scheme."""

    def __init__(self, dtype: Any, tile: TileShape | None, scheme: Scheme | Nested | None = None) -> None:
        self.dtype, self.tile = dtype, tile and replace(tile)  # a copy without its cached type: the disk cache pickles types
        self.scheme = None if scheme is None else scheme._numba_type_
        super().__init__(f"Job({dtype}, {tile}, {self.scheme})")


held_as(JobType, lambda t: WORD.as_pointer())


@lru_cache(maxsize=1024)  # as many as there are tiles
def arguments(dtype: str, tile: TileShape | None = None, scheme: Scheme | Nested | None = None) -> tuple[Any, Any, JobType]:
    """The types of (item, seat, job)."""
    return types.int64, types.int64, JobType(NUMBA_FLOATS[dtype], tile, scheme)


def fill(values: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A job's words; fields that are not given are 0. The arrays whose addresses it holds must outlive it."""
    words = [0] * WORDS  # a list: setting 50 items of an array one by one takes 10 us
    for name, value in values.items():
        kind, place = FIELDS[name][1], PLACES[name]
        if kind == "three":
            words[place : place + 3] = value
        elif kind == "number":
            words[place] = struct.unpack("q", struct.pack("d", value))[0]
        else:
            words[place] = value
    return np.array(words, np.int64)


@intrinsic  # type: ignore[untyped-decorator]
def own_copy(typing_context: Any, words: Any) -> Any:
    """A job's words at this address, copied to the caller's stack: the address of the copy. 0.01 us; `words.copy()` takes 0.17."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        copy = cgutils.alloca_once(builder, ir.ArrayType(WORD, WORDS))
        given = builder.inttoptr(values[0], copy.type)
        cgutils.raw_memcpy(builder, copy, given, WORD(WORDS), WORD_BYTES)
        return builder.ptrtoint(copy, WORD)

    return types.int64(types.int64), build


# Attributes of a job, and the functions that it brings -----------------------------------------------------------------


def _word(builder: Any, job: Any, place: int) -> Any:
    """No kernel changes its job, so that LLVM may read a word once for all."""
    word = builder.load(builder.gep(job, [WORD(place)]))
    word.set_metadata("invariant.load", builder.module.add_metadata([]))
    return word


def _field(name: str, kind: str, place: int) -> None:
    def integer(job: Any) -> Any:
        return types.int64, lambda builder, value: _word(builder, value, place)

    def three(job: Any) -> Any:
        def build(builder: Any, value: Any) -> Any:
            numbers = ir.ArrayType(WORD, 3)(ir.Undefined)
            for i in range(3):
                numbers = builder.insert_value(numbers, _word(builder, value, place + i), i)
            return numbers

        return types.UniTuple(types.int64, 3), build

    def number(job: Any) -> Any:
        def build(builder: Any, value: Any) -> Any:
            double = builder.bitcast(_word(builder, value, place), ir.DoubleType())
            return double if job.dtype == types.float64 else builder.fptrunc(double, ir.FloatType())

        return job.dtype, build

    def pointer(job: Any) -> Any:
        result = PointerType(types.int64 if kind == "integers" else job.dtype, only_read=kind != "pointer")
        llvm = {types.int64: WORD, types.float32: ir.FloatType(), types.float64: ir.DoubleType()}[result.dtype]
        return result, lambda builder, value: builder.inttoptr(_word(builder, value, place), llvm.as_pointer())

    attribute(JobType, name, {"integer": integer, "three": three, "number": number}.get(kind, pointer))


for _name, (_, _kind) in FIELDS.items():
    _field(_name, _kind, PLACES[_name])


def _shape(name: str, of: Callable[[TileShape], TileShape]) -> None:
    def rule(job: Any) -> Any:
        return of(job.tile)._numba_type_, lambda builder, value: ir.IntType(8).as_pointer()(None)

    attribute(JobType, name, rule)


attribute(JobType, "scheme", lambda job: (job.scheme, lambda builder, value: ir.IntType(8).as_pointer()(None)))


_shape("tile", lambda tile: tile)
_shape("short", lambda tile: tile.short)
_shape("few", lambda tile: tile.few)
_shape("square", lambda tile: tile.square)
_shape("half_square", lambda tile: tile.half_square)
_shape("quarter_square", lambda tile: tile.half_square.half_square)


# A tiled kernel has machine code for each tile; what it shares with all others it calls by address: inlined, copying sheets
# and seven activations would make 0.7 s of compilation 4 s.


def _call(field: str, job: Any, *given: Any) -> Any:
    arguments = [types.int64 if isinstance(kind, types.Integer) else kind for kind in given]

    def build(builder: Any, job: Any, *values: Any) -> None:
        function = ir.FunctionType(ir.VoidType(), [value.type for value in (job, *values)])
        builder.call(builder.inttoptr(_word(builder, job, PLACES[field]), function.as_pointer()), [job, *values])

    return types.void(*arguments), build


@method(JobType, "fill_sheets")
def fill_sheets(job, sheets, image, plane, line):
    """Copy the part of the image that some rows of the result see, those of one plane from `line` on: sheets.py."""
    return _call("fill_code", job, sheets, image, plane, line)


@method(JobType, "fill_lines")
def fill_lines(job, lines, image, first, count):
    """Copy the part of the image that a band of tiles sees, `count` channels from `first` on, one in each lane: winograd.py."""
    return _call("fill_code", job, lines, image, first, count)


@method(JobType, "fill_band")
def fill_band(job, scratch, n, begin, end):
    """Compute a separable layer's depthwise part for rows begin..end of image n into the scratch: separable.py."""
    return _call("fill_code", job, scratch, n, begin, end)


@method(JobType, "multiply")
def multiply(job, v, u, m, added, blocks, begin, end, block):
    """Multiply tiles begin..end by a panel of filters, at one point of a scheme: winograd.py."""
    return _call("multiply_code", job, v, u, m, added, blocks, begin, end, block)


@method(JobType, "transform_panel")
def transform_panel(job, panel, weights, bias, filters, channels, count):
    """Transform the filters of one panel, and put them where `multiply` reads them: winograd.py."""
    return _call("transform_code", job, panel, weights, bias, filters, channels, count)


@method(JobType, "multiply_columns")
def multiply_columns(job, v, u, m, numbers):
    """As `multiply`, of columns that were transformed along themselves only: columns.py."""
    return _call("multiply_code", job, v, u, m, numbers)


@method(JobType, "multiply_pairs")
def multiply_pairs(job, scratch, x, weights, room, step, second, channels, chunk, image, begin, count):
    """Compute the seven products of a band of pairs of pixels: strassen.py."""
    return _call("multiply_code", job, scratch, x, weights, room, step, second, channels, chunk, image, begin, count)


@method(JobType, "put_rows")
def put_rows(job, sums, step, n, first, width, pixel, count):
    """Put the sums of `width` filters and `count` pixels where they belong in the result: standard.py."""
    return _call("put_code", job, sums, step, n, first, width, pixel, count)


@method(JobType, "multiply_groups")
def multiply_groups(job, v, u, m, down, across, below, beside):
    """As `multiply`, of groups with few channels: grouped.py."""
    return _call("multiply_code", job, v, u, m, down, across, below, beside)


@method(JobType, "finish_row")
def finish_row(job, row, count, image, place):
    """Finish a row of sums that were stored as they came from a register tile: rows.py."""
    return _call("finish_code", job, row, count, image, place)


@method(JobType, "finish_inner_row")
def finish_inner_row(job, row, count, image, place):
    """As `finish_row`, for a row of a separable layer's depthwise part."""
    return _call("inner_finish_code", job, row, count, image, place)
