"""Values for rows that are walked across: windows at a vector's ends see numbers that lie in the vectors beside it.

    lines       tile.lines(p, line, height, step, empty): where the lines begin that ROWS rows of windows see
    numbers     l.numbers(tile, column, count): a vector of each line; l.parted(...): one of even columns, one of odd ones
    steps of 2  n.weigh_parted(weights, start), the sums of each row: those that belong to lanes of this vector, and those of the
                lanes behind; s.unite(before), the results
    at points   scheme.weigh_beside(numbers, weights, start, before, after), of numbers at the points of a scheme (toom.py)
    results     of ROWS rows, a vector each: r.store_rows(p, step, rows, count)

`before` and `after` are the same values of the vectors on the left and on the right.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llvmlite import ir
from numba import types

from fastconv.cpu.simd import (
    BIT,
    INDEX,
    LEAST_LANES,
    LLVM_FLOATS,
    PointerType,
    TileShape,
    TileShapeType,
    TileType,
    _by_itself,
    _clamped,
    _fma,
    _loaded,
    _shuffled,
    _store_masked,
    _tile_of,
    _vector,
    at,
    store_vector,
    zeros,
)  # fmt: skip
from fastconv.cpu.toom import SchemeType
from fastconv.cpu.values import held_as, method
from fastconv.cpu.windows import _in_order, _parted

ROWS = 2  # of the result at once: two windows share two lines of four, or one of five, and what a vector takes fits the registers
OWN, BEHIND = range(2)  # lanes that sums belong to
TAPS = (1, BEHIND), (0, OWN), (1, OWN)  # of a row of three, two columns apart: whether they see odd columns, and where they belong


class LinesType(types.Type):  # type: ignore[misc]
    """One type for each number of lines and each dtype."""

    def __init__(self, count: int, dtype: str) -> None:
        self.count, self.dtype = count, dtype
        super().__init__(f"Lines({count} x {dtype})")


held_as(LinesType, lambda t: ir.ArrayType(LLVM_FLOATS[t.dtype].as_pointer(), t.count))


def _first(builder: Any, count: Any, lanes: int) -> Any:
    """A mask of the first `count` lanes, made as bits of a number: with AVX-512 a comparison of vectors would take their pipes."""
    bits = builder.sub(builder.shl(INDEX(1), _clamped(builder, count, lanes)), INDEX(1))
    return builder.bitcast(builder.trunc(bits, ir.IntType(lanes)), ir.VectorType(BIT, lanes))


def _seen(shape: TileShape) -> int:
    return (ROWS - 1) * shape.step + shape.rows


@method(TileShapeType, "lines")
def lines(shape, p, line, height, step, empty):
    """The lines, `step` apart, that ROWS rows of windows see, from `line` of an image at p on; those outside it at `empty`."""
    kind = LinesType(_seen(shape.shape), shape.shape.dtype)

    def build(builder: Any, shape: Any, p: Any, line: Any, height: Any, step: Any, empty: Any) -> Any:
        starts, there = ir.ArrayType(p.type, kind.count)(ir.Undefined), at(builder, p, builder.mul(line, step))
        for k in range(kind.count):
            inside = builder.icmp_unsigned("<", builder.add(line, INDEX(k)), height)
            starts = builder.insert_value(starts, builder.select(inside, there, empty), k)
            there = at(builder, there, step)
        return starts

    return kind(p, types.intp, types.intp, types.intp, PointerType(p.dtype)), build


@method(LinesType, "parted")
def parted(lines, shape, column, count):
    """Of each line from that column on the even numbers of two vectors, then the odd ones, in `_order`; `count` as in `numbers`."""
    s, whole = replace(shape.shape, rows=1, vectors=2 * lines.count), isinstance(count, types.NoneType)

    def build(builder: Any, starts: Any, shape: Any, column: Any, count: Any) -> Any:
        masks = [None if whole else _first(builder, builder.sub(count, INDEX(first)), s.lanes) for first in (0, s.lanes)]
        vectors = []
        for k in range(lines.count):
            start = at(builder, builder.extract_value(starts, k), column)
            left, right = (_loaded(builder, at(builder, start, part * s.lanes), masks[part], s) for part in range(2))
            vectors += _parted(builder, s, left, right)
        return _tile_of(builder, s, lambda row, vector: vectors[vector])

    return TileType(s)(shape, types.intp, count), build


def _sums(shape: TileShape) -> TileShape:
    return replace(shape, rows=ROWS, vectors=2, step=1)


@method(TileShapeType, "no_sums")
def no_sums(shape):
    """Those of a vector outside the image."""
    return zeros(TileShapeType(_sums(shape.shape)))


@method(TileType, "weigh_parted")
def weigh_parted(numbers, weights, start):
    """The sums of windows of 3x3, in the order of columns; those that belong to a vector's own lanes begin with `start`."""
    w, s = weights.shape, _sums(numbers.shape)

    def build(builder: Any, numbers: Any, weights: Any, start: Any) -> Any:
        sums: dict[tuple[int, int], Any] = {(row, OWN): start for row in range(ROWS)}
        for line in range(_seen(w)):
            for row in range(ROWS):
                a = line - row * w.step
                for b, (parity, place) in enumerate(TAPS) if 0 <= a < w.rows else ():
                    weight = builder.extract_value(weights, a * w.vectors + b)
                    number = builder.extract_value(numbers, 2 * line + parity)
                    known = sums.get((row, place))
                    total = builder.fmul(weight, number) if known is None else _fma(builder, weight, number, known, s)
                    sums[row, place] = total
        return _tile_of(builder, s, lambda *place: _by_itself(builder, _in_order(builder, s, sums[place]), s))

    return TileType(s)(weights, start), build


