"""Values that kernels compute with: pointers, vectors and register tiles for Numba.

Numba knows scalars and arrays. A fast convolution needs three more kinds of value, and this file gives it them:

    Pointer     where a run of numbers lies      pointer(array), p + n, p[i], p[i] = v, p.prefetch(n); no bounds, no wraparound, no
                                                 reference counts: whoever calls the kernel keeps the array alive
    Vector      `lanes` numbers, one register    shape.load(p), .load(p, lo, hi), .splat(v); + - * / among them and with numbers,
                                                 v.plus(a, b), v.clip(low, high), v.magnitude(), v.power(), v.evens(w),
                                                 v.store(p), v.store(p, n)
    Tile        `rows` x `vectors` registers     shape.zeros(), .from_rows(p), .from_columns(p), .load_tile(p, step[, rows, cols]);
                                                 t.rank1(a, b), .rank1_but_first(a, b), .rank1_but_last(a, b),
                                                 .rank1_apart(a, step, b), .rank1_at(a, places, b), .rank2_at(a, places, b),
                                                 .lane_by_lane(a, step, b),
                                                 t.plus_tile(p, step), .times_rows(p), .scaled(rows, columns, start),
                                                 t.clip(low, high), t.at_least(low), t.transpose(),
                                                 t.store(p, step[, rows, columns])

A `TileShape` says how large they are. Its numbers are part of its *type*, so a kernel that takes one as an ordinary argument
is compiled for exactly that shape, and cached on disk under it. With AVX-512 a core has 32 registers of 16 float32, with AVX2
16 of 8; a tile, the vectors of one operand and one broadcast must fit: rows * vectors + vectors + 1 of them.

Below the kernels' files this one, windows.py, neighbours.py, transforms.py, values.py, atomics.py and job.py alone know LLVM. Every
operation becomes one instruction, or one a register.
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
from numba.extending import NativeValue, intrinsic, overload, unbox

from fastconv.cpu.values import attribute, held_as, method, operation

INDEX, NARROW, BIT = ir.IntType(64), ir.IntType(32), ir.IntType(1)
LLVM_FLOATS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
NUMBA_FLOATS = {"float32": types.float32, "float64": types.float64}
BYTES = {"float32": 4, "float64": 8}
LINE_BYTES = 64
LEAST_LANES = 4
CONTRACT = ("contract", "nsz")  # a * b + c may become one fma; never assumes away NaN or infinity


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

    @property
    def block(self) -> int:
        """Numbers of 128 bits, the smallest part of a vector that is moved by itself."""
        return 16 // BYTES[self.dtype]

    @cached_property
    def square(self) -> TileShape:
        """As many rows as lanes, one vector a row: what can be transposed."""
        return TileShape(self.lanes, 1, self.lanes, 1, self.dtype)

    @cached_property
    def half_square(self) -> TileShape:
        """A square half as large, but of no fewer lanes than the narrowest vectors have."""
        lanes = max(self.lanes // 2, min(self.lanes, LEAST_LANES))
        return TileShape(lanes, 1, lanes, 1, self.dtype)

    @cached_property
    def row(self) -> TileShape:
        """One row of it."""
        return replace(self, rows=1)

    @cached_property
    def short(self) -> TileShape:
        """One row shorter, if it has more than one."""
        return replace(self, rows=max(1, self.rows - 1))

    @cached_property
    def few(self) -> TileShape:
        """Half of its rows."""
        return replace(self, rows=self.rows // 2)

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


class VectorType(types.Type):  # type: ignore[misc]
    """One type for each number of lanes and dtype."""

    def __init__(self, lanes: int, dtype: str) -> None:
        self.lanes, self.dtype = lanes, dtype
        super().__init__(f"Vector({lanes} x {dtype})")


class TileType(types.Type):  # type: ignore[misc]
    """One type for each shape."""

    def __init__(self, shape: TileShape) -> None:
        self.shape = shape
        super().__init__(f"Tile{astuple(shape)}")


_LLVM = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.int64: INDEX}


def _vector(shape: Any) -> Any:
    """What LLVM calls a register of a TileShape or a VectorType."""
    return ir.VectorType(LLVM_FLOATS[shape.dtype], shape.lanes)


def _registers(shape: TileShape) -> Any:
    return ir.ArrayType(_vector(shape), shape.rows * shape.vectors)


held_as(TileShapeType, lambda t: ir.IntType(8).as_pointer())
held_as(PointerType, lambda t: _LLVM[t.dtype].as_pointer())
held_as(VectorType, _vector)
held_as(TileType, lambda t: _registers(t.shape))


@unbox(TileShapeType)
def _unbox_shape(fe_type: Any, value: Any, c: Any) -> Any:
    return NativeValue(c.context.get_dummy_value())


def _constant(name: str) -> None:
    of = operator.attrgetter(name)
    attribute(TileShapeType, name, lambda shape: (types.intp, lambda builder, value: INDEX(of(shape.shape))))


for _field in ("rows", "vectors", "lanes", "step", "width", "block"):
    _constant(_field)


# LLVM: the handful of instructions that everything is made of -------------------------------------------------------------


def at(builder: Any, p: Any, offset: Any) -> Any:
    return builder.gep(p, [offset if isinstance(offset, ir.Value) else INDEX(offset)])


def load_vector(builder: Any, p: Any, kind: Any) -> Any:
    value = builder.load(builder.bitcast(p, _vector(kind).as_pointer()))
    value.align = BYTES[kind.dtype]
    return value


def store_vector(builder: Any, value: Any, p: Any, kind: Any) -> None:
    builder.store(value, builder.bitcast(p, value.type.as_pointer())).align = BYTES[kind.dtype]


def splat_number(builder: Any, scalar: Any, lanes: int) -> Any:
    empty = ir.VectorType(scalar.type, lanes)(ir.Undefined)
    one = builder.insert_element(empty, scalar, NARROW(0))
    return builder.shuffle_vector(one, empty, ir.VectorType(NARROW, lanes)(None))


def _shuffled(builder: Any, a: Any, b: Any, places: Any) -> Any:
    """The numbers of a and b, one after the other, at these places."""
    return builder.shuffle_vector(a, b, ir.VectorType(NARROW, len(places))([NARROW(place) for place in places]))


def _by_itself(builder: Any, value: Any, kind: Any) -> Any:
    """The same vector, with whose making LLVM does not unite what follows: two permutations stay two."""
    return _called(builder, f"llvm.arithmetic.fence.{_suffix(kind)}", value.type, [value])


def _called(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    function = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def _suffix(kind: Any) -> str:
    return f"v{kind.lanes}f{8 * BYTES[kind.dtype]}"


def _fma(builder: Any, a: Any, b: Any, c: Any, kind: Any) -> Any:
    return _called(builder, f"llvm.fma.{_suffix(kind)}", c.type, [a, b, c])


def _clipped(builder: Any, value: Any, low: Any, high: Any) -> Any:
    """A NaN is neither below nor above anything, and stays."""
    value = _raised(builder, value, low)
    return builder.select(builder.fcmp_ordered(">", value, high), high, value)


def _raised(builder: Any, value: Any, low: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", value, low), low, value)


def _between(builder: Any, lanes: int, low: Any, high: Any) -> Any:
    """A mask of the lanes l with low <= l < high, compared as int32: as bits AVX2 would make it anew at every use."""
    count = ir.VectorType(NARROW, lanes)([NARROW(lane) for lane in range(lanes)])
    bounds = [splat_number(builder, builder.trunc(_clamped(builder, bound, lanes), NARROW), lanes) for bound in (low, high)]
    return builder.and_(builder.icmp_signed(">=", count, bounds[0]), builder.icmp_signed("<", count, bounds[1]))


def _clamped(builder: Any, bound: Any, lanes: int) -> Any:
    """A bound within 0..lanes, so that it can be narrowed."""
    bound = builder.select(builder.icmp_signed("<", bound, INDEX(0)), INDEX(0), bound)
    return builder.select(builder.icmp_signed(">", bound, INDEX(lanes)), INDEX(lanes), bound)


def numbers_at(builder: Any, p: Any, step: Any, places: Any, count: int, kind: Any) -> list[Any]:
    """The first `count` numbers at p, p + step, ...: a register for each number, a lane for each of so many places, or zero."""
    square, turned = TileShape(kind.lanes, 1, kind.lanes, 1, kind.dtype), list[Any]()
    for first in range(0, count, kind.lanes):
        rows = []
        for row in range(kind.lanes):
            mask = _inside(builder, square, places, INDEX(count - first), row, 0)
            rows.append(_load_masked(builder, at(builder, at(builder, p, builder.mul(step, INDEX(row))), first), mask, kind))
        _exchange(builder, rows, range(kind.lanes), kind.lanes)
        turned += rows
    return turned[:count]


def disentangled(builder: Any, vectors: list[Any]) -> list[Any]:
    """Of n registers the numbers k, k + n, k + 2n, ...: a register for each k < n."""
    n, lanes, turned = len(vectors), vectors[0].type.count, []
    for k in range(n):
        flat = [k + n * lane for lane in range(lanes)]
        total, places = vectors[0], [place % lanes for place in flat]
        for source in range(1, n):
            total = _shuffled(
                builder, total, vectors[source],
                [p % lanes + lanes if p // lanes >= source else kept for p, kept in zip(flat, places, strict=True)],
            )  # fmt: skip
            places = list(range(lanes))  # those of registers before stay where they were put
        turned.append(total)
    return turned


def _load_masked(builder: Any, p: Any, mask: Any, kind: Any) -> Any:
    """Zero in the other lanes, whose memory is not touched."""
    vector = _vector(kind)
    arguments = [builder.bitcast(p, vector.as_pointer()), NARROW(BYTES[kind.dtype]), mask, vector(None)]
    return _called(builder, f"llvm.masked.load.{_suffix(kind)}.p0", vector, arguments)


def _loaded(builder: Any, p: Any, mask: Any, kind: Any) -> Any:
    """A vector at p, or, if there is a mask, its lanes and zeros."""
    return load_vector(builder, p, kind) if mask is None else _load_masked(builder, p, mask, kind)


def _store_masked(builder: Any, value: Any, p: Any, mask: Any, kind: Any) -> None:
    arguments = [value, builder.bitcast(p, value.type.as_pointer()), NARROW(BYTES[kind.dtype]), mask]
    _called(builder, f"llvm.masked.store.{_suffix(kind)}.p0", ir.VoidType(), arguments)


# Pointers -------------------------------------------------------------------------------------------------------------


@intrinsic
def _pointer_of_array(typing, array):
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(array)(context, builder, args[0]).data

    return PointerType(array.dtype)(array), build


def pointer(array: Any) -> Any:
    """Where an array begins; for use in compiled code, and the array must outlive it."""
    raise NotImplementedError("pointer() works in compiled code only")


@overload(pointer)
def _pointer(array):
    if not (isinstance(array, types.Array) and array.dtype in NUMBA_FLOATS.values() and array.layout == "C"):
        raise TypingError(f"pointer: got {array}, expected a C-contiguous array of float32 or float64")
    return lambda array: _pointer_of_array(array)


@operation(operator.add, PointerType, types.Integer)
@operation(operator.iadd, PointerType, types.Integer)
def _moved(p, n):
    return p(p, types.intp), at


def _inputs(builder: Any) -> Any:
    """The alias scope of all inputs. Told apart from outputs, loops over both need no overlap checks at run time:
    a 64 x 56 x 56 layer's direct kernel gains half its speed.
    """
    domain = builder.module.add_metadata(["fastconv"])
    return builder.module.add_metadata([builder.module.add_metadata(["fastconv inputs", domain])])


# `inbounds`: p itself and p + i lie in the array, if anything is read or written there. Then LLVM knows that an address does
# not wrap around, and turns loops over every other number into loads and shuffles: a gather each is 2.5 times as slow.
@operation(operator.getitem, PointerType, types.Integer)
def _read(p, i):
    def build(builder: Any, place: Any, i: Any) -> Any:
        value = builder.load(builder.gep(place, [i], inbounds=True))
        value.set_metadata("alias.scope" if p.only_read else "noalias", _inputs(builder))
        return value

    return p.dtype(p, types.intp), build


@operation(operator.setitem, PointerType, types.Integer, types.Number)
def _write(p, i, value):
    if p.only_read:
        raise TypingError("an input is only read")

    def build(builder: Any, place: Any, i: Any, value: Any) -> None:
        builder.store(value, builder.gep(place, [i], inbounds=True)).set_metadata("noalias", _inputs(builder))

    return types.void(p, types.intp, p.dtype), build


def _prefetch(name: str, locality: int) -> None:
    @method(PointerType, name)
    def prefetch(p, n):
        """Ask for the cache line of p[n]; any address may be asked for."""

        def build(builder: Any, place: Any, n: Any) -> None:
            there = builder.bitcast(at(builder, place, n), ir.IntType(8).as_pointer())
            _called(builder, "llvm.prefetch.p0", ir.VoidType(), [there, NARROW(0), NARROW(locality), NARROW(1)])

        return types.void(types.intp), build


_prefetch("prefetch", 3)
_prefetch("prefetch_l2", 2)


# The stack ------------------------------------------------------------------------------------------------------------


@intrinsic
def align_stack(typing):
    """Make the calling function begin its stack on a cache line: its spilled vectors lie on lines then, not across two of them.

    LLVM aligns a stack only for what it knows of before it hands out registers, when it is too late for spilled ones.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), LINE_BYTES))
        line.align = LINE_BYTES
        builder.asm(ir.FunctionType(ir.VoidType(), [line.type]), "", "r", [line], side_effect=True)
        return context.get_dummy_value()

    return types.void(), build


