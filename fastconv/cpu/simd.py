"""Values that kernels compute with: pointers and register tiles for Numba.

Numba knows scalars and arrays. A fast convolution needs more kinds of value, and this file gives it them:

    Pointer     where a run of numbers lies      pointer(address, like), p + n, p[i], p[i] = v; no bounds, no wraparound, no
                                                 reference counts: whoever calls the kernel keeps the array alive
    Tile        `rows` x `vectors` registers     shape.zeros(), acc.rank1(a, b), acc.store(p, step)

A `TileShape` says how large they are. Its numbers are part of its *type*, so a kernel that takes one as an ordinary argument
is compiled for exactly that shape, and cached on disk under it. With AVX-512 a core has 32 registers of 16 float32, with AVX2
16 of 8; a tile, the vectors of one operand and one broadcast must fit: rows * vectors + vectors + 1 of them.

With atomics.py and job.py, the only files that know LLVM. Every operation becomes one instruction, or one a register.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import NativeValue, intrinsic, models, overload, overload_attribute, overload_method, register_model, unbox

INDEX = ir.IntType(64)
LLVM_FLOATS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
NUMBA_FLOATS = {"float32": types.float32, "float64": types.float64}


# Types: what Numba calls the values, and what LLVM holds for each ---------------------------------------------------------


@dataclass(frozen=True)
class TileShape:
    """Size of a register tile. `step`: distance in memory between the numbers that `rank1` broadcasts to successive rows.

    Not a tuple: Numba would take two tuples of equal element types for one type, and run the wrong kernel.
    """

    rows: int
    vectors: int
    lanes: int
    step: int = 1
    dtype: str = "float32"

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.vectors * self.lanes

    @cached_property
    def _numba_type_(self) -> TileShapeType:
        """Read by Numba's dispatcher: 0.35 us a call; through typeof_impl it would be 5.6."""
        return TileShapeType(self)


class TileShapeType(types.Type):  # type: ignore[misc]
    """One type for each shape."""

    def __init__(self, shape: TileShape) -> None:
        self.shape = replace(shape)  # a copy that does not hold this type in turn: the disk cache pickles types
        super().__init__(f"TileShape{astuple(shape)}")


class PointerType(types.Type):  # type: ignore[misc]
    """One type for each dtype, and for what a kernel only reads: its inputs, which no output overlaps."""

    def __init__(self, dtype: Any, only_read: bool = False) -> None:
        self.dtype, self.only_read = dtype, only_read
        super().__init__(f"{'Input' if only_read else ''}Pointer({dtype})")


class TileType(types.Type):  # type: ignore[misc]
    """One type for each shape."""

    def __init__(self, shape: TileShape) -> None:
        self.shape = shape
        super().__init__(f"Tile{astuple(shape)}")


register_model(TileShapeType)(models.OpaqueModel)


def _held_as(numba_type: Any, llvm_type: Callable[[Any], Any]) -> None:
    @register_model(numba_type)
    class Model(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, fe_type: Any) -> None:
            super().__init__(manager, fe_type, llvm_type(fe_type))


def _vector(shape: TileShape) -> Any:
    return ir.VectorType(LLVM_FLOATS[shape.dtype], shape.lanes)


_held_as(PointerType, lambda t: LLVM_FLOATS[str(t.dtype)].as_pointer())
_held_as(TileType, lambda t: ir.ArrayType(_vector(t.shape), t.shape.rows * t.shape.vectors))


@unbox(TileShapeType)
def _unbox_shape(fe_type: Any, value: Any, c: Any) -> Any:
    return NativeValue(c.context.get_dummy_value())


def _constant(name: str) -> None:
    of = operator.attrgetter(name)

    @overload_attribute(TileShapeType, name)
    def get(shape):
        value = of(shape.shape)
        return lambda shape: value


for _field in ("rows", "vectors", "lanes", "step", "width"):
    _constant(_field)


# Pointers -------------------------------------------------------------------------------------------------------------


@intrinsic
def _pointer_of_array(typing, array):
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(array)(context, builder, args[0]).data

    return PointerType(array.dtype)(array), build


@intrinsic
def _moved(typing, p, n):
    return p(p, types.intp), lambda context, builder, signature, args: builder.gep(args[0], [args[1]])


def _inputs(builder: Any) -> Any:
    """The alias scope of all inputs. Told apart from outputs, loops over both need no overlap checks at run time:
    a 64 x 56 x 56 layer's direct kernel gains half its speed.
    """
    domain = builder.module.add_metadata(["fastconv"])
    return builder.module.add_metadata([builder.module.add_metadata(["fastconv inputs", domain])])