@method(TileType, "unite")
def unite(here, before):
    """A row of the results of this vector: its own sums, and those of it and of the one before it that belong one lane behind."""
    s = here.shape
    results = replace(s, rows=1, vectors=ROWS)

    def build(builder: Any, here: Any, before: Any) -> Any:
        def result(row: int) -> Any:
            left, right = (builder.extract_value(sums, row * s.vectors + BEHIND) for sums in (before, here))
            return builder.fadd(builder.extract_value(here, row * s.vectors + OWN), _beside(builder, left, right, s.lanes - 1, s))

        return _tile_of(builder, results, lambda _, row: result(row))

    return TileType(results)(before), build


def _beside(builder: Any, left: Any, right: Any, first: int, s: TileShape) -> Any:
    """The lanes from `first` on of two vectors side by side.

    LLVM moves whole numbers by valignd, floats by vpermt2ps (see across.py). So these pass for whole numbers in between, and before
    and after that for doubles, since it sees through vectors whose numbers are as wide.
    """
    places = range(first, first + s.lanes)
    if s.dtype != "float32" or s.lanes < LEAST_LANES:
        return _shuffled(builder, left, right, places)
    bits, doubles = ir.VectorType(ir.IntType(32), s.lanes), replace(s, lanes=s.lanes // 2, dtype="float64")

    def apart(vector: Any, kind: Any) -> Any:
        return builder.bitcast(_by_itself(builder, builder.bitcast(vector, _vector(doubles)), doubles), kind)

    return apart(_shuffled(builder, apart(left, bits), apart(right, bits), places), left.type)


# Rows at points --------------------------------------------------------------------------------------------------------


@method(LinesType, "numbers")
def numbers(lines, shape, column, count):
    """A vector of each line from that column on: its first `count` numbers, all if that is None, and zeros."""
    s, whole = replace(shape.shape, rows=1, vectors=lines.count), isinstance(count, types.NoneType)

    def build(builder: Any, starts: Any, shape: Any, column: Any, count: Any) -> Any:
        places = [at(builder, builder.extract_value(starts, k), column) for k in range(lines.count)]
        mask = None if whole else _first(builder, count, s.lanes)
        vectors = [_loaded(builder, p, mask, s) for p in places]
        return _tile_of(builder, s, lambda row, vector: vectors[vector])

    return TileType(s)(shape, types.intp, count), build


@method(SchemeType, "weigh_beside")
def weigh_beside(scheme, here, weights, start, before, after):
    """The sums of three columns of taps, for each point: a row of the weights each, the middle one a lane's own.

    Multiply-adds of all points come one after the other: those of one point wait for each other, and fill a core's queue.
    """
    s, biased = here.shape, scheme.scheme.point_of_bias

    def build(builder: Any, scheme: Any, here: Any, weights: Any, start: Any, before: Any, after: Any) -> Any:
        def taps(k: int) -> tuple[Any, Any, Any]:
            left, own, right = (builder.extract_value(row, k) for row in (before, here, after))
            return _beside(builder, left, own, s.lanes - 1, s), own, _beside(builder, own, right, 1, s)

        seen = [taps(k) for k in range(s.vectors)]
        sums: list[Any] = []
        for b in (1, 0, 2):
            for k in range(s.vectors):
                weight = builder.extract_value(weights, b * s.vectors + k)
                if b != 1:
                    sums[k] = _fma(builder, weight, seen[k][b], sums[k], s)
                elif k == biased:
                    sums.append(_fma(builder, weight, seen[k][b], start, s))
                else:
                    sums.append(builder.fmul(weight, seen[k][b]))
        return _tile_of(builder, s, lambda row, vector: sums[vector])

    return here(here, weights, start, before, after), build


@method(TileType, "store_rows")
def store_rows(results, p, step, rows, count):
    """Vector k to p[k * step :], its first `count` lanes, or all if that is None.

    `rows` are left of the plane: a vector that has none is stored where the last row is, before it.
    """
    s, whole = results.shape, isinstance(count, types.NoneType)

    def build(builder: Any, acc: Any, p: Any, step: Any, rows: Any, count: Any) -> None:
        last, mask = builder.sub(rows, INDEX(1)), None if whole else _first(builder, count, s.lanes)
        for k in reversed(range(s.vectors)):
            row = builder.select(builder.icmp_signed("<", INDEX(k), last), INDEX(k), last) if k else INDEX(0)
            there = at(builder, p, builder.mul(row, step))
            if mask is None:
                store_vector(builder, builder.extract_value(acc, k), there, s)
            else:
                _store_masked(builder, builder.extract_value(acc, k), there, mask, s)

    return types.void(p, types.intp, types.intp, count), build