# Numbers --------------------------------------------------------------------------------------------------------------


@intrinsic
def power_of_two(typing, rounded):
    """2^n in float32 of n + 1.5 * 2^23, n from -127 (0) to 128 (infinity): its last bits, n, become an exponent."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        last_bits = builder.shl(builder.bitcast(args[0], NARROW), NARROW(23))
        return builder.bitcast(builder.add(last_bits, NARROW(127 << 23)), ir.FloatType())

    return types.float32(types.float32), build


# Vectors --------------------------------------------------------------------------------------------------------------


def _vector_of(shape: TileShapeType) -> VectorType:
    return VectorType(shape.shape.lanes, shape.shape.dtype)


@method(TileShapeType, "load")
def load(shape, p, low=None, high=None):
    """p[0:lanes]; with low and high, zero in the lanes outside low..high, whose memory is not touched."""
    v = _vector_of(shape)
    if low is None:
        return v(p), lambda builder, shape, p: load_vector(builder, p, v)

    def between(builder: Any, shape: Any, p: Any, low: Any, high: Any) -> Any:
        return _load_masked(builder, p, _between(builder, v.lanes, low, high), v)

    return v(p, types.intp, types.intp), between


@method(TileShapeType, "splat")
def splat(shape, number):
    """The number in every lane."""
    v: Any = _vector_of(shape)
    return v(NUMBA_FLOATS[v.dtype]), lambda builder, shape, number: splat_number(builder, number, v.lanes)


@method(VectorType, "plus")
def plus(v, a, b):
    """V + a * b, rounded once."""
    return v(v, v), lambda builder, total, a, b: _fma(builder, a, b, total, v)


@method(VectorType, "clip")
def clip(v, low, high):
    """At least low and at most high; NaN stays NaN."""
    number = NUMBA_FLOATS[v.dtype]

    def build(builder: Any, value: Any, *bounds: Any) -> Any:
        return _clipped(builder, value, *(splat_number(builder, bound, v.lanes) for bound in bounds))

    return v(number, number), build


@method(VectorType, "at_least")
def at_least(v, low):
    """At least low; NaN stays NaN."""

    def build(builder: Any, value: Any, low: Any) -> Any:
        return _raised(builder, value, splat_number(builder, low, v.lanes))

    return v(NUMBA_FLOATS[v.dtype]), build


@method(VectorType, "magnitude")
def magnitude(v):
    """Every number without its sign."""
    return v(), lambda builder, value: _called(builder, f"llvm.fabs.{_suffix(v)}", value.type, [value])


@method(VectorType, "power")
def power(v):
    """The power of two at or below each number: of a positive one its exponent, alone."""

    def build(builder: Any, value: Any) -> Any:
        bits, exponent = (32, 0xFF << 23) if v.dtype == "float32" else (64, 0x7FF << 52)
        words = ir.VectorType(ir.IntType(bits), v.lanes)
        return builder.bitcast(builder.and_(builder.bitcast(value, words), words([exponent] * v.lanes)), value.type)

    return v(), build


@method(VectorType, "evens")
def evens(v, w):
    """Lanes 0, 2, 4, ... of v, then of w."""
    return v(v), lambda builder, a, b: _shuffled(builder, a, b, range(0, 2 * v.lanes, 2))


@method(VectorType, "store")
def store(v, p, n=None):
    """To p[0:lanes]; with n, only the first n lanes."""
    if n is None:
        return types.void(p), lambda builder, value, p: store_vector(builder, value, p, v)

    def first(builder: Any, value: Any, p: Any, n: Any) -> None:
        _store_masked(builder, value, p, _between(builder, v.lanes, INDEX(0), n), v)

    return types.void(p, types.intp), first


def _arithmetic(function: Any, instruction: str) -> None:
    """Vector with Vector, and number with Vector."""

    @operation(function, VectorType, VectorType)
    def both(a, b):
        if a != b:
            return None
        return a(a, b), lambda builder, a, b: getattr(builder, instruction)(a, b, flags=CONTRACT)

    @operation(function, types.Number, VectorType)
    def scaled(number, v):
        def build(builder: Any, number: Any, value: Any) -> Any:
            return getattr(builder, instruction)(splat_number(builder, number, v.lanes), value, flags=CONTRACT)

        return v(NUMBA_FLOATS[v.dtype], v), build


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


# Tiles ----------------------------------------------------------------------------------------------------------------


def _places(shape: TileShape) -> Iterator[tuple[int, int, int]]:
    """(row, vector, place among the registers)."""
    for row in range(shape.rows):
        for vector in range(shape.vectors):
            yield row, vector, row * shape.vectors + vector


def _tile_of(builder: Any, shape: TileShape, register: Callable[[int, int], Any]) -> Any:
    """The tile whose register at (row, vector) is `register(row, vector)`."""
    tile = _registers(shape)(ir.Undefined)
    for row, vector, place in _places(shape):
        tile = builder.insert_value(tile, register(row, vector), place)
    return tile


def _register_at(builder: Any, shape: TileShape, p: Any, step: Any, row: int, vector: int) -> Any:
    """Where a register's numbers lie in a matrix whose rows are `step` apart."""
    return at(builder, at(builder, p, builder.mul(step, INDEX(row))), vector * shape.lanes)