# `inbounds`: p itself and p + i lie in the array, if anything is read or written there. Then LLVM knows that an address does
# not wrap around, and turns loops over every other number into loads and shuffles: a gather each is 2.5 times as slow.
@intrinsic
def _read(typing, p, i):
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(builder.gep(args[0], [args[1]], inbounds=True))
        value.set_metadata("alias.scope" if p.only_read else "noalias", _inputs(builder))
        return value

    return p.dtype(p, types.intp), build


@intrinsic
def _write(typing, p, i, value):
    if p.only_read:
        raise TypingError("an input is only read")

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], builder.gep(args[0], [args[1]], inbounds=True)).set_metadata("noalias", _inputs(builder))
        return context.get_dummy_value()

    return types.void(p, types.intp, p.dtype), build


def pointer(array: Any) -> Any:
    """Where an array begins; for use in compiled code, and the array must outlive it."""
    raise NotImplementedError("pointer() works in compiled code only")


@overload(pointer)
def _pointer(array):
    if not (isinstance(array, types.Array) and array.dtype in NUMBA_FLOATS.values() and array.layout == "C"):
        raise TypingError(f"pointer: got {array}, expected a C-contiguous array of float32 or float64")
    return lambda array: _pointer_of_array(array)


@overload(operator.add)
@overload(operator.iadd)
def _add(p, n):
    if isinstance(p, PointerType) and isinstance(n, types.Integer):
        return lambda p, n: _moved(p, n)
    return None


@overload(operator.getitem)
def _getitem(p, i):
    if isinstance(p, PointerType) and isinstance(i, types.Integer):
        return lambda p, i: _read(p, i)
    return None


@overload(operator.setitem)
def _setitem(p, i, value):
    if isinstance(p, PointerType) and isinstance(i, types.Integer):
        return lambda p, i, value: _write(p, i, value)
    return None


# Tiles ----------------------------------------------------------------------------------------------------------------


def _aligned_to_a_number(instruction: Any, shape: TileShape) -> Any:
    instruction.align = 4 if shape.dtype == "float32" else 8
    return instruction


def _load(builder: Any, p: Any, shape: TileShape) -> Any:
    return _aligned_to_a_number(builder.load(builder.bitcast(p, _vector(shape).as_pointer())), shape)


def _splat(builder: Any, scalar: Any, shape: TileShape) -> Any:
    empty = _vector(shape)(ir.Undefined)
    one = builder.insert_element(empty, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(one, empty, ir.VectorType(ir.IntType(32), shape.lanes)(None))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    bits = 32 if isinstance(c.type.element, ir.FloatType) else 64
    function = ir.FunctionType(c.type, [c.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.fma.v{c.type.count}f{bits}"), [a, b, c])


def _places(shape: TileShape) -> Iterator[tuple[int, int, int]]:
    """(row, vector, place among the registers)."""
    for row in range(shape.rows):
        for vector in range(shape.vectors):
            yield row, vector, row * shape.vectors + vector


@intrinsic
def _zeros(typing, shape):
    tile = TileType(shape.shape)
    return tile(shape), lambda context, builder, signature, args: context.get_value_type(tile)(None)


@intrinsic
def _rank1(typing, tile, a, b):
    shape = tile.shape

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        acc, a, b = args
        right = [_load(builder, builder.gep(b, [INDEX(v * shape.lanes)]), shape) for v in range(shape.vectors)]
        for row in range(shape.rows):  # each broadcast just before its multiply-adds: LLVM spills tall tiles otherwise
            left = _splat(builder, builder.load(builder.gep(a, [INDEX(row * shape.step)])), shape)
            for vector in range(shape.vectors):
                place = row * shape.vectors + vector
                acc = builder.insert_value(acc, _fma(builder, left, right[vector], builder.extract_value(acc, place)), place)
        return acc

    return tile(tile, a, b), build


@intrinsic
def _tile_store(typing, tile, p, step):
    shape = tile.shape

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile, p, step = args
        for row, vector, place in _places(shape):
            there = builder.gep(builder.gep(p, [builder.mul(step, INDEX(row))]), [INDEX(vector * shape.lanes)])
            there = builder.bitcast(there, _vector(shape).as_pointer())
            _aligned_to_a_number(builder.store(builder.extract_value(tile, place), there), shape)
        return context.get_dummy_value()

    return types.void(tile, p, types.intp), build


@overload_method(TileShapeType, "zeros")
def _shape_zeros(shape):
    """A tile of zeros."""
    return lambda shape: _zeros(shape)


@overload_method(TileType, "rank1")
def _tile_rank1(tile, a, b):
    """tile[r, :] + a[r * step] * b[0:width]: one multiply-add a register."""
    return lambda tile, a, b: _rank1(tile, a, b)


@overload_method(TileType, "store")
def _tile_store_rows(tile, p, step):
    """Row r goes to p[r * step : r * step + width]."""
    return lambda tile, p, step: _tile_store(tile, p, step)
