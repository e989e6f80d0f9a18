"""What a kernel is told: one run of 64-bit words that says where the arrays lie, and the geometry of the problem.

Every CPU kernel is `kernel(item, seat, job)`: which part of the work, which thread does it, and a `Job`. So one compiled
`serve` runs them all, a call passes five integers however many arrays it has, and the same kernels serve Python, jitted
code and C. `FIELDS` is the layout; in compiled code `job.stride` is three int64, `job.x` a Pointer of the job's dtype.

Geometry is always three-dimensional: a plane has depth 1, a line height 1 too. Steps are distances in numbers between
neighbours in memory, by which any strided view is read where it lies.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload_attribute, register_model

from fastconv.cpu.simd import NUMBA_FLOATS, PointerType

WORD = ir.IntType(64)

# name: (words, what it is). An "input" is a pointer that is only read; "three" is depth, height, width;
# "number" a float64 that arrives as the job's dtype.
FIELDS: dict[str, tuple[int, str]] = {
    "x": (1, "input"),
    "weight": (1, "input"),
    "bias": (1, "input"),
    "residual": (1, "input"),
    "grad": (1, "input"),  # the second input of a gradient
    "out": (1, "pointer"),
    "scratch": (1, "pointer"),  # scratch_size numbers for each seat
    "scratch_size": (1, "integer"),
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
    "x_image": (1, "integer"),  # step from one image of the batch to the next, in x
    "x_channel": (1, "integer"),
    "x_steps": (3, "three"),
    "grad_image": (1, "integer"),  # the same of `grad`
    "grad_channel": (1, "integer"),
    "grad_steps": (3, "three"),
    "bands": (1, "integer"),  # the result's rows fall into so many bands, `band` rows each, the last perhaps fewer
    "band": (1, "integer"),
    "bias_kind": (1, "integer"),  # see BIAS
    "has_residual": (1, "integer"),
    "activation": (1, "integer"),  # see fastconv.epilogue
    "low": (1, "number"),
    "high": (1, "number"),
    "outer_weight": (1, "input"),  # of the pointwise part of a separable layer, whose epilogue is the one above
    "outer_filters": (1, "integer"),
    "inner_bias": (1, "input"),  # and the epilogue of its depthwise part
    "inner_bias_kind": (1, "integer"),
    "inner_activation": (1, "integer"),
    "inner_low": (1, "number"),
    "inner_high": (1, "number"),
}
BIAS = {"none": 0, "channel": 1, "pixel": 2}
WORDS = sum(words for words, _ in FIELDS.values())
_PLACES = dict(zip(FIELDS, np.cumsum([0, *(words for words, _ in FIELDS.values())]).tolist()[:-1], strict=True))


class JobType(types.Type):  # type: ignore[misc]
    """One type for each dtype of the arrays."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Job({dtype})")


@register_model(JobType)
class _JobModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, WORD.as_pointer())


ARGUMENTS = {name: (types.int64, types.int64, JobType(dtype)) for name, dtype in NUMBA_FLOATS.items()}


def fill(values: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A job's words; fields that are not given are 0. The arrays whose addresses it holds must outlive it."""
    words = [0] * WORDS  # a list: setting 50 items of an array one by one takes 10 us
    for name, value in values.items():
        kind, place = FIELDS[name][1], _PLACES[name]
        if kind == "three":
            words[place : place + 3] = value
        elif kind == "number":
            words[place] = struct.unpack("q", struct.pack("d", value))[0]
        else:
            words[place] = value
    return np.array(words, np.int64)


def _loaded(builder: Any, job: Any, place: Any) -> Any:
    """A word, which no kernel writes: LLVM need not load it again after each store into a result."""
    word = builder.load(builder.gep(job, [place]))
    word.set_metadata("invariant.load", builder.module.add_metadata([]))
    return word


@intrinsic
def _word(typing, job, place):
    return types.int64(job, types.intp), lambda context, builder, signature, args: _loaded(builder, *args)


@intrinsic
def _address(typing, job, place):
    result = PointerType(job.dtype)
    return result(job, types.intp), _address_at(result)


@intrinsic
def _input(typing, job, place):
    result = PointerType(job.dtype, only_read=True)
    return result(job, types.intp), _address_at(result)


def _address_at(result: Any) -> Any:

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(_loaded(builder, *args), context.get_value_type(result))

    return build


@intrinsic
def _number(typing, job, place):
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        double = builder.bitcast(_loaded(builder, *args), ir.DoubleType())
        return context.cast(builder, double, types.float64, job.dtype)

    return job.dtype(job, types.intp), build


def _field(name: str, kind: str, place: int) -> None:
    @overload_attribute(JobType, name)
    def get(job):
        if kind == "pointer":
            return lambda job: _address(job, place)
        if kind == "input":
            return lambda job: _input(job, place)
        if kind == "number":
            return lambda job: _number(job, place)
        if kind == "three":
            return lambda job: (_word(job, place), _word(job, place + 1), _word(job, place + 2))
        return lambda job: _word(job, place)


for _name, (_, _kind) in FIELDS.items():
    _field(_name, _kind, _PLACES[_name])