def _inside(builder: Any, shape: TileShape, rows: Any, columns: Any, row: int, vector: int) -> Any:
    """The mask of a register whose numbers lie within the first `rows` rows and `columns` columns."""
    left = builder.sub(columns, INDEX(vector * shape.lanes))
    left = builder.select(builder.icmp_signed("<", INDEX(row), rows), left, INDEX(0))
    return _between(builder, shape.lanes, INDEX(0), left)


def _updated(
    builder: Any, shape: TileShape, acc: Any, left: Callable[[int], Any], b: Any, rows: range, broadcasts: bool = True
) -> Any:
    right = [load_vector(builder, at(builder, b, v * shape.lanes), shape) for v in range(shape.vectors)]
    for row in rows:  # each broadcast just before its multiply-adds: LLVM spills tall tiles otherwise
        there = left(row)
        number = splat_number(builder, builder.load(there), shape.lanes) if broadcasts else load_vector(builder, there, shape)
        for vector in range(shape.vectors):
            place = row * shape.vectors + vector
            total = _fma(builder, number, right[vector], builder.extract_value(acc, place), shape)
            acc = builder.insert_value(acc, total, place)
    return acc


@method(TileShapeType, "zeros")
def zeros(shape):
    """A tile of zeros."""
    return TileType(shape.shape)(), lambda builder, value: _registers(shape.shape)(None)


@method(TileShapeType, "from_rows")
def from_rows(shape, p):
    """The tile whose row r holds p[r] everywhere: how a bias enters where filters are rows."""
    s = shape.shape

    def build(builder: Any, shape: Any, p: Any) -> Any:
        rows = [splat_number(builder, builder.load(at(builder, p, row)), s.lanes) for row in range(s.rows)]
        return _tile_of(builder, s, lambda row, vector: rows[row])

    return TileType(s)(p), build


@method(TileShapeType, "from_columns")
def from_columns(shape, p):
    """The tile whose every row is p[0:width]: how a bias enters where filters are lanes."""
    s = shape.shape

    def build(builder: Any, shape: Any, p: Any) -> Any:
        columns = [load_vector(builder, at(builder, p, vector * s.lanes), s) for vector in range(s.vectors)]
        return _tile_of(builder, s, lambda row, vector: columns[vector])

    return TileType(s)(p), build


@method(TileShapeType, "load_tile")
def load_tile(shape, p, step, rows=None, columns=None):
    """Row r is p[r * step : r * step + width]; zero outside the first rows and columns, whose memory is not touched."""
    s = shape.shape
    if rows is None:

        def whole(builder: Any, shape: Any, p: Any, step: Any) -> Any:
            return _tile_of(builder, s, lambda *place: load_vector(builder, _register_at(builder, s, p, step, *place), s))

        return TileType(s)(p, types.intp), whole

    def part(builder: Any, shape: Any, p: Any, step: Any, rows: Any, columns: Any) -> Any:
        def register(*place: int) -> Any:
            return _load_masked(builder, _register_at(builder, s, p, step, *place), _inside(builder, s, rows, columns, *place), s)

        return _tile_of(builder, s, register)

    return TileType(s)(p, types.intp, types.intp, types.intp), part


@method(TileType, "rank1")
def rank1(tile, a, b):
    """tile[r, :] + a[r * tile's step] * b[0:width]: one multiply-add a register."""
    return _of_rows(tile, a, b, range(tile.shape.rows))


@method(TileType, "rank1_but_first")
def rank1_but_first(tile, a, b):
    """As rank1, for all rows but the first, whose number is not read."""
    return _of_rows(tile, a, b, range(1, tile.shape.rows))


@method(TileType, "rank1_but_last")
def rank1_but_last(tile, a, b):
    """As rank1, for all rows but the last, whose number is not read."""
    return _of_rows(tile, a, b, range(tile.shape.rows - 1))


def _of_rows(tile: Any, a: Any, b: Any, rows: range) -> Any:
    s = tile.shape
    return tile(a, b), lambda builder, acc, a, b: _updated(builder, s, acc, lambda row: at(builder, a, row * s.step), b, rows)


@method(TileType, "lane_by_lane")
def lane_by_lane(tile, a, step, b):
    """tile[r, :] + a[r * step : r * step + lanes] * b[0:width]: rank1_apart in every lane, each with numbers of its own."""
    s = tile.shape

    def build(builder: Any, acc: Any, a: Any, step: Any, b: Any) -> Any:
        left = lambda row: at(builder, a, builder.mul(step, INDEX(row)))  # noqa: E731
        return _updated(builder, s, acc, left, b, range(s.rows), broadcasts=False)

    return tile(a, types.intp, b), build


@method(TileType, "rank1_apart")
def rank1_apart(tile, a, step, b):
    """tile[r, :] + a[r * step] * b[0:width], for a step known at run time only."""
    rows = range(tile.shape.rows)

    def build(builder: Any, acc: Any, a: Any, step: Any, b: Any) -> Any:
        return _updated(builder, tile.shape, acc, lambda row: at(builder, a, builder.mul(step, INDEX(row))), b, rows)

    return tile(a, types.intp, b), build


@method(TileType, "rank2_at")
def rank2_at(tile, a, places, b):
    """tile[r, :] + a[places[r]] * b[0:width] + a[places[r] + 1] * b[width:2*width], for int64 places.

    Two updates at once, because each place is read anew every time: there are more than a core has registers for.
    """
    s = tile.shape

    def build(builder: Any, acc: Any, a: Any, places: Any, b: Any) -> Any:
        right = [load_vector(builder, at(builder, b, v * s.lanes), s) for v in range(2 * s.vectors)]
        for row in range(s.rows):
            left = at(builder, a, builder.load(at(builder, places, row)))
            for k in range(2):
                number = splat_number(builder, builder.load(at(builder, left, k)), s.lanes)
                for vector in range(s.vectors):
                    place = row * s.vectors + vector
                    total = _fma(builder, number, right[k * s.vectors + vector], builder.extract_value(acc, place), s)
                    acc = builder.insert_value(acc, total, place)
        return acc

    return tile(a, places, b), build


@method(TileType, "rank1_at")
def rank1_at(tile, a, places, b):
    """tile[r, :] + a[places[r]] * b[0:width], for int64 places."""

    def build(builder: Any, acc: Any, a: Any, places: Any, b: Any) -> Any:
        rows = range(tile.shape.rows)
        return _updated(builder, tile.shape, acc, lambda row: at(builder, a, builder.load(at(builder, places, row))), b, rows)

    return tile(a, places, b), build


@method(TileType, "dots_at")
def dots_at(tile, a, places, b, step, count=None):
    """tile[r, v] + a[places[r] : + lanes] * b[v * step : + lanes], lane by lane, for int64 places; with count, of so many lanes."""
    s = tile.shape

    def build(builder: Any, acc: Any, a: Any, places: Any, b: Any, step: Any, *count: Any) -> Any:
        mask = _between(builder, s.lanes, INDEX(0), *count) if count else None

        def numbers(there: Any) -> Any:
            return _loaded(builder, there, mask, s)

        left = [numbers(at(builder, a, builder.load(at(builder, places, row)))) for row in range(s.rows)]
        for vector in range(s.vectors):
            right = numbers(at(builder, b, builder.mul(step, INDEX(vector))))
            for row in range(s.rows):
                place = row * s.vectors + vector
                total = _fma(builder, left[row], right, builder.extract_value(acc, place), s)
                acc = builder.insert_value(acc, total, place)
        return acc

    return tile(a, places, b, types.intp, *([] if count is None else [types.intp])), build


@method(TileType, "plus_tile")
def plus_tile(tile, p, step):
    """tile[r, :] + p[r * step : r * step + width]."""
    s = tile.shape

    def build(builder: Any, acc: Any, p: Any, step: Any) -> Any:
        def register(row: int, vector: int) -> Any:
            number = load_vector(builder, _register_at(builder, s, p, step, row, vector), s)
            return builder.fadd(builder.extract_value(acc, row * s.vectors + vector), number, flags=CONTRACT)

        return _tile_of(builder, s, register)

    return tile(p, types.intp), build


@method(TileType, "times_rows")
def times_rows(tile, p):
    """tile[r, :] * p[r]."""
    s = tile.shape

    def build(builder: Any, acc: Any, p: Any) -> Any:
        factors = [splat_number(builder, builder.load(at(builder, p, row)), s.lanes) for row in range(s.rows)]

        def register(row: int, vector: int) -> Any:
            return builder.fmul(builder.extract_value(acc, row * s.vectors + vector), factors[row], flags=CONTRACT)

        return _tile_of(builder, s, register)

    return tile(p), build


@method(TileType, "scaled")
def scaled_tile(tile, rows, columns, start):
    """start[0:width] + tile[r, :] * (rows[r] * columns[0:width])."""
    s = tile.shape

    def build(builder: Any, acc: Any, rows: Any, columns: Any, start: Any) -> Any:
        across, begin = ([load_vector(builder, at(builder, p, v * s.lanes), s) for v in range(s.vectors)] for p in (columns, start))

        def register(row: int, vector: int) -> Any:
            factor = splat_number(builder, builder.load(at(builder, rows, row)), s.lanes)
            factor = builder.fmul(factor, across[vector], flags=CONTRACT)
            return _fma(builder, builder.extract_value(acc, row * s.vectors + vector), factor, begin[vector], s)

        return _tile_of(builder, s, register)

    return tile(rows, columns, start), build


@method(TileType, "clip")
def clip_tile(tile, low, high):
    """Every number at least low and at most high; NaN stays NaN."""
    s, number = tile.shape, NUMBA_FLOATS[tile.shape.dtype]

    def build(builder: Any, acc: Any, *bounds: Any) -> Any:
        vectors = [splat_number(builder, bound, s.lanes) for bound in bounds]
        clipped = [_clipped(builder, builder.extract_value(acc, place), *vectors) for *_, place in _places(s)]
        return _tile_of(builder, s, lambda row, vector: clipped[row * s.vectors + vector])

    return tile(number, number), build


@method(TileType, "at_least")
def at_least_tile(tile, low):
    """Every number at least low; NaN stays NaN."""
    s = tile.shape

    def build(builder: Any, acc: Any, low: Any) -> Any:
        bound = splat_number(builder, low, s.lanes)
        raised = [_raised(builder, builder.extract_value(acc, place), bound) for *_, place in _places(s)]
        return _tile_of(builder, s, lambda row, vector: raised[row * s.vectors + vector])

    return tile(NUMBA_FLOATS[s.dtype]), build


@method(TileType, "transpose")
def transpose(tile):
    """Of a square: row r becomes lane r, in lanes * log2(lanes) shuffles."""
    s = tile.shape
    if s.rows != s.lanes or s.vectors != 1:
        raise TypingError(f"transpose: got {tile}, expected a square tile")

    def build(builder: Any, acc: Any) -> Any:
        rows = [builder.extract_value(acc, row) for row in range(s.rows)]
        _exchange(builder, rows, range(s.lanes), s.lanes)
        return _tile_of(builder, s, lambda row, vector: rows[row])

    return tile(), build


@method(TileShapeType, "load_turned")
def load_turned(shape, p, step):
    """Of a square: lane r of row k is p[r * step + k], in half of the shuffles of `load_tile` and `transpose`."""
    s = shape.shape

    def build(builder: Any, shape: Any, p: Any, step: Any) -> Any:
        rows = []
        for first in range(0, s.lanes, s.block):
            rows += _turned_block(builder, s, at(builder, p, first), step)
        return _tile_of(builder, s, lambda row, vector: rows[row])

    return TileType(s)(p, types.intp), build


@method(TileShapeType, "load_few_turned")
def load_few_turned(shape, p, step, count):
    """The first rows of `load_turned`, a block of 128 bits, of which `count` hold numbers and no memory beyond is touched."""
    s = replace(shape.shape, rows=shape.shape.block)

    def build(builder: Any, shape: Any, p: Any, step: Any, count: Any) -> Any:
        rows = _turned_block(builder, s, p, step, _between(builder, s.rows, INDEX(0), count))
        return _tile_of(builder, s, lambda row, vector: rows[row])

    return TileType(s)(p, types.intp, types.intp), build


def _turned_block(builder: Any, shape: TileShape, p: Any, step: Any, mask: Any = None) -> list[Any]:
    """Lane r of row k is p[r * step + k], of a block of 128 bits: shuffles of whole blocks are saved by loading them in place."""
    block, turned = shape.block, list[Any]()
    piece = TileShape(1, 1, block, 1, shape.dtype)
    for k in range(block):  # every block-th row from k on
        starts = [at(builder, p, builder.mul(step, INDEX(row))) for row in range(k, shape.lanes, block)]
        pieces = [_loaded(builder, start, mask, piece) for start in starts]
        while len(pieces) > 1:
            width = 2 * pieces[0].type.count
            pieces = [_shuffled(builder, a, b, range(width)) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
        turned.append(pieces[0])
    _exchange(builder, turned, range(block), shape.lanes)
    return turned


def _exchange(builder: Any, rows: list[Any], block: range, lanes: int) -> None:
    """Transpose each square of neighbouring lanes in these rows, as many: the off-diagonal halves of ever larger squares."""
    half = 1
    while half < len(block):
        low = [lane if not lane & half else lane - half + lanes for lane in range(lanes)]
        high = [lane + half if not lane & half else lane + lanes for lane in range(lanes)]
        for row in block:
            if not row & half:
                above, below = rows[row], rows[row + half]
                rows[row], rows[row + half] = (_shuffled(builder, above, below, places) for places in (low, high))
        half *= 2


@method(TileType, "store")
def store_tile(tile, p, step, rows=None, columns=None):
    """Row r goes to p[r * step : r * step + width]; with rows and columns, only the first of them."""
    s = tile.shape
    if rows is None:

        def whole(builder: Any, acc: Any, p: Any, step: Any) -> None:
            for row, vector, place in _places(s):
                store_vector(builder, builder.extract_value(acc, place), _register_at(builder, s, p, step, row, vector), s)

        return types.void(p, types.intp), whole

    def part(builder: Any, acc: Any, p: Any, step: Any, rows: Any, columns: Any) -> None:
        for row, vector, place in _places(s):
            there, mask = _register_at(builder, s, p, step, row, vector), _inside(builder, s, rows, columns, row, vector)
            _store_masked(builder, builder.extract_value(acc, place), there, mask, s)

    return types.void(p, types.intp, types.intp, types.intp), part
